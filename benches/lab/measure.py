"""CPU time and memory of a server's processes, all of them: a control group of their own counts them."""

import contextlib
import os
import pathlib
import re
import threading
import time

from lab.setup import wait_for


class Cgroup:
    """CPU time of a process and all its children, by cgroup version 1 or 2."""

    made = 0

    def __init__(self):
        Cgroup.made += 1
        v1 = pathlib.Path("/sys/fs/cgroup/cpuacct")
        self.v1 = v1.is_dir()
        self.path = (v1 if self.v1 else pathlib.Path("/sys/fs/cgroup")) / f"fp-bench-{os.getpid()}-{Cgroup.made}"
        self.path.mkdir()

    def command(self, command):
        """The command so changed that it runs in here."""
        return ["/bin/sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs"), *map(str, command)]

    def seconds(self):
        """User and system time so far."""
        if self.v1:
            return int((self.path / "cpuacct.usage").read_text()) / 1e9
        return int(re.search(r"usage_usec (\d+)", (self.path / "cpu.stat").read_text())[1]) / 1e6

    def pids(self):
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    def settle(self):
        """Waits until the processes rest: what they had to do is done."""
        before = self.seconds()
        for _ in range(200):
            time.sleep(0.1)
            now = self.seconds()
            if now - before < 0.002:
                return
            before = now

    def remove(self):
        wait_for(lambda: not self.pids(), "the server's processes to end")
        self.path.rmdir()


def memory(pids, what):
    """Bytes of these processes together. `what`: "Rss" counts shared pages once a process, "Pss" once in all."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024
    return total


class Peak:
    """The most that the processes of a group took together (resident, shared pages counted in each), looked at ten
    times a second. A single process's own high-water mark is exact and counts too."""

    def __init__(self, cgroup):
        self.cgroup, self.highest, self.over = cgroup, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        pids = self.cgroup.pids()
        if len(pids) == 1:
            self.highest = max(self.highest, _status(pids[0], "VmHWM"))

    def _watch(self):
        while not self.over.wait(0.1):
            self.highest = max(self.highest, sum(_status(pid, "VmRSS") for pid in self.cgroup.pids()))


def _status(pid, field):
    with contextlib.suppress(OSError):
        match = re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        return int(match[1]) * 1024 if match else 0
    return 0
