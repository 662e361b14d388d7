"""Evaluation sets of every form: read whole, and what is amiss in them is said."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures", reason="needs the extra eval")

from rerank_cli import Document, open_scorer, rank
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation import datasets
from rerank_cli.evaluation.datasets import Collection, LabelOptions, read_lists, task_of
from rerank_cli.evaluation.measures import (
    DEFAULT_MEASURES,
    figures_of,
    first_order,
    oracle,
    parse_measures,
    reranked_run,
    unjudged_share,
)
from rerank_cli.inputs.trec import read_text_lines

CORPUS = [
    {"_id": "d1", "title": "Soil", "text": "Worms turn the soil over."},
    {"_id": "d2", "title": "", "text": "Water the roots, and not the leaves."},
    {"_id": "d3", "title": "Slugs", "text": "Slugs eat leaves at night."},
    {"_id": "d4", "title": "", "text": "Frost kills young leaves."},
]
QUERIES = [
    {"_id": "q1", "text": "what eats leaves"},
    {"_id": "q2", "text": "how to water"},
    {"_id": "q3", "text": "nobody judged this"},
]
# Its only number is the first one's id and the second one's place.
IDS = json.dumps(
    {
        "query": "q",
        "documents": [{"id": name, "text": "a"} for name in (1, 2, 3)],
        "relevant": [1],
    }
)
QRELS = [("q1", "d3", 2), ("q1", "d4", 0), ("q2", "d2", 1)]


def jsonl(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def beir_folder(to: Path, qrels: list[tuple[str, str, int]] | None = None) -> Path:
    folder = to / "garden"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(jsonl(CORPUS)))
    (folder / "queries.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(QUERIES))
    lines = "".join(f"{q}\t{d}\t{grade}\n" for q, d, grade in qrels or QRELS)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder


def read(folder: Path, run: Path | None = None) -> Collection:
    return datasets.read_folder(datasets.find_parts(folder, run=run))


def test_a_beir_folder_is_read_and_bm25_finds_candidates(tmp_path: Path) -> None:
    collection = read(beir_folder(tmp_path))
    assert collection.name == "garden"
    assert collection.notes == []
    task = task_of(collection, 100, None, 0)
    assert list(task.queries) == ["q1", "q2"]
    assert task.first == "bm25"
    assert task.candidates["q1"][0].id == "d3"
    assert "d1" not in {
        candidate.id for candidate in task.candidates["q1"]
    }  # no word of the query is in it
    assert [note for note in task.notes if "without judgements" in note] == [
        "1 query without judgements: left out"
    ]


def test_parts_may_be_arrays(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    expected = read(folder)
    (folder / "corpus.jsonl.gz").unlink()
    (folder / "queries.jsonl").unlink()
    (folder / "corpus.json.gz").write_bytes(gzip.compress(json.dumps(CORPUS, indent=2).encode()))
    (folder / "queries.json").write_text(json.dumps(QUERIES))
    assert read(folder) == expected


def test_lists_may_be_an_array(tmp_path: Path) -> None:
    rows = [{"query": f"q {n}", "documents": ["a", "b"], "relevant": [1]} for n in range(3)]
    lines, array = tmp_path / "lists.jsonl", tmp_path / "lists.json"
    lines.write_bytes(jsonl(rows))
    for content in (json.dumps(rows), json.dumps(rows, indent=2)):
        array.write_text(content)
        assert datasets.read_lists(array) == datasets.read_lists(lines)
    array.write_text(json.dumps([*rows, {"query": "x"}], indent=1))
    with pytest.raises(InputError, match=r"lists\.json:32: needs a query and its documents"):
        datasets.read_lists(array)
    array.write_bytes(b'[{"query": "x\xff"}]')
    with pytest.raises(InputError, match=r"lists\.json:1: not UTF-8"):
        datasets.read_lists(array)


def test_candidates_have_the_scores_of_bm25_in_every_script() -> None:
    texts = [
        "東京都の天気予報", "新しい車", "黒猫と猫", "วิธีขอคืนเงิน", "get a refund", "환불을 받다",
    ]  # fmt: skip
    queries = {
        "a": "天気予報 refunds",
        "b": "猫",
        "c": "คืนเงิน",
        "d": "환불",
        "e": "zebra",
        "f": "?",
    }
    corpus = {str(place): Document(text, id=str(place)) for place, text in enumerate(texts)}
    collection = Collection("many", queries, {}, corpus)
    candidates = datasets.retrieve_candidates(collection, queries, 10)
    for name, query in queries.items():
        if query == "猫":  # for which characters that are alone count as terms too
            assert [each.id for each in candidates[name]] == ["2"]
            continue
        ranking = rank(query, texts, open_scorer("bm25"))
        expected = {str(result.index): result.raw_score for result in ranking if result.raw_score}
        assert {each.id: each.score for each in candidates[name]} == pytest.approx(
            expected, rel=0.1
        )
        assert [each.id for each in candidates[name]] == list(expected)


def test_a_corpus_without_any_word_has_no_candidates() -> None:
    collection = Collection("none", {"q": "fox"}, {}, {"a": Document("?!", id="a")})
    assert datasets.retrieve_candidates(collection, {"q": "fox"}, 10) == {"q": []}


def test_what_is_amiss_is_said(tmp_path: Path) -> None:
    folder = beir_folder(
        tmp_path, [*QRELS, ("q1", "d3", 1), ("q1", "d9", 1), ("q2", "d1", -1), ("q9", "d1", 1)]
    )
    (folder / "corpus.jsonl.gz").unlink()
    (folder / "corpus.jsonl").write_bytes(jsonl([*CORPUS, {"_id": "d1", "text": "another"}]))
    collection = read(folder)
    assert collection.corpus["d1"].text == "Worms turn the soil over."
    assert collection.qrels["q1"]["d3"] == 2
    notes = "\n".join(task_of(collection, 10, None, 0).notes)
    for message in (
        "1 judgement with an id that was there before",
        "1 document with an id that was there before",
        "1 grade below zero",
        "1 relevant document not in the corpus ('d9'): never found",
        "1 query of the judgements without a text",
    ):
        assert message in notes


def test_a_trec_set_takes_its_candidates_from_the_run(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q1\twhat eats leaves\nq2\thow to water\n")
    (tmp_path / "corpus.jsonl").write_bytes(jsonl(CORPUS))
    (tmp_path / "qrels.txt").write_text("q1 0 d3 2\nq1 0 d4 0\nq2 0 d2 1\n")
    (tmp_path / "run.trec").write_text(
        "q1 Q0 d1 1 0.5 x\nq1 Q0 d3 2 0.5 x\nq1 Q0 d4 3 0.7 x\nq1 Q0 d8 4 0.1 x\n"
    )
    parts = datasets.Parts(
        "garden", *(tmp_path / name for name in ("q.tsv", "corpus.jsonl", "qrels.txt", "run.trec"))
    )
    collection = datasets.read_folder(parts)
    assert set(collection.corpus) == {"d1", "d3", "d4"}
    task = task_of(collection, 2, None, 0)
    # As trec_eval reads it: by score whatever the ranks say, and equal ones by id, downwards.
    assert [candidate.id for candidate in task.candidates["q1"]] == ["d4", "d3"]
    assert task.candidates["q2"] == []
    assert task.first == "input"
    notes = "\n".join(task.notes)
    assert "1 document of the run not in the corpus ('d8'): left out" in notes
    assert "relevant document not in the corpus" not in notes  # d2 is there, if not in the run
    assert "1 query without candidates, with figures of 0" in notes


def test_ids_that_the_corpus_does_not_have_are_named_with_a_run_too(tmp_path: Path) -> None:
    (tmp_path / "q.tsv").write_text("q1\twhat eats leaves\n")
    (tmp_path / "corpus.jsonl").write_bytes(jsonl(CORPUS))
    (tmp_path / "qrels.txt").write_text("q1 0 D3 2\nq1 0 D1 1\nq1 0 D4 0\n")
    (tmp_path / "run.trec").write_text("q1 Q0 D4 1 0.7 x\nq1 Q0 d3 2 0.5 x\nq1 Q0 D1 3 0.2 x\n")
    parts = datasets.Parts(
        "garden", *(tmp_path / name for name in ("q.tsv", "corpus.jsonl", "qrels.txt", "run.trec"))
    )
    assert datasets.read_folder(parts).notes == [
        "2 relevant documents not in the corpus ('D1', …): never found",
        "2 documents of the run not in the corpus ('D4', …): left out",
    ]


@pytest.mark.parametrize(
    ("relevant", "grades"),
    [
        ([1], {"0": 0, "1": 1, "2": 0}),
        ([0, 2], {"0": 1, "1": 0, "2": 1}),
        ([0, 2, 1], {"0": 0, "1": 2, "2": 1}),
        ([True, False, False], {"0": 1, "1": 0, "2": 0}),
        (["1"], {"0": 0, "1": 1, "2": 0}),
        ({"2": 3, "0": -1}, {"2": 3, "0": -1}),
        ([], {"0": 0, "1": 0, "2": 0}),
    ],
)
def test_relevant_documents_are_places_ids_or_grades(
    relevant: object, grades: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(jsonl([{"query": "q", "documents": ["a", "b", "c"], "relevant": relevant}]))
    assert datasets.read_lists(path).qrels == {"1": grades}


def test_records_have_ids_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl.gz"
    documents = [{"id": 7, "text": "a"}, {"id": "x", "text": "b", "title": "B"}]
    record = {"id": "first", "query": "q", "documents": documents, "relevant": ["x"]}
    path.write_bytes(gzip.compress(jsonl([record])))
    collection = datasets.read_lists(path)
    assert collection.qrels == {"first": {"7": 0, "x": 1}}
    assert collection.candidates is not None
    assert [candidate.document.title for candidate in collection.candidates["first"]] == ["", "B"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not JSON: "),
        ("[]", ":2: not a JSON object"),
        ('{"query": "q"}', ":2: needs a query and its documents"),
        ('{"query": "q", "documents": [3]}', ":2: document 0 has no text"),
        ('{"query": "q", "documents": ["a"], "relevant": [5, 6]}', ":2: relevant has a place"),
        ('{"query": "q", "documents": ["a"], "relevant": ["z"]}', ":2: relevant has 'z'"),
        ('{"query": "q", "documents": ["a"], "relevant": "all"}', ":2: relevant is neither"),
        ('{"query": "q", "documents": ["a", "b"], "relevant": [true]}', "1 truths for 2"),
        ('{"query": "q", "documents": ["a"], "relevant": {"0": Infinity}}', ":2: relevant "),
        (IDS, "could be places or ids"),
        ('{"query": "q", "documents": ["a", "b"], "relevant": [0.5, 1]}', "not a grade"),
        ('{"id": "1", "query": "q", "documents": ["a"]}', "id 1 appears twice"),
    ],
)
def test_a_line_that_is_wrong_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"query": "q", "documents": ["a"], "relevant": [1]}\n' + line + "\n")
    with pytest.raises(InputError, match=f".*{message}".replace("'", ".")):
        datasets.read_lists(path)


def test_parts_that_are_missing_or_wrong_are_named(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    (folder / "queries.jsonl").write_text('{"text": "no id"}\n')
    with pytest.raises(InputError, match=r"queries\.jsonl:1: no query"):
        read(folder)
    (folder / "queries.jsonl").write_bytes(jsonl(QUERIES))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\tmuch\n")
    with pytest.raises(InputError, match=r"test\.tsv:2: not a judgement"):
        read(folder)
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "a.tsv")
    (folder / "qrels" / "b.tsv").touch()
    with pytest.raises(UsageError, match="has 2 files of judgements"):
        read(folder)
    (folder / "corpus.jsonl.gz").unlink()
    with pytest.raises(InputError, match=r"holds no corpus\.jsonl"):
        read(folder)
    (tmp_path / "run").write_text("q1 d1 0.5\n")
    with pytest.raises(InputError, match=r"run:1: not a line of a run"):
        datasets._run(tmp_path / "run")


def test_a_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    record = {"documents": ["a", "b"], "relevant": [1, 0]}
    path.write_bytes(jsonl([{"query": f"q {number}", **record} for number in range(30)]))
    collection = datasets.read_lists(path)
    first, again, other = (task_of(collection, 9, 5, seed) for seed in (1, 1, 2))
    assert list(first.queries) == list(again.queries) != list(other.queries)
    assert len(first.queries) == 5


def test_a_set_without_judgements_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(jsonl([{"query": "q", "documents": ["a"]}]))
    with pytest.raises(InputError, match="no query has judgements") as caught:
        task_of(datasets.read_lists(path), 9, None, 0)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith('add "relevant": [0] to each line')


def test_figures_are_trec_evals() -> None:
    """On an example whose figures pytrec_eval's authors published, and on ties."""
    qrels = {"q1": {"d1": 0, "d2": 1, "d3": 0}, "q2": {"d2": 1, "d3": 1}}
    run = {"q1": {"d1": 1.0, "d2": 0.0, "d3": 1.5}, "q2": {"d1": 1.5, "d2": 0.2, "d3": 0.5}}
    measures = parse_measures(["AP", "nDCG", "RR", "RR@10"])
    figures = figures_of(run, qrels, measures)
    assert figures["AP"] == pytest.approx({"q1": 1 / 3, "q2": 7 / 12})
    assert figures["nDCG"] == pytest.approx({"q1": 0.5, "q2": 0.693426}, abs=1e-5)
    # Equal scores are ordered by id, downwards, whatever order they came in.
    tied_run = {"q1": {"d1": 1.0, "d2": 1.0, "d3": 1.0}, "q2": {"d3": 1.0, "d1": 1.0, "d2": 1.0}}
    for name in ("RR", "RR@10"):
        assert figures_of(tied_run, qrels, measures)[name] == {"q1": 0.5, "q2": 1.0}
    # trec_eval has 32 bits for a score, in which these are equal.
    close = {"q1": {"d1": 1.0 + 1e-12, "d2": 1.0}}
    assert figures_of(close, qrels, measures)["RR"]["q1"] == 1.0
    # Below zero is not relevant, and a query without documents has nothing.
    below = {"q1": {"d1": -1, "d2": 1}, "q2": {"d2": 1}}
    figures = figures_of({"q1": {"d1": 2.0, "d2": 1.0}}, below, measures)
    assert figures["RR"] == {"q1": 0.5, "q2": 0.0}


def test_condensed_measures_leave_out_what_was_not_judged() -> None:
    qrels = {"q": {"d2": 1}}
    run = {"q": {"d1": 2.0, "d2": 1.0}}
    for name in DEFAULT_MEASURES:
        (plain,) = figures_of(run, qrels, parse_measures([name])).values()
        (condensed_figures,) = figures_of(
            run, qrels, parse_measures([name]), condensed=True
        ).values()
        assert plain["q"] < condensed_figures["q"] == 1.0


@pytest.mark.parametrize(
    "name", ["nDCG@", "nothing", "nDCG@ten", "", "P", "P@1.5", "P(rel=)@5", "alpha_nDCG@10"]
)
def test_a_measure_that_there_is_not_is_named(name: str) -> None:
    with pytest.raises(UsageError, match="--measure"):
        parse_measures([name])


def test_a_run_reranks_the_best_and_keeps_the_rest_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    documents = ["a", "b", "c", "d"]
    path.write_bytes(jsonl([{"query": "q", "documents": documents, "relevant": {"1": 1, "3": 2}}]))
    task = task_of(datasets.read_lists(path), 100, None, 0)

    def order(run: dict[str, dict[str, float]]) -> list[str]:
        return sorted(run["1"], key=lambda name: -run["1"][name])

    assert order(first_order(task)) == ["0", "1", "2", "3"]
    assert order(oracle(task)) == ["3", "1", "0", "2"]
    scores = {"1": {"0": -3.0, "1": -1.0, "2": 5.0}}
    assert order(reranked_run(task, scores, 2)) == ["1", "0", "2", "3"]
    assert order(reranked_run(task, scores, 4)) == ["2", "1", "0", "3"]  # one has no score
    assert unjudged_share(task, first_order(task)) == 0.5


def test_a_line_without_an_end_is_an_error() -> None:
    if Path("/dev/zero").exists():
        with pytest.raises(InputError, match="/dev/zero: has a line larger than 64 MB"):
            list(read_text_lines(Path("/dev/zero")))


def read_record(to: Path, record: dict[str, Any], labels: LabelOptions | None = None) -> Collection:
    path = to / "one.jsonl"
    path.write_bytes(jsonl([{"id": "q", "query": "leaves", **record}]))
    return read_lists(path, labels)


@pytest.mark.parametrize(
    ("clicks", "grades"),
    [
        ([2], {"0": 0, "1": 0, "2": 1}),
        ([0], {"0": 1}),
        ([1, 0], {"0": 1, "1": 1}),
        (["3"], {"0": 0, "1": 0, "2": 0, "3": 1}),
    ],
)
def test_clicks_judge_what_was_surely_seen(
    tmp_path: Path, clicks: list[Any], grades: dict[str, int]
) -> None:
    collection = read_record(tmp_path, {"documents": list("abcd"), "clicked": clicks})
    assert collection.qrels == {"q": grades}
    assert "1 query with clicks for labels" in collection.notes[0]
    assert "may be relevant" in collection.notes[0]


def test_a_query_without_clicks_has_no_labels(tmp_path: Path) -> None:
    assert read_record(tmp_path, {"documents": list("ab"), "clicked": []}).qrels == {}


@pytest.mark.parametrize("clicks", [[4], [-1], ["x"], [True], [None]])
def test_a_click_on_nothing_is_refused(tmp_path: Path, clicks: list[Any]) -> None:
    with pytest.raises(InputError, match=r"one.jsonl:1: clicked has"):
        read_record(tmp_path, {"documents": list("abcd"), "clicked": clicks})


def test_labels_may_be_in_another_field_and_in_documents(tmp_path: Path) -> None:
    other = LabelOptions(field="gold")
    record = {"documents": ["a", "b"], "relevant": [0], "gold": [1]}
    assert read_record(tmp_path, record, other).qrels == {"q": {"0": 0, "1": 1}}
    documents = [{"id": "x", "text": "a", "gold": 2}, {"id": "y", "text": "b"}]
    assert read_record(tmp_path, {"documents": documents}, other).qrels == {"q": {"x": 2}}
    with pytest.raises(InputError, match="documents' gold has 'yes', not a grade"):
        read_record(tmp_path, {"documents": [{"text": "a", "gold": "yes"}]}, other)


def test_mappings_have_ids_for_keys(tmp_path: Path) -> None:
    documents = {"x": "Worms.", "y": {"text": "Slugs.", "title": "Night"}}
    record = {"query": "slugs", "documents": documents, "relevant": {"y": 1}}
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"first": record, "second": record}, indent=2))
    collection = read_lists(path)
    assert collection.queries == {"first": "slugs", "second": "slugs"}
    assert collection.qrels["second"] == {"y": 1}
    assert collection.candidates is not None
    assert [each.id for each in collection.candidates["first"]] == ["x", "y"]
    assert collection.candidates["first"][1].document.title == "Night"


def test_judgements_and_runs_may_be_json(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path)
    qrels, run = tmp_path / "qrels.json", tmp_path / "run.json"
    qrels.write_text(json.dumps({"q1": {"d3": 2, "d4": 0}, "q2": {"d2": 1}}))
    run.write_text(json.dumps({"q1": {"d3": 0.5, "d4": 1.5}}, indent=1))
    collection = datasets.read_folder(datasets.find_parts(folder, qrels, run))
    assert collection.qrels == {"q1": {"d3": 2, "d4": 0}, "q2": {"d2": 1}}
    assert collection.candidates is not None
    assert [each.id for each in collection.candidates["q1"]] == ["d4", "d3"]
    for content, message in [({"q1": 1}, "q1 has no documents"), ({"q1": {"d": "x"}}, "no number")]:
        qrels.write_text(json.dumps(content))
        with pytest.raises(InputError, match=message):
            datasets.read_folder(datasets.find_parts(folder, qrels))


def test_the_least_grade_is_that_of_measures_that_know_relevant_and_not() -> None:
    names = [*parse_measures(["nDCG@10", "RR@10", "P@1", "P(rel=3)@1"], 2)]
    assert names == ["nDCG@10", "RR(rel=2)@10", "P(rel=2)@1", "P(rel=3)@1"]
    figures = figures_of(
        {"q": {"a": 2.0, "b": 1.0}}, {"q": {"a": 1, "b": 2}}, parse_measures(["RR@10"], 2)
    )
    assert figures == {"RR(rel=2)@10": {"q": 0.5}}
