"""The model that ships: whole, as it was exported, and right on processors of both kinds."""

import hashlib
import json

import numpy as np
import onnx
import pytest

from rerank_cli import Pair, Scorer, rank
from tests.conftest import DATA, ROOT

FOLDER = ROOT / "models" / "mini"


def test_files_are_those_of_the_checksums() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    parts = {"encoder.onnx", "reader.onnx"}
    assert set(sums) == {"config.json", "static.npz", "tokenizer.json", *parts}
    for name, expected in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected


# Of the encoder: query-key-value, output and two of the feed-forward, six times, and what the
# reader's blocks read of a passage. Of the reader: seven in each of its two blocks, and the judge.
@pytest.mark.parametrize(("part", "count"), [("encoder", 25), ("reader", 15)])
def test_no_product_of_weights_can_overflow_16_bits(part: str, count: int) -> None:
    """Without VNNI two products of 8 bits are added in 16: weights must leave room for that."""
    graph = onnx.load(FOLDER / f"{part}.onnx").graph
    weights = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    products = [n for n in graph.node if n.op_type in ("MatMulInteger", "QAttention")]
    assert len(products) >= count
    for node in products:
        matrix = weights[node.input[1]].astype(np.int32)
        pairs = np.abs(matrix[0::2]) + np.abs(matrix[1::2])
        assert pairs.max() * 255 <= 2**15 - 1 + 255


@pytest.mark.slow
def test_scores_stay_near_the_checkpoints(mini: Scorer) -> None:
    """Against the logits of the fp32 checkpoint in PyTorch, by scripts/train/references.py."""
    rows = json.loads((DATA / "mini_references.json").read_text(encoding="utf-8"))
    pairs = [Pair.from_texts(row["query"], p) for row in rows for p in [row["passage"]]]
    shifts = np.array(mini.score(pairs).values) - np.array([row["logit"] for row in rows])
    assert np.abs(shifts).mean() < 0.3
    assert np.abs(shifts).max() < 1.2


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("can I return something I bought", "If you are not happy"),
        ("forgot my password", "Passwords can be reset"),
        ("how can I track my parcel", "You can follow your parcel"),
        ("do you sell shoes without animal products", "Vegan shoes"),
    ],
)
def test_the_right_line_is_first(query: str, answer: str, mini: Scorer) -> None:
    lines = (ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines()
    assert rank(query, lines, mini)[0].document.text.startswith(answer)


def test_lines_about_the_subject_come_first_where_none_says_how(mini: Scorer) -> None:
    lines = (ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines()
    best = rank("how do I get a refund", lines, mini)[:2]
    subjects = sorted(result.document.text.partition(" ")[0] for result in best)
    assert subjects == ["If", "Money"]  # send it back, and when the money is there
