"""What is written in each format, and what is drawn on terminals of every width."""

import json
import re

import pytest
from rich.cells import cell_len

from rerank_cli import Document, Ranking, rank
from rerank_cli.characters import encodable, printable
from rerank_cli.render import Format, render
from rerank_cli.render.query_words import QueryWords
from rerank_cli.terminal import Terminal
from tests.conftest import Run
from tests.fakes import OverlapScorer, windowed

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
ODD = [
    "fox and 日本語のとても長い文書です。" * 4,
    "a fox 👩‍👩‍👧 e\u0301\u0302 שלום عربي " * 5,
    "\x1b]0;title\x07\x1b[2Jfox\x9b31m \u202e reversed \x00\x7f",
    "plain text of a fox that is long enough to need more than a single line of the table " * 3,
    "fox",
]


def ranked(texts: list[str], query: str = "fox", **options: object) -> Ranking:
    documents = [Document(t, source="notes/a.txt", line=n) for n, t in enumerate(texts, 1)]
    scorer = OverlapScorer(windowed(200, scale="logit"))
    return rank(query, documents, scorer, **options)  # type: ignore[arg-type]


def drawn(ranking: Ranking, width: int, *, color: bool = False, full: bool = False) -> list[str]:
    terminal = Terminal(None, None, interactive=True, color=color, width=width)  # type: ignore[arg-type]
    pieces = render(ranking, Format.TABLE, terminal, passages=False, full=full)
    return b"".join(pieces).decode().splitlines()


@pytest.mark.parametrize("width", [20, 30, 60, 80, 200])
@pytest.mark.parametrize("color", [False, True])
def test_the_table_fits_and_lets_no_control_character_through(width: int, color: bool) -> None:
    lines = drawn(ranked(ODD), width, color=color)
    plain = [ESCAPE.sub("", line) for line in lines]
    assert all(cell_len(line) <= width for line in plain)
    assert (lines != plain) is color
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", "".join(plain))
    assert sum(line.strip()[:1].isdigit() and "." in line[:10] for line in plain) >= len(ODD)


def test_columns_go_as_it_gets_narrow() -> None:
    results = ranked(["a fox is here", "nothing"])
    wide, middle, narrow = (drawn(results, width)[0] for width in (80, 50, 24))
    assert re.match(r"1  0\.731  █████▉    notes/a\.txt:1  a fox is here", wide)
    assert "█" not in middle
    assert "a.txt:1" in middle
    assert "a.txt" not in narrow
    assert "a fox" in narrow


def test_there_is_a_bar_at_80_columns(rerank: Run) -> None:
    ran = rerank("how do I get a refund", "examples/faq.txt", "--color", "never", terminal=80)
    assert "█" in ran.out.splitlines()[0]


def test_an_extract_is_of_the_lines_with_the_querys_words() -> None:
    text = "filler " * 60 + "the red fox jumps " + "filler " * 60
    lines = drawn(ranked([text]), 60)
    assert len(lines) == 3
    assert "red fox jumps" in " ".join(line.split("  ")[-1].strip() for line in lines)
    assert "…" in lines[0]
    assert lines[-1].endswith(" …")
    assert len(drawn(ranked([text]), 60, full=True)) > 10


def test_the_querys_words_are_marked() -> None:
    (line,) = drawn(ranked(["the foxes run"], query="fox run"), 80, color=True)
    assert re.search(r"\x1b\[[0-9;]+mfoxes\x1b\[0m", line)
    words = QueryWords("How do I get a refund?")
    assert ["Refunded orders"[a:b] for a, b in words.spans("Refunded orders, how?")] == ["Refunded"]
    assert len(QueryWords("how is it").spans("How it is")) == 3


def test_json_has_the_shape_of_the_rerank_apis() -> None:
    (piece,) = render(ranked(["no", "a fox"]), Format.JSON, None, passages=False, full=False)  # type: ignore[arg-type]
    body = json.loads(piece)
    assert list(body) == ["id", "schema", "model", "scale", "query", "results", "counts", "usage"]
    assert body["results"][0] == {
        "index": 1,
        "relevance_score": 0.7310586,
        "raw_score": 1.0,
        "document": {"text": "a fox", "source": "notes/a.txt", "line": 2},
        "passage": {"text": "a fox", "start": 0, "end": 5, "line": 2, "raw_score": 1.0},
        "tokens": 2,
        "chunks": 1,
        "truncated": False,
    }
    assert (body["schema"], body["model"], body["scale"]) == (1, "words@1", "logit")
    assert body["counts"] == {"documents": 2, "empty": 0, "truncated": 0, "dropped_tokens": 0}
    assert body["usage"] == {"total_tokens": 3}


def test_a_lone_surrogate_stays_valid_json() -> None:
    documents = [Document("fox", fields={"name": "\ud83d"})]
    ranking = rank("fox", documents, OverlapScorer())
    (piece,) = render(ranking, Format.JSON, None, passages=False, full=False)  # type: ignore[arg-type]
    assert json.loads(piece)["results"][0]["document"]["fields"] == {"name": "\ud83d"}


def test_a_passage_that_was_not_utf_8_is_given_back_as_it_was() -> None:
    raw = b"caf\xe9 one two.\nfox \xff\xe2\x82 \xe2\x82\xac end.\n"
    text = encodable(raw.decode("utf-8", "surrogateescape"))
    document = Document(text, source="a.md", line=1, raw=raw)
    ranking = rank("fox", [document], OverlapScorer(windowed(8)), passages=True, chunk_tokens=8)
    assert b"".join(render(ranking, Format.TEXT, None, passages=True, full=False)) == raw  # type: ignore[arg-type]


def test_the_id_is_of_the_content() -> None:
    def identity(texts: list[str]) -> str:
        (piece,) = render(ranked(texts), Format.JSON, None, passages=False, full=False)  # type: ignore[arg-type]
        return str(json.loads(piece)["id"])

    assert identity(["a fox"]) == identity(["a fox"])
    assert identity(["a fox"]) != identity(["a box"])


def test_printable_shows_every_control_character() -> None:
    assert printable("a\tb\x1b\x7f\x85\u202e\ud800\n") == "a␉b␛␡\ufffd\ufffd\ufffd\n"


def test_a_terminal_gets_a_table_and_a_pipe_the_records(rerank: Run) -> None:
    arguments = ("how do I get a refund", "examples/faq.txt", "-n", "2")
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
    ran = rerank("x", "-d", "a b", "-m", "bm25", *arguments, terminal=80)
    assert ("\x1b[" in ran.out) is colored


def test_no_colour_in_a_pipe(rerank: Run) -> None:
    assert "\x1b" not in rerank("x", "-d", "x", "-m", "bm25", "-f", "table").out
