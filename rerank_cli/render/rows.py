"""A ranking as a row for each result: CSV, TSV, TREC runs, lines of grep, and paths of files."""

import os
import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from rerank_cli.errors import UsageError
from rerank_cli.inputs import STDIN
from rerank_cli.render import (
    Remark,
    Sources,
    Style,
    document_place,
    format_score,
    lines_around,
    on_one_line,
    original_bytes,
    ranked_part,
    shown_sentence,
)
from rerank_cli.terminal import encodable
from rerank_cli.types import Chunk, Document, Ranked, Ranking

if TYPE_CHECKING:
    from rerank_cli.words import QueryWords

_LINE_FRAGMENT = "#{line}"  # of a URL that an editor opens
HEADER = ("rank", "relevance_score", "raw_score", "index", "id", "source", "line", "text")
_MODEL_COLUMN = "model"  # the model of a cascade that judged a result
_HEADING_CHARACTERS = 60  # of those before a line of grep
_QUERY_ID = "1"  # of the only query, in a TREC run
# A line of a run needs a score. A blank document has none: it comes after all that have.
_NO_SCORE = "-inf"
# White space, and surrogates: bytes of a file's name that are not text.
_NOT_IN_RUN_NAMES = re.compile("[\\s\ud800-\udfff]")
# The end of the first line of a text in a record, which is one line for grep.
_LINE_ENDS = re.compile(r"[\r\n]")
# As GNU grep calls standard input in its own output, and as --grep knows it.
_STDIN_NAME = "(standard input)"
_TSV_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def write_csv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a header and rows with the quotation marks of RFC 4180. Rows end with a line feed."""
    import csv

    lines: list[str] = []
    collector = _Collector(lines)
    # Before Python 3.13, carriage returns are quoted only if they are in the line terminator.
    writer = csv.writer(collector, lineterminator="\r\n")
    for row in _rows(ranking, style):
        writer.writerow(row)
        yield (lines.pop().removesuffix("\r\n") + "\n").encode()


def write_tsv(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield a header and rows, each on one line, with the escapes of jq's @tsv."""
    for row in _rows(ranking, style):
        yield ("\t".join(value.translate(_TSV_ESCAPES) for value in row) + "\n").encode()


class _Collector:
    """A file for csv to write to, which keeps each row in a list."""

    def __init__(self, rows: list[str]) -> None:
        self._rows = rows

    def write(self, row: str) -> None:
        self._rows.append(row)


def _rows(ranking: Ranking, style: Style) -> Iterator[list[str]]:
    has_stages = bool(ranking.stages)
    yield [*HEADER, _MODEL_COLUMN] if has_stages else list(HEADER)
    for result in ranking.results:
        scores = [format_score(result.relevance_score), format_score(result.raw_score)]
        part = ranked_part(result, passages=style.passages)
        cells = _document_cells(result.index, result.document, part)
        judge = [ranking.stages[result.stage].info.model] if has_stages else []
        yield [str(result.rank), *scores, *cells, *judge]
    for blank in ranking.blanks:
        document = blank.document
        cells = _document_cells(blank.index, document, document)
        yield ["", "", "", *cells, *([""] if has_stages else [])]


def _document_cells(index: int, document: Document, part: Chunk | Document) -> list[str]:
    line = "" if part.line is None else str(part.line)
    where = [document.id or "", document.source or "", line]
    return [str(index), *map(encodable, [*where, part.text])]


def write_trec(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the lines of a run: the score is the raw score with the prior, the tag is the model.

    See `run_score`.
    """
    tag = quote_spaces(",".join(stage.info.model for stage in ranking.stages) or ranking.info.model)
    for result in ranking.results:
        name = _run_name(result.document, result.index)
        if style.passages and not result.document.text_is_label:
            name = f"{name}#{result.passage.start}-{result.passage.end}"
        yield _run_line(name, result.rank, run_score(ranking, result), tag)
    for rank, blank in enumerate(ranking.blanks, len(ranking.results) + 1):
        yield _run_line(_run_name(blank.document, blank.index), rank, _NO_SCORE, tag)


def run_score(ranking: Ranking, result: Ranked) -> str:
    """The score of a result in a run: the raw score, with the prior if there is one.

    Programs that read runs sort by it. If the results are not in the order of these scores, because
    several models gave them or an earlier order counts too, it is the place from the end.
    """
    if ranking.is_in_order_of_scores:
        return format_score(result.score)
    return str(len(ranking.results) + 1 - result.rank)


def _run_line(name: str, rank: int, score: str, tag: str) -> bytes:
    line = f"{_QUERY_ID} Q0 {quote_spaces(name)} {rank} {score} {tag}\n"
    return line.encode()


def _run_name(document: Document, index: int) -> str:
    return document.id or document_place(document) or str(index)


def quote_spaces(name: str) -> str:
    """Quote the white space of a name, as in a URL, because it would end the name in a run."""
    return _NOT_IN_RUN_NAMES.sub(lambda match: quote(match.group(), errors="surrogatepass"), name)


def write_grep(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield `path:line:text` for each result, as grep does: the line of the sentence that is shown.

    Its headings stand before the text. A source with pages instead of lines has its page there, as
    with `pdfgrep -n`, and a source with neither has line 1. A line that two passages share is
    written once. With context, the lines around it are `path-line-text`.
    """
    from rerank_cli.words import QueryWords

    words = QueryWords(ranking.query)
    path_end = b"\0" if style.null and not style.interactive else b""
    sentences = [
        sentence
        for result in ranking.results
        for sentence in _result_sentences(result, words, style)
    ]
    blanks = [_first_character(blank.document) for blank in ranking.blanks]
    if style.context is not None:
        yield from _grep_groups([*sentences, *blanks], style.context, path_end)
        return
    may_repeat = style.passages or any(result.explanation for result in ranking.results)
    line_keys = set[tuple[str | None, int, int]]()
    for sentence in sentences:
        line = _grep_line(sentence)
        if line.key not in line_keys or not may_repeat:
            yield line.encode(b":", path_end, heading=_untold_heading(sentence))
        line_keys.add(line.key)
    for blank in blanks:
        yield _grep_line(blank).encode(b":", path_end)


def _result_sentences(result: Ranked, words: "QueryWords", style: Style) -> Iterator[Chunk]:
    """The sentence of a result, then those of its further passages."""
    from rerank_cli.ranking.sentences import sentence_in  # not for help

    yield shown_sentence(result, words, style)
    for scored in result.explanation:
        if scored.chunk is not result.passage:
            yield sentence_in(scored.chunk, words)


class _GrepLine(NamedTuple):
    """A line of a document: its number in the source, and its characters."""

    document: Document
    number: int
    start: int
    end: int

    @property
    def key(self) -> tuple[str | None, int, int]:
        """The identity of the line; a line of the source itself has its number.

        A line of HTML may have many of the text.
        """
        document = self.document
        is_numbered = document.line is not None and document.source_lines is None
        return document.source, self.number, 0 if is_numbered else self.start

    def encode(self, mark: bytes, path_end: bytes, heading: str = "") -> bytes:
        document = self.document
        line = original_bytes(document, self.start, self.end)
        if line is None:
            line = document.text[self.start : self.end].encode("utf-8", "replace")
        if heading:
            line = f"{heading}: ".encode("utf-8", "replace") + line.lstrip()
        path = _STDIN_NAME if document.source in (None, STDIN) else str(document.source)
        path = path if path_end else on_one_line(path)
        number = b"%d" % self.number
        return b"".join(
            (_encode_path(path), path_end or mark, number, mark, line.removesuffix(b"\r"), b"\n")
        )


def _grep_line(chunk: Chunk) -> _GrepLine:
    """The line in which a chunk begins."""
    number = chunk.line or chunk.page or 1
    return _GrepLine(chunk.document, number, *_line_span(chunk.document, chunk.start))


def _first_character(document: Document) -> Chunk:
    """An empty chunk where the text of a blank document, or of one without a score, begins."""
    text = document.text
    start = len(text) - len(text.lstrip()) if text.strip() else 0
    return Chunk(document, start, start, "", 0)


def _untold_heading(sentence: Chunk) -> str:
    """The headings of a sentence, without those that are in its line anyway.

    Long headings would push the line itself out of a list in an editor: they lose the outer ones.
    """
    first, last = _line_span(sentence.document, sentence.start)
    line, names = sentence.document.text[first:last], list(sentence.headings)
    while names and names[-1] in line:
        names.pop()
    heading = " › ".join(names)
    for place in range(1, len(names)):
        if len(heading) > _HEADING_CHARACTERS:
            heading = "… " + " › ".join(names[place:])
    if len(heading) > _HEADING_CHARACTERS:
        heading = names[-1][:_HEADING_CHARACTERS].rstrip() + "…"
    return encodable(heading)


def _grep_groups(sentences: Sequence[Chunk], count: int, path_end: bytes) -> Iterator[bytes]:
    """Yield the lines around sentences, `--` between groups that do not touch.

    Groups of one source that touch or overlap are one, at the place of the first of them.
    """
    lines_by_source: dict[str | None, dict[tuple[int, int], tuple[int, _GrepLine]]] = {}
    matches = set[tuple[str | None, int, int]]()
    for rank, sentence in enumerate(sentences):
        lines = lines_by_source.setdefault(sentence.document.source, {})
        match = _grep_line(sentence)
        matches.add(match.key)
        for line in (match, *_context_lines(sentence, count)):
            lines.setdefault(line.key[1:], (rank, line))
    groups: list[tuple[int, list[_GrepLine]]] = []
    for lines in lines_by_source.values():
        before = None
        for (number, _), (rank, line) in sorted(lines.items(), key=itemgetter(0)):
            if before is None or number > before + 1:
                groups.append((rank, []))
            best, group = groups[-1]
            group.append(line)
            groups[-1] = min(best, rank), group
            before = number
    separator = b""
    for _, group in sorted(groups, key=itemgetter(0)):
        yield separator
        for line in group:
            yield line.encode(b":" if line.key in matches else b"-", path_end)
        separator = b"--\n"


def _context_lines(sentence: Chunk, count: int) -> Iterator[_GrepLine]:
    """The lines around a sentence that are lines of its source."""
    document = sentence.document
    if document.line is None or document.fields is not None:
        return
    lines = lines_around(sentence, count)
    first = Chunk(document, lines[0].start, lines[0].start, "", 0).line or 1
    for place, (start, end, _) in enumerate(lines):
        number = first + place
        if document.source_lines is not None:
            number = Chunk(document, start, start, "", 0).line or 1
        yield _GrepLine(document, number, start, end)


def _line_span(document: Document, start: int) -> tuple[int, int]:
    """The span of the line of a text that has the character at `start`."""
    text = document.text
    # A record is one line or has lines of its own, which are not lines of its source.
    is_record = document.fields is not None
    first = max(text.rfind(end, 0, start) for end in ("\r\n" if is_record else "\n")) + 1
    following = _LINE_ENDS.search(text, start) if is_record else None
    last = following.start() if following else text.find("\n", start)
    return first, last if last >= 0 else len(text)


def find_broken_paths(ranking: Ranking, style: Style) -> Remark | None:
    """A remark if there are paths with line feeds, which a line cannot show unchanged."""
    paths = {result.document.source for result in ranking.results}
    broken = sum("\n" in path for path in paths if path)
    if not broken or style.null:
        return None
    names = "the name of 1 file has" if broken == 1 else f"the names of {broken:,} files have"
    return Remark(
        f"{names} a line feed, shown as \N{SYMBOL FOR LINE FEED}",
        "-0 writes names as they are, with NUL behind them",
    )


def check_places(sources: Sources, _style: Style) -> None:
    """Raise `UsageError` if some documents come from no source."""
    if sources.has_texts:
        raise UsageError(
            "the format grep writes places, and the documents of -d have none",
            hint="-f tsv has a line for each result too",
        )


def write_paths(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the path of each file once, as the user wrote it.

    Raises `UsageError` if a result comes from no file.
    """
    documents = [result.document for result in ranking.results]
    documents += [blank.document for blank in ranking.blanks]
    sources = dict.fromkeys(document.source for document in documents)
    if None in sources or STDIN in sources:
        raise _no_path_error()
    end = b"\0" if style.null and not style.interactive else b"\n"
    for source in sources:
        yield _path_bytes(source or "") + end


def check_paths(sources: Sources, _style: Style) -> None:
    """Raise `UsageError` if some documents come from no file."""
    if sources.has_unnamed:
        raise _no_path_error()


def _no_path_error() -> UsageError:
    return UsageError(
        "the format paths needs files, and some of these documents do not come from files",
        hint="name files to rank; --files-from - reads such names from a pipe",
    )


def _path_bytes(path: str) -> bytes:
    """The bytes of a path that stands alone.

    Programs that get it would take a name such as -n for an option, so ./ is put before it.
    """
    return _encode_path(f"{os.curdir}{os.sep}{path}" if path.startswith("-") else path)


def _encode_path(path: str) -> bytes:
    """A path in the locale's encoding if that has the characters, else in UTF-8."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "surrogateescape")


def passage_link(url: str, chunk: Chunk) -> str:
    """The URL of a line or page of a file; empty if there is no such file, or `url` is empty."""
    source = chunk.document.source
    if not url or source in (None, STDIN) or not os.path.isfile(source):
        return ""
    path = Path(source).absolute().as_uri().removeprefix("file://")
    if chunk.page is not None and not url.endswith(_LINE_FRAGMENT):
        url += f"#page={chunk.page}"
    if chunk.line is None:  # and an editor would take a page for a line
        url = url.removesuffix(_LINE_FRAGMENT)
    host = ""
    if "{host}" in url:
        import platform  # rich imports it too, and most formats have no links

        host = quote(platform.node())
    return url.format(host=host, path=path, line=chunk.line)
