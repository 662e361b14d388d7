"""Reads what collections are made of, as BEIR and TREC have it: texts, judgements, runs.

They may be compressed. An error names the file and the line.
"""

import codecs
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rerank_cli.errors import InputError
from rerank_cli.inputs.text import opened

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_IDS = ("_id", "id", "qid", "query_id", "docid", "doc_id", "docno", "pid")
_TEXTS = ("text", "query", "contents", "body", "passage")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1."""
    try:
        with path.open("rb") as stream:
            head, content = opened(stream, str(path))
            encoding = "utf-16" if head[:2] in _UTF16 else "utf-8-sig"
            number = 0
            try:
                for number, line in enumerate(
                    io.TextIOWrapper(content, encoding=encoding, newline="\n"), 1
                ):
                    if line.strip():
                        yield number, line.rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}: after line {number}: not UTF-8") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def objects_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, with the numbers of their lines."""
    for number, line in lines_of(path):
        yield number, _object(line, f"{path}:{number}")


def texts_of(path: Path, what: str) -> Iterator[tuple[str, str, str]]:
    """Ids, titles and texts of a file of `what`: JSONL, or lines of an id, a tab and a text."""
    jsonl = is_jsonl(path)
    for number, line in lines_of(path):
        yield text_of(line, f"{path}:{number}", what, jsonl=jsonl)


def text_of(line: str, where: str, what: str, *, jsonl: bool) -> tuple[str, str, str]:
    """The id, title and text of one line of such a file; raises `InputError`."""
    if not jsonl:
        name, tab, text = line.partition("\t")
        if not tab:
            raise InputError(
                f"{where}: no {what}: not an id, a tab and a text",
                hint="JSONL is told by the file's name, as in corpus.jsonl or corpus.jsonl.gz",
            )
        return name, "", text
    record = _object(line, where)
    own = next((record[key] for key in _IDS if key in record), None)
    content = next((record[key] for key in _TEXTS if isinstance(record.get(key), str)), None)
    if not isinstance(own, str | int) or content is None:
        raise InputError(
            f"{where}: no {what}: it needs an id ({', '.join(_IDS[:3])}) and a text",
            hint=f"it has {', '.join(record) or 'nothing'}",
        )
    title = record.get("title")
    return str(own), title if isinstance(title, str) else "", content


def qrels_of(path: Path) -> Iterator[tuple[str, str, int]]:
    """Ids of query and document and their grade, as TREC has them or BEIR with its header."""
    for number, line in lines_of(path):
        cells = line.split("\t") if line.count("\t") == 2 else line.split()
        if len(cells) == 4:  # TREC: query, iteration, document, grade
            del cells[1]
        if number == 1 and len(cells) == 3 and not _is_grade(cells[2]):
            continue
        if len(cells) != 3 or not _is_grade(cells[2]):
            raise InputError(
                f"{path}:{number}: not a judgement",
                hint="query, 0, document, grade, as trec_eval has it; or query, document, grade",
            )
        yield cells[0], cells[1], int(float(cells[2]))


def run_of(path: Path) -> Iterator[tuple[str, str, float]]:
    """Ids of query and document and the score, of a run as trec_eval reads it."""
    for number, line in lines_of(path):
        yield run_line(line, f"{path}:{number}")


def run_line(line: str, where: str) -> tuple[str, str, float]:
    """What one line of a run says; raises `InputError`."""
    cells = line.split()
    try:
        query, _, document, _, score = cells[:5]
        if math.isnan(value := float(score)):
            raise ValueError("not a score")
    except ValueError as error:
        raise InputError(
            f"{where}: not a line of a run", hint="query Q0 document rank score tag"
        ) from error
    return query, document, value


def found(folder: Path, stem: str) -> Path | None:
    """A JSONL file of a folder by the beginning of its name, however it is compressed."""
    return next(iter(sorted(folder.glob(f"{stem}.jsonl*"))), None)


def is_jsonl(path: Path) -> bool:
    return any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes)


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: not a JSON object")
    return content


def _is_grade(text: str) -> bool:
    try:
        return float(text).is_integer()
    except ValueError:
        return False
