"""Time questions about a folder in one process, with and without what the first stage keeps.

    python scripts/bench_questions.py FOLDER [--candidates 100]

Two `Reranker`s take turns: one with a passage memory, and one without. For each question it prints
the seconds of both on the clock. Exits with 1 if a score differs.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rerank_cli import Document, Reranker, RuntimeOptions
from rerank_cli.inputs.documents import Inputs

QUESTIONS = (
    "where are expired cookies removed",
    "how is a chunked body read",
    "where are expired sessions deleted",
    "where is a temporary directory deleted",
)
RESULTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", type=int, default=100)
    arguments = parser.parse_args()
    inputs = Inputs(paths=[str(arguments.folder)], recursive=True)
    inputs.check()
    documents = list(inputs)
    differences = 0
    with Reranker() as knowing, Reranker(runtime=RuntimeOptions(passage_memory=0)) as plain:
        for question in QUESTIONS:
            answers = [
                answer(reranker, question, documents, arguments.candidates)
                for reranker in (knowing, plain)
            ]
            (seconds, scores), (plain_seconds, plain_scores) = answers
            differences += scores != plain_scores
            print(f"{seconds:5.2f} s, without memory {plain_seconds:5.2f} s: {question}")
    print(f"{differences} of {len(QUESTIONS)} rankings differ")
    sys.exit(differences > 0)


def answer(
    reranker: Reranker, question: str, documents: Sequence[Document], candidates: int
) -> tuple[float, list[tuple[int, float]]]:
    """The seconds of a ranking, and its places and scores."""
    begin = time.perf_counter()
    ranking = reranker.rank(question, documents, n=RESULTS, candidates=candidates, prior="auto")
    seconds = time.perf_counter() - begin
    return seconds, [(result.index, result.raw_score) for result in ranking]


if __name__ == "__main__":
    main()
