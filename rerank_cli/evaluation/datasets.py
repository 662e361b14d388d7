"""Reads a set whose parts are files: a BEIR folder, or corpus, queries, judgements and run apart.

The layout of folders is BEIR's (Thakur and others 2021), that of runs and judgements TREC's.
"""

import random
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rerank_cli.errors import InputError, UsageError, check_fields, require_extra
from rerank_cli.inputs.trec import (
    MAX_GRADE,
    check_grade,
    find_jsonl,
    read_objects,
    read_qrels,
    read_run,
    read_texts,
)
from rerank_cli.ranking.surveys import K1, B
from rerank_cli.scorers import BM25
from rerank_cli.terminal import format_count
from rerank_cli.types import Document
from rerank_cli.words import Words

# For each query id, the grades of documents by their ids; a grade above 0 is relevant.
Qrels = Mapping[str, Mapping[str, int]]


ALL_DOCUMENTS = sys.maxsize  # a depth
_LABEL_HINT = (
    'add "relevant": [0] to each line, the positions of its relevant documents; --label-field '
    "names another field"
)


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Which field and which grade make a document relevant.

    field      the field of a record, or of its documents, that has the labels
    min_grade  the lowest grade of a relevant document
    condensed  whether documents without a judgement are left out; else they are not relevant
    """

    field: str = "relevant"
    min_grade: int = 1
    condensed: bool = False

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense."""
        check_fields(self)


class Candidate(NamedTuple):
    """A document that may answer a query, and its score in the order that it is from."""

    id: str
    score: float
    document: Document


@dataclass(frozen=True, slots=True)
class Collection:
    """The content of a dataset; `notes` are sentences about its faults.

    `corpus` has every document by its id. `candidates` are each query's, best first, in the order
    in which they came; None if a first stage must find them first.
    """

    name: str
    queries: Mapping[str, str]
    qrels: Qrels
    corpus: Mapping[str, Document]
    candidates: Mapping[str, Sequence[Candidate]] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """A collection whose queries are judged, with at most `depth` candidates each.

    `first` names the order of the candidates: `bm25` if BM25 found them, else `input`.
    """

    name: str
    first: str
    depth: int
    queries: Mapping[str, str]
    qrels: Qrels
    candidates: Mapping[str, Sequence[Candidate]]
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def pairs(self) -> int:
        """How many documents are scored, each for its query."""
        return sum(len(candidates) for candidates in self.candidates.values())


def describe_depth(depth: int) -> str:
    """How many of a query's documents are reranked, in words."""
    return "all" if depth == ALL_DOCUMENTS else f"top {depth}"


def order_by_score(scores: Mapping[str, float]) -> list[str]:
    """Documents, best first, as trec_eval orders them: by 32 bits of the score, ties by id."""
    with np.errstate(over="ignore"):  # beyond 32 bits a score is infinite there too
        return sorted(scores, key=lambda name: (np.float32(scores[name]), name), reverse=True)


@dataclass(frozen=True, slots=True)
class Parts:
    """The places of the parts of a set."""

    name: str
    queries: Path
    corpus: Path
    qrels: Path
    run: Path | None = None


def find_parts(folder: Path, qrels: Path | None = None, run: Path | None = None) -> Parts:
    """Find a BEIR folder's parts; raises `InputError` if one is missing."""
    paths = {stem: find_jsonl(folder, stem) for stem in ("queries", "corpus")}
    for stem, path in paths.items():
        if path is None:
            raise InputError(
                f"{folder}: holds no {stem}.jsonl",
                hint="a BEIR folder has corpus.jsonl, queries.jsonl and qrels/test.tsv",
            )
    return Parts(
        folder.resolve().name,
        Path(str(paths["queries"])),
        Path(str(paths["corpus"])),
        qrels or _judgements(folder),
        run,
    )


def read_folder(parts: Parts) -> Collection:
    """Read all of a set; with a run, only those documents of the corpus that are in the run."""
    notes: list[str] = []
    queries: dict[str, str] = {}
    twice: Counter[str] = Counter()
    for name, _, text in read_texts(parts.queries, "query"):
        twice["query"] += name in queries
        queries.setdefault(name, text)
    qrels: dict[str, dict[str, int]] = {}
    below = 0
    for query, document, grade in read_qrels(parts.qrels):
        grades = qrels.setdefault(query, {})
        twice["judgement"] += document in grades
        grades.setdefault(document, grade)
        below += grade < 0
    run = _run(parts.run) if parts.run else None
    run_names = (
        {name for ranking in run.values() for name, _ in ranking} if run is not None else None
    )
    corpus: dict[str, Document] = {}
    absent = {name for own in qrels.values() for name, grade in own.items() if grade > 0}
    for name, title, text in read_texts(parts.corpus, "document"):
        absent.discard(name)
        if run_names is None or name in run_names:
            twice["document"] += name in corpus
            corpus.setdefault(name, Document(text, id=name, title=title))
    notes += [
        f"{format_count(count, what)} with an id that was there before: the first one counts"
        for what, count in twice.items()
        if count
    ]
    if below:
        notes.append(f"{format_count(below, 'grade')} below zero: not relevant")
    if absent:
        what = format_count(len(absent), "relevant document")
        notes.append(_absence_note(what, sorted(absent), "never found"))
    if run is None:
        return Collection(parts.name, queries, qrels, corpus, None, notes)
    candidates: dict[str, Sequence[Candidate]] = {}
    missing: list[str] = []
    for query, ranking in run.items():
        present = [
            Candidate(name, score, corpus[name]) for name, score in ranking if name in corpus
        ]
        missing += [name for name, _ in ranking if name not in corpus]
        candidates[query] = present
    if missing:
        what = f"{format_count(len(missing), 'document')} of the run"
        notes.append(_absence_note(what, missing, "left out"))
    return Collection(parts.name, queries, qrels, corpus, candidates, notes)


def _absence_note(what: str, names: Sequence[str], effect: str) -> str:
    """A note on documents that the corpus lacks, with an id: the ids may be of another kind."""
    more = ", …" if len(names) > 1 else ""
    return f"{what} not in the corpus ({names[0]!r}{more}): {effect}"


def _judgements(folder: Path) -> Path:
    files: Sequence[Path] = sorted((folder / "qrels").glob("*.tsv*"))
    test = [path for path in files if path.name.startswith("test.tsv")]
    if not test and len(files) != 1:
        raise UsageError(
            f"{folder}: has {len(files)} files of judgements and none is test.tsv",
            hint="--qrels FILE says which" if files else "qrels/test.tsv is needed",
        )
    return (test or list(files))[0]


def _run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """A run's documents of each query in trec_eval's order: by score, ties by id, downwards."""
    scores: dict[str, dict[str, float]] = {}
    for query, document, score in read_run(path):
        if document in scores.setdefault(query, {}):
            raise InputError(f"{path}: has document {document} twice for query {query}")
        scores[query][document] = score
    return {
        query: [(name, own[name]) for name in order_by_score(own)] for query, own in scores.items()
    }


_RECORD_HINT = (
    'as in {"query": "…", "documents": ["…", "…"], "relevant": [1]}: places from 0, ids, a grade '
    "for each document, or an object of ids and grades"
)
_CLICKS_FIELD = "clicked"


def _read_records(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each record with its id and its place in messages.

    An object whose values are all objects, and that is not a record, has records by their ids.
    """
    for number, where, content in read_objects(path):
        is_record = "query" in content or "documents" in content
        if content and not is_record and all(isinstance(own, dict) for own in content.values()):
            for name, own in content.items():
                yield str(name), f"{where}: {name}", own
        else:
            yield str(content.get("id", content.get("_id", number))), where, content


def read_lists(path: Path, labels: LabelOptions | None = None) -> Collection:
    """Read a file; raises `InputError` with the line of an invalid record."""
    labels = LabelOptions() if labels is None else labels
    return collect_records(_read_records(path), path.name.partition(".")[0], labels)


def collect_records(
    records: Iterable[tuple[str, str, Mapping[str, Any]]], set_name: str, labels: LabelOptions
) -> Collection:
    """Make a set of records, each with its id and its place in messages; raises `InputError`."""
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[Candidate]] = {}
    counts: Counter[str] = Counter()
    for name, where, record in records:
        query, documents = record.get("query"), record.get("documents")
        if isinstance(documents, Mapping):
            documents = [_with_id(own, content, where) for own, content in documents.items()]
        if not isinstance(query, str) or not isinstance(documents, list) or not documents:
            raise InputError(f"{where}: needs a query and its documents", hint=_RECORD_HINT)
        if name in queries:
            raise InputError(f"{where}: a query with the id {name} appears twice")
        entries = _read_documents(documents, where)
        places = [own for own, _ in entries]
        documents_by_name = dict(reversed(entries))  # the first of a name
        documents_by_name = {name: documents_by_name[name] for name in dict.fromkeys(places)}
        counts["twice"] += len(entries) - len(documents_by_name)
        relevant, field = _find_labels(record, documents, places, labels.field)
        counts["clicks"] += field == _CLICKS_FIELD
        counts["permuted"] += field == labels.field and _is_permutation(relevant, len(documents))
        try:
            read_labels = _read_clicks if field == _CLICKS_FIELD else _read_grades
            grades = read_labels(relevant, places)
        except (OverflowError, RecursionError, ValueError) as error:
            raise InputError(f"{where}: {field} {error}", hint=_RECORD_HINT) from error
        queries[name] = query
        if grades is not None:
            qrels[name] = grades
            counts["below"] += sum(grade < 0 for grade in grades.values())
        candidates[name] = [
            Candidate(document_name, float(len(documents_by_name) - place), document)
            for place, (document_name, document) in enumerate(documents_by_name.items())
        ]
    notes = [
        f"{format_count(counts[what], noun)} {text}"
        for what, (noun, text) in _LIST_NOTES.items()
        if counts[what]
    ]
    return Collection(set_name, queries, qrels, {}, candidates, notes)


_CLICKS_NOTE = (
    "with clicks for labels. These say what people preferred of what they saw, and favour what "
    "came first: a document below the last click is not judged; one above it that was not clicked "
    "counts as not relevant, and may be relevant. --condensed leaves out what is not judged"
)
# A noun for each kind that is counted, and the remark on it.
_LIST_NOTES = {
    "twice": ("document", "with an id that the query had before: the first counts"),
    "below": ("grade", "below zero: not relevant"),
    "permuted": ("list", "of relevant documents could be positions or grades: read as grades"),
    "clicks": ("query", _CLICKS_NOTE),
}


def _find_labels(
    record: Mapping[str, Any], documents: Sequence[Any], places: Sequence[str], field: str
) -> tuple[Any, str]:
    """A record's labels, and their name in messages: a field of it or of documents, or clicks.

    A document without the field was not judged, if another has it.
    """
    if record.get(field) is not None:
        return record[field], field
    own = {
        name: content[field]
        for name, content in zip(places, documents, strict=True)
        if isinstance(content, dict) and field in content
    }
    if own:
        return own, f"documents' {field}"
    if isinstance(record.get(_CLICKS_FIELD), list):
        return record[_CLICKS_FIELD], _CLICKS_FIELD
    return None, field


def _read_documents(documents: Sequence[Any], where: str) -> list[tuple[str, Document]]:
    """Documents and their ids; raises `InputError`."""
    entries = []
    for place, content in enumerate(documents):
        document = _document(content, place)
        if document is None:
            raise InputError(f"{where}: document {place} has no text", hint=_RECORD_HINT)
        entries.append((str(document.id), document))
    return entries


def _document(content: Any, place: int) -> Document | None:
    if isinstance(content, str):
        return Document(content, id=str(place))
    if not isinstance(content, dict) or not isinstance(content.get("text"), str):
        return None
    name = content.get("id", content.get("_id", place))
    title = content.get("title")
    return Document(content["text"], id=str(name), title=title if isinstance(title, str) else "")


def _read_grades(relevant: Any, places: Sequence[str]) -> dict[str, int] | None:
    """Grades of documents by id; None if the value says nothing.

    A list of numbers that is as long as the documents has a grade for each of them. Any other list
    has the relevant documents, by place or id, and all others are not relevant. An object has
    grades by id, and all others were not judged. Raises `ValueError` for other values.
    """
    if relevant is None:
        return None
    if isinstance(relevant, Mapping):
        return {_check_name(name, places): _read_grade(grade) for name, grade in relevant.items()}
    if not isinstance(relevant, list):
        raise ValueError("is neither a list nor an object")
    if relevant and all(isinstance(grade, int | float) for grade in relevant):
        if len(relevant) == len(places):
            grades: dict[str, int] = {}
            for name, grade in zip(places, relevant, strict=True):
                grades[name] = max(grades.get(name, -MAX_GRADE), _read_grade(grade))
            return grades
        if any(isinstance(truth, bool) for truth in relevant):
            raise ValueError(
                f"has {len(relevant)} truths for {format_count(len(places), 'document')}"
            )
        if any(str(place) in places and places.index(str(place)) != place for place in relevant):
            raise ValueError("has numbers that could be places or ids: ids are to be in quotes")
        if not all(isinstance(place, int) and 0 <= place < len(places) for place in relevant):
            raise ValueError(f"has a place that is not below {len(places):,}: places count from 0")
        return dict.fromkeys(places, 0) | {places[place]: 1 for place in relevant}
    return dict.fromkeys(places, 0) | {_check_name(name, places): 1 for name in relevant}


def _read_clicks(clicks: Any, places: Sequence[str]) -> dict[str, int] | None:
    """Grades by clicks: of clicked documents, and of others above the last click.

    People read lists from the top: it is not known whether they saw the documents below (Joachims
    2002, "Optimizing search engines using clickthrough data"). None if nothing was clicked. Raises
    `ValueError` for a click that is neither a place nor an id.
    """
    names = []
    for click in clicks:
        is_place = isinstance(click, int) and not isinstance(click, bool)
        if is_place and not 0 <= click < len(places):
            raise ValueError(f"has a place that is not below {len(places):,}: places count from 0")
        names.append(places[click] if is_place else _check_name(click, places))
    if not names:
        return None
    last = max(places.index(name) for name in names)
    return dict.fromkeys(places[:last], 0) | dict.fromkeys(names, 1)


def _with_id(name: str, content: Any, where: str) -> Any:
    """A document of a mapping, with its key for an id; raises `InputError` for no document."""
    if isinstance(content, str):
        return {"id": name, "text": content}
    if content is not None and not isinstance(content, Mapping):
        raise InputError(
            f"{where}: the document {reprlib.repr(name)} is neither a text nor an object",
            hint=_RECORD_HINT,
        )
    return {"id": name, **(content or {})}


def _is_permutation(relevant: Any, count: int) -> bool:
    """Whether a list of grades could also be a list of the places of several documents."""
    return (
        isinstance(relevant, list)
        and len(relevant) == count > 2
        and not any(isinstance(grade, bool) for grade in relevant)
        and sorted(map(str, relevant)) == sorted(map(str, range(count)))
    )


def _check_name(name: Any, places: Sequence[str]) -> str:
    """A document's id; raises `ValueError` for any other value."""
    if str(name) not in places:
        raise ValueError(f"has {reprlib.repr(name)}, which is no document's id")
    return str(name)


def _read_grade(grade: Any) -> int:
    if not isinstance(grade, int | float):
        raise ValueError(f"has {reprlib.repr(grade)}, not a grade, which is a whole number")
    return check_grade(grade)


def task_of(collection: Collection, depth: int, sample: int | None, seed: int) -> Task:
    """Choose the queries that can be evaluated, all or a sample, and find their candidates.

    Raises `InputError` where there are none.
    """
    notes = list(collection.notes)
    judged_names = [name for name in collection.queries if name in collection.qrels]
    if unjudged_count := len(collection.queries) - len(judged_names):
        notes.append(f"{format_count(unjudged_count, 'query')} without judgements: left out")
    if blank := [name for name in judged_names if not collection.queries[name].strip()]:
        notes.append(f"{format_count(len(blank), 'blank query')}: left out")
        judged_names = [name for name in judged_names if name not in set(blank)]
    if strangers := len(collection.qrels.keys() - collection.queries.keys()):
        notes.append(
            f"{format_count(strangers, 'query')} of the judgements without a text: left out"
        )
    given_candidates = collection.candidates
    if given_candidates is not None:
        without = [name for name in judged_names if not given_candidates.get(name)]
        if without:
            notes.append(
                f"{format_count(len(without), 'query')} without candidates, with figures of 0"
            )
    if not judged_names:
        raise InputError(
            f"{collection.name}: no query has judgements, so nothing can be measured",
            hint=None if collection.qrels else _LABEL_HINT,
        )
    if sample is not None and sample < len(judged_names):
        judged_names = random.Random(seed).sample(judged_names, sample)  # noqa: S311 - not for a secret
    queries = {name: collection.queries[name] for name in judged_names}
    qrels = {name: collection.qrels[name] for name in judged_names}
    hopeless = sum(
        not any(grade > 0 for grade in judged_names.values()) for judged_names in qrels.values()
    )
    if hopeless:
        notes.append(
            f"{format_count(hopeless, 'query')} without a relevant document, with figures of 0, as "
            "in trec_eval"
        )
    if given_candidates is not None:
        candidates: Mapping[str, Sequence[Candidate]] = {
            name: list(given_candidates.get(name, ()))[:depth] for name in judged_names
        }
    else:
        candidates = retrieve_candidates(collection, queries, depth)
    first = BM25 if given_candidates is None else "input"
    return Task(collection.name, first, depth, queries, qrels, candidates, notes)


def retrieve_candidates(
    collection: Collection, queries: Mapping[str, str], depth: int
) -> dict[str, list[Candidate]]:
    """Find BM25's best documents for each query, best first; those share a word with it.

    If all documents are wanted, the others come after them, in the order of the corpus.
    """
    with require_extra("evaluation", "eval"):
        import bm25s
    if not collection.corpus:
        raise InputError(f"{collection.name}: the corpus is empty")
    words = Words()
    documents = list(collection.corpus.values())
    terms_by_query = {name: words.query_terms(query) for name, query in queries.items()}
    singles = frozenset[str]().union(*(terms.singles for terms in terms_by_query.values()))
    vocabulary: dict[str, int] = {}
    ids = [
        [
            vocabulary.setdefault(term, len(vocabulary))
            for term in words.terms(f"{document.title} {document.text}", singles)
        ]
        for document in documents
    ]
    if not vocabulary:
        return {name: [] for name in queries}
    index = bm25s.BM25(k1=K1, b=B)
    index.index((ids, vocabulary), show_progress=False)
    places_by_query, scores = index.retrieve(
        [list(terms.terms) for terms in terms_by_query.values()],
        k=min(depth, len(documents)),
        show_progress=False,
    )
    candidates = {}
    for name, places, values in zip(queries, places_by_query, scores, strict=True):
        best = {
            int(place): float(score)
            for place, score in zip(places, values, strict=True)
            if score > 0
        }
        if depth == ALL_DOCUMENTS:
            best |= {place: 0.0 for place in range(len(documents)) if place not in best}
        candidates[name] = [
            Candidate(str(documents[place].id), score, documents[place])
            for place, score in best.items()
        ]
    return candidates
