"""Every option that names a file to read takes what can be read once, or refuses it in one line.

The options are those that the commands declare, so that a new one fails here until it is tried.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Outcome, Run
from tests.support.batches import record
from tests.support.command_line import COMMAND
from tests.support.reading import feed_fifo

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="FIFOs of POSIX")

_NAMES_A_FILE = re.compile(r"FILE|DATASET|LABELS|LIST|\bIN\b|OUT\b|DIR|FOLDER")
RUN = b"q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\n"
QUERIES = b"q1\tlate parcel\n"
CORPUS = b'{"_id": "d1", "text": "Open."}\n{"_id": "d2", "text": "The parcel comes late."}\n'
QRELS = b"q1 0 d2 1\n"
LINES = b"a late parcel\nopen till six\nthe parcel is late\n"
RECORDS = "".join(f"{json.dumps(record(number))}\n" for number in range(5)).encode()
DATASET = b'{"query": "late parcel", "documents": ["open", "a late parcel"], "relevant": [1]}\n'
LISTS = b"examples/faq.txt\n"
_BATCH_RUN = ("--run", "run", "--queries", "queries.tsv", "--corpus", "corpus.jsonl")
_EVAL_PARTS = (*_BATCH_RUN[2:], "--qrels", "qrels")
_SMALL = ("-m", "./tests/models/bert")
FILES = {
    "run": RUN, "queries.tsv": QUERIES, "corpus.jsonl": CORPUS, "qrels": QRELS, "lines.txt": LINES,
    "records.jsonl": RECORDS, "set.jsonl": DATASET, "list": LISTS, "query": b"late parcel\n",
}  # fmt: skip
# For each option a command line; the file that it names becomes a FIFO. `-m bm25` reads twice.
READS: dict[tuple[str, str], Sequence[Sequence[str]]] = {
    ("rank", "arguments"): [
        ("-q", "late", "lines.txt", "-m", "bm25"),
        ("-q", "late", "lines.txt", "-m", "./tests/models/bert"),
        ("-q", "late", "lines.txt", "-m", "bm25", "-f", "json", "--on-error", "keep"),
    ],
    ("rank", "query_file"): [("--query-file", "query", "examples/faq.txt", "-m", "bm25")],
    ("rank", "files_from"): [("-q", "return", "--files-from", "list", "-m", "bm25", "--json")],
    ("batch", "input_"): [
        ("batch", "records.jsonl", "-m", "bm25"),
        ("batch", "records.jsonl", "-m", "bm25", "--plan"),
    ],
    ("batch", "run"): [("batch", *_BATCH_RUN, "-m", "bm25")],
    ("batch", "queries"): [("batch", *_BATCH_RUN, "-m", "bm25")],
    ("batch", "corpus"): [("batch", *_BATCH_RUN, "-m", "bm25")],
    ("eval", "datasets"): [("eval", "set.jsonl", "-m", "bm25", "--json")],
    ("eval", "queries"): [("eval", *_EVAL_PARTS, "-m", "bm25", "--json")],
    ("eval", "corpus"): [("eval", *_EVAL_PARTS, "-m", "bm25", "--json")],
    ("eval", "qrels"): [("eval", *_EVAL_PARTS, "-m", "bm25", "--json")],
    ("eval", "run"): [("eval", *_EVAL_PARTS, "--run", "run", "-m", "bm25", "--json")],
    ("tune", "datasets"): [("tune", "set.jsonl", *_SMALL)],
    ("tune", "queries"): [("tune", *_EVAL_PARTS, *_SMALL)],
    ("tune", "corpus"): [("tune", *_EVAL_PARTS, *_SMALL)],
    ("tune", "qrels"): [("tune", *_EVAL_PARTS, *_SMALL)],
    ("tune", "run"): [("tune", *_EVAL_PARTS, "--run", "run", *_SMALL)],
    ("calibrate", "labels"): [("calibrate", "set.jsonl", *_SMALL)],
}
_REFUSE_FEW = {"tune", "calibrate"}  # commands that refuse so few queries, once they are read
# What is refused, because it is read more than once or by a library that opens it itself.
_REMOTE = ("-m", "cohere/rerank-v3.5", "--dry-run", "-q", "late", "examples/faq.txt")
REFUSED_COMMANDS = {
    ("rank", "tokenizer"): ("--tokenizer", "lines.txt", *_REMOTE),
    ("rank", "image"): ("--image", "lines.txt", *_REMOTE),
    ("rank", "video"): ("--video", "lines.txt", *_REMOTE),
    ("batch", "tokenizer"): (
        "batch", "records.jsonl", "--tokenizer", "lines.txt", "-m", "cohere/rerank-v3.5",
    ),
}  # fmt: skip
FOLDERS = {
    ("models export", "source"),
    ("models package", "source"),
    ("rank", "media_root"),
    ("batch", "media_root"),
}
WRITTEN_FILES = {
    ("rank", "output"), ("batch", "output"), ("batch", "errors"), ("batch", "report"),
    ("eval", "output"), ("eval", "per_query"), ("eval", "runs"), ("eval", "report"),
    ("models export", "out"),
    ("models package", "out"),
}  # fmt: skip
_PLACE = {"arguments": "lines.txt", "input_": "records.jsonl", "datasets": "set.jsonl"}
_PLACE |= {"labels": "set.jsonl"}
_PLACE |= {"query_file": "query", "files_from": "list", "queries": "queries.tsv"}
_PLACE |= {"corpus": "corpus.jsonl"}


def walk(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, str], Any]:
    """Every parameter of every command, by the command's words and the parameter's name."""
    if not hasattr(command, "list_commands"):
        return {(" ".join(path), each.name): each for each in command.params}
    outcomes: dict[tuple[str, str], Any] = {}
    for name in command.list_commands(None):
        outcomes |= walk(command.get_command(None, name), (*path, name))
    return outcomes


def test_every_option_that_names_a_file_is_tried() -> None:
    options = {
        key
        for key, parameter in walk(COMMAND).items()
        if _NAMES_A_FILE.search(str(getattr(parameter, "metavar", None) or ""))
    }
    assert options == READS.keys() | REFUSED_COMMANDS.keys() | WRITTEN_FILES | FOLDERS


def run_with(
    rerank: Run, folder: Path, arguments: Sequence[str], name: str, *, as_fifo: bool
) -> Outcome:
    for file, content in FILES.items():
        (folder / file).write_bytes(content)
    names = dict.fromkeys(FILES)
    paths = [str(folder / word) if word in names else word for word in arguments]
    if not as_fifo:
        return rerank(*paths)
    (folder / name).unlink()
    with feed_fifo(folder / name, FILES[name]):
        return rerank(*paths)


def without_times(out: str) -> str:
    return re.sub(r'"[a-z_]*second[^,}]*|measured .*|here .*|ray .*', "", out)


@pytest.mark.parametrize(
    ("key", "arguments"), [(key, line) for key, lines in READS.items() for line in lines]
)
def test_a_fifo_gives_what_a_file_gives(
    key: tuple[str, str], arguments: Sequence[str], tmp_path: Path, rerank: Run
) -> None:
    if key[0] in {"eval", *_REFUSE_FEW}:
        pytest.importorskip("ir_measures", reason="needs the extra eval")
    name = _PLACE.get(key[1], key[1])
    expected = run_with(rerank, tmp_path, arguments, name, as_fifo=False)
    answer = run_with(rerank, tmp_path, arguments, name, as_fifo=True)
    assert expected.code == (2 if key[0] in _REFUSE_FEW else 0), expected.err
    assert (answer.code, answer.err) == (expected.code, expected.err)
    assert without_times(answer.out) == without_times(expected.out)


@pytest.mark.parametrize("key", REFUSED_COMMANDS)
def test_what_cannot_be_a_stream_is_refused(
    key: tuple[str, str], tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", "key")
    arguments = REFUSED_COMMANDS[key]
    name = next(word for word in ("lines.txt", "records.jsonl") if word in arguments)
    answer = run_with(rerank, tmp_path, arguments, name, as_fifo=True)
    assert (answer.code, answer.out) == (2, "")
    first, *rest = answer.err.split("\n\n")
    assert first.startswith(f"rerank: {tmp_path / name}: not a file"), answer.err
    assert len(first.splitlines()) == len(rest) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("-q", "x", "{fifo}", "{fifo}"),
        ("--query-file", "{fifo}", "{fifo}"),
        ("--query-file", "{fifo}", "--files-from", "{fifo}"),
        ("-q", "x", "--files-from", "{fifo}", "{fifo}"),
        ("batch", "--run", "{fifo}", "--queries", "{fifo}", "--corpus", "x"),
        ("batch", "--run", "x", "--queries", "{fifo}", "--corpus", "{fifo}"),
        ("eval", "{fifo}", "{fifo}"),
        ("eval", "tests", "examples", "--qrels", "{fifo}"),
        ("eval", "--queries", "{fifo}", "--corpus", "{fifo}", "--qrels", "x"),
    ],
)
def test_one_stream_is_not_read_for_two(
    arguments: Sequence[str], tmp_path: Path, rerank: Run
) -> None:
    if arguments[0] == "eval":
        pytest.importorskip("ir_measures", reason="needs the extra eval")
    with feed_fifo(tmp_path / "p", LINES) as fifo:
        outcome = rerank(*(word.format(fifo=fifo) for word in arguments))
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{fifo} can be read only once" in outcome.err


def test_a_list_that_names_a_stream_twice_says_so_and_reads_it_once(
    tmp_path: Path, rerank: Run
) -> None:
    with feed_fifo(tmp_path / "p", LINES) as fifo:
        (tmp_path / "list").write_text(f"{fifo}\n{ROOT / 'examples' / 'faq.txt'}\n{fifo}\n-\n")
        arguments = ("-q", "late", "-m", "bm25", "--files-from", str(tmp_path / "list"))
        outcome = rerank(*arguments, "-f", "tsv", "--unit", "line", stdin=b"late\n")
    assert outcome.code == 2
    assert f"{fifo}: can be read only once, and was named before" in outcome.err
    assert outcome.out.count("the parcel is late") == 1


def test_a_file_that_changes_between_two_readings_is_an_error(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rerank_cli.inputs.documents import Inputs

    path = tmp_path / "a.txt"
    path.write_bytes(LINES)
    reading = Inputs.__iter__

    def change(self: Inputs) -> Any:
        yield from reading(self)
        path.write_bytes(LINES.replace(b"late", b"soon"))

    monkeypatch.setattr(Inputs, "__iter__", change)
    outcome = rerank("-q", "late", str(path), "-m", "bm25")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{path}: changed while it was read" in outcome.err
