"""Keeps the text of evaluation sets out of training, and says how much of it is left.

    python scripts/train/overlap.py ../shared/data/train ../shared/data/eval

A query or a document overlaps if it shares as many words in a row with a training text: 8 for
queries, 13 for documents (the customary length: Brown et al. 2020, appendix C). One with fewer
words overlaps if a training text has just these. Passages that overlap with evaluation queries or
with what is relevant to them are barred from training, and so are questions about them. A corpus
may hold training passages that are relevant to no query of it.
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from texts import SETS, Corpus, Passage, read

QUERY_WORDS, DOCUMENT_WORDS = 8, 13


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("eval", type=Path)
    arguments = parser.parse_args()
    corpora = [read(arguments.train, name) for name in SETS]
    print("overlap before: ", *_shares(corpora, arguments.eval), sep="\n")
    bar(corpora, arguments.eval)
    print("overlap with what is trained on: ", *_shares(corpora, arguments.eval), sep="\n")


def bar(corpora: list[Corpus], evaluation: Path) -> None:
    """Bar what overlaps with the queries of evaluation sets or with what is relevant to them."""
    queries, relevant = set(), set()
    for folder in _folders(evaluation):
        texts, documents, chosen = _set(folder)
        queries |= grams(texts, QUERY_WORDS)
        relevant |= grams((documents[one] for one in chosen), DOCUMENT_WORDS)
    for corpus in corpora:
        for place, passage in enumerate(corpus.passages):
            text = _whole(passage)
            if not relevant.isdisjoint(_grams(text, DOCUMENT_WORDS)) or not queries.isdisjoint(
                _grams(text, QUERY_WORDS)
            ):
                corpus.barred.add(place)
        for place, question in enumerate(corpus.questions):
            about = not corpus.barred.isdisjoint(question.relevant)
            if about or not queries.isdisjoint(_grams(question.text, QUERY_WORDS)):
                corpus.barred_questions.add(place)


def _shares(corpora: list[Corpus], evaluation: Path) -> Iterator[str]:
    passages = [
        _whole(one)
        for corpus in corpora
        for place, one in enumerate(corpus.passages)
        if place not in corpus.barred
    ]
    questions = [
        one.text
        for corpus in corpora
        for place, one in enumerate(corpus.questions)
        if place not in corpus.barred_questions
    ]
    short, long = grams([*passages, *questions], QUERY_WORDS), grams(passages, DOCUMENT_WORDS)
    yield f"  {len(passages):,} passages, {len(questions):,} questions"
    for folder in _folders(evaluation):
        texts, documents, relevant = _set(folder)
        about_queries = share(texts, short, QUERY_WORDS)
        answers = share((documents[one] for one in relevant), long, DOCUMENT_WORDS)
        whole = share(documents.values(), long, DOCUMENT_WORDS)
        yield (
            f"  {folder.name:9} queries {about_queries:6.2%}, relevant documents {answers:6.2%}, "
            f"all {whole:6.2%}"
        )


def _folders(evaluation: Path) -> list[Path]:
    return sorted(path for path in evaluation.iterdir() if path.is_dir())


def _set(folder: Path) -> tuple[list[str], dict[str, str], set[str]]:
    """Queries' texts, documents by id, and the ids of those that are relevant to a query."""
    documents = dict(_texts(folder / "corpus.jsonl.gz"))
    lines = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    relevant = {line.split()[1] for line in lines if int(line.split()[2]) > 0}
    queries = [text for _, text in _texts(folder / "queries.jsonl.gz")]
    return queries, documents, relevant & documents.keys()


def _whole(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def share(texts: Iterable[str], known: set[int], length: int) -> float:
    """The share of texts that have a known n-gram."""
    found = [not known.isdisjoint(_grams(text, length)) for text in texts]
    return sum(found) / len(found)


def grams(texts: Iterable[str], length: int) -> set[int]:
    return {gram for text in texts for gram in _grams(text, length)}


def _grams(text: str, length: int) -> Iterator[int]:
    """So many words in a row, everywhere in a text; one that has fewer is compared as a whole."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < length:
        return iter([hash(tuple(words))] if words else [])
    return (hash(tuple(words[start : start + length])) for start in range(len(words) - length + 1))


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record["_id"], f"{record.get('title', '')} {record['text']}"


if __name__ == "__main__":
    main()
