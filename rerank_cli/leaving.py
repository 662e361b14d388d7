"""What is put in order when Ctrl-C ends the process, which it does without any more of its code."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def on_ctrl_c(action: Callable[[], None]) -> Iterator[None]:
    """Have something done first, should it come while the block runs."""
    before = signal.getsignal(signal.SIGINT)

    def leave(number: int, frame: FrameType | None) -> None:
        action()
        if callable(before):
            before(number, frame)

    if callable(before):
        signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        if callable(before):
            signal.signal(signal.SIGINT, before)
