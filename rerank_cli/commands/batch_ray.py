"""`rerank batch --engine ray`: the same job in shards, with a manifest of those that are done."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_cli import __version__
from rerank_cli.atomic_files import replace_file
from rerank_cli.batch.figures import Figures
from rerank_cli.batch.on_ray import Part, Work, run, written
from rerank_cli.batch.shards import Place, Shard, shards_of
from rerank_cli.commands.batch_asked import BatchOptions
from rerank_cli.commands.batch_report import failed_line
from rerank_cli.commands.batch_resuming import identity_of
from rerank_cli.errors import ExitCode, InputError, OutputError, UsageError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.scorers import is_remote
from rerank_cli.terminal import Terminal

_MANIFEST = "manifest.json"
_SHARDS = 64  # about: enough that all cores of a few machines are busy to the end
_MOST = 64_000_000  # bytes of a shard
_JOINED = 1 << 20


class Manifest:
    """What a job is, its shards, and the parts of those that are done; `uri` is the folder."""

    def __init__(self, uri: str, job: Mapping[str, Any], shards: list[Shard]) -> None:
        self.uri = uri
        self.job = json.loads(json.dumps(job))
        self.shards = shards
        self.parts: dict[int, Part] = {}

    def resume(self) -> None:
        """Read what was done; raises `InputError` where that was another job."""
        place = Place.of(f"{self.uri}/{_MANIFEST}")
        try:
            with place.opened() as stream:
                kept = json.loads(stream.read())
        except FileNotFoundError:
            return
        changed = [name for name in self.job if kept["job"].get(name) != self.job[name]]
        if changed or [Shard(*one) for one in kept["shards"]] != self.shards:
            raise InputError(
                f"{self.uri}: this is not the job that was begun there: "
                f"{', '.join(changed) or 'the input'} differs",
                hint="give what was given then; or begin anew, with another -o",
            )
        self.parts = {one["shard"]: Part(**one) for one in kept["parts"]}

    def add(self, part: Part) -> None:
        self.parts[part.shard] = part
        self.write()

    def write(self) -> None:
        parts = [self.parts[number]._asdict() for number in sorted(self.parts)]
        body = {"job": self.job, "shards": self.shards, "parts": parts}
        with written(f"{self.uri}/{_MANIFEST}") as stream:
            stream.write(json.dumps(body, indent=1).encode())

    @property
    def left(self) -> list[Shard]:
        return [one for one in self.shards if one.number not in self.parts]

    def figures(self) -> Figures:
        """The figures of all parts."""
        whole = Figures()
        for part in self.parts.values():
            whole.merge(Figures(part.figures))
        return whole


def run_on_ray(
    asked: BatchOptions, address: str | None, terminal: Terminal, *, ordered: bool
) -> ExitCode:
    """Do all of it, or what is left of it; raises `ScorerError`, `InputError`, `OutputError`."""
    if asked.runs is not None or asked.errors is not None or asked.fail_fast:
        raise UsageError("--engine ray has no --run, --errors and --fail-fast")
    if asked.input == STDIN or asked.output is None:
        raise UsageError("--engine ray reads files and writes a folder", hint="IN -o OUT")
    if is_remote(asked.model):
        raise UsageError(
            f"--engine ray is for models that are run here, and {asked.model} is a provider's",
            hint="one machine sends all that a provider takes: leave --engine out",
        )
    output = asked.output_uri
    folder = f"{output}.parts" if ordered else output
    if ordered and "://" in output:
        raise UsageError("--ordered joins parts in a file of this machine", hint="-o OUT.jsonl")
    manifest = Manifest(
        folder,
        {"version": __version__, **identity_of(asked)},
        shards_of(asked.input, _SHARDS, _MOST),
    )
    _prepare(folder, manifest, asked, terminal)
    work = Work(
        folder,
        asked.model,
        asked.engine,
        asked.remote,
        asked.fields,
        asked.selection,
        asked.sizes,
        asked.shape,
        asked.window,
        asked.most,
    )
    if manifest.left:
        for part in run(work, manifest.left, address):
            manifest.add(part)
            terminal.say(f"{len(manifest.parts):,} of {len(manifest.shards):,} shards done")
    if ordered:
        _join(manifest, Path(output))
    figures = manifest.figures()
    if asked.report is not None:
        body = {**figures.kept(), "parts": len(manifest.parts), "asked": identity_of(asked)}
        replace_file(asked.report, json.dumps(body, indent=2).encode() + b"\n")
    if figures.failed:
        terminal.warn(failed_line(figures))
        return ExitCode.SCORER
    return ExitCode.OK


def _prepare(folder: str, manifest: Manifest, asked: BatchOptions, terminal: Terminal) -> None:
    """Make the folder, or find what was done in it."""
    from pyarrow.fs import FileType

    place = Place.of(folder)
    there = place.system.get_file_info(place.path).type
    if there == FileType.File:
        raise OutputError(f"{folder}: is a file", hint="ray writes a folder of parts")
    if there == FileType.Directory and not asked.resume:
        raise OutputError(
            f"{folder}: is there already", hint="--resume goes on in it; or name another folder"
        )
    if asked.resume:
        manifest.resume()
        terminal.say(f"{len(manifest.parts):,} of {len(manifest.shards):,} shards were done before")
    try:
        place.system.create_dir(place.path)
        manifest.write()
    except OSError as error:
        raise OutputError(f"{folder}: {error}") from error


def _join(manifest: Manifest, output: Path) -> None:
    """Make one file of the parts, in the order of the input, and remove them."""
    from rerank_cli.atomic_files import replaced

    folder = Path(manifest.uri)
    try:
        with replaced(output) as stream:
            for number in sorted(manifest.parts):
                with (folder / manifest.parts[number].name).open("rb") as part:
                    shutil.copyfileobj(part, stream, _JOINED)
        shutil.rmtree(folder)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error.strerror}") from error
