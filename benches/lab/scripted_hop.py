"""A scripted next hop that behaves as real ones do when they are slow but healthy.

Like one process that serves a connection: commands are answered in their order, each after its own wait, however many
came in one packet (PIPELINING). A wait holds up its connection and no other. It keeps no mail, only who got which
message how often, and its size.
"""

import asyncio
import collections
import contextlib
import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How it behaves; waits in seconds."""

    rcpt: float = 0.0  # before the answer to each RCPT for a user whom it has: a WAN, a filter
    dot: float = 0.0  # before the answer to the final dot: a content filter
    users: frozenset | None = None  # whom it has; None: everybody
    tarpit: float = 0.0  # before the 550 for anybody else: Exchange's TarpitInterval, 5 s where it was not changed
    connections: int = 0  # at once; one more is greeted with 421, Exchange's MaxInboundConnectionPerSource; 0: any number
    frozen: bool = False  # accepts TCP, and says nothing


class NextHop:
    """A running next hop: a context manager. `arrived` has, for each Message-ID, every copy's recipients and octets."""

    def __init__(self, ip, behaviour):
        self.ip, self.behaviour = ip, behaviour
        self.arrived = collections.defaultdict(list)
        self.connected = self.most = self.turned_away = 0
        self.tasks = set()

    async def __aenter__(self):
        # A content is read in one piece, so the limit is that of a message.
        self.server = await asyncio.start_server(self._accept, self.ip, 0, limit=2**26)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def address(self):
        """As a smart host is written."""
        return f"[{self.ip}]:{self.port}"

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        self.connected += 1
        self.most = max(self.most, self.connected)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # only __aexit__ does that
        finally:
            self.tasks.discard(task)
            self.connected -= 1
            writer.close()

    async def _serve(self, reader, writer):
        if self.behaviour.frozen:
            await reader.read()
            return
        if self.behaviour.connections and self.connected > self.behaviour.connections:
            self.turned_away += 1
            await say(writer, "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing "
                              "transmission channel")
            return
        await say(writer, "220 hop.test ESMTP")
        await Talk(self, reader, writer).run()

    def has(self, user):
        return self.behaviour.users is None or user.lower() in self.behaviour.users


class Talk:
    """One connection after its greeting."""

    def __init__(self, hop, reader, writer):
        self.hop, self.reader, self.writer = hop, reader, writer
        self.forget()

    def forget(self):
        self.mail, self.recipients, self.chunks = False, [], b""

    async def run(self):
        while True:
            line = (await self.reader.readuntil(b"\r\n")).decode("utf-8", "replace").strip()
            verb = line.partition(" ")[0].upper()
            if verb == "DATA" and self.recipients:
                await self.data()
            elif verb == "BDAT":
                await self.bdat(line)
            else:
                await say(self.writer, await self.answer(verb, line))
            if verb == "QUIT":
                return

    async def answer(self, verb, line):
        match verb:
            case "EHLO":
                self.forget()
                return "250-hop.test\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 CHUNKING"
            case "MAIL":
                self.forget()
                self.mail = True
                return "250 2.1.0 Sender OK"
            case "RCPT":
                return await self.rcpt(path(line)) if self.mail else "503 5.5.1 MAIL first"
            case "DATA":
                return "503 5.5.1 no valid recipients"
            case "RSET":
                self.forget()
                return "250 2.0.0 Resetting"
            case "QUIT":
                return "221 2.0.0 Service closing transmission channel"
            case "NOOP":
                return "250 2.0.0 OK"
        return "500 5.3.3 Unrecognized command"

    async def rcpt(self, user):
        behaviour = self.hop.behaviour
        if not self.hop.has(user):
            await asyncio.sleep(behaviour.tarpit)
            return "550 5.1.1 User unknown"
        await asyncio.sleep(behaviour.rcpt)
        self.recipients.append(user)
        return "250 2.1.5 Recipient OK"

    async def data(self):
        await say(self.writer, "354 Start mail input; end with <CRLF>.<CRLF>")
        await self.take(await self.reader.readuntil(b"\r\n.\r\n"))

    async def bdat(self, line):
        """RFC 3030."""
        _, size, *last = line.split()
        self.chunks += await self.reader.readexactly(int(size))
        if last:
            await self.take(self.chunks)
        else:
            await say(self.writer, "250 2.0.0 chunk received")

    async def take(self, content):
        """The whole content is there."""
        await asyncio.sleep(self.hop.behaviour.dot)
        self.hop.arrived[message_id(content)].append((tuple(self.recipients), len(content)))
        self.forget()
        await say(self.writer, "250 2.6.0 Queued mail for delivery")


async def say(writer, reply):
    writer.write(f"{reply}\r\n".encode())
    await writer.drain()


def path(line):
    """The address in a MAIL or RCPT command."""
    return line.partition("<")[2].partition(">")[0]


def message_id(content):
    """The value of Message-ID in the header section."""
    found = re.search(rb"^Message-ID: *(<[^>]*>)", content[:8192], re.MULTILINE | re.IGNORECASE)
    return found[1].decode() if found else "none"
