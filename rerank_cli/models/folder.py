"""Describes a model's folder: its files, and the facts that scoring needs.

Describes; opening and running is `scorers.local`'s business.
"""

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rerank_cli.atomic_files import file_digest, file_stamp
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.catalogue import Prompt, prompts
from rerank_cli.models.onnx_file import is_dynamic, needs
from rerank_cli.ranking import DEFAULT_WINDOW_TOKENS
from rerank_cli.types import Scale, ScorerInfo
from rerank_cli.user_files import open_regular_file, parse_json_object, read_regular_file

# These models number positions from the padding token on, so that their length is smaller by
# pad_token_id + 1 (transformers, create_position_ids_from_input_ids).
_OFFSET_POSITIONS = {
    "camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta",
    "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}  # fmt: skip
# Optional files for `rerank doctor`: pairs and their logits, and hashes of all files.
SELF_TEST, CHECKSUMS = "self_test.json", "SHA256SUMS"
# The two parts of a model that reads a query and a passage each alone first.
ENCODER, READER = "encoder.onnx", "reader.onnx"
LEAST_LENGTH = 16  # below it there is no room for a query and a passage
_UNLIMITED = 1_000_000  # tokenizers state a length of 1e30 where they know none
_LARGEST_ID = (1 << 31) - 1
_CONFIG, _TOKENIZER, _TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
# The beginning of a pointer of Git LFS, which stands in place of a file that was not fetched
# (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md).
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on disk: its ONNX graph and tokenizer, and the figures that scoring needs.

    The `graph` of a model in parts is its reader, and `encoder` is the other part. `length` is the
    most tokens it takes in one sequence, `window` the passage tokens it reads well at once,
    `padding` the token that fills a sequence up. `languages` are those that it is known to read
    (ISO 639-1); none where that is not known. A causal model has a `prompt`. Its scores are on a
    `scale`; if that is None, its graph tells it (`tensors.scale_of`). If the best raw score is
    below `weak_below`, probably nothing answers; None if that was not measured. It scores
    `spare_tokens` tokens without a noticeable delay. A model that `is_shipped` came with this
    package, and needs no trial.

    `stamps` are the stamps of its files when it was described; None for an optional file that was
    missing. `hashes` are the known SHA-256 hashes of its files; empty if none is known.
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
    weak_below: float | None = None
    spare_tokens: int = ScorerInfo.spare_tokens
    stamps: Mapping[Path, Sequence[int] | None] = field(default_factory=dict, repr=False)
    hashes: Mapping[Path, str] = field(default_factory=dict, repr=False)
    is_shipped: bool = False
    package: str = ""
    encoder: Path | None = None

    @property
    def graphs(self) -> Sequence[Path]:
        """Its graph, or the two parts of it."""
        return [self.graph] if self.encoder is None else [self.graph, self.encoder]

    def files(self) -> list[Path]:
        """The files that scores depend on; raises `ModelError`.

        These are its graphs, its tokenizer, their configuration, and weights beside a graph.
        """
        weights = self.weights()
        paths = [path for path, stamp in self.stamps.items() if stamp is not None]
        return [*(path for path in paths if path not in weights), *weights]

    def weights(self) -> list[Path]:
        """The files beside its graphs that their weights are in; raises `ModelError`."""
        with _translate_errors(self.graph):
            names = {name: None for graph in self.graphs for name in needs(graph)}
        return [self.graph.parent / name for name in names]

    def is_dynamic(self) -> bool:
        """Whether it is quantised in the form that onnxruntime has for CPUs."""
        return any(map(is_dynamic, self.graphs))

    def with_weights(self, paths: Iterable[Path]) -> "ModelFolder":
        """This model with the stamps of the files of its weights; raises `ModelError`."""
        return replace(self, stamps={**self.stamps, **_stamps(paths)})

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each of its files, by its path from the graph; raises `ModelError`.

        If a file has changed since the model was described, that is an error too.
        """
        with _translate_errors(self.graph):
            digests = {self._short_name(path): file_digest(path) for path in self.files()}
        self.check_unchanged()
        return digests

    def size(self) -> int:
        """The bytes of all files in its folder, also of its card and its licence."""
        return folder_size(self.tokenizer.parent)

    def stamp(self) -> str:
        """A text that changes with any of its files that has a stamp."""
        return json.dumps({self._short_name(path): stamp for path, stamp in self.stamps.items()})

    def _short_name(self, path: Path) -> str:
        """The path of one of its files from the graph's folder."""
        return Path(os.path.relpath(path, self.graph.parent)).as_posix()

    def check_unchanged(self) -> None:
        """Raise `ModelError` if a file with a stamp has changed."""
        now = _stamps(self.stamps)
        for path, stamp in self.stamps.items():
            if now[path] != stamp:
                raise ModelError(
                    f"{path}: changed while it was in use",
                    hint="run the command again when nobody is changing the model",
                )


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder, which need not be there."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may have taken it away
            status = path.stat()
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size


def describe(
    path: Path, name: str, revision: str = "", *, window: int = DEFAULT_WINDOW_TOKENS
) -> ModelFolder:
    """Describe the model in a folder (or the ONNX file in one) for a scorer.

    Raises `UsageError` if there is no such folder, and `ModelError` if its graph or its tokenizer
    is missing or cannot be read.
    """
    if not os.path.exists(path):
        raise UsageError(f"{name}: no such model", hint="-m takes a folder with an ONNX model")
    graph = _find_graph(path) if path.is_dir() else path
    encoder = None
    parts = graph.with_name(ENCODER), graph.with_name(READER)
    if graph in parts and all(map(os.path.lexists, parts)):
        encoder, graph = parts
    graphs = [graph] if encoder is None else [encoder, graph]
    for each in graphs:
        check_file(each)
    folder = _find_folder_of(_TOKENIZER, graph)
    if folder is None:
        raise ModelError(
            f"{path}: no tokenizer.json beside the model",
            hint="copy it from the source of the model; transformers writes one on save",
        )
    places = {_CONFIG: _folders_of(graph), _TOKENIZER_CONFIG: [folder]}
    configuration = [place / name for name, folders in places.items() for place in folders]
    # Taken before anything is read, so that a change meanwhile is found later.
    stamps = _stamps([*graphs, folder / _TOKENIZER, *configuration])
    check_file(folder / _TOKENIZER)
    config = ModelConfig.read(_find_folder_of(_CONFIG, graph), _CONFIG)
    length = _length(config, ModelConfig.read(folder, _TOKENIZER_CONFIG), path)
    return ModelFolder(
        name=name,
        revision=revision,
        graph=graph,
        tokenizer=folder / _TOKENIZER,
        length=length,
        window=min(window, length),
        padding=_padding(config),
        prompt=prompts().get(config.text("model_type")),
        stamps=stamps,
        encoder=encoder,
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
    """The most tokens that a model takes, by the configuration in its folder."""
    config = ModelConfig.read(folder, _CONFIG)
    return _length(config, ModelConfig.read(folder, _TOKENIZER_CONFIG), folder)


def check_file(path: Path) -> None:
    """Raise `ModelError` if one of a model's files cannot be read, or is not the file itself."""
    with _translate_errors(path), open_regular_file(path) as stream:
        start = stream.read(len(_LFS_POINTER))
    if start == _LFS_POINTER:
        raise ModelError(
            f"{path}: a Git LFS pointer, not the file itself",
            hint="git lfs pull, in the repository of the model, fetches the file",
        )


def _find_graph(folder: Path) -> Path:
    for place in (folder, folder / "onnx"):
        graphs = sorted(place.glob("*.onnx"))
        if (usual := place / "model.onnx") in graphs:
            return usual
        if parts := [graph for graph in graphs if graph.name in (ENCODER, READER)]:
            if len(parts) == 2:
                return place / READER
            if len(graphs) == 1:
                missing = ENCODER if parts[0].name == READER else READER
                raise ModelError(
                    f"{place}: holds {parts[0].name} and no {missing}, the other part of a model",
                    hint="copy it from the source of the model; a graph that is whole is called "
                    f"model.onnx, or named with -m {parts[0]}",
                )
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


def _find_folder_of(name: str, graph: Path) -> Path | None:
    """Find the folder that has a file, or a link of its name."""
    return next((place for place in _folders_of(graph) if os.path.lexists(place / name)), None)


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
    """Raise errors of reading a model's files as `ModelError`."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{error.filename or path}: {error.strerror or error}") from error


class ModelConfig:
    """The values of one of a model's JSON files; a file that is missing has none.

    A value of a wrong type is a `ModelError`: its meaning is unknown.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self._values = values

    @classmethod
    def read(cls, folder: Path | None, name: str) -> "ModelConfig":
        """Read a file of a folder; raises `ModelError` for one that is not a JSON object."""
        if folder is None or not os.path.lexists(folder / name):
            return cls(Path(name), {})
        path = folder / name
        check_file(path)
        with _translate_errors(path):
            content = read_regular_file(path)
        try:
            return cls(path, parse_json_object(content))
        except ValueError as error:
            reason = str(error)
            raise ModelError(
                f"{path}: {reason if reason.startswith('not') else f'not JSON: {reason}'}"
            ) from error

    def text(self, key: str) -> str:
        """A text; empty if there is none."""
        value = self._values.get(key)
        if value is None or isinstance(value, str):
            return value or ""
        raise self.wrong(key, "a text")

    def number(self, key: str) -> float | None:
        """A number; None if there is none."""
        value = self._values.get(key)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(key, "a number")

    def integer(self, key: str) -> int | None:
        """A whole number; None if there is none."""
        value = self._values.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self.wrong(key, "a whole number")

    def wrong(self, key: str, kind: str) -> ModelError:
        """The error of a value that is not of its kind."""
        return ModelError(f"{self.path}: {key} is not {kind}")


def _length(config: ModelConfig, tokenizer_config: ModelConfig, path: Path) -> int:
    """The most tokens of one sequence: the model's positions, or fewer if its tokenizer says so."""
    max_length = tokenizer_config.number("model_max_length")
    lengths = (
        [int(max(max_length, 0))] if max_length is not None and max_length < _UNLIMITED else []
    )
    positions = config.integer("max_position_embeddings")
    if positions is not None:
        offset = config.text("model_type") in _OFFSET_POSITIONS
        lengths.append(positions - (_padding(config) + 1) * offset)
    length = min(lengths, default=DEFAULT_WINDOW_TOKENS)
    if length < LEAST_LENGTH:
        raise ModelError(f"{path}: its configuration says that it takes {length} tokens")
    return length


def _padding(config: ModelConfig) -> int:
    """The id of the padding token: RoBERTa and its kin have 1 where they do not say."""
    padding_id = config.integer("pad_token_id")
    if padding_id is None:
        return int(config.text("model_type") in _OFFSET_POSITIONS)
    if abs(padding_id) > _LARGEST_ID:
        raise config.wrong("pad_token_id", "the id of a token")
    return padding_id
