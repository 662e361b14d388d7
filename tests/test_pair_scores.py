"""Promise 1: a score belongs to the pair, whatever is scored beside it and however fast."""

import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rerank_cli import open_scorer, rank
from tests.conftest import DATA, MODELS, ROOT, process
from tests.support.plain_loop import PlainParts

MINI = ROOT / "models" / "mini"
LONGEST_TOKENS = 256
REPORTS = [
    json.loads(line) for line in (DATA / "reports.jsonl").read_text(encoding="utf-8").splitlines()
]
PARAGRAPHS = [row["text"] for row in REPORTS]
GARDEN = " ".join((ROOT / "examples" / "garden.md").read_text(encoding="utf-8").split())
TEXTS = [
    *(ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines(),
    *PARAGRAPHS[:4],
    "refund",
    "Naïve café, 42 €: 日本 🥕.",
    GARDEN[:300],
    GARDEN[300:900],
    GARDEN,
]
QUERIES = ["how do I get a refund", "slugs", "when to water, and how much?", REPORTS[2]["question"]]


def score_in_a_process(query: str, texts: list[str], threads: int) -> list[float]:
    """Score texts where nothing is remembered; raw scores in the order of the texts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        outcome = process("-q", query, "--json", "--threads", str(threads), str(path))
    assert outcome.returncode == 0, outcome.stderr.decode()
    results = json.loads(outcome.stdout)["results"]
    by_index = {result["index"]: result["raw_score"] for result in results}
    return [by_index[index] for index in range(len(texts))]


indices = st.integers(0, len(TEXTS) - 1)
companies = given(
    query=st.sampled_from(QUERIES),
    chosen=st.lists(indices, min_size=2, max_size=8, unique=True),
    others=st.lists(indices, max_size=8),
    data=st.data(),
)


def check_company(query: str, chosen: list[int], others: list[int], data: st.DataObject) -> None:
    """Score a text alone, among others, and among more in another order and on more threads."""
    alone = score_in_a_process(query, [TEXTS[chosen[0]]], threads=1)[0]
    scores = score_in_a_process(query, [TEXTS[index] for index in chosen], threads=1)
    scores_together = dict(zip(chosen, scores, strict=True))
    assert abs(scores_together[chosen[0]] - alone) <= 1e-6

    crowd = data.draw(st.permutations([*chosen, *others]))
    for threads in (1, 2):
        scores = score_in_a_process(query, [TEXTS[index] for index in crowd], threads)
        for index, score in zip(crowd, scores, strict=True):
            if index in scores_together:
                assert abs(score - scores_together[index]) <= 1e-6


@settings(max_examples=1, derandomize=True)
@companies
def test_a_pair_scores_the_same_in_any_company(
    query: str, chosen: list[int], others: list[int], data: st.DataObject
) -> None:
    check_company(query, chosen, others, data)


@pytest.mark.slow
@settings(max_examples=5, derandomize=True)
@companies
def test_a_pair_scores_the_same_in_many_companies(
    query: str, chosen: list[int], others: list[int], data: st.DataObject
) -> None:
    check_company(query, chosen, others, data)


def score_in_a_plain_loop(folder: Path, query: str, passages: list[str]) -> list[float]:
    """Score by onnxruntime's own defaults, on the model's own file, one pair after another."""
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    names = {spec.name for spec in session.get_inputs()}
    logits = []
    for passage in passages:
        pair = tokenizer.encode(query, passage)
        rows = {
            "input_ids": pair.ids,
            "attention_mask": pair.attention_mask,
            "token_type_ids": pair.type_ids,
        }
        feed = {name: np.array([rows[name]]) for name in names}
        output = np.asarray(session.run(None, feed)[0], np.float64).ravel()
        logits.append(float(output[0] if len(output) == 1 else output[1] - output[0]))
    return logits


def check_plain_loop(expected: list[float], model: str, query: str, passages: list[str]) -> None:
    """Hold a ranking against the plainest loop there is: the same scores in the same order."""
    ranking = rank(query, passages, open_scorer(model), chunk_tokens=LONGEST_TOKENS)
    raw_scores = {result.index: result.raw_score for result in ranking.results}
    assert [raw_scores[index] for index in range(len(passages))] == pytest.approx(
        expected, 1e-6, 1e-6
    )
    order = sorted(range(len(passages)), key=lambda index: -expected[index])
    assert [result.index for result in ranking.results] == order


@pytest.mark.parametrize("name", ["bert", "bert-classes", "xlmr"])
def test_scores_and_order_are_those_of_a_plain_loop(name: str) -> None:
    words = ("soil", "leaf", "water", "worm", "a slug eats it")
    passages = [f"{first} {second}" for first in words for second in words]
    expected = score_in_a_plain_loop(MODELS / name, "garden", passages)
    check_plain_loop(expected, str(MODELS / name), "garden", passages)


@pytest.mark.slow
@pytest.mark.parametrize("row", [2, 4, 11])
def test_scores_and_order_on_real_text_are_those_of_a_plain_loop(row: int) -> None:
    question, loop = REPORTS[row]["question"], PlainParts(MINI)
    expected = [loop.score(question, paragraph) for paragraph in PARAGRAPHS]
    check_plain_loop(expected, "mini@3", question, PARAGRAPHS)
