"""Remembers the scores of the texts that went by last, so that an equal one is not scored again.

Compares whole texts and holds no more of them than a fixed number of characters.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Self

from rerank_cli.types import Document, Media

DOCUMENTS = 1 << 15
CHARACTERS = 1 << 22


class Key(NamedTuple):
    """What a document's scores depend on."""

    title: str
    text: str
    media: Media | None = None
    query: str = ""

    @classmethod
    def of(cls, document: Document, query: str = "") -> Self:
        return cls(document.title, document.text, document.media, query)

    @property
    def size(self) -> int:
        """How many characters it holds; a place may be all of an image, as a data URL."""
        place = self.media.place if self.media else ""
        return len(self.title) + len(self.text) + len(place) + len(self.query)


class Recent:
    """The scores of the chunks of recent documents; the oldest are forgotten first."""

    def __init__(self, documents: int = DOCUMENTS, characters: int = CHARACTERS) -> None:
        self._most_documents = documents
        self._most_characters = characters
        self._characters = 0
        self._scores: OrderedDict[Key, Sequence[float | None]] = OrderedDict()

    def get(self, key: Key) -> Sequence[float | None] | None:
        """The scores of an equal document's chunks, if it is remembered."""
        return self._scores.get(key)

    def put(self, key: Key, scores: Sequence[float | None]) -> None:
        """Remember a document's scores, unless it is longer than all that may be remembered."""
        if key.size > self._most_characters or key in self._scores:
            return
        self._scores[key] = scores
        self._characters += key.size
        while len(self._scores) > self._most_documents or self._characters > self._most_characters:
            oldest, _ = self._scores.popitem(last=False)
            self._characters -= oldest.size
