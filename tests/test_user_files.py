"""Where the user's files are."""

import subprocess
import sys
from pathlib import Path

import pytest

from rerank_cli import user_files
from rerank_cli.errors import ConfigError
from tests.conftest import ROOT


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
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.stdout == "False\n"
