"""Score a job's passages with FlashRank; see measured.py.

It puts all that it is given into one batch and has no setting for that: a batch size means that
the caller gives it so many passages at a time. Threads cannot be set.
"""

from collections.abc import Sequence
from pathlib import Path

from flashrank import Ranker, RerankRequest
from flashrank.Config import model_file_map

from peers.measured import Job, Score, main


def open_engine(job: Job) -> Score:
    folder = Path(job.folder)
    model_file_map[folder.name] = str(Path(job.graph).relative_to(folder))
    ranker = Ranker(folder.name, cache_dir=str(folder.parent), log_level="ERROR")

    def score(query: str, passages: Sequence[str]) -> list[float]:
        scores = [0.0] * len(passages)
        size = job.batch or len(passages)
        records = [{"id": place, "text": text} for place, text in enumerate(passages)]
        for start in range(0, len(passages), size):
            for result in ranker.rerank(RerankRequest(query, records[start : start + size])):
                scores[result["id"]] = result["score"]
        return scores

    return score


if __name__ == "__main__":
    main(open_engine, ["flashrank", "onnxruntime", "tokenizers"])
