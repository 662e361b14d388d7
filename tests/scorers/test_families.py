"""Rerankers of every family against their reference: transformers' and PyTorch's own logits."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from rerank_cli import Pair, Scorer, open_scorer, rank
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.ranking import Encoding
from tests.conftest import ROOT, Run
from tests.support.folders import quantize

FOLDER = ROOT / "tests" / "support" / "families"
PAIRED_FAMILIES = ["bert", "xlm-roberta", "modernbert", "deberta-v2"]
CAUSAL = "qwen3"
LENGTHS = {**dict.fromkeys(PAIRED_FAMILIES, 64), CAUSAL: 512}


def open_family(family: str | Path, instruction: str | None = None) -> Scorer:
    return open_scorer(str(FOLDER / family), instruction=instruction)


def rows_of(family: str) -> list[dict[str, Any]]:
    text = (FOLDER / family / "references.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def pair(row: dict[str, Any]) -> Pair:
    passage = row["passage"]
    return Pair.from_texts(row["query"], passage)


@pytest.mark.parametrize("family", [*PAIRED_FAMILIES, CAUSAL])
def test_scores_are_the_references(family: str) -> None:
    length = LENGTHS[family]
    rows = [row for row in rows_of(family) if row["tokens"] <= length]
    assert {length - 1, length} <= {row["tokens"] for row in rows}
    for instruction in {row.get("instruction") for row in rows}:
        some = [row for row in rows if row.get("instruction") == instruction]
        result = open_family(family, instruction).score([pair(row) for row in some])
        assert result.values == pytest.approx([row["logit"] for row in some], abs=1e-4)
        assert result.usage == {"total_tokens": sum(row["tokens"] for row in some)}


@pytest.mark.parametrize("family", [*PAIRED_FAMILIES, CAUSAL])
def test_what_is_longer_than_the_model_is_cut_as_flag_embedding_does(family: str) -> None:
    scorer = open_family(family)
    rows = [row for row in rows_of(family) if row["tokens"] >= LENGTHS[family] - 1]
    assert {row["tokens"] - LENGTHS[family] for row in rows} == {-1, 0, 1, 40}
    for row in rows:
        ranking = rank(row["query"], [row["passage"]], scorer, encoding=Encoding.FLAG)
        assert ranking[0].raw_score == pytest.approx(row["logit"], abs=1e-4)
        assert ranking[0].chunks == 1
        assert ranking[0].dropped == max(0, row["tokens"] - LENGTHS[family])


@pytest.mark.parametrize("family", [*PAIRED_FAMILIES, CAUSAL])
def test_a_pair_of_one_token_more_is_refused_and_not_cut(family: str) -> None:
    longer = next(row for row in rows_of(family) if row["tokens"] == LENGTHS[family] + 1)
    with pytest.raises(ScorerError, match=f"takes {LENGTHS[family]}"):
        open_family(family).score([pair(longer)])


@pytest.mark.parametrize("family", [*PAIRED_FAMILIES, CAUSAL])
def test_windows_fill_the_model_to_its_length(family: str) -> None:
    scorer = open_family(family)
    text = "Water the roots in the early morning, and not the leaves. " * 60
    result = rank("keep slugs away", [text], scorer)[0]
    assert result.chunks > 1
    assert result.dropped == 0


def scores(scorer: Scorer, pairs: Sequence[Pair]) -> list[float | None]:
    return list(scorer.score(pairs).values)


@pytest.mark.parametrize("family", [*PAIRED_FAMILIES, CAUSAL])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_score_does_not_depend_on_its_company(
    family: str, precision: str, tmp_path: Path
) -> None:
    folder = FOLDER / family
    if precision == "int8":
        folder = quantize(folder, tmp_path)
    pairs = [pair(row) for row in rows_of(family) if row["tokens"] <= LENGTHS[family]]
    scorer = open_family(folder)
    values = scores(scorer, pairs)
    assert [scores(scorer, [single_pair])[0] for single_pair in pairs] == values
    assert scores(scorer, pairs[::-1])[::-1] == values


def test_a_prompt_takes_an_instruction_and_others_take_none(rerank: Run) -> None:
    command = ["refund", "-d", "refund", "--instruction", "Find it."]
    causal_outcome = rerank(*command, "-m", str(FOLDER / CAUSAL), "--json")
    plain = rerank(*command[:3], "-m", str(FOLDER / CAUSAL), "--json")
    raw_scores = [
        json.loads(outcome.out)["results"][0]["raw_score"] for outcome in (causal_outcome, plain)
    ]
    assert raw_scores[0] != raw_scores[1]
    second_outcome = rerank(*command, "-m", str(FOLDER / "bert"))
    assert (second_outcome.code, "--instruction: " in second_outcome.err) == (2, True)


def test_a_document_cannot_end_the_prompt() -> None:
    """Special tokens in a text are text."""
    scorer = open_family(CAUSAL)
    tokenizer = scorer.info.tokenizer
    assert tokenizer is not None
    assert len(tokenizer.encode("<|im_end|>").ids) > 1


def test_offsets_are_those_of_the_document() -> None:
    tokenizer = open_family(CAUSAL).info.tokenizer
    assert tokenizer is not None
    text = "Größe — 42 €, naïve"
    spans = tokenizer.encode(text).spans
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(0 <= a <= b <= len(text) for a, b in spans)


def with_states(target: Path) -> Path:
    """The causal model as exporters write it: with the states of tokens before, and a count."""
    folder = Path(shutil.copytree(FOLDER / CAUSAL, target / "states"))
    model = onnx.load(folder / "model.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["plain" if name == output else name for name in node.output]
    shape = ["batch", 2, "past", 8]
    names = [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names
    )
    model.graph.input.append(
        helper.make_tensor_value_info("num_logits_to_keep", TensorProto.INT64, [])
    )
    # States would count, were there any; and only the logits of the last places are given.
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "ends")
    )
    total = [helper.make_node("ReduceSum", [name], [f"{name}.sum"], keepdims=0) for name in names]
    model.graph.node.extend(
        [
            *total,
            helper.make_node("Sum", [f"{name}.sum" for name in names], ["states"]),
            helper.make_node("Add", ["plain", "states"], ["all"]),
            helper.make_node("Neg", ["num_logits_to_keep"], ["from"]),
            helper.make_node("Reshape", ["from", "one"], ["start"]),
            helper.make_node("Slice", ["all", "start", "end", "one"], [output]),
        ]
    )
    for name, value in (("one", [1]), ("end", [2**31])):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(value, np.int64), name)
        )
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_graph_with_states_scores_as_the_one_without(tmp_path: Path) -> None:
    pairs = [pair(row) for row in rows_of(CAUSAL)[:3]]
    expected = scores(open_family(CAUSAL), pairs)
    assert scores(open_family(with_states(tmp_path)), pairs) == pytest.approx(expected, abs=1e-6)


def test_flag_is_for_models_that_are_run_here() -> None:
    with pytest.raises(UsageError, match="--encoding flag is for models that are run here"):
        rank("refund", ["refund"], open_scorer("bm25"), encoding=Encoding.FLAG)


def test_a_long_query_is_cut_to_three_quarters() -> None:
    scorer = open_family("bert")
    query = "water the roots in the early morning " * 20
    ranking = rank(query, ["slugs " * 50], scorer, encoding=Encoding.FLAG)
    assert ranking.query_cut
    assert any("was cut to its first 48 of" in note for note in ranking.notes)
    assert ranking[0].passage.tokens == 64 - 3 - 48
