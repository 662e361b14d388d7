"""Fetches what transformers needs of a repository: a checkpoint and its tokenizer."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from rerank_cli.errors import ModelError
from rerank_cli.hub.choosing import checked
from rerank_cli.hub.client import listing
from rerank_cli.hub.fetching import fetched, room
from rerank_cli.store import Store

_KINDS = (".json", ".safetensors", ".model", ".txt")


def fetch_checkpoint(
    repository: str, revision: str, store: Store, stack: ExitStack, waiting: Callable[[], None]
) -> Path:
    """Have a checkpoint in a folder, which lasts as long as the `stack`; raises `ModelError`."""
    folder = stack.enter_context(store.alone(repository, "checkpoint", waiting))
    of = listing(repository, revision or None)
    files = [
        file
        for path, file in of.files.items()
        if path.endswith(_KINDS) and PurePosixPath(path).parent == PurePosixPath()
    ]
    checked(file.path for file in files)
    if not any(file.path.endswith(".safetensors") for file in files):
        raise ModelError(
            f"{repository}: has no weights in safetensors",
            hint="weights in pickles can run anything, and are not read",
        )
    room(folder, sum(file.size for file in files))
    for file in files:
        fetched(of, file, folder, lambda _: None)
    return folder
