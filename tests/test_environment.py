"""What the surroundings may lack: each variable and each place in turn, for every command.

A command works, or ends with one clear line; it never ends in a traceback. Nothing but what has to
be written needs a place.
"""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from rerank_cli import user_files
from rerank_cli.errors import ConfigError, NoHome, OutOfMemory
from rerank_cli.terminal import Terminal
from tests.conftest import ROOT, Outcome, Run, Stream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other places")

BM25 = ("parcel", "-d", "the parcel is late", "-d", "cats purr", "-m", "bm25")
SHIPPED_ARGUMENTS = ("parcel", "-d", "the parcel is late", "-d", "cats purr")
# Commands that read only: they succeed wherever their user's files cannot be.
READERS: Mapping[str, Sequence[str]] = {
    "bm25": BM25,
    "shipped": SHIPPED_ARGUMENTS,
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
def clear_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any of the user's places."""
    for name in (*USER_VARIABLES, "RERANK_PREPARED", "COHERE_API_KEY", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def visible_names(folder: Path) -> set[str]:
    """The names in a folder, but for those of tools that run meanwhile."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def has_one_message(outcome: Outcome) -> bool:
    """Whether stderr has a message or nothing, and no traceback."""
    return "Traceback" not in outcome.err and outcome.err.count("rerank: ") <= 1


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_is_only_read_needs_no_place(
    environment: str, clear_environment: pytest.MonkeyPatch, tmp_path: Path, rerank: Run
) -> None:
    ENVIRONMENTS[environment](clear_environment, tmp_path)
    before = visible_names(ROOT)
    for name, arguments in READERS.items():
        outcome = rerank(*arguments, stdin=b'{"query": "late", "documents": ["it is late"]}\n')
        is_circle = "goes round" in environment or "is long" in environment
        expected = (0, 2) if is_circle else (0,)
        assert outcome.code in expected, (name, outcome.err)
        assert has_one_message(outcome), (name, outcome.err)
    for name, arguments in WRITERS.items():
        outcome = rerank(*arguments, stdin=b"a-key-of-nobody\n")
        assert outcome.code in (0, 2, 3), (name, outcome.err)
        assert has_one_message(outcome), (name, outcome.err)
    assert visible_names(ROOT) == before, "something was written into the current directory"


def test_settings_in_a_place_of_their_own_are_read(
    clear_environment: pytest.MonkeyPatch, tmp_path: Path, rerank: Run
) -> None:
    """Without a home, what a variable names is used, and a relative path is nobody's place."""
    _no_home(clear_environment, tmp_path)
    clear_environment.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert rerank("config", "set", "top-n", "7").code == 0
    assert rerank("config", "get", "top-n").out == "7\n"
    clear_environment.setenv("XDG_CONFIG_HOME", os.path.relpath(tmp_path, ROOT))
    assert rerank("config", "get", "top-n").code == 1
    outcome = rerank("config", "set", "top-n", "8")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, f"rerank: {NoHome()}")


def test_a_copy_of_a_pipe_is_among_temporary_files_where_there_is_no_home(
    clear_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _no_home(clear_environment, tmp_path)
    assert user_files.spool_directory() == Path(tempfile.gettempdir())
    clear_environment.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_files.spool_directory() == tmp_path / "rerank"
    clear_environment.setenv("XDG_CACHE_HOME", "/dev/null")
    assert user_files.spool_directory() == Path(tempfile.gettempdir())


def test_a_home_that_cannot_be_found_is_not_made_here(
    clear_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _no_home(clear_environment, tmp_path)
    clear_environment.chdir(tmp_path)
    for value in ("~/rerank", "~nobody-of-this-name/rerank"):
        clear_environment.setenv("RERANK_HOME", value)
        with pytest.raises(ConfigError, match="no such home directory"):
            user_files.config_file()
    assert user_files.expand_user("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


# As root the permissions of files do not count, unless these capabilities are given up.
DROPPED_CAPABILITIES = "-dac_override,-dac_read_search"


def shell(script: str, cwd: Path = ROOT, **variables: str) -> Outcome:
    """Run a script of bash in an environment of its own, where the permissions of files count."""
    command = ["bash", "-c", script]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv makes permissions count for root")
        command = [
            "setpriv",
            f"--bounding-set={DROPPED_CAPABILITIES}",
            f"--inh-caps={DROPPED_CAPABILITIES}",
            *command,
        ]
    process = subprocess.run(
        command,
        input=b"",
        capture_output=True,
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **variables},
        check=False,
        timeout=60,
    )
    return Outcome(process.returncode, process.stdout, process.stderr.decode())


def run_rerank(*arguments: str, **variables: str) -> Outcome:
    """Run a command line so."""
    return shell(shlex.join([sys.executable, "-m", "rerank_cli", *arguments]), ROOT, **variables)


@pytest.fixture
def closed_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that may not be entered."""
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["HOME", "RERANK_HOME", "XDG_CONFIG_HOME"])
@pytest.mark.parametrize("model", ["bm25", "mini@3"])
def test_a_home_that_may_not_be_entered_is_one_warning(
    variable: str, model: str, closed_folder: Path
) -> None:
    environment = {"HOME": "/dev/null", variable: str(closed_folder)}
    outcome = run_rerank("late", "-d", "it is late", "-d", "cats", "-m", model, **environment)
    assert (outcome.code, outcome.out.splitlines()[0]) == (0, "it is late")
    assert outcome.err.count("\n") == 3
    assert "Permission denied: no settings and keys of yours are used" in outcome.err


@pytest.mark.slow
def test_commands_for_the_files_of_a_closed_home_say_so_once(closed_folder: Path) -> None:
    codes = {"config": 0, "doctor": 0, "models": 0, "set": 2, "no key": 2, "not pulled": 3}
    for name, code in codes.items():
        outcome = run_rerank(*{**READERS, **WRITERS}[name], HOME=str(closed_folder))
        assert outcome.code == code, (name, outcome.err)
        assert "Traceback" not in outcome.err, (name, outcome.err)
        assert outcome.err.count("no settings and keys of yours") <= 1, (name, outcome.err)


@pytest.mark.slow
def test_a_file_of_settings_that_is_there_and_closed_is_an_error(tmp_path: Path) -> None:
    """To go on without it would rank by another model than its user has chosen."""
    for name in ("config.toml", "providers.toml", "keys.toml"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0)
        outcome = run_rerank("late", "-d", "late", "-m", "cohere/x", RERANK_HOME=str(tmp_path))
        assert (outcome.code, outcome.err) == (2, f"rerank: {tmp_path / name}: Permission denied\n")
        (tmp_path / name).unlink()


@pytest.mark.slow
def test_nothing_needs_to_be_written(tmp_path: Path) -> None:
    """The model that ships ranks on a read-only file system, and says nothing."""
    tmp_path.chmod(0o555)
    outcome = run_rerank("late", "-d", "it is late", "-d", "cats", HOME=str(tmp_path))
    assert outcome == Outcome(0, b"it is late\ncats\n", "")
    outcome = run_rerank("config", "set", "model", "bm25", HOME=str(tmp_path))
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"rerank: {tmp_path}/.config/rerank/config.toml: cannot be written: "
    )
    tmp_path.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("is_lost", [True, False], ids=["gone", "closed"])
def test_the_current_directory_may_be_gone(is_lost: bool, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "a.txt").write_text("it is late\n")
    change = "rmdir" if is_lost else "chmod 0"
    for arguments, code in {
        "late -d late": 0,
        "late a.txt -m bm25": 2,
        "late -r -m bm25": 2,
        f"late -r {there} -m bm25": 0,
        "config": 0,
        "late -d x -m ./model": 2,
        "late -d late -m bm25 -o out.txt": 2,
    }.items():
        script = f"{change} {here}; {sys.executable} -m rerank_cli {arguments}"
        outcome = shell(script, cwd=here, RERANK_HOME=str(tmp_path / "home"))
        here.chmod(0o700) if here.exists() else here.mkdir()
        assert outcome.code == code, (arguments, outcome)
        assert "Traceback" not in outcome.err, arguments
        assert outcome.err.count("rerank: ") == (code != 0), (arguments, outcome.err)


@pytest.mark.parametrize("columns", ["0", "-5", "x", "\N{SUPERSCRIPT TWO}", "1", "9" * 5000, ""])
@pytest.mark.parametrize("interactive", [True, False])
def test_a_width_that_no_terminal_has(
    interactive: bool, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", Stream(terminal=interactive))
    monkeypatch.setenv("COLUMNS", columns)
    assert 20 <= Terminal.current().width < 200
    monkeypatch.setenv("COLUMNS", "999999999")
    assert Terminal.current().width == 10_000


ODD_VARIABLES = [
    "LINES=-1", "TERM=", "TERM=odd", "TERM=dumb", "LANG=klingon", "LC_ALL=xx_YY.ZZZ",
    "TZ=/dev/zero", "TQDM_NCOLS=x", "FORCE_COLOR=1", "NO_COLOR=", "OMP_NUM_THREADS=x",
]  # fmt: skip


@pytest.mark.parametrize("variable", ODD_VARIABLES)
@pytest.mark.parametrize("terminal", [80, None])
def test_odd_variables(
    variable: str, terminal: int | None, monkeypatch: pytest.MonkeyPatch, rerank: Run
) -> None:
    monkeypatch.setenv(*variable.split("="))
    outcome = rerank("late", "-d", "it is late", "-m", "bm25", "-f", "table", terminal=terminal)
    assert (outcome.code, outcome.err) == (0, "")
    assert "late" in outcome.out
    assert rerank("--help", terminal=terminal).code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable", ["PYTHONUNBUFFERED=1", "PYTHONOPTIMIZE=2", "PYTHONWARNINGS=error"]
)
def test_variables_of_python(variable: str) -> None:
    name, _, value = variable.partition("=")
    outcome = run_rerank("late", "-d", "it is late", HOME="/dev/null", **{name: value})
    assert outcome == Outcome(0, b"it is late\n", "")


def test_all_of_a_result_is_written_where_python_does_not_buffer(tmp_path: Path) -> None:
    """A pipe that does not block takes a part of a large write, and says how much."""
    (tmp_path / "a.txt").write_text("late " * 200_000 + "\n")
    script = (
        "import os, subprocess, sys, time\n"
        "ours, theirs = os.pipe()\n"
        "os.set_blocking(theirs, False)\n"
        "process = subprocess.Popen(sys.argv[1:], stdout=theirs, stderr=subprocess.PIPE)\n"
        "error = process.communicate()[1].decode()\n"
        "print(process.returncode, error)"
    )
    command = [sys.executable, "-m", "rerank_cli", "late", str(tmp_path / "a.txt"), "-m", "bm25"]
    process = subprocess.run(
        [sys.executable, "-c", script, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert process.stdout.startswith("2 rerank: cannot write the results: "), process.stdout


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_opened_does_not_become_a_standard_stream(streams: str, tmp_path: Path) -> None:
    """What a library writes to stderr would else go into a file of results."""
    code = (
        "import os, sys; from rerank_cli import __main__ as start;"
        "start._fill_standard_streams();"
        f"sys.exit(os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY) < 3)"
    )
    assert shell(f"{sys.executable} -c {shlex.quote(code)} {streams}").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "0>/dev/null"]
)
def test_closed_streams_of_every_command(streams: str, tmp_path: Path) -> None:
    expected = {">/dev/full": 2}
    for name, arguments in READERS.items():
        if name == "batch":  # its input is a stream
            continue
        command = shlex.join([sys.executable, "-m", "rerank_cli", *arguments])
        outcome = shell(f"{command} {streams}", RERANK_HOME=str(tmp_path))
        assert outcome.code == expected.get(streams, 0), (name, outcome.err)
        assert has_one_message(outcome), (name, outcome.err)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [26_000, 32_000, 44_000, 60_000, 100_000, 1_000_000])
def test_little_memory_is_one_line(kilobytes: int, tmp_path: Path) -> None:
    """Where Python starts at all; what libraries end or say by themselves is not caught.

    As hashlib, which logs each kind of hash that it cannot open.
    """
    for arguments in ("late -d late -m bm25", "providers", "--version"):
        command = f"ulimit -v {kilobytes}; {sys.executable} -m rerank_cli {arguments}"
        outcome = shell(command, RERANK_HOME=str(tmp_path))
        if outcome.code == -signal.SIGABRT and outcome.err.startswith("memory allocation of "):
            continue  # a library in Rust has ended the process
        assert outcome.code in (0, 3), (arguments, outcome.err)
        if outcome.code == 3:
            message = "rerank: there is too little memory for this\n"
            assert message in outcome.err.splitlines(keepends=True), (arguments, outcome.err)


@pytest.mark.parametrize(
    ("error", "is_short"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (ImportError("libx.so: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(2, "No such file or directory"), False),
        (ImportError("No module named 'x'"), False),
        (SystemError("error return without exception set"), True),
        (SystemError("bad argument to internal function"), False),
        (ValueError("can't start new thread"), False),
    ],
)
def test_what_is_for_want_of_memory(error: Exception, is_short: bool) -> None:
    assert OutOfMemory.caused(error) == is_short
    try:
        raise RuntimeError("something else") from error
    except RuntimeError as outer:
        cause = OutOfMemory.caused(outer)
    assert cause == is_short
