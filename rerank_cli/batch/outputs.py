"""Where lines of a batch go: a file that can be taken up again, or a stream.

A sink knows up to where all that was written is whole, which is what a journal notes.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rerank_cli.batch.records import Given, Outcome, Problem
from rerank_cli.errors import OutputError
from rerank_cli.render import decimal, number
from rerank_cli.render.json_results import result_object
from rerank_cli.render.rows import one_word
from rerank_cli.terminal import write_all
from rerank_cli.types import Ranked, Ranking

# Members of a compressed file end after so much, or so long: less is lost when the process dies,
# and each costs a few bytes.
_MEMBER_BYTES = 4_000_000
_MEMBER_SECONDS = 10.0


class Sink(Protocol):
    """Takes what is written, in order."""

    def write(self, lines: bytes) -> None: ...

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        """The position up to which all that was written is whole, or None where it is not yet.

        With `synced` it is on the disk; a `final` one is whole.
        """

    def close(self) -> None: ...


class FileSink:
    """A file of plain lines: whole after each."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._stream = opened(path, position)
        self._position = position

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], str(self._path), flush=False)
        self._position += len(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        write_all(self._stream, [], str(self._path))
        if synced:
            _sync(self._stream, self._path)
        return self._position

    def close(self) -> None:
        self._stream.close()


class MembersSink:
    """A file of compressed members, each of which can be read by itself; whole after each."""

    def __init__(self, path: Path, compress: Callable[[bytes], bytes], position: int = 0) -> None:
        self._path = path
        self._compress = compress
        self._stream = opened(path, position)
        self._position = position
        self._lines = io.BytesIO()
        self._since = time.monotonic()

    def write(self, lines: bytes) -> None:
        self._lines.write(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        size, age = self._lines.tell(), time.monotonic() - self._since
        if not final and size < _MEMBER_BYTES and age < _MEMBER_SECONDS:
            return None
        if size or (final and not self._position):  # nothing is a member too
            member = self._compress(self._lines.getvalue())
            write_all(self._stream, [member], str(self._path))
            self._position += len(member)
            self._lines = io.BytesIO()
        self._since = time.monotonic()
        if synced:
            _sync(self._stream, self._path)
        return self._position

    def close(self) -> None:
        self._stream.close()


class StreamSink:
    """Standard output, which nothing can go on in."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], "the results")

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return None

    def close(self) -> None:
        pass


def file_sink(path: Path, position: int = 0) -> Sink:
    """The sink for a file, which its name says how to compress."""
    if path.suffix == ".gz":
        return MembersSink(path, _gzipped, position)
    if path.suffix == ".zst":
        return MembersSink(path, _zstandard, position)
    return FileSink(path, position)


def opened(path: Path, position: int) -> BinaryIO:
    """Open a file to go on at a position, and drop what is behind it; raises `OutputError`."""
    try:
        stream = path.open("r+b" if position else "wb")
        stream.truncate(position)
        stream.seek(position)
        return stream
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _sync(stream: BinaryIO, path: Path) -> None:
    try:
        os.fsync(stream.fileno())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _gzipped(lines: bytes) -> bytes:
    import gzip

    return gzip.compress(lines, 6, mtime=0)


def _zstandard(lines: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(lines)


RESULTS, SCORE, RAW_SCORE, ERROR = "results", "relevance_score", "raw_score", "error"


class Shape(StrEnum):
    """How much of each result is written."""

    FULL = "full"  # as `rerank --json` has it
    SCORES = "scores"  # its index, id and scores
    IDS = "ids"  # its document's id, or the index of one without


def line_of(outcome: Outcome, shape: Shape, *, pairs: bool) -> bytes:
    """The line that stands for an item: all that came in, and what came of it."""
    if outcome.problem is not None:
        return _encoded(problem_object(outcome.given, outcome.problem))
    if outcome.ranking is None:
        return outcome.given.raw + b"\n"
    added = pair_of(outcome.ranking) if pairs else {RESULTS: results_of(outcome.ranking, shape)}
    return _with(outcome.given, added)


def problem_object(given: Given, problem: Problem) -> dict[str, Any]:
    """An error record: the id of what it stands for, and why that has no results."""
    return {"id": given.name, ERROR: {"code": problem.code, "message": problem.message}}


def error_line(given: Given, problem: Problem) -> bytes:
    return _encoded(problem_object(given, problem))


def results_of(ranking: Ranking, shape: Shape) -> list[Any]:
    """A ranking's results, best first."""
    if shape is Shape.IDS:
        return [_name(one) for one in ranking.results]
    if shape is Shape.SCORES:
        return [_scores(one) for one in ranking.results]
    return [result_object(one) for one in ranking.results]


def run_of(outcome: Outcome) -> bytes:
    """A record's lines of a TREC run; one with a problem has none."""
    if outcome.ranking is None:
        return b""
    query, tag = one_word(str(outcome.given.name)), one_word(outcome.ranking.info.model)
    return "".join(
        f"{query} Q0 {one_word(str(_name(one)))} {one.rank} {decimal(one.raw_score)} {tag}\n"
        for one in outcome.ranking.results
    ).encode()


def pair_of(ranking: Ranking) -> dict[str, Any]:
    """The scores of the one document of a pair; null where it is blank."""
    for one in ranking.results:
        return {SCORE: number(one.relevance_score), RAW_SCORE: number(one.raw_score)}
    return {SCORE: None, RAW_SCORE: None}


def _name(result: Ranked) -> str | int:
    return result.index if result.document.id is None else result.document.id


def _scores(result: Ranked) -> dict[str, Any]:
    named = {} if result.document.id is None else {"id": result.document.id}
    return {
        "index": result.index,
        **named,
        SCORE: number(result.relevance_score),
        RAW_SCORE: number(result.raw_score),
    }


def _with(given: Given, added: Mapping[str, Any]) -> bytes:
    """An object with more fields: its own bytes as they came, unless it had fields of that name."""
    raw = given.raw.strip()
    if raw.endswith(b"}") and not added.keys() & given.fields.keys():
        more = json.dumps(added, ensure_ascii=False)[1:]
        joint = ", " if given.fields else ""
        return raw[:-1].rstrip() + f"{joint}{more}\n".encode("utf-8", "backslashreplace")
    return _encoded({**given.fields, **added})


def _encoded(value: Any) -> bytes:
    # A lone surrogate, which UTF-8 cannot hold, becomes the escape that JSON has for it.
    text = json.dumps(value, ensure_ascii=False, default=str)  # Parquet has dates and more
    return f"{text}\n".encode("utf-8", "backslashreplace")
