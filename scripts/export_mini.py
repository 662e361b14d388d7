"""Export a BERT cross-encoder checkpoint to the int8 ONNX file that ships as `mini`.

    pip install torch transformers onnx onnxruntime
    python scripts/export_mini.py ../shared/models/mini-v0 models/mini

Checkpoint → ONNX → fused for onnxruntime → int8, and a report of what each step moved. With
`--fp32 FOLDER` the fused graph is kept there too, for comparing.

Weights become 7 bits a value, one scale a column (`reduce_range`): on processors without VNNI the
8-bit product instruction adds two products in 16 bits, and full 8-bit weights overflow it.
Embeddings become 8 bits with one scale a row, in plain operators.
"""

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import AutoModelForSequenceClassification, PreTrainedModel

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]
COPIED = ["tokenizer.json", "config.json"]
OPSET = 17


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fp32", type=Path, help="keep the unquantised graph in this folder")
    arguments = parser.parse_args()

    model = AutoModelForSequenceClassification.from_pretrained(
        arguments.checkpoint, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with tempfile.TemporaryDirectory() as folder:
        plain, fused = Path(folder) / "plain.onnx", Path(folder) / "fused.onnx"
        export(model, plain)
        fuse(plain, fused, model)
        write_folder(arguments.out, arguments.checkpoint)
        quantise(fused, arguments.out / "model.onnx")
        if arguments.fp32:
            write_folder(arguments.fp32, arguments.checkpoint)
            shutil.copyfile(fused, arguments.fp32 / "model.onnx")
        report(model, {"fused": fused, "int8": arguments.out / "model.onnx"})
    write_checksums(arguments.out)


def export(model: PreTrainedModel, path: Path) -> None:
    """Write the graph with dynamic batch and sequence axes."""
    row = torch.tensor([[101, 2000, 102, 3000, 3001, 102]])
    axes = {name: {0: "batch", 1: "sequence"} for name in INPUTS}
    torch.onnx.export(
        _Logits(model),
        (row, torch.ones_like(row), torch.zeros_like(row)),
        str(path),
        dynamo=False,  # only this exporter's graph is one that the fusion below recognises
        opset_version=OPSET,
        input_names=INPUTS,
        output_names=["logits"],
        dynamic_axes=axes | {"logits": {0: "batch"}},
    )


class _Logits(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.eval()  # or the exporter would leave its dropout on

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(
            input_ids=ids, attention_mask=mask, token_type_ids=types
        ).logits
        return logits


def fuse(plain: Path, fused: Path, model: PreTrainedModel) -> None:
    """Join attention, GELU and layer norms into onnxruntime's own operators, once and for all."""
    options = FusionOptions("bert")
    options.enable_embed_layer_norm = False  # its quantised form has one scale for all rows
    graph = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=model.config.num_attention_heads,
        hidden_size=model.config.hidden_size,
        optimization_options=options,
        opt_level=0,
    )
    fusions = graph.get_fused_operator_statistics()
    layers = model.config.num_hidden_layers
    if fusions["Attention"] != layers or fusions["BiasGelu"] != layers:
        raise SystemExit(f"the graph was not fused as it should be: {fusions}")
    graph.save_model_to_file(str(fused))


def quantise(fused: Path, path: Path) -> None:
    """Make every matrix product of the layers an int8 one, and the word embeddings int8."""
    nodes = onnx.load(str(fused)).graph.node
    quantize_dynamic(
        str(fused),
        str(path),
        op_types_to_quantize=["MatMul", "Attention"],
        # The pooler and the classifier see one row: nothing is gained by rounding them. The
        # quantiser makes products of them first, under these names.
        nodes_to_exclude=[f"{node.name}_MatMul" for node in nodes if node.op_type == "Gemm"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    graph = onnx.load(str(path))
    quantise_rows(graph.graph, "word_embeddings")
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def quantise_rows(graph: onnx.GraphProto, name: str) -> None:
    """Replace the table that a Gather reads by int8 rows and a scale for each."""
    gather = next(n for n in graph.node if n.op_type == "Gather" and name in n.input[0])
    table = next(i for i in graph.initializer if i.name == gather.input[0])
    rows = numpy_helper.to_array(table)
    scales = np.abs(rows).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1
    levels = np.rint(rows / scales).astype(np.int8)
    graph.initializer.remove(table)
    graph.initializer.extend(
        [
            numpy_helper.from_array(levels, f"{name}.levels"),
            numpy_helper.from_array(scales.astype(np.float32), f"{name}.scales"),
        ]
    )
    ids, out = gather.input[1], gather.output[0]
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    replacement = [
        helper.make_node("Gather", [f"{name}.levels", ids], [f"{name}.row"]),
        helper.make_node("Gather", [f"{name}.scales", ids], [f"{name}.scale"]),
        helper.make_node("Cast", [f"{name}.row"], [f"{name}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}.float", f"{name}.scale"], [out]),
    ]
    for offset, node in enumerate(replacement):
        graph.node.insert(place + offset, node)


def report(model: PreTrainedModel, files: dict[str, Path], pairs: int = 40) -> None:
    """Say how far each file's logits are from PyTorch's on random token ids."""
    draw = np.random.default_rng(0)
    rows = [draw.integers(1000, 30000, (1, draw.integers(12, 160))) for _ in range(pairs)]
    with torch.no_grad():
        exact = [float(_Logits(model)(*map(torch.from_numpy, feed(row)))) for row in rows]
    for name, path in files.items():
        session = onnxruntime.InferenceSession(str(path))
        logits = [
            float(session.run(None, dict(zip(INPUTS, feed(row), strict=True)))[0].item())
            for row in rows
        ]
        moved = np.abs(np.array(logits) - np.array(exact))
        print(
            f"{name:6} {path.stat().st_size / 1e6:6.1f} MB  logits of {pairs} random pairs "
            f"move by {moved.mean():.4f} (at most {moved.max():.4f}), spread {np.std(exact):.2f}"
        )


def feed(row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    types = np.zeros_like(row)
    types[:, 8:] = 1
    return row, np.ones_like(row), types


def write_folder(folder: Path, checkpoint: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(checkpoint / name, folder / name)


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS over what a scorer reads, in the form that `sha256sum -c` checks."""
    sums = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(["model.onnx", *COPIED])
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
