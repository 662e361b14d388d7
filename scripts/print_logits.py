"""Print the logits of six fixed pairs of random tokens, to hold one processor against another.

    python scripts/print_logits.py models/mini/model.onnx
    qemu-x86_64 -cpu Haswell "$(which python)" scripts/print_logits.py models/mini/model.onnx

The second runs it on an emulated processor with AVX2 and without VNNI, in minutes.
"""

import sys

import numpy as np
import onnxruntime


def main() -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    for path in sys.argv[1:]:
        session = onnxruntime.InferenceSession(path, options)
        print(path, *(f"{logit(session, seed):.4f}" for seed in range(6)), flush=True)


def logit(session: onnxruntime.InferenceSession, seed: int) -> float:
    ids = np.random.default_rng(seed).integers(1000, 30000, (1, 48))
    ids[0, [0, 8, 9, 47]] = 101, 102, 101, 102  # [CLS] query [SEP] [CLS] passage [SEP]
    types = np.zeros_like(ids)
    types[:, 9:] = 1
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
    return float(session.run(None, feed)[0].item())


if __name__ == "__main__":
    main()
