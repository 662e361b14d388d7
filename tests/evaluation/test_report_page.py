"""Reports: texts stay texts, a page needs nothing from outside, its figures are the table's."""

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra report")
pytest.importorskip("jinja2", reason="needs the extra report")

from rerank_cli.costs import Price
from rerank_cli.evaluation import charts, evaluate
from rerank_cli.evaluation.report_content import (
    LabelledScores,
    ReportContent,
    precision_recall,
    shorten,
)
from rerank_cli.evaluation.report_page import draw_page
from rerank_cli.output_files import OutputFile
from tests.conftest import MODELS, Run

HOSTILE = (
    "<script>alert(1)</script> </style></title><style>*{display:none}</style>",
    "<img src=x onerror=alert(2)> </svg> \x00\x07\u202e &lt; ]]> <!-- \ud800 \uffff",
    "a | b `code` ``more`` $x$ @someone #1 [link](http://outside.example) ![](http://x.example/)",
)
LONG = "0123456789" * 20_000
VOID = {"meta", "link"}


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def write_set(folder: Path, name: str = "garden", queries: int = 9) -> Path:
    path = folder / f"{name}.jsonl"
    records = [
        {
            "query": f"water {number} {HOSTILE[number % 3]}",
            "documents": [
                *(*HOSTILE[:2], LONG, HOSTILE[2]),
                *(f"All of water {number}.", f"Nothing {number}."),
            ],
            "relevant": [4] if number % 3 else [3],
        }
        for number in range(queries)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def content_of(rerank: Run, monkeypatch: pytest.MonkeyPatch, *words: str) -> ReportContent:
    """What the report of an evaluation says."""
    contents: list[ReportContent] = []

    def draw_nothing(content: ReportContent, _: OutputFile) -> list[bytes]:
        contents.append(content)
        return []

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "draw_page", draw_nothing)
        outcome = rerank("eval", *words)
    assert outcome.code == 0, outcome.err
    return contents[0]


@pytest.fixture(scope="module")
def contents() -> list[ReportContent]:
    """The report's content once a test has made it, for the other tests."""
    return []


@pytest.fixture
def content(
    contents: list[ReportContent], tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> ReportContent:
    """What a report on two hostile sets says, one with a hostile name."""
    if not contents:
        paths = [str(write_set(tmp_path)), str(write_set(tmp_path, "<b>&|$x$"))]
        words = ("-m", "bm25", "--depth", "3,6", "--report", str(tmp_path / "report.md"))
        contents.append(content_of(rerank, monkeypatch, *paths, *words))
    return contents[0]


def page_of(content: ReportContent, name: str = "report.html") -> str:
    return b"".join(draw_page(content, OutputFile(name))).decode()


@pytest.mark.slow  # it draws every chart
def test_a_page_is_whole_and_hostile_texts_are_text(content: ReportContent) -> None:
    source = page_of(content)
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert len(source) < 2_000_000
    tags = {tag for tag, _ in page.elements}
    assert tags & {"script", "img", "iframe", "object", "form", "input"} == set()
    assert len(page.all("style")) == 1
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "action") for name in attributes)
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#")[0] == "#" or (tag, attributes[name]) == (
                "link",
                "data:,",
            )
    assert "<script>alert(1)</script>" in page.text
    assert "(200,000 characters)" in page.text
    assert "default-src 'none'" in page.all("meta")[1]["content"]


@pytest.mark.slow
def test_a_page_can_be_read_aloud(content: ReportContent) -> None:
    page = Page(page_of(content))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = [
        reference
        for _, attributes in page.elements
        for name, value in attributes.items()
        for reference in (
            value.split()
            if name == "aria-labelledby"
            else [value[1:]]
            if name == "href" and value[0] == "#"
            else re.findall(r"url\(#([^)]+)\)", value)
        )
    ]
    assert references
    assert set(references) <= set(ids)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(
        attributes.get("scope") in ("col", "row", "rowgroup") for attributes in page.all("th")
    )
    assert len(page.all("title")) - 1 == len(page.all("desc")) == len(page.all("svg"))
    assert all(attributes["role"] == "img" for attributes in page.all("svg"))
    assert [len(page.all(tag)) for tag in ("h1", "main", "header", "nav")] == [1, 1, 1, 1]
    styles = " ".join(attributes.get("style", "") for _, attributes in page.elements)
    assert "var(--series-1)" in styles
    assert not re.search(r"#[0-9a-f]{3,6}\b|font:|rgb", styles), "it would not follow dark mode"


def test_markdown_has_no_html_and_its_tables_are_whole(content: ReportContent) -> None:
    text = page_of(content, "report.md")
    assert len(text) < 65_536, "more than a comment on GitHub may have"
    # A code span ends at as many backticks as begin it.
    outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", text)
    assert not re.search(r"(?<!\\)[<>@`]|\]\(http", outside)
    assert "<script>alert(1)</script>" in text
    assert max(map(int, re.findall(r"\((\d+) characters\)", text)), default=0) == 0
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(counts) == 1, table
    assert f"{content.leader.means['nDCG@10']:.4f}" in text
    assert "rerank eval " in text


def test_the_figures_are_those_of_the_table(content: ReportContent) -> None:
    leader = content.leader
    assert leader.means["nDCG@10"] == max(
        standing.means["nDCG@10"] for standing in content.standings if standing.depth is not None
    )
    (system,) = content.systems
    assert system.standing.depth == 6
    assert list(system.gains) == sorted(system.gains, reverse=True)
    difference = system.standing.against["nDCG@10"]
    assert (system.gains > 0).sum() == difference.wins
    assert system.gains.mean() == pytest.approx(difference.mean)
    examples = [*system.gained, *system.lost]
    assert len(examples) == min(10, difference.wins) + min(10, difference.losses)
    for example in examples:
        assert len(example.passages_before) == len(example.passages_after) == 3
        assert all(len(passage.text) < 450 for passage in example.passages_after)
        assert example.passages_before[0].text.startswith("<script>")
    assert len(system.labelled.raw) == content.queries * 6
    assert system.labelled.is_relevant.sum() == content.queries


def test_what_is_shown_of_a_document_is_the_passage_that_decided(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [
        " ".join(f"{word}{number}." for number in range(150)) for word in ("seed", "slug", "frost")
    ]
    path = tmp_path / "long.jsonl"
    records = [
        {"query": f"{word} 7", "documents": documents, "relevant": [place]}
        for place, word in enumerate(("seed", "slug", "frost"))
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    words = ("-m", str(MODELS / "bert"), "--report", str(tmp_path / "report.md"))
    (system,) = content_of(rerank, monkeypatch, str(path), *words).systems
    passages = [
        passage for example in (*system.gained, *system.lost) for passage in example.passages_after
    ]
    assert passages
    for passage in passages:
        document = documents[int(passage.document)]
        assert passage.text.partition("…")[0] in document
        assert f"({len(document):,} characters)" not in passage.text
        assert passage.score is not None


def test_models_of_unknown_names_and_prices_are_drawn(content: ReportContent) -> None:
    name = "provider/$\\frac{1}{2}$ 模型 <&>\x00"
    price = Price(0.25, "USD", "the service")
    standings = [
        replace(each, name=name, system=name, price=price if each.depth else None)
        for each in content.standings
    ]
    charts_drawn = list(charts.draw_costs(replace(content, standings=standings)))
    assert ["USD for 1,000 queries" in chart.caption for chart in charts_drawn][-1]
    page = Page(charts_drawn[-1].svg)
    assert page.open == []
    assert "$\\frac{1}{2}$ 模型 <&>" in page.text


def test_labels_and_cuts_are_those_that_were_asked_for(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "graded.jsonl"
    documents = ["All of water.", "Some of water.", "Nothing."]
    records = [{"query": f"water {n}", "documents": documents, "stars": [2, 1, 0]} for n in "ab"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ("--label-field", "stars", "--min-grade", "2", "--thresholds", "--keep-recall", "0.8")
    words = ("-m", "bm25", *options, "--report", str(tmp_path / "report.md"))
    content = content_of(rerank, monkeypatch, str(path), *words)
    (system,) = content.systems
    assert system.labelled.is_relevant.sum() == 2, "one a query has two stars"
    assert [(each.goal, each.target) for each in system.choices] == [
        ("recall", 0.8),
        ("precision", 0.9),
    ]
    for example in (*system.gained, *system.lost):
        assert [each.is_relevant for each in example.passages_before] == [True, False, False]
    assert " ".join(options) in dict(content.facts["Run"])["command"]
    assert "too few to choose a cut for 80 % recall" in page_of(content, "report.md")


def test_settings_of_a_model_are_one_series(
    tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = str(write_set(tmp_path, queries=3)), str(MODELS / "bert")
    words = ("-m", model, "--candidates", "2,all", "--report", str(tmp_path / "report.md"))
    content = content_of(rerank, monkeypatch, path, *words)
    standings_by_depth = [each for each in content.standings if each.depth is not None]
    assert [(each.series, each.setting) for each in standings_by_depth] == [
        (model, "2"),
        (model, "all"),
    ]
    assert "--candidates 2,all" in dict(content.facts["Run"])["command"]


def test_the_page_says_what_its_words_mean_and_where_it_helped(content: ReportContent) -> None:
    text = page_of(content, "report.md")
    assert "- `nDCG@10`: 1 if the relevant documents come first" in text
    assert "- `oracle`: " in text
    (sentence,) = re.findall(r"^Set by set: .*", text, re.MULTILINE)
    assert "garden" in sentence
    assert "and \\<b\\>\\&|\\$x\\$" in sentence


@pytest.mark.slow  # it draws a chart
def test_long_names_in_a_chart_keep_what_tells_them_apart(content: ReportContent) -> None:
    standings = [
        replace(each, name=f"provider/{'long' * 9}, top {each.depth}") if each.depth else each
        for each in content.standings
    ]
    chart_text = Page(charts.draw_intervals(replace(content, standings=standings)).svg).text
    assert set(re.findall(r"provider/\w+…\w+, top \d", chart_text)) == {
        "provider/lon…nglong, top 3",
        "provider/lon…nglong, top 6",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("report.pdf", "report.pdf: is neither HTML nor Markdown by its name"),
        ("report", "is neither HTML nor Markdown"),
        ("none/report.html", "there is no directory"),
        ("none/report.md", "there is no directory"),
    ],
)
def test_a_report_that_cannot_be_is_refused_before_scoring(
    name: str, message: str, tmp_path: Path, rerank: Run
) -> None:
    path = str(write_set(tmp_path))
    outcome = rerank("eval", path, "-m", "./no such model", "--report", str(tmp_path / name))
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert not (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["matplotlib.figure", "jinja2"])
def test_where_the_extra_is_missing_it_is_named_and_markdown_needs_none(
    module: str, tmp_path: Path, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = str(write_set(tmp_path))
    outcome = rerank("eval", path, "-m", "bm25", "--report", str(tmp_path / "report.html"))
    assert outcome.code == 2
    assert "needs the extra report" in outcome.err
    outcome = rerank(
        "eval", path, "-m", str(MODELS / "bert"), "--report", str(tmp_path / "report.md")
    )
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "report.md").read_text().startswith("# ")


def test_a_dataset_is_never_overwritten_by_a_report(tmp_path: Path, rerank: Run) -> None:
    path = write_set(tmp_path)
    link = tmp_path / "report.md"
    link.hardlink_to(path)
    before = path.read_bytes()
    outcome = rerank("eval", str(path), "-m", "bm25", "--report", str(link))
    assert outcome.code == 2
    assert "and --report name one file" in outcome.err
    assert path.read_bytes() == before


scores = st.floats(-20, 20).map(lambda score: round(score, 3))
labels = st.lists(st.tuples(scores, st.booleans()), min_size=1, max_size=200)


@given(labels)
def test_precision_and_recall_are_those_of_every_cut(pairs: list[tuple[float, bool]]) -> None:
    raw = np.array([score for score, _ in pairs])
    truths = np.array([truth for _, truth in pairs])
    recall, precision = precision_recall(LabelledScores(raw, raw, truths))
    expected = [
        (truths[raw >= cut].sum() / max(truths.sum(), 1), truths[raw >= cut].mean())
        for cut in sorted(set(raw), reverse=True)
    ]
    assert list(zip(recall, precision, strict=True)) == expected


@given(st.text(max_size=200), st.integers(1, 30))
def test_a_short_text_is_one_line_without_controls(text: str, most: int) -> None:
    short = shorten(text, most)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", short)
    assert len(short.partition("… (")[0]) <= most or len(" ".join(text.split())) <= most
