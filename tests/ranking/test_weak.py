"""Whether the best score says that probably nothing answers, and the mark that decides it."""

import importlib.util
import itertools
import json
import math
import random
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli import Document, Scorer, open_scorer, rank
from rerank_cli.models.catalogue import entries
from rerank_cli.progress import Progress, StopRanking
from rerank_cli.ranking import Aggregation
from rerank_cli.ranking.languages import is_foreign
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.results import keep_order
from rerank_cli.render import Format, Style, render
from tests.conftest import ROOT, Run
from tests.support.fakes import OverlapScorer, number_in, words_info
from tests.support.reading import read

SETS = ROOT.parent / "shared" / "data" / "eval"
PAGE = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
CARD = (ROOT / "models" / "mini" / "README.md").read_text(encoding="utf-8")
LINE = "probably nothing here answers it"
WEAK_QUERY, GOOD_QUERY = "how tall is the Eiffel Tower", "how do I get a refund"


def scorer_with(mark: float | None, *languages: str) -> Scorer:
    return OverlapScorer(words_info(100, weak_below=mark, languages=languages), number_in)


def weak_of(
    *texts: str, mark: float | None = 0.5, query: str = "q", **options: object
) -> bool | None:
    return rank(query, texts, scorer_with(mark), **options).weak  # type: ignore[arg-type]


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=9), st.none() | st.integers(1, 3))
def test_the_best_score_decides_whatever_is_kept(scores: list[int], n: int | None) -> None:
    for mark in (-5.0, 0.0, 4.0):
        assert weak_of(*map(str, scores), mark=mark, n=n, within=1.0) is (max(scores) < mark)


def test_a_score_at_the_mark_is_not_weak() -> None:
    assert weak_of("0.5") is False
    assert weak_of("0.4999") is True


def test_it_is_not_told_where_it_is_not_known() -> None:
    assert weak_of("1", mark=None) is None
    assert weak_of() is None
    assert weak_of(" ", "") is None
    assert weak_of("0.1", min_score=0.3) is None  # nothing is left, and that is said already


@pytest.mark.parametrize("way", [Aggregation.MEAN_TOP_3, Aggregation.FIRST])
def test_it_is_not_told_of_scores_that_are_not_the_best_chunks(way: Aggregation) -> None:
    assert weak_of("0.1", aggregate=way) is None


@pytest.mark.slow
def test_it_is_not_told_of_a_ranking_that_was_stopped() -> None:
    """What was not scored may answer."""

    def watch(progress: Progress) -> None:
        if progress.pairs:
            raise StopRanking

    texts = [str(number) for number in range(2000)]
    with Reranker(scorer_with(10_000)) as reranker:
        ranking = reranker.submit("q", texts, watch=watch).result()
        assert (ranking.incomplete, ranking.weak) == (True, None)
        assert reranker.rank("q", texts).weak is True


def test_it_is_not_told_if_scoring_failed() -> None:
    assert keep_order("q", [Document("a")], words_info(9, weak_below=0.5)).weak is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("how do I get my money back", True),
        ("refund deadline", True),
        ("ERR_1042 con=1 x y z", True),
        ("who wrote Das Kapital", True),
        ("weather in los angeles", True),
        ("wie bekomme ich mein Geld", None),
        ("como faço para devolver", None),
        ("où est la gare", None),
        ("Rückgabe", None),
        ("返金はできますか", None),
    ],
)
def test_a_model_of_english_tells_only_of_queries_in_english(
    query: str, expected: bool | None
) -> None:
    assert rank(query, ["0.1"], scorer_with(0.5, "en")).weak is expected
    assert rank(query, ["0.1"], scorer_with(0.5, "mul")).weak is True
    assert rank(query, ["0.1"], scorer_with(0.5)).weak is True


@pytest.mark.parametrize(
    "text", ["Die Frist ist einen Monat, und sie beginnt mit dem Kauf.", "返金には三十日かかります"]
)
def test_a_model_of_english_tells_nothing_of_documents_in_other_languages(text: str) -> None:
    low = OverlapScorer(words_info(100, weak_below=0.5, languages=["en"]), lambda *_: 0.1)
    english = "The deadline is a month, and it begins with the purchase."
    assert rank("q", [english, english, text], low).weak is True
    assert rank("q", [english, text, text], low).weak is None


def test_code_logs_and_letters_in_english_are_in_no_other_language() -> None:
    paths = [path for path in (ROOT / "examples").rglob("*") if path.suffix != ".svg"]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    assert len(texts) > 20
    assert [line for text in texts for line in (text, *text.splitlines()) if is_foreign(line)] == []


def test_only_the_model_whose_card_says_so_has_a_mark() -> None:
    marks = {name: entry.weak_below for name, entry in entries().items()}
    assert {name for name, mark in marks.items() if mark is not None} == {"mini"}
    assert open_scorer("bm25").info.weak_below is None


def test_the_mark_is_that_of_the_models_card(mini: Scorer) -> None:
    assert mini.info.weak_below == entries()["mini"].weak_below
    mark = re.search(r"below the logit ([-.\d]+)", CARD)
    assert mark is not None
    assert float(mark[1]) == mini.info.weak_below


def test_the_page_about_scores_has_the_table_of_the_card() -> None:
    table = PAGE.split("<!-- mini -->\n")[1].split("<!-- /mini -->")[0]
    assert table.count("\n") == 12
    assert table in CARD


def test_examples(mini: Scorer) -> None:
    lines = (ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines()
    assert rank(WEAK_QUERY, lines, mini, n=1).weak is True
    assert rank(GOOD_QUERY, lines, mini, n=1).weak is False
    assert rank("refund", lines, mini, n=1).weak is False


def test_json_has_it_only_if_it_is_known() -> None:
    def read(mark: float | None) -> dict[str, object]:
        pieces = render(rank("q", ["0.1"], scorer_with(mark)), Style(Format.JSON))
        return dict(json.loads(b"".join(pieces)))

    assert [read(mark).get("weak") for mark in (0.5, 0.05)] == [True, False]
    assert "weak" not in read(None)
    assert read(0.5)["id"] == read(0.05)["id"] == read(None)["id"]


def test_a_terminal_is_told_once(rerank: Run) -> None:
    outcome = rerank(WEAK_QUERY, "examples/faq.txt", "-n", "3", terminal=80)
    assert re.findall(r"best score 0\.0\d\d: (.*)", outcome.err) == [LINE]
    assert LINE not in rerank(GOOD_QUERY, "examples/faq.txt", terminal=80).err


@pytest.mark.parametrize(
    "arguments",
    [["--min-score", "0.9"], ["-m", "bm25", "--min-score", "0"], ["--aggregate", "first"]],
)
def test_a_terminal_is_not_told_where_it_is_not_known(rerank: Run, arguments: list[str]) -> None:
    assert LINE not in rerank(WEAK_QUERY, "examples/faq.txt", *arguments, terminal=80).err


def test_a_pipe_is_not_told_but_by_json(rerank: Run) -> None:
    assert rerank(WEAK_QUERY, "examples/faq.txt").err == ""
    outcome = rerank(WEAK_QUERY, "examples/faq.txt", "--json")
    assert (json.loads(outcome.raw)["weak"], outcome.err) == (True, "")


@pytest.fixture(scope="module")
def weak_scores() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "weak_scores", ROOT / "scripts" / "weak_scores.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_mark_that_is_chosen_calls_few_lists_with_an_answer(weak_scores: ModuleType) -> None:
    draw = random.Random(0)
    best = [draw.gauss(2, 1) for _ in range(400)]  # of 200 queries
    mark = weak_scores.highest_mark(best)
    # If 5 % of all are called, as few as 5 of 200 are with 6 %.
    assert sum(score < mark for score in best) == 2 * 5
    assert math.isclose(weak_scores.chance_of_at_most(5, 200), 0.0623, abs_tol=1e-4)
    assert weak_scores.highest_mark([3.0, 1.0, 2.0, 4.0]) == 1.0


def test_lists_of_the_script(weak_scores: ModuleType, tmp_path: Path) -> None:
    """Lists without an answer hold nothing relevant, and are the same each time."""
    for name in ("squad", "stackfaq"):
        write_set(tmp_path / name)
    counts = {"squad": 12, "stackfaq-answers": 12}
    cases = weak_scores.make_all_cases(tmp_path, counts, 0)
    assert cases == weak_scores.make_all_cases(tmp_path, counts, 0)
    kinds = {(case.set, case.form, case.shape) for case in cases}
    assert kinds == set(itertools.product(counts, weak_scores.FORMS, weak_scores.SHAPES))
    assert {case.is_for_choosing for case in cases} == {True, False}
    for case in cases:
        sentence = f"Boat number {case.group.partition(' d')[2]}."
        assert any(sentence in text for text in case.answer)
        assert not any(sentence in text for text in (*case.near, *case.other))
        assert case.near
        assert case.far
        assert any("Title" in text for text in case.answer) is (case.set == "squad")


def write_set(folder: Path) -> None:
    """A small set in BEIR's layout."""
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"d{n}", "title": f"Title {n}", "text": f"The river {n} is long. Boat number {n}."}
        for n in range(40)
    ]
    queries = [{"_id": f"q{n}", "text": f"which river has the boat {n}"} for n in range(12)]
    for name, rows in (("corpus", documents), ("queries", queries)):
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    qrels_text = "".join(f"q{n}\td{n}\t1\n" for n in range(12))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels_text}")


@pytest.mark.slow
def test_queries_that_one_might_type(weak_scores: ModuleType, mini: Scorer) -> None:
    """Of those with an answer few are called, of the others most. The short examples will do."""
    examples = tomllib.loads(weak_scores.QUERIES.read_text(encoding="utf-8"))["examples"]
    shares = {}
    with Reranker(mini) as reranker:
        for kind, queries in examples.items():
            called = []
            for name in ("faq.txt", "reminders.txt", "tickets.jsonl", "mail.csv"):
                documents = read(ROOT / "examples" / name)
                own = queries[f"examples/{name}"]
                called += [reranker.rank(query, documents, n=1).weak for query in own]
            assert len(called) >= 20
            shares[kind] = sum(map(bool, called)) / len(called)
    assert shares["answered"] <= 0.1
    assert shares["unanswered"] >= 0.6


@pytest.mark.slow
@pytest.mark.skipif(not SETS.exists(), reason="needs ../shared, which is no part of the project")
def test_lists_with_and_without_an_answer(weak_scores: ModuleType, mini: Scorer) -> None:
    """Of 20 lists without an answer at least 12 are called, of 200 with one at most 10.

    They are short, and of queries by which the mark was not chosen.
    """
    draw = random.Random(1)
    counts = dict.fromkeys((*weak_scores.SETS, weak_scores.OTHER_WORDS), 60)
    cases = [
        case for case in weak_scores.make_all_cases(SETS, counts, 0) if not case.is_for_choosing
    ]

    def is_weak(query: str, texts: Sequence[str]) -> bool:
        return bool(rank(query, texts, mini, n=1).weak)

    answered = [
        is_weak(case.text, [*case.answer[:3], *draw.choice([case.near, case.other])[:7]])
        for case in draw.sample(cases, 200)
    ]
    without = [
        is_weak(case.text, draw.choice([case.other, case.far])[:10])
        for case in draw.sample(cases, 20)
    ]
    assert sum(answered) <= 10
    assert sum(without) >= 12
