"""Pairs as the arrays that a cross-encoder's graph takes, and logits from those that it gives."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerank_cli.errors import ModelError, ScorerError
from rerank_cli.scorers.network import Row

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Integer = type[np.integer[Any]]
Declared = tuple[str, Integer | None]  # an input's type in words, and in numpy if that has it


def check_inputs(inputs: Mapping[str, Declared], path: Path) -> dict[str, Integer]:
    """The type of each input by its name.

    Raises `ModelError` for a graph that is not a cross-encoder's.
    """
    for name, (said, dtype) in inputs.items():
        if name not in INPUTS or dtype is None:
            raise ModelError(
                f"{path}: not a cross-encoder that can be run here: its input {name} is a {said}",
                hint=f"known inputs are {', '.join(INPUTS)}, of whole numbers",
            )
    if "input_ids" not in inputs:
        raise ModelError(f"{path}: not a cross-encoder: it has no input called input_ids")
    return {name: dtype for name, (_, dtype) in inputs.items() if dtype is not None}


def check_output(name: str, shape: Sequence[Any], path: Path) -> None:
    """Raise `ModelError` for an output that is not one logit a pair, or two classes.

    Sizes of `shape` that are not whole numbers are not known.
    """
    classes = shape[-1] if len(shape) == 2 else 1
    if len(shape) > 2 or (isinstance(classes, int) and classes > 2):
        raise ModelError(
            f"{path}: not a reranker: its output {name} has shape {list(shape)}",
            hint="a cross-encoder gives one logit a pair, or two classes",
        )


def feed_of(rows: Sequence[Row], inputs: Mapping[str, Integer], padding: int) -> dict[str, Any]:
    """Arrays of shape (pairs, tokens of the longest); shorter pairs are filled up and masked."""
    longest = max(len(ids) for ids, _ in rows)
    arrays = {
        "input_ids": np.full((len(rows), longest), padding, np.int64),
        "attention_mask": np.zeros((len(rows), longest), np.int64),
        "token_type_ids": np.zeros((len(rows), longest), np.int64),
    }
    for place, (ids, types) in enumerate(rows):
        arrays["input_ids"][place, : len(ids)] = ids
        arrays["attention_mask"][place, : len(ids)] = 1
        arrays["token_type_ids"][place, : len(ids)] = types
    return {name: arrays[name].astype(dtype, copy=False) for name, dtype in inputs.items()}


def logits_of(output: Any, rows: Sequence[Row], path: Path) -> list[float]:
    """One logit a pair: of two classes, the second's less the first's."""
    values = np.asarray(output, np.float64)
    if values.size % len(rows):
        raise ScorerError(f"{path}: gave {values.size} values for {len(rows)} pairs")
    values = values.reshape(len(rows), -1)
    if values.shape[1] not in (1, 2):
        raise ModelError(f"{path}: not a cross-encoder: {values.shape[1]} outputs a pair")
    logits = values[:, 0] if values.shape[1] == 1 else values[:, 1] - values[:, 0]
    for (ids, _), logit in zip(rows, logits, strict=True):
        if not math.isfinite(logit):
            raise ScorerError(f"{path}: gave {logit} for a pair of {len(ids)} tokens")
    return [float(logit) for logit in logits]
