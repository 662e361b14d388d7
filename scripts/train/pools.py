"""Makes what one step learns from: a pool of queries and documents near each other, and labels.

Every query is compared with every document of its pool. The pool gathers what BM25 and
bi-encoders find for a few questions, so that what is not relevant looks as if it were; other
questions that its passages answer join it.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from forms import as_query, without_answer, wrong_number
from teachers import Lexicon
from texts import TRANSLATED_SETS, Corpus, Passage, Question, sentences

QUERIES, DOCUMENTS, TRAPS = 16, 36, 6
WORDY = 0.3  # of the questions among answered ones, which tell a story before they ask
RELEVANT, NOT, UNKNOWN = 1, 0, -1


@dataclass(slots=True)
class Pool:
    """Queries, documents, and what is known of them.

    `labels` (queries, documents) are RELEVANT, NOT or UNKNOWN, which nothing is learned from.
    `is_judged` is false where a relevant document is only the text below a heading or the like:
    others may answer as well. Queries were made of `questions`, which teachers get. `lexical`
    (queries, documents) is what BM25 thinks.
    """

    queries: list[str]
    documents: list[str]
    labels: np.ndarray
    questions: list[str]
    lexical: np.ndarray
    is_judged: bool = True


class Source:
    """Draws pools from one corpus."""

    def __init__(self, corpus: Corpus, words: np.ndarray, meaning: np.ndarray) -> None:
        self.name, self._corpus = corpus.name, corpus
        self._words, self._meaning = words, meaning
        self._lexicon = Lexicon(passage.text for passage in corpus.passages)
        self.held_out = [
            place
            for place, question in enumerate(corpus.questions)
            if question.held_out and place not in corpus.barred_questions
        ]
        self._questions_of: dict[int, list[int]] = {}
        self.kept = [
            place
            for place, question in enumerate(corpus.questions)
            if not question.held_out and place not in corpus.barred_questions
        ]
        for place in self.kept:
            for passage in corpus.questions[place].relevant:
                self._questions_of.setdefault(passage, []).append(place)
        held = {p for q in corpus.questions if q.held_out for p in q.relevant}
        self._hidden = (held - self._questions_of.keys()) | corpus.barred

    def near(self, place: int, *, hidden: bool = False) -> list[int]:
        """The passages that BM25 or a bi-encoder finds for a question.

        Those of held-out articles are among them only if `hidden` ones are wanted.
        """
        both = [*self._words[place], *self._meaning[place]]
        return [one for one in dict.fromkeys(map(int, both)) if hidden or one not in self._hidden]

    def plain(self, place: int, passages: list[int]) -> Pool:
        """One question and some passages, as they stand."""
        texts = [_shown(self._corpus.passages[one], titled=False) for one in passages]
        question = self._corpus.questions[place].text
        return self._make_pool([question], [question], texts, self._labels([place], passages))

    def pool(self, draw: random.Random) -> Pool:
        """A pool of one of the forms that suit the corpus."""
        forms: dict[str, list[tuple[Callable[[random.Random], Pool], int]]] = {
            "squad": [
                (self.paragraphs, 48),
                (self.sentences, 14),
                (self.joined, 10),
                (self.cloze, 12),
                (self.answered, 16),
            ],
            "nq": [
                (self.paragraphs, 58),
                (self.joined, 10),
                (self.cloze, 14),
                (self.answered, 18),
            ],
            "bioasq": [
                (self.paragraphs, 70),
                (self.joined, 10),
                (self.cloze, 20),
            ],
            "qamr": [(self.paragraphs, 100)],
            **{
                name: [
                    (self.paragraphs, 60),
                    (self.sentences, 15),
                    (self.joined, 10),
                    (self.cloze, 15),
                ]
                for name in TRANSLATED_SETS
            },
        }
        collected = [(self.found, 100)]
        makers, weights = zip(*forms.get(self._corpus.name, collected), strict=True)
        made: Pool = draw.choices(makers, weights)[0](draw)
        return made

    def paragraphs(self, draw: random.Random) -> Pool:
        """Whole passages, with copies that an answer was taken out of or a number changed in."""
        places, chosen = self._gather(draw, DOCUMENTS)
        titled = draw.random() < 0.4
        texts = [_shown(self._corpus.passages[place], titled=titled) for place in places]
        labels = self._labels(chosen, places)
        traps: list[tuple[int, str]] = []
        for row, number in enumerate(chosen):
            if len(traps) == TRAPS:
                break
            changed = self._trap(self._corpus.questions[number], draw)
            if changed is not None:
                traps.append((row, _shown(changed, titled=titled)))
        labels = np.pad(labels, ((0, 0), (0, len(traps))), constant_values=UNKNOWN)
        for column, (row, text) in enumerate(traps, len(texts)):
            texts.append(text)
            labels[row, column] = NOT
        return self._draw_pool(chosen, texts, labels, draw)

    def found(self, draw: random.Random) -> Pool:
        """Whole passages of documentation, of which nobody judged what else answers."""
        places, chosen = self._gather(draw, DOCUMENTS)
        titled = draw.random() < 0.3
        texts = [_shown(self._corpus.passages[place], titled=titled) for place in places]
        pool = self._draw_pool(chosen, texts, self._labels(chosen, places), draw)
        pool.is_judged = False
        return pool

    def sentences(self, draw: random.Random) -> Pool:
        """The sentences of a few paragraphs: those beside the answer's are what misleads."""
        places, chosen = self._gather(draw, 10)
        titled = draw.random() < 0.25
        parts = [
            (place, sentence)
            for place in places
            for sentence in sentences(self._corpus.passages[place].text)
        ][: DOCUMENTS + 12]
        labels = np.zeros((len(chosen), len(parts)), np.int8)
        for row, number in enumerate(chosen):
            question = self._corpus.questions[number]
            holding = [
                column for column, (_, part) in enumerate(parts) if _answers(part, question.answers)
            ]
            labels[row, holding] = UNKNOWN
            own = [column for column in holding if parts[column][0] in question.relevant]
            if own:
                words = set(question.text.lower().split())
                best = max(own, key=lambda c: len(words & set(parts[c][1].lower().split())))
                labels[row, best] = RELEVANT
        texts = [
            _shown(Passage(self._corpus.passages[place].title, part), titled=titled)
            for place, part in parts
        ]
        return self._draw_pool(chosen, texts, labels, draw)

    def joined(self, draw: random.Random) -> Pool:
        """Long chunks of two passages, of which one at most is what is asked for."""
        places, chosen = self._gather(draw, DOCUMENTS)
        labels = self._labels(chosen, places)
        order = list(range(len(places)))
        draw.shuffle(order)
        pairs = list(zip(order[::2], order[1::2], strict=False))
        texts = [
            "\n".join(_shown(self._corpus.passages[places[one]], titled=True) for one in pair)
            for pair in pairs
        ]
        both = np.stack([labels[:, list(pair)] for pair in pairs], 1)
        merged = np.where((both == RELEVANT).any(-1), RELEVANT, both.min(-1))
        return self._draw_pool(chosen, texts, merged, draw)

    def cloze(self, draw: random.Random) -> Pool:
        """A sentence asks for the passage that it was taken out of: statements, titles, claims."""
        found, _ = self._gather(draw, 3 * DOCUMENTS)
        found.sort(key=lambda place: len(sentences(self._corpus.passages[place].text)) < 3)
        places = found[:DOCUMENTS]
        queries, questions, texts, own = [], [], [], []
        for place in places:
            passage = self._corpus.passages[place]
            parts = sentences(passage.text)
            chosen = draw.randrange(len(parts)) if parts else 0
            texts.append(passage.text)
            if passage.title and draw.random() < 0.2:
                queries.append(passage.title)
                questions.append(passage.title)
            elif len(parts) > 2 and 5 < len(parts[chosen].split()) < 50:
                queries.append(as_query(parts[chosen], draw))
                questions.append(parts[chosen])
                if draw.random() < 0.85:
                    texts[-1] = " ".join(parts[:chosen] + parts[chosen + 1 :])
            else:
                continue
            own.append(place)
        labels = np.array(
            [[self._cloze_label(one, place) for place in places] for one in own], np.int8
        ).reshape(len(own), len(places))
        return self._make_pool(queries[:QUERIES], questions[:QUERIES], texts, labels[:QUERIES])

    def answered(self, draw: random.Random) -> Pool:
        """Questions with what was answered, as in lists of frequent ones, and questions like them.

        Which of them ask for the same, nobody judged, but telling that is what bi-encoders were
        made for.
        """
        places, chosen = self._gather(draw, DOCUMENTS)
        texts = []
        for place in places:
            parts = sentences(self._corpus.passages[place].text)
            start = draw.randrange(len(parts)) if parts else 0
            some = parts[start : start + draw.choice([0, 1, 2, 4, 8])]
            others = [n for n in self._questions_of.get(place, ()) if n not in chosen]
            known = others or [n for n in chosen if place in self._corpus.questions[n].relevant]
            if not known:
                continue
            question = self._corpus.questions[draw.choice(known)].text
            texts.append(draw.choice([" ", "\n"]).join([question, *some]))
        queries = self._queries(chosen, draw)
        for row, number in enumerate(chosen):
            parts = sentences(
                self._corpus.passages[self._corpus.questions[number].relevant[0]].text
            )
            if parts and draw.random() < WORDY:
                queries[row] = f"{draw.choice(parts)} {queries[row]}"
        labels = np.full((len(queries), len(texts)), UNKNOWN, np.int8)
        pool = self._make_pool(queries, queries, texts, labels)
        pool.is_judged = False
        return pool

    def _cloze_label(self, one: int, other: int) -> int:
        if one == other:
            return RELEVANT
        title = self._corpus.passages[one].title
        return UNKNOWN if title and title == self._corpus.passages[other].title else NOT

    def _gather(self, draw: random.Random, size: int) -> tuple[list[int], list[int]]:
        """Places of passages, and the questions that some of them answer."""
        places: dict[int, None] = {}
        chosen: dict[int, None] = {}
        for _ in range(size):  # each brings four passages or more, of which some are there
            if len(places) >= size:
                break
            seed = draw.choice(self.kept)
            question = self._corpus.questions[seed]
            chosen[seed] = None
            near = [*self._words[seed][:8], *self._meaning[seed][:8]]
            some = [int(place) for place in draw.sample(near, min(len(near), max(4, size // 4)))]
            relevant = draw.sample(question.relevant, min(3, len(question.relevant)))
            for place in [*relevant, *some]:
                if place not in self._hidden and len(places) < size:
                    places[place] = None
        others = [
            n for place in places for n in self._questions_of.get(place, ()) if n not in chosen
        ]
        draw.shuffle(others)
        order = list(places)
        draw.shuffle(order)
        return order, [*chosen, *others][:QUERIES]

    def _labels(self, chosen: list[int], places: list[int]) -> np.ndarray:
        labels = np.zeros((len(chosen), len(places)), np.int8)
        for row, number in enumerate(chosen):
            question = self._corpus.questions[number]
            relevant = set(question.relevant)
            # Snippets of one subject answer many a question that they were not judged for.
            alike = set(self._meaning[number][:4]) if self._corpus.name == "bioasq" else set()
            for column, place in enumerate(places):
                if place in relevant:
                    labels[row, column] = RELEVANT
                elif place in alike or _answers(
                    self._corpus.passages[place].text, question.answers
                ):
                    labels[row, column] = UNKNOWN
        return labels

    def _queries(self, chosen: list[int], draw: random.Random) -> list[str]:
        return [as_query(self._corpus.questions[n].text, draw) for n in chosen]

    def _draw_pool(
        self, chosen: list[int], texts: list[str], labels: np.ndarray, draw: random.Random
    ) -> Pool:
        questions = [self._corpus.questions[n].text for n in chosen]
        return self._make_pool(self._queries(chosen, draw), questions, texts, labels)

    def _make_pool(
        self, queries: list[str], questions: list[str], texts: list[str], labels: np.ndarray
    ) -> Pool:
        return Pool(queries, texts, labels, questions, self._lexicon.scores(questions, texts))

    def _trap(self, question: Question, draw: random.Random) -> Passage | None:
        passage = self._corpus.passages[question.relevant[0]]
        if draw.random() < 0.5:
            text = wrong_number(question.text, passage.text, draw)
        else:
            text = without_answer(passage.text, question.answers)
        return None if text is None else Passage(passage.title, text)


def _answers(text: str, answers: list[str]) -> bool:
    lowered = text.lower()
    for answer in filter(None, answers):
        # Words of ASCII letters are found as wholes; other scripts may not part words.
        word = re.escape(answer.lower())
        if re.search(rf"\b{word}\b" if answer.isascii() else word, lowered):
            return True
    return False


def _shown(passage: Passage, *, titled: bool) -> str:
    return f"{passage.title}\n{passage.text}" if titled and passage.title else passage.text
