"""Senders by asyncio: the mail that is measured, and the strangers who are in its way.

The load is open: a message begins at its own moment, over a connection of its own, whatever became of those before it.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random

SIZE = 4096  # octets of a measured message
GIVES_UP = 90  # seconds that a sender waits for one message in all


@dataclasses.dataclass
class Message:
    """One message, and what became of it."""

    number: str  # its Message-ID
    source: str  # the client's address
    recipients: list
    size: int = SIZE
    own: float = 0.0  # seconds that the next hop itself takes for it
    late: float = 0.0  # seconds that the generator began it too late
    seconds: float = 0.0  # from the connection's begin to the 250 after the dot
    accepted: list = dataclasses.field(default_factory=list)  # recipients for whom a 250 after the dot was heard
    refusals: list = dataclasses.field(default_factory=list)  # every 4xx and 5xx, at any step
    final: str = ""  # the 250 after the dot
    broken: str = ""  # why there is neither a 250 nor a refusal


class Client:
    """A connection from a loopback address of one's own."""

    def __init__(self, server, source):
        self.server, self.source, self.writer = server, source, None

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection(*self.server, local_addr=(self.source, 0))
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()

    async def reply(self):
        """One reply, all its lines; the end of the connection is an error."""
        text = ""
        while True:
            line = (await self.reader.readuntil(b"\n")).decode("utf-8", "replace")
            text += line
            if line[3:4] != "-":
                return text.strip()

    async def say(self, *lines):
        """Lines in one packet; their replies."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        await self.writer.drain()
        return [await self.reply() for _ in lines]

    async def hello(self):
        """Greeting and EHLO; the first refusal, or nothing."""
        greeting = await self.reply()
        return refusal([greeting]) or refusal(await self.say("EHLO client.test"))


def refusal(replies):
    return next((reply for reply in replies if reply[:1] in "45"), "")


def header(message):
    to = message.recipients[0] if len(message.recipients) == 1 else "undisclosed-recipients:;"
    return (f"From: <sender@outside.test>\r\nTo: {to}\r\nSubject: slow, but healthy\r\n"
            f"Date: Sat, 28 Nov 2026 12:00:00 +0000\r\nMessage-ID: {message.number}\r\n\r\n").encode()


def body(size):
    line = b"A line of a message as people write them: neither long nor short.\r\n"
    return line * max(1, size // len(line))


async def send(server, message):
    """Sends one message and notes what became of it."""
    begun = asyncio.get_running_loop().time()
    try:
        await asyncio.wait_for(conversation(server, message), GIVES_UP)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        message.broken = "" if message.refusals else repr(error)
    message.seconds = asyncio.get_running_loop().time() - begun


async def conversation(server, message, how="DATA", rate=0):
    """The whole of it: notes refusals, and whom the final 250 is for."""
    async with Client(server, message.source) as client:
        taken, refused = [], await client.hello()
        if not refused:
            taken, refused = await envelope(client, message)
        if taken:
            last = await content(client, header(message) + body(message.size), how, rate)
            if last.startswith("250"):
                message.accepted, message.final = taken, last
            else:
                refused = last
        if refused:
            message.refusals.append(refused)


async def envelope(client, message):
    """MAIL and RCPT, pipelined where there are several (RFC 2920). Returns who was taken, and the refusal of MAIL."""
    lines = ["MAIL FROM:<sender@outside.test>", *(f"RCPT TO:<{each}>" for each in message.recipients)]
    if len(message.recipients) > 1:
        mail, *rcpt = await client.say(*lines)
    else:
        mail = (await client.say(lines[0]))[0]
        if refusal([mail]):
            return [], mail
        rcpt = await client.say(lines[1])
    message.refusals += [reply for reply in rcpt if refusal([reply])]
    taken = [each for each, reply in zip(message.recipients, rcpt) if reply.startswith("250")]
    return taken, refusal([mail])


async def content(client, octets, how, rate):
    """The last reply. `rate` 0: at once."""
    if how == "DATA":
        (go_on,) = await client.say("DATA")
        if not go_on.startswith("354"):
            return go_on
        octets += b".\r\n"
    else:
        client.writer.write(f"BDAT {len(octets)} LAST\r\n".encode())
    if rate:
        await trickle(client, octets, rate)
    else:
        client.writer.write(octets)
    return await client.reply()


class Load:
    """Messages at random moments, evenly spread, the same ones in every run."""

    def __init__(self, name, rate, seconds, make):
        """`make(number, random)` makes a message for each of `rate * seconds` moments."""
        chance = random.Random(name)
        self.moments = sorted(chance.uniform(0, seconds) for _ in range(int(rate * seconds)))
        self.messages = [make(number, chance) for number in range(len(self.moments))]

    async def run(self, server):
        """Returns when the last message has its answer."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with contextlib.AsyncExitStack() as stack:
            under_way = []
            stack.callback(lambda: [task.cancel() for task in under_way])
            for moment, message in zip(self.moments, self.messages):
                await asyncio.sleep(begun + moment - loop.time())
                message.late = loop.time() - begun - moment
                under_way.append(asyncio.create_task(send(server, message)))
            await asyncio.gather(*under_way)


class Strangers:
    """Who is in the way, until cancelled. `heard` counts replies by their code, `uploads` are messages of their own."""

    def __init__(self, server, users):
        self.server, self.users = server, itertools.cycle(users)
        self.heard, self.uploads = collections.Counter(), []

    async def again(self, one, source):
        """Repeats it over new connections, a second apart."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with Client(self.server, source) as client:
                    if await client.hello() == "":
                        await one(client)
            await asyncio.sleep(1)

    def hear(self, reply):
        self.heard[reply[:3]] += 1
        return reply

    async def harvester(self, client):
        """Tries out names, one after another."""
        await client.say("MAIL FROM:<harvester@outside.test>")
        while True:
            name = f"{random.getrandbits(48):x}@contoso.test"
            (reply,) = await client.say(f"RCPT TO:<{name}>")
            if self.hear(reply).startswith("421"):
                return
            await asyncio.sleep(0 if reply.startswith("5") else 0.1)  # a 451 may come at once

    async def talker(self, client):
        """Says MAIL, RCPT, and then NOOP every second."""
        await client.say("MAIL FROM:<talker@outside.test>")
        (reply,) = await client.say(f"RCPT TO:<{next(self.users)}>")
        while self.hear(reply).startswith("250"):
            await asyncio.sleep(1)
            (reply,) = await client.say("NOOP")

    async def uploader(self, source, rate, how, seconds):
        """Sends content slowly, `rate` octets a second for `seconds`, by "DATA" or "BDAT" (in one chunk). Where it is
        refused it begins anew, a second later, with what would still be under way."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            number = f"<upload-{source}-{len(self.uploads)}@outside.test>"
            message = Message(number, source, [next(self.users)], int(rate * left))
            self.uploads.append(message)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await conversation(self.server, message, how, rate)
            self.heard.update(reply[:3] for reply in [message.final, *message.refusals] if reply)
            if message.final:
                return
            await asyncio.sleep(1)


async def trickle(client, octets, rate):
    """Ten pieces a second, at their moments."""
    loop, piece = asyncio.get_running_loop(), rate // 10
    begun = loop.time()
    for number, at in enumerate(range(0, len(octets), piece)):
        await asyncio.sleep(begun + number / 10 - loop.time())
        client.writer.write(octets[at:at + piece])
        await client.writer.drain()
