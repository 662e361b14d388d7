"""Score a job's passages with FlagEmbedding in PyTorch, in float32; see measured.py.

It reads `model.safetensors` and not the job's graph. It scores its first batch twice, once to see
whether it fits in memory, which the larger its batch is costs the more.
"""

from collections.abc import Sequence

import torch
from FlagEmbedding import FlagReranker

from peers.measured import Job, Score, main


def open_engine(job: Job) -> Score:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    sizes = {} if job.batch is None else {"batch_size": job.batch}
    reranker = FlagReranker(job.folder, use_fp16=False, devices="cpu", **sizes)

    def score(query: str, passages: Sequence[str]) -> list[float]:
        return list(reranker.compute_score([(query, passage) for passage in passages]))

    return score


if __name__ == "__main__":
    main(open_engine, ["FlagEmbedding", "torch", "transformers"])
