"""Which files of a repository make a model: a graph of the wanted precision, and its companions.

Of the catalogue's models the graphs are named there. Of others they are known by their names, as
the exporters of sentence-transformers, Optimum and transformers.js give them.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from rerank_cli.errors import ModelError
from rerank_cli.hub.client import Listing, RemoteFile
from rerank_cli.models.catalogue import GraphFile

TOKENIZER = "tokenizer.json"
# What is read here, or tells a person what the files are.
_WITH_IT = (
    TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json",
    "quantize_config.json", "ort_config.json", "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt",
    "NOTICE",
)  # fmt: skip
_SUFFIXES = ("_data", ".data")  # of weights beside a graph, as exporters name them
# What in a graph's name says of its precision, and of the processor that it was made for.
_INT8 = re.compile(r"(?:^|[_.-])(?:quantized|q?u?int8|q8)(?:[_.-]|$)")
_OTHER = re.compile(r"(?:^|[_.-])(?:fp16|bf16|q4|q4f16|bnb4|int4|uint4|O\d|optimized)(?:[_.-]|$)")
_MADE_FOR = {"avx512_vnni": "avx512_vnni", "avx512": "avx512f", "avx2": "avx2", "arm64": "asimddp"}


def graph_among(
    of: Listing, graphs: Sequence[GraphFile], features: Collection[str]
) -> RemoteFile | None:
    """The first of the graphs that is there and suits this processor."""
    fits = (one.file for one in graphs if not one.needs or one.needs in features)
    return next((of.files[file] for file in fits if file in of.files), None)


def graph_by_name(of: Listing, precision: str, features: Collection[str]) -> RemoteFile | None:
    """The graph of a precision whose name says that it suits this processor best."""
    suits = {
        path: _suitability(PurePosixPath(path).stem, precision, features)
        for path in sorted(of.files)
        if path.endswith(".onnx")
    }
    best = max(suits, key=lambda path: (suits[path], -len(path)), default=None)
    return of.files[best] if best is not None and suits[best] >= 0 else None


def graphs_of(of: Listing) -> list[str]:
    """All graphs of a repository."""
    return sorted(path for path in of.files if path.endswith(".onnx"))


def companions(of: Listing, graph: RemoteFile) -> Mapping[str, RemoteFile]:
    """What goes with a graph: its tokenizer and the like, and weights that look like its own.

    Raises `ModelError` where there is no tokenizer.json.
    """
    beside, top = PurePosixPath(graph.path).parent, PurePosixPath()
    found = {}
    for name in _WITH_IT:
        for folder in (beside, top):
            path = str(folder / name)
            if path in of.files:
                found[path] = of.files[path]
                break
    if not any(PurePosixPath(path).name == TOKENIZER for path in found):
        raise ModelError(
            f"{of.repository}: has no {TOKENIZER}",
            hint="its tokenizer has only the slow form; transformers writes a tokenizer.json on "
            "save_pretrained, and -m ./FOLDER takes the folder",
        )
    weights = [path for path in of.files if path in {graph.path + end for end in _SUFFIXES}]
    return found | {path: of.files[path] for path in weights}


def checked(paths: Iterable[str]) -> None:
    """Raise `ModelError` for a path that would lead out of a model's folder."""
    for path in paths:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\\" in path:
            raise ModelError(f"{path!r}: not a path within a repository")


def _suitability(stem: str, precision: str, features: Collection[str]) -> int:
    """How well a graph of this name suits; below 0 not at all."""
    if _OTHER.search(stem):
        return -1
    if not _INT8.search(stem):
        return int(stem == "model") if precision == "fp32" else -1
    if precision != "int8":
        return -1
    for place, (made_for, needs) in enumerate(_MADE_FOR.items()):
        if stem.endswith(made_for):
            # Unsigned weights overflow nowhere, and signed ones only without VNNI.
            return 10 - place if needs in features else -1
    return 3 if "quantized" in stem else 2
