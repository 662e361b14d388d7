"""Local models: the catalogue of named ones, and what is in a folder that holds one.

Finds and describes; opening and running is `scorers.local`'s business.
"""

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from rerank_cli.errors import ModelError, UsageError

_PACKAGE = Path(__file__).parent
# An installed wheel carries the shipped models as package data; a checkout has them at its top.
_SHIPPED = (_PACKAGE / "data" / "models", _PACKAGE.parent / "models")

# These number positions from the padding token on, which costs them pad_token_id + 1 of the
# length (transformers, create_position_ids_from_input_ids).
_OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
# The window of a model of which no better is known: what most cross-encoders are trained at.
_USUAL_WINDOW = 512
_LEAST_LENGTH = 16  # below it there is no room for a query and a passage
_UNLIMITED = 1_000_000  # tokenizers state a length of 1e30 where they know none


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk: its ONNX graph and tokenizer, and the figures that scoring needs.

    `length` is the most tokens it takes in one sequence, `window` the passage tokens it reads
    well at once, `padding` the token that fills a sequence up. `languages` are those that it is
    known to read (ISO 639-1); none where that is not known.
    """

    name: str
    revision: str
    graph: Path
    tokenizer: Path
    length: int
    window: int
    padding: int = 0
    languages: Sequence[str] = ()


def shipped(name: str) -> ModelFolder:
    """Find a model of the catalogue by `name` or `name@revision`.

    Raises `UsageError` with the nearest names where there is none.
    """
    models = catalogue()["models"]
    plain, _, revision = name.partition("@")
    entry = models.get(plain)
    if entry is not None and revision in entry["former"]:
        raise UsageError(
            f"{name} no longer ships: {plain}@{entry['revision']} took its place",
            hint=f"-m {plain}, for whose scores an old --min-score has to be chosen again; the old "
            "files are in the history of models/, and work as any folder does: -m ./FOLDER",
        )
    if entry is None or revision not in ("", entry["revision"]):
        near = get_close_matches(name, names(), cutoff=0.4) or names()
        if os.path.exists(name):
            near = [f"./{name}"]
        raise UsageError(
            f"no model is called {name!r}",
            hint=f"did you mean {' or '.join(near)}? A folder's path begins with ./ or /",
        )
    for root in _SHIPPED:
        if (root / entry["folder"]).is_dir():
            found = describe(
                root / entry["folder"], plain, entry["revision"], window=entry["window"]
            )
            return replace(found, languages=entry["languages"])
    raise ModelError(
        f"the files of {plain}@{entry['revision']} are missing from this installation",
        hint="install rerank-cli again",
    )


def is_shipped(name: str) -> bool:
    """Whether a model of the catalogue is called so, whatever its revision."""
    return name.partition("@")[0] in catalogue()["models"]


def names() -> list[str]:
    """The names that a model can be asked for by."""
    models = catalogue()["models"].items()
    return [*(f"{name}@{entry['revision']}" for name, entry in models), "bm25"]


@cache
def catalogue() -> dict[str, Any]:
    """Read the catalogue: `default`, the model's name, and `models`, a table by name."""
    return tomllib.loads((_PACKAGE / "data" / "models.toml").read_text(encoding="utf-8"))


def describe(
    path: Path, name: str, revision: str = "", *, window: int = _USUAL_WINDOW
) -> ModelFolder:
    """Look into a folder (or at the ONNX file in one) and say what a scorer needs to know.

    Raises `UsageError` where there is no such folder, and `ModelError` where its graph or its
    tokenizer is missing or cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"{name}: no such model", hint="-m takes a folder with an ONNX model")
    graph = path if path.is_file() else _find_graph(path)
    folder = _holding("tokenizer.json", graph)
    if folder is None:
        raise ModelError(
            f"{path}: no tokenizer.json beside the model",
            hint="copy it from where the model came from; transformers writes one on save",
        )
    config = _read_json(_holding("config.json", graph), "config.json")
    limits = _read_json(folder, "tokenizer_config.json")
    length = _length(config, limits, path)
    return ModelFolder(
        name=name,
        revision=revision,
        graph=graph,
        tokenizer=folder / "tokenizer.json",
        length=length,
        window=min(window, length),
        padding=_padding(config),
    )


def _find_graph(folder: Path) -> Path:
    for place in (folder, folder / "onnx"):
        graphs = sorted(place.glob("*.onnx"))
        if (usual := place / "model.onnx") in graphs:
            return usual
        if len(graphs) == 1:
            return graphs[0]
        if graphs:
            names = ", ".join(graph.name for graph in graphs)
            raise ModelError(
                f"{place}: holds {len(graphs)} models and none is called model.onnx",
                hint=f"name one with -m {place}/NAME: {names}",
            )
    raise ModelError(
        f"{folder}: holds no ONNX model",
        hint="a model.onnx or onnx/model.onnx is needed; export the checkpoint to ONNX first",
    )


def _holding(name: str, graph: Path) -> Path | None:
    """Find which folder has a file: the graph's own or the one above `onnx/`."""
    places = [graph.parent]
    if graph.parent.name in ("onnx", "openvino"):
        places.append(graph.parent.parent)
    return next((place for place in places if (place / name).is_file()), None)


def _read_json(folder: Path | None, name: str) -> dict[str, Any]:
    path = folder and folder / name
    if not path or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not a JSON object")
    return content


def _length(config: dict[str, Any], tokenizer_config: dict[str, Any], path: Path) -> int:
    """The most tokens of one sequence: the model's positions, or fewer if its tokenizer says so."""
    stated = tokenizer_config.get("model_max_length")
    lengths = [int(stated)] if isinstance(stated, int | float) and stated < _UNLIMITED else []
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        offset = config.get("model_type") in _OFFSET_POSITIONS
        lengths.append(positions - (_padding(config) + 1) * offset)
    length = min(lengths, default=_USUAL_WINDOW)
    if length < _LEAST_LENGTH:
        raise ModelError(f"{path}: its configuration says that it takes {length} tokens")
    return length


def _padding(config: dict[str, Any]) -> int:
    """The id of the padding token: RoBERTa and its kin have 1 where they do not say."""
    stated = config.get("pad_token_id")
    return stated if isinstance(stated, int) else int(config.get("model_type") in _OFFSET_POSITIONS)
