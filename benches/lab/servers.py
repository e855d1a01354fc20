"""What can be measured: Fingerpost in its modes, the floor, and the generator straight into a sink.

A server is a context manager: inside it listens on `port` (a port of 127.0.0.1, or ADDRESS:PORT), and all its
processes are in `cgroup`. `passes_all` says that it has no directory: its sinks get what they get, only the sum is
counted.
"""

import contextlib
import dataclasses
import pathlib
import re
import subprocess
import sys
import urllib.request

from lab.setup import DOMAIN, FINGERPOST, FLOOR, free_port, wait_for, wait_for_port
from lab.load import SINK_A, SINK_B
from lab.measure import Cgroup


class Server:
    """One server under test. `memory` is what its memory a connection is told by."""

    passes_all = False
    memory = "Rss"

    def __init__(self, name, folder):
        self.name, self.folder, self.port = name, folder, free_port("127.0.0.1")
        self.cgroup, self.process = Cgroup(), None
        folder.mkdir(parents=True)

    def spawn(self, command, environment=None):
        with open(self.folder / "log", "wb") as log:
            command = self.cgroup.command(command)
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment)

    def parts(self):
        """CPU seconds of each of its parts so far, where they are told apart."""
        return {}

    def idle(self):
        """Nothing is left in its queue."""
        return True

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        self.cgroup.remove()

    def start(self):
        """Returns once it listens."""

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()


class Direct(Server):
    """No server at all: the generator straight into sink A. What is left is the yardstick."""

    passes_all = True

    def __init__(self, name, folder, load):
        super().__init__(name, folder)
        self.port = f"{SINK_A}:{load.sinks[0].port}"


class Floor(Server):
    """benches/floor: every line forwarded, nothing else."""

    passes_all = True

    def __init__(self, name, folder, load):
        super().__init__(name, folder)
        self.sinks = [f"{sink.ip}:{sink.port}" for sink in load.sinks]

    def start(self):
        self.spawn([FLOOR, f"127.0.0.1:{self.port}", *self.sinks])
        wait_for_port("127.0.0.1", self.port)


@dataclasses.dataclass
class Setting:
    """How a Fingerpost is set up. `directory`: a CSV file, or the port of an slapd."""

    directory: pathlib.Path | int
    delivery: str = "queue"  # or cut-through
    tls: tuple | None = None  # certificate and key
    preload: pathlib.Path | None = None  # a library for LD_PRELOAD
    environment: dict = dataclasses.field(default_factory=dict)
    domains: int = 1  # accepted ones; all but contoso.test are never written to
    dead: bool = False  # mail for dead.test waits in the queue for a next hop that is not there


class Fingerpost(Server):
    def __init__(self, name, folder, load, setting):
        super().__init__(name, folder)
        self.setting, self.metrics = setting, free_port("127.0.0.1")
        # Apart from state and log: the folders of the configuration are watched.
        self.configuration = folder / "etc/fingerpost/fingerpost.toml"
        self.configuration.parent.mkdir(parents=True)
        self.configuration.write_text(self.text(*load.ports()))
        if setting.domains > 1:
            (folder / "etc/fingerpost/domains.toml").write_text(many_domains(setting.domains - 1))

    def start(self):
        preload = {"LD_PRELOAD": str(self.setting.preload)} if self.setting.preload else {}
        environment = {"PATH": "/usr/bin:/bin", **preload, **self.setting.environment}
        self.spawn([FINGERPOST, "run", "--config", self.configuration], environment)
        wait_for(self.ready, f"{self.name} ready; see {self.folder}/log", 300)

    def ready(self):
        if self.process.poll() is not None:
            sys.exit(f"{self.name} ended at once: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            return self.get("readyz") is not None
        return False

    def get(self, page):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/{page}", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum of a metric's series."""
        values = re.findall(rf"^fingerpost_{name}(?:\{{[^}}]*\}})? (\S+)$", self.get("metrics"), re.MULTILINE)
        return sum(map(float, values))

    def problem(self):
        """Why this build does not take the configuration; nothing if it does."""
        command = [FINGERPOST, "check", "--config", self.configuration]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return (answer.stdout + answer.stderr).strip() if answer.returncode else ""

    def text(self, port_a, port_b):
        setting, delivery = self.setting, self.setting.delivery
        tls = ""
        if setting.tls:
            certificate, key = setting.tls
            tls = f'tls = {{ mode = "opportunistic", certificate = "{certificate}", key = "{key}" }}'
        parts = [f"""
[server]
hostname = "mx.{DOMAIN}"
state_dir = "{self.folder}/state"
include = [{'"domains.toml"' if setting.domains > 1 else ""}]
[admin]
metrics_bind = "127.0.0.1:{self.metrics}"
bind = "127.0.0.1:{free_port("127.0.0.1")}"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:{self.port}"]
max_connections = 20000
max_connections_per_ip = 20000
idle_timeout = "1h"
{tls}
[[accepted_domain]]
domain = "{DOMAIN}"
type = "internal-relay"
deliver_to = "a"
[[send_connector]]
name = "a"
organization = "primary"
smart_hosts = ["[{SINK_A}]:{port_a}"]
delivery = "{delivery}"
[[send_connector]]
name = "b"
organization = "secondary"
smart_hosts = ["[{SINK_B}]:{port_b}"]
address_spaces = [{{ domain = "{DOMAIN}" }}]
delivery = "{delivery}"
"""]
        parts.append(directory(setting.directory))
        parts.append(dead_end(self.port) if setting.dead else "")
        return "".join(parts)


def directory(source):
    if isinstance(source, int):
        return f"""[[directory]]
name = "people"
kind = "ldap"
mode = "lookup"
profile = "openldap"
urls = ["ldap://127.0.0.1:{source}"]
base = ["dc=contoso,dc=test"]
probe = "probe@{DOMAIN}"
"""
    return f"""[[directory]]
name = "people"
kind = "file"
path = "{source}"
"""


def dead_end(port):
    """A domain whose next hop nobody listens on, tried once within the benchmark."""
    return f"""[[accepted_domain]]
domain = "dead.test"
type = "external-relay"
[[send_connector]]
name = "dead"
smart_hosts = ["[127.0.0.4]:{port}"]
delivery = "queue"
address_spaces = [{{ domain = "dead.test" }}]
[send_connector.retry]
first = "20h"
max = "20h"
"""


def many_domains(number):
    return "".join(
        f'[[accepted_domain]]\ndomain = "d{n}.test"\ntype = "authoritative"\ndeliver_to = "a"\n' for n in range(number)
    )
