"""Print the logits of six fixed pairs of random tokens, to hold one processor against another.

    python scripts/print_logits.py models/mini/reader.onnx
    qemu-x86_64 -cpu Haswell "$(which python)" scripts/print_logits.py models/mini/reader.onnx

The second runs it on an emulated processor with AVX2 and without VNNI, in minutes. A `reader.onnx`
has its `encoder.onnx` beside it.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        encoder = (
            open_session(path.with_name("encoder.onnx")) if path.name == "reader.onnx" else None
        )
        session = open_session(path)
        logits = (
            whole_logit(session, ids) if encoder is None else logit_in_parts(encoder, session, ids)
            for ids in map(pair, range(6))
        )
        print(path, *(f"{logit:.4f}" for logit in logits), flush=True)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def pair(seed: int) -> np.ndarray:
    ids = np.random.default_rng(seed).integers(1000, 30000, (1, 48))
    ids[0, [0, 8, 9, 47]] = 101, 102, 101, 102  # [CLS] query [SEP] [CLS] passage [SEP]
    return ids


def whole_logit(session: onnxruntime.InferenceSession, ids: np.ndarray) -> float:
    types = np.zeros_like(ids)
    types[:, 9:] = 1
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
    return float(session.run(None, feed)[0].item())


def logit_in_parts(
    encoder: onnxruntime.InferenceSession, reader: onnxruntime.InferenceSession, ids: np.ndarray
) -> float:
    names = [spec.name for spec in encoder.get_outputs()]
    values: dict[str, Any] = {}
    for side, text in (("query", ids[:, :9]), ("passage", ids[:, 9:])):
        mask = np.ones_like(text)
        states = encoder.run(names, {"input_ids": text, "attention_mask": mask})
        values |= {f"{side}_ids": text, f"{side}_mask": mask}
        values |= {f"{side}_{name}": value for name, value in zip(names, states, strict=True)}
    feed = {spec.name: values[spec.name] for spec in reader.get_inputs()}
    return float(reader.run(None, feed)[0].item())


if __name__ == "__main__":
    main()
