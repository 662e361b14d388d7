"""The bi-encoders whose cosines are baselines, and which find passages like a question: MiniLM, e5.

Neither is trained here. Both run in bfloat16.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from encoder import folder as minilm_folder
from encoder import padded
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertModel

MAX_TOKENS = 256  # of a text, special tokens included: what MiniLM was trained to read
BATCH_TEXTS = 64


class BiEncoder:
    """A tokenizer and a network that make one unit vector of a text: the mean of its last states.

    `query_mark` and `passage_mark` are put before the texts of queries and passages. `path` is the
    file of the weights.
    """

    def __init__(
        self, folder: Path, device: torch.device, query_mark: str = "", passage_mark: str = ""
    ) -> None:
        self.path = folder / "model.safetensors"
        self._device = device
        self._query_mark, self._passage_mark = query_mark, passage_mark
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._encoder = (
            BertModel.from_pretrained(folder, add_pooling_layer=False)
            .to(device, torch.bfloat16)
            .eval()
        )

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of queries."""
        return self._embed([self._query_mark + text for text in texts])

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of passages."""
        return self._embed([self._passage_mark + text for text in texts])

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        vectors = np.empty((len(rows), self._encoder.config.hidden_size), np.float32)
        for start in range(0, len(order), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            # The mask hides what fills rows up, whatever the id of a model's padding is.
            ids, mask = (part.to(self._device) for part in padded([rows[at] for at in places]))
            with torch.no_grad():
                states = self._encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            mean = (states * weights).sum(1) / weights.sum(1)
            vectors[places] = functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


def open_minilm(device: torch.device) -> BiEncoder:
    """Open all-MiniLM-L6-v2, from its Python package."""
    return BiEncoder(minilm_folder(), device)


def open_e5(folder: Path, device: torch.device) -> BiEncoder:
    """Open multilingual-e5-small, from a folder with its weights and its tokenizer."""
    return BiEncoder(folder, device, "query: ", "passage: ")
