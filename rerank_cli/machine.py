"""What this process may use of the machine it runs on: how many cores, and what these can do.

Counts what the scheduler and the container allow, not the processors that are there.
"""

import os
import platform
import re
from math import ceil
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PROCESSORS = Path("/proc/cpuinfo")


def cores() -> int:
    """The cores that this process may keep busy: its affinity, within its cgroup's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    quota = _quota(_CGROUP, Path("/proc/self/cgroup"))
    return max(1, available if quota is None else min(available, ceil(quota)))


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    return _stated("model name") or platform.processor() or platform.machine()


def features() -> frozenset[str]:
    """What the processor's instruction set has beyond the least; empty where that is not told.

    As Linux lists it: `flags` of x86, `Features` of ARM.
    """
    return frozenset((_stated("flags") or _stated("Features") or "").split())


def signature() -> str:
    """What a thing that is made for this processor depends on."""
    return f"{platform.machine()}; {' '.join(sorted(features())) or processor()}"


def _stated(name: str) -> str | None:
    """What /proc/cpuinfo says of the first processor, where there is one."""
    try:
        told = _PROCESSORS.read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:[^\S\n]*(.*)$", told, re.MULTILINE)
    return found[1] if found else None


def _quota(root: Path, membership: Path) -> float | None:
    """The tightest CPU quota, in cores, of this process's cgroup and those above it.

    Reads `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1); None where there is no limit.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / controllers if controllers else root
        inside = folder / path.lstrip("/")
        for place in (inside, *inside.parents):
            if not place.is_relative_to(folder):
                break
            quotas.append(_quota_of(place))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        return None
