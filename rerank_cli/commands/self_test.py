"""Whether a model is what it should be: its files' hashes, and its scores of known pairs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_cli.models import read
from rerank_cli.models.catalogue import Sample, entries
from rerank_cli.models.folder import CHECKSUMS, SELF_TEST, ModelFolder
from rerank_cli.models.store import MANIFEST, Store, sha256_of
from rerank_cli.runtimes.onnx_file import is_dynamic
from rerank_cli.types import Chunk, Document, Pair, Scorer

# Logits of a float32 graph are those that were published; in int8, and in bfloat16, nearly.
_EXACT, _NEAR = 0.01, 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """What was checked, whether it is well, what was found, and what to do if it is not."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def checks(folder: ModelFolder, scorer: Scorer) -> list[Check]:
    """Check all that can be checked of an open model."""
    return [*_files(folder), *_scores(folder, scorer)]


def _files(folder: ModelFolder) -> Iterator[Check]:
    sums = _hashes(folder)
    if not sums:
        return
    wrong = []
    for path, expected in sums.items():
        try:
            if sha256_of(path) != expected:
                wrong.append(f"{path} has changed")
        except OSError as error:
            wrong.append(f"{path}: {error.strerror}")
    found = "; ".join(wrong) or f"{len(sums)} files are as they were made"
    yield Check("files", not wrong, found, _again(folder))


def _scores(folder: ModelFolder, scorer: Scorer) -> Iterator[Check]:
    samples = _samples(folder)
    if not samples:
        return
    pairs = [
        Pair(one.query, Chunk(Document(one.passage), 0, len(one.passage), one.passage, 0))
        for one in samples
    ]
    values = [float(value or 0.0) for value in scorer.score(pairs).values]
    exact = not is_dynamic(folder.graph) and "bf16" not in getattr(scorer, "run_by", "")
    limit = _EXACT if exact else _NEAR
    away = max(abs(value - one.logit) for value, one in zip(values, samples, strict=True))
    ordered = all(
        (one - other) * (first.logit - second.logit) > 0
        for one, first in zip(values, samples, strict=True)
        for other, second in zip(values, samples, strict=True)
        if first.query == second.query and abs(first.logit - second.logit) > limit
    )
    found = f"{len(samples)} known logits, {away:.4f} away at most (allowed: {limit})"
    if not ordered:
        found += ", and not in their order"
    yield Check("scores", ordered and away <= limit, found, _again(folder))


def _hashes(folder: ModelFolder) -> Mapping[Path, str]:
    """The hashes that a model's files should have, by path."""
    root = folder.graph.parent
    for place in (root, root.parent):
        if (place / MANIFEST).is_file():
            for one in Store.usual().installed():
                if one.folder == place:
                    return {place / name: file.sha256 for name, file in one.manifest.files.items()}
        if (place / CHECKSUMS).is_file():
            lines = (place / CHECKSUMS).read_text(encoding="utf-8").splitlines()
            return {place / name: digest for digest, _, name in (_parts(line) for line in lines)}
    return {}


def _parts(line: str) -> tuple[str, str, str]:
    """A line of `sha256sum`: the hash, two spaces, the name."""
    return line.partition("  ")


def _samples(folder: ModelFolder) -> Sequence[Sample]:
    """Pairs whose logits were published, by the catalogue or beside the model."""
    entry = entries().get(folder.name.partition(":")[0])
    if entry is not None and entry.self_test:
        return entry.self_test
    path = folder.graph.parent / SELF_TEST
    if not path.is_file():
        return ()
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [Sample(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        return ()


def _again(folder: ModelFolder) -> str:
    """How to get a model anew."""
    name = folder.name.partition("@")[0]
    entry = entries().get(name.partition(":")[0])
    if entry is not None and entry.folder:
        return "install rerank-cli again"
    if entry is not None or name.startswith("hf:"):
        return f"rerank models rm {read(name)}, and pull it again"
    return "get its files again from where they came from"
