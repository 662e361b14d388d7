"""Finds the channels of the bi-encoder's activations that would take most of the 8 bits."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertModel

# What the training sets have nothing of, and documents do: marks in it are large in channels that
# words are small in.
UNUSUAL = (
    "## Sowing and planting", "# Title", "### Notes", "- [ ] to do", "| a | b |", "===", "***",
    "```python\ndef f(x):\n    return x ** 2\n```", "{'key': [1, 2]}", '<div class="x">',
    "/usr/local/bin/env", "https://example.com/?q=1&p=2", "$5.00 (10%)", "§ 12", "@user #tag",
    "foo_bar(baz) -> int:",
)  # fmt: skip
POWER = 0.7  # how much of what a channel is larger than the others moves to the factors


def eased(
    encoder: BertModel, rows: Iterable[Sequence[int]], power: float = POWER
) -> dict[str, np.ndarray]:
    """For each product, what to divide the channels of its input by, from some texts' token ids.

    Channels that are no larger than most are left as they are.
    """
    most: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_pre_hook(_watch(most, name)) for name, module in _products(encoder)
    ]
    with torch.no_grad():
        for row in rows:
            encoder(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return {
        name: (largest / largest.median()).clamp(min=1).pow(power).numpy()
        for name, largest in most.items()
    }


def _products(encoder: BertModel) -> Iterable[tuple[str, nn.Module]]:
    for place, layer in enumerate(encoder.encoder.layer):
        at = f"encoder.layer.{place}."
        yield f"{at}qkv", layer.attention.self.query
        yield f"{at}intermediate.dense", layer.intermediate.dense
        yield f"{at}output.dense", layer.output.dense


def _watch(most: dict[str, Tensor], name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def see(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        largest = inputs[0].detach().float().abs().amax((0, 1))
        most[name] = torch.maximum(most[name], largest) if name in most else largest

    return see
