"""Notices texts in scripts that a model was never shown: their scores mean nothing."""

from collections.abc import Sequence

_SEEN = 400  # characters of a text that are looked at
_ENDS_LATIN = 0x370  # from Greek on other scripts follow, but for two blocks of Latin
_MORE_LATIN = (range(0x1E00, 0x1F00), range(0x2C60, 0x2C80), range(0xA720, 0xA800))
_ELSE = "for other languages take a multilingual model: rerank models pull bge-reranker-v2-m3"


class Scripts:
    """Counts the documents of one ranking that a scorer of Latin script cannot read."""

    def __init__(self, languages: Sequence[str]) -> None:
        self._counts = list(languages) == ["en"]
        self._documents = self._others = 0

    def see(self, text: str) -> None:
        if self._counts:
            self._documents += 1
            self._others += not is_latin(text)

    def notes(self, query: str, model: str) -> Sequence[str]:
        """What to tell of the query and of all documents: a sentence, or nothing."""
        if not self._counts:
            return ()
        known = is_latin(query)
        if known and 2 * self._others <= self._documents:
            return ()
        what = "most documents are" if known else "the query is"
        return (f"{model} reads English, and {what} not in Latin script: {_ELSE}",)


def is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin; true where it has none."""
    if text.isascii():
        return True
    letters = [ord(letter) for letter in text[:_SEEN] if letter.isalpha()]
    other = [
        code
        for code in letters
        if code >= _ENDS_LATIN and not any(code in block for block in _MORE_LATIN)
    ]
    return 2 * len(other) <= len(letters)
