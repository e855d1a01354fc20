"""Where a server's time goes: `perf record` while a scenario runs, its busiest functions, and their kinds. And how many
instructions of its own a message takes, counted by valgrind: the same figure again whatever else the machine does."""

import collections
import re
import signal
import subprocess

from lab.setup import TARGET
from lab.load import Load
from lab.scenarios import send

# The first that fits. What is left is the program's own code and its runtime, by crate where the symbol tells it.
KINDS = (
    ("kernel", r"\[k\]"),
    ("memory: allocation and copying", r"malloc|free|realloc|calloc|memmove|memcpy|memset|__rust_alloc|RawVec|raw_vec"),
    ("TLS and checksums", r"aws_lc|rustls|sha256|SHA|crc32|hmac"),
    ("runtime (tokio, futexes, clock)", r"tokio|mio::|parking_lot|futex|clock_gettime|pthread|std::sys|core::task"),
    ("logs and metrics", r"tracing|prometheus"),
    ("parsing (smtp, message, memchr)", r"fingerpost::(smtp|message)|memchr|core::str|from_utf8"),
    ("fingerpost: the rest", r"fingerpost::"),
)


def profile(maker, name, scenario, amount):
    """Runs the scenario under perf and prints the 40 busiest functions and the share of each kind."""
    data = TARGET / "perf.data"
    with Load(maker.place(f"profile-{maker.made}")) as load, maker.make(name, load) as server:
        send(load, server, scenario.shape, amount[0])
        pids = ",".join(map(str, server.cgroup.pids()))
        command = ["perf", "record", "--quiet", "-g", "-F", "499", "-o", data, "-p", pids]
        recorder = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        send(load, server, scenario.shape, amount[1])
        recorder.send_signal(signal.SIGINT)
        recorder.wait()
    rows = shares(data, "--no-children")
    print(f"\n{name}: the busiest functions themselves, without what they call; all of it: perf report -i {data}")
    show(rows[:40])
    print("\nthe kernel by system call, with all that it does for it")
    show([row for row in shares(data, "--children") if "__x64_sys_" in row[1]][:15])
    kinds = collections.Counter()
    for share, symbol in rows:
        kinds[next((kind for kind, pattern in KINDS if re.search(pattern, symbol)), "others")] += share
    print("\nby kind")
    show([(share, kind) for kind, share in kinds.most_common()])


def instructions(maker, name, scenario, amount):
    """Runs the scenario under callgrind and prints the instructions a message takes outside the kernel. Code that asks
    the processor what it can do (checksums, SHA-256) takes a slower way there than without valgrind."""
    out = TARGET / f"callgrind-{name}"
    out.unlink(missing_ok=True)
    with Load(maker.place(f"instructions-{maker.made}")) as load, maker.make(name, load) as server:
        send(load, server, scenario.shape, amount[0])
        pid = str(server.cgroup.pids()[0])
        for command in (["-i", "on"], None, ["-i", "off"], ["-d"]):
            if command is None:
                send(load, server, scenario.shape, amount[1])
            else:
                subprocess.run(["callgrind_control", *command, pid], check=True, stdout=subprocess.DEVNULL)
    dumps = [out, *out.parent.glob(f"{out.name}.[0-9]*")]
    totals = [int(re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)[1]) for dump in dumps if dump.exists()]
    print(f"{name}: {max(totals) // amount[1]:,} instructions a message; callgrind_annotate --inclusive=yes {out}.1")


def under_valgrind(program, name):
    """A script that runs the program under callgrind, which counts nothing until it is told to."""
    script = TARGET / f"under-valgrind-{name}"
    tool = f"valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file={TARGET}/callgrind-{name}"
    script.write_text(f'#!/bin/sh\nexec {tool} {program} "$@"\n')
    script.chmod(0o755)
    return script


def shares(data, children):
    """(per cent, symbol), the largest first; "--children": with what a function calls."""
    command = ["perf", "report", "-i", data, "--stdio", children, "-g", "none", "--percent-limit", "0.02"]
    answer = subprocess.run([*command, "--sort", "symbol"], capture_output=True, text=True, check=True)
    rows = re.findall(r"^ +([\d.]+)%(?: +[\d.]+%)? +(\[[k.]\] .*?) *$", answer.stdout, re.MULTILINE)
    return [(float(share), symbol) for share, symbol in rows]


def show(rows):
    for share, words in rows:
        print(f"{share:6.2f} %  {words[:130]}")
