"""Converts pairs to a graph's input arrays, and its output to scores; checks both shapes.

A cross-encoder gives one score a pair, or two classes. A causal model gives a logit for each token
of its vocabulary at each place; the logits of two `AnswerTokens` after the last token are used.
This module also probes whether two graphs, or runs of several pairs, give the same scores.

The scale of scores is a fact of the graph, found by the operators that made them. It does not
depend on what other libraries do with scores afterwards, as a model's config.json may say. If the
operators do not tell it, it is unknown, and scores are shown as they are.
"""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.models.folder import ENCODER, LEAST_LENGTH, READER
from rerank_cli.models.onnx_file import CALL, Operator, follow_back, output_shapes
from rerank_cli.runtimes.network import EQUAL_LENGTHS, Network, TokenRow, is_out_of_memory
from rerank_cli.types import Scale

MASK_INPUT = "attention_mask"
INPUTS = ("input_ids", MASK_INPUT, "token_type_ids", "position_ids")
# The prefixes of a part's inputs that are another part's outputs for a query or a passage.
QUERY_INPUT, PASSAGE_INPUT = "query_", "passage_"
_EXPORT_HINT = "export the model with dynamic axes for pairs and tokens"
# Inputs that exporters add for causal models: the states of earlier tokens, and for how many places
# to return logits.
_STATE_PREFIXES = ("past_key_values.", "past.")
_LOGIT_COUNT_INPUTS = ("num_logits_to_keep", "logits_to_keep")
_BRANCH_INPUT = "use_cache_branch"
_MAX_AXES = 3  # pairs, places, tokens of the vocabulary
_PROBE_LENGTHS = (5, 9, 33, 96, 128, 256)  # tokens
_LONG_PROBE_TOKENS = 257  # too many for `EQUAL_LENGTHS`, so that such a pair is always alone
_PROBE_COUNTS = (2, 3, 7, 16)  # pairs
# Probing all of them takes as long as a thousand short runs, or less.
_SHORT_RUNS = 1_500
_LEAST_PROBING_SECONDS, _MAX_PROBING_SECONDS = 15.0, 150.0
_FIRST_ID, _LAST_ID = 4, 24  # token ids that every vocabulary has
NumberType = type[np.generic]


class AnswerTokens(NamedTuple):
    """The ids of the tokens with which a causal model says that a passage is relevant, or not."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or an output that a graph declares.

    `type_name` is the runtime's name of its type, and `dtype` numpy's, if there is one. Sizes in
    `shape` that are not integers are unknown.
    """

    type_name: str
    dtype: NumberType | None
    shape: Sequence[Any]


@dataclass(frozen=True, slots=True)
class InputLayout:
    """The inputs of a reranker's graph, by name, and how pairs are laid out in them.

    `pairs` and `tokens` are set if the graph takes exactly this many of them in a run; fewer pairs
    and shorter ones are filled up. `padding` is the token that fills them up. A causal model, which
    has `answers`, has its padding before the first token, so that all pairs end at one place.
    """

    inputs: Mapping[str, TensorSpec]
    padding: int = 0
    answers: AnswerTokens | None = None
    pairs: int | None = None
    tokens: int | None = None

    @classmethod
    def of_graph(
        cls,
        inputs: Mapping[str, TensorSpec],
        path: Path,
        padding: int = 0,
        answers: AnswerTokens | None = None,
    ) -> "InputLayout":
        """Check that a graph's inputs are a reranker's; raises `ModelError`."""
        for name, spec in inputs.items():
            is_integer = spec.dtype is not None and np.issubdtype(spec.dtype, np.integer)
            is_known = is_integer and name in INPUTS
            if not is_known and not (answers is not None and _is_causal(name, spec)):
                hint = f"known inputs are {', '.join(INPUTS)}, of whole numbers"
                if name.startswith((QUERY_INPUT, PASSAGE_INPUT)):
                    hint = f"a model in two parts has {ENCODER} and {READER} in one folder"
                raise ModelError(
                    f"{path}: not a reranker that can be run here: "
                    f"its input {name} is a {spec.type_name}",
                    hint=hint,
                )
        if "input_ids" not in inputs:
            raise ModelError(f"{path}: not a reranker: it has no input called input_ids")
        shapes = [inputs[name].shape for name in INPUTS if name in inputs]
        pairs, tokens = (_fixed_size(shapes, axis, path) for axis in (0, 1))
        if tokens is not None and MASK_INPUT not in inputs:
            raise ModelError(
                f"{path}: takes pairs of exactly {tokens} tokens, and has no {MASK_INPUT} with "
                "which shorter ones can be filled up",
                hint=_EXPORT_HINT,
            )
        if tokens is not None and tokens < LEAST_LENGTH:
            raise ModelError(
                f"{path}: takes pairs of exactly {tokens} tokens, which has no room for a query "
                "and a passage",
                hint=_EXPORT_HINT,
            )
        return cls(inputs, padding, answers, pairs, tokens)

    def feed(self, rows: Sequence[TokenRow]) -> dict[str, Any]:
        """Make arrays of shape (pairs, tokens of the longest); shorter pairs are masked.

        If a graph needs more pairs, the first one is repeated.
        """
        rows = [*rows, *[rows[0]] * ((self.pairs or 0) - len(rows))]
        longest = self.tokens or max(len(ids) for ids, _ in rows)
        arrays = {
            "input_ids": np.full((len(rows), longest), self.padding, np.int64),
            **{name: np.zeros((len(rows), longest), np.int64) for name in INPUTS[1:]},
        }
        for place, (ids, types) in enumerate(rows):
            start = 0 if self.answers is None else longest - len(ids)
            span = slice(start, start + len(ids))
            arrays["input_ids"][place, span] = ids
            arrays["attention_mask"][place, span] = 1
            arrays["token_type_ids"][place, span] = types
            arrays["position_ids"][place, span] = np.arange(len(ids))
        return {
            name: arrays[name].astype(spec.dtype, copy=False)
            if name in arrays
            else _extra_value(name, spec, len(rows))
            for name, spec in self.inputs.items()
        }

    def select(self, output: Any, pairs: int) -> Any:
        """The part of an output for the first `pairs` pairs; the others only filled it up."""
        values = np.asarray(output)
        return values[:pairs] if values.ndim and len(values) == self.pairs else values


def _fixed_size(shapes: Sequence[Sequence[Any]], axis: int, path: Path) -> int | None:
    """The one size that inputs have along an axis; None if any size will do."""
    sizes = {shape[axis] for shape in shapes if len(shape) > axis and isinstance(shape[axis], int)}
    if len(sizes) > 1 or min(sizes, default=1) < 1:
        size_text = " and ".join(map(str, sorted(sizes)))
        raise ModelError(
            f"{path}: its inputs have sizes that do not fit: {size_text}", hint=_EXPORT_HINT
        )
    return next(iter(sizes), None)


def check_output(
    name: str, shape: Sequence[Any], path: Path, answers: AnswerTokens | None = None
) -> None:
    """Raise `ModelError` for an output that has no scores of pairs or, with `answers`, of tokens.

    Sizes in `shape` that are not integers are unknown.
    """
    if answers is not None and len(shape) <= _MAX_AXES:
        return
    if not holds_scores(shape):
        raise ModelError(
            f"{path}: not a reranker: its output {name} has shape {list(shape)}",
            hint="a cross-encoder gives one logit a pair, or two classes",
        )


def read_scores(
    output: Any,
    rows: Sequence[TokenRow],
    path: Path,
    scale: Scale,
    answers: AnswerTokens | None = None,
) -> list[float]:
    """Read one score a pair: with `answers`, yes minus no; two classes as in `Network.scores`.

    Raises `ModelError` for a wrong number of outputs, and `ScorerError` for other wrong values.
    """
    values = np.asarray(output)
    if answers is not None and values.ndim == _MAX_AXES:
        values = values[:, -1]
    values = values.astype(np.float64)
    if not values.size or values.size % len(rows):
        raise ScorerError(f"{path}: gave {values.size} values for {len(rows)} pairs")
    values = values.reshape(len(rows), -1)
    if answers is not None and values.shape[1] > max(answers):
        values = values[:, [answers.no, answers.yes]]
    if values.shape[1] not in (1, 2):
        raise ModelError(f"{path}: not a reranker: {values.shape[1]} outputs a pair")
    if values.shape[1] == 1:
        scores = values[:, 0]
    elif scale == "probability":
        scores = values[:, 1]
    else:
        scores = values[:, 1] - values[:, 0]
    for (ids, _), score in zip(rows, scores, strict=True):
        if not math.isfinite(score):
            raise ScorerError(f"{path}: gave {score} for a pair of {len(ids)} tokens")
    return [float(score) for score in scores]


def batches_keep_scores(network: Network, longest: int) -> bool:
    """Whether pairs of one length have exactly the same scores in one run as in separate runs.

    They do not if activations are quantised by a scale that all pairs of the run determine. False
    too if it takes long to find out.
    """
    end = time.monotonic() + _MAX_PROBING_SECONDS
    try:
        for length in sorted({min(length, longest) for length in _PROBE_LENGTHS}):
            counts = [count for count in _PROBE_COUNTS if count * length <= EQUAL_LENGTHS.tokens]
            rows = [_probe_row(length, number) for number in range(max(counts))]
            alone = []
            for row in rows:
                alone += network.scores([row])
                if time.monotonic() > end:
                    return False
            for count in counts:
                if network.scores(rows[:count]) != alone[:count] or time.monotonic() > end:
                    return False
    except ScorerError:
        return False
    return True


def probe_seconds(network: Network) -> float:
    """Score a short pair, and estimate how long probing may take on a slow machine.

    Raises `ScorerError` if there is too little memory. Other errors may be due to the pair, which
    means nothing.
    """
    began = time.monotonic()
    try:
        network.scores([_probe_row(_PROBE_LENGTHS[0], 0)])
    except ScorerError as error:
        if is_out_of_memory(str(error)):
            raise
    seconds = time.monotonic() - began
    return min(_MAX_PROBING_SECONDS, _LEAST_PROBING_SECONDS + _SHORT_RUNS * seconds)


def score_alike(first: Network, second: Network, longest: int) -> bool:
    """Whether two networks give exactly the same scores to pairs in separate runs."""
    lengths = [min(length, longest) for length in (*_PROBE_LENGTHS[:-1], _LONG_PROBE_TOKENS)]
    rows = [_probe_row(length, number) for length in lengths for number in (1, 2)]
    try:
        return all(first.scores([row]) == second.scores([row]) for row in rows)
    except ScorerError:
        return False


def _is_causal(name: str, spec: TensorSpec) -> bool:
    """Whether an input is one that exporters add for causal models."""
    if name.startswith(_STATE_PREFIXES):
        has_sizes = len(spec.shape) == 4 and all(
            isinstance(spec.shape[axis], int) for axis in (1, 3)
        )
        return has_sizes and spec.dtype is not None
    return name in _LOGIT_COUNT_INPUTS or name == _BRANCH_INPUT


def _extra_value(name: str, spec: TensorSpec, pairs: int) -> Any:
    """The value of such an input: no states, logits after the last token only, and no branch."""
    if name.startswith(_STATE_PREFIXES):
        _, heads, _, width = spec.shape
        return np.zeros((pairs, heads, 0, width), spec.dtype)
    value = np.asarray(name in _LOGIT_COUNT_INPUTS, spec.dtype)
    return value.reshape([1] * len(spec.shape))


def _probe_row(length: int, number: int) -> TokenRow:
    """A pair of `length` tokens; each `number` gives another pair."""
    spread = _LAST_ID - _FIRST_ID
    ids = [
        _FIRST_ID + (3 * place * place + 7 * place * number + number) % spread
        for place in range(length)
    ]
    return ids, [0] * length


_LOGITS = "logits"  # what most exporters call the scores
_MAX_CLASSES = 2
_CONSTANT = "constant"
# Only a malicious graph takes longer to follow back.
_MAX_STEPS, _MAX_DEPTH = 1_000, 30

# Operators that give some of the values of their first input, and those that give all of them, or
# averages of them, in other shapes, types or orders; in ONNX and in OpenVINO.
_SELECTING = {
    "Gather", "GatherElements", "GatherND", "Slice", "Split", "StridedSlice", "VariadicSplit",
}  # fmt: skip
_PASSING = {
    CALL, "Cast", "CastLike", "Clamp", "Clip", "Convert", "ConvertLike", "DequantizeLinear",
    "Dropout", "Expand", "FakeQuantize", "Flatten", "Identity", "QuantizeLinear", "ReduceMax",
    "ReduceMean", "ReduceMin", "Reshape", "Result", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
# Operators that add and multiply, and those that give one of their inputs or an average.
_ADDING = {"Add", "Neg", "Negative", "ReduceSum", "Sub", "Subtract", "Sum"}
_MULTIPLYING = {"Div", "Divide", "Mul", "Multiply"}
_CHOOSING = {"If", "Max", "Maximum", "Mean", "Min", "Minimum", "Select", "Where"}
_CONDITIONAL = {"Select", "Where"}  # their first input is the condition
_QUANTISING = "DynamicQuantizeLinear"  # the output that is followed here is a factor
# Linear layers, also as runtimes fuse and quantise them, but not with an activation of their own.
_LINEAR = re.compile(r"(?!.*(?:[GRS]elu|Silu|Mlp)).*(?:MatMul|Gemm|Conv|Einsum)")


def holds_scores(shape: Sequence[Any]) -> bool:
    """Whether an output of a shape may be one score a pair, or two classes.

    Sizes that are not integers are unknown.
    """
    if len(shape) > 2:
        return False
    return len(shape) < 2 or not isinstance(shape[1], int) or 1 <= shape[1] <= _MAX_CLASSES


def score_output(outputs: Mapping[str, Sequence[Any]]) -> str:
    """Which output has the scores, by the outputs' names and shapes: logits, or else the first.

    An output that may hold scores comes before one that cannot, and one that surely does before
    one of unknown sizes.
    """
    names = [name for name, shape in outputs.items() if holds_scores(shape)] or list(outputs)
    if _LOGITS in names:
        return _LOGITS
    sure = [
        name
        for name in names
        if len(shape := outputs[name]) == 1 or (len(shape) == 2 and isinstance(shape[1], int))
    ]
    return (sure or names)[0]


def scale_of(path: Path, output: str | None = None) -> Scale:
    """The scale of an ONNX graph's scores, as `scale_made_by` tells it; raises `OSError`."""
    if output is None:
        shapes = output_shapes(path)
        output = score_output(shapes) if shapes else ""
    with follow_back(path, output) as last:
        return scale_made_by(last)


def scale_made_by(last: Operator) -> Scale:
    """The scale of a graph's scores, by the operator that made them and those before it.

    A sigmoid gives probabilities, and so does a softmax over classes; a linear layer gives logits.
    Two classes of a log-softmax differ by their logit. Other results are on no scale with a name:
    one of these classes alone, a softmax over the pairs of a run, or a probability that was
    multiplied.
    """
    kind = _Walk().kind_of(last)
    return "unknown" if kind == _CONSTANT else kind


class _Walk:
    """Follows operators back from an output, in a bounded number of steps."""

    def __init__(self) -> None:
        self._steps = 0

    def kind_of(
        self, operator: Operator | None, depth: int = 0, *, is_selected: bool = False
    ) -> Any:
        """The scale of an operator's output, or `_CONSTANT`."""
        while operator is not None:
            self._steps += 1
            if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
                return "unknown"
            name = operator.name.removeprefix("QLinear")
            if name in _ADDING | _MULTIPLYING | _CHOOSING:
                return self._merged_kind(name, operator, depth, is_selected)
            if name == _QUANTISING:
                return _CONSTANT
            if name not in _SELECTING and name not in _PASSING and name != "Concat":
                return _kind_made_by(name, operator, is_selected)
            is_selected |= name in _SELECTING
            sources = operator.sources()
            # If two classes are joined, the second one is the score.
            operator = (
                (sources[-1] if name == "Concat" else sources[0]) if sources else Operator("")
            )
        return _CONSTANT

    def _merged_kind(self, name: str, operator: Operator, depth: int, is_selected: bool) -> Any:
        """The scale of the output of an operator with several inputs."""
        sources = operator.sources()[name in _CONDITIONAL :]
        kinds = [self.kind_of(source, depth + 1, is_selected=is_selected) for source in sources]
        variable_kinds = {kind for kind in kinds if kind != _CONSTANT}
        if not variable_kinds:
            return _CONSTANT
        if name in _CHOOSING:
            return variable_kinds.pop() if len(variable_kinds) == 1 else "unknown"
        # A sum with a linear layer is one too. But a multiple of a probability is not a
        # probability.
        is_linear = "logit" in variable_kinds and "probability" not in variable_kinds
        if name in _MULTIPLYING:
            is_linear = is_linear and kinds.count(_CONSTANT) == len(kinds) - 1
        return "logit" if is_linear else "unknown"


def _kind_made_by(name: str, operator: Operator, is_selected: bool) -> Scale:
    """The scale of the output of an operator that changes values."""
    if _LINEAR.match(name) and not operator.activation:
        return "logit"
    name = operator.activation or name
    if name == "LogSoftmax":
        return "unknown" if is_selected or operator.axis == 0 else "logit"
    if name.endswith(("Softmax", "SoftMax")):
        return "unknown" if operator.axis == 0 else "probability"
    return "probability" if name.endswith("Sigmoid") and name != "LogSigmoid" else "unknown"
