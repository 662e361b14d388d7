"""Notices texts in scripts that a model was never shown: their scores mean nothing."""

from collections.abc import Iterable, Sequence

_SEEN = 400  # characters of a text that are looked at
_ENDS_LATIN = 0x370  # from Greek on other scripts follow, but for two blocks of Latin
_MORE_LATIN = (range(0x1E00, 0x1F00), range(0x2C60, 0x2C80), range(0xA720, 0xA800))
_ELSE = "for other languages take a multilingual model, as -m siliconflow/BAAI/bge-reranker-v2-m3"


class Scripts:
    """Counts the queries and passages that a model of Latin script is given."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._passages = self._others = 0

    def see(self, queries: Iterable[str], passages: Iterable[str]) -> Sequence[str]:
        """What to tell of these and of the passages before them: a sentence, or nothing."""
        for passage in passages:
            self._passages += 1
            self._others += not is_latin(passage)
        query = not all(map(is_latin, queries))
        if not query and 2 * self._others <= self._passages:
            return ()
        what = "the query is" if query else "most documents are"
        return (f"{self._model} reads English, and {what} not in Latin script: {_ELSE}",)


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
