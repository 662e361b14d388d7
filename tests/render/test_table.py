"""What is drawn on terminals of every width, and when it is coloured."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from rerank_cli import Document, Ranking, Reranker, Selection, rank
from rerank_cli.ranking.sentences import find_sentences
from rerank_cli.render import Format, Style, render
from rerank_cli.render.rows import passage_link
from rerank_cli.structure import syntax_of
from rerank_cli.terminal import printable, readable
from rerank_cli.types import Chunk, ScoredChunk
from rerank_cli.words import QueryWords
from tests.conftest import ROOT, Run
from tests.support.converted import pdf
from tests.support.fakes import OverlapScorer, words_info

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
ODD = [
    "fox and 日本語のとても長い文書です。" * 4,
    "a fox 👩‍👩‍👧 e\u0301\u0302 שלום عربي " * 5,
    "\x1b]0;title\x07\x1b[2Jfox\x9b31m \u202e reversed \x00\x7f",
    "a fox 👍🏽🇩🇪❤️1️⃣ 👩‍👩‍👧\u2028" * 9,
    "שלום עולם " * 30,
    "plain text of a fox that is long enough to need more than a single line of the table " * 3,
    "fox",
]


# What a terminal may act on. The table's own mark for direction is not among them.
ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def rank_texts(texts: list[str], query: str = "fox", **options: object) -> Ranking:
    documents = [Document(t, source="notes/a.txt", line=n) for n, t in enumerate(texts, 1)]
    scorer = OverlapScorer(words_info(200, scale="logit"))
    return rank(query, documents, scorer, **options)  # type: ignore[arg-type]


def draw(ranking: Ranking, width: int, **options: Any) -> list[str]:
    style = Style(Format.TABLE, interactive=True, width=width, **options)
    return b"".join(render(ranking, style)).decode().split("\n")[:-1]


def test_probabilities_are_shown_as_relevance_and_other_scores_beside_the_best() -> None:
    def first_line(scale: str) -> str:
        scorer = OverlapScorer(words_info(200, scale=scale), lambda *_: 0.25)
        return draw(rank("fox", ["a fox"], scorer), 80)[0]

    assert first_line("probability").startswith("1  0.250  ██ ")
    assert first_line("unbounded").startswith("1  0.25  ████████ ")


@pytest.mark.parametrize("width", [20, 30, 60, 80, 200])
@pytest.mark.parametrize("color", [False, True])
def test_the_table_fits_and_lets_no_control_character_through(width: int, color: bool) -> None:
    lines = draw(rank_texts(ODD), width, color=color)
    plain = [ESCAPE.sub("", line) for line in lines]
    assert all(cell_len(line) <= width for line in plain)
    assert (lines != plain) is color
    assert not ACTIVE.search("".join(plain))
    assert sum(line.strip()[:1].isdigit() and "." in line[:10] for line in plain) >= len(ODD)


def test_columns_go_as_it_gets_narrow() -> None:
    results = rank_texts(["a fox is here", "nothing"])
    wide, middle, narrow = (draw(results, width)[0] for width in (80, 50, 24))
    assert re.match(r"1  0\.731  █████▉    notes/a\.txt:1  a fox is here", wide)
    assert "█" not in middle
    assert "a.txt:1" in middle
    assert re.fullmatch(r"1  0\.731  notes/a\.txt:1", narrow)
    assert draw(results, 24)[1] == "   a fox is here"


def test_there_is_a_bar_at_80_columns(rerank: Run) -> None:
    outcome = rerank("can I return it", "examples/faq.txt", "--color", "never", terminal=80)
    assert "█" in outcome.out.splitlines()[0]


def test_an_extract_is_of_the_lines_with_the_querys_words() -> None:
    text = "filler " * 60 + "the red fox jumps " + "filler " * 60
    lines = draw(rank_texts([text]), 60)
    assert len(lines) == 3
    assert "red fox jumps" in " ".join(line.split("  ")[-1].strip() for line in lines)
    assert "…" in lines[0]
    assert lines[-1].endswith(" …")
    assert len(draw(rank_texts([text]), 60, full=True)) > 10


def test_no_line_is_too_wide_where_emoji_are_not_joined() -> None:
    texts = ["fox 👩‍👩‍👧 👍🏽 🇩🇪 ❤️ " * 9, "👩‍👩‍👧" * 50]
    for width in (30, 60, 80, 200):
        for full in (False, True):
            lines = draw(rank_texts(texts), width, full=full)
            assert max(sum(max(0, cell_width(c)) for c in line) for line in lines) <= width


def test_a_word_of_emoji_is_not_cut_into_a_column_of_them() -> None:
    lines = draw(rank_texts(["👩‍👩‍👧👍🏽 fox " + "👩‍👩‍👧👍🏽" * 20]), 80)
    assert "fox" in lines[0]


def cell_width(character: str) -> int:
    """Cells of one code point by itself, as terminals have it that know of no sequences."""
    return 2 if character in "🏻🏼🏽🏾🏿" else cell_len(character)


def test_right_to_left_text_stays_in_its_cell() -> None:
    name = "\N{HEBREW LETTER ALEF}.txt"
    documents = [Document("שלום עולם fox " * 9, source=name, line=1), Document("fox")]
    ranking = rank("fox", documents, OverlapScorer(words_info(200, scale="logit")))
    *hebrew, english = draw(ranking, 80)
    assert len(hebrew) == 3
    assert re.search(f"\u200e{name}:1\u200e +\u200e", hebrew[0])
    assert all(re.match(" +\u200e", line) for line in hebrew[1:])
    assert "\u200e" not in english


def test_a_name_with_a_line_end_stays_in_its_row() -> None:
    ranking = rank("fox", [Document("fox", source="a\nb\x1b.txt", line=1)], OverlapScorer())
    (line,) = draw(ranking, 80)
    assert "a␊b␛.txt:1" in line


def test_an_explained_result_has_a_row_for_each_of_its_chunks() -> None:
    document = Document("none of it\n" * 3 + "a fox here\n", source="a.md", line=1)
    scorer = OverlapScorer(words_info(4, scale="logit"))
    ranking = rank(
        "fox", [document], scorer, explain=True, aggregate="max", chunk_tokens=8, overlap_tokens=0
    )
    first, *chunks = draw(ranking, 80, explained=True)
    assert first.startswith("1  0.731  █████▉    a.md:4")
    assert [line.split()[2] for line in chunks] == ["████", "█████▉"]
    assert len(chunks) == len(ranking[0].explanation) == 2
    assert [line.split()[:2] for line in chunks] == [["·", "0.500"], ["·", "0.731"]]
    assert chunks[0].endswith("none of it none of it")
    assert chunks[1].split("a.md:")[1] == "4  (the passage above)"


@pytest.mark.parametrize("options", [{}, {"full": True}, {"context": 1}])
def test_the_passage_of_an_explained_result_is_shown_once(options: dict[str, Any]) -> None:
    document = Document("none of it\n" * 3 + "a fox here\n", source="a.md", line=1)
    scorer = OverlapScorer(words_info(4, scale="logit"))
    ranking = rank("fox", [document], scorer, explain=True, chunk_tokens=8, overlap_tokens=0)
    table = "\n".join(draw(ranking, 80, explained=True, **options))
    assert (table.count("fox"), table.count("(the passage above)")) == (1, 1)
    assert len(ranking[0].explanation) == 2


def test_further_passages_stand_below_their_file_if_there_is_room() -> None:
    texts = [f"a fox {number}\n" + "fox filler " * 200 for number in range(3)]
    documents = [Document(text, source="a.txt", line=1, whole=True) for text in texts]
    selection = Selection(n=3, best_passages=3)
    with Reranker(OverlapScorer(words_info(100, scale="logit"))) as reranker:
        ranking = reranker.submit("fox", documents, selection).result()

    def marks(height: int | None) -> list[str]:
        lines = draw(ranking, 80, height=height)
        return [line.split()[0] for line in lines if line[:1].strip()]

    assert marks(None) == ["1", "·", "·", "2", "·", "·", "3", "·", "·"]
    assert marks(40) == marks(None)
    assert marks(8) == ["1", "2", "3"]
    # A file's score is lowered for many passages: those of its passages would stand above it.
    rows = [line.split()[:2] for line in draw(ranking, 80) if line[:1].strip()]
    assert rows[0] == ["1", f"{ranking[0].relevance_score:.3f}"]
    assert rows[1][0] == "·"
    assert rows[1][1].startswith("a.txt")


@pytest.mark.parametrize(
    ("query", "source", "expected"),
    [
        ("fox", "a.md", "It rains. · By night · A fox runs. · By day · It sleeps."),
        ("by night", "a.md", "It rains. · By night · A fox runs. · By day · It sleeps."),
        ("rains", "a.md", "It rains. · By night · A fox runs. · By day · It sleeps."),
        ("fox", "a.txt", "It rains. ## By night A fox runs. ## By day ## It sleeps."),
    ],
)
def test_a_heading_of_markdown_does_not_run_into_the_sentences(
    query: str, source: str, expected: str
) -> None:
    text = "It rains.\n\n## By night\n\nA fox runs.\n\n## By day ##\nIt sleeps.\n"
    document = Document(text, source=source, line=1, whole=True, syntax=syntax_of(source))
    ranking = rank(query, [document], OverlapScorer(words_info(100, scale="logit")))
    (row,) = draw(ranking, 120)
    assert row.endswith(f" {expected}")


def test_a_sentence_that_two_windows_share_is_shown_once() -> None:
    text = "none of it at all\n\n" * 9 + "a fox\n\n" + "none of it at all\n\n" * 9
    document = Document(text, source="a.txt", line=1, whole=True)
    first, second = (
        Chunk(document, start, start + 60, text[start : start + 60], 0)
        for start in (text.index("a fox") - 9, text.index("a fox") - 49)
    )
    ranking = rank("fox", [document], OverlapScorer(words_info(100, scale="logit")))
    result = replace(
        ranking[0],
        passage=first,
        explanation=(ScoredChunk(first, 2.0, 0.9), ScoredChunk(second, 2.0, 0.9)),
    )
    table = draw(replace(ranking, results=(result,)), 80)
    assert [line.split()[0] for line in table if line[:1].strip()] == ["1"]
    assert "\n".join(table).count("a fox") == 1
    table = draw(replace(ranking, results=(result,)), 80, explained=True)
    assert [line.split()[0] for line in table if line[:1].strip()] == ["1", "·", "·"]


@pytest.mark.parametrize(("height", "is_shown"), [(None, True), (40, True), (16, False)])
def test_the_context_of_further_passages_is_shown_if_there_is_room(
    height: int | None, is_shown: bool
) -> None:
    text = "before\na fox\nafter\n" + "filler\n" * 200 + "above\na fox too\nbelow\n"
    document = Document(text, source="a.txt", line=1, whole=True)
    selection = Selection(n=3, best_passages=3)
    with Reranker(OverlapScorer(words_info(100, scale="logit"))) as reranker:
        ranking = reranker.submit("fox", [document] * 3, selection).result()
    rows = "\n".join(draw(ranking, 80, context=1, height=height))
    assert "1- before" in rows
    assert ("204- above" in rows) is is_shown


def test_empty_documents_have_no_score() -> None:
    lines = draw(rank_texts(["a fox", " ", ""], keep_empty=True), 80)
    assert [line.split() for line in lines[1:]] == [
        ["\N{EN DASH}", "notes/a.txt:2", "(empty)"],
        ["\N{EN DASH}", "notes/a.txt:3", "(empty)"],
    ]
    assert [line.split() for line in draw(rank_texts([""], keep_empty=True), 20)] == [
        ["\N{EN DASH}", "notes/a.txt:1"],
        ["(empty)"],
    ]
    assert draw(rank_texts([""]), 80) == []


HEADED_TEXT = "# Animals\n\n## By night\n\nThey sleep. A red fox is here.\nIt runs.\n\nEnd of it.\n"


def draw_headed(source: str, width: int, headings: Sequence[str], **style: Any) -> list[str]:
    """The rows of a result whose sentence has headings."""
    document = Document(HEADED_TEXT, source=source, line=1, whole=True)
    start = HEADED_TEXT.index("A red")
    sentence = Chunk(
        document, start, start + 18, HEADED_TEXT[start : start + 18], 0, headings=headings
    )
    ranking = rank("fox", [document], OverlapScorer(words_info(200, scale="logit")))
    return draw(ranking, width, sentences={1: sentence}, **style)


@pytest.mark.parametrize(
    ("source", "width", "expected"),
    [
        ("a.md", 80, "Animals › By night"),
        ("a.md", 40, "Animals › By night"),
        ("a.md", 30, "… By night"),
        ("a/longer/name/of/a.md", 80, "Animals › By night"),
        ("a/longer/name/of/a.md", 52, "… By night"),
    ],
)
def test_headings_take_no_line_of_their_own(source: str, width: int, expected: str) -> None:
    rows = draw_headed(source, width, ("Animals", "By night"))
    assert len(rows) <= len(draw_headed(source, width, ()))
    assert all(cell_len(row) <= width for row in rows)
    assert sum(expected in row for row in rows[:2]) == 1
    long = draw_headed(source, width, ("Animals", "What the foxes of a cold land do by night " * 3))
    assert all(cell_len(row) <= width for row in long)


@pytest.mark.parametrize(("source", "width"), [("a.md", 24), ("a/longer/name/of/a.md", 44)])
def test_headings_without_room_are_left_out(source: str, width: int) -> None:
    rows = draw_headed(source, width, ("Animals", "By night"))
    assert rows == draw_headed(source, width, ())
    assert rows[0].endswith(f"  {source}:5")


def test_a_heading_that_is_whole_is_not_marked_as_cut() -> None:
    widths = range(46, 54)  # at one there is room for it, and none for the mark of what is left out
    shown_rows = [
        draw_headed("examples/notes/foxes.md", width, ("Animals", "At nights")) for width in widths
    ]
    assert any(rows[0].endswith("  At nights") for rows in shown_rows)
    assert not any("At nights…" in row for rows in shown_rows for row in rows)


def test_headings_beside_a_passage_are_not_repeated_in_it() -> None:
    rows = draw_headed("a.md", 80, ("Animals", "By night"))
    assert "#" not in "".join(rows)
    assert rows[0].endswith("  They sleep. A red fox is here. It runs.")
    narrow = draw_headed(
        "a/longer/name/of/a.md", 34, ("Animals", "By night")
    )  # without room for them
    assert narrow[1].strip() == "# Animals ## By night They"
    elsewhere = draw_headed("a.md", 80, ("Animals", "By day"))
    assert "## By night They sleep." in "".join(elsewhere)


CODE = "class Den:\r\n\r\n    def fill(self):\r\n        put(fox)\r\n"
LOG = "10:01 ERROR the fox has run away from us\nTraceback (most recent call last):\n  File 'x'\n"
ROWS = "| animal | place |\n|---|---|\n| fox | den |\n"


@pytest.mark.parametrize(
    ("text", "syntax", "expected"),
    [
        (CODE, "python", ["class Den:", "    def fill(self):", "        put(fox)"]),
        (
            CODE.replace("\n", ""),
            "python",
            ["class Den:", "    def fill(self):", "        put(fox)"],
        ),
        (
            CODE.replace("  put", "\t" * 900 + "put"),
            "python",
            ["class Den:", "    def fill(self):", " " * 16 + "put(fox)"],
        ),
        (CODE, "", ["class Den: def fill(self): put(fox)"]),
        (LOG, "log", LOG.splitlines()),
        (ROWS, "markdown", ROWS.splitlines()),
    ],
)
def test_lines_of_code_logs_and_tables_stay_lines(
    text: str, syntax: str, expected: Sequence[str]
) -> None:
    document = Document(text, syntax=syntax)
    rows = draw(rank("fox", [document], OverlapScorer(words_info(200, scale="logit"))), 70)
    assert [row[20:] for row in rows] == expected


def test_lines_of_code_lose_the_indentation_that_they_share() -> None:
    body = "".join(f"        step_{number}()\n" for number in range(9))
    text = f"class Den:\n    def fill(self):\n{body}        put(fox)\n        return self\n{body}"
    document = Document(text, syntax="python")
    rows = draw(rank("fox", [document], OverlapScorer(words_info(200, scale="logit"))), 70)
    assert [row[20:] for row in rows] == ["… put(fox)", "return self", "step_0() …"]


def test_a_line_of_a_log_is_a_sentence() -> None:
    document = Document(LOG, syntax="log")
    ranking = rank("fox", [document], OverlapScorer(words_info(200, scale="logit")))
    assert find_sentences(ranking, 1, None)[0].text == LOG.splitlines()[0]


def test_lines_around_the_sentence_are_those_of_the_source() -> None:
    rows = draw_headed("a.md", 60, ("Animals", "By night"), context=1)
    assert "a.md:5  Animals › By night" in rows[0]
    assert [row.strip() for row in rows[1:]] == [
        "4-",
        "5: They sleep. A red fox is here.",
        "6- It runs.",
    ]
    colored = draw_headed("a.md", 30, (), color=True, context=0)
    assert len(colored) == 2
    assert "\x1b[2m5: \x1b[0m" in colored[1]
    assert "…" in colored[1]


def test_what_is_beside_the_sentence_is_dim() -> None:
    (row, *_) = draw_headed("a.md", 200, (), color=True)
    before, after = row.split("A red ")
    assert before.rstrip().endswith("\x1b[2m# Animals ## By night They sleep. \x1b[0m")
    assert "\x1b[2m It runs. End of it.\x1b[0m" in after


def test_the_querys_words_are_marked() -> None:
    (line,) = draw(rank_texts(["the foxes run"], query="fox run"), 80, color=True)
    assert re.search(r"\x1b\[[0-9;]+mfoxes\x1b\[0m", line)
    words = QueryWords("How do I get a refund?")
    assert ["Refunded orders"[a:b] for a, b in words.spans("Refunded orders, how?")] == ["Refunded"]
    assert len(QueryWords("how is it").spans("How it is")) == 3


def test_printable_shows_every_control_character() -> None:
    assert printable("a\tb\x1b\x7f\x85\u202e\ud800\n") == "a␉b␛␡\ufffd\ufffd\ufffd\n"
    assert readable("a\tb\r\nc\rd\x1b") == "a\tb\nc␍d␛"


def test_a_terminal_gets_a_table_and_a_pipe_the_records(rerank: Run) -> None:
    arguments = ("can I return something I bought", "examples/faq.txt", "-n", "2")
    table, pipe = rerank(*arguments, terminal=100), rerank(*arguments)
    assert "examples/faq.txt:4" in ESCAPE.sub("", table.out).splitlines()[0]
    assert "\x1b[" in table.out
    assert pipe.out.startswith("If you are not happy with what you bought")
    assert len(pipe.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("variables", "arguments", "colored"),
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({}, ["--color", "never"], False),
        ({"NO_COLOR": "1"}, ["--color", "always"], True),
    ],
)
def test_when_there_is_colour(
    variables: dict[str, str],
    arguments: list[str],
    colored: bool,
    rerank: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    outcome = rerank("fox", "-d", "a fox", "-m", "bm25", *arguments, terminal=80)
    assert ("\x1b[" in outcome.out) is colored


def test_no_colour_in_a_pipe(rerank: Run) -> None:
    assert "\x1b" not in rerank("x", "-d", "x", "-m", "bm25", "-f", "table").out


@pytest.mark.parametrize(
    ("width", "height", "results", "line_count"),
    [(80, 24, 10, 21), (40, 20, 8, 17), (120, 40, 10, 31), (80, 12, 8, 9), (30, 10, 5, 11)],
    ids=["two lines each", "as many as fit", "three lines each", "a line each", "five at least"],
)
def test_a_table_of_ten_fits_the_screen(
    width: int, height: int, results: int, line_count: int
) -> None:
    texts = [f"a fox {'and many other words ' * 30}{number}" for number in range(40)]
    ranking = replace(rank_texts(texts, n=10), more=30)
    style = Style(Format.TABLE, interactive=True, width=width, height=height)
    lines = b"".join(render(ranking, style)).decode().splitlines()
    assert sum(re.match(r" *\d+  0\.", line) is not None for line in lines) == results
    assert len(lines) == line_count
    assert lines[-1] == f"… {40 - results} more (-n 0 for all)"


def test_the_first_results_have_the_lines_that_are_left() -> None:
    ranking = rank_texts([f"a fox {'and many other words ' * 30}"] * 8)
    style = Style(Format.TABLE, interactive=True, width=80, height=24)
    lines = b"".join(render(ranking, style)).decode().splitlines()
    starts = [place for place, line in enumerate(lines) if line[0].isdigit()]
    ends = [*starts[1:], len(lines)]
    assert [b - a for a, b in zip(starts, ends, strict=True)] == [3, 3, 3, 3, 2, 2, 2, 2]


def test_a_line_below_the_table_says_how_many_more_there_are() -> None:
    def last_line(more: int) -> str:
        return draw(replace(rank_texts(["a fox"]), more=more), 80)[-1]

    assert last_line(22_177) == "… 22,177 more (-n 50, or -n 0 for all)"
    assert last_line(49) == "… 49 more (-n 0 for all)"
    assert last_line(0).endswith("a fox")


def test_the_table_fits_a_window_that_has_changed(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Reranker.find_sentences

    def find_in_a_narrow_window(*arguments: Any) -> Any:
        monkeypatch.setenv("COLUMNS", "50")
        return find(*arguments)

    monkeypatch.setattr(Reranker, "find_sentences", find_in_a_narrow_window)
    outcome = rerank("refund", str(ROOT / "examples" / "faq.txt"), "--color", "never", terminal=100)
    assert max(map(cell_len, outcome.out.splitlines())) <= 50


def test_the_readme_command_fits_a_screen_with_the_best_result_on_it(rerank: Run) -> None:
    outcome = rerank("can I return something I bought", "examples/faq.txt", terminal=80)
    lines = ESCAPE.sub("", outcome.out).splitlines()
    assert len(lines) + outcome.err.count("\n") <= 22
    assert lines[0].startswith(" 1  0.")
    assert lines[-1].startswith("… 5 more")


def draw_links(rerank: Run, *arguments: str, **variables: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return rerank("fox", "-m", "bm25", *arguments, terminal=80).out


def test_a_place_is_a_link_where_the_terminal_takes_it(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = tmp_path / "a \x1b];#é.txt"
    file.write_text("dog\nred fox\n")
    uri = file.as_uri()
    assert "%1B" in uri
    out = draw_links(rerank, str(file), TERM="xterm-kitty")
    link = f"\x1b]8;;file://{quote(os.uname().nodename)}{uri[7:]}#2\x1b\\"
    assert link in out
    assert out.count("\x1b]8;;") == 2  # it is closed
    vscode = draw_links(rerank, str(file), TERM_PROGRAM="vscode", TERM_PROGRAM_VERSION="1.90.1")
    assert f"\x1b]8;;{uri}#2\x1b\\" in vscode
    kitty = {"TERM": "xterm-kitty"}
    assert "]8;" not in draw_links(rerank, str(file))
    assert "]8;" not in draw_links(rerank, str(file), "--color", "never", **kitty)
    assert "]8;" not in draw_links(rerank, str(file), "-f", "text", **kitty)
    assert "]8;" not in draw_links(rerank, "-d", "a fox", **kitty)
    assert "]8;" not in draw_links(rerank, str(file), TERM="dumb", FORCE_HYPERLINK="1")
    for name, value in kitty.items():
        monkeypatch.setenv(name, value)
    assert (
        b"]8;" not in rerank("fox", "-m", "bm25", str(file), "-f", "table", "--color", "always").raw
    )


def test_a_link_has_its_host_where_the_system_has_no_uname(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where some terminals take links with a host too."""
    host = platform.node()
    monkeypatch.delattr(os, "uname")
    file = tmp_path / "a.txt"
    file.write_text("fox")
    chunk = Chunk(Document("fox", source=str(file)), 0, 3, "fox", 0)
    link = passage_link("file://{host}{path}", chunk)
    assert link == f"file://{quote(host)}{file.as_uri().removeprefix('file://')}"


def test_the_link_of_a_pdf_has_its_page_but_for_editors(rerank: Run, tmp_path: Path) -> None:
    pytest.importorskip("pypdf")
    file = tmp_path / "a.pdf"
    file.write_bytes(pdf("apple", "a fox"))
    link = "a.pdf#page=2\x1b\\"
    assert link in draw_links(rerank, str(file), "--unit", "section", TERM="foot")
    kitty = draw_links(rerank, str(file), "--unit", "section", TERM="xterm-kitty")
    assert "a.pdf\x1b\\" in kitty
    assert "#" not in kitty


def test_the_same_links_have_the_same_bytes(rerank: Run) -> None:
    arguments = ("-d", "x", "examples/garden.md", "--min-score", "0")
    assert draw_links(rerank, *arguments, TERM="foot") == draw_links(
        rerank, *arguments, TERM="foot"
    )


@pytest.mark.slow
def test_the_table_and_grep_have_the_same_places(rerank: Run) -> None:
    """Also where the model chooses the sentence."""
    arguments = ("keep snails away from the salad", "examples/garden.md")
    table = rerank(*arguments, "-f", "table", "--color", "never").out
    grep = rerank(*arguments, "-f", "grep").out
    places = re.findall(r"examples/\S+:\d+", table)
    # A line that two passages share comes once in grep's lines.
    assert [*dict.fromkeys(places)] == [":".join(line.split(":")[:2]) for line in grep.splitlines()]


@pytest.mark.slow
@given(
    text=st.text('a \t\n\r|#("', max_size=60),
    indent=st.sampled_from(["", "\t" * 5000, "\n" * 5000]),
    syntax=st.sampled_from(["python", "log", "markdown"]),
)
def test_any_text_is_drawn_in_the_width(text: str, indent: str, syntax: str) -> None:
    document = Document(f"{indent}{text}a fox{text}", source="a", line=1, syntax=syntax)
    rows = draw(rank("fox", [document], OverlapScorer(words_info(20, scale="logit"))), 40)
    assert rows
    assert all(cell_len(row) <= 40 for row in rows)
