"""Time how texts are cut by their structure.

    python scripts/bench_structure.py [--megabytes 10] [FILE]...

For each FILE (default: texts of this project, of each kind) its text is repeated, with numbers that
make it different, to so many megabytes. Three times are shown: to find its blocks, to make its
tokens, and to cut it into windows with and without its blocks. The last two are measured in turns
on a part that fits in `--max-chunks` windows, and their ratio is the middle one of the turns. What
follows are texts that could take long, at two sizes: the larger one may take as many times as long
as it is larger.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rerank_cli.ranking import ChunkOptions
from rerank_cli.ranking.chunking import Plan, plan_chunks
from rerank_cli.scorers import open_scorer
from rerank_cli.structure import find_blocks, syntax_of
from rerank_cli.types import Document

ROOT = Path(__file__).parent.parent
TEXTS = ("docs/batch.md", "rerank_cli/inputs/grep.py", "examples/faq.txt", "examples/server.log")
TURNS = 5
SPLIT_CHARACTERS = 1 << 19
PATHOLOGICAL_FACTOR = 4

PATHOLOGICAL: Mapping[str, tuple[str, Callable[[int], str]]] = {
    "nested lists": ("markdown", lambda n: "\n".join("  " * (i % 1000) + "- a" for i in range(n))),
    "nested list on a line": ("markdown", lambda n: "- " * n + "a"),
    "nested quotations": ("markdown", lambda n: "> " * n + "a"),
    "headings": ("markdown", lambda n: "# a\n" * n),
    "headings with text": ("markdown", lambda n: "## a\n\nb c d\n\n" * n),
    "open fences": ("markdown", lambda n: "```\n~~~\n" * n),
    "table rows": ("markdown", lambda n: "| a | b |\n|---|---|\n" + "| c | d |\n" * n),
    "a long line": ("markdown", lambda n: "word " * (10 * n)),
    "titles": ("rst", lambda n: "Title\n=====\n\ntext\n\n" * n),
    "adornments": ("rst", lambda n: "=====\n" * n),
    "numbers": ("", lambda n: "".join(f"{i}. A title\n\ntext\n\n" for i in range(n))),
    "entries": ("log", lambda n: "2026-01-02 03:04:05 INFO a\n  more\n" * n),
    "functions": ("python", lambda n: "def f(a):\n    return a\n\n\n" * n),
    "nested brackets": ("python", lambda n: "a = " + "(" * n + ")" * n),
    "nested functions": (
        "python",
        lambda n: "".join(" " * i + "def f():\n" for i in range(n // 100)),
    ),
    "open braces": ("c", lambda n: "void f() {\n" * n),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--megabytes", type=float, default=10)
    parser.add_argument("--count", type=int, default=20_000, help="of what is pathological")
    arguments = parser.parse_args()
    files = arguments.files or [ROOT / name for name in TEXTS]
    scorer = open_scorer("mini")
    plan = plan_chunks("where are the keys", scorer.info, ChunkOptions())
    print("| text | MB | blocks | to find them, s | tokens, s | windows | ratio |")
    print("|---|---|---|---|---|---|---|")
    for path in files:
        time_text(path, int(arguments.megabytes * 1e6), plan)
    print(f"\n| text | seconds for {arguments.count:,} | for {PATHOLOGICAL_FACTOR} times as many |")
    print("|---|---|---|")
    for name, (syntax, make) in PATHOLOGICAL.items():
        texts = [make(arguments.count), make(PATHOLOGICAL_FACTOR * arguments.count)]
        seconds = [seconds_of(partial(find_blocks, text, syntax)) for text in texts]
        print(f"| {name} | {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


def time_text(path: Path, size: int, plan: Plan) -> None:
    """Print the times of a text like that of a file."""
    text, syntax = repeat(path.read_text(encoding="utf-8"), size), syntax_of(path.name)
    finding = seconds_of(lambda: find_blocks(text, syntax))
    tokenizer = plan.tokenizer
    assert tokenizer is not None
    encoding = seconds_of(lambda: tokenizer.encode(text))
    document = Document(text[:SPLIT_CHARACTERS], syntax=syntax)
    plain = replace(document, syntax="", blocks=())
    ratios: list[float] = []
    for _ in range(TURNS):
        own, old = (seconds_of(partial(plan.split, each)) for each in (document, plain))
        ratios.append(own / old)
    windows = (len(plan.split(each).chunks) for each in (document, plain))
    cells: Sequence[object] = (
        path.name,
        f"{len(text) / 1e6:.0f}",
        f"{len(find_blocks(text, syntax)):,}",
        f"{finding:.2f}",
        f"{encoding:.2f}",
        " for ".join(f"{count:,}" for count in windows),
        f"{statistics.median(ratios):.2f}",
    )
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def repeat(text: str, size: int) -> str:
    """A text with itself behind it, its digits changed, until it has so many characters."""
    parts, length = list[str](), 0
    while length < size:
        parts.append(text.replace("1", str(len(parts) % 1000)))
        length += len(parts[-1])
    return "\n".join(parts)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
