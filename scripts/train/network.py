"""The network of `mini`: a bi-encoder's towers, and a reader that compares their states.

Query and passage go through the same layers, and neither sees the other there. On top, the query's
tokens read the passage's tokens: which words are in the passage, which meanings are, and, by two
blocks of cross-attention, which words stand beside them. The logit is the sum of four parts: the
cosine of the whole texts, the shared words, the judgement after reading, and the best cosine of
each query token with a token of the passage (late interaction: Khattab and Zaharia 2020).

The reader is that of `mini@2`, whose weights are in `reader.npz` (Apache-2.0; models/mini/README.md
names their training data). It is not trained here. Late interaction is new. It uses a projection
that comes from the states of tokens alone: the principal components, each divided by the fourth
root of its variance. The square root would make all components equal; without a root, the common
part of most tokens would weigh most.

The states of a text (`Text`) do not depend on the other text, so that those of a passage can be
kept.

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
USUAL_TOKENS = 128.0  # passage tokens, to which lengths are related
ABSENT_BIAS = -1e4  # of absent tokens
LEAST_VARIANCE = 0.05  # of a principal component, relative to the mean of all variances
LIKENESS = 14.0  # the weight of the best cosines of tokens, by leaving one set out of seven
WEIGHTS_PATH = Path(__file__).with_name("reader.npz")  # the weights of mini@2's reader


class Layers:
    """The states of a tower for some texts.

    `mask` is 1 for each token, and `words` is 1 for each token that is not special (texts, tokens).
    `embedded` are the word embeddings, and `levels` the states of some layers up to the last one
    (texts, tokens, hidden).
    """

    def __init__(
        self, ids: Tensor, mask: Tensor, words: Tensor, embedded: Tensor, levels: Sequence[Tensor]
    ) -> None:
        self.ids, self.mask, self.words = ids, mask, words
        self.embedded, self.levels = embedded, levels

    def mean(self) -> Tensor:
        """The mean of the last states (texts, hidden)."""
        token_mask = self.mask.unsqueeze(-1)
        return (self.levels[-1] * token_mask).sum(-2) / token_mask.sum(-2)


class Text:
    """The states of texts before they are compared.

    `pooled` are unit vectors of whole texts (texts, hidden). The network names the states of tokens
    (texts, tokens, ...): `deep` are unit vectors of the last layer, `shallow` of the word
    embeddings, and `like` of the projection for late interaction; `memory` is the input of each
    block's attention.
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

    def as_query(self, *, is_paired: bool = False) -> "Text":
        """The texts as queries: each for one passage of its own, or for all passages."""
        axis = 1 if is_paired else 0
        return Text(**{name: value.unsqueeze(axis) for name, value in vars(self).items()})


class Reader(nn.Module):
    """The network on top of the towers: from the states of both texts to logits."""

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
        """Load the weights of mini@2's reader, and make the projection from `states` of tokens.

        These are unit vectors of the towers' last layer (tokens, hidden).
        """
        with np.load(WEIGHTS_PATH) as arrays:
            weights = {name: torch.from_numpy(arrays[name]).float() for name in arrays}
        missing_names, unknown_names = self.load_state_dict(weights, strict=False)
        if unknown_names or set(missing_names) != {"project.weight", "project.bias", "by_likeness"}:
            raise ValueError(
                f"{WEIGHTS_PATH}: not the weights of this reader: {unknown_names or missing_names}"
            )
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
        """The states of texts before they are compared."""
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
        presence = passage.words[:, None, None, :]
        same = (query.ids.unsqueeze(-1) == passage.ids[:, None, None, :]).float() * presence
        shallow, deep = similar(query.shallow, passage.shallow), similar(query.deep, passage.deep)

        weight = functional.softplus(self.weight(query.ids).squeeze(-1)) * query.words
        count = same.sum(-1)
        length = (passage.words.sum(-1) / USUAL_TOKENS)[:, None, None]
        least, slope = functional.softplus(self.saturation)
        share = count / (count + least + slope * length + 0.05)
        neighbours = (same[..., :-1, :-1] * same[..., 1:, 1:]).amax(-1)
        after, before = functional.pad(neighbours, (0, 1)), functional.pad(neighbours, (1, 0))
        absent = (1 - presence) * ABSENT_BIAS
        # In a passage without words the best cosine of a token is -1, the least one.
        nearest_word, nearest_meaning = (
            (likeness + absent).amax(-1).clamp(min=-1) for likeness in (shallow, deep)
        )

        total = weight.sum(-1) + 0.01
        match_weight = (weight * share).sum(-1)
        phrase_share = (weight * after).sum(-1) / total
        coverage = (weight * nearest_word).sum(-1) / total
        meaning_coverage = (weight * nearest_meaning).sum(-1) / total
        weights = (weight / 5).expand_as(share)
        features = torch.stack([share, after, before, nearest_word, nearest_meaning, weights], -1)

        # The same for every passage, and so computed once.
        query_part = functional.linear(
            torch.cat([query.shallow * 4, query.deep * 4], -1), self.enter.weight[:, :-6]
        )
        x = self.entered(
            query_part + functional.linear(features, self.enter.weight[:, -6:], self.enter.bias)
        )
        own_bias, their_bias = (1 - query.mask) * ABSENT_BIAS, (1 - passage.mask) * ABSENT_BIAS
        memories = passage.memory.chunk(BLOCKS, -1)
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, memory, own_bias, their_bias, same, shallow)
        attention = (self.attend(x).squeeze(-1) + own_bias).softmax(-1)
        reading = (attention.unsqueeze(-2) @ x).squeeze(-2)
        mass = (total / 20).expand_as(match_weight)
        extent = length.squeeze(-1).expand_as(match_weight)
        summary = torch.stack(
            [
                cosine, match_weight / 10, match_weight / total, phrase_share, coverage,
                meaning_coverage, mass, extent,
            ],
            -1,
        )  # fmt: skip
        judgement = self.judge(torch.cat([reading, summary], -1)).squeeze(-1)
        best = (similar(query.like, passage.like) + absent).amax(-1).clamp(min=-1)
        mean_likeness = (weight * best).sum(-1) / total
        by_words, by_phrases = self.by_words
        nearness = self.by_cosine * cosine + self.by_likeness * mean_likeness
        return nearness + by_words * match_weight + by_phrases * phrase_share + judgement


class Block(nn.Module):
    """Attention of the query's tokens to the passage, then to each other, then a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        # The bias of each head towards the same word, and towards a similar one.
        self.looks = nn.Parameter(torch.zeros(2, HEADS, 1, 1))
        self.own, self.own_output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        own_bias: Tensor,
        their_bias: Tensor,
        same: Tensor,
        likeness: Tensor,
    ) -> Tensor:
        """`memory` has the keys and the values of the passage's tokens, side by side."""
        same, likeness = same.flatten(1, 2).unsqueeze(1), likeness.flatten(1, 2).unsqueeze(1)
        bias = self.looks[0] * same + self.looks[1] * likeness + their_bias[:, None, None, :]
        # The tokens of all queries read a passage as if they were those of one query.
        key, value = memory.chunk(2, -1)
        reading = _attend(_heads(self.query(x).flatten(1, 2)), _heads(key), _heads(value), bias)
        x = self.norms[0](x + self.output(reading.unflatten(1, x.shape[1:3])))
        query, key, value = map(_heads, self.own(x).chunk(3, -1))
        x = self.norms[1](
            x + self.own_output(_attend(query, key, value, own_bias[..., None, None, :]))
        )
        return self.norms[2](x + self.outer(functional.gelu(self.inner(x))))


def _heads(x: Tensor) -> Tensor:
    """(..., tokens, width) to (..., heads, tokens, width of a head)."""
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(-2, -3)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    scores = query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias
    return (scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2)


def similar(query: Tensor, passage: Tensor) -> Tensor:
    """Inner products (passages, queries, query tokens, passage tokens).

    They are computed in float32: the best products of e5's tokens differ in the second digit.
    """
    with torch.autocast(query.device.type, enabled=False):
        products = query.flatten(1, 2) @ passage.transpose(-1, -2)
    return products.unflatten(1, query.shape[1:3])
