"""What is in a folder that holds a model, and what scoring needs to know of it.

Describes; opening and running is `scorers.local`'s business.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import file_digest, file_stamp
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.catalogue import Prompt, prompts
from rerank_cli.models.onnx_file import needs
from rerank_cli.ranking import DEFAULT_WINDOW_TOKENS
from rerank_cli.types import Scale
from rerank_cli.user_files import read_regular_file

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

    `stamps` are those of its files when it was described, None for files that may be there and were
    not. `hashes` are the SHA-256 that its files are known to have; empty where none is known.
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
    stamps: Mapping[Path, Sequence[int] | None] = field(default_factory=dict, repr=False)
    hashes: Mapping[Path, str] = field(default_factory=dict, repr=False)

    def files(self) -> list[Path]:
        """The files that scores depend on; raises `ModelError`.

        These are the graph, its tokenizer, their configuration, and weights beside the graph.
        """
        weights = self.weights()
        found = [path for path, stamp in self.stamps.items() if stamp is not None]
        return [*(path for path in found if path not in weights), *weights]

    def weights(self) -> list[Path]:
        """The files beside the graph that its weights are in; raises `ModelError`."""
        with _translate_errors(self.graph):
            return [self.graph.parent / name for name in needs(self.graph)]

    def with_weights(self, paths: Iterable[Path]) -> "ModelFolder":
        """The same, with the stamps of files that its weights are in; raises `ModelError`."""
        return replace(self, stamps={**self.stamps, **_stamps(paths)})

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each of its files, by its path from the graph; raises `ModelError`.

        If a file has changed since the model was described, that is an error too.
        """
        with _translate_errors(self.graph):
            found = {self._short_name(path): file_digest(path) for path in self.files()}
        self.check_unchanged()
        return found

    def stamp(self) -> str:
        """What changes with its files, of those that have a stamp."""
        return json.dumps({self._short_name(path): stamp for path, stamp in self.stamps.items()})

    def _short_name(self, path: Path) -> str:
        """The path of one of its files from the graph's folder."""
        return Path(os.path.relpath(path, self.graph.parent)).as_posix()

    def check_unchanged(self) -> None:
        """Raise `ModelError` if a file that has a stamp is not as it was."""
        now = _stamps(self.stamps)
        for path, stamp in self.stamps.items():
            if now[path] != stamp:
                raise ModelError(
                    f"{path}: changed while it was in use",
                    hint="run the same again, when nobody is changing the model",
                )


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
    places = {"config.json": _folders_of(graph), "tokenizer_config.json": [folder]}
    configuration = [place / name for name, folders in places.items() for place in folders]
    # Taken before anything is read, so that a change meanwhile is found later.
    stamps = _stamps([graph, folder / "tokenizer.json", *configuration])
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
        stamps=stamps,
    )


def read_checksums(folder: Path) -> dict[Path, str]:
    """The hashes in a folder's file of checksums; raises `ModelError`."""
    path = folder / CHECKSUMS
    with _translate_errors(path):
        lines = read_regular_file(path).decode("utf-8", "replace").splitlines()
    # A line of sha256sum is the hash, two spaces and the name.
    rows = [line.split("  ", 1) for line in lines if "  " in line]
    return {folder / name: digest for digest, name in rows}


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
    """Find which folder has a file."""
    return next((place for place in _folders_of(graph) if (place / name).is_file()), None)


def _folders_of(graph: Path) -> list[Path]:
    """The folders that hold a model's files: the graph's own, and the one above `onnx/`."""
    is_below = graph.parent.name in ("onnx", "openvino")
    return [graph.parent, graph.parent.parent] if is_below else [graph.parent]


def _stamps(paths: Iterable[Path]) -> dict[Path, Sequence[int] | None]:
    """The stamps of files, None for one that is not there; raises `ModelError`."""
    stamps: dict[Path, Sequence[int] | None] = {}
    for path in paths:
        try:
            stamps[path] = file_stamp(path)
        except (FileNotFoundError, NotADirectoryError):
            stamps[path] = None
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}") from error
    return stamps


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Raise what goes wrong with a model's files as `ModelError`."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{error.filename or path}: {error.strerror or error}") from error


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
