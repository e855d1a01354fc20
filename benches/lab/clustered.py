"""Fingerpost with its queue in PostgreSQL: a node, a primary with its walsender, and a synchronous standby, each in a
control group of its own. The node's and the primary's time together is the server's; the standby's stands apart."""

import pathlib
import pwd
import subprocess

from lab.setup import FINGERPOST, free_port, wait_for
from lab.measure import Cgroup
from lab.servers import Fingerpost

USER = "postgres"  # PostgreSQL refuses to be root


class Together:
    """Several control groups as one; processes start in the first."""

    settle = Cgroup.settle

    def __init__(self, *groups):
        self.groups = groups

    def command(self, command):
        return self.groups[0].command(command)

    def seconds(self):
        return sum(group.seconds() for group in self.groups)

    def pids(self):
        return [pid for group in self.groups for pid in group.pids()]

    def remove(self):
        for group in self.groups:
            group.remove()


class Postgres:
    """A server with a database of the role `fingerpost`."""

    def __init__(self, folder):
        self.folder, self.port, self.cgroup, self.process = folder, free_port("127.0.0.1"), Cgroup(), None
        folder.mkdir(parents=True)
        user = pwd.getpwnam(USER)
        subprocess.run(["chown", f"{user.pw_uid}:{user.pw_gid}", folder], check=True)

    def initialize(self):
        self.run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "fingerpost", "-D", self.folder / "data")
        self.settings(f"port = {self.port}\nunix_socket_directories = ''\nmax_connections = 60\n")

    def copy(self, primary):
        self.run("pg_basebackup", "-h", "127.0.0.1", "-p", primary.port, "-U", "fingerpost", "-R", "-D", self.folder / "data")
        self.settings(f"port = {self.port}\n")

    def settings(self, text):
        with open(self.folder / "data/postgresql.conf", "a", encoding="ascii") as file:
            file.write(text)

    def start(self):
        with open(self.folder / "log", "wb") as log:
            command = self.cgroup.command(self.command("postgres", "-D", self.folder / "data"))
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        ready = [binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "fingerpost", "-d", "postgres"]
        wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, f"PostgreSQL; see {self.folder}/log")

    def sql(self, text):
        at = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "fingerpost", "-d", "postgres"]
        return subprocess.run([binary("psql"), "-qAt", *at, "-c", text], check=True, capture_output=True, text=True).stdout

    def stand_by(self, standby):
        """Makes this other server its synchronous standby."""
        standby.copy(self)
        standby.start()
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        connected = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_for(lambda: self.sql(connected).strip() == "1", "the synchronous standby")

    def stop(self):
        if self.process:
            self.process.send_signal(2)  # fast: sessions are ended
            self.process.wait()

    def kill(self):
        """Stops it, and removes its control group."""
        self.stop()
        self.cgroup.remove()

    def run(self, name, *arguments):
        subprocess.run(self.command(name, *arguments), check=True, stdout=subprocess.DEVNULL)

    @staticmethod
    def command(name, *arguments):
        return ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", binary(name), *map(str, arguments)]


def binary(name):
    """A program of the installed PostgreSQL: the newest of several."""
    return str(max(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])))


class Clustered(Fingerpost):
    """`standby`: whether commits wait for one."""

    memory = "Pss"

    def __init__(self, name, folder, load, setting, standby=True):
        self.primary = Postgres(folder / "primary")
        self.with_standby, self.standby = standby, None
        super().__init__(name, folder / "node", load, setting)
        self.node = self.cgroup
        self.cgroup = Together(self.node, self.primary.cgroup)

    def text(self, port_a, port_b):
        text = super().text(port_a, port_b).replace("[server]\n", '[server]\ninstallation = "bench"\n')
        return f"""{text}
[cluster]
database = "postgresql://fingerpost@127.0.0.1:{self.primary.port}/postgres?sslmode=disable"
node = "bench"
standby = "{"required" if self.with_standby else "preferred"}"
"""

    def start(self):
        self.primary.initialize()
        self.primary.start()
        if self.with_standby:
            self.standby = Postgres(self.folder.parent / "standby")
            self.primary.stand_by(self.standby)
        subprocess.run([FINGERPOST, "cluster", "init", "--config", self.configuration], check=True, stdout=subprocess.DEVNULL)
        super().start()

    def parts(self):
        """Seconds of each so far."""
        parts = {"node": self.node.seconds(), "primary": self.primary.cgroup.seconds()}
        return parts | ({"standby": self.standby.cgroup.seconds()} if self.standby else {})

    def stop(self):
        super().stop()
        for postgres in (self.standby, self.primary):
            if postgres:
                postgres.stop()
        if self.standby:
            self.standby.cgroup.remove()
