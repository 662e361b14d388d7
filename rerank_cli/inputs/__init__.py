"""Reads documents from arguments, files and standard input, as bytes, one unit at a time.

Decides what one document is and keeps its bytes for giving back. Scores and drops nothing.
"""

import codecs
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from rerank_cli.characters import encodable
from rerank_cli.errors import InputError
from rerank_cli.inputs.records import read_record
from rerank_cli.types import Document

STDIN = "-"
_RECORDS = {".jsonl", ".ndjson"}
_TABLES = {".json", ".csv", ".tsv"}
_LINES = {".txt", ".log"}


class Unit(StrEnum):
    """What one document is."""

    AUTO = "auto"
    LINE = "line"
    RECORD = "record"
    FILE = "file"


@dataclass(slots=True)
class Inputs:
    """The documents of one run, in order: `texts` as they are, then what is in `paths`.

    A path of `-` is standard input. Iterate once; `undecodable` then counts the documents with
    bytes that are not UTF-8, which were replaced in the text and are kept in `raw`.
    """

    texts: Sequence[str] = ()
    paths: Sequence[str] = ()
    unit: Unit = Unit.AUTO
    fields: Sequence[str] = ()
    undecodable: int = field(default=0, init=False)

    @property
    def single_file(self) -> bool:
        """Whether this is exactly one document, a whole file: then its passages are ranked."""
        return len(self.paths) == 1 and not self.texts and self._unit_of(self.paths[0]) is Unit.FILE

    def check(self) -> None:
        """Find what cannot be read before anything is scored; raises `InputError`."""
        for path in self.paths:
            self._unit_of(path)
            if path == STDIN:
                continue
            if not path:
                raise InputError("a file's name is empty", hint="is a shell variable not set?")
            try:
                mode = Path(path).stat().st_mode
            except OSError as error:
                raise _unreadable(path, error) from error
            if not os.access(path, os.R_OK):
                raise InputError(f"{path}: Permission denied")
            if stat.S_ISDIR(mode):
                raise InputError(
                    f"{path}: is a directory", hint=f"name the files in it, as in {path}/*"
                )
        if self.paths.count(STDIN) > 1:
            raise InputError("standard input (-) can be read only once")

    def __iter__(self) -> Iterator[Document]:
        for text in self.texts:
            yield Document(text, raw=text.encode("utf-8", "replace") + b"\n")
        for path in self.paths:
            try:
                if path == STDIN:
                    if sys.stdin is None:
                        raise InputError("standard input is closed")
                    yield from self._read(sys.stdin.buffer, path)
                else:
                    with open(path, "rb") as stream:
                        yield from self._read(stream, path)
            except OSError as error:
                raise _unreadable(path, error) from error

    def _unit_of(self, path: str) -> Unit:
        if self.unit is not Unit.AUTO:
            return self.unit
        suffix = Path(path).suffix.lower()
        if suffix in _TABLES:
            raise InputError(
                f"{path}: records are read from .jsonl files, not from {suffix}",
                hint="--unit line ranks its lines, --unit file its passages",
            )
        if suffix in _RECORDS:
            return Unit.RECORD
        return Unit.LINE if path == STDIN or suffix in _LINES else Unit.FILE

    def _read(self, stream: BinaryIO, path: str) -> Iterator[Document]:
        unit = self._unit_of(path)
        if unit is Unit.FILE:
            raw = _without_mark(stream.read(), path)
            terminator = b"\r\n" if b"\r\n" in raw else b"\n"
            text = self._decode(raw)
            yield Document(text, source=path, line=1, raw=_terminated(raw, terminator))
            return
        for number, raw in enumerate(_lines(stream, path), 1):
            text = self._decode(raw.rstrip(b"\r\n"))
            if unit is Unit.LINE:
                yield Document(text, source=path, line=number, raw=raw)
            elif text.strip():
                yield read_record(text, self.fields, source=path, line=number, raw=raw)

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.undecodable += 1
            # Byte by byte, so that a place in the text is one in the bytes decoded this way.
            return encodable(raw.decode("utf-8", "surrogateescape"))


def _unreadable(path: str, error: OSError) -> InputError:
    name = "standard input" if path == STDIN else path
    if not isinstance(error, FileNotFoundError):
        return InputError(f"{name}: {error.strerror}")
    hint = "a query of several words goes in quotes" if path.isalnum() else None
    return InputError(f"{name}: no such file", hint=hint)


def _without_mark(raw: bytes, path: str) -> bytes:
    """Take a byte-order mark off the beginning of a source."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            f"{path}: is UTF-16, and only UTF-8 is read",
            hint=f"iconv -f UTF-16 -t UTF-8 {path} | rerank …",
        )
    return raw.removeprefix(codecs.BOM_UTF8)


def _lines(stream: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield lines with their terminators, the last one's as the others' where it has none."""
    terminator = b"\n"
    for number, line in enumerate(stream):
        if number == 0:
            line = _without_mark(line, path)
        if line.endswith(b"\n"):
            terminator = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        if line:
            yield _terminated(line, terminator)


def _terminated(raw: bytes, terminator: bytes) -> bytes:
    return raw if raw.endswith(b"\n") else raw + terminator
