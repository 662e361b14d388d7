"""What is written in each format, to pipes and files."""

import csv
import io
import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, Ranking, rank
from rerank_cli.errors import UsageError
from rerank_cli.render import (
    EXPLAIN_FORMATS,
    WRITERS,
    Format,
    Style,
    Writer,
    lines_around,
    render,
)
from rerank_cli.types import Chunk
from tests.conftest import Run
from tests.support.fakes import OverlapScorer, words_info


def rank_texts(*documents: Document | str, query: str = "fox", **options: object) -> Ranking:
    scorer = OverlapScorer(words_info(200, scale="logit"))
    return rank(query, documents, scorer, **options)  # type: ignore[arg-type]


def render_text(ranking: Ranking, format_: Format, **options: object) -> str:
    return b"".join(render(ranking, replace(Style(format_), **options))).decode()  # type: ignore[arg-type]


def functions_of(writer: Writer) -> list[str]:
    return [name for name in (writer.write, writer.check, writer.remark) if name is not None]


def test_every_format_has_a_writer() -> None:
    """A member of `Format` without a row in the table fails here."""
    assert list(WRITERS) == list(Format)
    for writer in WRITERS.values():
        module = import_module(f"rerank_cli.render.{writer.module}")
        assert all(callable(getattr(module, name)) for name in functions_of(writer))


TWO = (
    Document("no\tneed,\r\nto \\ it", source="a b.txt", line=1),
    Document('a "fox"\nfox', id="x 7", source="c.jsonl", line=3, fields={"n": 1}),
)


def test_json_has_the_shape_of_the_rerank_apis() -> None:
    documents = [Document(text, source="a.txt", line=n) for n, text in enumerate(["no", "a fox"])]
    body = json.loads(render_text(rank_texts(*documents), Format.JSON))
    assert list(body) == [
        *("id", "schema", "model", "scale", "query", "reranked", "results", "counts", "usage")
    ]
    assert body["results"][0] == {
        "index": 1,
        "relevance_score": 0.7310586,
        "raw_score": 1.0,
        "document": {"text": "a fox", "source": "a.txt", "line": 1},
        "passage": {
            "text": "a fox",
            "start": 0,
            "end": 5,
            "line": 1,
            "sentence": {"start": 0, "end": 5, "line": 1},
            "raw_score": 1.0,
        },
        "tokens": 2,
        "chunks": 1,
        "truncated": False,
    }
    assert (body["schema"], body["model"], body["scale"]) == (1, "words@1", "logit")
    assert body["counts"] == {
        "documents": 2,
        "empty": 0,
        "duplicates": 0,
        "chunks": 2,
        "tokens": 3,
        "truncated": 0,
        "dropped_tokens": 0,
    }
    assert body["usage"] == {"total_tokens": 3}


def test_json_has_chunks_titles_and_empty_documents_where_there_are_any() -> None:
    document = Document("one two\nfox four", title="T", line=1, source="a.md")
    ranking = rank_texts(document, " ", explain=True, keep_empty=True)
    body = json.loads(render_text(ranking, Format.JSON))
    chunk = {"title": "T", "text": document.text, "start": 0, "end": 16, "line": 1}
    sentence = {"start": 8, "end": 16, "line": 2}
    assert body["results"][0]["passage"] == {**chunk, "sentence": sentence, "raw_score": 1.0}
    assert body["results"][0]["passages"] == [
        {**chunk, "raw_score": 1.0, "relevance_score": 0.7310586}
    ]
    assert body["empty"] == [{"index": 1, "document": {"text": " "}}]
    assert body["counts"]["empty"] == 1


def test_jsonl_has_what_json_has_a_line_each() -> None:
    ranking = rank_texts(*TWO, "", keep_empty=True, explain=True)
    body = json.loads(render_text(ranking, Format.JSON))
    *lines, blank = map(json.loads, render_text(ranking, Format.JSONL).splitlines())
    assert lines == [{"rank": n, **result} for n, result in enumerate(body["results"], 1)]
    assert blank == {"rank": None, "relevance_score": None, **body["empty"][0]}


def test_a_lone_surrogate_stays_valid_json() -> None:
    ranking = rank_texts(Document("fox", fields={"name": "\ud83d"}))
    for format_ in (Format.JSON, Format.JSONL):
        assert r'"name": "\ud83d"' in render_text(ranking, format_)


def test_the_id_is_of_the_content() -> None:
    def identity(text: str) -> str:
        return str(json.loads(render_text(rank_texts(text), Format.JSON))["id"])

    assert identity("a fox") == identity("a fox") != identity("a box")


def test_csv_is_read_back_as_it_was() -> None:
    text = render_text(rank_texts(*TWO, " ", keep_empty=True), Format.CSV)
    assert text.startswith("rank,relevance_score,raw_score,index,id,source,line,text\n")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["text"] for row in rows] == ['a "fox"\nfox', TWO[0].text, " "]
    assert list(rows[0].values())[:7] == ["1", "0.7310586", "1", "1", "x 7", "c.jsonl", "3"]
    assert list(rows[2].values())[:7] == ["", "", "", "2", "", "", ""]
    assert text.endswith("\n")
    assert not text.endswith("\r\n")


def test_a_carriage_return_is_quoted_on_every_python() -> None:
    rows = csv.reader(io.StringIO(render_text(rank_texts("fox\rrun"), Format.CSV), newline=""))
    assert list(rows)[1][-1] == "fox\rrun"


def test_tsv_is_a_line_a_result() -> None:
    lines = render_text(rank_texts(*TWO), Format.TSV).split("\n")
    assert lines[0] == "rank\trelevance_score\traw_score\tindex\tid\tsource\tline\ttext"
    assert lines[1] == '1\t0.7310586\t1\t1\tx 7\tc.jsonl\t3\ta "fox"\\nfox'
    assert lines[2] == r"2	0.5	0	0		a b.txt	1	no\tneed,\r\nto \\ it"
    assert lines[3:] == [""]


def test_trec_names_documents_by_id_place_or_index() -> None:
    whole = Document("fox one", source="d/e.md", line=1, whole=True)
    odd = Document("fox", source="\udcff\n.txt", line=2)
    ranking = rank_texts(*TWO, whole, odd, "fox two", "", keep_empty=True)
    assert render_text(ranking, Format.TREC).splitlines() == [
        "1 Q0 x%207 1 1 words@1",
        "1 Q0 d/e.md 2 1 words@1",
        "1 Q0 %ED%B3%BF%0A.txt:2 3 1 words@1",
        "1 Q0 4 4 1 words@1",
        "1 Q0 a%20b.txt:1 5 0 words@1",
        "1 Q0 5 6 -inf words@1",
    ]


def test_trec_names_passages_by_their_span() -> None:
    document = Document("fox " * 30, source="a.md", line=1, whole=True)
    ranking = rank_texts(document, passages=True, chunk_tokens=8, overlap_tokens=0)
    names = [
        grep_line.split()[2]
        for grep_line in render_text(ranking, Format.TREC, passages=True).splitlines()
    ]
    assert names[:2] == ["a.md#0-31", "a.md#32-63"]
    assert len(set(names)) == len(names) == len(ranking)


def test_paths_are_named_once_best_first() -> None:
    texts = {"b.txt": "fox fox", "a.txt": "fox", "\udcffc\n.txt": "", "d.txt": "fox fox fox"}
    documents = [Document(text, source=name, line=1) for name, text in texts.items()]
    ranking = rank_texts(*documents, *documents, keep_empty=True)
    style = Style(Format.PATHS, null=True)
    assert b"".join(render(ranking, style)) == b"d.txt\0b.txt\0a.txt\0\xffc\n.txt\0"
    assert render_text(rank_texts(*documents), Format.PATHS) == "d.txt\nb.txt\na.txt\n"


@pytest.mark.parametrize("source", [None, "-"])
def test_what_comes_from_no_file_has_no_path(source: str | None) -> None:
    documents = [Document("fox", source="a.txt", line=1), Document("fox", source=source)]
    pieces = render(rank_texts(*documents), Style(Format.PATHS))
    with pytest.raises(UsageError, match="do not come from files"):
        next(pieces)


MARKDOWN = """\
1. **0.731** `c.jsonl:3`

   ```
   a "fox"
   fox
   ```

2. **0.731** `` `odd` ``

   `````
   ````
   fox

   ````
   `````

Empty, and not scored:

- `a.txt:9`
- document 4
"""


def test_markdown_is_fenced_whatever_it_holds() -> None:
    odd = Document("````\r\nfox\r\n\r\n````\r\n", id="`odd`")
    blank = Document("", source="a.txt", line=9)
    ranking = rank_texts(TWO[1], odd, blank, " ", keep_empty=True)
    assert render_text(ranking, Format.MD) == MARKDOWN


def test_markdown_has_every_chunk_of_an_explained_result() -> None:
    document = Document("one\ntwo\nthree fox", source="a.md", line=1, whole=True)
    ranking = rank_texts(document, explain=True)
    assert render_text(ranking, Format.MD) == (
        "1. **0.731** `a.md`\n\n"
        "   - **0.731** `a.md:1`\n\n"
        "     ```\n     one\n     two\n     three fox\n     ```\n"
    )


def test_in_a_ranking_of_passages_the_passage_is_the_document() -> None:
    document = Document("none here\nsome fox\n", source="a.md", line=1)
    ranking = rank_texts(document, passages=True, chunk_tokens=8, n=1)
    assert json.loads(render_text(ranking, Format.JSONL, passages=True))["document"]["line"] == 1
    row = render_text(ranking, Format.TSV, passages=True).splitlines()[1].split("\t")
    assert row[5:] == ["a.md", "1", r"none here\nsome fox"]


@pytest.mark.parametrize(
    "format_", [format_ for format_ in Format if format_ not in EXPLAIN_FORMATS]
)
def test_what_has_no_place_for_chunks_says_so_before_scoring(format_: Format, rerank: Run) -> None:
    outcome = rerank("x", "-d", "x", "-m", "./no such model", "--explain", "-f", format_)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"the format {format_}, which shows no scores of passages" in outcome.err
    assert "-f table, json, jsonl or md" in outcome.err


@pytest.mark.parametrize("format_", EXPLAIN_FORMATS)
def test_explain_shows_every_chunk(format_: Format, rerank: Run) -> None:
    arguments = ["slugs", "examples/garden.md", "examples/faq.txt", "--unit", "file", "-n", "1"]
    outcome = rerank(*arguments, "--explain", "-f", format_)
    assert outcome.code == 0
    chunks = len(re.findall(r"^ +- \*\*|^· |\"start\"", outcome.out, re.MULTILINE))
    assert chunks > 2


def test_explain_wants_a_format_in_a_pipe_and_none_on_a_terminal(rerank: Run) -> None:
    assert rerank("x", "-d", "x", "--explain").code == 2
    assert rerank("x", "-d", "x", "--explain", terminal=80).code == 0


@pytest.mark.parametrize("format_", ["paths", "grep"])
def test_scores_go_before_records_and_these_have_none(format_: str, rerank: Run) -> None:
    outcome = rerank("x", "examples/faq.txt", "-f", format_, "--scores")
    assert outcome.code == 2
    assert f"--scores does not work with the format {format_}\n" in outcome.err


PAGE = "# Animals\n\nThey sleep by day.\nA red fox is here. It\nruns.\n"


def test_grep_has_the_line_of_the_sentence_as_it_stands_in_its_file() -> None:
    page = Document(PAGE, source="a.md", line=1, raw=PAGE.encode(), whole=True)
    lines = [Document("\ta fox\r", source="b.txt", line=7), Document("none", source="-", line=2)]
    text = render_text(rank_texts(page, *lines), Format.GREP)
    assert text.splitlines() == [
        "a.md:4:A red fox is here. It", "b.txt:7:\ta fox", "(standard input):2:none",
    ]  # fmt: skip
    assert (
        render_text(rank_texts(page), Format.GREP, null=True) == "a.md\x004:A red fox is here. It\n"
    )


GUIDE = "# Animals\n\n## By night\n\nThey sleep by day.\nA red fox is here. It\nruns.\n\nEnd.\n"


def guide(path: str = "a.md") -> Document:
    return Document(GUIDE, source=path, line=1, whole=True, raw=GUIDE.encode(), syntax="markdown")


def test_headings_are_before_the_line_in_grep_and_in_json_and_markdown() -> None:
    ranking = rank_texts(guide(), "no")
    passage = replace(ranking[0].passage, headings=("Animals", "By night"))
    ranking = replace(ranking, results=(replace(ranking[0], passage=passage), ranking[1]))
    heading = "Animals › By night"
    assert f"a.md:6:{heading}: A red fox is here. It\n" in render_text(ranking, Format.GREP)
    assert f"`a.md:1` `{heading}`\n" in render_text(ranking, Format.MD)
    results = json.loads(render_text(ranking, Format.JSON))["results"]
    assert results[0]["passage"]["heading"] == heading
    assert "heading" not in results[1]["passage"]
    # What the line says itself is not said twice.
    title = Chunk(guide(), 11, 22, GUIDE[11:22], 0, headings=("Animals", "By night"))
    text = render_text(ranking, Format.GREP, sentences={1: title})
    assert text.startswith("a.md:3:Animals: ## By night\n")


def test_every_result_of_json_has_the_place_of_its_sentence() -> None:
    ranking = rank_texts(guide(), "no", Document("No.\n\nA fox.", source="b.txt", line=7))
    first = GUIDE.index("A red fox")
    places = {
        0: {"start": first, "end": first + len("A red fox is here."), "line": 6},
        1: {"start": 0, "end": 2},
        2: {"start": 5, "end": 11, "line": 9},
    }
    whole = json.loads(render_text(ranking, Format.JSON))["results"]
    lines = [json.loads(grep_line) for grep_line in render_text(ranking, Format.JSONL).splitlines()]
    for results in (whole, lines):
        assert {each["index"]: each["passage"]["sentence"] for each in results} == places


def test_lines_around_the_sentence_are_as_in_grep() -> None:
    text = "".join(f"line {n}\n" for n in range(1, 13))
    document = Document(text, source="a.txt", line=1, whole=True, raw=text.encode())

    def sentence(grep_line: int) -> Chunk:
        start = text.index(f"line {grep_line}\n")
        return Chunk(document, start, start + len(f"line {grep_line}"), f"line {grep_line}", 0)

    ranking = rank_texts(document, document, document, Document("dog", source="b.txt", line=4))
    last = Chunk(ranking[3].document, 0, 3, "dog", 0)
    lines_by_number = dict(enumerate((sentence(11), sentence(2), sentence(4), last), 1))
    assert render_text(ranking, Format.GREP, context=1, sentences=lines_by_number).splitlines() == [
        "a.txt-10-line 10",
        "a.txt:11:line 11",
        "a.txt-12-line 12",
        "--",
        "a.txt-1-line 1",
        "a.txt:2:line 2",
        "a.txt-3-line 3",
        "a.txt:4:line 4",
        "a.txt-5-line 5",
        "--",
        "b.txt:4:dog",
    ]
    nothing = render_text(ranking, Format.GREP, context=0, sentences=lines_by_number, null=True)
    assert nothing == (
        "a.txt\x0011:line 11\n--\na.txt\x002:line 2\n--\na.txt\x004:line 4\n--\nb.txt\x004:dog\n"
    )
    everything = render_text(ranking, Format.GREP, context=10**9, sentences=lines_by_number)
    assert everything.count("a.txt") == 12
    assert "```\n   line 1\n   line 2\n   line 3\n" in render_text(
        ranking, Format.MD, context=1, sentences={1: sentence(2)}
    )


@pytest.mark.parametrize("unit", ["auto", "line", "paragraph", "section"])
def test_lines_around_do_not_end_with_the_document(unit: str, rerank: Run, tmp_path: Path) -> None:
    name = f"{tmp_path}/a.log"
    Path(name).write_bytes(b"1 cat\r\n1 dog\xff\r\n1 fox\r\n1 cow\r\n1 ant\r\n")
    options = ["-m", "bm25", "-n", "1", "--unit", unit, "-C", "1"]
    outcome = rerank("fox", name, "-f", "grep", *options)
    assert outcome.raw.replace(name.encode(), b"a").splitlines() == [
        b"a-2-1 dog\xff",
        b"a:3:1 fox",
        b"a-4-1 cow",
    ]
    table = rerank("fox", name, "-f", "table", *options).out
    assert "   2- 1 dog\ufffd\n   3: 1 fox\n   4- 1 cow\n" in table


def test_blank_lines_of_a_conversion_are_no_lines_around() -> None:
    text = "one\n\ntwo\n\nthree\n\nfour\n"
    html_document = Document(text, source="a.html", line=3, source_lines=[3, 5, 5, 8, 8, 9, 9])
    for document in (
        html_document,
        Document(text, source="a.docx"),
        Document(text, source="a", page=1),
    ):
        lines = lines_around(Chunk(document, 5, 8, "two", 0), 1)
        assert [text[grep_line.start : grep_line.end] for grep_line in lines] == [
            "one",
            "two",
            "three",
        ]
    lines = lines_around(Chunk(Document(text, line=1), 5, 8, "two", 0), 1)
    assert [text[grep_line.start : grep_line.end] for grep_line in lines] == ["", "two", ""]


@given(st.text(st.sampled_from("ab\n\r"), max_size=40), st.integers(0, 40), st.integers(0, 9))
def test_lines_around_are_whole_lines_of_the_text(text: str, start: int, count: int) -> None:
    start = max(0, min(start, len(text) - 1))
    end = min(len(text), start + count)
    sentence = Chunk(Document(text, line=1), start, end, text[start:end], 0)
    lines = lines_around(sentence, count)
    whole = text.split("\n")
    if len(whole) > 1 and not whole[-1]:
        whole.pop()  # behind the last line feed
    first = text.count("\n", 0, lines[0].start)
    assert [text[grep_line.start : grep_line.end] for grep_line in lines] == whole[
        first : first + len(lines)
    ]
    own = [first + place for place, grep_line in enumerate(lines) if grep_line.is_shown]
    if text:
        assert own[0] == text.count("\n", 0, start)
        assert first == max(0, own[0] - count)
        assert first + len(lines) == min(len(whole), own[-1] + 1 + count)


@pytest.mark.parametrize(
    "format_", [name for name, writer in WRITERS.items() if not writer.shows_context]
)
def test_what_shows_no_lines_around_says_so_before_scoring(format_: Format, rerank: Run) -> None:
    outcome = rerank("x", "examples/faq.txt", "-m", "./no such model", "-C", "2", "-f", format_)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"--context does not work with the format {format_}" in outcome.err
    assert "-f table, grep or md" in outcome.err


@pytest.mark.parametrize("context", [[], ["-C", "1"]])
def test_grep_of_headings_and_lines_around_can_be_read_again(
    context: list[str], rerank: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text(GUIDE)
    options = ["-m", "bm25", "-f", "grep"]
    first = rerank("red fox", str(tmp_path / "a.md"), "--unit", "file", *options, *context)
    assert first.out.count(":6:") == 1
    again = rerank("red fox", "--grep", *options, stdin=first.out.encode())
    assert again.out.startswith(f"{tmp_path}/a.md:6:")


def test_a_line_that_two_passages_share_comes_once() -> None:
    text = "fox " * 300
    ranking = rank_texts(Document(text, source="a", line=1), text, passages=True)
    assert len(ranking.results) > 2
    assert (
        render_text(ranking, Format.GREP, passages=True)
        == f"a:1:{text}\n(standard input):1:{text}\n"
    )


def test_a_record_is_one_line_to_grep() -> None:
    records = [
        Document("One.\r\nA fox.\r\nEnd.", source="a.jsonl", line=3, fields={}),
        Document("One.\rA dog.", source="a.csv", line=5, fields={}),
    ]
    assert render_text(rank_texts(*records), Format.GREP) == "a.jsonl:3:A fox.\na.csv:5:A dog.\n"


def test_bytes_that_are_no_text_are_those_of_the_file_in_grep() -> None:
    raw = b"one\r\na \xff fox\r\n"
    page = Document("one\r\na \ufffd fox\r\n", source="b\udce9", line=1, raw=raw, whole=True)
    pieces = render(rank_texts(page), Style(Format.GREP))
    assert b"".join(pieces) == b"b\xe9:2:a \xff fox\n"


def test_what_has_no_score_has_its_first_line_in_grep() -> None:
    blank = Document("\n \n", source="e.md", line=1, whole=True)
    ranking = rank_texts(blank, Document("", source="a.txt", line=9), "fox", keep_empty=True)
    assert render_text(ranking, Format.GREP).endswith("e.md:1:\na.txt:9:\n")


def test_a_name_with_a_line_feed_is_one_line_or_whole(rerank: Run, tmp_path: Path) -> None:
    (tmp_path / "a\nb.txt").write_text("a fox\n")
    options = ("fox", "-r", str(tmp_path), "-f", "grep", "-m", "bm25")
    outcome = rerank(*options)
    assert outcome.out == f"{tmp_path}/a\N{SYMBOL FOR LINE FEED}b.txt:1:a fox\n"
    assert "the name of 1 file has a line feed" in outcome.err
    outcome = rerank(*options, "-0")
    assert (outcome.out, outcome.err) == (f"{tmp_path}/a\nb.txt\x001:a fox\n", "")


def test_a_document_of_an_option_has_no_place(rerank: Run) -> None:
    outcome = rerank("x", "-d", "x", "-f", "grep")
    assert (outcome.code, outcome.out) == (2, "")
    assert "the format grep writes places, and the documents of -d have none" in outcome.err


def test_json_has_the_sentences_of_the_first_results() -> None:
    ranking = rank("fox", ["The fox runs."] * 1001, OverlapScorer(words_info(200)))
    lines = [json.loads(grep_line) for grep_line in render(ranking, Style(Format.JSONL))]
    assert ["sentence" in grep_line["passage"] for grep_line in lines] == [True] * 1000 + [False]


def test_grep_keeps_the_inner_ones_of_long_headings() -> None:
    def grep_line(*headings: str) -> str:
        document = Document("A fox.", source="a", line=1, headings=headings)
        return render_text(rank_texts(document), Format.GREP)

    assert grep_line("The animals", "By night") == "a:1:The animals › By night: A fox.\n"
    assert grep_line("The animals " * 6, "By night") == "a:1:… By night: A fox.\n"
    assert grep_line("x", "The animals " * 6) == f"a:1:{'The animals ' * 4}The animals…: A fox.\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_lines_around_are_those_of_the_file_whatever_the_unit(
    unit: str, end: str, rerank: Run, tmp_path: Path
) -> None:
    lines = ["Intro.", "", "", "Ducks eat slugs.", "", "", "", "Beans."]
    last = [f"a.txt-{number}-" for number in (5, 6, 7)]
    (tmp_path / "a.txt").write_bytes(end.join([*lines, ""]).encode())
    options = "-m", "bm25", "-f", "grep", "-n", "1", "--unit", unit
    path = str(tmp_path / "a.txt")
    output_lines = (
        rerank("ducks", path, *options, "-C", "3").out.replace(path, "a.txt").splitlines()
    )
    assert output_lines == [
        "a.txt-1-Intro.",
        "a.txt-2-",
        "a.txt-3-",
        "a.txt:4:Ducks eat slugs.",
        "a.txt-5-",
        "a.txt-6-",
        "a.txt-7-",
    ]
    output_lines = (
        rerank("beans", path, *options, "-C", "3").out.replace(path, "a.txt").splitlines()
    )
    assert output_lines == [*last, "a.txt:8:Beans."]
