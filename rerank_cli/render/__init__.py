"""Turns a ranking into bytes: one writer for each `Format`, a module each.

Decides nothing about order or content, and knows no stream: `terminal` and `destination` do.
"""

from collections.abc import Callable, Iterator, Sequence

from rerank_cli.render.style import EXPLAINING, Format, Style
from rerank_cli.terminal import readable
from rerank_cli.types import Envelope, Ranking

__all__ = ["EXPLAINING", "Format", "Style", "render"]

Writer = Callable[[Ranking, Style], Iterator[bytes]]


def render(ranking: Ranking, style: Style, envelopes: Sequence[Envelope] = ()) -> Iterator[bytes]:
    """Write a ranking in a style: bytes in a pipe, and what cannot do a terminal harm on one.

    `envelopes` are those of every source that was read, whether or not any of it is in the
    ranking. Errors are raised before the first piece.
    """
    if style.form is Format.TEXT:
        from rerank_cli.render.text import text

        pieces = text(ranking, style, envelopes)
    else:
        pieces = _writer(style.form)(ranking, style)
    if style.interactive and style.form is not Format.TABLE:  # which has colours of its own
        return (readable(piece.decode("utf-8", "replace")).encode() for piece in pieces)
    return pieces


def _writer(form: Format) -> Writer:
    """Import a format's writer: none is worth its time where it is not used, rich least of all."""
    match form:
        case Format.TABLE:
            from rerank_cli.render.table import table

            return table
        case Format.TSV | Format.CSV:
            from rerank_cli.render.columns import as_csv, as_tsv

            return as_csv if form is Format.CSV else as_tsv
        case Format.JSON | Format.JSONL:
            from rerank_cli.render.objects import as_json, as_jsonl

            return as_json if form is Format.JSON else as_jsonl
        case Format.TREC:
            from rerank_cli.render.trec import trec

            return trec
        case Format.PATHS:
            from rerank_cli.render.paths import paths

            return paths
        case _:
            from rerank_cli.render.markdown import markdown

            return markdown
