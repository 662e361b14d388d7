r"""How often words find the answer to a question, and how often a reranker puts it first.

    python scripts/compare_with_grep.py ../shared/data/eval

A list has 100 passages: those that answer a question of the set, and others drawn from the same
set. Grep gets the question's words, less stop words and words such as "how". Case does not count,
and a word may be inside of a longer one. Three ways: a passage must have all words, any word, or
the rarest word that any passage has. BM25 and the model that ships rank the whole list.

The table has, in percent of the questions, where an answer is among the passages that grep shows
(and how many these are, in the median), and where an answer comes first.
"""

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from rerank_cli import Reranker
from rerank_cli.words import STOP_WORDS

SETS = ("stackfaq", "scifact", "nq")
LENGTH = 100  # passages in a list
ASKING = {"can", "could", "did", "do", "does", "has", "have", "how", "i", "my", "what", "when"}
ASKING |= {"where", "which", "who", "why", "you"}


def records(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def lists(folder: Path, count: int) -> Iterator[tuple[str, list[str], set[int]]]:
    """Draw questions, each with its list and the places of the answers in it."""
    draw = random.Random(0)
    corpus = {
        record["_id"]: f"{record['title']}\n{record['text']}"
        for record in records(folder / "corpus.jsonl.gz")
    }
    queries = {record["_id"]: record["text"] for record in records(folder / "queries.jsonl.gz")}
    relevant: dict[str, list[str]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, []).append(document)
    for query in draw.sample(sorted(relevant), count):
        others = sorted(set(corpus) - set(relevant[query]))
        names = relevant[query] + draw.sample(others, LENGTH - len(relevant[query]))
        draw.shuffle(names)
        yield (
            queries[query],
            [corpus[document] for document in names],
            {place for place, document in enumerate(names) if document in relevant[query]},
        )


def grep(query: str, texts: Sequence[str]) -> tuple[set[int], set[int], set[int]]:
    """The places of texts with all words of the query, with any, and with the rarest."""
    words = [word for word in re.findall(r"\w+", query.lower()) if word not in STOP_WORDS | ASKING]
    places_by_word = [
        {place for place, text in enumerate(texts) if word in text.lower()} for word in words
    ]
    hits = [places for places in places_by_word if places]
    if not hits:
        return set(), set(), set()
    return set.intersection(*places_by_word), set.union(*hits), min(hits, key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    options = parser.parse_args()
    print("| set | grep: all words | any word | rarest word | `-m bm25` first | `rerank` first |")
    print("|---|---|---|---|---|---|")
    with Reranker("bm25") as bm25, Reranker("mini") as mini:
        for name in SETS:
            ways: tuple[list[int], ...] = ([], [], [])
            list_lengths: tuple[list[int], ...] = ([], [], [])
            first: dict[str, int] = {"bm25": 0, "mini": 0}
            for query, texts, answers in lists(options.data / name, options.questions):
                for way, lengths, places in zip(
                    ways, list_lengths, grep(query, texts), strict=True
                ):
                    way.append(bool(places & answers))
                    lengths.append(len(places))
                for model, reranker in (("bm25", bm25), ("mini", mini)):
                    first[model] += reranker.rank(query, texts, n=1)[0].index in answers
            share = [
                f"{100 * sum(way) / len(way):.0f} % in {median(lengths):.0f}"
                for way, lengths in zip(ways, list_lengths, strict=True)
            ]
            best = [f"{100 * first[model] / options.questions:.0f} %" for model in ("bm25", "mini")]
            print(f"| {name} | {' | '.join(share + best)} |", flush=True)


if __name__ == "__main__":
    main()
