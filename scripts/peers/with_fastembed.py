"""Score a job's passages with fastembed's TextCrossEncoder; see measured.py."""

from collections.abc import Sequence
from pathlib import Path

from fastembed.common.model_description import ModelSource
from fastembed.rerank.cross_encoder import TextCrossEncoder

from peers.measured import Job, Score, main

NAME = "bench/model"


def open_engine(job: Job) -> Score:
    graph = str(Path(job.graph).relative_to(job.folder))
    TextCrossEncoder.add_custom_model(NAME, sources=ModelSource(hf=NAME), model_file=graph)
    encoder = TextCrossEncoder(NAME, threads=job.threads, specific_model_path=job.folder)
    sizes = {} if job.batch is None else {"batch_size": job.batch}

    def score(query: str, passages: Sequence[str]) -> list[float]:
        return list(encoder.rerank(query, passages, **sizes))

    return score


if __name__ == "__main__":
    main(open_engine, ["fastembed", "onnxruntime", "tokenizers"])
