"""Reads a JSONL file of queries, each with its own documents and which of them are relevant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerank_cli.errors import InputError
from rerank_cli.evaluation.collection import Candidate, Collection
from rerank_cli.inputs.trec import objects_of
from rerank_cli.types import Document

_HINT = (
    'as in {"query": "…", "documents": ["…", "…"], "relevant": [1]}: places from 0, ids, a grade '
    "for each document, or an object of ids and grades"
)


def read(path: Path) -> Collection:
    """Read a file; raises `InputError` with the line of what is not a query with documents."""
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[Candidate]] = {}
    twice = below = permuted = 0
    for number, record in objects_of(path):
        query, documents = record.get("query"), record.get("documents")
        if not isinstance(query, str) or not isinstance(documents, list) or not documents:
            raise InputError(f"{path}:{number}: needs a query and its documents", hint=_HINT)
        name = str(record.get("id", record.get("_id", number)))
        if name in queries:
            raise InputError(f"{path}:{number}: a query with the id {name} was there before")
        named = _named(documents, f"{path}:{number}")
        places = [name for name, _ in named]
        found = dict(reversed(named))  # the first of a name
        found = {name: found[name] for name in dict.fromkeys(places)}
        twice += len(named) - len(found)
        relevant = record.get("relevant")
        permuted += _is_permutation(relevant, len(documents))
        try:
            grades = _grades(relevant, places)
        except (OverflowError, ValueError) as error:
            raise InputError(f"{path}:{number}: relevant {error}", hint=_HINT) from error
        queries[name] = query
        if grades is not None:
            qrels[name] = grades
            below += sum(grade < 0 for grade in grades.values())
        candidates[name] = [
            Candidate(document_name, float(len(found) - place), document)
            for place, (document_name, document) in enumerate(found.items())
        ]
    notes = []
    if twice:
        notes.append(
            f"{twice:,} documents have an id that their query had before: the first counts"
        )
    if below:
        notes.append(f"{below:,} grades are below zero: they count as not relevant")
    if permuted:
        notes.append(
            f"{permuted:,} lists of what is relevant could be places or grades: "
            "as long as the documents, they are read as grades"
        )
    return Collection(path.name.partition(".")[0], queries, qrels, {}, candidates, notes)


def _named(documents: Sequence[Any], where: str) -> list[tuple[str, Document]]:
    """Documents and their ids; raises `InputError`."""
    named = []
    for place, content in enumerate(documents):
        document = _document(content, place)
        if document is None:
            raise InputError(f"{where}: document {place} has no text", hint=_HINT)
        named.append((str(document.id), document))
    return named


def _document(content: Any, place: int) -> Document | None:
    if isinstance(content, str):
        return Document(content, id=str(place))
    if not isinstance(content, dict) or not isinstance(content.get("text"), str):
        return None
    name = content.get("id", content.get("_id", place))
    title = content.get("title")
    return Document(content["text"], id=str(name), title=title if isinstance(title, str) else "")


def _grades(relevant: Any, places: Sequence[str]) -> dict[str, int] | None:
    """Grades of documents by id; None where nothing is said.

    A list of numbers that is as long as the documents has a grade for each of them. Any other list
    has what is relevant, by place or id, and what is not in it is not relevant; of an object what
    is not in it was not judged. Raises `ValueError` for what is none of these.
    """
    if relevant is None:
        return None
    if isinstance(relevant, Mapping):
        return {_known(name, places): _grade(grade) for name, grade in relevant.items()}
    if not isinstance(relevant, list):
        raise ValueError("is neither a list nor an object")
    if relevant and all(isinstance(one, int | float) for one in relevant):
        if len(relevant) == len(places):
            grades: dict[str, int] = {}
            for name, grade in zip(places, relevant, strict=True):
                grades[name] = max(grades.get(name, -(10**6)), _grade(grade))
            return grades
        if any(isinstance(one, bool) for one in relevant):
            raise ValueError(f"has {len(relevant)} truths for {len(places)} documents")
        if any(str(one) in places and places.index(str(one)) != one for one in relevant):
            raise ValueError("has numbers that could be places or ids: ids are to be in quotes")
        if not all(isinstance(one, int) and 0 <= one < len(places) for one in relevant):
            raise ValueError(f"has a place that is not among the {len(places)} documents")
        return dict.fromkeys(places, 0) | {places[one]: 1 for one in relevant}
    return dict.fromkeys(places, 0) | {_known(name, places): 1 for name in relevant}


def _is_permutation(relevant: Any, count: int) -> bool:
    """Whether a list of grades could as well be places: those of several documents, each once."""
    return (
        isinstance(relevant, list)
        and len(relevant) == count > 2
        and not any(isinstance(one, bool) for one in relevant)
        and sorted(map(str, relevant)) == sorted(map(str, range(count)))
    )


def _known(name: Any, places: Sequence[str]) -> str:
    if str(name) not in places:
        raise ValueError(f"has {name!r}, which is no document's id")
    return str(name)


def _grade(grade: Any) -> int:
    if not isinstance(grade, int | float) or int(grade) != grade:
        raise ValueError(f"has {grade!r}, which is no grade: a whole number")
    return int(grade)
