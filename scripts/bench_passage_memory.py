"""Measure what it saves to read a passage once for many queries, with a model in two parts.

    python scripts/bench_passage_memory.py -m FOLDER
    python scripts/bench_passage_memory.py -m FOLDER --passages 2000 --plain 100 --rounds 40

Two `Reranker`s of one process rank the same passages for a new query in each round: one with a
passage memory, and one without. They take turns, and change who begins, so that what else the
machine does slows both. The one without memory may rank fewer passages, `--plain`: a pair costs it
the same. Its scores must be those of the other one, to the last bit.

What is printed are milliseconds for a pair, on the clock and of the processor, without memory, with
it, and for the first query, for which all passages are read. By these the ratio for `--queries`
over the same passages is found. Exits with 1 if that on the clock is below `--least`, or if a score
differs.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rerank_cli import Reranker, RuntimeOptions
from rerank_cli.ranking import ChunkOptions

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
QUERY_WORDS = 7
TOKENS_PER_WORD = 1.5


class Turn(NamedTuple):
    """What a pair took, in milliseconds, and the scores by the places of the passages."""

    clock: float
    processor: float
    scores: Mapping[int, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--plain", type=int, help="those ranked without memory; default: all")
    parser.add_argument("--tokens", type=int, default=120, help="of a passage, about")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--memory", type=int, default=512_000_000, help="in bytes")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--least", type=float, default=6.0)
    arguments = parser.parse_args()
    draw = random.Random(5)
    words = [word for path in sorted(EXAMPLES.glob("*.md")) for word in path.read_text().split()]

    def texts(count: int, size: float) -> Iterator[str]:
        for _ in range(count):
            yield " ".join(draw.choices(words, k=max(1, round(size * draw.uniform(0.6, 1.4)))))

    passages = list(texts(arguments.passages, arguments.tokens / TOKENS_PER_WORD))
    some = passages[: arguments.plain]
    first_query, *queries = texts(arguments.rounds + 1, QUERY_WORDS)
    plain, knowing = (
        Reranker(
            arguments.model,
            threads=arguments.threads,
            runtime=RuntimeOptions(passage_memory=size_bytes),
            chunks=ChunkOptions(max_chunks=1),
        )
        for size_bytes in (0, arguments.memory)
    )
    with plain, knowing:
        for reranker in (plain, knowing):
            reranker.rank("warm up", ["the first pair", "is slower than the next one"])
        first = take_turn(knowing, first_query, passages)
        without: list[Turn] = []
        with_memory: list[Turn] = []
        differences = 0
        for number, query in enumerate(queries):
            order = [(plain, some, without), (knowing, passages, with_memory)]
            for reranker, documents, turns in order[:: -1 if number % 2 else 1]:
                turns.append(take_turn(reranker, query, documents))
            scores = with_memory[-1].scores
            differences += sum(
                scores[place] != score for place, score in without[-1].scores.items()
            )
        account = getattr(knowing.scorer, "account", str)()
    ratios = []
    for name in ("clock", "processor"):
        old, new = (mean(turns, name) for turns in (without, with_memory))
        readings = getattr(first, name)
        whole = (readings + (arguments.queries - 1) * new) / arguments.queries
        ratios.append(old / whole)
        print(
            f"{name:9}  without memory {old:6.2f} ms a pair, with it {new:6.2f} ms "
            f"({old / new:.1f} times as fast), the first query {readings:6.2f} ms; "
            f"{arguments.queries} queries: {old / whole:.1f} times the pairs a second"
        )
    pairs = len(some) * arguments.rounds
    print(f"{differences:,} of {pairs:,} scores differ; {account}")
    sys.exit(0 if ratios[0] >= arguments.least and not differences else 1)


def take_turn(reranker: Reranker, query: str, passages: Sequence[str]) -> Turn:
    """Rank passages for a query."""
    clock, processor = time.perf_counter(), time.process_time()
    ranking = reranker.rank(query, passages)
    pair = 1000 / len(passages)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    scores = {result.index: result.raw_score for result in ranking}
    return Turn(clock * pair, processor * pair, scores)


def mean(turns: Sequence[Turn], name: str) -> float:
    """The mean of what pairs took in some turns, by the clock or the processor."""
    return float(sum(getattr(turn, name) for turn in turns)) / len(turns)


if __name__ == "__main__":
    main()
