"""The rows of benches/attack: what strangers do, and what it costs honest mail, memory, disk, log and trace.

Fingerpost stands between a primary and a secondary as in slow.py, and has a connector with TLS and AUTH. Strangers come from
loopback addresses of their own; so do the ten honest clients.
"""

import asyncio
import base64
import contextlib
import functools
import os
import pathlib
import random
import shutil
import ssl
import subprocess

from lab import setup, slow
from lab.setup import DOMAIN
from lab.scripted_hop import Behaviour, NextHop
from lab.senders import Client, Load, Message

OWN = """
[server]
hostname = "mx.{domain}"
state_dir = "{state}"
drain_timeout = "1s"
[admin]
metrics_bind = "127.0.0.1:{metrics}"
bind = "127.0.0.1:{admin}"
[spool]
min_free = "MIN_FREE"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:{smtp}"]
auth = "users:users"
[receive_connector.tls]
mode = "opportunistic"
certificate = "tls.crt"
key = "tls.key"
[[directory]]
name = "people"
kind = "file"
path = "people.csv"
[[accepted_domain]]
domain = "{domain}"
type = "internal-relay"
deliver_to = "primary"
"""
# `openssl passwd -6 -salt saltsalt secret`
USERS = "ann:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"


def source(number):
    """A stranger's loopback address; each counts as a client of its own."""
    return f"127.{1 + number // 65025 % 254}.{1 + number // 255 % 254}.{1 + number % 254}"


class Attackers:
    """Who attacks, until cancelled. `done` counts what they did."""

    def __init__(self, node):
        self.node, self.server, self.done, self.begun = node, node.server, 0, set()

    def late(self, number):
        """Whether this attacker has begun already."""
        known = number in self.begun
        self.begun.add(number)
        return known

    async def again(self, one, *words):
        """Repeats it over new connections."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
                await one(*words)
            await asyncio.sleep(0.01)

    async def flood(self, number):
        """Unknown recipients, 100 in one packet."""
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            while True:
                lines = [f"RCPT TO:<{random.getrandbits(64):x}@{DOMAIN}>\r\n" for _ in range(100)]
                client.writer.write("".join(["RSET\r\nMAIL FROM:<ann@outside.test>\r\n", *lines]).encode())
                for _ in range(102):
                    refused = (await client.reply()).startswith("5")
                    self.done += refused

    async def spread(self, _):
        """The same from ever new addresses, too few from each to be noticed."""
        async with Client(self.server, source(random.randrange(10_000_000))) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            lines = [f"RCPT TO:<{random.getrandbits(64):x}@{DOMAIN}>" for _ in range(19)]
            replies = await client.say("MAIL FROM:<ann@outside.test>", *lines)
            self.done += sum(reply.startswith("5") for reply in replies)

    async def harvest(self, number):
        """Unknown recipients, one after another."""
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            await client.say("MAIL FROM:<ann@outside.test>")
            while (await client.say(f"RCPT TO:<{random.getrandbits(64):x}@{DOMAIN}>"))[0][:3] != "421":
                self.done += 1

    async def idle(self, number):
        """Says EHLO and nothing more. Who is sent away comes again later."""
        await asyncio.sleep(number / 2000)
        async with Client(self.server, source(number // 40)) as client:
            self.done += not await client.hello()
            await client.reader.read()
            await asyncio.sleep(10)

    async def knock(self, number):
        """Connects and closes."""
        async with Client(self.server, source(number)):
            self.done += 1

    async def handshake(self, number):
        """STARTTLS, the handshake, and closes."""
        reader, writer = await asyncio.open_connection(*self.server, local_addr=(source(number), 0))
        try:
            for line in (b"", b"EHLO x\r\n", b"STARTTLS\r\n"):
                writer.write(line)
                while (await reader.readuntil(b"\n"))[3:4] == b"-":
                    pass
            await writer.start_tls(anyone())
            self.done += 1
        finally:
            writer.transport.abort()

    async def slow_data(self, number):
        """DATA at 100 octets a second; ten more clients a second."""
        await asyncio.sleep(0 if self.late(number) else number / 10)
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            await client.say("MAIL FROM:<ann@outside.test>", f"RCPT TO:<p{number % 100}@{DOMAIN}>", "DATA")
            self.done += 1
            while True:
                client.writer.write(b"a line of ten\r\n" * 7)
                await client.writer.drain()
                await asyncio.sleep(1)

    async def noop(self, number):
        """MAIL, RCPT, and NOOP for ever; ten more clients a second."""
        await asyncio.sleep(0 if self.late(number) else number / 10)
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            await client.say("MAIL FROM:<ann@outside.test>", f"RCPT TO:<s{number % 100}@{DOMAIN}>")
            while True:
                await client.say("NOOP")
                self.done += 1
                await asyncio.sleep(0.5)

    async def guess(self, number):
        """Passwords of somebody who exists, over TLS."""
        reader, writer = await asyncio.open_connection(*self.server, local_addr=(source(number), 0))

        async def say(line):
            writer.write(line)
            while (text := await reader.readuntil(b"\n"))[3:4] == b"-":
                pass
            return text

        try:
            for line in (b"", b"EHLO x\r\n", b"STARTTLS\r\n"):
                await say(line)
            await writer.start_tls(anyone())
            await say(b"EHLO x\r\n")
            while True:
                secret = base64.b64encode(f"\0ann\0{random.getrandbits(64):x}".encode())
                if (await say(b"AUTH PLAIN " + secret + b"\r\n"))[:3] in (b"421", b""):
                    return
                self.done += 1
        finally:
            writer.transport.abort()

    async def reports(self, number, kind):
        """Messages that a next hop refuses in part, so that a report is due, or that ask for one."""
        senders = {"null": "", "literal": "ann@[127.0.0.1]", "nonexistent": "ann@nowhere.invalid", "success": "ann@outside.test"}
        notify = " NOTIFY=SUCCESS,FAILURE" if kind == "success" else ""
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            while True:
                to = [f"p{number % 100}@{DOMAIN}", "gone@later.test"]
                lines = [f"MAIL FROM:<{senders[kind]}>", *(f"RCPT TO:<{each}>{notify}" for each in to), "DATA"]
                if not (await client.say(*lines))[-1].startswith("354"):
                    return
                await client.say(f"From: <a@b.test>\r\nMessage-ID: <r{random.getrandbits(64):x}@b.test>\r\nDate: x\r\n\r\nx\r\n.")
                self.done += 1

    async def half_sent(self, number):
        """A large message that never ends."""
        async with Client(self.server, source(number)) as client:
            if await client.hello():
                return await asyncio.sleep(0.1)
            said = await client.say("MAIL FROM:<ann@outside.test> SIZE=30000000", f"RCPT TO:<p{number % 100}@{DOMAIN}>", "DATA")
            if not said[-1].startswith("354"):
                return await asyncio.sleep(0.1)
            for _ in range(280):
                client.writer.write((b"x" * 98 + b"\r\n") * 1000)
                await client.writer.drain()
                self.done += 100_000
                await asyncio.sleep(0.05)
            await asyncio.sleep(3600)


@functools.cache
def anyone():
    """TLS with whoever answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# name: (title, unit of what was done, the attackers)
ROWS = {
    "nothing": ("nothing happens", "", lambda a: []),
    "flood": ("refused recipients, pipelined, from 8 clients", "refused", lambda a: [a.again(a.flood, n) for n in range(8)]),
    "spread": ("refused recipients from ever new addresses", "refused", lambda a: [a.again(a.spread, n) for n in range(20)]),
    "harvest": ("40 harvesters", "refused", lambda a: [a.again(a.harvest, n) for n in range(40)]),
    "idle": ("10,000 idle connections", "connections", lambda a: [a.again(a.idle, n) for n in range(10_000)]),
    "connections": ("connection flood from 50 clients", "connections", lambda a: [a.again(a.knock, n) for n in range(50)]),
    "handshakes": ("handshake flood from 20 clients", "handshakes", lambda a: [a.again(a.handshake, n) for n in range(20)]),
    "slow": ("DATA at 100 octets a second, ten more clients a second", "begun", lambda a: [a.again(a.slow_data, n) for n in range(300)]),
    "noop": ("sessions that say MAIL, RCPT, NOOP, ten more a second", "NOOPs", lambda a: [a.again(a.noop, n) for n in range(300)]),
    "guesses": ("30 clients guess passwords", "guesses", lambda a: [a.again(a.guess, n) for n in range(30)]),
    "reports": (
        "reports: null senders, literals, nonexistent domains, SUCCESS; 12 clients",
        "messages",
        lambda a: [a.again(a.reports, n, kind) for n, kind in enumerate(("null", "literal", "nonexistent", "success") * 3)],
    ),
    "log": ("nobody reads the log; refused recipients as above", "refused", lambda a: [a.again(a.flood, n) for n in range(8)]),
    "disk": ("the disk is nearly full; 20 large messages never end", "octets", lambda a: [a.again(a.half_sent, n) for n in range(20)]),
}  # fmt: skip


async def run(name, folder, seconds):
    """One row: the figures, ready for JSON."""
    title, unit, attackers = ROWS[name]
    async with contextlib.AsyncExitStack() as stack:
        users = frozenset(slow.RESOLVED)
        primary = await stack.enter_async_context(NextHop(slow.PRIMARY, Behaviour(users=users)))
        others = frozenset(slow.UNRESOLVED)
        secondary = await stack.enter_async_context(NextHop(slow.SECONDARY, Behaviour(users=others)))
        later = await stack.enter_async_context(NextHop(slow.BRANCH, Behaviour(users=frozenset())))
        spaces = 'address_spaces = [{ domain = "%s" }]'
        text = '[[accepted_domain]]\ndomain = "later.test"\ntype = "external-relay"\n'
        for way, hop, more in (
            ("primary", primary, ""),
            ("secondary", secondary, spaces % DOMAIN),
            ("later", later, spaces % "later.test" + '\ndelivery = "queue"'),
        ):
            text += f'[[send_connector]]\nname = "{way}"\nsmart_hosts = ["{hop.address}"]\n{more}\n'
        free = shutil.disk_usage(folder.parent).free
        min_free = free - 400_000_000 if name == "disk" else 64 << 20
        log = None
        if name == "log":
            unread, log = os.pipe()
            stack.callback(os.close, unread)
        node = slow.Node(folder, text, OWN.replace("MIN_FREE", f"{min_free}B"), log)
        setup.certificate(folder)
        (folder / "users").write_text(USERS)
        node = await stack.enter_async_context(node)
        attack = Attackers(node)

        def make(number, chance):
            side = chance.choice([slow.RESOLVED, slow.UNRESOLVED])
            return Message(f"<{number}@outside.test>", slow.client(number % slow.CLIENTS), [chance.choice(side)])

        load = Load("attacked", slow.RATE, seconds, make)
        await slow.beside(load.run(node.server), (attackers(attack), 0))
        pid = node.process.pid
        memory = high_water(pid)
        stopped = await ends(node)
        disk, trace, logged = used(folder / "state"), used(folder / "state/trace"), used_file(folder / "log")
        messages = load.messages
        accepted = [message.seconds for message in messages if message.final]
        temporary = [message for message in messages if any(reply.startswith("4") for reply in message.refusals)]
        full = [m for m in temporary if all(reply.startswith(("452 4.3.1", "452-4.3.1")) for reply in m.refusals)]
        arrived = slow.counted((primary, secondary), messages)
        return {
            "title": title,
            "done": f"{attack.done:,} {unit}" if unit else "",
            "seconds": seconds,
            "messages": len(messages),
            "p50": slow.percentile(accepted, 50),
            "p99": slow.percentile(accepted, 99),
            "temporary": len(temporary) / len(messages),
            "full": len(full) / len(messages),
            "permanent": sum(any(r.startswith("5") for r in m.refusals) for m in messages) / len(messages),
            "unanswered": sum(bool(message.broken) for message in messages),
            "lost": sum("delivered" in m.final and not arrived[(m.number, to)] for m in messages for to in m.accepted),
            "memory": memory,
            "disk": disk,
            "log": logged,
            "trace": trace,
            "stopped": stopped,
            "may_defer": name == "disk",
            # Each message that is taken is told, whoever sends it.
            "taken": attack.done if name == "reports" else 0,
        }


def high_water(pid):
    """The most memory that the process had, bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


async def ends(node):
    """Whether SIGTERM ends it within five seconds."""
    node.process.terminate()
    try:
        await asyncio.wait_for(node.process.wait(), 5)
    except asyncio.TimeoutError:
        return False
    return True


def used(folder):
    """Bytes on the disk below a folder."""
    answer = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=False)
    return int(answer.stdout.split()[0]) if answer.stdout else 0


def used_file(path):
    return path.stat().st_size if path.exists() else 0


def missed(result):
    """The figures that miss their targets, by name."""
    wrong = [name for name in ("permanent", "unanswered", "lost") if result[name]]
    if result["temporary"] - (result["full"] if result["may_defer"] else 0):
        wrong.append("temporary")
    if result["p99"] is None or result["p99"] > 0.3:
        wrong.append("p99")
    minutes = max(1, result["seconds"] / 60)
    for name in ("log", "trace"):
        own = (result["messages"] + result["taken"]) * 4096
        if result[name] > minutes * 2**20 + own:
            wrong.append(name)
    return wrong + ([] if result["stopped"] else ["stopped"])
