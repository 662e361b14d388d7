"""What is compared: a model, and the options that it is run with."""

import argparse
import shlex
from dataclasses import dataclass
from typing import Any, NoReturn

from rerank_cli.errors import UsageError
from rerank_cli.ranking.chunking import DEFAULT_MAX_CHUNKS
from rerank_cli.ranking.results import Aggregation
from rerank_cli.runtimes import Device, Engine, Runtime

PREPEND = ("title", "none")


@dataclass(frozen=True, slots=True)
class System:
    """A model by the name that `-m` takes, how it is run, and `options`, which are `rank`'s.

    With `titled` a document's title is put before each of its chunks, else once before its text.
    `name` is what it is called in tables: what the user wrote.
    """

    name: str
    model: str | None
    engine: Engine
    options: tuple[tuple[str, Any], ...] = ()
    titled: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def system_of(text: str, engine: Engine) -> System:
    """Read a model and options of its own, as in `mini@2 --max-chunks 1`; raises `UsageError`."""
    model, options_begin, rest = text.strip().partition(" --")
    parser = _Parser(add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("chunk-tokens", "overlap-tokens", "max-chunks", "threads"):
        parser.add_argument(f"--{name}", type=_positive)
    parser.add_argument("--aggregate", choices=[one.value for one in Aggregation])
    parser.add_argument("--prepend", choices=PREPEND)
    parser.add_argument("--runtime", choices=[one.value for one in Runtime])
    parser.add_argument("--device", choices=[one.value for one in Device])
    try:
        given = vars(parser.parse_args(shlex.split(f"--{rest}") if options_begin else []))
    except (ValueError, argparse.ArgumentError) as error:
        raise UsageError(
            f"-m {text!r}: {error}",
            hint="a model, and options of its own in the same argument: -m 'mini@2 --max-chunks 1'",
        ) from error
    options = {
        name: given[name]
        for name in ("chunk_tokens", "overlap_tokens", "max_chunks", "aggregate")
        if given[name] is not None
    }
    options.setdefault("max_chunks", DEFAULT_MAX_CHUNKS)
    return System(
        name=text.strip(),
        model=model.strip(),
        engine=Engine(
            Runtime(given["runtime"] or engine.runtime),
            Device(given["device"] or engine.device),
            given["threads"] or engine.threads,
        ),
        options=tuple(sorted(options.items())),
        titled=given["prepend"] == "title",
    )
