"""Files with a path and a language, and what the prior makes of them."""

from rerank_cli import Document
from rerank_cli.ranking.places import PlacePrior
from rerank_cli.structure import syntax_of
from rerank_cli.types import Chunk

CODE = "value = 1\n"


def file(name: str, text: str = CODE) -> Document:
    return Document(text, source=name, line=1, whole=True, syntax=syntax_of(name))


def values(query: str, name: str, text: str = CODE) -> dict[str, float]:
    """The values of the parts of the prior for a file of one passage."""
    document = file(name, text)
    (row,) = PlacePrior(query).values(document, [Chunk(document, 0, len(text), text, 0)], [0.0])
    return {part: value for part, value in row.items() if value}
