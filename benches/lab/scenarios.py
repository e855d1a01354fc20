"""The scenarios: what is sent, how much of it, to which servers; and one round of one server."""

import dataclasses
import time

from lab.setup import ENTRIES, csv, people, wait_for
from lab.clustered import Clustered
from lab.load import Load, delivered
from lab.measure import Peak
from lab.peers import Haraka, Postfix
from lab.servers import Direct, Fingerpost, Floor, Setting


@dataclasses.dataclass(frozen=True)
class Shape:
    """What smtp-source sends."""

    size: int = 4096
    sessions: int = 20
    reuse: bool = True  # many messages a connection
    recipients: int = 1
    numbered: bool = True  # every recipient another one


@dataclasses.dataclass(frozen=True)
class Scenario:
    """`messages` for the fast servers, `slow` for Postfix and Haraka; each with a warm-up before."""

    title: str
    shape: Shape
    messages: int = 100_000
    slow: int = 6_000


SCENARIOS = {
    "S1": Scenario("4 KiB, 20 sessions, one message a connection", Shape(reuse=False)),
    "S2": Scenario("4 KiB, 20 sessions, many messages a connection", Shape()),
    "S3": Scenario("100 KiB, 20 sessions, many messages a connection", Shape(size=102_400), 20_000, 3_000),
    "S6": Scenario("4 KiB, ten recipients, five on each side", Shape(recipients=10), 50_000, 3_000),
}

SLOW = ("postfix", "haraka")
NAMES = ("direct", "floor", "cut-through", "queue", "cut-through-ldap", "queue-ldap", "clustered", "clustered-alone", *SLOW)
NAMED = ("clustered", "clustered-alone")  # only where asked for
GROUPS = {"fingerpost": ("cut-through", "queue"), "fingerpost-ldap": ("cut-through-ldap", "queue-ldap")}


class Maker:
    """Makes servers by name, for the common job: half of the recipients found, out of 10,000."""

    def __init__(self, folder, ldap_port):
        self.folder, self.ldap_port, self.made = folder, ldap_port, 0
        self.list = csv(folder / "people.csv", people(ENTRIES))

    def place(self, name):
        """A folder of this name."""
        path = self.folder / name
        path.mkdir()
        return path

    def make(self, name, load):
        self.made += 1
        folder = self.folder / f"{name}-{self.made}"
        match name:
            case "direct":
                return Direct(name, folder, load)
            case "floor":
                return Floor(name, folder, load)
            case "postfix":
                return Postfix(name, folder, load, self.ldap_port)
            case "haraka":
                return Haraka(name, folder, load, ENTRIES)
            case "clustered" | "clustered-alone":
                return Clustered(name, folder, load, Setting(self.list), name == "clustered")
        source = self.ldap_port if name.endswith("-ldap") else self.list
        return Fingerpost(name, folder, load, Setting(source, name.removesuffix("-ldap")))


def fresh(maker, name, scenario, amount):
    """One round: a server of its own, warmed up, measured. `amount` is (warm-up, messages)."""
    with Load(maker.place(f"load-{maker.made}")) as load, maker.make(name, load) as server:
        send(load, server, scenario.shape, amount[0])
        return measured(load, server, scenario.shape, amount[1])


def copies(server, shape, messages):
    """What the two sinks must have taken, or only their sum."""
    if server.passes_all:
        return None, messages
    each = messages if shape.recipients > 1 else messages // 2
    return [each, each], 2 * each


def send(load, server, shape, messages):
    """Sends and waits until everything has arrived, where it belongs. Returns the seconds to the last reply and to
    the last delivery."""
    before, begun = load.taken(), time.monotonic()
    load.pump(server.port, messages, shape)
    accepted = time.monotonic() - begun
    exact, total = copies(server, shape, messages)
    delivered(load, before, total)
    arrived = time.monotonic() - begun
    wait_for(server.idle, f"an empty queue of {server.name}")
    server.cgroup.settle()
    counts = [now - then for now, then in zip(load.taken(), before)]
    if sum(counts) != total or exact not in (None, counts):
        raise SystemExit(f"{server.name}: sink A took {counts[0]}, sink B {counts[1]}; {exact or total} were due")
    return accepted, arrived


def measured(load, server, shape, messages):
    """The figures of one measured run. `cpu_ms` and `load_cpu_ms` are a message's."""
    cpu, load_cpu, parts = server.cgroup.seconds(), load.cgroup.seconds(), server.parts()
    with Peak(server.cgroup) as peak:
        accepted, arrived = send(load, server, shape, messages)
    return {
        "messages": messages,
        "accepted_per_second": messages / accepted,
        "delivered_per_second": messages / arrived,
        "cpu_ms": 1000 * (server.cgroup.seconds() - cpu) / messages,
        "load_cpu_ms": 1000 * (load.cgroup.seconds() - load_cpu) / messages,
        "peak_mib": peak.highest / 2**20,
        "parts_ms": {name: 1000 * (now - parts[name]) / messages for name, now in server.parts().items()},
    }
