"""The rows of benches/slow-but-healthy: who is in the way, what may come of it, and one run of one row.

Fingerpost stands between a primary (127.0.0.2) and a secondary (127.0.0.3) that share a domain. Half of the measured
recipients are in its directory, a file, and go to the primary; half are not, and go to the secondary, which knows them.
Every run starts afresh: nobody had mail before, so an unresolved recipient is vouched for by nobody until the secondary
has taken his first message.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import os
import statistics
import sys
import urllib.request

from lab.setup import DOMAIN, FINGERPOST, csv, free_port
from lab.scripted_hop import Behaviour, NextHop
from lab.senders import Load, Message, Strangers

RATE, CLIENTS, PEOPLE = 20, 10, 100  # messages a second; their clients; recipients on each side
PRIMARY, SECONDARY, BRANCH, FROZEN = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"
RESOLVED = [f"p{n}@{DOMAIN}" for n in range(PEOPLE)]
UNRESOLVED = [f"s{n}@{DOMAIN}" for n in range(PEOPLE)]
UPLOAD = 150_000  # octets a second
MANY = 40  # recipients of a message that has several


@dataclasses.dataclass(frozen=True)
class Row:
    """One row. `hop` is the behaviour of both next hops, which know their users; `above` the seconds that the p99 of
    acceptance may lie above the next hop's own time."""

    title: str
    hop: Behaviour = Behaviour()
    strangers: str = ""  # "harvesters", "talkers", "uploads", "frozen branch"
    many: int = 0  # one message in so many has MANY recipients
    select: str = ""  # both connectors have a frozen smart host before the healthy one
    known: bool = False  # everybody has had mail before: half of the connections are for those whom nobody vouches for
    above: float = 1.0


ROWS = {
    "nothing": Row("nothing else happens"),
    "tarpit": Row("four harvesters meet a tarpit of 10 s on unknown users", Behaviour(tarpit=10), "harvesters"),
    "rcpt": Row("each RCPT takes 150 ms", Behaviour(rcpt=0.15)),
    "rcpt-many": Row(f"each RCPT takes 150 ms, one message in ten has {MANY}, pipelined", Behaviour(rcpt=0.15), many=10),
    "talkers": Row("40 sessions talk without sending: MAIL, RCPT, NOOP every second", strangers="talkers"),
    "uploads": Row("48 uploads at 150 KB/s are under way, half by DATA, half by BDAT", strangers="uploads"),
    "connections": Row(
        "the hop takes 4 connections, 421 to a fifth, 250 ms over a dot; everybody has had mail before",
        Behaviour(dot=0.25, connections=4),
        known=True,
    ),
    "other-frozen": Row("another connector's hop is frozen, with two messages a second for it", strangers="frozen branch"),
    "round-robin": Row("one of two smart hosts is frozen, `round-robin`", select="round-robin", above=3.0),
    "failover": Row("the first of two smart hosts is frozen, `failover`", select="failover", above=8.5),
}  # fmt: skip


def client(number):
    """Loopback addresses: measured clients from 127.0.0.101, strangers from 127.0.0.121 on."""
    return f"127.0.0.{101 + number}"


def before(number, _):
    return Message(f"<before-{number}@outside.test>", client(number % CLIENTS), [UNRESOLVED[number]])


def measured(row):
    def make(number, chance):
        side = chance.choice([RESOLVED, UNRESOLVED])
        several = row.many and number % row.many == number // row.many % row.many  # every client's turn
        count = MANY if several else 1
        recipients = chance.sample(side, count)
        own = count * row.hop.rcpt + row.hop.dot
        return Message(f"<{number}@outside.test>", client(number % CLIENTS), recipients, own=own)

    return make


class Node:
    """Fingerpost in a folder of its own: a context manager; inside it listens on `server`. `own` are its own tables, with
    `{state}`, `{domain}` and ports; `log` takes what it logs, a file in the folder if nothing else."""

    def __init__(self, folder, text, own=None, log=None):
        self.log = log
        self.folder, self.server, self.metrics = folder, ("127.0.0.1", free_port("127.0.0.1")), free_port("127.0.0.1")
        folder.mkdir()
        csv(folder / "people.csv", RESOLVED)
        self.configuration = folder / "fingerpost.toml"
        ports = {"smtp": self.server[1], "metrics": self.metrics, "admin": free_port("127.0.0.1")}
        self.configuration.write_text((own or NODE).format(state=folder / "state", domain=DOMAIN, **ports) + text)

    async def __aenter__(self):
        with open(self.folder / "log", "wb") if self.log is None else os.fdopen(self.log, "wb") as log:
            command = [FINGERPOST, "run", "--config", self.configuration]
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, start_new_session=True)
        try:
            while not await asyncio.to_thread(self.ready):
                await asyncio.sleep(0.05)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), 10)
            except (asyncio.TimeoutError, asyncio.CancelledError):
                self.process.kill()
                await self.process.wait()

    def ready(self):
        if self.process.returncode is not None:
            sys.exit(f"fingerpost ended at once: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/readyz", timeout=5) as answer:
                return answer.status == 200
        return False

    async def queue(self, *words):
        """`fingerpost queue ...`: what it prints."""
        command = [FINGERPOST, "queue", *words, "--config", self.configuration]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0]

    async def waiting(self):
        """Who waits in the queue: (queue id, address)."""
        listed = json.loads(await self.queue("list", "--limit", "100000", "--format", "json"))
        messages = listed["messages"]
        return {(each["id"], to["address"]) for each in messages for to in each["recipients"] if to["state"] != "done"}


NODE = """
[server]
hostname = "mx.{domain}"
state_dir = "{state}"
drain_timeout = "1s"
[admin]
metrics_bind = "127.0.0.1:{metrics}"
bind = "127.0.0.1:{admin}"
[spool]
min_free = "64MiB"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:{smtp}"]
max_connections_per_ip = 1000
[[directory]]
name = "people"
kind = "file"
path = "people.csv"
[[accepted_domain]]
domain = "{domain}"
type = "internal-relay"
deliver_to = "primary"
"""


def connectors(row, hosts):
    """`hosts`: the smart hosts of each connector, by name."""
    select = f'select = "{row.select}"\n' if row.select else ""
    text = ""
    for name, spaces in (("primary", None), ("secondary", DOMAIN), ("branch", "branch.test")):
        space = f'address_spaces = [{{ domain = "{spaces}" }}]\n' if spaces else ""
        text += f'[[send_connector]]\nname = "{name}"\norganization = "{name}"\nsmart_hosts = {hosts[name]}\n{select}{space}'
    return text + '[[accepted_domain]]\ndomain = "branch.test"\ntype = "external-relay"\n'


async def run(row, folder, seconds):
    """One row: the figures, ready for JSON."""
    async with contextlib.AsyncExitStack() as stack:
        async def hop(ip, behaviour):
            return await stack.enter_async_context(NextHop(ip, behaviour))

        primary = await hop(PRIMARY, dataclasses.replace(row.hop, users=frozenset(RESOLVED)))
        secondary = await hop(SECONDARY, dataclasses.replace(row.hop, users=frozenset(UNRESOLVED)))
        branch = await hop(BRANCH, Behaviour(frozen=True))
        frozen = [(await hop(FROZEN, Behaviour(frozen=True))).address for _ in range(2)] if row.select else []
        hosts = {"primary": [*frozen[:1], primary.address], "secondary": [*frozen[1:], secondary.address]}
        node = await stack.enter_async_context(Node(folder, connectors(row, {**hosts, "branch": [branch.address]})))
        earlier = Load("before", 5, PEOPLE / 5 if row.known else 0, before)
        await earlier.run(node.server)
        load = Load("slow but healthy", RATE, seconds, measured(row))
        strangers = Strangers(node.server, [each for pair in zip(RESOLVED, UNRESOLVED) for each in pair])
        await beside(load.run(node.server), in_the_way(row, strangers, seconds))
        others = strangers.uploads + earlier.messages
        arrived = await arrivals(node, (primary, secondary), load.messages + others)
        return figures(row, (load.messages, others), strangers, arrived) | {
            "turned_away": primary.turned_away + secondary.turned_away,
            "connections": max(primary.most, secondary.most),
        }


async def beside(load, strangers):
    """The load with the strangers beside it. `strangers`: their coroutines, and the seconds that they have afterwards to
    come to an end."""
    coroutines, afterwards = strangers
    others = [asyncio.create_task(each) for each in coroutines]
    try:
        await load
        if others:
            await asyncio.wait(others, timeout=afterwards)
    finally:
        for task in others:
            task.cancel()
        ended = await asyncio.gather(*others, return_exceptions=True)
    for each in ended:
        if isinstance(each, Exception):
            raise each


def in_the_way(row, strangers, seconds):
    """The strangers of a row, each from an address of his own, and the seconds that they have when the load is over."""
    def source(number):
        return client(20 + number)

    match row.strangers:
        case "harvesters":
            return [strangers.again(strangers.harvester, source(n)) for n in range(4)], 0
        case "talkers":
            return [strangers.again(strangers.talker, source(n)) for n in range(40)], 0
        case "uploads":
            return [strangers.uploader(source(n), UPLOAD, ("DATA", "BDAT")[n // 2 % 2], seconds) for n in range(48)], 60
        case "frozen branch":
            def make(number, _):
                return Message(f"<branch-{number}@outside.test>", source(number % 4), [f"b{number}@branch.test"])

            return [Load("branch", 2, seconds, make).run(strangers.server)], 0
    return [], 0


@dataclasses.dataclass
class Arrived:
    """Copies of each (message, recipient) at the next hop where he belongs; what is accepted and not there."""

    copies: collections.Counter
    waiting: int  # it waits in the queue
    lost: int  # it does not


async def arrivals(node, hops, messages):
    """Waits until all that was accepted is there, a minute at most, and what must not come had time to come."""
    due = {(message.number, to): (message.final.split()[-1], to) for message in messages for to in message.accepted}
    for second in range(60):
        if all((copies := counted(hops, messages))[each] for each in due):
            break
        if second % 5 == 0:
            await node.queue("retry", "--all")
        await asyncio.sleep(1)
    waiting = await node.waiting()
    await asyncio.sleep(1)
    copies = counted(hops, messages)
    missing = [queued for each, queued in due.items() if not copies[each]]
    return Arrived(copies, sum(each in waiting for each in missing), sum(each not in waiting for each in missing))


def counted(hops, messages):
    """Whole copies of each (message, recipient) at the side where he belongs."""
    whole = {message.number: message.size - 100 for message in messages}  # a body is whole lines
    copies = collections.Counter()
    for hop in hops:
        for number, arrived in hop.arrived.items():
            for recipients, octets in arrived:
                if octets >= whole.get(number, 0):
                    copies.update((number, to) for to in recipients if hop.has(to))
    return copies


def figures(row, sent, strangers, arrived):
    """What became of the measured messages, the first of `sent`, beside others; of the strangers what they heard."""
    messages, others = sent
    everybody = messages + others
    due = {(message.number, to) for message in everybody for to in message.accepted}
    accepted = [message for message in messages if message.final]
    seconds = [message.seconds for message in accepted]
    above = percentile([message.seconds - message.own for message in accepted], 99)

    def share(of, code):
        refused = [message for message in of if any(reply.startswith(code) for reply in message.refusals)]
        return len(refused) / len(of) if of else 0.0

    by_client = [[message for message in messages if message.source == client(n)] for n in range(CLIENTS)]
    resolved = [message for message in messages if message.recipients[0].startswith("p")]
    unresolved = [message for message in messages if message.recipients[0].startswith("s")]
    return {
        "messages": len(messages),
        "p50": percentile(seconds, 50),
        "p99": percentile(seconds, 99),
        "above": above,
        "target": row.above,
        "temporary": share(messages, "4"),
        "resolved": share(resolved, "4"),
        "unresolved": share(unresolved, "4"),
        "worst_client": max(share(of, "4") for of in by_client),
        "clients": [{"p99": percentile([each.seconds for each in of if each.final], 99), "temporary": share(of, "4")} for of in by_client],
        "permanent": share(messages, "5"),
        "unanswered": sum(bool(message.broken) for message in messages),
        "queued": sum("queued" in message.final for message in accepted),
        "waiting": arrived.waiting,
        "lost": arrived.lost,
        "twice": sum(copies > 1 for copies in arrived.copies.values()),
        "stray": sum(each not in due for each, copies in arrived.copies.items() if copies),
        "late": max(message.late for message in messages),
        "heard": dict(strangers.heard),
        "replies": dict(collections.Counter(reply for message in messages for reply in message.refusals).most_common(5)),
    }


def percentile(values, part):
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[part - 1]


def missed(result):
    """The figures that miss their targets, by name."""
    wrong = [name for name in ("temporary", "permanent", "unanswered", "waiting", "lost", "twice", "stray") if result[name]]
    if result["above"] is None or result["above"] > result["target"]:
        wrong.append("above")
    return wrong
