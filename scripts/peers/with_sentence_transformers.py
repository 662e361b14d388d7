"""Score a job's passages with sentence-transformers' CrossEncoder on ONNX; see measured.py."""

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from sentence_transformers import CrossEncoder

from peers.measured import Job, Score, main


def open_engine(job: Job) -> Score:
    settings: dict[str, object] = {"file_name": str(Path(job.graph).relative_to(job.folder))}
    if job.threads is not None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        settings["session_options"] = options
    encoder = CrossEncoder(job.folder, backend="onnx", device="cpu", model_kwargs=settings)
    sizes = {} if job.batch is None else {"batch_size": job.batch}

    def score(query: str, passages: Sequence[str]) -> list[float]:
        pairs = [(query, passage) for passage in passages]
        return list(encoder.predict(pairs, show_progress_bar=False, **sizes))

    return score


if __name__ == "__main__":
    main(open_engine, ["sentence-transformers", "optimum-onnx", "onnxruntime", "transformers"])
