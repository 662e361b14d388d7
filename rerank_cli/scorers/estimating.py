"""Tokens of a model whose tokenizer is not at hand: an estimate, rather too high than too low.

Chunks that are cut by it fit into what a provider takes, so that nothing is cut there unseen.
"""

import re

from rerank_cli.types import Tokens

# What the tokenizers of rerankers make of text: words in pieces of which the usual are longer, so
# that three letters to a piece are rather few, and rare ones shorter; digits, signs and letters of
# other scripts often one each. A capital begins another piece, as it does in base64.
_PIECE = re.compile(r"[A-Z]?[a-z]{1,3}|[A-Z]{1,2}|[^\W\d_A-Za-z\u2e80-\U0003ffff]{1,2}|\S")
# Bytes of its UTF-8 are what a tokenizer falls back to for a sign that it does not know.
_RARE = re.compile("[\U00010000-\U0010ffff]")
_BYTES = 3


class EstimatedTokenizer:
    """About as many tokens as the tokenizers of multilingual rerankers make, or more."""

    def encode(self, text: str) -> Tokens:
        spans = []
        for match in _PIECE.finditer(text):
            spans += [match.span()] * (_BYTES if _RARE.match(match.group()) else 1)
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        return len(_PIECE.findall(text)) + (_BYTES - 1) * len(_RARE.findall(text))


class CharacterTokenizer:
    """A token a character: for limits that are stated in characters."""

    def encode(self, text: str) -> Tokens:
        return Tokens(range(len(text)), [(place, place + 1) for place in range(len(text))])

    def count(self, text: str) -> int:
        return len(text)
