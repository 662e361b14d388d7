"""The bi-encoders whose cosines are baselines, and what models learn from: MiniLM and e5.

Neither is trained here. Both run in bfloat16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from encoder import folder as minilm_folder
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import BertModel

BATCH_TOKENS = 8192
LENGTH_STEP_TOKENS = 16  # each new shape costs the CPU's kernels time


@dataclass(frozen=True, slots=True)
class Marks:
    """What a bi-encoder wants before a query's and a passage's text."""

    query: str = ""
    passage: str = ""


class BiEncoder:
    """A tokenizer and a network that make one unit vector of a text: the mean of its last states.

    Texts are cut at `max_tokens`, special tokens included.
    """

    def __init__(
        self, folder: Path, device: torch.device, marks: Marks, max_tokens: int = 256
    ) -> None:
        self.device, self.marks, self.max_tokens = device, marks, max_tokens
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(max_tokens)
        self.encoder = (
            BertModel.from_pretrained(folder, add_pooling_layer=False)
            .to(device, torch.bfloat16)
            .eval()
        )
        self._padding = int(self.encoder.config.pad_token_id or 0)

    def embed_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of queries."""
        vectors: np.ndarray = self._embed([self.marks.query + text for text in texts])
        return vectors

    def embed_passages(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (texts, width) of passages."""
        vectors: np.ndarray = self._embed([self.marks.passage + text for text in texts])
        return vectors

    @torch.no_grad()
    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        vectors = np.empty((len(rows), self.encoder.config.hidden_size), np.float32)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order):
                length = _round_up(len(rows[order[end]]))
                if (end + 1 - start) * length > BATCH_TOKENS:
                    break
                end += 1
            places = order[start:end]
            vectors[places] = self._embed_rows([rows[place] for place in places])
            start = end
        return vectors

    def _embed_rows(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        length = _round_up(max(map(len, rows)))
        ids = torch.full((len(rows), length), self._padding)
        mask = torch.zeros(len(rows), length, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask.unsqueeze(-1).float()
        mean = (states * weights).sum(1) / weights.sum(1)
        vectors: np.ndarray = functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


def open_minilm(device: torch.device) -> BiEncoder:
    """Open all-MiniLM-L6-v2, from its Python package."""
    return BiEncoder(minilm_folder(), device, Marks())


def open_e5(folder: Path, device: torch.device) -> BiEncoder:
    """Open multilingual-e5-small, from a folder with its weights and its tokenizer."""
    return BiEncoder(folder, device, Marks("query: ", "passage: "))


def _round_up(length: int) -> int:
    return -(-length // LENGTH_STEP_TOKENS) * LENGTH_STEP_TOKENS
