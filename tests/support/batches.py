"""Helpers for tests of batches: records, and a job in a process of its own."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerank_cli import RemoteOptions, Selection
from rerank_cli.batch import ResultsShape
from rerank_cli.batch.options import BatchOptions
from rerank_cli.batch.records import RecordFields
from rerank_cli.output_files import OutputFile
from rerank_cli.ranking import ChunkOptions
from rerank_cli.runtimes import RuntimeOptions
from tests.conftest import MODELS, ROOT

SMALL = str(MODELS / "bert")
WORDS = ("soil", "leaf", "water", "worm", "slug", "lettuce", "garden", "eats", "a", "at night")
OPTIONS = BatchOptions(
    input="in.jsonl",
    output=OutputFile("out"),
    run_files=None,
    fields=RecordFields(),
    selection=Selection(),
    chunks=ChunkOptions(),
    results=ResultsShape.FULL,
    drop_documents=False,
    window_bytes=1 << 20,
    max_record_bytes=1 << 20,
    errors=None,
    report=None,
    model=SMALL,
    instruction=None,
    runtime=RuntimeOptions(),
    remote=RemoteOptions(),
)


def record(number: int, documents: int = 4, **fields: Any) -> dict[str, Any]:
    """A record like no other."""
    draw = random.Random(number)
    texts = [f"{' '.join(draw.choices(WORDS, k=6))} {number} {n}" for n in range(documents)]
    return {"id": f"r{number}", "query": f"garden {number}", "documents": texts, **fields}


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in records), encoding="utf-8")
    return path


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def start_batch(*arguments: str | Path, **options: Any) -> "subprocess.Popen[bytes]":
    """Begin a batch in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "rerank_cli", "batch", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **options},
    )
