"""Writes outcomes as lines into a file that can be continued, or a stream.

    Outcome ─ OutcomeWriter ─ line_of, run_lines_of ─ Sink

A writer and its sink know the position up to which everything is whole; a journal notes it.
"""

import io
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from rerank_cli.atomic_files import create_file, open_own_file, sync_stream
from rerank_cli.batch import ResultsShape
from rerank_cli.batch.records import DoneItem, EarlierOutput, Original, Outcome, Problem
from rerank_cli.errors import InputError, OutputError
from rerank_cli.inputs.streams import decompress, import_zstandard
from rerank_cli.output_files import OutputFile
from rerank_cli.render import json_score
from rerank_cli.render.json_results import (
    judge_fields,
    request_object,
    result_object,
    stage_fields,
)
from rerank_cli.render.rows import quote_spaces, run_score
from rerank_cli.terminal import Terminal, write_all
from rerank_cli.types import Ranked, Ranking

# A compressed file is a series of members, each whole in itself. A member ends after this many
# bytes of lines, or this many seconds. A process that dies loses at most one member, and each
# member costs a few bytes.
_MEMBER_BYTES = 4_000_000
_MEMBER_SECONDS = 10.0
_GZIP_LEVEL = 6
_TAIL_BYTES = 4096

RESULTS, SCORE, RAW_SCORE, ERROR = "results", "relevance_score", "raw_score", "error"
_ERROR_BEGIN = b'"error": {"code": "'


class OutcomeWriter(Protocol):
    """Writes outcomes in order. `mark` and `tail` are those of a `Sink`."""

    @property
    def tail(self) -> str: ...

    def add(self, outcome: Outcome) -> None: ...

    def mark(self, *, synced: bool, final: bool = False) -> int | None: ...

    def close(self) -> None: ...


class Sink(Protocol):
    """Where lines are written, in order.

    `tail` is the hash of the bytes before the last mark, by which a job recognizes its own file;
    empty if there is none.
    """

    @property
    def tail(self) -> str: ...

    def write(self, lines: bytes) -> None:
        """Write lines; raises `OutputError`, or `PipeClosed`."""

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        """The position up to which everything is whole; None if the last lines are not whole.

        With `synced` everything is on the disk afterwards. After a `final` call everything is
        whole.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LineWriter:
    """Writes outcomes as lines into a sink."""

    sink: Sink
    line_of: Callable[[Outcome], bytes]

    @property
    def tail(self) -> str:
        return self.sink.tail

    def add(self, outcome: Outcome) -> None:
        if isinstance(outcome.item, DoneItem):
            self.sink.write(outcome.item.output.lines)
        else:
            self.sink.write(self.line_of(outcome))

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        return self.sink.mark(synced=synced, final=final)

    def close(self) -> None:
        self.sink.close()


class FileSink:
    """A file of lines, whole after each. `position` is the byte where writing continues.

    Without a position a new file is created. Anything behind the position is cut off.
    """

    def __init__(self, path: Path, position: int | None = None) -> None:
        self.tail = ""
        self._path = path
        self._stream = _create(path) if position is None else _open_at(path, position)
        self._position = position or 0

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
        self.tail = tail_digest(self._stream, self._position)
        return self._position

    def close(self) -> None:
        self._stream.close()


class StreamSink:
    """Standard output, a device or a pipe: no job can be continued in it."""

    tail = ""

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
    """Lines compressed into another sink, a member at a time. It is whole after each member.

    `has_members` says that an earlier run has written some.
    """

    def __init__(
        self, sink: Sink, compress: Callable[[bytes], bytes], *, has_members: bool
    ) -> None:
        self._sink = sink
        self._compress = compress
        self._has_members = has_members
        self._lines = io.BytesIO()
        self._member_began = time.monotonic()

    @property
    def tail(self) -> str:
        return self._sink.tail

    def write(self, lines: bytes) -> None:
        self._lines.write(lines)

    def mark(self, *, synced: bool, final: bool = False) -> int | None:
        size, age = self._lines.tell(), time.monotonic() - self._member_began
        if not final and size < _MEMBER_BYTES and age < _MEMBER_SECONDS:
            return None
        if size or (final and not self._has_members):  # an empty output has one too
            self._sink.write(self._compress(self._lines.getvalue()))
            self._has_members = True
            self._lines = io.BytesIO()
        self._member_began = time.monotonic()
        return self._sink.mark(synced=synced, final=final)

    def close(self) -> None:
        self._sink.close()


def open_sink(
    output: OutputFile, terminal: Terminal, position: int | None = None, suffix: str | None = None
) -> Sink:
    """Open the sink for an output; its suffix says how it is compressed. Raises `OutputError`.

    `position` is that of `FileSink`.
    """
    path = Path(output.path)
    sink = StreamSink(output, terminal) if output.is_stream else FileSink(path, position)
    compress = _COMPRESSIONS.get(path.suffix if suffix is None else suffix)
    return MembersSink(sink, compress, has_members=bool(position)) if compress else sink


def copy_lines(parts: Iterable[Path], stream: BinaryIO, suffix: str) -> None:
    """Copy files of lines into one open file, in their order; raises `OSError`.

    `suffix` is that of its name, which says how it is compressed.
    """
    compress = _COMPRESSIONS.get(suffix, bytes)
    for part in parts:
        with part.open("rb") as lines:
            while piece := lines.read(_MEMBER_BYTES):
                stream.write(compress(piece))
    if not stream.tell():  # an empty output has a member too
        stream.write(compress(b""))


class EarlierResults(Protocol):
    """The output of an earlier run, read item by item, in the order of the input."""

    def take(self, original: Original) -> EarlierOutput:
        """The result of the next item; raises `InputError` if there is none."""

    def check_end(self) -> None:
        """Raise `InputError` if there is more."""

    def close(self) -> None: ...


class EarlierLines:
    """The lines of an output and of its file of errors, up to a position in each.

    With `is_run` all lines that begin with an item's id belong to it; otherwise it has one line.
    """

    def __init__(
        self,
        output: tuple[Path, int] | None,
        errors: tuple[Path, int] | None = None,
        *,
        is_run: bool = False,
    ) -> None:
        self._stack = ExitStack()
        self._output = self._open(output)
        self._errors = self._open(errors)
        self._is_run = is_run

    def _open(self, file: tuple[Path, int] | None) -> "_Lines":
        if file is None:
            return _Lines(io.BytesIO(), "")
        path, position = file
        stream = self._stack.enter_context(path.open("rb"))
        _, content = decompress(io.BufferedReader(_Beginning(stream, position)), str(path))
        return _Lines(content, str(path))

    def take(self, original: Original) -> EarlierOutput:
        if (error := self.take_error(original)) is not None:
            return error
        if self._is_run:
            name = f"{quote_spaces(str(original.id))} ".encode()
            lines = b""
            while self._output.head.startswith(name):
                lines += self._output.take()
            return EarlierOutput(lines)
        line = self._output.take()
        return EarlierOutput(line, code=_error_code(line, original))

    def take_error(self, original: Original) -> EarlierOutput | None:
        """The line of an item in the file of errors, if it has one."""
        if code := _error_code(self._errors.head, original):
            return EarlierOutput(error=self._errors.take(), code=code)
        return None

    def check_end(self) -> None:
        for lines in (self._output, self._errors):
            if lines.head:
                raise InputError(f"{lines.name}: is longer than what the job has written")

    def close(self) -> None:
        self._stack.close()


class _Lines:
    """The lines of a stream; `head` is the next one, empty at the end."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self.name = name
        self.head = stream.readline()

    def take(self) -> bytes:
        line, self.head = self.head, self._stream.readline() if self.head else b""
        if not line:
            raise InputError(f"{self.name}: is shorter than what the job has written")
        return line


class _Beginning(io.RawIOBase):
    """The first bytes of a stream, up to a position."""

    def __init__(self, stream: BinaryIO, position: int) -> None:
        self._stream = stream
        self._bytes_left = position

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        piece = self._stream.read(min(len(view), self._bytes_left))
        view[: len(piece)] = piece
        self._bytes_left -= len(piece)
        return len(piece)


def _error_code(line: bytes, original: Original) -> str:
    """The code of an item's error record; empty if the line is not an error record."""
    if _ERROR_BEGIN not in line:
        return ""
    try:
        record = json.loads(line)
        place = {name: record.get(name) for name in original.place}
        code = record[ERROR]["code"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    is_result = RESULTS in record or SCORE in record
    is_error = isinstance(code, str) and place == original.place and not is_result
    return code if is_error else ""


def tail_digest(stream: BinaryIO, position: int) -> str:
    """The hash of the last bytes of a file up to a position; the stream stays there."""
    start = max(0, position - _TAIL_BYTES)
    stream.seek(start)
    content = stream.read(position - start)
    stream.seek(position)
    return blake2b(content, digest_size=8).hexdigest() if len(content) == position - start else ""


def _create(path: Path) -> BinaryIO:
    """Create a file; raises `OutputError`, also if it is there already."""
    try:
        return create_file(path)
    except FileExistsError as error:
        raise OutputError(f"{path}: exists already", hint="name another file") from error
    except OSError as error:
        raise _failure(path, error) from error


def _open_at(path: Path, position: int) -> BinaryIO:
    """Open a file to continue at a position; cut off the rest. Raises `OutputError`."""
    try:
        stream = open_own_file(path, follow_links=True)
        stream.truncate(position)
        stream.seek(position)
        return stream
    except OSError as error:
        raise _failure(path, error) from error


def _failure(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror}")


def _compress_gzip(lines: bytes) -> bytes:
    import gzip

    return gzip.compress(lines, _GZIP_LEVEL, mtime=0)


def _compress_zstandard(lines: bytes) -> bytes:
    member: bytes = import_zstandard().compress(lines)
    return member


_COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": _compress_gzip,
    ".zst": _compress_zstandard,
}


def line_of(
    outcome: Outcome, shape: ResultsShape, *, pairs: bool, dropped_field: str = ""
) -> bytes:
    """The line for an item: all that it had in the input, with its results or its scores.

    The field to drop is left out.
    """
    if outcome.problem is not None:
        return error_line(outcome.original, outcome.problem)
    if outcome.ranking is None:
        return outcome.original.raw + b"\n"
    ranking = outcome.ranking
    new_fields: dict[str, Any] = (
        pair_scores(ranking)
        if pairs
        else {RESULTS: shaped_results(ranking, shape), **stage_fields(ranking)}
    )
    if dropped_field:
        return _encode({**without_field(outcome.original.fields, dropped_field), **new_fields})
    return _line_with(outcome.original, new_fields)


def without_field(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object without a field; a dotted name is that of a nested field."""
    if name in content:
        return {key: value for key, value in content.items() if key != name}
    first, _, rest = name.partition(".")
    inner = content.get(first)
    if not rest or not isinstance(inner, Mapping):
        return dict(content)
    return {**content, first: without_field(inner, rest)}


def error_line(original: Original, problem: Problem) -> bytes:
    """The line of an error record: an item's id, where it is, and why it has no results."""
    error: dict[str, Any] = {"code": problem.code, "message": problem.message}
    if problem.requests:
        error["requests"] = [
            # The message mostly has the place too.
            request_object(
                replace(request, error="") if request.error in problem.message else request
            )
            for request in problem.requests
        ]
    return _encode({"id": original.id, **original.place, ERROR: error})


def run_lines_of(outcome: Outcome) -> bytes:
    """A record's lines of a TREC run; none if it has a problem."""
    if outcome.ranking is None:
        return b""
    ranking = outcome.ranking
    query, tag = quote_spaces(str(outcome.original.id)), quote_spaces(ranking.info.model)
    return "".join(
        f"{query} Q0 {quote_spaces(str(_name_of(result)))} {result.rank} "
        f"{run_score(ranking, result)} {tag}\n"
        for result in ranking.results
    ).encode()


def shaped_results(ranking: Ranking, shape: ResultsShape) -> list[Any]:
    """A ranking's results, best first, in the shape that the user chose."""
    if shape is ResultsShape.IDS:
        return [_name_of(result) for result in ranking.results]
    if shape is ResultsShape.SCORES:
        return [
            {**_scores_of(result), **judge_fields(ranking, result)} for result in ranking.results
        ]
    return [
        {**result_object(result), **judge_fields(ranking, result)} for result in ranking.results
    ]


def pair_scores(ranking: Ranking) -> dict[str, Any]:
    """The scores of a pair's one document; null if it is blank."""
    for result in ranking.results:
        return {SCORE: json_score(result.relevance_score), RAW_SCORE: json_score(result.raw_score)}
    return {SCORE: None, RAW_SCORE: None}


def _name_of(result: Ranked) -> str | int:
    return result.index if result.document.id is None else result.document.id


def _scores_of(result: Ranked) -> dict[str, Any]:
    own_id = {} if result.document.id is None else {"id": result.document.id}
    return {
        "index": result.index,
        **own_id,
        SCORE: json_score(result.relevance_score),
        RAW_SCORE: json_score(result.raw_score),
    }


def _line_with(original: Original, new_fields: Mapping[str, Any]) -> bytes:
    """The line of an object with more fields.

    It keeps the bytes of the input, unless the object has a field of the same name already.
    """
    raw = original.raw.strip()
    if raw.endswith(b"}") and not new_fields.keys() & original.fields.keys():
        more = json.dumps(new_fields, ensure_ascii=False)[1:]
        comma = ", " if original.fields else ""
        return raw[:-1].rstrip() + f"{comma}{more}\n".encode("utf-8", "backslashreplace")
    return _encode({**original.fields, **new_fields})


def _encode(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, default=str)  # Parquet has dates and more
    # UTF-8 cannot hold a lone surrogate: it becomes JSON's escape for it.
    return f"{text}\n".encode("utf-8", "backslashreplace")
