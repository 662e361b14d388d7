"""The network of `mini`: a bi-encoder's towers, and a reader that compares them token by token.

Query and passage go through the same six layers of all-MiniLM-L6-v2, and neither sees the other
there: what the two towers know of each other is their cosine. On top of it, the query's tokens
read the passage's: which of them are there word for word, which are there in meaning, and, by two
blocks of cross-attention, what stands beside them. The logit is the cosine, the shared words and
what was read, added up. As the towers stay as they were trained, on over a billion pairs, so does
what they know.

Passages are (passages, tokens, ...). Queries are (1, queries, tokens, ...) where each is compared
with every passage, and (passages, 1, tokens, ...) where each passage has one of its own; the
logits are (passages, queries).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 192
HEADS = 6
BLOCKS = 2
INNER = 256
LEVELS = (3, 6)  # the towers' layers whose states are read
USUAL = 128.0  # passage tokens, to which lengths are related
FAR = -1e4  # of what is not there


class Side:
    """One side of pairs: token ids, masks and states.

    `mask` is 1 where there is a token and `words` where it is no special one; `shallow` and `deep`
    are unit vectors of the word embeddings and of the last layer, `pooled` the unit mean of the
    last; `states` are those of LEVELS, side by side.
    """

    def __init__(
        self, ids: Tensor, mask: Tensor, words: Tensor, embedded: Tensor, levels: list[Tensor]
    ) -> None:
        last, filled = levels[-1], mask.unsqueeze(-1)
        self.ids, self.mask, self.words = ids, mask, words
        self.shallow = functional.normalize(embedded, dim=-1)
        self.deep = functional.normalize(last, dim=-1)
        self.pooled = functional.normalize((last * filled).sum(-2) / filled.sum(-2), dim=-1)
        self.states = torch.cat(levels, -1)

    def asked(self, *, paired: bool = False) -> "Side":
        """The side of queries, with an axis for the others: each with one passage, or with all."""
        axis = 1 if paired else 0
        side = object.__new__(Side)
        for name, value in vars(self).items():
            setattr(side, name, value.unsqueeze(axis))
        return side


class Reader(nn.Module):
    """What is trained: from the states of both towers to logits."""

    def __init__(self, hidden: int, weights: Tensor) -> None:
        """`weights` (vocabulary,) say what a shared token counts for, to begin with."""
        super().__init__()
        self.weight = nn.Embedding(len(weights), 1)
        self.weight.weight.data = torch.log(torch.expm1(weights.float())).unsqueeze(1)
        self.saturation = nn.Parameter(torch.tensor([0.0, 0.0]))
        self.enter = nn.Linear(hidden * 2 + 6, WIDTH)
        self.entered = nn.LayerNorm(WIDTH)
        self.read = nn.LayerNorm(hidden * len(LEVELS), elementwise_affine=False)
        self.blocks = nn.ModuleList(Block(hidden * len(LEVELS)) for _ in range(BLOCKS))
        self.attend = nn.Linear(WIDTH, 1)
        self.judge = nn.Sequential(nn.Linear(WIDTH + 8, 64), nn.GELU(), nn.Linear(64, 1))
        self.linear = nn.Parameter(torch.tensor([20.0, 0.4, 1.0]))
        nn.init.zeros_(self.judge[2].weight)
        nn.init.zeros_(self.judge[2].bias)

    def forward(self, query: Side, passage: Side) -> Tensor:
        cosine = (query.pooled @ passage.pooled.unsqueeze(-1)).squeeze(-1)
        there = passage.words[:, None, None, :]
        same = (query.ids.unsqueeze(-1) == passage.ids[:, None, None, :]).float() * there
        shallow, deep = _similar(query.shallow, passage.shallow), _similar(query.deep, passage.deep)

        weight = functional.softplus(self.weight(query.ids).squeeze(-1)) * query.words
        count = same.sum(-1)
        length = (passage.words.sum(-1) / USUAL)[:, None, None]
        least, slope = functional.softplus(self.saturation)
        share = count / (count + least + slope * length + 0.05)
        neighbours = (same[..., :-1, :-1] * same[..., 1:, 1:]).amax(-1)
        after, before = functional.pad(neighbours, (0, 1)), functional.pad(neighbours, (1, 0))
        absent = (1 - there) * FAR
        nearest, meant = (shallow + absent).amax(-1), (deep + absent).amax(-1)

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
        states = self.read(passage.states)
        own, theirs = (1 - query.mask) * FAR, (1 - passage.mask) * FAR
        for block in self.blocks:
            x = block(x, states, own, theirs, same, shallow)
        attention = (self.attend(x).squeeze(-1) + own).softmax(-1)
        seen = (attention.unsqueeze(-2) @ x).squeeze(-2)
        mass = (total / 20).expand_as(matched)
        extent = length.squeeze(-1).expand_as(matched)
        summary = [
            cosine, matched / 10, matched / total, phrased, covered, understood, mass, extent,
        ]  # fmt: skip
        added = self.judge(torch.cat([seen, torch.stack(summary, -1)], -1)).squeeze(-1)
        by_cosine, by_words, by_phrases = self.linear
        return by_cosine * cosine + by_words * matched + by_phrases * phrased + added


class Block(nn.Module):
    """The query's tokens read the passage's, then each other's, then think."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.ask, self.told = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key, self.value = nn.Linear(states, WIDTH), nn.Linear(states, WIDTH)
        # Half of the heads begin by looking where the same word, or a like one, stands.
        looks = torch.zeros(2, HEADS, 1, 1)
        looks[0, : HEADS // 2], looks[1, : HEADS // 2] = 2.0, 4.0
        self.looks = nn.Parameter(looks)
        self.among, self.between = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))

    def forward(
        self, x: Tensor, states: Tensor, own: Tensor, theirs: Tensor, same: Tensor, near: Tensor
    ) -> Tensor:
        same, near = same.flatten(1, 2).unsqueeze(1), near.flatten(1, 2).unsqueeze(1)
        bias = self.looks[0] * same + self.looks[1] * near + theirs[:, None, None, :]
        # All queries' tokens read a passage as if they were one's.
        asked, key, value = self.ask(x).flatten(1, 2), self.key(states), self.value(states)
        heard = _attended(_heads(asked), _heads(key), _heads(value), bias)
        x = self.norms[0](x + self.told(heard.unflatten(1, x.shape[1:3])))
        asked, key, value = map(_heads, self.among(x).chunk(3, -1))
        x = self.norms[1](x + self.between(_attended(asked, key, value, own[..., None, None, :])))
        return self.norms[2](x + self.outer(functional.gelu(self.inner(x))))


def _heads(x: Tensor) -> Tensor:
    """(..., tokens, width) to (..., heads, tokens, width of a head)."""
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(-2, -3)


def _attended(asked: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    scores = asked @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5 + bias
    return (scores.softmax(-1) @ value).transpose(-2, -3).flatten(-2)


def _similar(query: Tensor, passage: Tensor) -> Tensor:
    """Inner products (passages, queries, query tokens, passage tokens)."""
    products = query.flatten(1, 2) @ passage.transpose(-1, -2)
    return products.unflatten(1, query.shape[1:3])
