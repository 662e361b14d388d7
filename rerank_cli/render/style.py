"""How results are to be written: the formats, and what can be asked of them.

Says which of it makes no sense together; writes nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from rerank_cli.errors import UsageError


class Format(StrEnum):
    """How results are written."""

    TABLE = "table"
    TEXT = "text"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    TREC = "trec"
    PATHS = "paths"
    MD = "md"


# Those with a place for the scores of a result's chunks.
EXPLAINING = (Format.TABLE, Format.JSON, Format.JSONL, Format.MD)


@dataclass(frozen=True, slots=True)
class Style:
    """What a writer is told beside the ranking.

    `passages` says that it is one of passages, `scores` that a score goes before each record,
    `null` that NUL ends each, and `full` that a table shows passages whole. `interactive` says
    that a person reads it on a terminal, which control characters would reach.
    """

    form: Format
    passages: bool = False
    scores: bool = False
    null: bool = False
    full: bool = False
    interactive: bool = False
    color: bool = False
    width: int = 80

    def check(self, *, explain: bool) -> None:
        """Find what the format has no place for, before anything is scored."""
        if explain and self.form not in EXPLAINING:
            raise UsageError(
                f"--explain needs a format with a place for chunks, and {self.form} has none",
                hint=f"add -f {', '.join(EXPLAINING[:-1])} or {EXPLAINING[-1]}",
            )
        if self.scores and self.form is Format.PATHS:
            raise UsageError(
                "--scores goes before records, and paths has none",
                hint="-f tsv has scores and paths",
            )
