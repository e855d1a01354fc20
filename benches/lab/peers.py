"""The others at the same job: Postfix with an LDAP table, Haraka with its list of recipients."""

import json
import os
import pwd
import shutil
import subprocess

from lab.setup import DOMAIN, HARAKA, ROOT, people, wait_for_port
from lab.load import SINK_A, SINK_B
from lab.servers import Server


class Postfix(Server):
    """A Postfix instance of its own. Queues durably, then delivers; found in LDAP goes to sink A, the rest to sink B."""

    memory = "Pss"  # of many small processes that share nearly everything

    def __init__(self, name, folder, load, ldap_port):
        super().__init__(name, folder)
        self.etc = folder / "etc"
        for part in ("etc", "spool", "data"):
            (folder / part).mkdir()
        shutil.chown(folder / "data", pwd.getpwnam("postfix").pw_uid)
        port_a, port_b = load.ports()
        (self.etc / "people.cf").write_text(f"""server_host = ldap://127.0.0.1:{ldap_port}
search_base = dc=contoso,dc=test
version = 3
bind = no
query_filter = (mail=%s)
result_attribute = mail
result_format = smtp:[{SINK_A}]:{port_a}
""")
        (self.etc / "transport").write_text(f"{DOMAIN} smtp:[{SINK_B}]:{port_b}\n")
        (self.etc / "main.cf").write_text(self.main_cf())
        (self.etc / "master.cf").write_text(f"127.0.0.1:{self.port} inet n - n - 6000 smtpd\n{SERVICES}")

    def start(self):
        self.control("start")
        wait_for_port("127.0.0.1", self.port)

    def stop(self):
        self.control("stop")

    def control(self, word):
        command = self.cgroup.command(["/usr/sbin/postfix", "-c", self.etc, word])
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    def idle(self):
        queues = [self.folder / "spool" / name for name in ("incoming", "active", "deferred")]
        return not any(files for queue in queues for _, _, files in os.walk(queue))

    def main_cf(self):
        return f"""compatibility_level = 3.6
queue_directory = {self.folder}/spool
data_directory = {self.folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {self.folder}/log
maillog_file_prefixes = {self.folder}
myhostname = mx.{DOMAIN}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relay_domains = {DOMAIN}
smtpd_relay_restrictions = permit_auth_destination, reject
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
default_process_limit = 100
smtpd_timeout = 3600s
transport_maps = proxy:ldap:{self.etc}/people.cf, texthash:{self.etc}/transport
local_recipient_maps =
proxy_read_maps = $transport_maps
"""


SERVICES = """cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Haraka(Server):
    """Haraka, a process for each core, forwarding before its reply; found in its list goes to sink A, else sink B."""

    memory = "Pss"

    def __init__(self, name, folder, load, entries):
        super().__init__(name, folder)
        port_a, port_b = load.ports()
        etc = folder / "config"
        (folder / "plugins").mkdir()
        etc.mkdir()
        shutil.copy(ROOT / "benches/haraka/plugins/two_systems.js", folder / "plugins")
        (folder / "people").write_text("\n".join(people(entries)))
        two = {"list": f"{folder}/people", "a": {"host": SINK_A, "port": port_a}, "b": {"host": SINK_B, "port": port_b}}
        (etc / "two_systems.json").write_text(json.dumps(two))
        (etc / "plugins").write_text("two_systems\n")
        (etc / "me").write_text(f"mx.{DOMAIN}\n")
        (etc / "log.ini").write_text("[main]\nlevel=error\nformat=default\n")
        shutil.copy(HARAKA.parents[1] / "config/connection.ini", etc)
        (etc / "smtp.ini").write_text(f"listen=127.0.0.1:{self.port}\nnodes=cpus\ninactivity_timeout=3600\n")

    def start(self):
        self.spawn(["node", HARAKA, "-c", self.folder])
        wait_for_port("127.0.0.1", self.port)
