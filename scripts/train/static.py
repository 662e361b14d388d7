"""Makes `static.npz`: a vector for each token of mini's vocabulary, for the first stage.

    python scripts/train/static.py DATA OUT      DATA has the training sets, OUT gets static.npz

The vector of a text is the sum of its tokens' vectors. It is compared with the query's vector by
all-MiniLM-L6-v2. So the vectors begin as those of model2vec: each token goes alone through the
network, between [CLS] and [SEP], and its vector is the mean of the last states. The principal
components of these are kept, except the first one, which is about the same in all. Each vector is
multiplied by the inverse document frequency of its token among the passages of the training sets,
because rare tokens say more. Then the vectors are trained, once over sentences and passages of
these sets: the sum of a text's vectors should have the direction of the network's vector of the
whole text.

Vectors are kept in int8, each with its scale, and the projection on the components beside them.
"""

import argparse
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from encoder import FrozenTower, Int8Tower, Tower, minilm
from texts import Corpus, read, sentences
from torch import nn
from torch.nn import functional

COMPONENTS = 124  # as many as fit into 4 MB
BATCH_TOKENS = 256
SETS = ("nq", "squad", "bioasq")
SENTENCES, PASSAGES = 60_000, 6_000  # for training
MAX_TOKENS = 128  # of each
BATCH_TEXTS = 512
RATE = 0.003  # of learning, which falls to 0
SEED = 0
_LARGEST = 127  # of int8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    options = parser.parse_args()
    corpora = [read(options.data, name) for name in options.sets]
    with TemporaryDirectory() as folder:
        tower = Int8Tower(minilm(), [], Path(folder) / "tower.onnx")
        write_table(tower, corpora, options.out)


def write_table(tower: FrozenTower, corpora: Sequence[Corpus], out: Path) -> None:
    """Write static.npz into a folder."""
    is_usual = usual_tokens(tower.tower)
    single_vectors = token_vectors(tower.tower)
    projection = find_components(single_vectors, is_usual)
    vectors = (single_vectors - single_vectors[is_usual].mean(0)) @ projection
    vectors *= weights(tower.tower, corpora)[:, None]
    vectors = train(vectors, projection, tower, corpora)
    vectors[~is_usual] = 0
    write(vectors, projection, out / "static.npz")


def train(
    vectors: np.ndarray, projection: np.ndarray, tower: FrozenTower, corpora: Sequence[Corpus]
) -> np.ndarray:
    """Train vectors, so that their sums have the directions of the network's vectors of texts."""
    rows = tower.tower.passage_rows(texts_of(corpora), MAX_TOKENS)
    targets = functional.normalize(torch.from_numpy(tower.embed(rows) @ projection).float(), dim=-1)
    tokens = [torch.tensor(row[1:-1]) for row in rows]  # without [CLS] and [SEP]
    table = torch.from_numpy(vectors).float()
    length = table.norm(dim=-1).mean()
    bags = nn.EmbeddingBag.from_pretrained(table / length, freeze=False, mode="sum")
    optimiser = torch.optim.Adam(bags.parameters(), lr=RATE)
    steps = len(rows) // BATCH_TEXTS
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SEED))
    for step, places in enumerate(order[: steps * BATCH_TEXTS].view(steps, BATCH_TEXTS).tolist()):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / steps)
        batch = [tokens[place] for place in places]
        starts = torch.tensor([0, *map(len, batch[:-1])]).cumsum(0)
        sums = functional.normalize(bags(torch.cat(batch), starts), dim=-1)
        loss = (1 - (sums * targets[places]).sum(-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    result: np.ndarray = (bags.weight.detach() * length).numpy()
    return result


def texts_of(corpora: Sequence[Corpus]) -> list[str]:
    """The texts for training, drawn by a seed: sentences and passages, no questions."""
    draw = random.Random(SEED)
    passages = [passage.text for corpus in corpora for passage in corpus.passages]
    parts = [part for passage in passages for part in sentences(passage)]
    sample = draw.sample(parts, min(SENTENCES, len(parts)))
    return sample + draw.sample(passages, min(PASSAGES, len(passages)))


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


def find_components(vectors: np.ndarray, is_usual: np.ndarray) -> np.ndarray:
    """A projection on the principal components of the usual tokens' vectors (hidden, components).

    The first component is left out (Mu and Viswanath 2018, "All-but-the-Top").
    """
    deviations = vectors[is_usual] - vectors[is_usual].mean(0)
    _, axes = np.linalg.eigh(deviations.T @ deviations)
    projection: np.ndarray = axes[:, ::-1][:, 1 : COMPONENTS + 1]
    return projection


def weights(tower: Tower, corpora: Sequence[Corpus]) -> np.ndarray:
    """The inverse document frequency of each token among the passages."""
    passages = [passage for corpus in corpora for passage in corpus.passages]
    texts = [f"{passage.title}\n{passage.text}" for passage in passages]
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 1000):
        encodings = tower.tokenizer.encode_batch_fast(
            texts[start : start + 1000], add_special_tokens=False
        )
        for encoding in encodings:
            counts.update(set(encoding.ids))
    total = len(texts)
    return np.array(
        [
            math.log(1 + (total - counts[place] + 0.5) / (counts[place] + 0.5))
            for place in range(tower.tokenizer.get_vocab_size())
        ]
    )


def write(vectors: np.ndarray, projection: np.ndarray, path: Path) -> None:
    """Write vectors in int8, with the scale of each, and the projection."""
    scales = np.maximum(np.abs(vectors).max(1) / _LARGEST, 1e-6).astype(np.float16)
    integers = np.rint(vectors / scales.astype(np.float32)[:, None])
    levels = np.clip(integers, -_LARGEST, _LARGEST).astype(np.int8)
    np.savez(path, vectors=levels, scales=scales, projection=projection.astype(np.float16))


if __name__ == "__main__":
    main()
