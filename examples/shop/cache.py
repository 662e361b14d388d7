"""Pages that are kept in memory for a while, as drawing them takes long."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable


class Cache:
    """At most `size` values, each for `seconds`. The one that was not used for longest goes first."""

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The value of a key; `make` is called without the lock, so that others need not wait."""
        with self._lock:
            found = self._values.get(key)
            if found is not None and found[0] > time.monotonic():
                self._values.move_to_end(key)
                return found[1]
        value = make()
        with self._lock:
            self._values[key] = (time.monotonic() + self._seconds, value)
            self._values.move_to_end(key)
            self._evict()
        return value

    def forget(self, key: str) -> None:
        """Drop a page at once, as when a price has changed."""
        with self._lock:
            self._values.pop(key, None)

    def _evict(self) -> None:
        while len(self._values) > self._size:
            self._values.popitem(last=False)
