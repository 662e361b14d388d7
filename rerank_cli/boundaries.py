"""Where a reader would cut a text: how good a cut is, at a place between two tokens.

Judges single places; which of them to take is `chunking`'s business. Words are separated by
space, or are single CJK characters. No language model, no dictionary.
"""

import unicodedata
from collections.abc import Sequence
from enum import IntEnum

Span = tuple[int, int]

_SENTENCE_END = frozenset(".!?…。！？｡؟।")
_CLOSING = frozenset("\"'”’»)]}」』）】")
_WIDE_SENTENCE_END = frozenset("。！？｡")
_ZWJ = "\u200d"
_REACH = 64  # how far a run of one kind is followed: no text that is read has longer ones


class Cut(IntEnum):
    """How good a place is to cut at, worst first."""

    IN_CHARACTER = 0  # between tokens of one code point: never, if there is any other way
    IN_GRAPHEME = 1  # between code points that a reader sees as one character
    CHARACTER = 2
    PUNCTUATION = 3  # inside 3.14 and x-y, but better than inside a word
    WORD = 4
    LINE = 5
    SENTENCE = 6
    PARAGRAPH = 7


def cut_before(text: str, spans: Sequence[Span], index: int) -> Cut:
    """Judge a cut before token `index`, which must be neither the first nor past the last."""
    place = spans[index][0]
    if place < spans[index - 1][1] or not 0 < place < len(text):
        return Cut.IN_CHARACTER  # also beside a token that stands for no text at an end
    start, end = place, place
    while start > 0 and place - start < _REACH and text[start - 1].isspace():
        start -= 1
    while end < len(text) and end - place < _REACH and text[end].isspace():
        end += 1
    gap = text[start:end]
    lines = gap.count("\n") or gap.count("\r")
    if lines > 1:
        return Cut.PARAGRAPH
    if _ends_sentence(text, start, spaced=bool(gap)):
        return Cut.SENTENCE
    if lines:
        return Cut.LINE
    if gap:
        return Cut.WORD
    if joins(text, place):
        return Cut.IN_GRAPHEME
    before, after = text[place - 1], text[place]
    if _is_ideograph(before) or _is_ideograph(after):
        return Cut.WORD
    return Cut.CHARACTER if _in_word(before) and _in_word(after) else Cut.PUNCTUATION


def joins(text: str, place: int) -> bool:
    """Whether the code points on both sides of `place` belong to one visible character.

    Marks, joiners, emoji modifiers and flags, after Unicode's rules for extended grapheme
    clusters (UAX #29); conjoining Hangul is left out, as text holds it composed.
    """
    before, after = text[place - 1], text[place]
    if _is_mark(after) or _ZWJ in (before, after):
        return True
    if (before, after) == ("\r", "\n") or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    return _is_flag(before) and _is_flag(after) and _flags_before(text, place) % 2 == 1


def _ends_sentence(text: str, end: int, *, spaced: bool) -> bool:
    lowest = max(0, end - _REACH)
    while end > lowest and text[end - 1] in _CLOSING:
        end -= 1
    if end == 0:
        return False
    return text[end - 1] in (_SENTENCE_END if spaced else _WIDE_SENTENCE_END)


def _is_ideograph(char: str) -> bool:
    """Whether a character is of a script without spaces: wide, but not Hangul, which has them."""
    return unicodedata.east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"


def _in_word(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flags_before(text: str, place: int) -> int:
    start = place
    while start > 0 and place - start < _REACH and _is_flag(text[start - 1]):
        start -= 1
    return place - start
