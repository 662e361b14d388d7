"""Converts pairs to a graph's input arrays, and its output to scores; checks both shapes.

A cross-encoder gives one score a pair, or two classes. A causal model gives a logit for each token
of its vocabulary at each place; the logits of two `AnswerTokens` after the last token are used.
This module also probes whether two graphs, or runs of several pairs, give the same scores.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.runtimes.network import EQUAL_LENGTHS, Network, TokenRow
from rerank_cli.types import Scale

INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
# Inputs that exporters add for causal models: the states of earlier tokens, and for how many places
# to return logits.
_STATE_PREFIXES = ("past_key_values.", "past.")
_LOGIT_COUNT_INPUTS = ("num_logits_to_keep", "logits_to_keep")
_BRANCH_INPUT = "use_cache_branch"
_MAX_AXES = 3  # pairs, places, tokens of the vocabulary
_PROBE_LENGTHS = (5, 9, 33, 96, 128, 256)  # tokens
_LONG_PROBE_TOKENS = 257  # too many for `EQUAL_LENGTHS`, so that such a pair is always alone
_PROBE_COUNTS = (2, 3, 7, 16)  # pairs
_FIRST_ID, _LAST_ID = 4, 24  # token ids that every vocabulary has
NumberType = type[np.generic]


class AnswerTokens(NamedTuple):
    """The ids of the tokens with which a causal model says that a passage is relevant, or not."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input that a graph declares.

    `type_name` is the runtime's name of its type, and `dtype` numpy's, if there is one. Sizes in
    `shape` that are not integers are unknown.
    """

    type_name: str
    dtype: NumberType | None
    shape: Sequence[Any]


def check_inputs(
    inputs: Mapping[str, InputSpec], path: Path, answers: AnswerTokens | None = None
) -> Mapping[str, InputSpec]:
    """Check that a graph's inputs are a reranker's, and return them; raises `ModelError`."""
    for name, spec in inputs.items():
        is_integer = spec.dtype is not None and np.issubdtype(spec.dtype, np.integer)
        is_known = is_integer and name in INPUTS
        if not is_known and not (answers is not None and _is_causal(name, spec)):
            raise ModelError(
                f"{path}: not a reranker that can be run here: "
                f"its input {name} is a {spec.type_name}",
                hint=f"known inputs are {', '.join(INPUTS)}, of whole numbers",
            )
    if "input_ids" not in inputs:
        raise ModelError(f"{path}: not a reranker: it has no input called input_ids")
    return inputs


def check_output(
    name: str, shape: Sequence[Any], path: Path, answers: AnswerTokens | None = None
) -> None:
    """Raise `ModelError` for an output that has no scores of pairs or, with `answers`, of tokens.

    Sizes in `shape` that are not integers are unknown.
    """
    if answers is not None and len(shape) <= _MAX_AXES:
        return
    classes = shape[-1] if len(shape) == 2 else 1
    if len(shape) > 2 or (isinstance(classes, int) and classes > 2):
        raise ModelError(
            f"{path}: not a reranker: its output {name} has shape {list(shape)}",
            hint="a cross-encoder gives one logit a pair, or two classes",
        )


def make_feed(
    rows: Sequence[TokenRow],
    inputs: Mapping[str, InputSpec],
    padding: int,
    answers: AnswerTokens | None = None,
) -> dict[str, Any]:
    """Make arrays of shape (pairs, tokens of the longest); shorter pairs are padded and masked.

    For causal models the padding is before the first token, so that all pairs end at one place.
    """
    longest = max(len(ids) for ids, _ in rows)
    arrays = {
        "input_ids": np.full((len(rows), longest), padding, np.int64),
        **{name: np.zeros((len(rows), longest), np.int64) for name in INPUTS[1:]},
    }
    for place, (ids, types) in enumerate(rows):
        start = 0 if answers is None else longest - len(ids)
        span = slice(start, start + len(ids))
        arrays["input_ids"][place, span] = ids
        arrays["attention_mask"][place, span] = 1
        arrays["token_type_ids"][place, span] = types
        arrays["position_ids"][place, span] = np.arange(len(ids))
    return {
        name: arrays[name].astype(spec.dtype, copy=False)
        if name in arrays
        else _extra_value(name, spec, len(rows))
        for name, spec in inputs.items()
    }


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
    if values.size % len(rows):
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

    They do not if activations are quantised by a scale that all pairs of the run determine.
    """
    try:
        for length in {min(length, longest) for length in _PROBE_LENGTHS}:
            counts = [count for count in _PROBE_COUNTS if count * length <= EQUAL_LENGTHS.tokens]
            rows = [_probe_row(length, number) for number in range(max(counts))]
            alone = [score for row in rows for score in network.scores([row])]
            if any(network.scores(rows[:count]) != alone[:count] for count in counts):
                return False
    except ScorerError:
        return False
    return True


def score_alike(first: Network, second: Network, longest: int) -> bool:
    """Whether two networks give exactly the same scores to pairs in separate runs."""
    lengths = [min(length, longest) for length in (*_PROBE_LENGTHS[:-1], _LONG_PROBE_TOKENS)]
    rows = [_probe_row(length, number) for length in lengths for number in (1, 2)]
    try:
        return all(first.scores([row]) == second.scores([row]) for row in rows)
    except ScorerError:
        return False


def _is_causal(name: str, spec: InputSpec) -> bool:
    """Whether an input is one that exporters add for causal models."""
    if name.startswith(_STATE_PREFIXES):
        has_sizes = len(spec.shape) == 4 and all(
            isinstance(spec.shape[axis], int) for axis in (1, 3)
        )
        return has_sizes and spec.dtype is not None
    return name in _LOGIT_COUNT_INPUTS or name == _BRANCH_INPUT


def _extra_value(name: str, spec: InputSpec, pairs: int) -> Any:
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
