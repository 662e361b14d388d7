"""Local models of every layout against transformers' own scores, and folders that are no model."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from rerank_cli import Pair, open_scorer, rank
from rerank_cli.errors import ModelError, NotInstalled, ScorerError, UsageError
from rerank_cli.models.catalogue import default
from rerank_cli.models.folder import describe
from rerank_cli.ranking.calibration import relevance
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.runtimes.network import NO_BATCHING, TokenRow
from rerank_cli.scorers.cross_encoder import LocalScorer, open_local
from tests.conftest import MODELS
from tests.support.folders import (
    copy_model,
    graph_of,
    in_onnx_folder,
    with_external_data,
    with_last_operators,
    with_narrow_inputs,
    with_sizes,
)

NAMES = ["bert", "bert-classes", "xlmr", "xlmr-ids"]
LAYOUTS = [copy_model, in_onnx_folder, with_external_data, with_narrow_inputs]


def references(name: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((MODELS / name / "references.json").read_text())
    return rows


def pair(query: str, passage: str) -> Pair:
    return Pair.from_texts(query, passage)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_transformers(
    name: str, layout: Callable[[str, Path], Path], tmp_path: Path
) -> None:
    scorer = open_scorer(str(layout(name, tmp_path)))
    rows = references(name)
    result = scorer.score([pair(str(row["query"]), str(row["passage"])) for row in rows])
    assert result.values == pytest.approx([row["logit"] for row in rows], abs=1e-4)
    assert result.usage == {"total_tokens": sum(int(str(row["tokens"])) for row in rows)}


@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("bert", ["Sigmoid"]),
        ("bert", ["Sigmoid", "Flatten", "Identity"]),
        ("bert-classes", ["Softmax"]),
        ("bert-classes", ["Softmax", "Second"]),
    ],
)
def test_a_graph_that_gives_probabilities_is_not_squeezed_again(
    name: str,
    operators: list[str],
    is_prepared: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared") if is_prepared else "off")
    model = str(with_last_operators(name, tmp_path, *operators))
    texts = [str(row["passage"]) for row in references(name)]
    logits = rank("water", texts, open_scorer(str(MODELS / name)))
    for _ in range(1 + is_prepared):  # the first use prepares, the second finds it
        ranking = rank("water", texts, open_scorer(model))
        assert (ranking.info.scale, logits.info.scale) == ("probability", "logit")
        assert [result.index for result in ranking] == [result.index for result in logits]
        for result, other in zip(ranking, logits, strict=True):
            assert result.relevance_score == result.raw_score
            assert result.relevance_score == pytest.approx(other.relevance_score, abs=1e-6)


def test_two_classes_of_a_log_softmax_differ_by_their_logit(tmp_path: Path) -> None:
    scorer = open_scorer(str(with_last_operators("bert-classes", tmp_path, "LogSoftmax")))
    assert scorer.info.scale == "logit"
    rows = references("bert-classes")
    result = scorer.score([pair(str(row["query"]), str(row["passage"])) for row in rows])
    assert result.values == pytest.approx([row["logit"] for row in rows], abs=1e-4)


def test_a_scale_that_is_stated_is_the_one(tmp_path: Path) -> None:
    folder = describe(with_last_operators("bert", tmp_path, "Sigmoid"), "x")
    assert open_local(folder, RuntimeOptions()).info.scale == "probability"
    stated_folder = replace(folder, scale="unbounded")
    assert open_local(stated_folder, RuntimeOptions()).info.scale == "unbounded"


@pytest.mark.parametrize("name", NAMES)
def test_the_length_is_what_the_model_takes(name: str) -> None:
    scorer = open_scorer(str(MODELS / name))
    assert scorer.info.length == 64
    longest = references(name)[-1]
    assert longest["tokens"] == 64
    with pytest.raises(ScorerError, match=r"a pair has 65 tokens, and .* takes 64"):
        scorer.score([pair(str(longest["query"]), f"{longest['passage']} a")])


@pytest.mark.parametrize("name", NAMES)
def test_long_documents_fill_windows_to_the_length(name: str) -> None:
    scorer = open_scorer(str(MODELS / name))
    text = "Water in the early morning, at the roots and not over the leaves. " * 30
    result = rank("water the roots", [text], scorer)[0]
    assert result.chunks > 5
    assert result.dropped == 0


def test_the_file_itself_can_be_named(tmp_path: Path) -> None:
    folder = in_onnx_folder("bert", tmp_path)
    scorer_of_file = open_scorer(str(folder / "onnx" / "model.onnx"))
    assert scorer_of_file.info.length == 64
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_int8.onnx")
    assert open_scorer(str(folder)).info.length == 64


def test_a_config_is_not_needed_and_a_tokenizers_length_is_used(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / "config.json").unlink()
    assert describe(folder, "x").length == 512
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    assert describe(folder, "x").length == 64
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert describe(folder, "x").length == 512


def break_folder(tmp_path: Path, name: str, content: bytes | None) -> Path:
    folder = copy_model("bert", tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "no tokenizer.json beside the model"),
        ("tokenizer.json", b"{}", "not a tokenizer"),
        ("model.onnx", None, "holds no ONNX model"),
        ("model.onnx", b"\x00not a graph", "cannot be opened"),
        ("config.json", b"{", "not JSON"),
        ("config.json", b"[]", "not a JSON object"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message) as error_info:
        open_scorer(str(break_folder(tmp_path, name, content)))
    assert str(tmp_path) in str(error_info.value)
    assert "\n" not in str(error_info.value)


def test_missing_external_data_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = with_external_data("xlmr", tmp_path)
    (folder / "onnx" / "model.onnx_data").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx_data"):
        open_scorer(str(folder))


def test_several_graphs_and_none_called_model(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / "a.onnx").write_bytes((folder / "model.onnx").read_bytes())
    (folder / "model.onnx").rename(folder / "b.onnx")
    with pytest.raises(ModelError, match="holds 2 models") as error_info:
        open_scorer(str(folder))
    assert "a.onnx, b.onnx" in str(error_info.value.hint)


@pytest.mark.parametrize(
    ("shape", "inputs", "message"),
    [
        (["batch", "sequence", 384], ("input_ids", "attention_mask"), "not a reranker"),
        (["batch", 3], ("input_ids",), "not a reranker"),
        (["batch", 1], ("input_ids", "pixel_values"), "its input pixel_values"),
        (["batch", 1], ("attention_mask",), "no input called input_ids"),
    ],
)
def test_graphs_that_are_no_cross_encoder(
    shape: list[int | str], inputs: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        open_scorer(str(graph_of(shape, tmp_path, inputs=inputs)))


def test_a_tokenizer_that_joins_pairs_with_nothing_is_refused(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="nothing between a query and a passage"):
        open_scorer(str(folder))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mini@9", "mini@3"),
        ("minni", "mini@3"),
        ("bge", "bge-reranker-base"),
        ("no/folder", "openai-like"),
    ],
)
def test_an_unknown_name_is_a_usage_error_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no model is called '{name}'") as error_info:
        open_scorer(name)
    assert hint in str(error_info.value.hint)


@pytest.mark.parametrize("name", ["hf:owner/name", "bge-reranker-base", "bge-reranker-base:fp32"])
def test_a_model_that_could_be_pulled_is_not_installed(name: str) -> None:
    with pytest.raises(NotInstalled, match=f"{name} is not installed") as error_info:
        open_scorer(name)
    assert f"rerank models pull {name}" in str(error_info.value.hint)


def test_names_of_the_catalogue() -> None:
    assert default() == "mini@3"
    assert open_scorer().info.model == open_scorer("mini").info.model == "mini@3"
    for former in ("mini@1", "mini@2"):
        with pytest.raises(UsageError, match=f"{former} no longer ships: mini@3") as error_info:
            open_scorer(former)
        assert "-m mini" in str(error_info.value.hint)
    with pytest.raises(UsageError, match="no such model"):
        open_scorer("./nowhere")
    with pytest.raises(UsageError, match="at least one thread"):
        open_scorer(runtime=RuntimeOptions(threads=0))


def test_a_document_cannot_forge_special_tokens() -> None:
    tokenizer = open_scorer(str(MODELS / "bert")).info.tokenizer
    assert tokenizer is not None
    ids = tokenizer.encode("a [SEP] b [CLS]").ids
    assert {2, 3} & set(ids) == set()


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_model("bert", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert open_scorer("~/bert").info.length == 64
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as error_info:
        open_scorer("bert")
    assert "did you mean ./bert?" in str(error_info.value.hint)


class MeetingGraph:
    """Runs that wait until `expected` are under way at once; counts them, and notes their order."""

    batching = NO_BATCHING
    workers = 1

    def __init__(self, expected: int) -> None:
        self.lengths: list[int] = []
        self.running = self.most = 0
        self._expected = expected
        self._meeting = threading.Barrier(expected)
        self._lock = threading.Lock()

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        ((ids, types),) = rows
        with self._lock:
            self.lengths.append(len(ids))
            place = len(self.lengths)
            self.running += 1
            self.most = max(self.most, self.running)
        if place <= self._expected:
            self._meeting.wait(timeout=30)
        with self._lock:
            self.running -= 1
        return [float(len(types))]


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_runs_at_once_as_there_are_threads_longest_first(threads: int) -> None:
    graph = MeetingGraph(threads)
    scorer = open_scorer(str(MODELS / "bert"), runtime=RuntimeOptions(threads=threads))
    scorer._network = graph  # type: ignore[attr-defined]
    pairs = [pair("q", "a " * length) for length in (1, 9, 4, 7, 2, 8, 3)]
    values = scorer.score(pairs).values
    assert graph.most == threads
    lengths = graph.lengths if threads == 1 else graph.lengths[:1]
    assert lengths == sorted((int(value or 0) for value in values), reverse=True)[: len(lengths)]


def test_pairs_that_are_cancelled_are_not_counted_as_scored() -> None:
    has_begun, is_cancelled, has_received = threading.Event(), threading.Event(), threading.Event()

    class SlowGraph(MeetingGraph):
        prepared_path = passages = None

        def scores(self, rows: Sequence[TokenRow]) -> list[float]:
            has_begun.set()
            is_cancelled.wait(30)
            return super().scores(rows)

    scorer = open_scorer(str(MODELS / "bert"), runtime=RuntimeOptions(threads=1))
    scorer._network = SlowGraph(1)  # type: ignore[attr-defined]
    assert isinstance(scorer, LocalScorer)
    job = scorer.start(
        [pair("q", "a " * length) for length in (1, 9, 4)], lambda _: has_received.set()
    )
    assert has_begun.wait(30)
    job.cancel()
    is_cancelled.set()
    assert has_received.wait(30)
    assert scorer.account().startswith("1 pair on 1 thread")


def test_all_cores_are_used_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_cli.machine.core_count", lambda: 5)
    scorer = open_scorer(str(MODELS / "bert"))
    assert scorer._scheduler.threads == 5  # type: ignore[attr-defined]


def test_a_run_has_one_thread() -> None:
    scorer = open_scorer(str(MODELS / "bert"))
    options = scorer._network.session._session.get_session_options()  # type: ignore[attr-defined]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


SIZES = [(1, 64), (2, 64), (4, "tokens"), (1, "tokens"), ("pairs", 64)]


@pytest.mark.parametrize(
    "runtime", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("is_prepared", [True, False])
@pytest.mark.parametrize("name", ["bert", "xlmr"])
@pytest.mark.parametrize(("pairs", "tokens"), SIZES)
def test_graphs_of_fixed_sizes_are_filled_up(
    pairs: int | str,
    tokens: int | str,
    name: str,
    is_prepared: bool,
    runtime: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="needs the extra openvino")
        monkeypatch.setattr("rerank_cli.runtimes.openvino_graph._precision", lambda _: "f32")
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared") if is_prepared else "off")
    folder = with_sizes(name, tmp_path, pairs, tokens)
    rows = references(name)
    texts = [pair(str(row["query"]), str(row["passage"])) for row in rows]
    logits = pytest.approx([row["logit"] for row in rows], abs=1e-4)
    for _ in range(1 + is_prepared):
        scorer = open_scorer(str(folder), runtime=RuntimeOptions(runtime))
        assert scorer.score(texts).values == logits
        assert [scorer.score([text]).values[0] for text in texts] == scorer.score(texts).values


def test_a_graph_of_a_fixed_length_takes_no_more_tokens(tmp_path: Path) -> None:
    folder = with_sizes("bert", tmp_path, 1, 64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    assert describe(folder, "x").length == 512
    scorer = open_scorer(str(folder))
    assert (scorer.info.length, scorer.info.window) == (64, 64)
    result = rank("late delivery", ["the parcel is late " * 100], scorer)[0]
    assert (result.chunks > 2, result.dropped) == (True, 0)


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        (["input_ids", "attention_mask"], (1, 8), "exactly 8 tokens, which has no room"),
        (["input_ids"], (1, 64), "exactly 64 tokens, and has no attention_mask"),
        (["input_ids", "attention_mask"], (0, "tokens"), "sizes that do not fit: 0"),
    ],
)
@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_fixed_size_that_cannot_be_filled_up_is_refused_when_opened(
    names: list[str],
    sizes: tuple[int | str, ...],
    message: str,
    is_prepared: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared") if is_prepared else "off")
    folder = graph_of(["pairs", 1], tmp_path, inputs=tuple(names), sizes=sizes)
    with pytest.raises(ModelError, match=message) as error_info:
        open_scorer(str(folder))
    assert error_info.value.hint == "export the model with dynamic axes for pairs and tokens"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("last", ["Identity", "Sigmoid"])
def test_of_several_outputs_the_one_with_scores_is_taken(
    last: str, runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scale is its own, and not that of the first."""
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="needs the extra openvino")
        monkeypatch.setattr("rerank_cli.runtimes.openvino_graph._precision", lambda _: "f32")
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    folder = with_last_operators("bert", tmp_path, last)
    model = onnx.load(folder / "model.onnx")
    make, kinds = onnx.helper, onnx.TensorProto
    states = make.make_tensor_value_info("last_hidden_state", kinds.FLOAT, ["pairs", "tokens", 32])
    embedding = next(node for node in model.graph.node if "word_embeddings/Gather" in node.name)
    model.graph.node.append(make.make_node("Sigmoid", [embedding.output[0]], [states.name]))
    model.graph.output.insert(0, states)
    model.graph.output[1].CopyFrom(
        make.make_tensor_value_info(model.graph.output[1].name, kinds.FLOAT, ["pairs", 1])
    )
    onnx.save(model, folder / "model.onnx")
    rows = references("bert")
    texts = [pair(str(row["query"]), str(row["passage"])) for row in rows]
    for _ in range(2):
        scorer = open_scorer(str(folder), runtime=RuntimeOptions(runtime))
        assert scorer.info.scale == ("probability" if last == "Sigmoid" else "logit")
        values = scorer.score(texts).values
        relevances = [relevance(float(value or 0), scorer.info.scale) for value in values]
        expected = [relevance(float(str(row["logit"])), "logit") for row in rows]
        assert relevances == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT64, onnx.TensorProto.STRING, None])
def test_scores_are_numbers(kind: int | None, tmp_path: Path) -> None:
    folder = with_last_operators("bert", tmp_path)
    model = onnx.load(folder / "model.onnx")
    make, last = onnx.helper, model.graph.output[0].name
    if kind is None:
        model.graph.node.append(make.make_node("SequenceConstruct", [last], ["odd"]))
        odd = make.make_tensor_sequence_value_info("odd", onnx.TensorProto.FLOAT, None)
    else:
        model.graph.node.append(make.make_node("Cast", [last], ["odd"], to=kind))
        odd = make.make_tensor_value_info("odd", kind, ["pairs", 1])
    model.graph.output[0].CopyFrom(odd)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(ModelError, match="not a reranker: its output odd is a "):
        open_scorer(str(folder))


def test_a_graph_without_outputs_is_refused(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    model = onnx.load(folder / "model.onnx")
    del model.graph.output[:]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(ModelError, match="it has no outputs"):
        open_scorer(str(folder))
