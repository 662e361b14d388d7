"""Tables: the rows of CSV and TSV, by the names of their columns.

Files that are not quite CSV are read where they can mean only one thing: another delimiter, `sep=`
above the header, quotation marks that are escaped by a backslash or stand behind a blank. If a row
does not fit its header, no text is lost silently: surplus fields are text, and a quotation mark
that is never closed is text too. Both are noted as faults of the source, and so is a row that ends
before its text.

A row is read in a time that is linear in its size, whatever its quotation marks are.
"""

import csv
import re
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice

from rerank_cli.errors import InputError
from rerank_cli.inputs.text import Fault, SourceBlock, TextSource
from rerank_cli.terminal import encodable, format_count, format_size
from rerank_cli.types import Envelope

# The first of these that gives a column of text separates the columns. Spreadsheets use others
# than commas where a comma is the decimal sign.
_DELIMITERS = ",;\t|"
# Excel reads and writes such a line above the header.
_DELIMITER_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[\r\n]*', re.IGNORECASE)
_MAX_FIELD_CHARACTERS = (1 << 31) - 1  # the most that csv takes on every system
_MAX_ROW_LINES = 1_000_000
_MAX_COLUMNS = 1_000_000
_MAX_FILLED_COLUMNS = 1000  # of a row that is too short; more would take time for each short row
_SEARCHED_LINES = 10  # among which a header is looked for, to say where it is
_SHOWN_CHARACTERS = 200  # of a header in a message
# How much more than the source itself may be read again because of quotation marks.
_REREAD_FACTOR = 4
_FIRST_CREDIT_BYTES = 1 << 20
_EXTRA, _MISSING, _UNCLOSED = "extra fields", "missing text", "unclosed quote"  # kinds of faults


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns that a table should have.

    text    the names of those with the text
    id      the name of that with the id; empty if it need not be there
    is_any  whether the first of `text` that is there is enough
    others  the names of columns that stand in for text, if there is none
    """

    text: Sequence[str]
    id: str = ""
    is_any: bool = False
    others: Sequence[str] = ()

    def places_in(self, header: Sequence[str]) -> Sequence[int]:
        """The places of the columns of text in a header; empty if one is missing."""
        places = {name: place for place, name in reversed([*enumerate(header)])}
        names = (*self.text, *self.others)
        text_places = [places[name] for name in names if name in places]
        if self.is_any:
            return text_places[:1]
        return sorted({*text_places}) if len(text_places) == len(names) else ()


def read_table(
    source: TextSource, columns: TableColumns, *, delimiter: str | None = None
) -> tuple[Envelope, Iterator[tuple[Mapping[str, str], SourceBlock]]]:
    """Read the header, which goes into the envelope, and then the rows.

    Without a `delimiter` the header tells it, and fields may be quoted; with one, quotation marks
    are text. Raises `InputError` at the first row of a table without its columns.
    """
    table = _Table(source, columns, delimiter)
    return table.read_header(), table.rows()


_Line = tuple[int, bytes, str]  # its number, bytes and text


class _RowTooLong(Exception):
    """A row has more lines or bytes than a row may have."""


class _Table:
    """The rows of a table, as csv reads them, with the bytes of their lines."""

    def __init__(self, source: TextSource, columns: TableColumns, delimiter: str | None) -> None:
        csv.field_size_limit(_MAX_FIELD_CHARACTERS)
        self._source = source
        self._columns = columns
        self._quoted = delimiter is None
        self._delimiter = delimiter or _DELIMITERS[0]
        self._header: Sequence[str] = ()
        self._text_places: Sequence[int] = ()
        self._lines = source.lines()
        self._row = list[_Line]()  # the lines of the row that is being read
        self._read_bytes = self._row_start = 0  # how much of the source was read, also before it
        self._waiting = deque[_Line]()  # lines that were read, and are not in a row yet
        self._returned_bytes = 0
        self._is_too_long = False  # the row that csv could not read
        self._max_lines = _MAX_ROW_LINES
        self._reader: Iterator[list[str]] = iter(())

    def read_header(self) -> Envelope:
        """Read the names of the columns; returns the envelope of the rows."""
        mark = self._source.envelope.mark
        for line in self._next_lines():
            _, raw, text = line
            if not text.strip("\r\n"):
                continue
            if self._quoted and (match := _DELIMITER_LINE.fullmatch(text)):
                self._delimiter, mark = match[1], mark + raw
            else:
                if self._quoted and mark == self._source.envelope.mark:
                    self._delimiter = _find_delimiter(text, self._columns)
                self._waiting.append(line)
                break
        self._start_reader()
        names, block = next(self._raw_rows(), ([], SourceBlock("", 1, b"")))
        if len(names) > _MAX_COLUMNS:
            raise InputError(
                f"{self._source.name}:{block.line}: {len(names):,} columns, and {_MAX_COLUMNS:,} "
                "are the most"
            )
        self._header = _unique_names(names)
        self._text_places = self._columns.places_in(self._header)
        self._source.undecodable = 0  # the header is not a document
        return replace(
            self._source.envelope, mark=mark, header=block.raw, delimiter=self._delimiter
        )

    def rows(self) -> Iterator[tuple[Mapping[str, str], SourceBlock]]:
        """Yield the rows that are not blank, by the names of their columns.

        A row that is too short has the other columns all the same, or those of text and id at
        least if there are very many.
        """
        needed_names = [self._header[place] for place in self._text_places]
        needed_names += [self._columns.id] if self._columns.id in self._header else []
        is_filled = len(self._header) <= _MAX_FILLED_COLUMNS
        for values, block in self._raw_rows():
            if not self._text_places:
                raise self._header_error(block.line)
            row = dict(zip(self._header, values, strict=False))
            if len(values) < len(self._header):
                if len(values) <= self._text_places[-1]:
                    self._note_missing(values)
                for name in self._header[len(values) :] if is_filled else needed_names:
                    row.setdefault(name, "")
            yield row, block

    def _raw_rows(self) -> Iterator[tuple[list[str], SourceBlock]]:
        """Yield the fields of rows that are not blank, with their bytes.

        After the header, no row has more fields than that.
        """
        while True:
            width = len(self._header)
            self._begin_row()
            values: list[str] | None
            try:
                values = next(self._reader, None)
                if values is None:
                    return
            except (csv.Error, _RowTooLong) as error:
                values = None
                self._is_too_long = isinstance(error, _RowTooLong)
                self._start_reader()
            if values is None or (
                width and (len(values) > width or (len(values) < width and len(self._row) > 1))
            ):
                values = self._read_again(values, width)
            if values:
                number, raw, _ = self._row[0]
                if len(self._row) > 1:
                    raw = b"".join([raw for _, raw, _ in self._row])
                yield values, SourceBlock("", number, raw)

    # The lines of the source, and those that were read too early.

    def _begin_row(self) -> None:
        self._row = []
        self._row_start = self._read_bytes

    def _next_lines(self) -> Iterator[_Line]:
        """Yield the next lines: those that wait, and then those of the source."""
        waiting, decode = self._waiting, self._source.decode
        while True:
            if waiting:
                yield waiting.popleft()
            elif (pair := next(self._lines, None)) is not None:
                number, raw = pair
                self._read_bytes += len(raw)
                yield number, raw, decode(raw)
            else:
                return

    def _texts(self) -> Iterator[str]:
        """Yield the texts of the lines of a row, and so of each row after it."""
        max_bytes = self._source.max_bytes
        for line in self._next_lines():
            self._row.append(line)
            if len(self._row) > 1 and (
                len(self._row) > self._max_lines or self._read_bytes - self._row_start > max_bytes
            ):
                raise _RowTooLong
            yield line[2]

    def _start_reader(self, escape: str | None = None) -> None:
        """Make a reader of the next rows: after an error the one before reads no more."""
        if self._quoted:
            self._reader = csv.reader(
                self._texts(), delimiter=self._delimiter, strict=True, escapechar=escape
            )
        else:
            self._reader = (
                text.rstrip("\r\n").split(self._delimiter) if text.strip("\r\n") else []
                for text in self._texts()
            )

    def _put_back(self, kept_count: int) -> None:
        """Put the lines of the row back, except the first ones."""
        back = self._row[kept_count:]
        self._waiting.extendleft(reversed(back))
        del self._row[kept_count:]
        self._returned_bytes += sum(len(raw) for _, raw, _ in back)
        if self._returned_bytes > _FIRST_CREDIT_BYTES + _REREAD_FACTOR * self._read_bytes:
            self._max_lines = 1
        self._start_reader()

    # Rows that do not fit their header.

    def _read_again(self, values: list[str] | None, width: int) -> list[str]:
        """Read a row that csv read as `values`, or not at all, in the way that fits the header."""
        if not self._quoted:
            return self._fold(values or [], width)
        fields = self._fitting_fields(self._row, width)
        if len(self._row) > 1:
            first = self._fitting_fields(self._row[:1], width)
            if first is not None or (fields is None and values is None):
                self._put_back(1)
                self._note_unclosed(is_header=not width)
                fields, values = first, None
        elif '\\"' in self._row[0][2] and not _is_closed(fields):
            fields = self._read_escaped(width) or fields
        if fields is not None:
            return fields
        if values is None:
            values = _split_quoted(_join_lines(self._row), self._delimiter).texts
        return self._fold(values, width) if width else values

    def _read_escaped(self, width: int) -> list[str] | None:
        """Read a row whose quotation marks are escaped by backslashes, over several lines."""
        self._put_back(0)
        self._begin_row()
        self._start_reader(escape="\\")
        exact = None
        try:
            if next(self._reader, None) is not None:
                exact = self._fitting_fields(self._row, width)
        except (csv.Error, _RowTooLong):
            pass
        self._put_back(len(self._row) if exact is not None else 1)
        return exact

    def _fitting_fields(self, lines: Sequence[_Line], width: int) -> list[str] | None:
        """The fields of a row, read less strictly; None if their number is not the header's."""
        if not width or len(lines) > self._max_lines:
            return None
        text = _join_lines(lines)
        for escapes in (True, False) if '\\"' in text else (False,):
            fields = _split_quoted(text, self._delimiter, escapes=escapes)
            fields.remove_blank_end(width)
            if len(fields.texts) == width:
                return fields.texts
        return None

    def _fold(self, values: list[str], width: int) -> list[str]:
        """Read surplus fields as text.

        The text takes everything between the other fields of the header: it begins and ends where
        it would in a row that fits. It stays as it was written.
        """
        if not self._text_places:
            return values[:width]
        split = _split_quoted if self._quoted else _split_plain
        fields = split(_join_lines(self._row), self._delimiter)
        fields.remove_blank_end(width)
        extra = len(fields.texts) - width
        if extra <= 0:
            return fields.texts
        first, last = self._text_places[0], self._text_places[-1]
        if self._is_new(_EXTRA):
            count = _field_count(fields.texts)
            problem = f"{count}, and the header has {width}: the extra ones are read as text"
            self._note(_EXTRA, problem, is_doubt=first != last or last != width - 1)
        text = fields.text_between(first, last + extra)
        if self._quoted and len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1].replace('""', '"')
        behind = fields.texts[last + extra + 1 :]
        return [*fields.texts[:first], *[""] * (last - first), text, *behind]

    def _note_unclosed(self, *, is_header: bool) -> None:
        problem = "a quotation mark that is never closed"
        if self._is_too_long:
            size = format_size(self._source.max_bytes)
            problem = (
                f"a quotation mark that is not closed within {_MAX_ROW_LINES:,} lines or {size}"
            )
        if is_header:
            raise InputError(
                f"{self._source.name}:{self._row[0][0]}: {problem}",
                hint="in TSV it is text like any other: --input-format tsv",
            )
        if self._is_new(_UNCLOSED):
            self._note(_UNCLOSED, f"{problem}: it is read as text", is_doubt=True)

    def _note_missing(self, values: Sequence[str]) -> None:
        if self._is_new(_MISSING):
            name, width = encodable(self._header[self._text_places[-1]]), len(self._header)
            problem = f"{_field_count(values)}, and the header has {width}: {name} is empty"
            self._note(_MISSING, problem, is_doubt=True)

    def _is_new(self, kind: str) -> bool:
        """Whether the fault of a row is the first of its kind. It is counted, if not."""
        earlier = self._source.faults.get(kind)
        if earlier is not None:
            earlier.count += 1
        return earlier is None

    def _note(self, kind: str, problem: str, *, is_doubt: bool) -> None:
        where = f"{self._source.name}:{self._row[0][0]}"
        self._source.faults[kind] = Fault(where, problem, is_doubt=is_doubt, noun="row")

    # Invalid headers.

    def _header_error(self, line: int) -> InputError:
        """The error of a table that has no column of text."""
        where = f"{self._source.name}:{line}"
        missing = [name for name in self._columns.text if name not in self._header]
        names = encodable(", ".join(self._header))
        names_text = names if len(names) <= _SHOWN_CHARACTERS else f"{names[:_SHOWN_CHARACTERS]}…"
        column = ", ".join(self._columns.text if self._columns.is_any else missing[:1])
        return InputError(
            f"{where}: no field called {column}",
            hint=self._header_hint(f"the record has {names_text or 'none'}"),
        )

    def _header_hint(self, record_hint: str) -> str:
        for number, _, text in [*self._row, *islice(self._next_lines(), _SEARCHED_LINES)]:
            for delimiter in _DELIMITERS:
                if self._columns.places_in(_names(text, delimiter)):
                    format_ = "tsv" if delimiter == "\t" else "csv"
                    return (
                        f"line {number} may be the header: tail -n +{number} FILE | "
                        f"rerank QUERY - --input-format {format_}"
                    )
        format_ = "csv" if self._quoted else "tsv"
        if any(map(_is_value, self._header)):
            names = self._delimiter.join(["id", "text", *self._header][: max(2, len(self._header))])
            header_line = names.replace("\t", "\\t") if len(self._header) <= 2 else "NAMES"
            return (
                f"{record_hint}; if that is a row and no header, give it one: "
                f"(printf '{header_line}\\n'; cat FILE) | rerank QUERY - --input-format {format_}"
            )
        option = "name one with --field: " if self._columns.is_any else ""
        return option + record_hint


def _find_delimiter(text: str, columns: TableColumns) -> str:
    """The delimiter of a header: the first one that gives a column of text."""
    headers = {delimiter: _names(text, delimiter) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if columns.places_in(header):
            return delimiter
    return max(headers, key=lambda delimiter: len(headers[delimiter]))


def _names(text: str, delimiter: str) -> Sequence[str]:
    return _split_quoted(text.rstrip("\r\n"), delimiter).texts


def _unique_names(names: Sequence[str]) -> Sequence[str]:
    """The names of columns, where equal names get numbers: `text`, `text.2`."""
    numbers: dict[str, int] = {}
    unique: dict[str, None] = {}
    for name in names:
        candidate = name
        while candidate in unique:
            numbers[name] = numbers.get(name, 1) + 1
            candidate = f"{name}.{numbers[name]}"
        unique[candidate] = None
    return [*unique]


@dataclass(slots=True)
class _Fields:
    """The fields of a row: their texts, and where each one ends in the row."""

    row: str
    texts: list[str] = field(default_factory=list)
    ends: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, text: str, end: int) -> None:
        self.texts.append(text)
        self.ends.append(end)

    def text_between(self, first: int, last: int) -> str:
        """The part of the row from one field to another."""
        return self.row[self.ends[first - 1] + 1 if first else 0 : self.ends[last]]

    def remove_blank_end(self, width: int) -> None:
        """Remove the blank fields at the end that are more than `width`."""
        end = len(self.texts)
        while end > width and not self.texts[end - 1].strip():
            end -= 1
        del self.texts[end:], self.ends[end:]


def _split_plain(row: str, delimiter: str) -> _Fields:
    """Split a row in which quotation marks are text."""
    fields, end = _Fields(row), -1
    for text in row.split(delimiter):
        end += 1 + len(text)
        fields.add(text, end)
    return fields


@cache
def _quoted_field(delimiter: str, *, escapes: bool) -> re.Pattern[str]:
    """A pattern for a field in quotation marks, which may have blanks around them.

    Such a mark ends the field only before a delimiter. It is possessive, and so linear.
    """
    end = rf" *(?:{re.escape(delimiter)}|\Z)"
    inner = r'[^"\\]++|\\.|\\\Z' if escapes else r'[^"]++'
    return re.compile(rf' *"((?>(?:{inner}|""|"(?!{end}))*))" *(?={end})', re.DOTALL)


_OPENING_MARK = re.compile(r' *"')
_ESCAPED_MARK = re.compile(r'""|\\"')


def _split_quoted(row: str, delimiter: str, *, escapes: bool = False) -> _Fields:
    """Split a row into fields, less strictly than csv does; with `escapes` \\" is a quotation mark.

    A field whose quotation mark is not closed ends at the next delimiter, as one without does.
    """
    pattern = _quoted_field(delimiter, escapes=escapes)
    fields, start, is_closed = _Fields(row), 0, True
    while True:
        match = None
        if is_closed and _OPENING_MARK.match(row, start):
            match = pattern.match(row, start)
            # A mark that is not closed here would be searched to the end from each later field too.
            is_closed = match is not None
        if match is not None:
            inner, end = match[1], match.end()
            text = _ESCAPED_MARK.sub('"', inner) if escapes else inner.replace('""', '"')
        else:
            end = row.find(delimiter, start)
            end = len(row) if end < 0 else end
            text = row[start:end]
        fields.add(text, end)
        if end == len(row):
            return fields
        start = end + 1


def _join_lines(lines: Sequence[_Line]) -> str:
    return "".join(text for _, _, text in lines).rstrip("\r\n")


def _is_closed(values: Sequence[str] | None) -> bool:
    """Whether fields were found, and none of them begins with a quotation mark."""
    return values is not None and not any(value.startswith('"') for value in values)


def _field_count(values: Sequence[object]) -> str:
    return format_count(len(values), "field")


def _is_value(name: str) -> bool:
    """Whether a column's name looks like a value: a number or a sentence."""
    return bool(_NUMBER.fullmatch(name)) or len(name) > _MAX_NAME_CHARACTERS


_NUMBER = re.compile(r"\s*[-+]?\d[\d.,]*\s*")
_MAX_NAME_CHARACTERS = 60
