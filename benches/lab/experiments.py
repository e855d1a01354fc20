"""Beside the scenarios: idle connections, look-ups in a large directory, a slow disk, and three curves.

Each function takes a `Lab` and returns figures ready for JSON. What is compared is measured in turn, in rounds.
"""

import contextlib
import dataclasses
import itertools
import pathlib
import time

from lab.setup import DOMAIN, certificate, csv, people, slapd, slow_sync, wait_for
from lab.load import NUMBERED, Idle, Load
from lab.measure import memory
from lab.scenarios import Maker, Shape, measured, send
from lab.servers import Fingerpost, Setting

LOOKUP_ENTRIES = 200_000
TEN = [f"{n}user@{DOMAIN}" for n in range(10)]


@dataclasses.dataclass
class Lab:
    """What an experiment needs: a folder of its own, servers by name, the modes of Fingerpost that this build has."""

    folder: pathlib.Path
    maker: Maker
    modes: list
    rounds: int
    scale: float  # of the numbers of messages and entries; 1.0 but in quick runs

    def place(self, name):
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def scaled(self, number):
        return max(20, int(number * self.scale) // 20 * 20)


def idle(lab, servers):
    """Memory that a connection takes after EHLO: (at N - at 0) / N. Postfix has a process for each: only 1,000."""
    figures = []
    pair = certificate(lab.place("idle-tls"))
    for name in servers:
        counts = [1000] if name == "postfix" else [1000, 5000]
        with Load(lab.place(f"idle-load-{name}")) as load, lab.maker.make(name, load) as server:
            figures += filled(server, counts, "plain")
        if name in lab.modes:
            with Load(lab.place(f"idle-load-tls-{name}")) as load:
                setting = Setting(lab.maker.list, name, tls=pair)
                with Fingerpost(name, lab.folder / f"idle-tls-{name}", load, setting) as server:
                    figures += filled(server, counts, "TLS")
    return figures


def filled(server, counts, how):
    """Opens connections up to each count in turn."""
    server.cgroup.settle()
    start = memory(server.cgroup.pids(), server.memory)
    with Idle(server.port, how == "TLS") as connections:
        for count in counts:
            connections.grow(count)
            time.sleep(1)
            server.cgroup.settle()
            took = memory(server.cgroup.pids(), server.memory) - start
            connections.alive()
            yield {
                "server": server.name, "how": how, "connections": count,
                "kib_each": took / count / 1024, "base_mib": start / 2**20,
            }  # fmt: skip


def lookup(lab):
    """Distinct recipients, half of them among 200,000 entries, nothing cached: slapd against the same list in a file.
    One smtp-source a run, so that no recipient comes twice."""
    entries, messages = lab.scaled(LOOKUP_ENTRIES), lab.scaled(100_000)
    place = lab.place("lookup")
    figures = {mode: {"file": [], "ldap": []} for mode in lab.modes}
    with slapd(place / "slapd", entries) as port:
        sources = {"file": csv(place / "people.csv", people(entries)), "ldap": port}
        for number, mode, (kind, source) in itertools.product(range(lab.rounds), lab.modes, sources.items()):
            folder = lab.place(f"lookup/{mode}-{kind}-{number}")
            with Load(folder) as load:
                load.pump = lambda target, count, shape: load.source(target, count, shape, f"user@{DOMAIN}")
                with Fingerpost(mode, folder / "server", load, Setting(source, mode)) as server:
                    warm(load, server)
                    figures[mode][kind].append(measured(load, server, Shape(), messages))
    return {"entries": entries, "modes": figures}


def warm(load, server):
    """5,000 messages to recipients that the measured run does not have: all unknown, all to sink B."""
    before = sum(load.taken())
    load.source(server.port, 5000, Shape(), f"warm@{DOMAIN}")
    wait_for(lambda: sum(load.taken()) - before == 5000, "the warm-up")
    server.cgroup.settle()


def slow_disk(lab):
    """Queue acceptance at 200 sessions, with and without 2 ms more for each sync. `sync_ms` is what Fingerpost itself
    saw, which shows that the delay bites."""
    library, shape = slow_sync(), Shape(sessions=200)
    figures = {"0": [], "2": []}
    for number, delay in itertools.product(range(lab.rounds), figures):
        folder = lab.place(f"slow-{delay}-{number}")
        setting = Setting(lab.maker.list, "queue", preload=library, environment={"SLOW_SYNC_MS": delay})
        with Load(folder) as load, Fingerpost("queue", folder / "server", load, setting) as server:
            send(load, server, shape, lab.scaled(5000))
            spent, syncs = syncing(server)
            result = measured(load, server, shape, lab.scaled(40_000))
            spent_then, syncs_then = syncing(server)
            syncs_made = max(1, syncs_then - syncs)
            result |= {"sync_ms": 1000 * (spent_then - spent) / syncs_made, "syncs": syncs_made}
            figures[delay].append(result)
    return figures


def syncing(server):
    """Seconds spent in syncs and their number so far."""
    name = "spool_sync_duration_seconds"
    return server.metric(f"{name}_sum"), server.metric(f"{name}_count")


def curve_of(lab, name):
    """One of the three curves: {"what": name, "modes": {mode: {size: [round, ...]}}}."""
    curves = {"domains": curve_of_domains, "recipients": curve_of_recipients, "queued": curve_of_queued}
    return {"what": name} | curves[name](lab)


def curve_of_domains(lab):
    """The cost of a message with 1 and with 100,000 accepted domains."""
    sizes = [1, lab.scaled(100_000)]
    return curve(lab, "domains", {size: Setting(lab.maker.list, domains=size) for size in sizes})


def curve_of_recipients(lab):
    """The cost of a message with 10 and with 1,000,000 recipients in a file directory.

    Half of the messages go to recipients who are in the directory: the same ten again and again, or, with a million,
    each time another one, so that fetching them from memory counts. smtp-source puts its number before each of the
    ten names, which makes ten times as many of them."""
    place, many = lab.place("recipients"), lab.scaled(1_000_000)
    names = (f"{n}user@{DOMAIN}" for n in range(many))
    settings = {10: Setting(csv(place / "few.csv", TEN)), many: Setting(csv(place / "many.csv", names))}

    def pump(load, target, count, server):
        few = server.setting.directory.name == "few.csv"
        for to in TEN:
            load.source(target, count // 2 // len(TEN), Shape(numbered=not few), to)
        load.source(target, count // 2, Shape(), f"other@{DOMAIN}")

    return curve(lab, "recipients", settings, pump)


def curve_of_queued(lab):
    """The cost of a message with an empty queue and with 10,000, 100,000 and 1,000,000 messages waiting for a next hop that
    is away. They come in through the program, as small as smtp-source makes them."""
    sizes = [lab.scaled(size) for size in (10_000, 100_000, 1_000_000)]
    source = csv(lab.place("queued") / "people.csv", people(NUMBERED // 2))
    filled_with = {}

    def filling(waiting):
        def fill(load, server):
            begun = time.monotonic()
            load.source(server.port, waiting, Shape(size=200, numbered=False), "user@dead.test")
            wait_for(lambda: server.metric("queue_messages") >= waiting, "the queue filled", 900)
            server.cgroup.settle()
            filled_with["filling_seconds"] = time.monotonic() - begun

        return fill

    settings = {size: Setting(source, dead=True) for size in (0, *sizes)}
    return curve(lab, "queued", settings, None, {size: filling(size) for size in sizes}) | filled_with


def curve(lab, name, settings, pump=None, prepare=None):
    """Servers side by side for each mode, one a size, measured in turn."""
    figures = {}
    for mode in lab.modes:
        figures[mode] = {size: [] for size in settings}
        with contextlib.ExitStack() as stack:
            running = {}
            for size, setting in settings.items():
                folder = lab.place(f"curve-{name}-{mode}-{size}")
                load = stack.enter_context(Load(folder))
                server = Fingerpost(mode, folder / "server", load, dataclasses.replace(setting, delivery=mode))
                stack.enter_context(server)
                if pump:
                    load.pump = lambda to, count, _, load=load, server=server: pump(load, to, count, server)
                send(load, server, Shape(), lab.scaled(5000))
                if prepare and size in prepare:
                    prepare[size](load, server)
                running[size] = (load, server)
            for _, (size, (load, server)) in itertools.product(range(lab.rounds), running.items()):
                figures[mode][size].append(measured(load, server, Shape(), lab.scaled(50_000)))
    return {"modes": figures}
