"""The calibrations of a user's models, in `calibrations.toml` beside `config.toml`.

Each has a table, whose name is a hash that identifies its model: for a model of this machine, of
its files; for a service's model, of its name, its URL and the scale of its scores. Another revision
has another hash: the calibration of the former one stays in the file, and is not used.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rerank_cli.errors import ConfigError, NoHome, UsageError
from rerank_cli.ranking.calibration import Calibration
from rerank_cli.types import ScoreCalibration, Scorer, ScorerInfo
from rerank_cli.user_files import calibrations_file, parse_toml, read_user_file

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY_BYTES = 8
_TEXTS = ("model", "rule", "data", "date")
_COUNTS = ("queries", "labels", "relevant")
_NUMBERS = ("temperature", "bias", "error")
_OPTIONAL_NUMBERS = ("cut", "error_before")


@runtime_checkable
class LocalModel(Protocol):
    """A scorer whose model has files."""

    find_digests: "Callable[[], Mapping[str, str]] | None"


def model_key(scorer: Scorer) -> str:
    """A hash that identifies a scorer's model; raises `UsageError` if there is none."""
    scorer = getattr(scorer, "scorer", scorer)  # of one with a cache
    info = scorer.info
    if isinstance(scorer, LocalModel) and scorer.find_digests is not None:
        parts: list[Any] = [sorted(scorer.find_digests().values()), info.scale]
    elif info.remote:
        from rerank_cli.providers.keys import public_base_url

        address = getattr(scorer, "address", None)
        url = public_base_url(address.url) if address is not None else ""
        parts = [info.name, url, info.scale]
    else:
        raise UsageError(f"{info.model} cannot be calibrated: its scores are no model's")
    from hashlib import blake2b  # few runs have a calibration

    return blake2b(json.dumps(parts).encode(), digest_size=_KEY_BYTES).hexdigest()


def read_calibrations() -> dict[str, Calibration]:
    """All calibrations by their models' keys; raises `ConfigError` for a damaged file."""
    try:
        path = calibrations_file()
    except NoHome:
        return {}
    try:
        content = read_user_file(path)
        tables = parse_toml(content) if content else {}
        return {key: _read_table(table) for key, table in tables.items()}
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: no calibrations: {error}",
            hint="rerank calibrate writes this file; move it away to do without",
        ) from error


def write_calibration(key: str, calibration: Calibration) -> Path:
    """Write a model's calibration, in place of an older one; return the file's path."""
    from rerank_cli.atomic_files import set_toml_value  # not at every start

    names = (*_TEXTS, *_COUNTS, *_NUMBERS, "transform")
    table: dict[str, Any] = {name: getattr(calibration, name) for name in names}
    for name in _OPTIONAL_NUMBERS:
        if getattr(calibration, name) is not None:
            table[name] = getattr(calibration, name)
    if calibration.points:
        table["points"] = [[*point] for point in calibration.points]
    path = calibrations_file()
    set_toml_value(path, key, table)
    return path


def forget_calibrations(model: str) -> int:
    """Remove the calibrations of a model by its name, of all its revisions; return how many."""
    from rerank_cli.atomic_files import remove_toml_key

    keys = [key for key, own in read_calibrations().items() if own.model == model]
    return sum(remove_toml_key(calibrations_file(), key) for key in keys)


def info_with_calibration(scorer: Scorer) -> ScorerInfo:
    """A scorer's info with its model's calibration, which may be for other files of the model."""
    info = scorer.info
    calibrations = read_calibrations()
    same_name = [own for own in calibrations.values() if own.model == info.model]
    if not calibrations or (info.scope == "set" and not same_name):
        return info
    calibration = calibrations.get(model_key(scorer))
    if calibration is None and same_name:
        calibration = replace(same_name[-1], is_current=False)
    return replace(info, calibration=calibration)


def set_calibration(scorer: Scorer, calibration: ScoreCalibration | None) -> None:
    """Let a scorer use the calibration that another machine has for its model, or none."""
    if scorer.info.calibration != calibration:
        calibrated_scorer: Any = scorer  # one that can be calibrated has an `info` of its own
        calibrated_scorer.info = replace(scorer.info, calibration=calibration)


def _read_table(table: Any) -> Calibration:
    """Read a table; raises `KeyError`, `TypeError` or `ValueError` if it is not a calibration."""
    if not isinstance(table, dict):
        raise TypeError("not a table")
    values: dict[str, Any] = {name: _text(table[name]) for name in _TEXTS}
    values |= {name: int(_number(table[name])) for name in _COUNTS}
    values |= {name: _number(table[name]) for name in _NUMBERS}
    values |= {name: _number(table[name]) for name in _OPTIONAL_NUMBERS if name in table}
    points = [(_number(score), _number(share)) for score, share in table.get("points", ())]
    rises = all(
        before[0] < after[0] and before[1] <= after[1] for before, after in pairwise(points)
    )
    if table["transform"] not in ("identity", "logit"):
        raise ValueError("transform is neither identity nor logit")
    if values["temperature"] <= 0 or not rises or not all(0 <= share <= 1 for _, share in points):
        raise ValueError("it would change the order of results")
    return Calibration(**values, transform=table["transform"], points=points)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r:.40} is not a number")
    return float(value)
