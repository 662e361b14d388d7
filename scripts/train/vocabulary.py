"""Prunes e5's vocabulary to the scripts of the thirty languages with the most speakers.

XLM-RoBERTa's 250,002 pieces, of a hundred languages, are four fifths of the model's size. Texts of
other scripts become unknown tokens; rare pieces of the remaining scripts become several others.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from encoder import Tower

MAX_PIECES = 150_000
SPACE = "\u2581"  # begins a word in a piece
# As Unicode names letters. Latin and Cyrillic write more languages than the thirty.
SCRIPTS = frozenset(
    {
        "ARABIC", "BENGALI", "CJK", "CYRILLIC", "DEVANAGARI", "GREEK", "GUJARATI", "GURMUKHI",
        "HANGUL", "HEBREW", "HIRAGANA", "KANNADA", "KATAKANA", "KATAKANA-HIRAGANA", "LATIN",
        "TAMIL", "TELUGU", "THAI",
    }
)  # fmt: skip


def write_pruned(tower: Tower, texts: Iterable[str], out: Path) -> None:
    """Write the tower's files with a vocabulary of MAX_PIECES, by their use in `texts`."""
    tokenizer = json.loads((tower.folder / "tokenizer.json").read_text(encoding="utf-8"))
    counts: Counter[int] = Counter()
    for row in tower.passage_rows(list(texts), 10_000) + tower.query_rows([""], 100):
        counts.update(row)
    kept_ids = choose(tokenizer["model"]["vocab"], counts)
    partial_path = out.with_suffix(".making")
    partial_path.mkdir(parents=True, exist_ok=True)
    bert = tower.bert()
    table = bert.get_input_embeddings().weight.detach()[torch.tensor(kept_ids)]
    bert.set_input_embeddings(torch.nn.Embedding.from_pretrained(table))
    bert.config.vocab_size = len(kept_ids)
    bert.save_pretrained(partial_path)
    text = json.dumps(prune(tokenizer, kept_ids), ensure_ascii=False, separators=(",", ":"))
    (partial_path / "tokenizer.json").write_text(text, encoding="utf-8")
    partial_path.rename(out)


def choose(pieces: list[tuple[str, float]], counts: Mapping[int, int]) -> list[int]:
    """The ids that stay, in order: pieces without letters, single characters, then by use.

    Pieces are in the order of their frequency in the hundred languages: of pieces that the texts
    use equally often, the first ones stay.
    """
    names = [piece for piece, _ in pieces]
    needed_ids = {number for number, name in enumerate(names) if is_needed(name)}
    other_ids = [
        number
        for number, name in enumerate(names)
        if number not in needed_ids and script_of(name) in SCRIPTS
    ]
    other_ids.sort(key=lambda number: (-min(counts.get(number, 0), 3), number))
    return sorted([*needed_ids, *other_ids[: MAX_PIECES - len(needed_ids)]])


def is_needed(piece: str) -> bool:
    """Whether a piece has no letter, is a single character of the scripts, or a special token."""
    script = script_of(piece)
    is_single = len(piece.removeprefix(SPACE)) <= 1
    return not script or piece.startswith("<") or (is_single and script in SCRIPTS)


def script_of(piece: str) -> str:
    """The script of a piece's first letter, by its Unicode name; empty without letters."""
    letter = next((character for character in piece if character.isalpha()), None)
    return unicodedata.name(letter, "?").split()[0] if letter else ""


def prune(tokenizer: dict[str, Any], kept_ids: list[int]) -> dict[str, Any]:
    """A tokenizer.json with these pieces only; special tokens have the ids of their new places."""
    places = {number: place for place, number in enumerate(kept_ids)}
    model, processor = tokenizer["model"], tokenizer["post_processor"]
    special = {
        name: {**token, "ids": [places[number] for number in token["ids"]]}
        for name, token in processor["special_tokens"].items()
    }
    added_tokens = [
        {**token, "id": places[token["id"]]}
        for token in tokenizer["added_tokens"]
        if token["id"] in places
    ]
    return {
        **tokenizer,
        "model": {
            **model,
            "vocab": [model["vocab"][number] for number in kept_ids],
            "unk_id": places[model["unk_id"]],
        },
        "post_processor": {**processor, "special_tokens": special},
        "added_tokens": added_tokens,
    }
