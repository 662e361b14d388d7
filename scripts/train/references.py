"""Write PyTorch's fp32 logits of a model's pairs, by which its int8 file is checked.

    python scripts/train/references.py mini WORK E5 models/mini/self_test.json \\
        tests/support/data/mini_references.json
    python scripts/train/references.py multi WORK E5 models/multi/self_test.json

WORK is the folder with the results of make.py, and E5 the folder of multilingual-e5-small. The
first file has a few pairs, by which `rerank doctor` checks an installed model; the second file has
all pairs.
"""

import argparse
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import torch
from encoder import Tower, pad, words_of
from late import LateInteraction, Network
from make import READER, RECIPES, open_tower
from network import Layers, Reader, Text
from transformers import BertModel

CHECK_PAIRS = 12
MAX_TOKENS = 256
QUERIES = ["how do I get a refund", "keeping slugs away from lettuce"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("work", type=Path)
    parser.add_argument("e5", type=Path)
    parser.add_argument("checked", type=Path, help="for rerank doctor")
    parser.add_argument("all", type=Path, nargs="?", help="for tests")
    arguments = parser.parse_args()
    work = arguments.work / arguments.model
    tower = open_tower(arguments.model, (), arguments.e5, work)
    encoder = tower.bert()
    size, hidden = tower.tokenizer.get_vocab_size(), encoder.config.hidden_size
    reader: Network
    if arguments.model == "mini":
        reader = Reader(hidden, len(tower.levels), size)
    else:
        reader = LateInteraction(torch.ones(size), torch.zeros(hidden), torch.zeros(hidden))
    reader.load_state_dict(torch.load(work / READER))
    reader.eval()
    rows = []
    for query, passages in pairs_of(arguments.model):
        question = text_of(tower, encoder, reader, tower.query_rows([query], MAX_TOKENS)).as_query()
        for passage in passages:
            text = text_of(tower, encoder, reader, tower.passage_rows([passage], MAX_TOKENS))
            with torch.no_grad():
                logit = reader(question, text).item()
            rows.append({"query": query, "passage": passage, "logit": round(logit, 6)})
    write(rows[:CHECK_PAIRS], arguments.checked)
    if arguments.all:
        write(rows, arguments.all)


def pairs_of(model: str) -> Sequence[tuple[str, Sequence[str]]]:
    if model == "multi":
        text = Path(__file__).with_name("multi_pairs.toml").read_text(encoding="utf-8")
        return [(pair["query"], pair["passages"]) for pair in tomllib.loads(text)["pair"]]
    passages = Path("examples/faq.txt").read_text(encoding="utf-8").splitlines()
    passages += Path("examples/garden.md").read_text(encoding="utf-8").split("\n\n")
    return [(query, passages) for query in QUERIES]


def text_of(
    tower: Tower, encoder: BertModel, reader: Network, rows: Sequence[Sequence[int]]
) -> Text:
    ids, mask = pad(rows)
    with torch.no_grad():
        states = encoder(ids, mask, output_hidden_states=True).hidden_states
        embedded = encoder.embeddings.word_embeddings(ids)
        words = words_of(tower, ids, mask)
        levels = [states[level] for level in tower.levels]
        return reader.text(Layers(ids, mask.float(), words, embedded, levels))


def write(rows: Sequence[dict[str, object]], path: Path) -> None:
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
