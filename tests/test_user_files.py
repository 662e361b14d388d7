"""Where the user's files are."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rerank_cli import user_files
from rerank_cli.atomic_files import remove_toml_key, set_toml_value
from rerank_cli.errors import ConfigError
from rerank_cli.user_files import parse_toml
from tests.conftest import ROOT


def test_two_changes_at_once_lose_none(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.toml"
    names = [f"key-{number}" for number in range(24)]
    threads = [threading.Thread(target=set_toml_value, args=(path, name, 1)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parse_toml(path.read_bytes()) == dict.fromkeys(names, 1)
    threads = [threading.Thread(target=remove_toml_key, args=(path, name)) for name in names[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert parse_toml(path.read_bytes()) == {names[0]: 1}
    assert [*path.parent.iterdir()] == [path]


def test_what_a_killed_process_left_is_removed_after_a_while(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    old, new = tmp_path / ".rerank-1-old", tmp_path / ".rerank-1-new"
    for left in (old, new):
        left.touch()
    os.utime(old, (0, 0))
    set_toml_value(path, "a", 1)
    assert sorted(tmp_path.iterdir()) == [new, path]


def test_one_variable_moves_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_HOME", str(tmp_path / "here"))
    assert user_files.config_file() == tmp_path / "here" / "config.toml"
    assert user_files.keys_file() == tmp_path / "here" / "keys.toml"
    assert user_files.cache_directory() == tmp_path / "here" / "cache"
    assert user_files.data_directory() == tmp_path / "here" / "data"
    assert not (tmp_path / "here").exists()


def test_the_home_may_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for value in ("~/own", "own"):
        monkeypatch.setenv("RERANK_HOME", value)
        assert user_files.config_directory() == tmp_path / "own"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")
def test_the_xdg_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_HOME", "")
    for kind in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    assert user_files.config_file() == tmp_path / "CONFIG" / "rerank" / "config.toml"
    assert user_files.cache_directory() == tmp_path / "CACHE" / "rerank"
    assert user_files.data_directory() == tmp_path / "DATA" / "rerank"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_files.cache_directory() == tmp_path / ".cache" / "rerank"


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RERANK_HOME")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/rerank"))
    with pytest.raises(ConfigError, match="no home directory"):
        user_files.cache_directory()


def test_with_the_variable_nothing_is_imported_to_find_them() -> None:
    code = (
        "import sys; from rerank_cli import user_files; user_files.cache_directory();"
        "print('platformdirs' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout == "False\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes on its disks")
def test_a_pipe_or_a_device_is_no_file_to_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            user_files.read_regular_file(path)


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert user_files.read_regular_file(path, max_bytes=4) == b"four"
    with pytest.raises(OSError, match="larger than 3 bytes"):
        user_files.read_regular_file(path, max_bytes=3)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b'{"a":', b"\xff", b"[" * 100_000, b'{"a":' * 100_000],
    ids=["empty", "array", "null", "cut", "not UTF-8", "deep array", "deep object"],
)
def test_what_is_not_a_json_object_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (json has messages of its own)
        user_files.parse_json_object(content)


@pytest.mark.parametrize("content", [b"a", b"\xff", b"a = " + b"[" * 100_000])
def test_what_is_not_toml_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        user_files.parse_toml(content)
