"""Joins a model's order with an earlier one, where the documents were ranked already.

    Document ─ check_priors ─ Document, whose earlier score is a number
    Ranked… in the model's order ─ blend_orders ─ Ranked… in the joint order

The earlier order is that of the input, or that of the scores in a field of the documents. Scores of
two kinds cannot be added. So the orders are joined by reciprocal ranks, as the first stage joins
those of words and meaning.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rerank_cli.errors import InputError
from rerank_cli.ranking.surveys import sum_reciprocal_ranks
from rerank_cli.terminal import abbreviate
from rerank_cli.types import Blend, Document, Ranked, find_field, format_place

_SHOWN_CHARACTERS = 60  # of a value or of the names of fields in a message


def prior_score(document: Document, field: str) -> float:
    """The earlier score in a field of a document; a dot leads into an object.

    A number in a text counts too, as tables have no others. Raises `InputError` with the document's
    place if there is none.
    """
    fields = document.fields or {}
    try:
        value = find_field(fields, field)
    except LookupError:
        names = abbreviate(", ".join(map(str, fields)), _SHOWN_CHARACTERS)
        raise InputError(
            f"{_place_of(document)}no field called {field}, for its earlier score",
            hint=f"the record has {names}" if fields else "only records have fields",
        ) from None
    number = math.nan
    value_text = abbreviate(repr(value), _SHOWN_CHARACTERS)
    if value is None:  # that is how NaN and infinite numbers of JSON are read
        value_text = "null, NaN or Infinity"
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"{_place_of(document)}the field {field} holds no number: {value_text}",
            hint="an earlier score is a finite number, the higher the better",
        )
    return number


def check_priors(documents: Iterable[Document], field: str) -> Iterator[Document]:
    """Yield documents; raises `InputError` at the first one without an earlier score."""
    for document in documents:
        prior_score(document, field)
        yield document


def blend_orders(results: Sequence[Ranked], prior_field: str | None) -> list[Ranked]:
    """Join the order of results, which is the model's, with the earlier one; best first.

    Both ranks are counted among these results. Equal scores keep the order of the input.
    """
    priors: dict[int, float] = {}
    if prior_field is not None:
        priors = {result.index: prior_score(result.document, prior_field) for result in results}
    own = {result.index: result for result in results}
    earlier = sorted(own, key=lambda index: (-priors.get(index, 0.0), index))
    prior_ranks = {index: rank for rank, index in enumerate(earlier, 1)}
    sums = sum_reciprocal_ranks([list(own), earlier])
    blended = []
    for rank, index in enumerate(sorted(own, key=lambda index: (-sums[index], index)), 1):
        result = own[index]
        blend = Blend(sums[index], result.rank, prior_ranks[index], priors.get(index))
        blended.append(replace(result, rank=rank, blend=blend))
    return blended


def _place_of(document: Document) -> str:
    place = format_place(document.source, document.line)
    return f"{place}: " if place else ""
