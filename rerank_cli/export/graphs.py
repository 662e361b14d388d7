"""A checkpoint's graph in ONNX, and the same in int8."""

import tempfile
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from rerank_cli.export.checkpoint import Checkpoint

NAME = "model.onnx"
OPSET = 17
_WEIGHTS = "model.onnx_data"
_MOST_IN_ONE = 1_900_000_000  # bytes: protobuf takes 2 GB


def write(read: Checkpoint, path: Path) -> None:
    """Write a graph in float32, weights beside it where they are too many for one file."""
    import onnx
    import torch

    model = read.model

    class Logits(torch.nn.Module):  # type: ignore[misc]
        """The model's logits, of a causal one after the last token alone."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            more = {"logits_to_keep": 1, "use_cache": False} if read.prompt is not None else {}
            return self.model(**dict(zip(names, values, strict=True)), **more).logits

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if read.is_typed else [])]
    ids = torch.arange(5, 17).unsqueeze(0) % model.config.vocab_size
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    example["token_type_ids"] = torch.zeros_like(ids)
    axes: dict[str, Mapping[int, str]] = {name: {0: "pairs", 1: "tokens"} for name in names}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        first = Path(scratch) / NAME
        _export(
            Logits().eval(),
            tuple(example[name] for name in names),
            str(first),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "pairs"}},
        )
        size = sum(one.stat().st_size for one in Path(scratch).iterdir())
        graph = onnx.load(first)
        if size <= _MOST_IN_ONE:
            onnx.save(graph, path)
        else:
            onnx.save(graph, path, save_as_external_data=True, location=_WEIGHTS)


def _export(*arguments: Any, **options: Any) -> None:
    """Have torch write a graph, without what its tracer says of every branch."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(*arguments, **options)


def quantise(plain: Path, path: Path, features: Collection[str]) -> str:
    """Write a graph in int8, as suits a processor, and say how in words."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Without these two 8-bit products are added in 16 bits, for which weights need a bit less.
    full = bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(features))
    quantize_dynamic(
        plain,
        path,
        per_channel=True,
        reduce_range=not full,
        weight_type=QuantType.QInt8,
        use_external_data_format=False,
        extra_options={"MatMulConstBOnly": True},
    )
    bits = "8 bits, for processors with VNNI or arm64's dot product" if full else "7 of 8 bits"
    return f"int8, weights per channel in {bits}; activations per run, as they come"
