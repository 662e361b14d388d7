"""Makes `static.npz`: a vector for each token of mini's vocabulary, for the first stage.

    python scripts/train/static.py DATA OUT      DATA has the training sets, OUT gets static.npz

As model2vec does it: each token goes alone through all-MiniLM-L6-v2, between [CLS] and [SEP]; its
vector is the mean of the last states, of which the principal components are kept. A word's vector
is the sum of its tokens' vectors, and words count by the lengths of theirs. So each has a weight
besides, as rare tokens say more: the inverse document frequency among the passages of the training
sets. Vectors are kept in int8, each with its scale. Nothing is trained.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from encoder import Tower, minilm
from texts import Corpus, read

COMPONENTS = 128
BATCH_TOKENS = 256
SETS = ("nq", "squad", "bioasq")
_LARGEST = 127  # of int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    options = parser.parse_args()
    write_table(minilm(), [read(options.data, name) for name in options.sets], options.out)


def write_table(tower: Tower, corpora: Sequence[Corpus], out: Path) -> None:
    """Write static.npz into a folder, with the weights that the passages of corpora give."""
    usual = usual_tokens(tower)
    vectors = reduce_to_components(token_vectors(tower), usual)
    vectors *= weights(tower, corpora)[:, None]
    vectors[~usual] = 0
    write(vectors, out / "static.npz")


def token_vectors(tower: Tower) -> np.ndarray:
    """The mean of the last states of each token alone: (tokens, hidden)."""
    bert = tower.bert()
    start, end = tower.specials
    count = tower.tokenizer.get_vocab_size()
    rows = torch.tensor([[start, token, end] for token in range(count)])
    with torch.no_grad():
        parts = [bert(input_ids=part).last_hidden_state for part in rows.split(BATCH_TOKENS)]
        return np.concatenate([states.mean(1).numpy() for states in parts])


def usual_tokens(tower: Tower) -> np.ndarray:
    """Which tokens stand for text: not [CLS], [unused7] and the like."""
    vocabulary = sorted(tower.tokenizer.get_vocab().items(), key=itemgetter(1))
    return np.array([re.fullmatch(r"\[\w+\]", name) is None for name, _ in vocabulary])


def reduce_to_components(vectors: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The first principal components of the usual tokens' vectors."""
    centred = vectors - vectors[usual].mean(0)
    _, axes = np.linalg.eigh(centred[usual].T @ centred[usual])
    reduced: np.ndarray = centred @ axes[:, ::-1][:, :COMPONENTS]
    return reduced


def weights(tower: Tower, corpora: Sequence[Corpus]) -> np.ndarray:
    """The inverse document frequency of each token among the passages."""
    passages = [passage for corpus in corpora for passage in corpus.passages]
    texts = [f"{passage.title}\n{passage.text}" for passage in passages]
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 1000):
        encoded = tower.tokenizer.encode_batch_fast(
            texts[start : start + 1000], add_special_tokens=False
        )
        for each in encoded:
            counts.update(set(each.ids))
    total = len(texts)
    return np.array(
        [
            math.log(1 + (total - counts[place] + 0.5) / (counts[place] + 0.5))
            for place in range(tower.tokenizer.get_vocab_size())
        ]
    )


def write(vectors: np.ndarray, path: Path) -> None:
    """Write vectors in int8, with the scale of each."""
    scales = np.maximum(np.abs(vectors).max(1) / _LARGEST, 1e-6).astype(np.float16)
    rounded = np.rint(vectors / scales.astype(np.float32)[:, None])
    np.savez(path, vectors=np.clip(rounded, -_LARGEST, _LARGEST).astype(np.int8), scales=scales)


if __name__ == "__main__":
    main()
