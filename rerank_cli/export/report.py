"""How far a graph's scores are from PyTorch's: in numbers, in samples to check by, in a card."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rerank_cli.export.checkpoint import Checkpoint
from rerank_cli.export.graphs import OPSET
from rerank_cli.models.catalogue import Sample
from rerank_cli.models.folders import CHECKSUMS, SELF_TEST, length_in

_QUERIES = {
    "how do I get a refund": (
        "If you are not happy with what you bought, send it back and we return the full price.",
        "We are closed on public holidays.",
        "Money for returned goods reaches your card about a week later.",
    ),
    "what is panda?": (
        "hi",
        "The giant panda is a bear species endemic to China.",
        "pandas is a library for tables in Python.",
    ),
    "is it safe to eat raw potatoes": (
        "Green potatoes contain solanine, which is poisonous in larger amounts.",
        "Potatoes were brought to Europe in the sixteenth century.",
        "Raw potato is hard to digest, and its bitter parts should be cut out. " * 4,
    ),
}


@dataclass(frozen=True, slots=True)
class Compared:
    """How far scores in ONNX are from PyTorch's, over all sample pairs.

    The largest difference of logits, and Spearman's rank correlation.
    """

    precision: str
    largest: float
    correlation: float


def samples_of(read: Checkpoint, tokenizer: Path) -> list[Sample]:
    """Sample pairs, and PyTorch's logits of them."""
    import torch

    from rerank_cli.scorers.encoding import ModelTokenizer
    from rerank_cli.scorers.prompting import PromptTokenizer
    from rerank_cli.scorers.tensors import logits_of

    plain = ModelTokenizer(tokenizer)
    asking = plain if read.prompt is None else PromptTokenizer(plain, read.prompt, None)
    answers = None if isinstance(asking, ModelTokenizer) else asking.answers()
    template, most, found = asking.template(), length_in(tokenizer.parent), []
    for query, passages in _QUERIES.items():
        for passage in passages:
            asked, shown = asking.query(query), asking.encode(passage).ids
            ids, types = template.ids(asked, shown), template.types(len(asked), len(shown))
            if len(ids) > most:
                continue
            given = {"input_ids": torch.tensor([ids])}
            if read.is_typed:
                given["token_type_ids"] = torch.tensor([types])
            with torch.no_grad():
                output = read.model(**given).logits.double().numpy()
            [logit] = logits_of(output, [(ids, types)], tokenizer, answers)
            found.append(Sample(query, passage, round(logit, 5)))
    return found


def compared(folder: Path, samples: Sequence[Sample]) -> Compared:
    """Score the samples by what was written."""
    from rerank_cli.scorers import open_scorer
    from rerank_cli.types import Chunk, Document, Pair

    scorer = open_scorer(str(folder))
    pairs = [
        Pair(one.query, Chunk(Document(one.passage), 0, len(one.passage), one.passage, 0))
        for one in samples
    ]
    found = [float(value or 0.0) for value in scorer.score(pairs).values]
    wanted = [one.logit for one in samples]
    largest = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
    return Compared(folder.name, largest, _rank_correlation(found, wanted))


def write(
    folder: Path, compared: Compared, samples: Sequence[Sample], name: str, recipe: str
) -> None:
    """Write the samples, the card and the checksums."""
    tests = [asdict(one) for one in samples]
    (folder / SELF_TEST).write_text(json.dumps(tests, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(compared, name, recipe), encoding="utf-8")
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.name}\n")
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: Pearson's correlation of ranks (no two logits of the samples are equal)."""
    one, other = (np.argsort(np.argsort(values)).astype(float) for values in (first, second))
    return float(np.corrcoef(one, other)[0, 1])


def _card(compared: Compared, name: str, recipe: str) -> str:
    from importlib.metadata import version

    used = ", ".join(f"{one} {version(one)}" for one in ("torch", "transformers", "onnx"))
    return (
        f"# {name}, {compared.precision}\n\n"
        f"Made by `rerank models export` ({used}, opset {OPSET}): {recipe}.\n\n"
        f"Against PyTorch in float32, on the pairs of {SELF_TEST}: logits differ by "
        f"{compared.largest:.5f} at most, and Spearman's correlation of their ranks is "
        f"{compared.correlation:.3f}.\n\nThe licence is the original's. `rerank doctor -m` this "
        f"folder scores the pairs again and checks {CHECKSUMS}.\n"
    )
