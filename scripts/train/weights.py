"""Statistics of training texts: weights of tokens, and their states in a tower."""

from collections import Counter
from collections.abc import Sequence

import torch
from encoder import FrozenTower, Tower
from texts import Corpus
from torch.nn import functional

FACTOR, LEAST_WEIGHT = 0.5, 0.05
SAMPLE_TOKENS, BATCH_TEXTS = 128, 16  # of a text; and at once


def weights_of(tower: Tower, corpora: Sequence[Corpus]) -> torch.Tensor:
    """Half the inverse document frequency of each token (vocabulary,), as in BM25."""
    passages = [
        f"{passage.title} {passage.text}"
        for corpus in corpora
        for place, passage in enumerate(corpus.passages)
        if place not in corpus.barred_passages
    ]
    text_counts: Counter[int] = Counter()
    for row in tower.passage_rows(passages, 100_000):
        text_counts.update(set(row))
    size = tower.tokenizer.get_vocab_size()
    frequency = torch.tensor([float(text_counts[token]) for token in range(size)])
    inverse = torch.log1p((len(passages) - frequency + 0.5) / (frequency + 0.5))
    return (FACTOR * inverse).clamp(min=LEAST_WEIGHT)


def states_of(tower: FrozenTower, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of the last layer: of tokens (tokens, hidden), and of texts (texts, hidden)."""
    tokens, wholes = [], []
    for start in range(0, len(texts), BATCH_TEXTS):
        rows = tower.tower.passage_rows(texts[start : start + BATCH_TEXTS], SAMPLE_TOKENS)
        layers = tower.layers(rows)
        tokens.append(functional.normalize(layers.levels[-1][layers.words.bool()], dim=-1))
        wholes.append(functional.normalize(layers.mean(), dim=-1))
    return torch.cat(tokens).cpu(), torch.cat(wholes).cpu()
