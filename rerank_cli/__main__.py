"""Where the command `rerank` and `python -m rerank_cli` begin.

Sets what Ctrl-C does, and imports the command line only then.
"""

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line; Ctrl-C leaves at once, whatever is being imported, read or scored."""
    signal.signal(signal.SIGINT, _leave)

    from rerank_cli.cli import main as run_command_line

    run_command_line()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(130)  # an exception would be lost in C code: onnxruntime's import makes it its own


if __name__ == "__main__":
    main()
