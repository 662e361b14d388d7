"""Make the small random cross-encoders in tests/models, and scores by transformers.

    pip install torch transformers onnx onnxscript
    python scripts/make_test_models.py tests/models

Each folder holds a graph of one layout, its tokenizer and config, and `references.json`: pairs of
texts and the logits of the PyTorch model (of two classes, the second's less the first's). Weights
are seeded; the training of tokenizers is not, so that a new run gives other tokens and references.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

LENGTH = 64
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CORPUS = [path for path in sorted(Path("examples").iterdir()) if path.is_file()]
PAIRS = [
    ("refund", "Send it back within thirty days."),
    ("refund", "We are closed on public holidays."),
    ("How do I keep slugs away?", "Slugs come out at night, and hide under boards by day."),
    ("tomates à l'étouffée 番茄", "Größe — 42 €, naïve café 🥕"),
    ("water", "Water in the early morning, at the roots and not over the leaves. " * 2),
]


def main() -> None:
    out = Path(sys.argv[1])
    torch.manual_seed(7)
    wordpiece, unigram = make_wordpiece(), make_unigram()
    bert = {"max_position_embeddings": LENGTH, "intermediate_size": 64, **SIZES}
    xlmr = {"max_position_embeddings": LENGTH + 2, "intermediate_size": 64, **SIZES}
    xlmr |= {"type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    size = wordpiece.get_vocab_size()
    for name, labels in (("bert", 1), ("bert-classes", 2)):
        model = BertForSequenceClassification(
            BertConfig(vocab_size=size, num_labels=labels, **bert)
        )
        make(out / name, model, wordpiece, ["input_ids", "attention_mask", "token_type_ids"])
    size = unigram.get_vocab_size()
    for name, inputs in (("xlmr", ["input_ids", "attention_mask"]), ("xlmr-ids", ["input_ids"])):
        model = XLMRobertaForSequenceClassification(
            XLMRobertaConfig(vocab_size=size, num_labels=1, **xlmr)
        )
        make(out / name, model, unigram, inputs)


class Logits(torch.nn.Module):
    """A model with the chosen inputs only, in their order."""

    def __init__(self, model: PreTrainedModel, inputs: list[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.eval()

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        values_by_name = dict(zip(self.inputs, values, strict=True))
        values_by_name.setdefault("attention_mask", torch.ones_like(values_by_name["input_ids"]))
        logits: torch.Tensor = self.model(**values_by_name).logits
        return logits


def make(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, inputs: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, weights in model.named_parameters():  # a fresh model scores everything alike
            if "LayerNorm" not in name:
                weights.normal_(0, 0.5)
    tokenizer.save(str(folder / "tokenizer.json"))
    model.config.architectures = [type(model).__name__]
    (folder / "config.json").write_text(model.config.to_json_string())
    row = torch.tensor([[0, 5, 6, 2, 2, 7, 8, 2]])
    axes = {name: {0: "batch", 1: "sequence"} for name in inputs}
    torch.onnx.export(
        Logits(model, inputs),
        tuple(
            torch.ones_like(row) if name == "attention_mask" else row % 2 if "type" in name else row
            for name in inputs
        ),
        str(folder / "model.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=inputs,
        output_names=["logits"],
        dynamic_axes=axes | {"logits": {0: "batch"}},
    )
    (folder / "references.json").write_text(
        json.dumps(references(model, tokenizer), indent=1, ensure_ascii=False) + "\n"
    )


def references(model: PreTrainedModel, tokenizer: Tokenizer) -> list[dict[str, object]]:
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    fast = PreTrainedTokenizerFast(tokenizer_object=plain)
    rows: list[dict[str, object]] = []
    for query, passage in [*PAIRS, longest_pair(fast)]:
        encoded = fast(query, passage, return_tensors="pt", return_token_type_ids=True)
        if model.config.type_vocab_size == 1:
            encoded.pop("token_type_ids", None)
        with torch.no_grad():
            logits = model(**encoded).logits.double().ravel().tolist()
        score = logits[0] if len(logits) == 1 else logits[1] - logits[0]
        tokens = encoded["input_ids"].shape[1]
        rows.append({"query": query, "passage": passage, "tokens": tokens, "logit": score})
    return rows


def longest_pair(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """A pair that fills the model's length to the last token."""
    query = "water"
    for word in ("a", "the", "in", "of", "and"):
        passage = word
        while (tokens := len(tokenizer(query, passage)["input_ids"])) < LENGTH:
            passage += f" {word}"
        if tokens == LENGTH:
            return query, passage
    raise SystemExit("no word of one token")


def make_wordpiece() -> Tokenizer:
    """BERT's layout, with truncation and padding of its own, as many published files have."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train([str(path) for path in CORPUS], trainer)
    end_tokens = [
        ("[CLS]", tokenizer.token_to_id("[CLS]")),
        ("[SEP]", tokenizer.token_to_id("[SEP]")),
    ]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=end_tokens,
    )
    tokenizer.enable_truncation(24)
    tokenizer.enable_padding(length=24)
    return tokenizer


def make_unigram() -> Tokenizer:
    """XLM-RoBERTa's layout: `<s> A </s></s> B </s>`, padding id 1."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train([str(path) for path in CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


if __name__ == "__main__":
    main()
