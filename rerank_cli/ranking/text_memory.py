"""Remembers a first stage's work on texts for the next queries, within a number of bytes.

    text ─ get ─ the value of an equal text      text, value ─ put

A first stage looks at all documents for each query. Most of its work depends on their texts alone:
the text as it is searched, the rows of its words, the chunks. The key of a value is the text
itself, so that it is found if the same text comes as another `Document`. A value from memory equals
a new one.
"""

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rerank_cli.ranking.chunking import Plan, Split
from rerank_cli.structure import Block
from rerank_cli.types import Document, Tokenizer

MEMORY_SHARE = 4  # texts get at most 1 / MEMORY_SHARE of the memory for passages
_LEAST_CHARACTERS = 256  # of a text to remember; a shorter one is processed as fast as found
_ENTRY_BYTES = 500  # about what Python needs for an entry besides its text and value
_TOKEN_BYTES = 40  # for each token of a chunk
_CHUNK_BYTES = 500  # for the rest of a chunk
_BLOCK_BYTES = 250  # for a block of a document's structure


class TextGroup(NamedTuple):
    """A text, the title before each of its parts, and the number of its parts."""

    text: str
    title: str = ""
    parts: int = 1


@dataclass(slots=True)
class _KeptValue:
    value: Any
    size: int
    query: int  # the last one that used it


class TextMemory:
    """Remembers what was made of texts. Any thread may use it.

    When it is full, it forgets the values that were unused for the longest time, but none that the
    present query has used. So a query always finds some texts, even if there is no room for all of
    them.

    leave_room  is called before the memory grows, with its new size in bytes: another memory makes
                room
    """

    def __init__(
        self, max_bytes: int, leave_room: Callable[[int], None] = lambda _size: None
    ) -> None:
        self.max_bytes = max_bytes
        self.size = 0  # of all entries, in bytes
        self._leave_room = leave_room
        self._entries: OrderedDict[Hashable, _KeptValue] = OrderedDict()
        self._query = 0
        self._lock = threading.Lock()

    def begin_query(self) -> None:
        """Note that another query begins."""
        with self._lock:
            self._query += 1

    def takes(self, text: str) -> bool:
        """Whether values made of a text are worth keeping."""
        return self.max_bytes > 0 and len(text) >= _LEAST_CHARACTERS

    def get(self, key: Hashable) -> Any:
        """The value of a key; None if there is none."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.query = self._query
            self._entries.move_to_end(key)
            return entry.value

    def put(self, key: Hashable, value: Any, size: int) -> None:
        """Keep a value if there is room for it; `size` is its bytes and those of its key."""
        size += _ENTRY_BYTES
        with self._lock:
            if key in self._entries or not self._make_room(size):
                return
            self._leave_room(self.size + size)
            self._entries[key] = _KeptValue(value, size, self._query)
            self.size += size

    def split(self, plan: Plan, document: Document) -> Split:
        """Cut a document by a plan, unless an equal text was cut in the same way."""
        text = document.text
        if not self.takes(text) or document.media is not None:
            return plan.split(document)
        tokenizer, is_label = plan.tokenizer, document.text_is_label
        names = (document.title, *document.headings)
        key = (_KeptSplit, text, names, document.syntax, is_label, plan.cut_key)
        kept_split: _KeptSplit | None = self.get(key)
        if (
            kept_split is not None
            and kept_split.tokenizer is tokenizer
            and kept_split.blocks == document.blocks
        ):
            return _for_document(kept_split.split, document)
        split = plan.split(document)
        # The rest of a document, such as a record's other fields, may have any size.
        bare = _for_document(split, Document(text))
        kept_split = _KeptSplit(bare, document.blocks, tokenizer)
        self.put(key, kept_split, sum(map(text_size, names)) + kept_split.size)
        return split

    def _make_room(self, size: int) -> bool:
        """Forget the oldest entries if that makes room for `size` bytes; return whether it does.

        Called with the lock held.
        """
        missing, oldest = self.size + size - self.max_bytes, list[Hashable]()
        for key, entry in self._entries.items():
            if missing <= 0 or entry.query == self._query:
                break
            oldest.append(key)
            missing -= entry.size
        if missing > 0:
            return False
        for key in oldest:
            self.size -= self._entries.pop(key).size
        return True


class _KeptSplit(NamedTuple):
    """The chunks of a text, and the blocks and the tokenizer by which it was cut."""

    split: Split
    blocks: Sequence[Block] | None
    tokenizer: Tokenizer | None

    @property
    def size(self) -> int:
        """The approximate size in bytes."""
        chunks = sum(
            text_size(chunk.text) + _TOKEN_BYTES * len(chunk.ids or ()) + _CHUNK_BYTES
            for chunk in self.split.chunks
        )
        blocks = _BLOCK_BYTES * len(self.blocks or ())
        return text_size(self.split.document.text) + chunks + blocks


def _for_document(split: Split, document: Document) -> Split:
    """Move windows to another document with the same text."""
    chunks = [replace(chunk, document=document) for chunk in split.chunks]
    return split._replace(document=document, chunks=chunks)


def text_size(text: str) -> int:
    """The bytes of a text."""
    return sys.getsizeof(text)


NO_MEMORY = TextMemory(0)
