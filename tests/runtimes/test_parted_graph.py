"""A graph in two parts: each text has its states alone, and both parts are one model."""

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer, processors

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.models.folder import describe
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.runtimes.parted_graph import PartedGraph
from rerank_cli.runtimes.prepared_cache import PreparedCache
from rerank_cli.runtimes.state_memory import TextStates
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Pair, Scorer
from tests.conftest import Run
from tests.support.folders import LFS_POINTER, WIDTH, copy_model, in_parts, save_graph
from tests.support.plain_loop import PlainParts

QUERIES = ["refund", "How do I keep slugs away?"]
TEXTS = ["Send it back within thirty days.", "water " * 40, "a", "", "tomates 番茄", "refund " * 5]
PAIRS = [Pair.from_texts(query, text) for query in QUERIES for text in TEXTS]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in parts, and an empty place for what is prepared of it."""
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    return in_parts(tmp_path)


def open_folder(folder: Path, threads: int = 1) -> Scorer:
    return open_scorer(str(folder), runtime=RuntimeOptions(threads=threads))


def graph_of(scorer: Scorer) -> PartedGraph:
    network = scorer._network  # type: ignore[attr-defined]
    assert isinstance(network, PartedGraph)
    return network


def test_a_pair_is_two_texts_that_are_read_alone_and_then_together(folder: Path) -> None:
    scorer = open_folder(folder)
    parts = PlainParts(folder)
    expected = [parts.score(query, text) for query in QUERIES for text in TEXTS]
    assert list(scorer.score(PAIRS).values) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) > len(expected) / 2
    assert scorer.info.scale == "logit"
    assert scorer.info.specials == 4


def test_scores_depend_on_nothing_but_the_pair(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(open_folder(folder).score(PAIRS).values)
    order = random.Random(7).sample(range(len(PAIRS)), len(PAIRS))
    parallel_scorer = open_folder(folder, threads=3)
    shuffled_values = parallel_scorer.score([PAIRS[place] for place in order]).values
    assert list(shuffled_values) == [expected[place] for place in order]
    assert [parallel_scorer.score([pair]).values[0] for pair in reversed(PAIRS)] == expected[::-1]
    wide = graph_of(parallel_scorer).open_wide()
    assert wide is not None
    parallel_scorer._network = wide  # type: ignore[attr-defined]
    assert list(parallel_scorer.score(PAIRS).values) == expected
    monkeypatch.setenv("RERANK_PREPARED", "off")
    plain = open_folder(folder, threads=2)
    assert graph_of(plain).open_wide() is None
    assert list(plain.score(PAIRS).values) == expected


def test_threads_do_not_change_the_order_of_sums(folder: Path) -> None:
    """By onnxruntime's products of two activations in float32, whose sums are that long."""
    make, kinds, width = onnx.helper, onnx.TensorProto, 384
    table = np.random.default_rng(5).normal(size=(400, width)).astype(np.float32)
    text, info = ["texts", "tokens"], make.make_tensor_value_info
    save_graph(
        folder / "encoder.onnx",
        [make.make_node("Gather", ["table", "input_ids"], ["states"])],
        [info("input_ids", kinds.INT64, text)],
        [info("states", kinds.FLOAT, [*text, width])],
        {"table": table},
    )
    save_graph(
        folder / "reader.onnx",
        [
            make.make_node("Transpose", ["passage_states"], ["turned"], perm=[0, 2, 1]),
            make.make_node("MatMul", ["query_states", "turned"], ["likeness"]),
            make.make_node("ReduceSum", ["likeness"], ["sum"], keepdims=1),
            make.make_node("Reshape", ["sum", "shape"], ["logits"]),
        ],
        [info(f"{side}_states", kinds.FLOAT, [*text, width]) for side in ("query", "passage")],
        [info("logits", kinds.FLOAT, ["pairs", 1])],
        {"shape": np.array([-1, 1])},
    )
    pairs = [Pair.from_texts("a b c d e", "a " * count) for count in range(1, 54)]
    parallel_scorer = open_folder(folder, threads=4)
    expected = list(parallel_scorer.score(pairs).values)
    wide = graph_of(parallel_scorer).open_wide()
    assert wide is not None
    parallel_scorer._network = wide  # type: ignore[attr-defined]
    assert list(parallel_scorer.score(pairs).values) == expected


def test_a_query_is_read_once_for_all_its_passages(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_counts: list[int] = []

    def note(graph: PartedGraph, ids: Sequence[int]) -> TextStates:
        read_counts.append(len(ids))
        return graph._encode(ids, "query_")

    scorer = open_folder(folder, threads=2)
    monkeypatch.setattr(PartedGraph, "encode_query", note)
    scorer.score(PAIRS)
    assert len(read_counts) == len(QUERIES)


def test_a_passages_states_serve_any_query(folder: Path) -> None:
    scorer = open_folder(folder)
    graph, template = graph_of(scorer), scorer._template  # type: ignore[attr-defined]
    encode = scorer.info.tokenizer.encode  # type: ignore[union-attr]
    rows = [
        [template.row(encode(query).ids, encode(text).ids) for text in TEXTS] for query in QUERIES
    ]
    passage_states = [graph.encode_passage(passage) for _, passage in rows[0]]
    queries = [graph.encode_query(row[0][0]) for row in rows]
    scores = [graph.read(query, states) for query in queries for states in passage_states]
    assert scores == list(scorer.score(PAIRS).values)
    assert set(passage_states[0].values) == {"passage_mask", "passage_states", "passage_levels"}
    tokens = len(rows[0][0][1])
    assert passage_states[0].size == tokens * (8 + 4 * WIDTH + WIDTH)


def with_changes(folder: Path, part: str, change: Callable[[Any], None]) -> None:
    model = onnx.load(folder / part)
    change(model.graph)
    onnx.save(model, folder / part)


def rename_output(graph: Any) -> None:
    graph.output[1].name = graph.node[-1].output[0] = "other"


def rename_input(name: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        graph.input[0].name = name
        node = next(node for node in graph.node if "query_ids" in node.input)
        node.input[0] = name

    return change


def call_ids(graph: Any) -> None:
    graph.output[1].name = graph.node[-1].output[0] = "ids"


def make_float(graph: Any) -> None:
    graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def make_double(graph: Any) -> None:
    graph.input[1].type.tensor_type.shape.dim[1].dim_value = 2


def forget_query(graph: Any) -> None:
    del graph.input[:2]
    nodes = [node for node in graph.node if not {"query_ids", "query_pooled"} & {*node.input}]
    del graph.node[:]
    graph.node.extend(nodes)
    for name in ("sum", "total"):
        zeros = np.zeros((1, 1), np.int64 if name == "total" else np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(zeros, name))


def take_four(graph: Any) -> None:
    for spec in graph.input:
        spec.type.tensor_type.shape.dim[0].dim_value = 4


@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("encoder", rename_output, ("reader.onnx: takes passage_levels, and encoder.onnx has no "
         "output called levels")),
        ("encoder", call_ids, "encoder.onnx: has an output called ids, which is the name of"),
        ("reader", rename_input("ids"), "reader.onnx: its input ids is neither of a query nor"),
        ("reader", make_float, (r"reader.onnx: its input query_pooled is a tensor\(float\) of "
         r"\[\?, 1, 16\], and encoder.onnx gives pooled as a tensor\(float16\)")),
        ("reader", make_double, (r"its input query_pooled is a tensor\(float16\) of \[\?, 2, 16\], "
         r"and encoder.onnx gives pooled as a tensor\(float16\) of \[\?, 1, 16\]")),
        ("reader", forget_query, "reader.onnx: takes nothing of a query"),
        ("encoder", take_four, "encoder.onnx: takes exactly 4 texts in a run"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_told(
    folder: Path,
    part: str,
    change: Callable[[Any], None],
    message: str,
    is_prepared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rerank_cli.runtimes.network._run_child", lambda *_: None)
    if not is_prepared:
        monkeypatch.setenv("RERANK_PREPARED", "off")
    with_changes(folder, f"{part}.onnx", change)
    with pytest.raises(ModelError, match=message):
        open_folder(folder)


@pytest.mark.parametrize(("part", "other"), [("encoder", "reader"), ("reader", "encoder")])
def test_a_part_that_is_missing_is_told(folder: Path, part: str, other: str, rerank: Run) -> None:
    (folder / f"{part}.onnx").unlink()
    outcome = rerank("-m", str(folder), "refund", "-d", "a")
    assert outcome.code == 3
    assert (
        f"{folder}: holds {other}.onnx and no {part}.onnx, the other part of a model" in outcome.err
    )
    outcome = rerank("-m", str(folder / f"{other}.onnx"), "refund", "-d", "a")
    assert outcome.code == 3
    assert f"{folder / other}.onnx: not a reranker" in outcome.err


@pytest.mark.parametrize("part", ["encoder.onnx", "reader.onnx"])
@pytest.mark.parametrize("content", [b"", b"no graph", LFS_POINTER])
def test_a_damaged_part_is_named(folder: Path, part: str, content: bytes, rerank: Run) -> None:
    (folder / part).write_bytes(content)
    outcome = rerank("-m", str(folder), "refund", "-d", "a")
    assert outcome.code == 3
    assert f"{folder / part}: " in outcome.err


def test_both_parts_are_files_of_the_model(folder: Path) -> None:
    description = describe(folder, "x")
    assert {"encoder.onnx", "reader.onnx", "tokenizer.json", "config.json"} == set(
        description.digests()
    )
    assert description.size() == sum(path.stat().st_size for path in folder.iterdir())
    assert description.is_dynamic()
    for name in ("encoder.onnx", "reader.onnx"):
        file_description = describe(folder / name, "x")
        assert (file_description.graph, file_description.encoder) == (
            folder / "reader.onnx",
            folder / "encoder.onnx",
        )
    shutil.copy(folder / "reader.onnx", folder / "model.onnx")
    assert describe(folder, "x").encoder is None  # a graph that is called model.onnx is whole
    (folder / "model.onnx").unlink()
    (folder / "encoder.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match=r"encoder\.onnx: changed while it was in use"):
        description.check_unchanged()


def test_weights_may_lie_beside_either_part(folder: Path) -> None:
    expected = list(open_folder(folder).score(PAIRS).values)
    for name in ("encoder", "reader"):
        path = folder / f"{name}.onnx"
        beside = {"save_as_external_data": True, "location": f"{name}.w", "size_threshold": 80}
        onnx.save(onnx.load(path), path, **beside)
    assert {"encoder.w", "reader.w"} < set(describe(folder, "x").digests())
    assert list(open_folder(folder).score(PAIRS).values) == expected
    (folder / "encoder.w").unlink()
    with pytest.raises(ModelError, match=r"encoder\.w: No such file"):
        open_folder(folder)


def test_another_encoder_has_another_copy(folder: Path) -> None:
    first = graph_of(open_folder(folder)).prepared_path
    assert first is not None
    assert first.with_name("encoder.onnx").is_file()
    assert graph_of(open_folder(folder)).prepared_path == first

    def change(graph: Any) -> None:
        step = next(weights for weights in graph.initializer if weights.name == "step")
        step.CopyFrom(onnx.numpy_helper.from_array(np.float32(0.02), "step"))

    with_changes(folder, "encoder.onnx", change)
    assert graph_of(open_folder(folder)).prepared_path not in (None, first)
    store = PreparedCache.default()
    assert store is not None
    assert len(list(store.root.glob("*/reader.onnx"))) == 2


def test_the_tokenizer_need_not_join_pairs(folder: Path) -> None:
    expected = list(open_folder(folder).score(PAIRS).values)
    path = folder / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_str(text)
    assert '"B"' in text
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="$A $B", special_tokens=ends
    )
    tokenizer.save(str(path))
    assert list(open_folder(folder).score(PAIRS).values) == expected


def test_a_query_and_a_passage_may_begin_with_tokens_of_their_own(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    marks = {mark: tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]", "a", "b")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] a $A [SEP] [CLS]:1 b:1 $B:1 [SEP]:1",
        special_tokens=list(marks.items()),
    )
    marked_folder = folder.with_name("marked")
    shutil.copytree(folder, marked_folder)
    tokenizer.save(str(marked_folder / "tokenizer.json"))
    pairs = [Pair.from_texts("x", "y z"), Pair.from_texts("", "b")]
    spelt_pairs = [Pair.from_texts(f"a {pair.query}", f"b {pair.chunk.text}") for pair in pairs]
    assert (
        open_folder(marked_folder).score(pairs).values
        == open_folder(folder).score(spelt_pairs).values
    )
    assert open_folder(marked_folder).info.specials == open_folder(folder).info.specials + 2


def test_an_encoder_may_take_what_whole_graphs_take_and_loses_its_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    folder = copy_model("bert", tmp_path)
    (folder / "model.onnx").rename(folder / "encoder.onnx")
    make, shape = onnx.helper.make_tensor_value_info, ["pairs", 1]
    save_graph(
        folder / "reader.onnx",
        [
            onnx.helper.make_node("Sub", ["query_logits", "passage_logits"], ["gap"]),
            onnx.helper.make_node("MatMul", ["gap", "weight"], ["logits"]),
        ],
        [make(f"{side}_logits", onnx.TensorProto.FLOAT, shape) for side in ("query", "passage")],
        [make("logits", onnx.TensorProto.FLOAT, shape)],
        {"weight": np.array([[2.0]], np.float32)},
    )
    scorer = open_folder(folder)
    copy = graph_of(scorer).prepared_path
    assert copy is not None
    nodes = onnx.load(copy.with_name("encoder.onnx"), load_external_data=False).graph.node
    assert not any("attention_mask" in node.input for node in nodes)
    assert sorted(path.name for path in copy.parent.glob("*.onnx")) == [
        "encoder.onnx", "reader.onnx",
    ]  # fmt: skip
    monkeypatch.setenv("RERANK_PREPARED", "off")
    assert scorer.score(PAIRS).values == open_folder(folder).score(PAIRS).values


def test_the_longest_pair_is_counted_over_both_texts(folder: Path) -> None:
    scorer = open_folder(folder)
    assert scorer.info.length == 64
    with pytest.raises(ScorerError, match=r"a pair has 65 tokens, and .* takes 64"):
        scorer.score([Pair.from_texts("a", "a " * 60)])


def test_parts_run_on_cpus_by_onnxruntime(folder: Path) -> None:
    scorer = open_scorer(str(folder), runtime=RuntimeOptions(device=Device.CUDA))
    (note,) = scorer.score(PAIRS[:1]).notes
    assert note.endswith("runs on the CPU: --device cuda is not for models in two parts")
    scorer = open_scorer(str(folder), runtime=RuntimeOptions(Runtime.OPENVINO))
    graph = folder / "reader.onnx"
    notes = scorer.score(PAIRS[:1]).notes
    assert notes == (f"{graph}: is one of two parts of a model, and onnxruntime runs them",)


def test_doctor_lists_both_parts(folder: Path, rerank: Run) -> None:
    outcome = rerank("doctor", "-m", str(folder))
    assert outcome.code == 0
    assert str(folder / "encoder.onnx") in outcome.out
    assert str(folder / "reader.onnx") in outcome.out
