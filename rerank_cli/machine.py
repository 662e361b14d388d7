"""How many cores this process may use, and what the processor can do.

Counts the cores that the scheduler and the container allow, not those of the machine.
"""

import os
import platform
import re
from math import ceil
from pathlib import Path

_CGROUP_FOLDER = Path("/sys/fs/cgroup")
_CPUINFO_FILE = Path("/proc/cpuinfo")


def core_count() -> int:
    """The number of cores that this process may use: its affinity, within its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        available = len(os.sched_getaffinity(0))
    else:
        available = os.cpu_count() or 1
    quota = _cpu_quota(_CGROUP_FOLDER, Path("/proc/self/cgroup"))
    return max(1, available if quota is None else min(available, ceil(quota)))


def processor() -> str:
    """The processor's name, or its architecture if the system does not tell the name."""
    return _cpuinfo_field("model name") or platform.processor() or platform.machine()


def features() -> frozenset[str]:
    """The processor's features as Linux lists them, such as `avx2`; empty on other systems.

    These are `flags` on x86 and `Features` on ARM.
    """
    return frozenset((_cpuinfo_field("flags") or _cpuinfo_field("Features") or "").split())


def signature() -> str:
    """What a file that is made for this processor depends on, in one line."""
    return f"{platform.machine()}; {' '.join(sorted(features())) or processor()}"


def _cpuinfo_field(name: str) -> str | None:
    """A field of the first processor in /proc/cpuinfo; None if there is none."""
    try:
        text = _CPUINFO_FILE.read_text()
    except OSError:
        return None
    found = re.search(rf"^{name}\s*:[^\S\n]*(.*)$", text, re.MULTILINE)
    return found[1] if found else None


def _cpu_quota(root: Path, membership: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroup and those above it.

    Reads `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1); None if there is no limit. `root` is
    where cgroups are mounted, `membership` the file that names this process's.
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
            quotas.append(_folder_quota(place))
    return min((quota for quota in quotas if quota is not None), default=None)


def _folder_quota(folder: Path) -> float | None:
    """The quota of one cgroup, in cores; None if it has no limit."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        return None
