"""What the surroundings may lack: each variable and each place in turn, for every command.

A command works, or ends with one clear line; it never ends in a traceback. Nothing but what has to
be written needs a place.
"""

import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT, Outcome, Run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")

BM25 = ("parcel", "-d", "the parcel is late", "-d", "cats purr", "-m", "bm25")
SHIPPED = ("parcel", "-d", "the parcel is late", "-d", "cats purr")
# Commands that read only: they succeed wherever their user's files cannot be.
READERS: Mapping[str, Sequence[str]] = {
    "bm25": BM25,
    "shipped": SHIPPED,
    "folder": ("parcel", "-r", "examples", "-n", "1", "-m", "bm25"),
    "dry run": ("parcel", "-d", "x", "-m", "tei/m", "--base-url", "http://localhost", "--dry-run"),
    "batch": ("batch", "-m", "bm25"),
    "providers": ("providers",),
    "provider": ("providers", "show", "cohere"),
    "models": ("models",),
    "model": ("models", "show", "bge-reranker-base"),
    "config": ("config", "list", "--json"),
    "setting": ("config", "get", "runtime"),
    "doctor": ("doctor", "-m", "./tests/models/bert"),
    "help": ("--help",),
}
# Commands that keep something, or ask where it is kept: a place or one line.
WRITERS: Mapping[str, Sequence[str]] = {
    "set": ("config", "set", "model", "bm25"),
    "unset": ("config", "unset", "model"),
    "set-key": ("config", "set-key", "cohere"),
    "unset-key": ("config", "unset-key", "cohere"),
    "path": ("config", "path"),
    "use": ("models", "use", "bm25"),
    "rm": ("models", "rm", "bge-reranker-base"),
    "verify": ("models", "verify"),
    "not pulled": ("parcel", "-d", "x", "-m", "bge-reranker-base"),
    "no key": ("parcel", "-d", "x", "-m", "cohere/rerank-v3.5"),
    "completion": ("--install-completion", "bash"),
}
USER_VARIABLES = ("HOME", "RERANK_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")


def _no_home(patch: pytest.MonkeyPatch, _folder: Path) -> None:
    def fail(_: int) -> object:
        raise KeyError("getpwuid(): uid not found: 54321")

    patch.setattr(pwd, "getpwuid", fail)


def _variable(name: str, value: str) -> Callable[[pytest.MonkeyPatch, Path], None]:
    def change(patch: pytest.MonkeyPatch, folder: Path) -> None:
        _no_home(patch, folder)
        (folder / "file").write_text("")
        (folder / "dangling").symlink_to(folder / "nowhere")
        (folder / "circle").symlink_to(folder / "circle")
        patch.setenv(name, value.format(folder))

    return change


ENVIRONMENTS: Mapping[str, Callable[[pytest.MonkeyPatch, Path], None]] = {
    "no home": _no_home,
    "no home but settings": _variable("XDG_CONFIG_HOME", "{}"),
    "relative settings": _variable("XDG_CONFIG_HOME", "somewhere"),
    "relative cache": _variable("XDG_CACHE_HOME", "./somewhere"),
    "empty home": _variable("HOME", ""),
    "relative home": _variable("HOME", "somewhere"),
    "short home": _variable("HOME", "~"),
    "home is a file": _variable("HOME", "{}/file"),
    "home is missing": _variable("HOME", "{}/missing"),
    "home is a device": _variable("HOME", "/dev/null"),
    "own place is a file": _variable("RERANK_HOME", "{}/file"),
    "own place dangles": _variable("RERANK_HOME", "{}/dangling"),
    "own place goes round": _variable("RERANK_HOME", "{}/circle"),
    "own place is long": _variable("RERANK_HOME", "{}/" + 300 * "x"),
    "settings are a file": _variable("XDG_CONFIG_HOME", "{}/file"),
    "temporary files are missing": _variable("TMPDIR", "{}/missing"),
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any of the user's places."""
    for name in (*USER_VARIABLES, "RERANK_PREPARED", "COHERE_API_KEY", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def has_one_message(ran: Outcome) -> bool:
    """Whether stderr has a message or nothing, and no traceback."""
    return "Traceback" not in ran.err and ran.err.count("rerank: ") <= 1


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_only_read_needs_no_place(
    environment: str, bare: pytest.MonkeyPatch, tmp_path: Path, rerank: Run
) -> None:
    ENVIRONMENTS[environment](bare, tmp_path)
    before = sorted(ROOT.iterdir())
    for name, arguments in READERS.items():
        ran = rerank(*arguments, stdin=b'{"query": "late", "documents": ["it is late"]}\n')
        is_circle = "goes round" in environment or "is long" in environment
        expected = (0, 2) if is_circle else (0,)
        assert ran.code in expected, (name, ran.err)
        assert has_one_message(ran), (name, ran.err)
    for name, arguments in WRITERS.items():
        ran = rerank(*arguments, stdin=b"a-key-of-nobody\n")
        assert ran.code in (0, 2, 3), (name, ran.err)
        assert has_one_message(ran), (name, ran.err)
    assert sorted(ROOT.iterdir()) == before, "something was written into the current directory"
