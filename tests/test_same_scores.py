"""What makes the engine fast changes no score: it is held against the plainest loop there is."""

import gzip
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from rerank_cli import open_scorer, rank
from tests.conftest import MODELS, ROOT

DATA = ROOT.parent / "shared" / "data" / "eval"
MINI = ROOT / "models" / "mini"
QUERIES, DOCUMENTS = 3, 20
LONGEST = 256  # tokens of a passage


def plain_logits(folder: Path, query: str, passages: list[str]) -> list[float]:
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


def check(folder: Path, model: str, query: str, passages: list[str]) -> None:
    expected = plain_logits(folder, query, passages)
    ranking = rank(query, passages, open_scorer(model), chunk_tokens=LONGEST)
    found = {result.index: result.score for result in ranking.results}
    assert [found[place] for place in range(len(passages))] == pytest.approx(expected, 1e-6, 1e-6)
    order = sorted(range(len(passages)), key=lambda place: -expected[place])
    assert [result.index for result in ranking.results] == order


@pytest.mark.parametrize("name", ["bert", "bert-classes", "xlmr"])
def test_scores_and_order_are_those_of_a_plain_loop(name: str) -> None:
    words = ("soil", "leaf", "water", "worm", "a slug eats it")
    check(MODELS / name, str(MODELS / name), "garden", [f"{a} {b}" for a in words for b in words])


@pytest.mark.skipif(not DATA.is_dir(), reason="the evaluation sets are not beside the checkout")
def test_scores_and_order_on_real_text_are_those_of_a_plain_loop() -> None:
    tokenizer = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    tokenizer.no_truncation()
    for name in ("nq", "scifact", "squad", "stackfaq", "tatqa"):
        texts = [
            text
            for text in dict.fromkeys(texts_of(DATA / name / "corpus.jsonl.gz", 4 * DOCUMENTS))
            if len(tokenizer.encode(text).ids) < LONGEST
        ]
        for query in texts_of(DATA / name / "queries.jsonl.gz", QUERIES):
            check(MINI, "mini@2", query, texts[:DOCUMENTS])


def texts_of(path: Path, count: int) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [str(json.loads(next(lines))["text"]) for _ in range(count)]
