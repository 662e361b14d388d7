"""The texts that models learn from: passages, and questions with the passages that answer them."""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETS = ("squad", "nq", "bioasq", "qamr")  # judged by people
TRANSLATED_SETS = ("jaquad", "drcd", "cmrc2018", "arcd")  # Japanese, Chinese, Arabic
LEAST_QUESTIONS = 50  # of a corpus
HELD_OUT = 25  # one in so many articles is held out for calibration and for choices
_SENTENCE = re.compile(
    r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9\"'(\[])|(?<=[\u3002\uff01\uff1f\u061f])[\u300d\u300f\u201d]*\s*"
)


@dataclass(slots=True)
class Passage:
    title: str
    text: str


@dataclass(slots=True)
class Question:
    """A question, the places of the passages that answer it, and short answers where known."""

    text: str
    relevant: list[int]
    answers: list[str] = field(default_factory=list)
    is_held_out: bool = False


@dataclass(slots=True)
class Corpus:
    """Passages and questions; those at the barred places are not used for training."""

    name: str
    passages: list[Passage]
    questions: list[Question]
    barred_passages: set[int] = field(default_factory=set)
    barred_questions: set[int] = field(default_factory=set)


def read(folder: Path, name: str) -> Corpus:
    """Read one training set, in BEIR's layout or as pairs."""
    if name == "qamr":
        return _pairs(folder / name / "pairs.jsonl.gz", name)
    places: dict[str, int] = {}
    passages: list[Passage] = []
    for record in _records(folder / name / "corpus.jsonl.gz"):
        places[record["_id"]] = len(passages)
        passages.append(Passage(record.get("title", ""), record["text"]))
    relevant: dict[str, list[int]] = {}
    with (folder / name / "qrels" / "train.tsv").open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            query, passage, grade = line.split()
            if int(grade) > 0:
                relevant.setdefault(query, []).append(places[passage])
    questions = [
        Question(record["text"], relevant[record["_id"]], list(record.get("answers", ())))
        for record in _records(folder / name / "queries.jsonl.gz")
        if record["_id"] in relevant
    ]
    return _split(Corpus(name, passages, questions))


def read_collected_pairs(
    path: Path, held_out: Collection[str], pairs: int, translated_pairs: int
) -> list[Corpus]:
    """Read the pairs of collect.py, without the packages held out. Each corpus is a sample.

    English has a corpus of each kind, with at most `pairs`. Each other language has one corpus with
    at most `translated_pairs`, with a name such as `docs-de`.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in _records(path):
        if record["package"] not in held_out:
            is_english = record["language"] == "en"
            name = record["kind"] if is_english else f"docs-{record['language']}"
            groups.setdefault(name, []).append(record)
    corpora = []
    for name, records in groups.items():
        most = translated_pairs if name.startswith("docs-") else pairs
        draw = random.Random(name)
        corpora.append(_corpus(name, draw.sample(records, min(most, len(records)))))
    return [corpus for corpus in corpora if len(corpus.questions) >= LEAST_QUESTIONS]


def _corpus(name: str, records: Iterable[dict[str, Any]]) -> Corpus:
    corpus = Corpus(name, [], [])
    places: dict[tuple[str, str], int] = {}
    questions: dict[str, Question] = {}
    for record in records:
        title, passage, query = record["title"], record["passage"], record["query"]
        place = places.setdefault((title, passage), len(corpus.passages))
        if place == len(corpus.passages):
            corpus.passages.append(Passage(title, passage))
        question = questions.get(query)
        if question is None:
            question = questions[query] = Question(query, [])
            corpus.questions.append(question)
        question.relevant.append(place)
    return corpus


def sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE.split(text) if part.strip()]


def _pairs(path: Path, name: str) -> Corpus:
    places: dict[str, int] = {}
    questions = []
    for record in _records(path):
        place = places.setdefault(record["passage"], len(places))
        questions.append(Question(record["query"], [place]))
    return _split(Corpus(name, [Passage("", text) for text in places], questions))


def _split(corpus: Corpus) -> Corpus:
    """Hold out whole articles: questions about passages with one title, or one text, together."""
    for question in corpus.questions:
        passage = corpus.passages[question.relevant[0]]
        # A question about several passages is its own article.
        article = passage.title or (question.text if corpus.name == "bioasq" else passage.text)
        digest = hashlib.sha256(article.encode()).digest()
        question.is_held_out = int.from_bytes(digest[:4], "big") % HELD_OUT == 0
    return corpus


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
