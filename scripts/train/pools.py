"""Makes the data of one training step: a pool of similar queries and documents, with labels.

Every query is compared with every document of its pool. The pool has the passages that BM25 and
bi-encoders find for a few questions, so that irrelevant passages look relevant. Other questions
that its passages answer are added.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from forms import as_query, with_wrong_number, without_answer
from teachers import Lexicon
from texts import TRANSLATED_SETS, Corpus, Passage, Question, sentences

QUERIES, DOCUMENTS, TRAPS = 16, 36, 6
WORDY = 0.3  # the share of questions that begin with a sentence of the passage
RELEVANT, IRRELEVANT, UNKNOWN = 1, 0, -1


@dataclass(slots=True)
class Pool:
    """Queries and documents, with labels and scores.

    `labels` (queries, documents) are RELEVANT, IRRELEVANT or UNKNOWN; training ignores the last.
    `is_judged` is false if a relevant document is only the text below a heading or the like, so
    that others may answer as well. The queries are forms of `questions`, which teachers get.
    `lexical_scores` (queries, documents) are the scores of BM25.
    """

    queries: list[str]
    documents: list[str]
    labels: np.ndarray
    questions: list[str]
    lexical_scores: np.ndarray
    is_judged: bool = True


class Source:
    """Draws pools from one corpus."""

    def __init__(self, corpus: Corpus, words: np.ndarray, meaning: np.ndarray) -> None:
        self.name, self._corpus = corpus.name, corpus
        self._words, self._meaning = words, meaning
        self._lexicon = Lexicon(passage.text for passage in corpus.passages)
        self.held_out_places = [
            place
            for place, question in enumerate(corpus.questions)
            if question.is_held_out and place not in corpus.barred_questions
        ]
        self._questions_of: dict[int, list[int]] = {}
        self.training_places = [
            place
            for place, question in enumerate(corpus.questions)
            if not question.is_held_out and place not in corpus.barred_questions
        ]
        for place in self.training_places:
            for passage in corpus.questions[place].relevant:
                self._questions_of.setdefault(passage, []).append(place)
        held_out_passages = {p for q in corpus.questions if q.is_held_out for p in q.relevant}
        self._hidden = (held_out_passages - self._questions_of.keys()) | corpus.barred_passages

    def near_passages(self, place: int, *, hidden: bool = False) -> list[int]:
        """The passages that BM25 or a bi-encoder finds for a question.

        Passages of held-out articles are among them only with `hidden`.
        """
        candidates = [*self._words[place], *self._meaning[place]]
        return [
            passage
            for passage in dict.fromkeys(map(int, candidates))
            if hidden or passage not in self._hidden
        ]

    def plain_pool(self, place: int, passages: list[int]) -> Pool:
        """One question and some passages, unchanged."""
        texts = [
            _format_passage(self._corpus.passages[passage], has_title=False) for passage in passages
        ]
        question = self._corpus.questions[place].text
        return self._make_pool([question], [question], texts, self._labels([place], passages))

    def pool(self, draw: random.Random) -> Pool:
        """A pool of one of the forms that suit the corpus."""
        forms: dict[str, list[tuple[Callable[[random.Random], Pool], int]]] = {
            "squad": [
                (self.paragraphs, 48),
                (self.sentences, 14),
                (self.passage_pairs, 10),
                (self.cloze, 12),
                (self.frequent_questions, 16),
            ],
            "nq": [
                (self.paragraphs, 58),
                (self.passage_pairs, 10),
                (self.cloze, 14),
                (self.frequent_questions, 18),
            ],
            "bioasq": [
                (self.paragraphs, 70),
                (self.passage_pairs, 10),
                (self.cloze, 20),
            ],
            "qamr": [(self.paragraphs, 100)],
            **{
                name: [
                    (self.paragraphs, 60),
                    (self.sentences, 15),
                    (self.passage_pairs, 10),
                    (self.cloze, 15),
                ]
                for name in TRANSLATED_SETS
            },
        }
        default_forms = [(self.documentation, 100)]
        makers, weights = zip(*forms.get(self._corpus.name, default_forms), strict=True)
        pool: Pool = draw.choices(makers, weights)[0](draw)
        return pool

    def paragraphs(self, draw: random.Random) -> Pool:
        """Whole passages, with copies that lack the answer or have another number."""
        places, numbers = self._gather(draw, DOCUMENTS)
        has_title = draw.random() < 0.4
        texts = [
            _format_passage(self._corpus.passages[place], has_title=has_title) for place in places
        ]
        labels = self._labels(numbers, places)
        traps: list[tuple[int, str]] = []
        for row, number in enumerate(numbers):
            if len(traps) == TRAPS:
                break
            trap = self._trap(self._corpus.questions[number], draw)
            if trap is not None:
                traps.append((row, _format_passage(trap, has_title=has_title)))
        labels = np.pad(labels, ((0, 0), (0, len(traps))), constant_values=UNKNOWN)
        for column, (row, text) in enumerate(traps, len(texts)):
            texts.append(text)
            labels[row, column] = IRRELEVANT
        return self._draw_pool(numbers, texts, labels, draw)

    def documentation(self, draw: random.Random) -> Pool:
        """Whole passages of documentation; nobody judged which other passages answer."""
        places, numbers = self._gather(draw, DOCUMENTS)
        has_title = draw.random() < 0.3
        texts = [
            _format_passage(self._corpus.passages[place], has_title=has_title) for place in places
        ]
        pool = self._draw_pool(numbers, texts, self._labels(numbers, places), draw)
        pool.is_judged = False
        return pool

    def sentences(self, draw: random.Random) -> Pool:
        """The sentences of a few paragraphs: the neighbours of the answer's sentence mislead."""
        places, numbers = self._gather(draw, 10)
        has_title = draw.random() < 0.25
        parts = [
            (place, sentence)
            for place in places
            for sentence in sentences(self._corpus.passages[place].text)
        ][: DOCUMENTS + 12]
        labels = np.zeros((len(numbers), len(parts)), np.int8)
        for row, number in enumerate(numbers):
            question = self._corpus.questions[number]
            answer_columns = [
                column for column, (_, part) in enumerate(parts) if _answers(part, question.answers)
            ]
            labels[row, answer_columns] = UNKNOWN
            own_columns = [
                column for column in answer_columns if parts[column][0] in question.relevant
            ]
            if own_columns:
                words = set(question.text.lower().split())
                best = max(own_columns, key=lambda c: len(words & set(parts[c][1].lower().split())))
                labels[row, best] = RELEVANT
        texts = [
            _format_passage(Passage(self._corpus.passages[place].title, part), has_title=has_title)
            for place, part in parts
        ]
        return self._draw_pool(numbers, texts, labels, draw)

    def passage_pairs(self, draw: random.Random) -> Pool:
        """Long chunks of two passages, of which at most one answers."""
        places, numbers = self._gather(draw, DOCUMENTS)
        labels = self._labels(numbers, places)
        order = list(range(len(places)))
        draw.shuffle(order)
        pairs = list(zip(order[::2], order[1::2], strict=False))
        texts = [
            "\n".join(
                _format_passage(self._corpus.passages[places[index]], has_title=True)
                for index in pair
            )
            for pair in pairs
        ]
        pair_labels = np.stack([labels[:, list(pair)] for pair in pairs], 1)
        merged_labels = np.where((pair_labels == RELEVANT).any(-1), RELEVANT, pair_labels.min(-1))
        return self._draw_pool(numbers, texts, merged_labels, draw)

    def cloze(self, draw: random.Random) -> Pool:
        """A sentence as the query for the passage that lost it: statements, titles, claims."""
        candidates, _ = self._gather(draw, 3 * DOCUMENTS)
        candidates.sort(key=lambda place: len(sentences(self._corpus.passages[place].text)) < 3)
        places = candidates[:DOCUMENTS]
        queries, questions, texts, own_places = [], [], [], []
        for place in places:
            passage = self._corpus.passages[place]
            parts = sentences(passage.text)
            index = draw.randrange(len(parts)) if parts else 0
            texts.append(passage.text)
            if passage.title and draw.random() < 0.2:
                queries.append(passage.title)
                questions.append(passage.title)
            elif len(parts) > 2 and 5 < len(parts[index].split()) < 50:
                queries.append(as_query(parts[index], draw))
                questions.append(parts[index])
                if draw.random() < 0.85:
                    texts[-1] = " ".join(parts[:index] + parts[index + 1 :])
            else:
                continue
            own_places.append(place)
        labels = np.array(
            [[self._cloze_label(own_place, place) for place in places] for own_place in own_places],
            np.int8,
        ).reshape(len(own_places), len(places))
        return self._make_pool(queries[:QUERIES], questions[:QUERIES], texts, labels[:QUERIES])

    def frequent_questions(self, draw: random.Random) -> Pool:
        """Questions with answers, as in lists of frequent questions, and similar questions.

        Nobody judged which of them ask for the same, but bi-encoders were made to know that.
        """
        places, numbers = self._gather(draw, DOCUMENTS)
        texts = []
        for place in places:
            parts = sentences(self._corpus.passages[place].text)
            start = draw.randrange(len(parts)) if parts else 0
            answer = parts[start : start + draw.choice([0, 1, 2, 4, 8])]
            other_numbers = [n for n in self._questions_of.get(place, ()) if n not in numbers]
            candidates = other_numbers or [
                n for n in numbers if place in self._corpus.questions[n].relevant
            ]
            if not candidates:
                continue
            question = self._corpus.questions[draw.choice(candidates)].text
            texts.append(draw.choice([" ", "\n"]).join([question, *answer]))
        queries = self._queries(numbers, draw)
        for row, number in enumerate(numbers):
            parts = sentences(
                self._corpus.passages[self._corpus.questions[number].relevant[0]].text
            )
            if parts and draw.random() < WORDY:
                queries[row] = f"{draw.choice(parts)} {queries[row]}"
        labels = np.full((len(queries), len(texts)), UNKNOWN, np.int8)
        pool = self._make_pool(queries, queries, texts, labels)
        pool.is_judged = False
        return pool

    def _cloze_label(self, own_place: int, place: int) -> int:
        if own_place == place:
            return RELEVANT
        title = self._corpus.passages[own_place].title
        return UNKNOWN if title and title == self._corpus.passages[place].title else IRRELEVANT

    def _gather(self, draw: random.Random, size: int) -> tuple[list[int], list[int]]:
        """Places of passages, and the questions that some of them answer."""
        places: dict[int, None] = {}
        numbers: dict[int, None] = {}
        for _ in range(size):  # each question adds four passages or more, of which some are known
            if len(places) >= size:
                break
            seed = draw.choice(self.training_places)
            question = self._corpus.questions[seed]
            numbers[seed] = None
            nearest = [*self._words[seed][:8], *self._meaning[seed][:8]]
            neighbours = [
                int(place) for place in draw.sample(nearest, min(len(nearest), max(4, size // 4)))
            ]
            relevant = draw.sample(question.relevant, min(3, len(question.relevant)))
            for place in [*relevant, *neighbours]:
                if place not in self._hidden and len(places) < size:
                    places[place] = None
        other_numbers = [
            n for place in places for n in self._questions_of.get(place, ()) if n not in numbers
        ]
        draw.shuffle(other_numbers)
        order = list(places)
        draw.shuffle(order)
        return order, [*numbers, *other_numbers][:QUERIES]

    def _labels(self, numbers: list[int], places: list[int]) -> np.ndarray:
        labels = np.zeros((len(numbers), len(places)), np.int8)
        for row, number in enumerate(numbers):
            question = self._corpus.questions[number]
            relevant = set(question.relevant)
            # Snippets on a subject often answer questions for which they were not judged.
            similar_places = (
                set(self._meaning[number][:4]) if self._corpus.name == "bioasq" else set()
            )
            for column, place in enumerate(places):
                if place in relevant:
                    labels[row, column] = RELEVANT
                elif place in similar_places or _answers(
                    self._corpus.passages[place].text, question.answers
                ):
                    labels[row, column] = UNKNOWN
        return labels

    def _queries(self, numbers: list[int], draw: random.Random) -> list[str]:
        return [as_query(self._corpus.questions[n].text, draw) for n in numbers]

    def _draw_pool(
        self, numbers: list[int], texts: list[str], labels: np.ndarray, draw: random.Random
    ) -> Pool:
        questions = [self._corpus.questions[n].text for n in numbers]
        return self._make_pool(self._queries(numbers, draw), questions, texts, labels)

    def _make_pool(
        self, queries: list[str], questions: list[str], texts: list[str], labels: np.ndarray
    ) -> Pool:
        return Pool(queries, texts, labels, questions, self._lexicon.scores(questions, texts))

    def _trap(self, question: Question, draw: random.Random) -> Passage | None:
        passage = self._corpus.passages[question.relevant[0]]
        if draw.random() < 0.5:
            text = with_wrong_number(question.text, passage.text, draw)
        else:
            text = without_answer(passage.text, question.answers)
        return None if text is None else Passage(passage.title, text)


def _answers(text: str, answers: list[str]) -> bool:
    lowercase_text = text.lower()
    for answer in filter(None, answers):
        # Only whole words of ASCII letters count; other scripts may not separate words.
        word = re.escape(answer.lower())
        if re.search(rf"\b{word}\b" if answer.isascii() else word, lowercase_text):
            return True
    return False


def _format_passage(passage: Passage, *, has_title: bool) -> str:
    return f"{passage.title}\n{passage.text}" if has_title and passage.title else passage.text
