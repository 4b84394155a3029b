"""Number of CPUs that a process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS) -> int:
    """Count the CPUs that this process may use.

    These are the CPUs that it is bound to (``taskset``, Slurm), but at most the quota of its
    control groups (``--cpus`` of Docker, a limit of Kubernetes), rounded up.

    Parameters
    ----------
    membership
        File with the control groups of the process; Linux only.
    cgroups
        Folder at which the control groups are mounted.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min([bound or 1, *map(ceil, _quotas(membership, cgroups))]))


def _quotas(membership: Path, cgroups: Path) -> Iterator[float]:
    """Yield the CPU quota of each control group of the process and of its parent groups."""
    for line in _read(membership).splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container the name may be that on the host, while the mounted root is its own group.
        path = PurePosixPath(name.lstrip("/"))
        for group in dict.fromkeys((path, *path.parents)):
            yield from _quota_v1(cgroups, group) if controllers else _quota_v2(cgroups, group)


def _quota_v2(cgroups: Path, group: PurePosixPath) -> Iterator[float]:
    limit, _, period = _read(cgroups / group / "cpu.max").partition(" ")
    if limit.isdigit() and period.strip().isdigit():
        yield int(limit) / int(period)


def _quota_v1(cgroups: Path, group: PurePosixPath) -> Iterator[float]:
    for mount in ("cpu", "cpu,cpuacct", "cpuacct,cpu"):
        quota = _read(cgroups / mount / group / "cpu.cfs_quota_us").strip()
        period = _read(cgroups / mount / group / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit():  # -1 is no limit
            yield int(quota) / int(period)


def _read(path: Path) -> str:
    """Read a file; return an empty text if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""
