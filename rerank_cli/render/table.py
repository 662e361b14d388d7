"""A ranking as a table for a terminal: rank, score as a number and a bar, place, and extract.

The table fits the terminal's width, and also its height if the user has not chosen the number of
results. The place is that of the sentence in the extract.
"""

import io
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.style import Style as TextStyle
from rich.table import Table
from rich.text import Text

from rerank_cli.ranking.sentences import sentence_in
from rerank_cli.render import (
    Style,
    blend_note,
    document_place,
    lines_around,
    media_note,
    prior_note,
    shown_sentence,
)
from rerank_cli.render.rows import passage_link
from rerank_cli.structure import LOG, MARKDOWN, PLAIN, is_code, replace_returns
from rerank_cli.terminal import printable
from rerank_cli.types import Chunk, Document, Ranked, Ranking, ScoredChunk
from rerank_cli.words import QueryWords

GAP_CELLS = 2
# Styles that can be read on white and on black.
_MARK_STYLE = "bold underline"
_MARK_BESIDE_STYLE = "underline"  # outside of the sentence
_PLACE_STYLE = "magenta"
_BAR_STYLE = "green"
_BAR_CELLS = 8
# The least width of a passage beside a bar, and beside a place. In a narrower terminal the bar is
# left out, then the place stands above the passage; so does one with a larger share of the width.
_PASSAGE_CELLS = 36
_PASSAGE_BESIDE_PLACE_CELLS = 28
_PLACE_SHARE = 0.4
_HEADING_SHARE = 0.3  # the most of the width for headings that are longer than places
_LEAST_HEADING_CELLS = 10
_HEADING_GAP = " › "
_LEFT_OUT = "… "
_BAR_SCREEN_CELLS = 60  # the least width of a table with bars
_EXTRACT_LINES = 3
_FURTHER_SHARE = 0.5  # the least relevance of a further passage, as a share of its result's
_LEAST_FURTHER = 0.5  # and by itself
_EXTRACT_CHARACTERS = 4000  # of a passage, to lay out in lines
_MIN_RESULTS = 5  # that are shown if there is room for fewer
_SCREEN_LINES_BESIDE = 4  # of a screen: the command, what is left out, a remark, the next prompt
_NEXT_RESULTS = 50  # that the line below the table proposes
_ELLIPSIS_CELLS = 2
_EIGHTHS = " ▏▎▍▌▋▊▉"
_NO_SCORE = "\N{EN DASH}"
_CHUNK_MARK = "·"
_SAME_PASSAGE = "(the passage above)"  # in place of the text of a result's own passage
# Hebrew, Arabic and the other scripts that are written from the right.
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_DIRECTION_MARK = "\N{LEFT-TO-RIGHT MARK}"
_MAX_INDENT_CELLS = 16  # of a line of code
_ROW_START = "|"  # of a row of a table in Markdown
_MARKDOWN_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_DOTS = re.compile(r"·(?: ·)+")
_NO_NAME = re.compile(r"[\W_]+")  # what headings have beside their names
_FOLDER_END = re.compile(r"[/\\]")
_SKIN_TONE = re.compile("[\U0001f3fb-\U0001f3ff]")
_LINK_ID = re.compile("(?<=\x1b]8;)id=[^;\x1b]*")  # rich's is another one in each run


def write_table(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """Yield the lines of the table, with escape sequences only if it has colour."""
    console = Console(
        file=io.StringIO(),
        width=style.width,
        height=25,  # not used, but without it rich takes TERM=dumb to be 80 cells wide
        force_terminal=style.color,
        no_color=not style.color,  # `style` has followed NO_COLOR and --color
        color_system="standard" if style.color else None,
        legacy_windows=False,
    )
    with console.capture() as capture:
        draw_table(ranking, console, style)
    for line in _LINK_ID.sub("", capture.get()).split("\n")[:-1]:
        yield line.rstrip().encode() + b"\n"


def draw_table(ranking: Ranking, console: Console, style: Style) -> None:
    """Draw the table on a console, and below it how many results it leaves out.

    Each result has a row. If results are explained, the chunks of each are below it. In a cascade a
    line names the model that judged the results below it; the last model has such a line only if
    results are explained.
    """
    rows = _find_rows(ranking, style)
    if not rows:
        return
    rows = _fit_rows(rows, ranking, console.width, style)
    layout = Layout(rows, ranking, console.width, is_above=style.context is not None)
    passages = _lay_out(rows, layout, Extracts(ranking.query, layout.text_width, console), style)
    is_explained = any(result.explanation for result in ranking.results) and style.explained
    pairs = zip(rows, passages, strict=False)
    for stage, group in groupby(pairs, key=lambda pair: pair[0].stage):
        is_last = stage == len(ranking.stages) - 1
        if stage is not None and ranking.stages and (is_explained or not is_last):
            line = Text(_judge_line(ranking, stage), style="dim", overflow="ellipsis", no_wrap=True)
            console.print(line)
        grid = Table(box=None, show_header=False, padding=(0, GAP_CELLS, 0, 0), pad_edge=False)
        for width in layout.widths:
            grid.add_column(width=width, no_wrap=True)
        grid.add_column(width=layout.text_width)
        for row, passage in group:
            grid.add_row(*layout.cells(row, passage))
        console.print(grid)
    results = [row.mark != _CHUNK_MARK for row in rows]
    result_count, hidden_count = sum(results[: len(passages)]), sum(results[len(passages) :])
    if left_out := ranking.more + hidden_count:
        proposal = f"-n {_NEXT_RESULTS}, or " if result_count + left_out > _NEXT_RESULTS else ""
        console.print(Text(f"… {left_out:,} more ({proposal}-n 0 for all)", style="dim"))


def _judge_line(ranking: Ranking, stage: int) -> str:
    """A line that names the model that judged the results below it."""
    return f"── judged by {printable(ranking.stages[stage].info.model)} ──"


class Row(NamedTuple):
    """A row of the table.

    mark       the rank, or what marks a row below a result
    relevance  the score; None for no score
    style      that of the score, or "dim" for the whole row
    place      where the sentence is
    link       the URL of that place; empty for none
    chunk      the chunk whose text is shown
    sentence   the sentence that its extract begins with
    heading    its sections, classes and functions
    lines      the most lines of the extract
    note       what stands below the passage
    stage      the place of the model of a cascade that judged it; None for a blank document
    is_same    whether its passage is that of the row of its result, above it
    """

    mark: str
    relevance: float | None
    style: str
    place: str
    link: str
    chunk: Chunk
    sentence: Chunk
    heading: str = ""
    lines: int = _EXTRACT_LINES
    note: str = ""
    stage: int | None = None
    is_same: bool = False


def _find_rows(ranking: Ranking, style: Style) -> list[Row]:
    words = QueryWords(ranking.query)
    rows = list[Row]()

    def add(mark: str, relevance: float | None, chunk: Chunk, sentence: Chunk, **more: Any) -> None:
        is_blank = not chunk.text.strip() and chunk.document.whole
        place = document_place(chunk.document) if is_blank else sentence.place
        place, link = _on_one_line(place), passage_link(style.links, sentence)
        rows.append(
            Row(
                mark,
                relevance,
                place=place,
                link=link,
                chunk=chunk,
                sentence=sentence,
                heading=_on_one_line(sentence.heading),
                **more,
            )
        )

    for result in ranking.results:
        passage = result.passage
        sentence = passage if style.full else shown_sentence(result, words, style)
        notes = [media_note(result.document), prior_note(result, style)]
        if result.blend is not None and style.explained:
            notes.append(blend_note(result.blend))
        more = {"note": "; ".join(filter(None, notes)), "stage": result.stage}
        add(str(result.rank), result.relevance_score, passage, sentence, style="bold", **more)
        starts = {sentence.start}
        for chunk, _, relevance in _further_chunks(result, style):
            is_same = chunk is passage
            other = chunk if style.full else sentence_in(chunk, words)
            more = {"lines": 1, "stage": result.stage, "is_same": is_same}
            # A result with many passages has a lower score, beside which theirs look too high.
            score = relevance if style.explained else None
            # Two windows of a text that overlap may have the same best sentence.
            if style.explained or other.start not in starts:
                place = sentence if is_same else other
                add(_CHUNK_MARK, score, chunk, place, style="dim", **more)
            starts.add(other.start)
    for blank in ranking.blanks:
        text = blank.document.text
        chunk = Chunk(blank.document, 0, len(text), text, 0)
        add("", None, chunk, chunk if style.full else sentence_in(chunk, words), style="dim")
    return rows


def _further_chunks(result: Ranked, style: Style) -> Sequence[ScoredChunk]:
    """The chunks to show below a result. A single chunk would only repeat the result.

    These are the best ones that are not far below the result and more likely relevant than not,
    without its own passage.
    """
    if style.explained:
        return result.explanation if len(result.explanation) > 1 else ()
    least = max(_FURTHER_SHARE * result.relevance_score, _LEAST_FURTHER)
    return [
        scored
        for scored in result.explanation
        if scored.chunk is not result.passage and scored.relevance_score >= least
    ]


def _fit_rows(rows: list[Row], ranking: Ranking, width: int, style: Style) -> list[Row]:
    """The rows of the results, and those of further passages if there is room for all."""
    if style.height is None or style.full or style.explained:
        return rows
    is_above = Layout(rows, ranking, width, is_above=style.context is not None).is_above
    lines = 1 + is_above + 2 * (style.context or 0)
    if len(rows) * lines <= style.height - _SCREEN_LINES_BESIDE:
        return rows
    return [row for row in rows if row.mark != _CHUNK_MARK]


def _lay_out(
    rows: Sequence[Row], layout: "Layout", extracts: "Extracts", style: Style
) -> list[Text]:
    """The passages of the rows that are shown: as many as fit the height, and at least some.

    All have as many lines as there is room for, and the first ones get the rest.
    """

    def draw(row: Row, lines: int) -> Text:
        is_headed = layout.heading_width(row) > 0
        return _passage(row, extracts, lines, style, is_headed=is_headed)

    passages = [draw(row, _EXTRACT_LINES) for row in rows]
    if style.height is None or style.full or style.explained:
        return passages
    stages = {row.stage for row in rows if row.stage is not None}
    room = style.height - _SCREEN_LINES_BESIDE - layout.count_lines(stages)
    lines = _EXTRACT_LINES
    while sum(map(layout.height, passages)) > room and lines > 1:
        lines -= 1
        passages = [draw(row, lines) for row in rows]
    fit_count = sum(total <= room for total in accumulate(map(layout.height, passages)))
    passages = passages[: max(fit_count, _MIN_RESULTS if style.context is None else 1)]
    room -= sum(map(layout.height, passages))
    for place, row in enumerate(rows[: len(passages)]):
        longer = draw(row, min(lines + 1, _EXTRACT_LINES))
        room -= layout.height(longer) - layout.height(passages[place])
        if room < 0:
            break
        passages[place] = longer
    return passages


def _passage(
    row: Row, extracts: "Extracts", most_lines: int, style: Style, *, is_headed: bool
) -> Text:
    if not row.chunk.text.strip():
        return Text("(empty)", style="dim italic")
    if row.is_same:
        return Text(_SAME_PASSAGE, style="dim italic")
    if style.full:
        passage = extracts.whole(row.chunk.text)
    elif style.context is not None:
        passage = extracts.lines(row.sentence, style.context)
    else:
        lines = min(row.lines, most_lines)
        passage = extracts.around(row.sentence, row.chunk, lines, is_headed=is_headed)
    if row.note:
        note = f"\n[{_on_one_line(row.note)}]"
        passage += Text(note, style="dim", overflow="ellipsis")
    return passage


class Layout:
    """The columns of a table: rank, score, bar, place and passage.

    If the place has no room beside the passage, or with `is_above`, the score, the bar and the
    place stand above it. The bar is left out before the place is cut. Headings are where
    they take no line of their own: behind a place that is above, or below one that is beside.
    `widths` are those of the columns before the last one, and `text_width` is that of the passage,
    all in cells. `is_above` says whether the place stands above.
    """

    def __init__(
        self, rows: Sequence[Row], ranking: Ranking, width: int, *, is_above: bool = False
    ) -> None:
        infos = [stage.info for stage in ranking.stages] or [ranking.info]
        self._are_known = [info.is_bounded for info in infos]
        self._full_bars = [
            1.0 if is_known else max([1e-9, *_scores_of(ranking, stage)])
            for stage, is_known in enumerate(self._are_known)
        ]
        mark_width = max(len(row.mark) for row in rows)
        self._score_width = max(len(self._score(row)) for row in rows)
        longest = max(cell_len(row.place) for row in rows)
        room = width - mark_width - self._score_width - 2 * GAP_CELLS
        beside = room - longest - GAP_CELLS if longest else room
        self.is_above = is_above or (
            longest > 0 and (beside < _PASSAGE_BESIDE_PLACE_CELLS or longest > width * _PLACE_SHARE)
        )
        if not self.is_above and longest:
            heading_cells = min(
                max(cell_len(row.heading) for row in rows), int(width * _HEADING_SHARE)
            )
            spare = max(0, beside - _PASSAGE_CELLS - _BAR_CELLS - GAP_CELLS)
            longest += min(max(0, heading_cells - longest), spare)
            beside = room - longest - GAP_CELLS
        self._place_width = min(longest, room) if self.is_above else longest
        spare = room - longest if self.is_above else beside - _PASSAGE_CELLS
        has_bar = spare >= _BAR_CELLS + GAP_CELLS and width >= _BAR_SCREEN_CELLS
        self._bar_width = _BAR_CELLS if has_bar else 0
        widths = [self._score_width, self._bar_width, self._place_width]
        self.widths = [mark_width, *([] if self.is_above else filter(None, widths))]
        self.text_width = max(1, width - sum(self.widths) - GAP_CELLS * len(self.widths))

    def cells(self, row: Row, passage: Text) -> list[Text]:
        """The cells of a row."""
        dim = " dim" if row.style == "dim" else ""
        cells = [Text(self._score(row).rjust(self._score_width), style=row.style)]
        if self._bar_width:
            bar = self._bar(row)
            cells.append(Text(bar.ljust(_BAR_CELLS), style=f"{_BAR_STYLE}{dim}"))
        if self._place_width:
            cells.append(self._place(row))
        if self.is_above:
            line = Text(" " * GAP_CELLS).join(cells)
            if room := self.heading_width(row):
                line += Text(" " * GAP_CELLS) + _heading(row, room)
            cells = [line + Text("\n") + passage]
        else:
            if "\n" in passage.plain and (room := self.heading_width(row)):
                cells[-1] = Text.assemble(cells[-1], "\n", _heading(row, room))
            cells.append(passage)
        return [Text(row.mark, justify="right", style="dim"), *cells]

    def count_lines(self, stages: set[int]) -> int:
        """How many of some models of a cascade have a line that names them."""
        return sum(stage < len(self._are_known) - 1 for stage in stages)

    def heading_width(self, row: Row) -> int:
        """The cells that there are for the headings of a row; 0 if it has none, or no room."""
        room = self._place_width
        if self.is_above:
            widths = [self._score_width, self._bar_width, min(cell_len(row.place), room)]
            room = self.text_width - sum(width + GAP_CELLS for width in widths if width)
        elif cell_len(row.heading) <= room:
            return room if row.heading else 0
        return room if row.heading and room >= _LEAST_HEADING_CELLS else 0

    def height(self, passage: Text) -> int:
        """The lines of a row."""
        return passage.plain.count("\n") + 1 + self.is_above

    def _place(self, row: Row) -> Text:
        text = _isolate_direction(_shorten(row.place, self._place_width))
        color = TextStyle.parse(f"{_PLACE_STYLE} dim" if row.style == "dim" else _PLACE_STYLE)
        return Text(text, style=color.update_link(row.link or None))

    def _score(self, row: Row) -> str:
        if row.relevance is None or row.stage is None:
            return "" if row.mark == _CHUNK_MARK else _NO_SCORE
        return f"{row.relevance:.{3 if self._are_known[row.stage] else 2}f}"

    def _bar(self, row: Row) -> str:
        share = (row.relevance or 0.0) / self._full_bars[row.stage or 0]
        share = min(max(share, 0.0), 1.0)
        whole, eighth = divmod(round(share * _BAR_CELLS * 8), 8)
        return "█" * whole + (_EIGHTHS[eighth] if eighth else "")


def _scores_of(ranking: Ranking, stage: int) -> list[float]:
    """The relevance scores that a model of a cascade gave."""
    return [result.relevance_score for result in ranking.results if result.stage == stage]


def _heading(row: Row, width: int) -> Text:
    """The headings of a row in a width in cells: the inner ones, or a part of the innermost."""
    heading = row.heading
    while cell_len(heading) > width and _HEADING_GAP in heading.removeprefix(_LEFT_OUT):
        heading = _LEFT_OUT + heading.removeprefix(_LEFT_OUT).partition(_HEADING_GAP)[2]
    if cell_len(heading) > width:
        heading = heading.removeprefix(_LEFT_OUT)
    if cell_len(heading) > width:
        heading = set_cell_size(heading, width - 1).rstrip() + "…"
    return Text(_isolate_direction(heading), style="dim")


def _on_one_line(place: str) -> str:
    return printable(place).replace("\n", "\N{SYMBOL FOR LINE FEED}")


def _shorten(place: str, width: int) -> str:
    """Cut a place at its left, which says least, to a width in cells; at a folder if possible."""
    if cell_len(place) <= width:
        return place
    while cell_len(place) > width - 1:
        place = place[1:]
    folder = _FOLDER_END.search(place)
    return "…" + (place[folder.start() :] if folder else place)


def _isolate_direction(cell: str) -> str:
    """Keep right-to-left writing in its own cell.

    Without the marks, a terminal that supports it would order the whole row from the right. Other
    terminals show nothing for the marks.
    """
    return f"{_DIRECTION_MARK}{cell}{_DIRECTION_MARK}" if _RIGHT_TO_LEFT.search(cell) else cell


class Extracts:
    """Passages in lines of `width` cells, with the query's words marked."""

    def __init__(self, query: str, width: int, console: Console) -> None:
        self._words = QueryWords(query)
        self._width = width
        self._console = console

    def whole(self, passage: str) -> Text:
        """All lines of a passage."""
        text = printable(passage.replace("\r\n", "\n").expandtabs(4))
        return _join(self._wrap(text, 0, len(text), self._width))

    def around(
        self, sentence: Chunk, passage: Chunk, count: int, *, is_headed: bool = False
    ) -> Text:
        """`count` lines of a passage, from a sentence on; the whole passage if it has no more.

        If the sentence has more than `count` lines, its neighbouring lines with the most words of
        the query are shown. If the passage ends too soon, lines before the sentence fill up the
        number. A passage that `is_headed` has its headings elsewhere, and is shown without them.
        """
        shown_from = _behind_headings(passage, sentence) if is_headed else 0
        extract = self._extract(sentence, passage, shown_from, count)
        if shown_from and len(extract) == 1:  # there is no room for headings beside it
            extract = self._extract(sentence, passage, 0, count)
        return _join(extract)

    def _extract(self, sentence: Chunk, passage: Chunk, shown_from: int, count: int) -> list[Text]:
        """The lines of `around`, without the part of the passage before `shown_from`."""
        text = passage.text[shown_from:]
        begin = passage.start + shown_from
        first, last = sentence.start - begin, sentence.end - begin

        def lay_out(start: int, end: int, width: int) -> list[Text]:
            part = text[start:end], max(first - start, 0), min(last, end) - start
            if not _has_lines(sentence):
                return self._wrap(*_one_line(*part, passage.document.syntax), width)
            indent = _indent(passage.document, begin + start)
            return self._wrap(*_code_lines(*part, indent), width)

        if len(text) <= _EXTRACT_CHARACTERS:
            lines = lay_out(0, len(text), self._width)
            if len(lines) <= count:
                return lines
        start, end = first, first + _EXTRACT_CHARACTERS
        room = max(1, self._width - 2 * _ELLIPSIS_CELLS)
        lines = lay_out(start, end, room)
        if len(lines) < count:
            start = max(0, start - _EXTRACT_CHARACTERS // 4)
            lines = lay_out(start, end, room)
            top = max(0, len(lines) - count)
        else:
            own = len(
                self._wrap(
                    *_one_line(sentence.text[:_EXTRACT_CHARACTERS], 0, _EXTRACT_CHARACTERS), room
                )
            )
            marks = [len(self._words.spans(line.plain)) for line in lines[:own]]
            tops = range(max(own - count, 0) + 1)
            top = max(tops, key=lambda line: (sum(marks[line : line + count]), -line))
        extract = lines[top : top + count]
        if top or text[:start].strip():
            extract[0] = Text.assemble(("… ", "dim"), _without_indent(extract[0]))
        if top + count < len(lines) or text[end:].strip():
            extract[-1] = extract[-1] + Text(" …", style="dim")
        return extract

    def lines(self, sentence: Chunk, count: int) -> Text:
        """The lines of a sentence and `count` lines around it, as they are, cut to the width.

        A line has its number before it, with a colon where the sentence is and a hyphen elsewhere.
        """
        document, rows = sentence.document, list[Text]()
        is_numbered = document.line is not None and document.fields is None
        lines = lines_around(sentence, count)
        numbers = [
            Chunk(document, start, start, "", 0).line if is_numbered else None
            for start, _, _ in lines
        ]
        digits = max(len(str(number or "")) for number in numbers)
        for number, (start, end, is_shown) in zip(numbers, lines, strict=True):
            text = document.text[start : min(end, start + _EXTRACT_CHARACTERS)]
            text = printable(text.rstrip().expandtabs(4))
            line = self._mark_words(text, 0, len(text) if is_shown else 0)
            gutter = f"{number or '':>{digits}}{':' if is_shown else '-'} "
            row = Text.assemble((gutter, "dim"), line, overflow="ellipsis", no_wrap=True)
            row.truncate(self._width, overflow="ellipsis")
            rows.append(row)
        return _join(rows)

    def _mark_words(self, text: str, first: int, last: int) -> Text:
        """A text whose sentence, from `first` to `last`, stands out from the rest."""
        extract = Text(text, overflow="fold")
        extract.stylize("dim", 0, first)
        extract.stylize("dim", last)
        for start, end in self._words.spans(text):
            is_in = first <= start and end <= last
            extract.stylize(_MARK_STYLE if is_in else _MARK_BESIDE_STYLE, start, end)
        return extract

    def _wrap(self, text: str, first: int, last: int, width: int) -> list[Text]:
        extract = self._mark_words(text, first, last)
        room = width
        while True:
            lines = list(extract.wrap(self._console, room))
            for line in lines:
                line.rstrip()
            excess = max((_max_cells(line.plain) for line in lines), default=0) - width
            if excess <= 0 or room == 1:
                return lines
            # The widest line decides by what share the cells are reduced.
            room = max(1, min(room - 1, room * width // (width + excess)))


def _one_line(text: str, first: int, last: int, syntax: str = PLAIN) -> tuple[str, int, int]:
    """A text in one line, and where the part from `first` to `last` is in it.

    A heading in Markdown stands between dots, or it would look like a part of the sentences.
    """
    last = min(last, len(text))
    pieces = [text[:first], text[first:last], text[last:]]
    if syntax == MARKDOWN:
        pieces = [_MARKDOWN_HEADING.sub(r"· \1 ·", piece) for piece in pieces]
        if pieces[1].startswith("·"):
            pieces = [f"{pieces[0]} ·", pieces[1][1:], pieces[2]]
        if pieces[1].endswith("·"):
            pieces = [pieces[0], pieces[1][:-1], f"· {pieces[2]}"]
    before, part, after = (printable(_DOTS.sub("·", " ".join(piece.split()))) for piece in pieces)
    before = before.removeprefix("·").lstrip()
    before += " " if before and text[:first][-1:].isspace() else ""
    after = (" " if after and text[last : last + 1].isspace() else "") + after
    return before + part + after, len(before), len(before) + len(part)


def _has_lines(sentence: Chunk) -> bool:
    """Whether line breaks around a sentence mean something, so that lines are not joined."""
    syntax = sentence.document.syntax
    return is_code(syntax) or syntax == LOG or sentence.text.startswith(_ROW_START)


def _without_indent(line: Text) -> Text:
    return line[len(line.plain) - len(line.plain.lstrip()) :] if line.plain.strip() else line


def _indent(document: Document, place: int) -> str:
    """The indentation of the line that a character is in, up to that character."""
    text = document.text
    first = max(text.rfind("\n", 0, place) + 1, place - _EXTRACT_CHARACTERS)
    line = text[first:place]
    return line[: len(line) - len(line.lstrip())]


def _code_lines(text: str, first: int, last: int, indent: str) -> tuple[str, int, int]:
    """The lines of a text that are not blank, and where the part from `first` to `last` is.

    That part is in one line. The lines keep the indentation that they do not have in common with
    it; `indent` is that of the first one.
    """
    text = replace_returns(text)
    *above, lead = (indent + text[:first]).expandtabs(4).split("\n")
    part = printable(" ".join(text[first:last].split()))
    rest, *below = text[last:].expandtabs(4).split("\n")
    lines = [*above, lead + part, *[line for line in below if line.strip()][:_EXTRACT_LINES]]
    indents = [len(line) - len(line.lstrip()) for line in lines if line.strip()]
    margin = min(indents, default=0)

    def format_line(line: str) -> str:
        bare = line.lstrip()
        indentation = min(max(len(line) - len(bare) - margin, 0), _MAX_INDENT_CELLS)
        return " " * indentation + printable(bare)

    before = "".join(f"{format_line(line.rstrip())}\n" for line in above if line.strip())
    before += format_line(lead)
    after = printable(rest.rstrip()) + "".join(
        f"\n{format_line(line.rstrip())}" for line in below if line.strip()
    )
    return before + part + after, len(before), len(before) + len(part)


def _behind_headings(passage: Chunk, sentence: Chunk) -> int:
    """How many characters of a passage are headings that the table shows before it anyway."""
    if is_code(passage.document.syntax):  # there the first line says more than its name
        return 0
    names = {_NO_NAME.sub("", name) for name in sentence.headings}
    text, behind = passage.text, 0
    while names and behind < sentence.start - passage.start:
        end = text.find("\n", behind) + 1
        name = _NO_NAME.sub("", text[behind : end or len(text)])
        if not end or end > sentence.start - passage.start or (name and name not in names):
            break
        behind = end
    return behind


def _join(lines: list[Text]) -> Text:
    return Text("\n").join(
        Text(_DIRECTION_MARK) + line if _RIGHT_TO_LEFT.search(line.plain) else line
        for line in lines
    )


def _max_cells(line: str) -> int:
    """The cells of a line on terminals that draw the parts of a joined emoji one by one.

    A line that is too wide there would continue in the next row.
    """
    if line.isascii():
        return len(line)
    apart = sum(map(cell_len, line)) + 2 * len(_SKIN_TONE.findall(line))
    return max(cell_len(line), apart)
