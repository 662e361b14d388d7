"""How often the sentence that is shown holds the answer: by words, and as the model judges it.

    python scripts/bench_sentences.py ../shared/data/train/squad -n 600

A query's paragraph and its neighbours of the same article are a Markdown text with the article's
title as heading. What counts is the best passage, where it has three sentences or more and the
answer is in some of them. `mini` was trained on these questions, with whole paragraphs.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rerank_cli import Document
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.ranking.sentences import find_sentences
from rerank_cli.words import sentences

_SEED = 5
_MIN_SENTENCES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-n", type=int, default=600, help="queries")
    parser.add_argument("-m", "--model", default="mini")
    options = parser.parse_args()
    hits = dict.fromkeys(("any", "words", "model"), 0.0)
    count = 0
    with Reranker(options.model) as reranker:
        for query, answers, document in questions(options.folder):
            if count == options.n:
                break
            ranking = reranker.rank(query, [document])
            text = ranking[0].passage.text
            parts = [text[start:end] for start, end in sentences(text)]
            right = sum(is_answer(part, answers) for part in parts)
            if len(parts) < _MIN_SENTENCES or not 0 < right < len(parts):
                continue
            count += 1
            hits["any"] += right / len(parts)
            hits["words"] += is_answer(find_sentences(ranking, 1, None)[0].text, answers)
            hits["model"] += is_answer(reranker.find_sentences(ranking, 1)[0].text, answers)
    for name, value in hits.items():
        print(f"{name:6} {100 * value / max(count, 1):5.1f} % of {count}")


def is_answer(sentence: str, answers: list[str]) -> bool:
    return any(answer.lower() in sentence.lower() for answer in answers)


def questions(folder: Path) -> Iterator[tuple[str, list[str], Document]]:
    """Queries in a random order, each with its answers and with a text that holds one."""
    passages = list(records(folder / "corpus.jsonl.gz"))
    places = {passage["_id"]: place for place, passage in enumerate(passages)}
    (judgements,) = (folder / "qrels").iterdir()
    lines = judgements.read_text(encoding="utf-8").splitlines()[1:]
    relevant = dict(line.split("\t")[:2] for line in lines)
    queries = list(records(folder / "queries.jsonl.gz"))
    draw = random.Random(_SEED)
    draw.shuffle(queries)
    for query in queries:
        place = places[relevant[query["_id"]]]
        first = max(0, place - draw.randrange(3))
        title = passages[place]["title"]
        near = [each["text"] for each in passages[first : first + 4] if each["title"] == title]
        text = "\n\n".join([f"# {title.replace('_', ' ')}", *near])
        yield query["text"], query["answers"], Document(text, syntax="markdown")


def records(path: Path) -> Iterator[Mapping[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


if __name__ == "__main__":
    main()
