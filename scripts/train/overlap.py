"""Keeps the text of evaluation sets out of training, and says how much of it is left.

    python scripts/train/overlap.py ../shared/data/train ../shared/data/eval

A query overlaps if it shares 8 words in a row with a training text, a document if it shares 13 (the
customary length: Brown et al. 2020, appendix C). A text with fewer words overlaps if a training
text has exactly these words. Passages that overlap with evaluation queries or with documents
relevant to them are barred from training, and so are questions about these passages. The corpus of
an evaluation set may have training passages that are relevant to none of its queries.
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
    """Bar texts that overlap with queries of evaluation sets or with their relevant documents."""
    queries, relevant = set(), set()
    for folder in _folders(evaluation):
        texts, documents, relevant_ids = _set(folder)
        queries |= grams(texts, QUERY_WORDS)
        relevant |= grams((documents[identifier] for identifier in relevant_ids), DOCUMENT_WORDS)
    for corpus in corpora:
        for place, passage in enumerate(corpus.passages):
            text = _full_text(passage)
            if not relevant.isdisjoint(_grams(text, DOCUMENT_WORDS)) or not queries.isdisjoint(
                _grams(text, QUERY_WORDS)
            ):
                corpus.barred_passages.add(place)
        for place, question in enumerate(corpus.questions):
            is_about_barred = not corpus.barred_passages.isdisjoint(question.relevant)
            if is_about_barred or not queries.isdisjoint(_grams(question.text, QUERY_WORDS)):
                corpus.barred_questions.add(place)


def _shares(corpora: list[Corpus], evaluation: Path) -> Iterator[str]:
    passages = [
        _full_text(passage)
        for corpus in corpora
        for place, passage in enumerate(corpus.passages)
        if place not in corpus.barred_passages
    ]
    questions = [
        question.text
        for corpus in corpora
        for place, question in enumerate(corpus.questions)
        if place not in corpus.barred_questions
    ]
    short, long = grams([*passages, *questions], QUERY_WORDS), grams(passages, DOCUMENT_WORDS)
    yield f"  {len(passages):,} passages, {len(questions):,} questions"
    for folder in _folders(evaluation):
        texts, documents, relevant = _set(folder)
        about_queries = share(texts, short, QUERY_WORDS)
        answers = share((documents[identifier] for identifier in relevant), long, DOCUMENT_WORDS)
        whole = share(documents.values(), long, DOCUMENT_WORDS)
        yield (
            f"  {folder.name:9} queries {about_queries:6.2%}, relevant documents {answers:6.2%}, "
            f"all {whole:6.2%}"
        )


def _folders(evaluation: Path) -> list[Path]:
    return sorted(path for path in evaluation.iterdir() if path.is_dir())


def _set(folder: Path) -> tuple[list[str], dict[str, str], set[str]]:
    """The texts of queries, the documents by id, and the ids of the relevant documents."""
    documents = dict(_texts(folder / "corpus.jsonl.gz"))
    lines = (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    relevant = {line.split()[1] for line in lines if int(line.split()[2]) > 0}
    queries = [text for _, text in _texts(folder / "queries.jsonl.gz")]
    return queries, documents, relevant & documents.keys()


def _full_text(passage: Passage) -> str:
    return f"{passage.title} {passage.text}"


def share(texts: Iterable[str], known_grams: set[int], length: int) -> float:
    """The share of texts that have a known n-gram."""
    overlaps = [not known_grams.isdisjoint(_grams(text, length)) for text in texts]
    return sum(overlaps) / len(overlaps)


def grams(texts: Iterable[str], length: int) -> set[int]:
    return {gram for text in texts for gram in _grams(text, length)}


def _grams(text: str, length: int) -> Iterator[int]:
    """The n-grams of a text's words; a text with fewer words is one n-gram."""
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
