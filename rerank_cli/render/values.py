"""What several formats say in the same words: numbers, places, and what a result's text is.

Writes nothing by itself.
"""

from rerank_cli.types import Document, Ranked

# What a model's float32 holds.
_DIGITS = 7


def number(value: float) -> float:
    """A score as it is written in JSON."""
    return float(decimal(value))


def decimal(value: float) -> str:
    """A score as it is written in lines and columns."""
    return f"{value:.{_DIGITS}g}"


def place(source: str | None, line: int | None) -> str:
    """Where something stands, as editors and compilers write it; empty where it came by itself."""
    if source is None:
        return ""
    return source if line is None else f"{source}:{line}"


def shown(result: Ranked, *, passages: bool) -> tuple[str, int | None]:
    """The text that a result is and its line: the passage's, or the document's."""
    if passages:
        return result.passage.text, result.passage.line
    return result.document.text, result.document.line


def document_place(document: Document) -> str:
    """Where a document stands; a whole file is named without a line."""
    return place(document.source, None if document.whole else document.line)
