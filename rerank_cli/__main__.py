"""Where the command `rerank` and `python -m rerank_cli` begin.

Imports the command line inside the function, so that Ctrl-C during start-up is as quiet as later.
"""

import os


def main() -> None:
    try:
        from rerank_cli.cli import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        os._exit(130)


if __name__ == "__main__":
    main()
