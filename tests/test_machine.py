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
    return machine._quota(tmp_path / "root", tmp_path / "membership")


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


@pytest.mark.parametrize("line", ["4:cpu,cpuacct:/x", "4:cpuacct,cpu:/x", "4:cpu:/x"])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct", "cpuacct,cpu", "."])
@pytest.mark.parametrize("group", ["", "x/"], ids=["of the container", "of the host"])
def test_version_1_in_any_spelling(line: str, mount: str, group: str, tmp_path: Path) -> None:
    """A container often sees only the top of the hierarchy, and the host's path in it."""
    files = {
        f"{mount}/{group}cpu.cfs_quota_us": "200000\n",
        f"{mount}/{group}cpu.cfs_period_us": "100000\n",
    }
    assert cgroup(tmp_path, f"{line}\n0::/\n", files) == 2.0


def test_version_1_takes_the_tightest_of_the_groups_above(tmp_path: Path) -> None:
    files = {}
    for group, quota in {"": -1, "a": 150_000, "a/b": 400_000}.items():
        files[f"cpu,cpuacct/{group}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"cpu,cpuacct/{group}/cpu.cfs_period_us"] = "100000\n"
    assert cgroup(tmp_path, "3:cpuacct,cpu:/a/b\n", files) == 1.5


def test_version_2_beside_version_1(tmp_path: Path) -> None:
    files = {"unified/a/cpu.max": "150000 100000\n"}
    assert cgroup(tmp_path, "1:name=systemd:/a\n0::/a\n", files) == 1.5


@pytest.mark.parametrize("membership", [b"", b"0\n", b"0:\n", b"\xff\xfe\n", b"0::/\xff\n4:cpu"])
@pytest.mark.parametrize(
    "limit", ["", "max", "1", "1 0", "x y", "max x", "-1 100000", "1 2 3", "\xff"]
)
def test_damaged_files_are_no_limit(membership: bytes, limit: str, tmp_path: Path) -> None:
    (tmp_path / "membership").write_bytes(membership)
    (tmp_path / "cpu.max").write_text(limit, encoding="latin-1")
    assert machine._quota(tmp_path, tmp_path / "membership") is None


def test_a_group_outside_of_what_is_mounted(tmp_path: Path) -> None:
    files = {"cpu.max": "150000 100000\n", "../cpu.max": "50000 100000\n"}
    assert cgroup(tmp_path, "0::/../../a\n", files) == 1.5


def test_no_limit(tmp_path: Path) -> None:
    assert cgroup(tmp_path, "0::/\n", {}) is None
    assert cgroup(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) is None
    assert machine._quota(tmp_path / "root", tmp_path / "missing") is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_limits_the_cores() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert machine.core_count() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert 1 <= machine.core_count() <= len(allowed)
