"""What a command line asks to be ranked: its query, and where its documents are.

Reads the query and lists of names; the documents themselves are read when they are ranked.
"""

import os
import sys
from collections.abc import Sequence

from rerank_cli.errors import UsageError
from rerank_cli.inputs.documents import Inputs
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.files import content_of, names_in
from rerank_cli.inputs.source import Reading
from rerank_cli.inputs.text import envelope_of


def gather(
    arguments: Sequence[str],
    reading: Reading,
    *,
    query: str | None = None,
    query_file: str | None = None,
    documents: Sequence[str] = (),
    files_from: str | None = None,
    null: bool = False,
    recursive: bool = False,
) -> tuple[str, Inputs]:
    """Tell the query from the files: where it is given by an option every argument is a file.

    `null` says that NUL ends the names of a list. Standard input is read where nothing else is
    named and it is not a terminal. Raises `UsageError` where there is no query or nothing to rank,
    and `InputError` for a file of either that cannot be read.
    """
    reading.check()
    if query is not None and query_file is not None:
        raise UsageError("--query and --query-file both give a query", hint="give one of them")
    wanted, paths = query, list(arguments)
    if wanted is None and query_file is None:
        if not paths:
            raise UsageError("there is no query", hint="rerank QUERY [FILE]...")
        wanted = paths.pop(0)
    if not paths and not documents and files_from is None:
        paths = [_unnamed(wanted, recursive=recursive)]
    if [query_file, files_from, *paths].count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    return (
        _query_in(query_file) if query_file is not None else _text(wanted or ""),
        Inputs(
            texts=[_text(document) for document in documents],
            paths=paths,
            listed=[] if files_from is None else names_in(files_from, null=null),
            recursive=recursive,
            reading=reading,
        ),
    )


def _unnamed(query: str | None, *, recursive: bool) -> str:
    """What is read where no document is named: this folder with -r, else standard input."""
    if recursive:
        return os.curdir
    if sys.stdin is None or sys.stdin.isatty():
        is_file = query is not None and os.path.isfile(query)
        raise UsageError(
            "there are no documents to rank" + (f", and {query} is a file" if is_file else ""),
            hint=f'rerank "your query" {query if is_file else "FILE"}, or pipe lines into it',
        )
    return STDIN


def _query_in(path: str) -> str:
    content = content_of(path)
    envelope = envelope_of(content)
    return content[len(envelope.mark) :].decode(envelope.encoding, "replace").strip()


def _text(argument: str) -> str:
    """Read an argument as UTF-8, as all text here; the locale decoded it, whatever it may be."""
    return os.fsencode(argument).decode("utf-8", "replace")
