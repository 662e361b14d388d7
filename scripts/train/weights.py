"""What is counted over training texts before anything is learned."""

from collections import Counter
from collections.abc import Sequence

import torch
from encoder import FrozenTower, Tower
from texts import Corpus
from torch.nn import functional

FACTOR, LEAST = 0.5, 0.05
SHOWN_TOKENS, TOGETHER = 128, 16  # of a text, and texts at once


def weights_of(tower: Tower, corpora: Sequence[Corpus]) -> torch.Tensor:
    """Half the inverse document frequency of each token (vocabulary,), as BM25 has it."""
    passages = [
        f"{passage.title} {passage.text}"
        for corpus in corpora
        for place, passage in enumerate(corpus.passages)
        if place not in corpus.barred
    ]
    having: Counter[int] = Counter()
    for row in tower.passage_rows(passages, 100_000):
        having.update(set(row))
    size = tower.tokenizer.get_vocab_size()
    frequency = torch.tensor([float(having[token]) for token in range(size)])
    inverse = torch.log1p((len(passages) - frequency + 0.5) / (frequency + 0.5))
    return (FACTOR * inverse).clamp(min=LEAST)


def states_of(tower: FrozenTower, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of the last layer: of tokens (tokens, hidden), and of texts (texts, hidden)."""
    tokens, wholes = [], []
    for start in range(0, len(texts), TOGETHER):
        rows = tower.tower.passage_rows(texts[start : start + TOGETHER], SHOWN_TOKENS)
        layers = tower.layers(rows)
        tokens.append(functional.normalize(layers.levels[-1][layers.words.bool()], dim=-1))
        wholes.append(functional.normalize(layers.mean(), dim=-1))
    return torch.cat(tokens).cpu(), torch.cat(wholes).cpu()
