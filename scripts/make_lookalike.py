"""Make a model of bge-reranker's shape and size with random weights, for measuring what it costs.

    pip install torch transformers onnx onnxruntime onnxscript sentencepiece blingfire
    python scripts/make_lookalike.py build/base
    python scripts/make_lookalike.py build/large --large

The folder is laid out as on a model hub: config, `tokenizer.json`, `model.safetensors`, and in
`onnx/` the graph in float32 (`model.onnx`) and in dynamic int8 (`model_quantized.onnx`), quantised
with onnxruntime's defaults and one scale a column, as published files are. It scores nothing
sensibly. The tokenizer has XLM-RoBERTa's own 250,002 pieces, which blingfire carries, in the order
of their frequency; their scores, which it does not carry, are those of Zipf's law. Its normaliser
is sentencepiece's nmt_nfkc, as there. Texts become about as many tokens as with the real one.
"""

import argparse
import json
import math
import shutil
import struct
import tempfile
from itertools import pairwise
from pathlib import Path

import blingfire
import onnx
import sentencepiece
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

PIECES = 250_002
SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
MASK = "<mask>"
SIZES = {
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
             "intermediate_size": 3072},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
              "intermediate_size": 4096},
}  # fmt: skip
OPSET = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--large", action="store_true", help="24 layers of 1024 in place of 12")
    arguments = parser.parse_args()

    out: Path = arguments.out
    (out / "onnx").mkdir(parents=True, exist_ok=True)
    write_tokenizer(out)
    model = make_model("large" if arguments.large else "base")
    model.save_pretrained(out)
    graph = out / "onnx" / "model.onnx"
    export(model, graph)
    quantize_dynamic(
        str(graph),
        str(out / "onnx" / "model_quantized.onnx"),
        per_channel=True,
        weight_type=QuantType.QInt8,
    )
    for path in sorted(out.rglob("*.*")):
        print(f"{path.stat().st_size / 1e6:8.1f} MB  {path.relative_to(out)}")


def make_model(size: str) -> XLMRobertaForSequenceClassification:
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=PIECES,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        layer_norm_eps=1e-5,
        attn_implementation="eager",
        **SIZES[size],
    )
    return XLMRobertaForSequenceClassification(config).eval()


def export(model: XLMRobertaForSequenceClassification, path: Path) -> None:
    """Write the graph with dynamic axes; weights that no one file holds go beside it."""
    ids = torch.tensor([[0, 200, 2, 2, 300, 301, 2]])
    axes = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "attention_mask")}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain = Path(folder) / "model.onnx"
        torch.onnx.export(
            Logits(model),
            (ids, torch.ones_like(ids)),
            str(plain),
            dynamo=False,  # as the published files were
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes=axes | {"logits": {0: "batch"}},
        )
        if [entry.name for entry in Path(folder).iterdir()] == ["model.onnx"]:
            shutil.move(plain, path)
            return
        onnx.save(onnx.load(plain), path, save_as_external_data=True, location=f"{path.name}_data")


class Logits(torch.nn.Module):
    """The model with its two inputs and its logits alone."""

    def __init__(self, model: XLMRobertaForSequenceClassification) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits


def write_tokenizer(out: Path) -> None:
    """Write tokenizer.json and its config in the form that XLM-RoBERTa's have."""
    tokenizer = Tokenizer(models.Unigram(make_pieces(pieces()), unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap()), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens([*SPECIALS, MASK])
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": 512,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": MASK,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "special_tokens_map.json").write_text(
        json.dumps({k: v for k, v in config.items() if k.endswith("_token")}, indent=2) + "\n"
    )


def pieces() -> list[str]:
    """XLM-RoBERTa's pieces by id: a table of offsets, and behind it their texts."""
    content = (Path(blingfire.__file__).parent / "xlm_roberta_base.i2w").read_bytes()
    place = content.index(struct.pack("<I", PIECES)) + 4
    offsets = struct.unpack(f"<{PIECES + 1}I", content[place : place + 4 * (PIECES + 1)])
    start = place + 4 * (PIECES + 1)
    return [
        content[start + begin : start + end].decode().replace(" ", "▁")
        for begin, end in pairwise(offsets)
    ]


def make_pieces(texts: list[str]) -> list[tuple[str, float]]:
    """Pieces with the logarithm of a frequency that falls as their rank rises."""
    scores: dict[str, float] = dict.fromkeys(SPECIALS, 0.0)
    for rank, text in enumerate(texts[len(SPECIALS) : -1]):
        piece = text if text and text not in scores else f"▁<unused{rank}>"
        scores[piece] = -3.0 - math.log(1 + rank / 2)
    scores[MASK] = 0.0
    if len(scores) != PIECES:
        raise SystemExit(f"{len(scores)} pieces, and not {PIECES}")
    return list(scores.items())


def charsmap() -> bytes:
    """The normaliser's table, out of a model trained on next to nothing."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("a few words to train on\n" * 20)
        sentencepiece.SentencePieceTrainer.Train(
            input=str(text),
            model_prefix=f"{folder}/m",
            vocab_size=20,
            hard_vocab_limit=False,
            normalization_rule_name="nmt_nfkc",
            minloglevel=2,
        )
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(Path(f"{folder}/m.model").read_bytes())
    charsmap: bytes = proto.normalizer_spec.precompiled_charsmap
    return charsmap


if __name__ == "__main__":
    main()
