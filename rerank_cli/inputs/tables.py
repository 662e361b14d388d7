"""The rows of a CSV or TSV file, each with the bytes that it is.

CSV is quoted as RFC 4180 has it; in TSV a tab always separates and a line is always a row.
"""

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import BinaryIO

from rerank_cli.errors import InputError
from rerank_cli.inputs.blocks import Block
from rerank_cli.inputs.encodings import Decoder, lines
from rerank_cli.inputs.kinds import InputFormat
from rerank_cli.types import Envelope

# A quotation mark that is never closed would otherwise take in all the rest of a file.
_LONGEST_FIELD = 1 << 26
# Of a header without commas: what spreadsheets write where a comma is the decimal point.
_OTHER_DELIMITERS = ";\t|"


def rows(
    stream: BinaryIO, envelope: Envelope, decoder: Decoder, form: InputFormat, source: str
) -> tuple[Envelope, Iterator[tuple[dict[str, str], Block]]]:
    """Read the header, which goes into the envelope, and then row after row.

    A row is a mapping from the columns' names; fields beyond them are in its bytes only. Raises
    `InputError` naming the line of what is no table.
    """
    table = _Table(stream, envelope, decoder, source)
    header = table.begin(form)
    return replace(envelope, header=header, delimiter=table.delimiter), table.rows()


class _Table:
    """A table's lines as csv reads them, each kept until its row is complete."""

    def __init__(self, stream: BinaryIO, envelope: Envelope, decoder: Decoder, source: str) -> None:
        self.delimiter = ","
        self._lines = lines(stream, envelope)
        self._decoder = decoder
        self._source = source
        self._raw: list[bytes] = []
        self._line = 0
        self._ended = False

    def begin(self, form: InputFormat) -> bytes:
        """Read the header: its names, and the bytes that it is."""
        csv.field_size_limit(_LONGEST_FIELD)
        first, text = [], ""  # with blank lines before it
        while not text.strip("\r\n") and (raw := next(self._lines, b"")):
            first.append(raw)
            text = raw.decode(self._decoder.encoding, "replace")
        if form is InputFormat.TSV:
            self.delimiter = "\t"
            self._reader = csv.reader(self._texts(first), delimiter="\t", quoting=csv.QUOTE_NONE)
        else:
            if "," not in text:
                self.delimiter = next((d for d in _OTHER_DELIMITERS if d in text), ",")
            self._reader = csv.reader(self._texts(first), delimiter=self.delimiter)
        names, block = next(self._rows(), ([], Block("", 1, b"")))
        self._names = _told_apart(names)
        self._decoder.undecodable = 0  # which counts documents
        return block.raw

    def rows(self) -> Iterator[tuple[dict[str, str], Block]]:
        for values, block in self._rows():
            missing = [""] * (len(self._names) - len(values))
            yield dict(zip(self._names, values + missing, strict=False)), block

    def _rows(self) -> Iterator[tuple[list[str], Block]]:
        """Yield the rows that are not blank, with their lines."""
        while True:
            line = self._line + 1
            self._raw.clear()
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                raise InputError(f"{self._source}:{line}: not a row of a table: {error}") from error
            if values is None:
                return
            if self._ended:  # no other row asks for a line more
                raise InputError(
                    f"{self._source}:{line}: a quotation mark is never closed",
                    hint="in TSV it is text like any other: --input-format tsv",
                )
            if values:
                yield values, Block("", line, b"".join(self._raw))

    def _texts(self, first: list[bytes]) -> Iterator[str]:
        for raw in chain(first, self._lines):
            self._raw.append(raw)
            self._line += 1
            yield self._decoder.decode(raw)
        self._ended = True


def _told_apart(names: list[str]) -> list[str]:
    """The names of columns, of which equal ones are numbered: `text`, `text.2`."""
    apart: list[str] = []
    for name in names:
        number, own = 2, name
        while own in apart:
            own, number = f"{name}.{number}", number + 1
        apart.append(own)
    return apart
