"""A run as trec_eval and its kin read it: `qid Q0 docid rank score tag`.

A docid has no white space in it, and is made of the document's id, place or index, so that it is
the same in every run over the same documents.
"""

import re
from collections.abc import Iterator
from urllib.parse import quote

from rerank_cli.render.style import Style
from rerank_cli.render.values import decimal, document_place
from rerank_cli.types import Document, Ranking

_QUERY = "1"
# Every line needs a score, and a blank document has none: it comes after all that have.
_NO_SCORE = "-inf"
# Surrogates are bytes of a file's name that are no text.
_NO_WORD = re.compile("[\\s\ud800-\udfff]")


def trec(ranking: Ranking, style: Style) -> Iterator[bytes]:
    """A line a result; the score is the raw one, the tag the model's name."""
    tag = one_word(ranking.info.model)
    for result in ranking.results:
        name = _name(result.document, result.index)
        if style.passages and result.document.media is None:
            name = f"{name}#{result.passage.start}-{result.passage.end}"
        yield _line(name, result.rank, decimal(result.score), tag)
    for place, blank in enumerate(ranking.blanks, len(ranking.results) + 1):
        yield _line(_name(blank.document, blank.index), place, _NO_SCORE, tag)


def _line(name: str, rank: int, score: str, tag: str) -> bytes:
    line = f"{_QUERY} Q0 {one_word(name)} {rank} {score} {tag}\n"
    return line.encode()


def _name(document: Document, index: int) -> str:
    return document.id or document_place(document) or str(index)


def one_word(name: str) -> str:
    """A name without the white space that would end it in a run."""
    return _NO_WORD.sub(lambda match: quote(match.group(), errors="surrogatepass"), name)
