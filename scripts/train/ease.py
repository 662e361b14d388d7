"""Finds the channels of the bi-encoder's activations that would take most of the 8 bits."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertModel

# Texts with marks that documents have and the training sets do not. These marks are large in
# channels in which words are small.
UNUSUAL_TEXTS = (
    "## Sowing and planting", "# Title", "### Notes", "- [ ] to do", "| a | b |", "===", "***",
    "```python\ndef f(x):\n    return x ** 2\n```", "{'key': [1, 2]}", '<div class="x">',
    "/usr/local/bin/env", "https://example.com/?q=1&p=2", "$5.00 (10%)", "§ 12", "@user #tag",
    "foo_bar(baz) -> int:",
)  # fmt: skip
POWER = 0.7  # the part of a channel's excess over the others that moves to the factors


def channel_divisors(
    encoder: BertModel, rows: Iterable[Sequence[int]], power: float = POWER
) -> dict[str, np.ndarray]:
    """The divisors of the channels of each product's input, from the token ids of some texts.

    Channels that are no larger than most keep their size.
    """
    maxima: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(_watch(maxima, name))
        for name, module in _products(encoder)
    ]
    with torch.no_grad():
        for row in rows:
            encoder(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return {
        name: (largest / largest.median()).clamp(min=1).pow(power).numpy()
        for name, largest in maxima.items()
    }


def _products(encoder: BertModel) -> Iterable[tuple[str, nn.Module]]:
    for place, layer in enumerate(encoder.encoder.layer):
        prefix = f"encoder.layer.{place}."
        yield f"{prefix}qkv", layer.attention.self.query
        yield f"{prefix}intermediate.dense", layer.intermediate.dense
        yield f"{prefix}output.dense", layer.output.dense


def _watch(maxima: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        largest = inputs[0].detach().float().abs().amax((0, 1))
        maxima[name] = torch.maximum(maxima[name], largest) if name in maxima else largest

    return see
