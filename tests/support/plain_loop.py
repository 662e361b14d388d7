"""The plainest way to score by a model in two parts: onnxruntime, and nothing of this project."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


class PlainParts:
    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several may add float32 up in another order
        self._encoder = onnxruntime.InferenceSession(folder / "encoder.onnx", options)
        self._reader = onnxruntime.InferenceSession(folder / "reader.onnx", options)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def score(self, query: str, passage: str) -> float:
        names = [spec.name for spec in self._encoder.get_outputs()]
        arrays: dict[str, Any] = {}
        for side, text in (("query", query), ("passage", passage)):
            ids = np.array([self._tokenizer.encode(text).ids])
            mask = np.ones_like(ids)
            outputs = self._encoder.run(names, {"input_ids": ids, "attention_mask": mask})
            arrays |= {f"{side}_ids": ids, f"{side}_mask": mask}
            arrays |= {f"{side}_{name}": value for name, value in zip(names, outputs, strict=True)}
        inputs = {spec.name: arrays[spec.name] for spec in self._reader.get_inputs()}
        return float(self._reader.run(None, inputs)[0].item())
