"""Where lines of a batch go: a file that can be taken up again, or a stream.

A sink knows up to where all that was written is whole, which is what a journal notes.
"""

import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rerank_cli.atomic_files import OutputFile, sync_stream
from rerank_cli.batch.records import Given, Outcome, Problem
from rerank_cli.errors import OutputError
from rerank_cli.render import format_score, json_score
from rerank_cli.render.json_results import result_object
from rerank_cli.render.rows import quote_spaces
from rerank_cli.terminal import Terminal, write_all
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
    """A file of lines: whole after each. `position` is where it goes on, in bytes."""

    def __init__(self, path: Path, position: int = 0) -> None:
        self._path = path
        self._stream = _open_at(path, position)
        self._position = position

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], str(self._path), flush=False)
        self._position += len(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        write_all(self._stream, [], str(self._path))
        if synced:
            try:
                sync_stream(self._stream)
            except OSError as error:
                raise _failure(self._path, error) from error
        return self._position

    def close(self) -> None:
        self._stream.close()


class StreamSink:
    """Standard output, a device or a pipe, which nothing can go on in."""

    def __init__(self, output: OutputFile, terminal: Terminal) -> None:
        self._is_ours = not output.is_stdout
        self._stream = output.open_stream() if self._is_ours else terminal.stdout
        self._name = output.path if self._is_ours else "the results"

    def write(self, lines: bytes) -> None:
        write_all(self._stream, [lines], self._name)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return None

    def close(self) -> None:
        if self._is_ours:
            self._stream.close()


class MembersSink:
    """Compressed members, each of which can be read by itself, in another sink; whole after each.

    `is_begun` says that the sink has members of an earlier run.
    """

    def __init__(self, sink: Sink, compress: Callable[[bytes], bytes], *, is_begun: bool) -> None:
        self._sink = sink
        self._compress = compress
        self._is_begun = is_begun
        self._lines = io.BytesIO()
        self._since = time.monotonic()

    def write(self, lines: bytes) -> None:
        self._lines.write(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        size, age = self._lines.tell(), time.monotonic() - self._since
        if not final and size < _MEMBER_BYTES and age < _MEMBER_SECONDS:
            return None
        if size or (final and not self._is_begun):  # nothing is a member too
            self._sink.write(self._compress(self._lines.getvalue()))
            self._is_begun = True
            self._lines = io.BytesIO()
        self._since = time.monotonic()
        return self._sink.mark(synced=synced, final=final)

    def close(self) -> None:
        self._sink.close()


def open_sink(output: OutputFile, terminal: Terminal, position: int = 0) -> Sink:
    """Open the sink for an output, which its name says how to compress; raises `OutputError`."""
    path = Path(output.path)
    sink = StreamSink(output, terminal) if output.is_stream else FileSink(path, position)
    compress = _COMPRESSIONS.get(path.suffix)
    return MembersSink(sink, compress, is_begun=position > 0) if compress else sink


def _open_at(path: Path, position: int) -> BinaryIO:
    """Open a file to go on at a position, and drop what is behind it; raises `OutputError`."""
    try:
        stream = path.open("r+b" if position else "wb")
        stream.truncate(position)
        stream.seek(position)
        return stream
    except OSError as error:
        raise _failure(path, error) from error


def _failure(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror}")


def _gzipped(lines: bytes) -> bytes:
    import gzip

    return gzip.compress(lines, 6, mtime=0)


def _zstandard(lines: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(lines)


_COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {".gz": _gzipped, ".zst": _zstandard}


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
    query, tag = quote_spaces(str(outcome.given.name)), quote_spaces(outcome.ranking.info.model)
    return "".join(
        f"{query} Q0 {quote_spaces(str(_name(result)))} {result.rank} "
        f"{format_score(result.raw_score)} {tag}\n"
        for result in outcome.ranking.results
    ).encode()


def pair_of(ranking: Ranking) -> dict[str, Any]:
    """The scores of the one document of a pair; null where it is blank."""
    for one in ranking.results:
        return {SCORE: json_score(one.relevance_score), RAW_SCORE: json_score(one.raw_score)}
    return {SCORE: None, RAW_SCORE: None}


def _name(result: Ranked) -> str | int:
    return result.index if result.document.id is None else result.document.id


def _scores(result: Ranked) -> dict[str, Any]:
    named = {} if result.document.id is None else {"id": result.document.id}
    return {
        "index": result.index,
        **named,
        SCORE: json_score(result.relevance_score),
        RAW_SCORE: json_score(result.raw_score),
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
