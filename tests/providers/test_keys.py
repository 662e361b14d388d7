"""Keys: where they are kept, who may read them, and that nothing ever shows one."""

import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rerank_cli.errors import ConfigError, UsageError
from rerank_cli.providers.keys import find_key, providers_with_keys, store_key
from tests.conftest import ROOT, Run

SECRET = "sk-VERY-secret"
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")


def test_a_key_from_a_pipe(rerank: Run) -> None:
    outcome = rerank("config", "set-key", "cohere", stdin=f"\ufeff{SECRET}\r\n".encode())
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert find_key("cohere") == SECRET
    assert find_key("jina") is None
    assert "key for cohere\tset\t" in rerank("config").out
    assert rerank("config", "unset-key", "cohere").code == 0
    assert find_key("cohere") is None
    assert "there is no key for cohere" in rerank("config", "unset-key", "cohere").err


def test_the_environment_comes_first() -> None:
    store_key("cohere", "stored")
    assert find_key("cohere", ["CO_API_KEY"], {"CO_API_KEY": " own\n"}) == "own"
    assert find_key("cohere", ["X", "CO_API_KEY"], {"CO_API_KEY": ""}) == "stored"
    assert find_key("cohere", ["CO_API_KEY"], {}) == "stored"


@posix
def test_only_the_owner_may_ever_read_the_file(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    before = os.umask(0)
    rerank("config", "set-key", "cohere", stdin=b"one")
    os.umask(before)
    path = home / "keys.toml"
    path.chmod(0o644)
    rerank("config", "set-key", "jina", stdin=b"two")
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert providers_with_keys() == ["cohere", "jina"]


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_can_read_is_refused(mode: int, rerank: Run, home: Path) -> None:
    store_key("cohere", SECRET)
    (home / "keys.toml").chmod(mode)
    with pytest.raises(ConfigError, match="others can read or write it") as error_info:
        find_key("cohere")
    assert error_info.value.hint == f"chmod 600 {home / 'keys.toml'}"
    outcome = rerank("config")
    assert outcome.code == 0
    assert "cohere" not in outcome.out
    assert "others can read or write it" in outcome.err


@pytest.mark.parametrize("key", ["", " \n", "two words", "two\nlines", "tab\there", "schlüssel"])
def test_what_cannot_be_a_key(key: str, rerank: Run, home: Path) -> None:
    outcome = rerank("config", "set-key", "cohere", stdin=key.encode())
    assert (outcome.code, outcome.out) == (2, "")
    assert [*home.iterdir()] == []
    assert not key.strip() or key not in outcome.err


@pytest.mark.parametrize("name", ["", "Cohere", "co here", "../x", SECRET, "a.b"])
def test_what_cannot_be_a_provider(name: str, rerank: Run) -> None:
    outcome = rerank("config", "set-key", name, stdin=b"key")
    assert outcome.code == 2
    assert SECRET not in outcome.err
    with pytest.raises(UsageError):
        store_key(name, "key")


@pytest.mark.parametrize(
    "arguments", [["cohere", SECRET], ["cohere", f"--key={SECRET}"], ["cohere", "--key", SECRET]]
)
def test_a_key_as_an_argument_is_not_repeated(arguments: list[str], rerank: Run) -> None:
    outcome = rerank("config", "set-key", *arguments, stdin=b"")
    assert outcome.code == 2
    assert "a key is never an argument" in outcome.err
    assert SECRET not in outcome.err + outcome.out


@pytest.mark.parametrize("content", [f"cohere = {SECRET}", f'[cohere]\nkey = "{SECRET}"', "a = 1"])
def test_a_damaged_file_is_named_and_not_quoted(content: str, rerank: Run, home: Path) -> None:
    path = home / "keys.toml"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as error_info:
        find_key("cohere")
    assert str(path) in str(error_info.value)
    for arguments in (["config"], ["config", "set-key", "jina"]):
        outcome = rerank(*arguments, stdin=b"x")
        assert SECRET not in outcome.err + outcome.out


@posix
@pytest.mark.parametrize("key", [SECRET.encode() + b"\n", b"\x03", b"\n", b"\x04"])
def test_a_key_typed_at_a_prompt_is_not_shown(key: bytes) -> None:
    """At a terminal of its own; Ctrl-C leaves the terminal as it was."""
    import pty
    import termios

    pid, terminal = pty.fork()
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "rerank_cli", "config", "set-key", "jina"])
    output = b""
    while b"Key for jina: " not in output:
        output += os.read(terminal, 1000)
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        time.sleep(0.01)
    os.write(terminal, key)
    _, status = os.waitpid(pid, 0)
    assert termios.tcgetattr(terminal)[3] & termios.ECHO
    with suppress(OSError):  # Linux's way to say that the other end is closed
        while rest := os.read(terminal, 1000):
            output += rest
    os.close(terminal)
    assert SECRET.encode() not in output
    expected = {SECRET.encode() + b"\n": 0, b"\x03": 130}.get(key, 2)
    assert os.waitstatus_to_exitcode(status) == expected
    assert (find_key("jina") == SECRET) == (expected == 0)
    assert (b"kept in " in output) == (expected == 0)


def test_a_key_is_in_no_output_of_any_command(rerank: Run, home: Path) -> None:
    store_key("cohere", SECRET)
    for arguments in (["config"], ["config", "--json"], ["config", "get", "model"]):
        outcome = rerank(*arguments)
        assert SECRET not in outcome.out + outcome.err
    assert SECRET in (home / "keys.toml").read_text()
