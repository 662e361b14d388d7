"""Time models of the catalogue's shapes: random weights, int8, 100 passages on all cores here.

    pip install '.[export]'
    python scripts/bench_shapes.py build/shapes

What a model costs is its shape's doing and not its weights': each is made here, exported as
`rerank models export` does it, and scores 100 passages of 140 tokens (105 English words) beside a
query of 12. Printed are seconds, the median of RUNS, and what the shipped model takes for the same
lengths. Vocabularies are small, which takes from the files' sizes and not from the time.
"""

import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
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

from rerank_cli import machine
from rerank_cli.models.export import export
from rerank_cli.scorers import open_scorer
from rerank_cli.types import Chunk, Document, Pair

FAMILIES = Path(__file__).parent.parent / "tests" / "support" / "families"
RUNS = 3
PASSAGES, TOKENS = 100, 140
QUERY = "what keeps slugs away from young lettuce in a wet spring"
VOCABULARY = 2000


def sizes(layers: int, width: int, heads: int, inner: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers, "hidden_size": width, "num_attention_heads": heads,
        "intermediate_size": inner, "vocab_size": VOCABULARY, "num_labels": 1,
    }  # fmt: skip


def bert(**size: int) -> PreTrainedModel:
    return BertForSequenceClassification(BertConfig(**size))


def roberta(**size: int) -> PreTrainedModel:
    more = {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 514}
    return XLMRobertaForSequenceClassification(XLMRobertaConfig(**size, **more))


def deberta(**size: int) -> PreTrainedModel:
    return DebertaV2ForSequenceClassification(
        DebertaV2Config(
            type_vocab_size=0, relative_attention=True, position_buckets=256, pad_token_id=0,
            norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
            position_biased_input=False, pooler_hidden_size=size["hidden_size"],
            max_position_embeddings=512, **size,
        )
    )  # fmt: skip


def modern(**size: int) -> PreTrainedModel:
    return ModernBertForSequenceClassification(
        ModernBertConfig(
            pad_token_id=0, cls_token_id=1, sep_token_id=2, attn_implementation="eager",
            classifier_pooling="mean", **size,
        )
    )  # fmt: skip


def qwen(**size: int) -> PreTrainedModel:
    size = {name: value for name, value in size.items() if name != "num_labels"}
    return Qwen3ForCausalLM(
        Qwen3Config(
            num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
            max_position_embeddings=2048, attn_implementation="eager", **size,
        )
    )  # fmt: skip


Make = Callable[..., PreTrainedModel]
SHAPES: dict[str, tuple[str, Make, dict[str, int]]] = {
    "jina-reranker-v1-tiny-en": ("bert", bert, sizes(4, 384, 12, 1536)),
    "ms-marco-MiniLM-L-6-v2, jina-reranker-v1-turbo-en": ("bert", bert, sizes(6, 384, 12, 1536)),
    "ms-marco-MiniLM-L-12-v2, mmarco-mMiniLMv2-L12-H384-v1": (
        "bert", bert, sizes(12, 384, 12, 1536),
    ),
    "mxbai-rerank-xsmall-v1": ("deberta-v2", deberta, sizes(12, 384, 6, 1536)),
    "mxbai-rerank-base-v1": ("deberta-v2", deberta, sizes(12, 768, 12, 3072)),
    "bge-reranker-base, jina-reranker-v2-base-multilingual": (
        "xlm-roberta", roberta, sizes(12, 768, 12, 3072),
    ),
    "gte-reranker-modernbert-base": ("modernbert", modern, sizes(22, 768, 12, 1152)),
    "bge-reranker-large, bge-reranker-v2-m3": (
        "xlm-roberta", roberta, sizes(24, 1024, 16, 4096),
    ),
    "Qwen3-Reranker-0.6B": ("qwen3", qwen, sizes(28, 1024, 16, 3072)),
}  # fmt: skip


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    print(f"{seconds(None):8.2f}  mini", flush=True)
    for names, (family, make, size) in SHAPES.items():
        place = out / names.partition(",")[0]
        if not (place / "int8").exists():
            make_model(place, family, make, size)
        print(f"{seconds(str(place / 'int8')):8.2f}  {names}", flush=True)


def make_model(place: Path, family: str, make: Make, size: dict[str, int]) -> None:
    """Export a random model of a shape, with the tokenizer of the tests' model of its family."""
    checkpoint = place / "checkpoint"
    model: Any = make(**size).eval()
    model.save_pretrained(checkpoint)
    shutil.copyfile(FAMILIES / family / "tokenizer.json", checkpoint / "tokenizer.json")
    del model
    export_folder = place / "made"
    export(
        checkpoint, export_folder, features=machine.features(), name=place.name, say=lambda _: None
    )
    (export_folder / "int8").rename(place / "int8")
    shutil.rmtree(checkpoint)
    shutil.rmtree(export_folder)


def seconds(model: str | None) -> float:
    """What 100 passages take, once the model is open and warm."""
    scorer = open_scorer(model)
    draw = random.Random(0)
    pairs = []
    for number in range(PASSAGES):
        ids = [draw.randrange(5, 60) for _ in range(TOKENS)]
        document = Document(f"passage {number}")
        pairs.append(Pair(QUERY, Chunk(document, 0, 7, "passage", TOKENS, ids)))
    scorer.score(pairs[:10])
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        scorer.score(pairs)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
