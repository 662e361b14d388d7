"""Make a small random reranker of each family in tests/support/families, with reference scores.

    pip install torch transformers onnx
    python scripts/make_family_models.py tests/support/families

A folder holds a graph in fp32, its tokenizer and config, and `references.json`: what transformers
and PyTorch make of pairs, at lengths below, at and above what the model takes (then the reference
drops the end of the passage). Of the causal model the score is the logit of yes less that of no
after the last token of its prompt, as Qwen's model card computes it. Weights are seeded.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from make_test_models import CORPUS, LENGTH, PAIRS, make_unigram, make_wordpiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from rerank_cli.models.catalogue import Prompt, prompts

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_labels": 1}
HEADS = {"num_attention_heads": 2}
CAUSAL_LENGTH = 512
INSTRUCTIONS = (None, "Find the sentence that a gardener would agree with.")
# How Qwen2 and Qwen3 part a text before its bytes are joined (their tokenizer.json).
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QUERY = "keep slugs away"
TAIL = " Water the roots in the early morning, not the leaves."


def main() -> None:
    out = Path(sys.argv[1])
    torch.manual_seed(11)
    wordpiece, unigram, bytes_ = make_wordpiece(), make_unigram(), make_bytes()
    both = {**SIZES, **HEADS}
    bert = BertConfig(vocab_size=wordpiece.get_vocab_size(), max_position_embeddings=LENGTH, **both)
    types = ["input_ids", "attention_mask", "token_type_ids"]
    make(out / "bert", BertForSequenceClassification(bert), wordpiece, types)
    roberta = XLMRobertaConfig(
        vocab_size=unigram.get_vocab_size(), max_position_embeddings=LENGTH + 2,
        type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, **both,
    )  # fmt: skip
    make(out / "xlm-roberta", XLMRobertaForSequenceClassification(roberta), unigram, types[:2])
    modern = ModernBertConfig(
        vocab_size=bytes_.get_vocab_size(), max_position_embeddings=LENGTH, local_attention=16,
        global_attn_every_n_layers=2, pad_token_id=0, cls_token_id=1, sep_token_id=2,
        attn_implementation="eager", classifier_pooling="mean", **both,
    )  # fmt: skip
    make(out / "modernbert", ModernBertForSequenceClassification(modern), bytes_, types[:2])
    deberta = DebertaV2Config(
        vocab_size=(pieces := make_deberta(unigram)).get_vocab_size(), type_vocab_size=0,
        max_position_embeddings=LENGTH, relative_attention=True, position_buckets=16,
        norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, pad_token_id=0, pooler_hidden_size=32, **both,
    )  # fmt: skip
    make(out / "deberta-v2", DebertaV2ForSequenceClassification(deberta), pieces, types[:2])
    make_causal(out / "qwen3", make_qwen())


class Logits(torch.nn.Module):
    """A model with the chosen inputs only, in their order."""

    def __init__(self, model: PreTrainedModel, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.inputs = model.eval(), inputs

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**dict(zip(self.inputs, values, strict=True))).logits
        return logits


def make(folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, inputs: list[str]) -> None:
    spread_weights(model)
    rows = []
    for query, passage in [*PAIRS, *pairs_around(tokenizer, LENGTH)]:
        tokenizer.no_padding()
        tokenizer.enable_truncation(LENGTH, strategy="only_second")
        encoded = tokenizer.encode(query, passage)
        whole = len(untruncated_tokenizer(tokenizer).encode(query, passage).ids)
        inputs_by_name = {
            "input_ids": torch.tensor([encoded.ids]),
            "attention_mask": torch.ones(1, len(encoded.ids), dtype=torch.long),
            "token_type_ids": torch.tensor([encoded.type_ids]),
        }
        with torch.no_grad():
            logit = model(**{name: inputs_by_name[name] for name in inputs}).logits.item()
        rows.append({"query": query, "passage": passage, "tokens": whole, "logit": logit})
    write(folder, model, tokenizer, inputs, rows)


def make_causal(folder: Path, tokenizer: Tokenizer) -> None:
    """Qwen3-Reranker's form: every text in the prompt of its card, and two of its tokens."""
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=CAUSAL_LENGTH, head_dim=8,
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    spread_weights(model)
    prompt = prompts()["qwen3"]
    answers = [tokenizer.token_to_id(answer) for answer in (prompt.yes, prompt.no)]
    rows: list[dict[str, object]] = []
    pairs = [(*pair, text) for text in INSTRUCTIONS for pair in PAIRS]
    pairs += [(*pair, None) for pair in causal_around(tokenizer, prompt)]
    for query, passage, instruction in pairs:
        ids = encode_prompt(tokenizer, prompt, query, passage, instruction)
        prompt_ids = encode_prompt(tokenizer, prompt, query, passage, instruction, CAUSAL_LENGTH)
        with torch.no_grad():
            last = model(input_ids=torch.tensor([prompt_ids])).logits[0, -1]
        logit = (last[answers[0]] - last[answers[1]]).item()
        row = {"query": query, "passage": passage, "tokens": len(ids), "logit": logit}
        rows.append(row | ({"instruction": instruction} if instruction else {}))
    inputs = ["input_ids", "attention_mask", "position_ids"]
    write(folder, model, tokenizer, inputs, rows)


def encode_prompt(
    tokenizer: Tokenizer, prompt: Prompt, query: str, passage: str, instruction: str | None,
    most: int = 1_000_000,
) -> list[int]:  # fmt: skip
    """The tokens of one prompt, of which the middle is cut to fit, as on the model's card."""
    before, after = (tokenizer.encode(text).ids for text in (prompt.before, prompt.after))
    query_text = prompt.query.format(instruction=instruction or prompt.instruction, query=query)
    middle = tokenizer.encode(f"{query_text} {passage}").ids
    return [*before, *middle[: most - len(before) - len(after)], *after]


def write(
    folder: Path, model: PreTrainedModel, tokenizer: Tokenizer, inputs: list[str],
    rows: list[Any],
) -> None:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    plain = untruncated_tokenizer(tokenizer)
    plain.save(str(folder / "tokenizer.json"))
    model.config.architectures = [type(model).__name__]
    (folder / "config.json").write_text(model.config.to_json_string())
    row = torch.arange(5, 17).unsqueeze(0)
    example = {
        "input_ids": row, "attention_mask": torch.ones_like(row),
        "token_type_ids": torch.zeros_like(row), "position_ids": torch.arange(12).unsqueeze(0),
    }  # fmt: skip
    torch.onnx.export(
        Logits(model, inputs),
        tuple(example[name] for name in inputs),
        str(folder / "model.onnx"),
        dynamo=False,
        opset_version=17,
        input_names=inputs,
        output_names=["logits"],
        dynamic_axes={
            **{name: {0: "batch", 1: "sequence"} for name in inputs},
            "logits": {0: "batch"} | ({1: "sequence"} if "position_ids" in inputs else {}),
        },
    )
    text = json.dumps(rows, indent=1, ensure_ascii=False)
    (folder / "references.json").write_text(f"{text}\n", encoding="utf-8")


def spread_weights(model: PreTrainedModel) -> None:
    """Make weights large enough that texts score apart; a fresh model scores everything alike."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" not in name.lower() and weights.ndim > 1:
                weights.normal_(0, 0.4)
    model.eval()


def pairs_around(tokenizer: Tokenizer, length: int) -> list[tuple[str, str]]:
    """Pairs of one token less than `length`, as many, one more, and many more."""
    plain = untruncated_tokenizer(tokenizer)
    return passages_of_sizes(lambda passage: len(plain.encode(QUERY, passage).ids), length)


def causal_around(tokenizer: Tokenizer, prompt: Prompt) -> list[tuple[str, str]]:
    return passages_of_sizes(
        lambda passage: len(encode_prompt(tokenizer, prompt, QUERY, passage, None)), CAUSAL_LENGTH
    )


def passages_of_sizes(count: Callable[[str], int], length: int) -> list[tuple[str, str]]:
    """Passages of which a pair has so many tokens, one less, one more, and 40 more."""
    texts: dict[int, str] = {}
    for lead in ("", "At night", "In June"):
        text = lead + TAIL * (length // 8)
        for end in range(len(lead) + 20, len(text)):
            texts.setdefault(count(text[:end]), text[:end])
    return [(QUERY, texts[length + more]) for more in (-1, 0, 1, 40)]


def untruncated_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


def make_bytes() -> Tokenizer:
    """ModernBERT's layout: bytes joined by BPE, `[CLS] A [SEP] B [SEP]`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["[PAD]", "[CLS]", "[SEP]", "[UNK]"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train([str(path) for path in CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )  # fmt: skip
    return tokenizer


def make_deberta(unigram: Tokenizer) -> Tokenizer:
    """DeBERTa-v2's layout: pieces that begin with ▁, `[CLS] A [SEP] B:1 [SEP]:1`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = unigram.normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train([str(path) for path in CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )  # fmt: skip
    return tokenizer


def make_qwen() -> Tokenizer:
    """Qwen3's layout: its own words, bytes joined by BPE, and its marks as tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    prompt = prompts()["qwen3"]
    text = f"{prompt.before}{prompt.query}{prompt.instruction}{prompt.after}\nyes\nno\n"
    corpus = [path.read_text(encoding="utf-8") for path in CORPUS if path.suffix != ".svg"]
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*corpus, *[text] * 60], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>")])
    return tokenizer


if __name__ == "__main__":
    main()
