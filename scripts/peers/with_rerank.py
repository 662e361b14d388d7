"""Score a job's passages with this project's local engine; see measured.py."""

from collections.abc import Sequence

from peers.measured import Job, Score, main
from peers.passages import LENGTH
from rerank_cli import open_scorer, rank
from rerank_cli.runtimes import Runtime, RuntimeOptions


def open_engine(job: Job) -> Score:
    scorer = open_scorer(
        job.graph, runtime=RuntimeOptions(Runtime(job.runtime), threads=job.threads)
    )

    def score(query: str, passages: Sequence[str]) -> list[float]:
        ranking = rank(query, passages, scorer, chunk_tokens=LENGTH)
        if ranking.chunks != len(passages) or ranking.duplicates:
            raise SystemExit(f"{ranking.chunks} chunks of {len(passages)} passages")
        scores = {result.index: result.raw_score for result in ranking.results}
        return [scores[place] for place in range(len(passages))]

    return score


if __name__ == "__main__":
    main(open_engine, ["onnxruntime", "tokenizers", "numpy"])
