"""A server whose mail waits for a next hop that is away, for `benches/waiting` and `benches/memory-limit`."""

import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target/dist/fingerpost"
CONFIG = """
[server]
hostname = "mx.contoso.test"
state_dir = "{folder}/state"
[admin]
metrics_bind = "127.0.0.1:{metrics}"
bind = "127.0.0.1:{api}"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:{smtp}"]
[[accepted_domain]]
domain = "away.test"
type = "external-relay"
[[send_connector]]
name = "away"
smart_hosts = ["[127.0.0.2]:{hop}"]
delivery = "queue"
address_spaces = [{{ domain = "away.test" }}]
retry = {{ first = "20h", max = "20h" }}
"""
CLUSTER = """installation = "contoso"
[cluster]
database = "{database}"
node = "{node}"
"""


class Node:
    """The program, below a folder."""

    def __init__(self, folder, before=(), cluster=None, hop=None):
        """`before`: the command that runs it. `cluster`: the database of several nodes' queue; the folder's name is the node's.
        `hop`: the port of the next hop, where several nodes have the same."""
        self.ports = {name: free_port() for name in ("smtp", "metrics", "api")} | {"hop": hop or free_port()}
        self.config = folder / "fingerpost.toml"
        text = CONFIG.format(folder=folder, **self.ports)
        if cluster:
            text = text.replace("[admin]", CLUSTER.format(database=cluster, node=folder.name) + "[admin]")
        self.config.write_text(text)
        self.log, self.process, self.before = folder / "log", None, list(before)

    def start(self):
        """Seconds until it is ready."""
        begun = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([*self.before, PROGRAM, "--config", self.config, "run"], stdout=log, stderr=log)
        while not self.is_ready():
            if self.process.poll() is not None:
                sys.exit(f"it ended: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)
        return time.monotonic() - begun

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/readyz").status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def waiting(self):
        page = urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics").read().decode()
        found = re.search(r'^fingerpost_queue_messages\{.*"away".*"waiting".*\} (\d+)', page, re.M)
        return int(found[1]) if found else 0

    def mib(self, what):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{what}:\s+(\d+)", status, re.M)[1]) / 1024

    def run(self, *words):
        """Seconds that a command takes."""
        begun = time.monotonic()
        subprocess.run([PROGRAM, "--config", self.config, *words], check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - begun

    def drain(self, messages):
        """The next hop is back: seconds until nothing waits. Ends the program unless each message has arrived once."""
        with self.sink() as counted:
            begun = time.monotonic()
            self.run("queue", "retry", "--connector", "away")
            wait_for(lambda: self.waiting() == 0, 3600)
            seconds = time.monotonic() - begun
        arrived = int(re.findall(r"mesg=(\d+)", counted.read_text())[-1])
        if arrived != messages:
            sys.exit(f"{arrived} arrived of {messages}")
        return seconds

    @contextlib.contextmanager
    def sink(self):
        """A next hop that takes everything, and counts into this file."""
        counted = self.log.with_name("sink")
        command = ["smtp-sink", "-u", "postfix", "-c", f"127.0.0.2:{self.ports['hop']}", "500"]
        with open(counted, "wb") as file:
            sink = subprocess.Popen(command, stdout=file)
        try:
            wait_for_port("127.0.0.2", self.ports["hop"])
            yield counted
        finally:
            sink.terminate()
            sink.wait()

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()


def wait_for(is_so, seconds=120):
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            sys.exit("it does not come to that")
        time.sleep(0.05)


def wait_for_port(host, port):
    def answers():
        try:
            socket.create_connection((host, port), 1).close()
            return True
        except OSError:
            return False

    wait_for(answers)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
