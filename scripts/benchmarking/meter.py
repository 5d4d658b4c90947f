"""What the operating system says of processes: CPU time, memory, cores. Linux."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_libc = ctypes.CDLL(None, use_errno=True)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process with all its threads, user and system, to the nanosecond:
    clock_getcpuclockid(3). /proc/PID/stat has the same in ticks of 10 ms."""
    clock_id = ctypes.c_int()
    error = _libc.clock_getcpuclockid(pid, ctypes.byref(clock_id))
    if error:
        raise OSError(error, os.strerror(error), str(pid))
    return time.clock_gettime(clock_id.value)


def process_tree(root: int) -> list[int]:
    """`root` and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, ()))
    return tree


def resident_bytes(pids: Collection[int]) -> int:
    """Resident memory; of several processes what they share is counted once (Pss)."""
    key = "Rss:" if len(pids) == 1 else "Pss:"
    total_kib = 0
    for pid in pids:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith(key):
                total_kib += int(line.split()[1])
    return total_kib * 1024


def split_cores() -> tuple[set[int], set[int]]:
    """One core for the peer, the others for load and upstream; the same one if there is one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[-1]}, set(cores[:-1]) or {cores[-1]}


def allow_many_files() -> int:
    """Raises the limit of open files to what is allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True, slots=True)
class SystemTime:
    """CPU time of the whole machine since its start, in ticks: /proc/stat, see proc(5)."""

    total: int
    idle: int
    stolen: int

    @classmethod
    def now(cls) -> SystemTime:
        ticks = [
            int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        ]
        return cls(sum(ticks), ticks[3] + ticks[4], ticks[7])

    def used_s_since(self, before: SystemTime) -> float:
        """CPU seconds that all processes and the kernel used."""
        ticks = (self.total - self.idle - self.stolen) - (
            before.total - before.idle - before.stolen
        )
        return ticks / os.sysconf("SC_CLK_TCK")

    def stolen_share_since(self, before: SystemTime) -> float:
        """Of the time in which there was something to do, what the hypervisor gave to others."""
        wanted = (self.total - self.idle) - (before.total - before.idle)
        return (self.stolen - before.stolen) / wanted if wanted else 0.0


def machine() -> dict[str, str]:
    """What the figures depend on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    packages = ("trio", "httptools", "hypercorn", "quart-trio", "httpx", "pydantic")
    return {
        "processor": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in packages),
        "load before the run": f"{os.getloadavg()[0]:.2f}",
    }
