"""Write PyTorch's fp32 logits, which the shipped int8 model is held against in tests.

    python scripts/train/references.py WORK tests/support/data/mini_references.json \\
        models/mini/self_test.json

WORK is where scripts/train/make.py left what it made. The last file has the first few of them, by
which `rerank doctor` checks an installed model.
"""

import json
import sys
from pathlib import Path

import torch
from encoder import Tower
from make import READER
from network import Reader

CHECKED = 12
QUERIES = ["how do I get a refund", "keeping slugs away from lettuce"]


def main() -> None:
    work, out, checked = map(Path, sys.argv[1:])
    tower = Tower(torch.device("cpu"))
    tower.encoder.float()
    reader = Reader(tower.encoder.config.hidden_size, torch.ones(tower.tokenizer.get_vocab_size()))
    reader.load_state_dict(torch.load(work / READER))
    reader.eval()
    passages = Path("examples/faq.txt").read_text(encoding="utf-8").splitlines()
    passages += Path("examples/garden.md").read_text(encoding="utf-8").split("\n\n")
    rows = []
    for query in QUERIES:
        asked = tower.sides(tower.ids([query])).asked()
        for passage in passages:
            with torch.no_grad():
                logit = reader(asked, tower.sides(tower.ids([passage]))).item()
            rows.append({"query": query, "passage": passage, "logit": round(logit, 6)})
    for path, some in ((out, rows), (checked, rows[:CHECKED])):
        path.write_text(json.dumps(some, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
