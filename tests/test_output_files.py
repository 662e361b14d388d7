"""Every option that names a file to write, against every kind of thing that it can name.

The options are taken from the command line's own declarations: a new one that takes a text must be
put in one of the tables here.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.cli.parameters import value_type
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.output_files import OutputFile, PlannedOutput, settle_outputs
from tests.conftest import ROOT, Run, process
from tests.support.batches import record, write
from tests.support.command_line import COMMAND

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices and links are POSIX's")

# By command and parameter: options whose text names no file, those that name what is read, and
# those that name what is written.
TEXTS = {
    "*": {
        "query", "document", "field", "id_field", "query_field", "documents_field", "text_field",
        "model", "base_url", "instruction", "user", "metadata", "set_", "header", "max_record",
        "max_document", "window", "address", "depth", "measure", "compare", "name", "key",
        "value", "provider", "revision", "version", "licence", "languages",
        "candidates", "cache_size", "passage_memory", "size", "min_score", "preset", "preset_name",
        "prior_field", "label_field", "first_stage", "keep", "max_time",
    },
}  # fmt: skip
READS = {
    "*": {"arguments", "query_file", "files_from", "tokenizer", "image", "video", "input_", "run"}
    | {"queries", "media_root", "corpus", "qrels", "datasets", "source", "labels"},
}
WRITES = {
    ("rank", "output"), ("batch", "output"), ("batch", "errors"), ("batch", "report"),
    ("eval", "output"), ("eval", "per_query"), ("eval", "runs"), ("eval", "report"),
    ("models export", "out"),
    ("models package", "out"),
}  # fmt: skip


def parameters() -> Iterator[tuple[str, Any]]:
    """All parameters of all commands that take a text, with the names of their commands."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        ctx = command.make_context(name or "rerank", [], resilient_parsing=True)
        if hasattr(command, "list_commands"):
            for inner in command.list_commands(ctx):
                yield from walk(f"{name} {inner}".strip(), command.get_command(ctx, inner))
            return
        for parameter in command.params:
            kind = value_type(parameter)
            if not (isinstance(kind, type) and issubclass(kind, StrEnum | int | float)):
                yield name, parameter

    yield from walk("", COMMAND)


def test_every_option_that_takes_a_text_is_known() -> None:
    options_found = {(command, parameter.name) for command, parameter in parameters()}
    plain = TEXTS["*"] | READS["*"]
    unknown = {(command, name) for command, name in options_found - WRITES if name not in plain}
    assert not unknown, "say in the tables whether it names a file, and whether that is written"
    assert options_found >= WRITES
    assert {name for _, name in options_found} >= plain


@dataclass
class Place:
    """A folder with inputs, another job's files, and all that a path can name."""

    folder: Path
    held: list[int] = field(default_factory=list)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def close(self) -> None:
        for descriptor in self.held:
            os.close(descriptor)


OTHER_JOB = ("other.jsonl", "other.jsonl.journal", "other-errors.jsonl", "other-report.json")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is the same in every place: it is made once, and copied."""
    folder = tmp_path_factory.mktemp("template")
    records = [record(number) for number in range(4)] + [{"id": "bad"}]
    write(folder / "in.jsonl", records)
    (folder / "docs.txt").write_text("a slug\nno\n")
    (folder / "list").write_text(f"{ROOT / 'LICENSE'}\n")
    (folder / "query").write_text("slug")
    (folder / "set").mkdir()
    texts = [{"_id": f"d{n}", "text": text} for n, text in enumerate(("a slug", "soil", "worm"))]
    write(folder / "set" / "corpus.jsonl", texts)
    write(folder / "set" / "queries.jsonl", [{"_id": "q1", "text": "slug"}])
    (folder / "set" / "qrels").mkdir()
    (folder / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td0\t1\n")
    (folder / "ckpt").mkdir()
    (folder / "ckpt" / "config.json").write_text("{}")
    other, _, errors, report = (str(folder / name) for name in OTHER_JOB)
    more = ("-o", other, "--errors", errors, "--report", report, "-m", "bm25")
    outcome = process("batch", str(folder / "in.jsonl"), *more)
    assert outcome.returncode == 3, outcome.stderr.decode()
    assert all((folder / name).is_file() for name in OTHER_JOB)
    return folder


def end_hanging_test(*_: Any) -> None:
    raise AssertionError("it hangs, as at a pipe that nobody reads or writes")


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Iterator[Place]:
    import shutil

    folder = tmp_path / "place"
    shutil.copytree(template, folder)
    copied_place = Place(folder)
    old = signal.signal(signal.SIGALRM, end_hanging_test)
    signal.alarm(60)
    yield copied_place
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    copied_place.close()


def file(place: Place) -> str:
    (place / "mine").write_text("mine\n")
    return str(place / "mine")


def empty_file(place: Place) -> str:
    (place / "empty").touch()
    return str(place / "empty")


def read_only(place: Place) -> str:
    Path(file(place)).chmod(0o444)
    return str(place / "mine")


def link_to(target: str) -> Callable[[Place], str]:
    def link(place: Place) -> str:
        file(place)
        (place / "link").symlink_to(target)
        return str(place / "link")

    link.__name__ = f"link to {target}"
    return link


def hard_link(place: Place) -> str:
    os.link(place / "in.jsonl", place / "hard")
    return str(place / "hard")


def pipe(place: Place) -> str:
    os.mkfifo(place / "fifo")
    place.held.append(os.open(place / "fifo", os.O_RDWR | os.O_NONBLOCK))  # its reader
    return str(place / "fifo")


def link_to_pipe(place: Place) -> str:
    (place / "link").symlink_to(pipe(place))
    return str(place / "link")


def local_socket(place: Place) -> str:
    here = Path.cwd()
    os.chdir(place.folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    os.chdir(here)
    return str(place / "socket")


def folder(place: Place) -> str:
    (place / "folder").mkdir()
    (place / "folder" / "x.trec").write_text("mine")
    return str(place / "folder")


def open_file(place: Place) -> str:
    descriptor = os.open(place / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"before\n")
    place.held.append(descriptor)
    return f"/dev/fd/{descriptor}"


def open_for_reading(place: Place) -> str:
    place.held.append(os.open(place / "in.jsonl", os.O_RDONLY))
    return f"/dev/fd/{place.held[-1]}"


def open_input(place: Place) -> str:
    place.held.append(os.open(place / "in.jsonl", os.O_WRONLY | os.O_APPEND))
    return f"/dev/fd/{place.held[-1]}"


def link_to_stream(place: Place) -> str:
    (place / "link").symlink_to(open_file(place))
    return str(place / "link")


def make_named(name: str) -> Callable[[Place], str]:
    def path(place: Place) -> str:
        file(place)
        return f"{place.folder}/{name}" if name and not name.startswith("/dev/") else name

    path.__name__ = name or "empty name"
    return path


def plant_link(side_file: str) -> Callable[[Place], str]:
    """A new name with a link in the place of one of its side files."""

    def path(place: Place) -> str:
        file(place)
        (place / f"new{side_file}").symlink_to("mine")
        return str(place / "new")

    path.__name__ = f"link at {side_file}"
    return path


def standard_output(_: Place) -> str:
    return "-"


def own_settings(_: Place) -> str:
    path = Path(os.environ["RERANK_HOME"]) / "config.toml"
    path.parent.mkdir()
    path.write_text('prepend = "title"\n')
    return str(path)


KINDS: list[Callable[[Place], str]] = [
    make_named("new"), file, empty_file, read_only, link_to("mine"), link_to("nothing"),
    link_to("none/nothing"), link_to("link"), link_to("/dev/null"), link_to("in.jsonl"),
    link_to("list"), link_to("set"), hard_link, pipe,
    link_to_pipe, local_socket, folder, standard_output,
    *(make_named(name) for name in ("folder/", "none/new", "mine/new", "n" * 300, "")),
    *(make_named(name) for name in ("/dev/stdout", "/dev/stdin", "/dev/fd/987")),
    make_named("/dev/null"), make_named("/dev/full"),
    open_file, open_for_reading, open_input, link_to_stream,
    own_settings, plant_link(".journal"), plant_link(".lock"),
    *(make_named(name) for name in OTHER_JOB),
    # The inputs, in several spellings, and the other outputs with their side files.
    *(make_named(name) for name in ("in.jsonl", "./set/../in.jsonl", "docs.txt", "list", "query")),
    *(make_named(f"set{name}") for name in ("", "/corpus.jsonl", "/qrels/test.tsv", "/new.jsonl")),
    *(make_named(name) for name in ("out", "out.journal", "out.lock", "errors", "report", "table")),
    *(make_named(name) for name in ("figures", "runs", "runs/x", "ckpt", "ckpt/config.json")),
]  # fmt: skip

BATCH = "batch {in.jsonl} -m bm25"
# By option: a command line with VALUE for what it names. The last words are other options.
LINES = {
    "rank -o": "-q x {docs.txt} --files-from {list} -m bm25 -o VALUE",
    "rank -o, query": "--query-file {query} {docs.txt} -m bm25 -o VALUE",
    "batch -o": f"{BATCH} -o VALUE --errors {{errors}} --report {{report}}",
    "batch -o, on": f"{BATCH} -o VALUE --errors {{errors}} --report {{report}} --resume",
    "batch --errors": f"{BATCH} -o {{out}} --errors VALUE --report {{report}}",
    "batch --errors, on": f"{BATCH} -o {{out}} --errors VALUE --report {{report}} --resume",
    "batch --report": f"{BATCH} -o {{out}} --errors {{errors}} --report VALUE",
    "batch --report, on": f"{BATCH} -o {{out}} --errors {{errors}} --report VALUE --resume",
    "eval -o": "eval {set} -m bm25 -o VALUE --per-query {figures} --runs {runs}",
    "eval --per-query": "eval {set} -m bm25 -o {table} --per-query VALUE --runs {runs}",
    "eval --runs": "eval {set} -m bm25 -o {table} --per-query {figures} --runs VALUE",
    "models export OUT": "models export {ckpt} VALUE",
    "models package -o": "models package ./tests/models/bert --name x --licence MIT -o VALUE",
}
# What may be replaced where an option names it: any file of the user, or a report.
REPLACED_KINDS = {
    "rank": {"mine", "empty", "in.jsonl", "docs.txt", *OTHER_JOB, "set/corpus.jsonl"}
    | {"set/qrels/test.tsv", "ckpt/config.json", "query", "list"},
    "eval": {"mine", "empty", "in.jsonl", "docs.txt", *OTHER_JOB, "query", "list"}
    | {"ckpt/config.json"},
    "batch --report": {"empty", "other-report.json"},
    "batch -o, on": {"empty"},
    "batch --errors, on": {"empty"},
}
KEPT_KINDS = {"rank -o": {"list"}, "rank -o, query": {"query"}}
# Files of its own that a command may write or remove.
OWN = (
    "new", "nothing", "none", "out", "errors", "report", "table", "figures", "runs", "folder",
    "set/new", "empty.journal", "link.journal",
)  # fmt: skip


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """The type and content of all that is in a folder."""
    names = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = b""
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(mode):
            content = path.read_bytes()
        names[str(path.relative_to(folder))] = (stat.S_IFMT(mode), content)
    return names


def changed_names(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in {**before, **after} if before.get(name) != after.get(name)}


def fail_to_open(*_: Any, **__: Any) -> None:
    raise ModelError("a model was opened")


def command_line(option: str, place: Place, value: str) -> list[str]:
    words = LINES[option].split()
    words = [str(place / word[1:-1]) if word.startswith("{") else word for word in words]
    return [value if word == "VALUE" else word for word in words]


def option_and_kind() -> Iterator[Any]:
    """All pairs; seven of eight are slow tests, so that most runs try each option and each kind."""
    for row, option in enumerate(LINES):
        for column, kind in enumerate(KINDS):
            marks = [pytest.mark.slow] if (row + column) % 8 else []
            yield pytest.param(option, kind, id=f"{option} {kind.__name__[:40]}", marks=marks)


@pytest.mark.parametrize(("option", "kind"), [*option_and_kind()])
def test_nothing_is_destroyed_and_what_cannot_be_is_said_before_scoring(
    option: str,
    kind: Callable[[Place], str],
    place: Place,
    rerank: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = kind(place)
    before = snapshot(place.folder)
    devices = {path: path.stat().st_rdev for path in map(Path, ("/dev/null", "/dev/full"))}
    line = command_line(option, place, value)
    with monkeypatch.context() as patch:  # what is refused is refused before a model is opened
        for module in ("rerank_cli.scorers", "rerank_cli.ranking.reranker"):
            patch.setattr(f"{module}.open_scorer", fail_to_open)
        early = rerank(*line, stdin=b"")
    assert changed_names(before, snapshot(place.folder)) == set(), early.err
    outcome = rerank(*line, stdin=b"")
    after = snapshot(place.folder)

    assert outcome.code in (0, 1, 2, 3), outcome.err
    assert {path: path.stat().st_rdev for path in devices} == devices
    leftover_names = {name for name in after if ".rerank-" in name or name.endswith(".lock")}
    assert leftover_names <= {*before, "out.lock" if value.endswith("out.lock") else ""}
    changes = changed_names(before, after)
    if outcome.code == 2 and "No space left" not in outcome.err:
        assert changes == set(), outcome.err
        if not option.startswith("models"):
            assert early.err == outcome.err, "it is said only after scoring"
    command = next((name for name in REPLACED_KINDS if option.startswith(name)), "")
    allowed = REPLACED_KINDS.get(command, set()) - KEPT_KINDS.get(option, set())
    target = {value, os.path.realpath(value)}
    for name in changes:
        if name in before:
            is_own = name == "log" and before[name][1] == after[name][1][: len(before[name][1])]
            assert is_own or name in allowed or (name == "hard" and command in ("rank", "eval"))
            assert target & {str(place / name), os.path.realpath(place / name)} or is_own
        else:
            suffix = {"eval --runs": ".trec", "models package -o": ".whl"}.get(option)
            assert name.startswith(OWN) or (suffix and name.endswith(suffix))
    for name, (kind_before, _) in before.items():
        assert after[name][0] == kind_before, f"{name} is something else now"


FIXED_VALUES = {
    "set": ("config.toml", ["config", "set", "top-n", "3"], b""),
    "unset": ("config.toml", ["config", "unset", "top-n"], b""),
    "set-key": ("keys.toml", ["config", "set-key", "cohere"], b"key"),
    "unset-key": ("keys.toml", ["config", "unset-key", "cohere"], b""),
    "bash": (".bashrc", ["--install-completion", "bash"], b""),
    "script": ("data/completion/rerank.bash", ["--install-completion", "bash"], b""),
    "fish": (".config/fish/completions/rerank.fish", ["--install-completion", "fish"], b""),
}
THINGS: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("top-n = 1\ncohere = 'k'\n# _RERANK_COMPLETE\n"),
    "text": lambda path: path.write_text("mine, and no TOML"),
    "link": lambda path: path.symlink_to("/real"),
    "dangling": lambda path: path.symlink_to("nothing"),
    "none/nothing": lambda path: path.symlink_to("none/nothing"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "full": lambda path: path.symlink_to("/dev/full"),
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("command", FIXED_VALUES)
def test_files_of_fixed_names_are_whatever_they_are(
    command: str,
    thing: str,
    place: Place,
    rerank: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HOME", "RERANK_HOME"):
        monkeypatch.setenv(name, str(place.folder))
    for name in ("ZDOTDIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    name, line, stdin = FIXED_VALUES[command]
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if thing == "link":
        THINGS["file"](place / "real")
        (place / "real").chmod(0o600)
        path.symlink_to(place / "real")
    else:
        THINGS[thing](path)
    if thing == "file":
        path.chmod(0o600)
    before = snapshot(place.folder)
    outcome = rerank(*line, stdin=stdin)
    after = snapshot(place.folder)
    assert outcome.code in (0, 2), outcome.err
    if outcome.code == 2:
        assert changed_names(before, after) == set()
        assert outcome.err.count("rerank: ") == 1
    assert {old: kind for old, (kind, _) in before.items()} == {
        old: after[old][0] for old in before
    }
    assert not [old for old in after if ".rerank-" in old or old.endswith(".lock")]
    for old, (kind, content) in before.items():
        if stat.S_ISLNK(kind):
            assert after[old][1] == content
    if outcome.code == 0 and thing in ("file", "text", "link") and command == "bash":
        text_kept = (place / "real" if thing == "link" else path).read_text()
        assert text_kept.startswith(before["real" if thing == "link" else name][1].decode())


def test_names_that_a_file_system_does_not_tell_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [
        PlannedOutput("-o", OutputFile(str(tmp_path / "Out"))),
        PlannedOutput("--errors", OutputFile(str(tmp_path / "oUT"))),
    ]
    settle_outputs(outputs, [])
    monkeypatch.setattr("rerank_cli.output_files._folds_case", lambda _: True)
    with pytest.raises(UsageError, match="-o and --errors name one file"):
        settle_outputs(outputs, [])


@pytest.mark.slow
def test_a_batch_does_not_read_what_it_writes_to_its_output(template: Path, tmp_path: Path) -> None:
    """As `batch in.jsonl >> in.jsonl` would, without end."""
    source = tmp_path / "in.jsonl"
    content = (template / "in.jsonl").read_bytes()
    for options in ("{0} -m bm25 >> {0}", "- -m bm25 < {0} >> {0}", "{0} -o /dev/fd/5 5>> {0}"):
        source.write_bytes(content)
        line = f"{sys.executable} -m rerank_cli batch {options.format(source)}"
        process = subprocess.run(["/bin/sh", "-c", line], cwd=ROOT, timeout=60, capture_output=True)
        assert process.returncode == 2
        assert source.read_bytes() == content
        assert b"and -o name one file" in process.stderr


def test_the_users_settings_are_no_input_by_name(tmp_path: Path) -> None:
    path = Path(os.environ["RERANK_HOME"]) / "config.toml"
    outputs = [PlannedOutput("-o", OutputFile(str(path)))]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match=r"^rerank's own file .*config\.toml and -o name one file"):
        settle_outputs(outputs, [tmp_path])
