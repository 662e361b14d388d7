"""Reads the files of BEIR and TREC collections: texts, judgements (qrels) and runs.

The files may be compressed. Errors are `InputError`s that name the file and the line.
"""

import io
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rerank_cli.errors import InputError, reason_of
from rerank_cli.inputs import DEFAULT_MAX_DOCUMENT_BYTES
from rerank_cli.inputs.records import is_spread_json, parse_json, read_spread_json
from rerank_cli.inputs.streams import OnePass, decompress, is_stream
from rerank_cli.inputs.text import DocumentTooLarge, TextSource, envelope_of
from rerank_cli.terminal import encodable, format_size

_QRELS_HINT = "query, 0, document, grade, as trec_eval has it; or query, document, grade"
_NESTED_HINT = 'as in {"query id": {"document id": 1}}'
_SHOWN_CHARACTERS = 40
_TOO_LARGE = f"has a line larger than {format_size(DEFAULT_MAX_DOCUMENT_BYTES)}"
MAX_GRADE = 1_000_000
_ID_FIELDS = ("_id", "id", "qid", "query_id", "docid", "doc_id", "docno", "pid")
_TEXT_FIELDS = ("text", "query", "contents", "body", "passage")


@contextmanager
def _open_text(path: Path) -> Iterator[TextSource]:
    """Open a text file; raises `InputError` if it cannot be read, also during reading."""
    try:
        with closing(OnePass(str(path))) as source:
            stream = io.BufferedReader(source)
            head, content = decompress(stream, str(path))
            envelope = envelope_of(head)
            content.read(len(envelope.mark))
            text = TextSource(content, str(path), envelope, head=head[len(envelope.mark) :])
            yield text
            if text.faults:
                raise InputError(f"{path}: {_TOO_LARGE}")
    except DocumentTooLarge as error:
        raise InputError(f"{path}: {_TOO_LARGE}") from error
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}") from error


def read_text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that are not blank, with their numbers from 1."""
    with _open_text(path) as source:
        yield from _lines_of(source)


def _lines_of(source: TextSource) -> Iterator[tuple[int, str]]:
    for number, raw in source.lines():
        try:
            line = raw.decode(source.encoding)
        except UnicodeDecodeError as error:
            raise InputError(f"{source.name}: after line {number - 1}: not UTF-8") from error
        if line.strip():
            yield number, line.rstrip("\r\n")


class _Entry(NamedTuple):
    """A line, or an element of an array: its text, its place in messages, its number from 1."""

    text: str
    where: str
    number: int


def _read_entries(path: Path) -> Iterator[_Entry]:
    """Yield the lines of a file that are not blank, or the elements of a JSON array."""
    with _open_text(path) as source:
        if is_spread_json(source.head.decode(source.encoding, "replace")):
            for number, (_, text, line) in enumerate(read_spread_json(source), 1):
                where = f"{path}:{line}"
                if encodable(text) != text:
                    raise InputError(f"{where}: not UTF-8")
                yield _Entry(text, where, number)
            return
        for number, text in _lines_of(source):
            yield _Entry(text, f"{path}:{number}", number)


def read_objects(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the objects of JSONL or of a JSON array, each with its number and its place.

    The number counts lines, or elements, from 1.
    """
    for text, where, number in _read_entries(path):
        yield number, where, _parse_object(text, where)


def read_texts(path: Path, what: str) -> Iterator[tuple[str, str, str]]:
    """Yield the id, title and text of each line or element: JSON, or an id, a tab and a text.

    `what` names the texts in errors, such as "query". The name of a stream says nothing: its first
    character tells its kind.
    """
    jsonl, is_told = is_jsonl(path), not is_stream(str(path))
    for text, where, _ in _read_entries(path):
        if not is_told:
            jsonl, is_told = jsonl or text.lstrip().startswith("{"), True
        yield parse_text(text, where, what, jsonl=jsonl)


def parse_text(line: str, where: str, what: str, *, jsonl: bool) -> tuple[str, str, str]:
    """Parse a line of such a file to its id, title and text. `where` names it in errors."""
    if not jsonl:
        name, tab, text = line.partition("\t")
        if not tab:
            raise InputError(
                f"{where}: no {what}: not an id, a tab and a text",
                hint="the name of a JSONL file ends in .jsonl, or in .jsonl.gz and the like",
            )
        return name, "", text
    record = _parse_object(line, where)
    id_ = next((record[key] for key in _ID_FIELDS if key in record), None)
    content = next((record[key] for key in _TEXT_FIELDS if isinstance(record.get(key), str)), None)
    if not isinstance(id_, str | int) or content is None:
        raise InputError(
            f"{where}: no {what}: it needs an id ({', '.join(_ID_FIELDS[:3])}) and a text",
            hint=f"it has {', '.join(record) or 'nothing'}",
        )
    title = record.get("title")
    return str(id_), title if isinstance(title, str) else "", content


def read_qrels(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the query id, document id and grade of judgements, in the format of TREC or BEIR.

    JSON has an object of queries, each with an object of documents and grades.
    """
    if is_jsonl(path):
        for query, document, number, where in _read_nested(path):
            try:
                yield query, document, check_grade(number)
            except ValueError as error:
                raise InputError(f"{where}: {error}", hint=_QRELS_HINT) from error
        return
    for number, line in read_text_lines(path):
        cells = line.split("\t") if line.count("\t") == 2 else line.split()
        if number == 1 and len(cells) == 3 and _is_name(cells[2]):  # the names of the columns
            continue
        if len(cells) == 4:  # TREC: query, iteration, document, grade
            del cells[1]
        if len(cells) != 3 or not _is_number(cells[2]):
            raise InputError(f"{path}:{number}: not a judgement", hint=_QRELS_HINT)
        try:
            yield cells[0], cells[1], check_grade(float(cells[2]))
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}", hint=_QRELS_HINT) from error


def check_grade(number: float) -> int:
    """A number as a grade; raises `ValueError` if it is not a grade.

    Libraries of measures need memory for all grades up to the largest, and trec_eval gives wrong
    figures if there is too little.
    """
    if math.isfinite(number) and int(number) == number and abs(number) <= MAX_GRADE:
        return int(number)
    raise ValueError(
        f"has {str(number)[:_SHOWN_CHARACTERS]}, not a grade, which is a whole number, at most "
        f"{MAX_GRADE:,}"
    )


def read_run(path: Path) -> Iterator[tuple[str, str, float]]:
    """Yield the query id, document id and score of each line of a run, as trec_eval reads it.

    JSON has an object of queries, each with an object of documents and scores.
    """
    if is_jsonl(path):
        yield from ((query, name, score) for query, name, score, _ in _read_nested(path))
        return
    for number, line in read_text_lines(path):
        yield parse_run_line(line, f"{path}:{number}")


def _read_nested(path: Path) -> Iterator[tuple[str, str, float, str]]:
    """Yield the query id, document id, number and place of a JSON object of objects of numbers."""
    for _, where, content in read_objects(path):
        for query, own in content.items():
            if not isinstance(own, dict):
                raise InputError(f"{where}: {query} has no documents", hint=_NESTED_HINT)
            for name, number in own.items():
                is_number = isinstance(number, int | float) and not isinstance(number, bool)
                if not is_number or math.isnan(number):
                    raise InputError(f"{where}: {query}, {name}: no number", hint=_NESTED_HINT)
                yield query, name, float(number), where


def parse_run_line(line: str, where: str) -> tuple[str, str, float]:
    """Parse a line of a run to its query id, document id and score."""
    cells = line.split()
    try:
        query, _, document, _, score = cells[:5]
        if math.isnan(value := float(score)) or "_" in score:
            raise ValueError("not a score")
    except ValueError as error:
        raise InputError(
            f"{where}: not a line of a run", hint="query Q0 document rank score tag"
        ) from error
    return query, document, value


def find_jsonl(folder: Path, stem: str) -> Path | None:
    """Find a file of JSONL, or of a JSON array, in a folder by its stem, compressed or not."""
    paths = [
        *folder.glob(f"{stem}.jsonl*"),
        *folder.glob(f"{stem}.json"),
        *folder.glob(f"{stem}.json.*"),
    ]
    return next(iter(sorted(paths, key=lambda path: (".jsonl" not in path.suffixes, path))), None)


def is_jsonl(path: Path) -> bool:
    """Whether a file's name says that it holds JSON."""
    return any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes)


def _parse_object(line: str, where: str) -> dict[str, Any]:
    try:
        content = parse_json(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: not a JSON object")
    return content


def _is_name(text: str) -> bool:
    return not _is_number(text) and not text.lstrip("+-.")[:1].isdigit()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # as in Python's own numbers
