"""Write the fp32 logits that the shipped int8 model is held against in tests.

pip install torch transformers
python scripts/make_mini_references.py ../shared/models/mini-v0 tests/mini_references.json
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

QUERIES = ["how do I get a refund", "keeping slugs away from lettuce"]


def main() -> None:
    checkpoint, out = Path(sys.argv[1]), Path(sys.argv[2])
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    model.eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    passages = Path("examples/faq.txt").read_text(encoding="utf-8").splitlines()
    passages += Path("examples/garden.md").read_text(encoding="utf-8").split("\n\n")
    rows = []
    for query in QUERIES:
        for passage in passages:
            encoded = tokenizer(
                query, passage, return_tensors="pt", return_token_type_ids=True, truncation=False
            )
            with torch.no_grad():
                logit = model(**encoded).logits.item()
            rows.append({"query": query, "passage": passage, "logit": round(logit, 6)})
    out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
