"""Tokenizers for models whose own is not at hand: an estimate, and characters.

Knows no vocabulary. The estimate is made to be too high rather than too low: windows are cut by it,
and what a service finds too long it cuts without a word. It was measured in windows of 64 estimated
tokens against XLM-RoBERTa's tokenizer (bge), multilingual BERT's, Qwen's and English BERT's. Of the
tokens that there are it counts, in the middle window and, in brackets, in the least:

- English and code 1.2 to 1.9 times as many (1.0), other languages in Latin letters 1.1 to 2.3 (0.9;
  Welsh 1.0 and 0.8);
- Russian, Arabic, Hebrew 1.2 to 2.0 (1.0), Chinese, Japanese, Korean 1.1 to 1.7 (1.0), Indic
  scripts 1.1 to 1.4 of Qwen's (1.0) and two to five times the others';
- hex, numbers, identifiers, URLs, logs 1.0 to 1.9 (1.0), base64 1.0 to 1.2 (0.9), emoji 2.5 (2.1).

It falls short for words of random small letters (0.7), for Chinese characters drawn at random (0.6
of Qwen's), and for English BERT on Korean or on Cyrillic, Hebrew or Arabic letters (0.6).
"""

import re

from rerank_cli.types import Tokens

# The first alternative that fits decides; the look-behinds stand after the first letter of theirs,
# so that the others are ruled out by that letter alone, which makes it twice as fast.
_PIECE = re.compile(
    # Letters by threes. One after a digit or after a capital inside a word stands alone, as in
    # hexadecimal and base64; beyond the sixth of a word, by twos, for words in no vocabulary.
    r"[a-z](?:(?<=[0-9].)|(?<=[0-9a-z][A-Z].)|(?<=[a-z]{6}.)[a-z]?|[a-z]{0,2})"
    r"|[A-Z](?:(?<=[0-9a-z].)|[a-z]{0,2})"
    # White space, but for the single space that a word begins with: Qwen's digits take none.
    r"|\s+(?=[0-9])|\s*[\r\n]|[^\S\r\n]{2,}|[^\S\r\n ]"
    r"|[0-9]"
    # Cyrillic as Russian has it, Arabic, Hebrew: by twos.
    r"|[\u0401\u0410-\u044f\u0451][\u0430-\u044f\u0451]?"
    r"|[\u0621-\u063a\u0641-\u064a]{1,2}"
    r"|[\u05d0-\u05ea]{1,2}"
    r"|\S"
)
# Characters that are more than one token each, as vocabularies hold them as bytes, or as they break
# up the word that they stand in: two at least, and of those the second list three.
_TWO = re.compile(
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
_THREE = re.compile("[\u0b00-\u0b7f\u0f00-\u0fff\U00010000-\U0010ffff]")  # Oriya, Tibetan, emoji


class EstimatedTokenizer:
    """Tokens such as a multilingual reranker makes, or somewhat shorter ones.

    The tokens of a character that is more than one share its span; most spaces lie in none.
    """

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _PIECE.finditer(text)]
        if not text.isascii():
            spans = [span for span in spans for _ in range(_weight(text[span[0]]))]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        count = len(_PIECE.findall(text))
        if not text.isascii():
            count += len(_TWO.findall(text)) + len(_THREE.findall(text))
        return count


class CharacterTokenizer:
    """One token a character, for limits that are stated in characters."""

    def encode(self, text: str) -> Tokens:
        return Tokens(range(len(text)), [(place, place + 1) for place in range(len(text))])

    def count(self, text: str) -> int:
        return len(text)


def _weight(char: str) -> int:
    """How many tokens a character is that begins a piece; only one alone in its piece is many."""
    if char.isascii() or not _TWO.match(char):
        return 1
    return 3 if _THREE.match(char) else 2
