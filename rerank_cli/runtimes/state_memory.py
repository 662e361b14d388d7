"""The memory of a model in parts for the texts that it has read, within a number of bytes.

States depend on the token ids of their text alone. So the memory changes no score, only the time.
"""

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from rerank_cli.ranking.powers import PassageCounts

ENTRY_BYTES = 2_000  # about what Python takes for a text beside its arrays and its key
_MAX_USES = 1 << 16  # uses that are noted


class TextStates(NamedTuple):
    """The states of one text alone: those inputs of the reader that depend on it, by name."""

    tokens: int
    values: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(value.nbytes for value in self.values.values())


class StateMemory:
    """The states of texts; each is made once, whichever threads need it.

    If they exceed `max_bytes`, those that were unused for the longest time are dropped. The last
    one stays, however large it is.
    """

    _min_texts = 1  # texts that stay

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size = 0  # of all that is kept, in bytes
        self._room = max_bytes  # the bytes that others do not use
        self._states: OrderedDict[bytes, Future[TextStates]] = OrderedDict()
        self._pending: dict[bytes, Future[TextStates]] = {}
        self._lock = threading.Lock()

    def find(
        self, ids: Sequence[int], encode: Callable[[Sequence[int]], TextStates]
    ) -> Future[TextStates]:
        """The states of a text, which another thread may still be making by its `encode`.

        If `encode` raises an error, the future has it, and it is not remembered.
        """
        key = array("q", ids).tobytes()
        with self._lock:
            future = self._states.get(key)
            if future is not None:
                self._states.move_to_end(key)
            else:
                future = self._pending.get(key)
            pause = self._note_use(key, is_known=future is not None)
            if future is not None:
                return future
            future = self._pending[key] = Future()
        try:
            states = encode(ids)
        except BaseException as error:  # noqa: BLE001 - whoever needs the states raises it
            with self._lock:
                del self._pending[key]
            future.set_exception(error)
            return future
        with self._lock:
            future.set_result(states)
            del self._pending[key]
            size = _size_of(key, states)
            if self._has_place(size, pause):
                self._states[key] = future
                self.size += size
                self._forget_oldest()
        return future

    def leave_room(self, size: int) -> None:
        """Reserve `size` of the bytes for other users of this memory."""
        with self._lock:
            self._room = self.max_bytes - size
            self._forget_oldest()

    # What follows is called with the lock held.

    def _forget_oldest(self) -> None:
        """Forget the states that were unused for the longest time, until the rest has room."""
        while self.size > self._room and len(self._states) > self._min_texts:
            oldest, future = self._states.popitem(last=False)
            self.size -= _size_of(oldest, future.result())

    def _note_use(self, _key: bytes, *, is_known: bool) -> int | None:
        """Note that a text is used; return how long ago it was used before, in uses of texts.

        Returns None for a new text.
        """
        return None

    def _has_place(self, _size: int, _pause: int | None) -> bool:
        """Whether to keep a text of some bytes that was last used a `pause` ago."""
        return True


class PassageMemory(StateMemory):
    """The states of passages, which are often needed in the same order for each query.

    If there is no room for all, forgetting the least recently used state would always forget the
    one that is needed next, and no state would ever be found. So a passage that was forgotten, and
    is needed again, is kept only if all states that it would replace have not been used for longer
    than the passage itself.
    """

    _min_texts = 0

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._uses: OrderedDict[int, int] = OrderedDict()  # when texts were used, by their hash
        self._time = self._read = self._remembered = 0

    @property
    def counts(self) -> PassageCounts:
        """How often a passage was read, and how often it was known."""
        with self._lock:
            return PassageCounts(self._read, self._remembered)

    def _note_use(self, key: bytes, *, is_known: bool) -> int | None:
        self._read += not is_known
        self._remembered += is_known
        self._time += 1
        before = self._uses.pop(hash(key), None)
        self._uses[hash(key)] = self._time
        if len(self._uses) > _MAX_USES:
            self._uses.popitem(last=False)
        return None if before is None else self._time - before

    def _has_place(self, size: int, pause: int | None) -> bool:
        if size > self._room:
            return False
        missing = self.size + size - self._room
        if pause is None:
            return True
        for key, future in self._states.items():  # the one that was not used for longest is first
            if missing <= 0:
                break
            last_use = self._uses.get(hash(key))
            if last_use is not None and self._time - last_use < pause:
                return False
            missing -= _size_of(key, future.result())
        return True


def _size_of(key: bytes, states: TextStates) -> int:
    """The bytes that a text takes."""
    return states.size + len(key) + ENTRY_BYTES
