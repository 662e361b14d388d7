"""Estimates tokens for models whose tokenizer is not on this machine; also counts characters.

The estimate has no vocabulary. It should be too high rather than too low, because documents are cut
by it, and a service may cut a text that is too long without saying so. It was measured in windows
of 64 estimated tokens against the tokenizers of XLM-RoBERTa (bge), multilingual BERT, Qwen and
English BERT. The figures are estimated tokens divided by true tokens, in the median window and, in
brackets, in the lowest:

- English and code 1.2 to 1.9 (1.0), other languages in Latin letters 1.1 to 2.3 (0.9; Welsh 1.0 and
  0.8);
- Russian, Arabic, Hebrew 1.2 to 2.0 (1.0), Chinese, Japanese, Korean 1.1 to 1.7 (1.0), Indic
  scripts 1.1 to 1.4 for Qwen (1.0) and two to five for the others;
- hex, numbers, identifiers, URLs, logs 1.0 to 1.9 (1.0), base64 1.0 to 1.2 (0.9), emoji 2.5 (2.1).

It is too low for words of random small letters (0.7), for random Chinese characters (0.6 for Qwen),
and for English BERT on Korean or on Cyrillic, Hebrew or Arabic letters (0.6).
"""

import re

from rerank_cli.types import Tokens

# The first alternative that matches wins. Look-behinds stand after the first letter of their
# alternative, so that this letter alone rules out the others; that makes it twice as fast.
_PIECE = re.compile(
    # Letters by threes. A letter after a digit or after a capital inside a word is alone, as in
    # hexadecimal and base64; beyond the sixth of a word, by twos, for words of no vocabulary.
    r"[a-z](?:(?<=[0-9].)|(?<=[0-9a-z][A-Z].)|(?<=[a-z]{6}.)[a-z]?|[a-z]{0,2})"
    r"|[A-Z](?:(?<=[0-9a-z].)|[a-z]{0,2})"
    # White space, except for the single space before a word. A space before a digit counts too,
    # because Qwen's digits take none.
    r"|\s+(?=[0-9])|\s*[\r\n]|[^\S\r\n]{2,}|[^\S\r\n ]"
    r"|[0-9]"
    # Cyrillic as Russian has it, Arabic, Hebrew: by twos.
    r"|[\u0401\u0410-\u044f\u0451][\u0430-\u044f\u0451]?"
    r"|[\u0621-\u063a\u0641-\u064a]{1,2}"
    r"|[\u05d0-\u05ea]{1,2}"
    r"|\S"
)
# Characters of two or more tokens each, because vocabularies hold them as bytes, or because they
# break up their word. Those of `_THREE_TOKENS`, which are here too, have three.
_TWO_TOKENS = re.compile(
    "["
    "\u00d0\u00de\u00f0\u00fe\u0100-\u017f\u0250-\u02ff"  # Icelandic, Czech, Latvian; phonetic
    "\u0386-\u0390\u03ac-\u03b0\u03ca-\u03ce"  # Greek with accents
    "\u0490-\u05cf"  # Kazakh and others; Armenian; the points of Hebrew
    "\u0600-\u0620\u064b-\u065f\u0670-\u0900"  # Persian, Uyghur, Syriac; the points of Arabic
    "\u0901-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"  # Devanagari's signs and vowels
    "\u0981-\u0983\u09bc-\u09d7"  # Bengali's
    "\u0a00-\u0b82\u0bbe-\u0bd7"  # Gurmukhi to Oriya; Tamil's signs and vowels
    "\u0c00-\u0dff\u0e80-\u10ff\u1200-\u1cff"  # Telugu to Sinhala, Lao to Georgian, Ethiopic, Khmer
    "\u200b-\u200f\u2070-\u218f\u2200-\u22ff\u27c0-\u2bff"  # joiners, mathematics
    "\u3400-\u4dbf\ua000-\uabff"  # rare Chinese, scripts of few speakers
    "\U00010000-\U0010ffff"  # emoji and whatever else
    "]"
)
# Oriya, Tibetan, emoji.
_THREE_TOKENS = re.compile("[\u0b00-\u0b7f\u0f00-\u0fff\U00010000-\U0010ffff]")


class EstimatedTokenizer:
    """Makes about as many tokens as a multilingual reranker's tokenizer, or some more.

    If a character has several tokens, they share its span; most spaces are in no span.
    """

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _PIECE.finditer(text)]
        if not text.isascii():
            spans = [span for span in spans for _ in range(_token_count(text[span[0]]))]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        count = len(_PIECE.findall(text))
        if not text.isascii():
            count += len(_TWO_TOKENS.findall(text)) + len(_THREE_TOKENS.findall(text))
        return count


class CharacterTokenizer:
    """One token a character, for limits that are stated in characters."""

    def encode(self, text: str) -> Tokens:
        return Tokens(range(len(text)), [(place, place + 1) for place in range(len(text))])

    def count(self, text: str) -> int:
        return len(text)


def _token_count(char: str) -> int:
    """How many tokens a piece has that begins with a character; only single ones have several."""
    if char.isascii() or not _TWO_TOKENS.match(char):
        return 1
    return 3 if _THREE_TOKENS.match(char) else 2
