"""The network of `mini`: a bi-encoder's towers, and a reader that compares what they make.

Query and passage go through the same layers, and neither sees the other there. On top, the query's
tokens read the passage's: which of them are there word for word, which are there in meaning, and,
by two blocks of cross-attention, what stands beside them. The logit is the sum of the cosines of
whole texts, of the shared words, of what was read, and of how near each token of the query has one
in the passage (late interaction: Khattab and Zaharia 2020).

The reader is that of `mini@2`, whose weights are in `reader.npz` (Apache-2.0; models/mini/README.md
says what they were trained on). Nothing is trained here. What is new is late interaction, over a
projection of the tokens that their states alone show: the principal components, each divided by the
fourth root of its variance. The square root would make all of them equal; without, what most tokens
have in common would weigh most.

What is made of a text does not depend on the other one (`Text`), so that a passage's can be kept.

Texts are (texts, tokens, ...). A query is compared with every passage: (1, queries, tokens, ...)
with (passages, tokens, ...); or each passage has a query of its own: (passages, 1, tokens, ...).
The logits are (passages, queries).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 192
HEADS = 6
BLOCKS = 2
INNER = 256
USUAL = 128.0  # passage tokens, to which lengths are related
FAR = -1e4  # of what is not there
LEAST_VARIANCE = 0.05  # of a principal component, in means of all
LIKENESS = 14.0  # what the best cosines of tokens count for, by leaving one set out of seven
TRAINED = Path(__file__).with_name("reader.npz")  # the weights of mini@2's reader


class Layers:
    """What a tower makes of texts.

    `mask` is 1 where there is a token and `words` where it is no special one (texts, tokens).
    `embedded` are the word embeddings and `levels` the states of some layers, the last one's last
    (texts, tokens, hidden).
    """

    def __init__(
        self, ids: Tensor, mask: Tensor, words: Tensor, embedded: Tensor, levels: Sequence[Tensor]
    ) -> None:
        self.ids, self.mask, self.words = ids, mask, words
        self.embedded, self.levels = embedded, levels

    def mean(self) -> Tensor:
        """The mean of the last states (texts, hidden)."""
        filled = self.mask.unsqueeze(-1)
        return (self.levels[-1] * filled).sum(-2) / filled.sum(-2)


class Text:
    """All that is known of texts before they are compared.

    `pooled` are unit vectors of the whole (texts, hidden). The states of tokens (texts, tokens,
    ...) are those that the network names: `deep` are unit vectors of the last layer, `shallow` of
    the word embeddings, `like` of what late interaction compares, and `memory` is what each block's
    attention reads.
    """

    shallow: Tensor
    deep: Tensor
    like: Tensor
    memory: Tensor

    def __init__(
        self, ids: Tensor, mask: Tensor, words: Tensor, pooled: Tensor, **states: Tensor
    ) -> None:
        self.ids, self.mask, self.words, self.pooled = ids, mask, words, pooled
        vars(self).update(states)

    def as_query(self, *, paired: bool = False) -> "Text":
        """The texts as queries: each compared with one passage of its own, or with all."""
        axis = 1 if paired else 0
        return Text(**{name: value.unsqueeze(axis) for name, value in vars(self).items()})


class Reader(nn.Module):
    """What stands on top of the towers: from the states of both to logits."""

    def __init__(self, hidden: int, levels: int, tokens: int) -> None:
        """`tokens` is the size of the vocabulary; `begin` gives the weights."""
        super().__init__()
        self.weight = nn.Embedding(tokens, 1)
        self.saturation = nn.Parameter(torch.zeros(2))
        self.enter = nn.Linear(hidden * 2 + 6, WIDTH)
        self.entered = nn.LayerNorm(WIDTH)
        self.read = nn.LayerNorm(hidden * levels, elementwise_affine=False)
        self.remember = nn.Linear(hidden * levels, 2 * BLOCKS * WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.attend = nn.Linear(WIDTH, 1)
        self.judge = nn.Sequential(nn.Linear(WIDTH + 8, 64), nn.GELU(), nn.Linear(64, 1))
        self.project = nn.Linear(hidden, hidden)
        self.by_cosine = nn.Parameter(torch.tensor(0.0))
        self.by_words = nn.Parameter(torch.zeros(2))
        self.by_likeness = nn.Parameter(torch.tensor(0.0))
        self.widths = {
            "shallow": hidden, "deep": hidden, "memory": 2 * BLOCKS * WIDTH, "like": hidden,
        }  # fmt: skip

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Take the weights of mini@2's reader, and a projection that `states` of tokens show.

        These are unit vectors of the towers' last layer (tokens, hidden).
        """
        with np.load(TRAINED) as trained:
            weights = {name: torch.from_numpy(trained[name]).float() for name in trained}
        missing, unknown = self.load_state_dict(weights, strict=False)
        if unknown or set(missing) != {"project.weight", "project.bias", "by_likeness"}:
            raise ValueError(f"{TRAINED}: not the weights of this reader: {unknown or missing}")
        mean = states.mean(0)
        variances, directions = torch.linalg.eigh(torch.cov((states - mean).T))
        variances = variances.clamp(min=LEAST_VARIANCE * variances.mean())
        projection = directions * variances**-0.25
        self.project.weight.copy_(projection.T)
        self.project.bias.copy_(-mean @ projection)
        self.by_likeness.copy_(torch.tensor(LIKENESS))

    def fold(self, factor: float, bias: float) -> None:
        """Put a factor and a bias of the logit into the last layer."""
        last = self.judge[2]
        with torch.no_grad():
            self.by_cosine *= factor
            self.by_likeness *= factor
            self.by_words *= factor
            last.weight *= factor
            last.bias.mul_(factor).add_(bias)

    def text(self, layers: Layers) -> Text:
        """What is known of texts before they are compared."""
        return Text(
            ids=layers.ids,
            mask=layers.mask,
            words=layers.words,
            shallow=functional.normalize(layers.embedded, dim=-1),
            deep=functional.normalize(layers.levels[-1], dim=-1),
            pooled=functional.normalize(layers.mean(), dim=-1),
            like=self._like(layers.levels[-1]),
            memory=self.remember(self.read(torch.cat(list(layers.levels), -1))),
        )

    def _like(self, states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return functional.normalize(self.project(functional.normalize(states, dim=-1)), dim=-1)

    def forward(self, query: Text, passage: Text) -> Tensor:
        cosine = (query.pooled * passage.pooled.unsqueeze(1)).sum(-1)
        there = passage.words[:, None, None, :]
        same = (query.ids.unsqueeze(-1) == passage.ids[:, None, None, :]).float() * there
        shallow, deep = similar(query.shallow, passage.shallow), similar(query.deep, passage.deep)

        weight = functional.softplus(self.weight(query.ids).squeeze(-1)) * query.words
        count = same.sum(-1)
        length = (passage.words.sum(-1) / USUAL)[:, None, None]
        least, slope = functional.softplus(self.saturation)
        share = count / (count + least + slope * length + 0.05)
        neighbours = (same[..., :-1, :-1] * same[..., 1:, 1:]).amax(-1)
        after, before = functional.pad(neighbours, (0, 1)), functional.pad(neighbours, (1, 0))
        absent = (1 - there) * FAR
        # A passage without words has nothing like them, and no cosine is below -1.
        nearest, meant = ((one + absent).amax(-1).clamp(min=-1) for one in (shallow, deep))

        total = weight.sum(-1) + 0.01
        matched = (weight * share).sum(-1)
        phrased = (weight * after).sum(-1) / total
        covered = (weight * nearest).sum(-1) / total
        understood = (weight * meant).sum(-1) / total
        weights = (weight / 5).expand_as(share)
        found = torch.stack([share, after, before, nearest, meant, weights], -1)

        # The same for every passage, and so made once.
        known = functional.linear(
            torch.cat([query.shallow * 4, query.deep * 4], -1), self.enter.weight[:, :-6]
        )
        x = self.entered(
            known + functional.linear(found, self.enter.weight[:, -6:], self.enter.bias)
        )
        own, theirs = (1 - query.mask) * FAR, (1 - passage.mask) * FAR
        memories = passage.memory.chunk(BLOCKS, -1)
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, memory, own, theirs, same, shallow)
        attention = (self.attend(x).squeeze(-1) + own).softmax(-1)
        seen = (attention.unsqueeze(-2) @ x).squeeze(-2)
        mass = (total / 20).expand_as(matched)
        extent = length.squeeze(-1).expand_as(matched)
        summary = torch.stack(
            [
                cosine, matched / 10, matched / total, phrased, covered, understood, mass, extent,
            ],
            -1,
        )  # fmt: skip
        added = self.judge(torch.cat([seen, summary], -1)).squeeze(-1)
        best = (similar(query.like, passage.like) + absent).amax(-1).clamp(min=-1)
        alike = (weight * best).sum(-1) / total
        by_words, by_phrases = self.by_words
        near = self.by_cosine * cosine + self.by_likeness * alike
        return near + by_words * matched + by_phrases * phrased + added


class Block(nn.Module):
    """The query's tokens read the passage's, then each other's, then think."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        # How much each head looks where the same word, or a like one, stands.
        self.looks = nn.Parameter(torch.zeros(2, HEADS, 1, 1))
        self.own, self.own_output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(
        self, x: Tensor, memory: Tensor, own: Tensor, theirs: Tensor, same: Tensor, near: Tensor
    ) -> Tensor:
        """`memory` has the keys and the values of the passage's tokens, side by side."""
        same, near = same.flatten(1, 2).unsqueeze(1), near.flatten(1, 2).unsqueeze(1)
        bias = self.looks[0] * same + self.looks[1] * near + theirs[:, None, None, :]
        # All queries' tokens read a passage as if they were one's.
        key, value = memory.chunk(2, -1)
        read = _attend(_heads(self.query(x).flatten(1, 2)), _heads(key), _heads(value), bias)
        x = self.norms[0](x + self.output(read.unflatten(1, x.shape[1:3])))
        query, key, value = map(_heads, self.own(x).chunk(3, -1))
        x = self.norms[1](x + self.own_output(_attend(query, key, value, own[..., None, None, :])))
        return self.norms[2](x + self.outer(functional.gelu(self.inner(x))))


def _heads(x: Tensor) -> Tensor:
    """(..., tokens, width) to (..., heads, tokens, width of a head)."""
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(-2, -3)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias
    return (scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2)


def similar(query: Tensor, passage: Tensor) -> Tensor:
    """Inner products (passages, queries, query tokens, passage tokens).

    They are made in float32: the best ones of e5's tokens differ in the second digit.
    """
    with torch.autocast(query.device.type, enabled=False):
        products = query.flatten(1, 2) @ passage.transpose(-1, -2)
    return products.unflatten(1, query.shape[1:3])
