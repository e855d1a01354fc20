"""The load: Postfix's smtp-source and smtp-sink, and connections that only stand there."""

import re
import signal
import socket
import ssl
import subprocess
import sys

from lab.setup import DOMAIN, free_port, wait_for, wait_for_port
from lab.measure import Cgroup

SINK_A, SINK_B = "127.0.0.2", "127.0.0.3"
NUMBERED = 20_000  # a numbered run has recipients 1user to 20000user; the directory knows every second


class Load:
    """Sink A, sink B and the generator, in a control group of their own: the yardstick."""

    def __init__(self, folder):
        self.cgroup = Cgroup()
        self.sinks = [Sink(ip, folder, self.cgroup) for ip in (SINK_A, SINK_B)]

    def __enter__(self):
        for sink in self.sinks:
            sink.start()
        return self

    def __exit__(self, *_):
        for sink in self.sinks:
            sink.stop()
        self.cgroup.remove()

    def ports(self):
        return [sink.port for sink in self.sinks]

    def taken(self):
        """Messages that each sink has taken."""
        return [sink.taken() for sink in self.sinks]

    def pump(self, port, messages, shape, to=f"user@{DOMAIN}"):
        """Sends messages to 127.0.0.1:port (or another address) and returns when the last has its reply."""
        at_once = NUMBERED if shape.recipients == 1 else messages
        while messages > 0:
            run = min(messages, at_once)
            self.source(port, run, shape, to)
            messages -= run

    def source(self, port, messages, shape, to):
        """One smtp-source: `-N` numbers the recipients from 1; ten recipients are 10user ... 2user and user."""
        command = ["smtp-source", "-s", shape.sessions, "-m", messages, "-l", shape.size, "-f", "sender@sender.test"]
        command += ["-d"] if shape.reuse else []
        command += ["-N"] if shape.recipients == 1 and shape.numbered else ["-r", shape.recipients]
        command += ["-t", to, f"127.0.0.1:{port}" if isinstance(port, int) else port]
        if subprocess.run(self.cgroup.command(command), check=False).returncode != 0:
            sys.exit(f"smtp-source failed: {' '.join(map(str, command))}")


class Sink:
    """smtp-sink, which writes its counters to a file."""

    def __init__(self, ip, folder, cgroup):
        self.ip, self.cgroup, self.log = ip, cgroup, folder / f"sink-{ip}"
        self.port = free_port(ip)

    def start(self):
        with open(self.log, "wb") as log:
            command = ["smtp-sink", "-u", "nobody", "-c", "-m", 20_000, f"{self.ip}:{self.port}", 4000]
            self.process = subprocess.Popen(self.cgroup.command(command), stdout=log, stderr=subprocess.STDOUT)
        wait_for_port(self.ip, self.port)

    def taken(self):
        with open(self.log, "rb") as log:
            log.seek(max(0, log.seek(0, 2) - 400))
            counters = re.findall(rb"mesg=(\d+)", log.read())
        return int(counters[-1]) if counters else 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Idle:
    """Connections that have said EHLO (after STARTTLS, with `tls`) and nothing since."""

    def __init__(self, port, tls):
        self.port, self.context, self.open = port, None, []
        if tls:
            self.context = ssl.create_default_context()
            self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    def __enter__(self):
        return self

    def grow(self, number):
        while len(self.open) < number:
            self.open.append(self._connect())

    def _connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        _reply(connection)
        _say(connection, b"EHLO idle.test")
        if self.context:
            _say(connection, b"STARTTLS")
            connection = self.context.wrap_socket(connection)
            _say(connection, b"EHLO idle.test")
        return connection

    def alive(self):
        """Every connection still answers."""
        for connection in self.open:
            _say(connection, b"NOOP")

    def __exit__(self, *_):
        for connection in self.open:
            connection.close()


def _say(connection, line):
    connection.sendall(line + b"\r\n")
    _reply(connection)


def _reply(connection):
    text = b""
    while not re.search(rb"(?:^|\n)\d\d\d [^\n]*\n$", text):
        block = connection.recv(4096)
        if not block:
            sys.exit(f"an idle connection ended after {text!r}")
        text += block
    if text[:1] not in b"23":
        sys.exit(f"an idle connection was refused: {text!r}")


def delivered(load, before, total):
    """Waits until the sinks have taken `total` more than `before`."""
    wait_for(lambda: sum(load.taken()) - sum(before) >= total, f"{total} messages delivered", 600)
