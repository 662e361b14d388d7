"""What is in a folder that holds a model, and what scoring needs to know of it.

Describes; opening and running is `scorers.local`'s business.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import file_digest
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.catalogue import Prompt, prompts
from rerank_cli.models.onnx_file import needs
from rerank_cli.ranking import DEFAULT_WINDOW_TOKENS
from rerank_cli.types import Scale

# These number positions from the padding token on, which costs them pad_token_id + 1 of the
# length (transformers, create_position_ids_from_input_ids).
_OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
# What may lie in a folder for `rerank doctor`: pairs and their logits, and hashes of all files.
SELF_TEST, CHECKSUMS = "self_test.json", "SHA256SUMS"
_LEAST_LENGTH = 16  # below it there is no room for a query and a passage
_UNLIMITED = 1_000_000  # tokenizers state a length of 1e30 where they know none


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk: its ONNX graph and tokenizer, and the figures that scoring needs.

    `length` is the most tokens it takes in one sequence, `window` the passage tokens it reads
    well at once, `padding` the token that fills a sequence up. `languages` are those that it is
    known to read (ISO 639-1); none where that is not known. A causal model has a `prompt`. Its
    scores are on a `scale`; where that is None its graph tells (`onnx_file.scale_of`).
    """

    name: str
    revision: str
    graph: Path
    tokenizer: Path
    length: int
    window: int
    padding: int = 0
    languages: Sequence[str] = ()
    prompt: Prompt | None = None
    scale: Scale | None = None

    def files(self) -> list[Path]:
        """The files that scores depend on: the graph, its tokenizer, and weights beside it."""
        weights = [self.graph.parent / name for name in needs(self.graph)]
        return [self.graph, self.tokenizer, *weights]

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each of its files, by name; raises `ModelError`."""
        try:
            return {path.name: file_digest(path) for path in self.files()}
        except OSError as error:
            raise ModelError(f"{error.filename or self.graph}: {error.strerror}") from error

    def stamp(self) -> str:
        """What changes with its files, found without reading them: sizes and times."""
        states = [path.stat() for path in self.files()]
        return " ".join(f"{state.st_size} {state.st_mtime_ns}" for state in states)


def describe(
    path: Path, name: str, revision: str = "", *, window: int = DEFAULT_WINDOW_TOKENS
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
    length = _length(config, _read_json(folder, "tokenizer_config.json"), path)
    return ModelFolder(
        name=name,
        revision=revision,
        graph=graph,
        tokenizer=folder / "tokenizer.json",
        length=length,
        window=min(window, length),
        padding=_padding(config),
        prompt=prompts().get(str(config.get("model_type"))),
    )


def length_in(folder: Path) -> int:
    """The most tokens that the model takes whose configuration is in a folder."""
    config = _read_json(folder, "config.json")
    return _length(config, _read_json(folder, "tokenizer_config.json"), folder)


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
    length = min(lengths, default=DEFAULT_WINDOW_TOKENS)
    if length < _LEAST_LENGTH:
        raise ModelError(f"{path}: its configuration says that it takes {length} tokens")
    return length


def _padding(config: dict[str, Any]) -> int:
    """The id of the padding token: RoBERTa and its kin have 1 where they do not say."""
    stated = config.get("pad_token_id")
    return stated if isinstance(stated, int) else int(config.get("model_type") in _OFFSET_POSITIONS)
