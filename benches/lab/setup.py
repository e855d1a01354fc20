"""What every run needs: builds, free ports, waiting, recipients, slapd, a certificate, the sync shim."""

import contextlib
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "target/bench"
FINGERPOST = ROOT / "target/dist/fingerpost"
FLOOR = ROOT / "target/floor/release/floor"
HARAKA = TARGET / "haraka/node_modules/Haraka/bin/haraka"

DOMAIN = "contoso.test"
ENTRIES = 10_000  # of the directory in the common job: 2user@contoso.test, 4user@contoso.test and so on


CARGO = ["cargo", "build", "--locked", "--quiet"]


def build():
    """Release builds of Fingerpost and the floor."""
    build_fingerpost()
    subprocess.run([*CARGO, "--release", "--target-dir", ROOT / "target/floor"], cwd=ROOT / "benches/floor", check=True)


def build_fingerpost():
    """The build that is installed (profile `dist`)."""
    subprocess.run([*CARGO, "--profile", "dist"], cwd=ROOT, check=True)
    TARGET.mkdir(parents=True, exist_ok=True)


def install_haraka():
    """Puts Haraka below target/, as its lock file says. Returns why it cannot, or nothing."""
    home, source = TARGET / "haraka", ROOT / "benches/haraka"
    home.mkdir(parents=True, exist_ok=True)
    lock = home / "package-lock.json"
    if HARAKA.exists() and lock.read_bytes() == (source / lock.name).read_bytes():
        return ""
    if not shutil.which("npm"):
        return "npm is not installed"
    for name in ("package.json", lock.name):
        shutil.copy(source / name, home / name)
    command = ["npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    answer = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    return answer.stderr if answer.returncode else ""


def slow_sync():
    """The library that makes syncs slow, compiled."""
    library = TARGET / "slow_sync.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, ROOT / "benches/slow_sync.c", "-ldl"], check=True)
    return library


def certificate(folder):
    """A key and a certificate for itself, PEM: (certificate, key)."""
    made = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=mx.contoso.test", "-days", "30", "-out", made[0], "-keyout", made[1]]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return made


def people(entries):
    """Names that the directory knows: every second number, so that half of smtp-source's recipients are found."""
    return (f"{2 * number}user@{DOMAIN}" for number in range(1, entries + 1))


def csv(path, addresses):
    path.write_text("address\n" + "\n".join(addresses) + "\n")
    return path


@contextlib.contextmanager
def slapd(folder, entries):
    """slapd with a probe and `people(entries)`; yields its port."""
    (folder / "db").mkdir(parents=True)
    (folder / "slapd.conf").write_text(f"""include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
sizelimit unlimited
database mdb
maxsize 4294967296
suffix "dc=contoso,dc=test"
directory {folder}/db
index objectClass,mail eq
""")
    with open(folder / "people.ldif", "w", encoding="ascii") as ldif:
        ldif.write("dn: dc=contoso,dc=test\nobjectClass: domain\ndc: contoso\n\n")
        for address in [f"probe@{DOMAIN}", *people(entries)]:
            name = address.partition("@")[0]
            ldif.write(f"dn: cn={name},dc=contoso,dc=test\nobjectClass: inetOrgPerson\ncn: {name}\nsn: {name}\n")
            ldif.write(f"mail: {address}\n\n")
    subprocess.run(["slapadd", "-q", "-f", folder / "slapd.conf", "-l", folder / "people.ldif"], check=True)
    port = free_port("127.0.0.1")
    process = subprocess.Popen(["slapd", "-d", "0", "-f", folder / "slapd.conf", "-h", f"ldap://127.0.0.1:{port}"])
    try:
        wait_for_port("127.0.0.1", port)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def free_port(ip):
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return probe.getsockname()[1]


def wait_for_port(ip, port):
    def answers():
        with contextlib.suppress(OSError):
            socket.create_connection((ip, port), timeout=1).close()
            return True
        return False

    wait_for(answers, f"{ip}:{port}")


def wait_for(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.01)
