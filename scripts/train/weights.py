"""What a token counts for when query and passage share it, before anything is learned."""

from collections import Counter

import torch
from encoder import Tower
from texts import Corpus

FACTOR, LEAST = 0.5, 0.05


def weights_of(tower: Tower, corpora: list[Corpus]) -> torch.Tensor:
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
