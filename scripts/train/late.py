"""The network of `multi`: late interaction of a bi-encoder's tokens.

The logit is how near each token of the query has one in the passage (Khattab and Zaharia 2020,
ColBERT), in the mean and by weights of words, how near the whole texts are, and which of the
query's tokens stand beside each other in the passage too.

States of a bi-encoder's tokens point one way: those of multilingual-e5-small have a mean of 0.78
of their length. The projection begins with taking that mean away (Mu and Viswanath 2018,
All-but-the-Top), and is all of the network that is trained, beside four numbers.
"""

from typing import Any

import torch
from network import FAR, Layers, Reader, Text, similar
from torch import Tensor, nn
from torch.nn import functional

RATE, NUMBERS_RATE = 3e-4, 5e-2  # of learning: the projection, and what parts count for
LIKENESS = 40.0  # what the best cosines of tokens count for before that is trained
PHRASES = 1.0  # what the share of the query in phrases counts for before it is trained


class LateInteraction(nn.Module):
    """Compares the tokens of texts; shapes are those of `network`."""

    weights: Tensor
    middle: Tensor
    bias: Tensor

    def __init__(self, weights: Tensor, middle: Tensor, pooled_middle: Tensor) -> None:
        """What is not trained yet multiplies each of two mean cosines by half of LIKENESS.

        `weights` (vocabulary,) say what a token counts for. `middle` and `pooled_middle` (hidden,)
        are the means of the unit vectors of tokens and of whole texts.
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
        """What is known of texts before they are compared."""
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
        there = passage.words[:, None, None, :]
        same = (query.ids.unsqueeze(-1) == passage.ids[:, None, None, :]).float() * there
        # A passage without words has nothing like them, and no cosine is below -1.
        nearest = (similar(query.deep, passage.deep) + (1 - there) * FAR).amax(-1).clamp(min=-1)
        weight = self.weights[query.ids] * query.words
        total = weight.sum(-1) + 0.01
        alike = (query.words * nearest).sum(-1) / (query.words.sum(-1) + 0.01)
        understood = (weight * nearest).sum(-1) / total
        neighbours = (same[..., :-1, :-1] * same[..., 1:, 1:]).amax(-1)
        phrased = (weight[..., :-1] * neighbours).sum(-1) / total
        near = self.by_tokens[0] * alike + self.by_tokens[1] * understood
        near = near + self.by_cosine * cosine
        logits: Tensor = near + self.by_phrases * phrased + self.bias
        return logits


Network = Reader | LateInteraction
