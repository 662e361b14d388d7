"""The passages that bench_local.py has scored: real text of mixed length, from a fixed seed."""

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

QUERY = "how is the cost of treatment paid for when a patient changes the hospital"
LENGTH = 512  # tokens of a pair, at which every peer cuts


def sample(data: Path, count: int, folders: Sequence[Path]) -> list[str]:
    """Draw passages evenly from all sets, whose pairs no tokenizer makes too long."""
    tokenizers = [Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in folders]
    for tokenizer in tokenizers:
        tokenizer.no_truncation()
        tokenizer.no_padding()
    draw = random.Random(0)
    corpora = sorted(data.glob("*/corpus.jsonl.gz"))
    if not corpora:
        raise SystemExit(f"{data}: holds no */corpus.jsonl.gz")
    passages: list[str] = []
    for number, corpus in enumerate(corpora):
        with gzip.open(corpus, "rt", encoding="utf-8") as lines:
            texts = sorted({" ".join(json.loads(line)["text"].split()) for line in lines} - {""})
        draw.shuffle(texts)
        target_count = count * (number + 1) // len(corpora)
        for text in texts:
            if len(passages) == target_count:
                break
            if all(
                len(pair_tokenizer.encode(QUERY, text).ids) <= LENGTH
                for pair_tokenizer in tokenizers
            ):
                passages.append(text)
    draw.shuffle(passages)
    return passages
