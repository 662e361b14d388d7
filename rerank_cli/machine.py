"""How many cores this process may use, and what the processor can do.

Counts the cores that the scheduler and the container allow, not those of the machine.
"""

import os
import platform
import re
from contextlib import suppress
from math import ceil
from pathlib import Path

_CGROUP_FOLDER = Path("/sys/fs/cgroup")
_CPUINFO_FILE = Path("/proc/cpuinfo")


def core_count() -> int:
    """The number of cores that this process may use: its affinity, within its cgroup's quota."""
    available = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        with suppress(OSError):  # a sandbox may refuse it
            available = len(os.sched_getaffinity(0))
    quota = _quota(_CGROUP_FOLDER, Path("/proc/self/cgroup"))
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
    """The properties of this processor on which a prepared file depends, in one line."""
    return f"{platform.machine()}; {' '.join(sorted(features())) or processor()}"


def _cpuinfo_field(name: str) -> str | None:
    """A field of the first processor in /proc/cpuinfo; None if there is none."""
    try:
        text = _CPUINFO_FILE.read_text("utf-8", "replace")
    except OSError:
        return None
    match = re.search(rf"^{name}\s*:[^\S\n]*(.*)$", text, re.MULTILINE)
    return match[1] if match else None


def _quota(root: Path, membership: Path) -> float | None:
    """The smallest CPU quota, in cores, of this process's cgroup and those above it.

    Reads `cpu.max` (cgroup v2) and `cpu.cfs_quota_us` (v1); None if there is no limit. `root` is
    where cgroups are mounted, `membership` the file that names this process's.
    """
    try:
        lines = os.fsdecode(membership.read_bytes()).splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for mount in _mounts(root, controllers):
            # In a container the path may be a path of the host, and only its top may exist.
            inside = mount / path.lstrip("/")
            groups = (inside, *inside.parents) if ".." not in inside.parts else (mount,)
            quotas += [_group_quota(group) for group in groups if group.is_relative_to(mount)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _mounts(root: Path, controllers: str) -> list[Path]:
    """The folders where these controllers may be mounted; none if the CPU's is not among them.

    Version 2 lists no controllers. A folder of version 1 is called by one controller or by several,
    and not always in the order that the kernel lists them in.
    """
    if not controllers:
        return [root, root / "unified"]  # the latter where version 1 is at the root
    if "cpu" not in controllers.split(","):
        return []
    try:
        names = [entry.name for entry in root.iterdir()]
    except OSError:
        return []
    return [root, *(root / name for name in names if "cpu" in name.split(","))]


def _group_quota(group: Path) -> float | None:
    """The quota of one cgroup, in cores; None if it has no limit."""
    for read in (_version_2_share, _version_1_share):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = map(int, read(group))
            return quota / period if quota > 0 else None
    return None


def _version_2_share(group: Path) -> list[str]:
    """The time that a group may use in each period, and the period; "max" is no limit."""
    return (group / "cpu.max").read_text("ascii").replace("max", "-1").split()


def _version_1_share(group: Path) -> list[str]:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    return [(group / name).read_text("ascii") for name in names]
