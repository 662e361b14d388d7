"""The start of `rerank` and of `python -m rerank_cli`.

It sets what Ctrl-C and other signals do, and only then imports the command line: they work while it
imports too.
"""

import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

_GC_OBJECTS = 50_000  # new objects between two collections
_SWITCH_SECONDS = 0.0002


def main() -> None:
    """Run the command line. Ctrl-C ends it, also while it imports, reads or scores.

    With `progress.catch_interrupt`, the first Ctrl-C ends a command's work in good order.
    """
    _fill_standard_streams()
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU"):
        number = getattr(signal, name, None)  # Windows has the first two only
        # A signal that is ignored stays ignored: SIGHUP under nohup, SIGINT after `&` in a script.
        usual = (signal.SIG_DFL, signal.default_int_handler)
        if number is not None and signal.getsignal(number) in usual:
            signal.signal(number, _leave)
    # Imported modules are not garbage, and searching them takes a fiftieth of a short run.
    gc.set_threshold(_GC_OBJECTS)
    # By default a thread with a score waits up to 5 ms for the thread that reads.
    sys.setswitchinterval(_SWITCH_SECONDS)

    from rerank_cli.errors import OutOfMemory

    try:
        from rerank_cli.cli.app import main as run_command_line

        run_command_line()
    except (
        ImportError,
        MemoryError,
        SystemError,
    ) as error:  # there may be too little memory even to report that
        if not OutOfMemory.caused(error):
            raise
        os.write(2, f"rerank: {OutOfMemory()}\n".encode())
        os._exit(OutOfMemory.exit_code)


def _fill_standard_streams() -> None:
    """Open the null device in place of standard streams that the caller has closed.

    Otherwise a file that is opened later could get the number of stderr, and a library's messages
    would go into that file.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _leave(number: int, _frame: FrameType | None) -> None:
    files = sys.modules.get("rerank_cli.atomic_files")  # None if it is not imported yet
    if stop_writing := getattr(files, "stop_writing", None):
        stop_writing()
    if number == signal.SIGINT:
        progress = sys.modules.get("rerank_cli.progress")
        if say_interrupted := getattr(progress, "say_interrupted", None):
            say_interrupted()
        os._exit(130)  # C code would swallow an exception, as onnxruntime's import does
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # the parent process learns that the signal ended this one


if __name__ == "__main__":
    main()
