"""Write PyTorch's fp32 logits, which the shipped int8 model is held against in tests.

    python scripts/train/references.py WORK tests/support/data/mini_references.json \
        models/mini/self_test.json

WORK is where scripts/train/make.py left what it made. The last file has the first few of them, by
which `rerank doctor` checks an installed model.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from encoder import Tower, minilm, padded
from make import READER, RECIPES
from network import Layers, Reader, Text
from transformers import BertModel

CHECKED = 12
MAX_TOKENS = 256
QUERIES = ["how do I get a refund", "keeping slugs away from lettuce"]


def main() -> None:
    work, out, checked = map(Path, sys.argv[1:])
    tower = minilm()
    encoder = tower.bert()
    weights = torch.ones(tower.tokenizer.get_vocab_size())
    scale, likeness = RECIPES["mini"].teachers["minilm"]
    hidden, levels = encoder.config.hidden_size, len(tower.levels)
    reader = Reader(hidden, levels, weights, scale, likeness).eval()
    reader.load_state_dict(torch.load(work / "mini" / READER))
    passages = Path("examples/faq.txt").read_text(encoding="utf-8").splitlines()
    passages += Path("examples/garden.md").read_text(encoding="utf-8").split("\n\n")
    rows = []
    for query in QUERIES:
        asked = text_of(tower, encoder, reader, tower.query_rows([query], MAX_TOKENS)).as_query()
        for passage in passages:
            read = text_of(tower, encoder, reader, tower.passage_rows([passage], MAX_TOKENS))
            with torch.no_grad():
                logit = reader(asked, read).item()
            rows.append({"query": query, "passage": passage, "logit": round(logit, 6)})
    for path, some in ((out, rows), (checked, rows[:CHECKED])):
        path.write_text(json.dumps(some, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def text_of(
    tower: Tower, encoder: BertModel, reader: Reader, rows: Sequence[Sequence[int]]
) -> Text:
    ids, mask = padded(rows)
    with torch.no_grad():
        states = encoder(ids, mask, output_hidden_states=True).hidden_states
        embedded = encoder.embeddings.word_embeddings(ids)
        start, end = tower.specials
        words = mask * (ids != start) * (ids != end)
        levels = [states[level] for level in tower.levels]
        return reader.text(Layers(ids, mask.float(), words.float(), embedded, levels))


if __name__ == "__main__":
    main()
