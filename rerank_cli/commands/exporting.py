"""Exports a checkpoint that is here, or one of the Hub's that is fetched for it."""

from contextlib import ExitStack
from pathlib import Path

from rerank_cli import machine
from rerank_cli.errors import NotInstalled
from rerank_cli.models import HUB, read
from rerank_cli.models.export import Compared, export
from rerank_cli.models.hub import offline
from rerank_cli.models.store import Store
from rerank_cli.terminal import Terminal


def exported(source: str, out: Path, terminal: Terminal) -> list[Compared]:
    """Export a folder's checkpoint or `hf:OWNER/REPOSITORY`'s; raises what exporting raises."""
    with ExitStack() as stack:
        folder = Path(source).expanduser()
        if source.startswith(HUB):
            folder = _fetched(source, stack, terminal)
        return export(
            folder,
            out.expanduser(),
            features=machine.features(),
            name=source.removeprefix(HUB) if source.startswith(HUB) else folder.resolve().name,
            say=terminal.say,
        )


def _fetched(source: str, stack: ExitStack, terminal: Terminal) -> Path:
    reference = read(source)
    if (barrier := offline()) is not None:
        raise NotInstalled(f"{source} ({barrier} keeps off the network)", "checkpoint of it here")

    from rerank_cli.models.pull import fetch_checkpoint

    terminal.say(f"{source}: fetched")
    return fetch_checkpoint(
        str(reference.repository),
        reference.revision,
        Store.usual(),
        stack,
        lambda: terminal.say("another process is fetching it: waiting for that"),
    )
