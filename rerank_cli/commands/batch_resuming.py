"""Where a batch goes on: which job its journal is of, and how much of what it made is whole."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rerank_cli import __version__
from rerank_cli.batch.items import PARQUET_SUFFIX
from rerank_cli.batch.journal import Journal, Mark, journal_of
from rerank_cli.batch.lines import digest_of
from rerank_cli.batch.sources import Source
from rerank_cli.commands.batch_asked import BatchOptions
from rerank_cli.errors import InputError
from rerank_cli.scorers import local_folder


def journal_and_start(asked: BatchOptions, source: Source) -> tuple[Journal | None, Mark]:
    """The job's journal and where it was; a new one where there is none to go on with."""
    if asked.output is None:
        return None, Mark()
    path, identity = journal_of(asked.output), _identity(asked, source)
    if not asked.resume or not (path.exists() or asked.output.exists()):
        return Journal.begin(path, identity), Mark()
    journal = Journal.resume(path, identity)
    mark = journal.last(_size_of(asked.output))
    if mark.position and not _is_whole(asked.output, mark.position):
        mark = journal.last_synced()
    if asked.errors is not None and mark.errors > _size_of(asked.errors):
        mark = journal.last_synced()
        if mark.errors > _size_of(asked.errors):
            raise InputError(
                f"{asked.errors}: has less than was written to it",
                hint="without it the job cannot go on: begin anew, with another -o",
            )
    return journal, mark


def is_whole_job(journal: Journal, output: Path) -> bool:
    """Whether a job was done, and what it made is still there."""
    return journal.is_done and _size_of(output) == journal.marks[-1].position


def _size_of(output: Path) -> int:
    """How much of an output is there: bytes of a file, parts of a folder."""
    if output.is_dir():
        return sum(1 for _ in output.glob(f"part-*{PARQUET_SUFFIX}"))
    return output.stat().st_size if output.exists() else 0


def _is_whole(output: Path, position: int) -> bool:
    """Whether a file has all up to a position: what a lost machine left out is zeros."""
    if output.is_dir() or output.suffix in (".gz", ".zst"):
        return True
    with output.open("rb") as stream:
        stream.seek(max(0, position - 4096))
        tail = stream.read(min(position, 4096))
    return tail.endswith(b"\n") and b"\0" not in tail


def _identity(asked: BatchOptions, source: Source) -> Mapping[str, Any]:
    """What the output depends on, which is the same where a job goes on."""
    return {"input": source.identity(), "version": __version__, **identity_of(asked)}


def identity_of(asked: BatchOptions) -> dict[str, Any]:
    """What the output depends on but for the input."""
    remote, sizes = asked.remote, asdict(asked.sizes)
    return {
        "model": {
            "name": asked.model,
            "files": _files_of(asked.model),
            "runtime": asked.engine.runtime,
            "device": asked.engine.device,
            "base_url": remote.base_url,
        },
        "options": {
            **asdict(asked.fields),
            **asdict(asked.selection),
            **sizes,
            "output": asked.shape,
            "max_record": asked.most,
            "errors": asked.errors is not None,
            "runs": asked.runs is not None,
            "asked": [dict(remote.asked.options), dict(remote.asked.fields)],
            "chunk": [remote.cutting, remote.sigmoid, remote.tokenizer],
        },
    }


def _files_of(model: str | None) -> dict[str, str]:
    """The hashes of a local model's files."""
    folder = local_folder(model)
    if folder is None:
        return {}
    from rerank_cli.runtimes.onnx_file import needs

    beside = [folder.graph.parent / name for name in needs(folder.graph)]
    return {path.name: digest_of(path) for path in (folder.graph, folder.tokenizer, *beside)}
