"""What tests share: the shipped model, the small ones, and a command line to run."""

import functools
import gc
import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, settings

from rerank_cli import Scorer, open_scorer
from rerank_cli.cli import app, typer_commands
from rerank_cli.runtimes import network
from tests.support.hub import REPOSITORY, Hub, Repository, files_of

# Nothing here is a benchmark: a slow machine fails no test.
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("brief", settings.get_profile("thorough"), max_examples=30)


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples where slow tests are left out too."""
    is_brief = config.getoption("markexpr") == "not slow"
    settings.load_profile("brief" if is_brief else "thorough")


def pytest_collection() -> None:
    """Look for no garbage among the tests while they are collected, which live until the end."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


# Tests that are run in the background may ignore signals, and so would the processes they start. A
# handler of this process is not theirs: they have the usual one.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("SIGHUP", "SIGQUIT"):
    if signal.getsignal(_number := getattr(signal, _name, signal.SIGINT)) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"
DATA = ROOT / "tests" / "support" / "data"
# Variables that identify a terminal. The developer's own terminal must not matter in a test.
TERMINAL_VARIABLES = (
    "FORCE_HYPERLINK", "KITTY_WINDOW_ID", "KONSOLE_VERSION", "TERM_PROGRAM", "TERM_PROGRAM_VERSION",
    "NO_COLOR", "TMUX", "VTE_VERSION", "WT_SESSION",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: its exit code, and its output, as bytes and as text."""

    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()


class Stream(io.TextIOWrapper):
    """Standard input, output or error of a run in this process, perhaps as a terminal."""

    def __init__(self, content: bytes = b"", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8", newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def content(self) -> bytes:
        self.flush()
        return bytes(self.buffer.getvalue())  # type: ignore[attr-defined]


Run = Callable[..., Outcome]


_home_numbers = itertools.count()


@pytest.fixture(autouse=True)
def home_path(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Keep the developer's own settings, keys and variables out of every test.

    Most tests write nothing there, so the folder is made only when something is.
    """
    for name in [name for name in os.environ if name.startswith("RERANK_")]:
        monkeypatch.delenv(name)
    folder = tmp_path_factory.getbasetemp() / f"home{next(_home_numbers)}"
    monkeypatch.setenv("RERANK_HOME", str(folder))
    # Nearly every test may use the prepared copies of earlier tests.
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path_factory.getbasetemp() / "prepared"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(home_path: Path) -> Path:
    """The folder of settings and keys of a test, which has neither yet."""
    home_path.mkdir()
    return home_path


@pytest.fixture(autouse=True, scope="session")
def cache_commands() -> Iterator[None]:
    """Build each command of ours once, and not at each run: that is a quarter of a short one."""
    build_any = typer.main.get_command
    build_once = functools.cache(build_any)

    def build(program: typer.Typer) -> Any:
        return build_once(program) if program is app.app else build_any(program)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", build)
        patch.setattr(typer_commands, "get_command", build_once)
        yield


@pytest.fixture(autouse=True)
def forbid_child_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open models without a child process, which takes half a second."""
    if request.node.get_closest_marker("trial") is None:
        monkeypatch.setattr(network, "_run_child", lambda *_: None)


@pytest.fixture
def rerank(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in this process, from the repository's root."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("LINES", "24")
    for name in TERMINAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, stdin: bytes | None = None, terminal: int | None = None) -> Outcome:
        out, err = Stream(terminal=terminal is not None), Stream(terminal=terminal is not None)
        monkeypatch.setattr(sys, "stdin", Stream(stdin or b"", terminal=stdin is None))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("COLUMNS", str(terminal or 80))
        code = app.run(list(arguments))
        wait_for_openers()
        return Outcome(code, out.content(), err.content().decode())

    return run


def wait_for_openers() -> None:
    """Wait for the model that a command began to open, and did not need.

    onnxruntime reads the environment meanwhile. To change that in another thread, as the next test
    does, may crash the process: C's setenv may not run beside getenv.
    """
    for thread in threading.enumerate():
        if thread.name.startswith("open"):
            thread.join()


def process(
    *arguments: str,
    stdin: bytes | None = b"",
    cwd: Path = ROOT,
    python: Sequence[str] = ("-m", "rerank_cli"),
) -> subprocess.CompletedProcess[bytes]:
    """Run a command line in a process of its own."""
    return subprocess.run(
        [sys.executable, *python, *arguments],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on loopback, to which all requests to the Hub go."""
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield hub


@pytest.fixture
def hub_model(hub: Hub) -> Repository:
    """A model of the catalogue on that Hub, in int8."""
    return hub.add(REPOSITORY, files_of())


@pytest.fixture(scope="session")
def mini() -> Scorer:
    """The model that ships, opened once."""
    return open_scorer("mini@3")
