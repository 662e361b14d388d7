"""The network of `multi`: late interaction of a bi-encoder's tokens.

The logit is the sum of three parts: the best cosine of each query token with a token of the passage
(Khattab and Zaharia 2020, ColBERT), in the mean and by weights of words; the cosine of the whole
texts; and the share of query tokens whose neighbours in the query are their neighbours in the
passage too.

States of a bi-encoder's tokens point one way: for multilingual-e5-small their mean has 0.78 of
their length. At first the projection only subtracts that mean (Mu and Viswanath 2018,
All-but-the-Top). The projection and four numbers are all of the network that is trained.
"""

from typing import Any

import torch
from network import ABSENT_BIAS, Layers, Reader, Text, similar
from torch import Tensor, nn
from torch.nn import functional

RATE, NUMBERS_RATE = 3e-4, 5e-2  # of learning: for the projection, and for the weights of parts
LIKENESS = 40.0  # the weight of the best cosines of tokens before training
PHRASES = 1.0  # the weight of the share of the query in phrases before training


class LateInteraction(nn.Module):
    """Compares the tokens of texts; shapes are those of `network`."""

    weights: Tensor
    middle: Tensor
    bias: Tensor

    def __init__(self, weights: Tensor, middle: Tensor, pooled_middle: Tensor) -> None:
        """The network before training multiplies each of two mean cosines by half of LIKENESS.

        `weights` (vocabulary,) are those of tokens. `middle` and `pooled_middle` (hidden,) are the
        means of the unit vectors of tokens and of whole texts.
        """
        super().__init__()
        hidden = len(middle)
        self.widths = {"deep": hidden}
        self.register_buffer("weights", weights.float())
        self.register_buffer("middle", pooled_middle)
        self.register_buffer("bias", torch.zeros(()))
        self.project = nn.Linear(hidden, hidden)
        with torch.no_grad():
            self.project.weight.copy_(torch.eye(hidden))
            self.project.bias.copy_(-middle)
        self.by_tokens = nn.Parameter(torch.tensor([LIKENESS / 2, LIKENESS / 2]))
        self.by_cosine = nn.Parameter(torch.tensor(0.0))
        self.by_phrases = nn.Parameter(torch.tensor(PHRASES))

    def groups(self) -> list[dict[str, Any]]:
        """The parameters for an optimiser."""
        numbers = [self.by_tokens, self.by_cosine, self.by_phrases]
        return [
            {"params": list(self.project.parameters()), "weight_decay": 0.0, "rate": RATE},
            {"params": numbers, "weight_decay": 0.0, "rate": NUMBERS_RATE},
        ]

    def fold(self, factor: float, bias: float) -> None:
        """Put a factor and a bias of the logit into the numbers."""
        with torch.no_grad():
            for number in (self.by_tokens, self.by_cosine, self.by_phrases):
                number *= factor
            self.bias.mul_(factor).add_(bias)

    def text(self, layers: Layers) -> Text:
        """The states of texts before they are compared."""
        states = functional.normalize(layers.levels[-1], dim=-1)
        pooled = functional.normalize(layers.mean(), dim=-1)
        with torch.autocast(states.device.type, enabled=False):
            deep = functional.normalize(self.project(states), dim=-1)
        return Text(
            ids=layers.ids,
            mask=layers.mask,
            words=layers.words,
            pooled=functional.normalize(pooled - self.middle, dim=-1),
            deep=deep,
        )

    def forward(self, query: Text, passage: Text) -> Tensor:
        cosine = (query.pooled * passage.pooled.unsqueeze(1)).sum(-1)
        presence = passage.words[:, None, None, :]
        same = (query.ids.unsqueeze(-1) == passage.ids[:, None, None, :]).float() * presence
        # In a passage without words the best cosine of a token is -1, the least one.
        nearest = (
            (similar(query.deep, passage.deep) + (1 - presence) * ABSENT_BIAS)
            .amax(-1)
            .clamp(min=-1)
        )
        weight = self.weights[query.ids] * query.words
        total = weight.sum(-1) + 0.01
        mean_likeness = (query.words * nearest).sum(-1) / (query.words.sum(-1) + 0.01)
        weighted_likeness = (weight * nearest).sum(-1) / total
        neighbours = (same[..., :-1, :-1] * same[..., 1:, 1:]).amax(-1)
        phrase_share = (weight[..., :-1] * neighbours).sum(-1) / total
        nearness = self.by_tokens[0] * mean_likeness + self.by_tokens[1] * weighted_likeness
        nearness = nearness + self.by_cosine * cosine
        logits: Tensor = nearness + self.by_phrases * phrase_share + self.bias
        return logits


Network = Reader | LateInteraction
