"""Where the command `rerank` and `python -m rerank_cli` begin.

Sets what Ctrl-C and its like do, and imports the command line only then.
"""

import gc
import os
import signal
import sys
from types import FrameType

_OBJECTS = 50_000  # made since the garbage was last looked for
_SWITCH_SECONDS = 0.0002


def main() -> None:
    """Run the command line; Ctrl-C leaves at once, whatever is being imported, read or scored."""
    signal.signal(signal.SIGINT, _leave)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, _leave)
    # What is imported stays: to look for garbage in it is a fiftieth of a short run.
    gc.set_threshold(_OBJECTS)
    # A thread with a score to give waits for the one that reads: up to 5 ms, if not told otherwise.
    sys.setswitchinterval(_SWITCH_SECONDS)

    from rerank_cli.cli.app import main as run_command_line

    run_command_line()


def _leave(number: int, _frame: FrameType | None) -> None:
    files = sys.modules.get("rerank_cli.atomic_files")  # there may have been no time to import it
    if clean_up := getattr(files, "clean_up", None):
        clean_up()
    if number == signal.SIGINT:
        os._exit(130)  # an exception would be lost in C code: onnxruntime's import makes it its own
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # whoever started us is told how this ended


if __name__ == "__main__":
    main()
