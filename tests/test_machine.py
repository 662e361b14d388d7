"""The cores that a process may use: affinity and cgroup quotas, of both versions."""

import os
from pathlib import Path

import pytest

from rerank_cli import machine


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> float | None:
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return machine._cpu_quota(tmp_path / "root", tmp_path / "membership")


def test_version_2_takes_the_tightest_of_the_groups_above(tmp_path: Path) -> None:
    files = {
        "a/b/cpu.max": "max 100000\n",
        "a/cpu.max": "150000 100000\n",
        "cpu.max": "300000 100000\n",
    }
    assert cgroup(tmp_path, "0::/a/b\n", files) == 1.5


def test_version_1(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
    }
    assert cgroup(tmp_path, "3:memory:/x\n2:cpu,cpuacct:/x\n", files) == 2.5


def test_no_limit(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/\n", {}) is None
    assert cgroup(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) is None
    assert machine._cpu_quota(tmp_path / "root", tmp_path / "missing") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits_the_cores() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.core_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= machine.core_count() <= len(allowed)
