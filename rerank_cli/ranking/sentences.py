"""The sentence of a passage that answers a query: by the model's score, and by the query's words.

    passage ─ candidates ─ those with the query's rarest words ─ the model's scores ─ sentence

A line of code, a row of a table and a line of a log are sentences too. A heading is not a sentence:
the sentences below it are scored with it, because a section need not repeat its subject.
"""

import math
import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, repeat
from typing import NamedTuple, Protocol

from rerank_cli.errors import UsageError, check_type
from rerank_cli.ranking.calibration import Transform, transform_score
from rerank_cli.ranking.places import DEFINITION_PART, PlacePrior
from rerank_cli.ranking.windows import Span
from rerank_cli.structure import LOG, Block, BlockKind, find_blocks, is_code
from rerank_cli.types import Chunk, Document, Pair, Ranking, Scale, Scored, ScorerInfo
from rerank_cli.words import QueryWords, sentences

JUDGED_RESULTS = 10  # whose sentences a model judges, if nothing else is said
# The most tokens of sentences that are scored for a ranking: 0.3 s of the model that ships.
_MAX_SENTENCE_TOKENS = 2000
_TOKENS_A_SENTENCE_TOKEN = 8  # tokens of scored passages for each token of a sentence
# The weight of words beside the model's logit: a word that few candidates have adds about this many
# times the logarithm of its rarity. Chosen with `scripts/bench_sentences.py`.
_WORD_WEIGHT = 0.5
_SEARCHED_CHARACTERS = 20_000  # of a long chunk that are searched for a sentence
_SENTENCE_CHARACTERS = 1000  # as long as most sentences are
_READ_CHARACTERS = 100_000  # of the longest document whose headings are looked for
_MAX_READ_CHARACTERS = 300_000  # of all documents of a ranking
_MAX_NAMES = 16  # of the sections and functions around a sentence
_HEADING_CHARACTERS = 80  # of those that are scored before a sentence
_WORD = re.compile(r"[^\W\d_]+")
_TERM = re.compile(r"[^\w.!?]*\w+[^\w.!?]*")  # a word by itself, as in lists of terms
_BREAK = re.compile(r"[.!?\n\r]|[^\0-\u2025]")  # without any of these a text is one sentence
_LEAD_IN_CHARACTERS = 40  # of a line that ends in a colon and says nothing, as "See also:"
_LINE = re.compile(r"\S(?:[^\r\n]*[^\s])?")
_LINE_END = re.compile(r"[\r\n]")
_QUOTES = ('"""', "'''", "*/")  # which end docstrings and comments
_CODE = re.compile(r"[(\[{=]")
_NAMING = frozenset((BlockKind.SECTION, BlockKind.CLASS, BlockKind.FUNCTION))


class Sections:
    """The sections, classes and functions of a document, and its headings.

    The header of a table is a heading too.
    """

    def __init__(self, blocks: Sequence[Block] = ()) -> None:
        self._parts: list[tuple[Block, int]] = []  # with the place of the part that each is in
        self._headings: list[Block] = []
        around: list[int] = []
        table: Block | None = None  # that has no row so far
        for block in blocks:
            if block.kind is BlockKind.HEADING:
                self._headings.append(block)
            elif block.kind is BlockKind.TABLE and block.name:
                table = block
            elif table is not None:
                if block.kind is BlockKind.ROW and table.start < block.start < table.end:
                    self._headings.append(table._replace(end=block.start))
                table = None
            if block.kind in _NAMING and block.name:
                while around and self._parts[around[-1]][0].end <= block.start:
                    around.pop()
                self._parts.append((block, around[-1] if around else -1))
                around.append(len(self._parts) - 1)

    @classmethod
    def find(cls, document: Document) -> "Sections":
        """The sections of a document; none if it would take long to find them."""
        if document.blocks is not None:
            return cls(document.blocks)
        if len(document.text) > _READ_CHARACTERS or document.fields is not None:
            return cls()
        return cls(find_blocks(document.text, document.syntax))

    @cached_property
    def _starts(self) -> Sequence[int]:
        return [block.start for block, _ in self._parts]

    @cached_property
    def _heading_starts(self) -> Sequence[int]:
        return [block.start for block in self._headings]

    def path(self, place: int) -> tuple[str, ...]:
        """The names of the parts around a character: the last `_MAX_NAMES`, outermost first."""
        names: list[str] = []
        part = bisect_right(self._starts, place) - 1
        while part >= 0:
            block, around = self._parts[part]
            if place < block.end:
                names.append(block.name)
            part = around if len(names) < _MAX_NAMES else -1
        return tuple(reversed(names))

    def is_heading(self, start: int, end: int) -> bool:
        """Whether a span of characters is in a heading."""
        place = bisect_right(self._heading_starts, start) - 1
        return place >= 0 and end <= self._headings[place].end


_NO_SECTIONS = Sections()


class Judge(Protocol):
    """Scores pairs as a model scores passages."""

    @property
    def info(self) -> ScorerInfo: ...

    def score(self, pairs: Sequence[Pair]) -> Scored: ...


class _Sentence(NamedTuple):
    """A sentence of a passage: its span there, and the query's terms that it has."""

    start: int
    end: int
    terms: frozenset[str]


def find_sentences(ranking: Ranking, n: int, judge: Judge | None) -> list[Chunk]:
    """The sentence of each of the first `n` passages, as a chunk of its own, with its headings.

    If the prior has found what the query names, it is the line that defines it; else the sentence
    that `_find_answers` finds.
    """
    check_type("ranking", ranking, Ranking)
    check_type("n", n, int)
    if n < 0:
        raise UsageError(f"a number of sentences is at least 0, not {n}")
    answers = _find_answers(ranking, n, judge)
    places = [
        place
        for place, result in enumerate(ranking.results[:n])
        if result.prior is not None and DEFINITION_PART in result.prior.parts
    ]
    prior = PlacePrior(ranking.query) if places else None
    for place in places:
        passage = ranking.results[place].passage
        start = prior.find_definition(passage) if prior is not None else None
        if start is not None:
            end = _LINE_END.search(passage.document.text, start, passage.end)
            span = start - passage.start, (end.start() if end else passage.end) - passage.start
            answers[place] = _part(passage, span, Sections.find(passage.document))
    return answers


def _find_answers(ranking: Ranking, n: int, judge: Judge | None) -> list[Chunk]:
    """The sentence of each passage that answers best.

    Without a judge it is the sentence with the most words of the query.

    At most `ScorerInfo.spare_tokens` tokens of sentences are scored for a ranking, or an eighth of
    its own tokens. Each passage has an equal share, and the rest that earlier passages left.
    """
    words = QueryWords(ranking.query)
    sections = _find_sections(ranking, n)
    passages = [result.passage for result in ranking.results[:n]]
    answers = [sentence_in(*each) for each in zip(passages, repeat(words), sections)]
    if judge is None:
        return answers
    info = judge.info
    most = max(info.spare_tokens, ranking.tokens // _TOKENS_A_SENTENCE_TOKEN)
    room = min(_MAX_SENTENCE_TOKENS, most)
    judged_sentences: list[tuple[int, _Sentence, Pair]] = []  # with the place of the result
    for place, passage in enumerate(passages):
        share = room // (len(passages) - place)
        choices = _SentenceSelector(ranking.query, info, passage, sections[place]).choose(
            words, share
        )
        room -= sum(tokens for _, _, tokens in choices)
        judged_sentences += [(place, candidate, pair) for candidate, pair, _ in choices]
    if not judged_sentences:
        return answers
    values = judge.score([pair for _, _, pair in judged_sentences]).values
    scored: dict[int, list[tuple[_Sentence, float]]] = {}
    for (place, candidate, _), value in zip(judged_sentences, values, strict=True):
        if value is not None:
            scored.setdefault(place, []).append((candidate, value))
    for place, candidates in scored.items():
        best = _best_scored(candidates, info.scale)
        answers[place] = _part(passages[place], (best.start, best.end), sections[place])
    return answers


def _find_sections(ranking: Ranking, n: int) -> Sequence[Sections]:
    """The sections of the document of each of the first results, within a bound."""
    sections_by_id: dict[int, Sections] = {}
    room = _MAX_READ_CHARACTERS
    for document in (result.document for result in ranking.results[:n]):
        if id(document) not in sections_by_id and room > 0:
            sections_by_id[id(document)] = Sections.find(document)
            room -= min(len(document.text), _READ_CHARACTERS)
    return [sections_by_id.get(id(result.document), _NO_SECTIONS) for result in ranking.results[:n]]


class _SentenceSelector:
    """Selects the sentences of a passage that a model judges."""

    def __init__(self, query: str, info: ScorerInfo, passage: Chunk, sections: Sections) -> None:
        self._query = query
        self._info = info
        self._passage = passage
        self._sections = sections

    def choose(self, words: QueryWords, room: int) -> Sequence[tuple[_Sentence, Pair, int]]:
        """Candidates with their pairs and tokens; none where there is nothing to choose from.

        These are the sentences with the query's rarest words, and the first ones, while there is
        room.
        """
        tokenizer, passage, info = self._info.tokenizer, self._passage, self._info
        is_long = len(passage.text) > _SEARCHED_CHARACTERS
        if not room or tokenizer is None or is_long or passage.document.text_is_label:
            return ()
        candidates = _find_candidates(passage, words, self._sections)
        if len(candidates) <= 1:
            return ()
        weights = _weigh_terms(candidates)
        order = sorted(candidates, key=lambda each: (-_word_value(each, weights), each.start))
        beside = tokenizer.count(self._query) + info.specials
        choices = list[tuple[_Sentence, Pair, int]]()
        for candidate in order:
            part = _part(passage, (candidate.start, candidate.end), self._sections)
            title = " › ".join(part.headings) or passage.title
            title = title[-_HEADING_CHARACTERS:]
            pair = Pair(self._query, _with_title(part, title))
            tokens = beside + tokenizer.count(pair.chunk.scored_text)
            if info.length is not None and tokens > info.length:
                continue
            room -= tokens + info.pair_tokens
            if room < 0:
                break
            choices.append((candidate, pair, tokens + info.pair_tokens))
        return choices if len(choices) > 1 else ()


def _with_title(chunk: Chunk, title: str) -> Chunk:
    return Chunk(chunk.document, chunk.start, chunk.end, chunk.text, 0, title=title)


def _best_scored(scored: Sequence[tuple[_Sentence, float]], scale: Scale) -> _Sentence:
    """The candidate with the best sum of score and words; of equal ones the first."""
    weights = _weigh_terms([candidate for candidate, _ in scored])
    weight = _WORD_WEIGHT if scale in ("logit", "probability") else 0.0
    transform: Transform = "logit" if scale == "probability" else "identity"
    values = [
        transform_score(value, transform) + weight * _word_value(candidate, weights)
        for candidate, value in scored
    ]
    places = sorted(range(len(scored)), key=lambda place: scored[place][0].start)
    return scored[max(places, key=values.__getitem__)][0]


def _weigh_terms(candidates: Sequence[_Sentence]) -> Mapping[str, float]:
    """The weight of each term, as in BM25: terms that few candidates have weigh more."""
    total = len(candidates)
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    return {
        term: math.log(1 + (total - count + 0.5) / (count + 0.5)) for term, count in counts.items()
    }


def _word_value(candidate: _Sentence, weights: Mapping[str, float]) -> float:
    return math.fsum(weights[term] for term in candidate.terms)


def find_sentence(
    chunk: Chunk, words: QueryWords, sections: Sections = _NO_SECTIONS
) -> Chunk | None:
    """The sentence of a chunk that has the most of a query's words, as a chunk of its own.

    Among equal sentences it is the one with the words that are rarest in the chunk, then the one
    whose headings have the most words of the query, then the first. None if neither the chunk nor a
    heading has a word of the query.
    """
    candidates = _find_candidates(chunk, words, sections)
    counts = Counter(term for candidate in candidates for term in candidate.terms)

    def value(candidate: _Sentence) -> tuple[int, float, int]:
        path = " ".join(sections.path(chunk.start + candidate.start))
        rarity = math.fsum(1 / counts[term] for term in candidate.terms)
        return len(candidate.terms), rarity, len({mark.term for mark in words.marks(path)})

    best = max(candidates, key=value, default=None)
    if best is None or value(best) == (0, 0, 0):
        return None
    return _part(chunk, (best.start, best.end), sections)


def _find_candidates(chunk: Chunk, words: QueryWords, sections: Sections) -> Sequence[_Sentence]:
    """The sentences of a chunk, or of the part of it that has the most of a query's words.

    Headings and lines of a single word are left out, unless there is nothing else.
    """
    start = _densest_part(chunk.text, words)
    text = chunk.text[start : start + _SEARCHED_CHARACTERS]
    rest = iter(words.marks(text))
    mark = next(rest, None)
    candidates = list[_Sentence]()
    for first, last in _find_spans(text, chunk.document):
        terms = set[str]()
        while mark is not None and mark.start < last:
            terms.add(mark.term)
            mark = next(rest, None)
        candidates.append(_Sentence(start + first, start + last, frozenset(terms)))
    candidates = [
        each
        for each in candidates
        if not sections.is_heading(chunk.start + each.start, chunk.start + each.end)
    ] or candidates
    return [
        each
        for each in candidates
        if _says_something(text := chunk.text[each.start : each.end])
        or (each.terms and not _TERM.fullmatch(text))
    ] or candidates


def _find_spans(text: str, document: Document) -> Iterator[Span]:
    """The spans of the sentences of a document's text, or of the lines of a log."""
    if document.syntax == LOG:
        return (match.span() for match in _LINE.finditer(text))
    if not is_code(document.syntax):
        return sentences(text)
    return chain.from_iterable(_cut_before_code(text, *span) for span in sentences(text))


def _cut_before_code(text: str, start: int, end: int) -> Iterator[Span]:
    """Cut a sentence of a comment or a docstring where the code below it begins."""
    last = start
    for line in _LINE.finditer(text, start, end):
        is_begun = last > start
        if is_begun and (_CODE.search(line.group()) or text[start:last].endswith(_QUOTES)):
            yield start, last
            start = line.start()
        last = line.end()
    yield start, end


def sentence_in(chunk: Chunk, words: QueryWords, sections: Sections = _NO_SECTIONS) -> Chunk:
    """The sentence of a chunk that has the most of a query's words, or else its first whole one."""
    text = chunk.text.rstrip()
    if not chunk.start and text and not _BREAK.search(text, 0, len(text) - 1):  # as most lines are
        return _part(chunk, (len(text) - len(text.lstrip()), len(text)), sections)
    return find_sentence(chunk, words, sections) or first_sentence(chunk, sections)


def first_sentence(chunk: Chunk, sections: Sections = _NO_SECTIONS) -> Chunk:
    """The first sentence of a chunk that is whole, as a chunk of its own."""
    text = chunk.document.text
    begin = max(0, chunk.start - _SENTENCE_CHARACTERS)
    end = min(chunk.end, chunk.start + _SEARCHED_CHARACTERS)
    spans = [
        (a + begin - chunk.start, b + begin - chunk.start)
        for a, b in _find_spans(text[begin:end], chunk.document)
    ]
    spans = [span for span in spans if span[1] > 0]
    whole_sentences = [_part(chunk, span, sections) for span in spans if span[0] >= 0]
    for part in whole_sentences:
        if _says_something(part.text) and not sections.is_heading(part.start, part.end):
            return part
    if whole_sentences:
        return whole_sentences[0]
    return _part(chunk, (0, end - chunk.start), sections)


def _says_something(text: str) -> bool:
    """Whether a sentence has several words, and does not just lead in to what follows it."""
    if not text.isascii():
        return True
    if text.endswith(":") and len(text) < _LEAD_IN_CHARACTERS and not _CODE.search(text):
        return False
    return len(_WORD.findall(text)) > 1


def _densest_part(text: str, words: QueryWords) -> int:
    """The start of the part of a long text that has the most of a query's terms close together."""
    if len(text) <= _SEARCHED_CHARACTERS:
        return 0
    near: deque[tuple[int, str]] = deque()
    counts: Counter[str] = Counter()
    best, place, start = 0, 0, 0
    while start < len(text) and best < words.count:
        end = start + _SEARCHED_CHARACTERS
        end = max(text.rfind(" ", start, end), text.rfind("\n", start, end), start) + 1
        end = end if end > start + 1 else start + _SEARCHED_CHARACTERS
        for mark in words.marks(text[start:end]):
            near.append((start + mark.start, mark.term))
            counts[mark.term] += 1
            while near[-1][0] - near[0][0] > _SENTENCE_CHARACTERS:
                _, term = near.popleft()
                counts[term] -= 1
                if not counts[term]:
                    del counts[term]
            if len(counts) > best:
                best, place = len(counts), near[0][0]
        start = end
    if best == 0 or place < _SENTENCE_CHARACTERS:
        return 0
    before = place - _SENTENCE_CHARACTERS
    breaks = (text.rfind(white, before, place) for white in ("\n", " "))
    return next((white_place + 1 for white_place in breaks if white_place >= 0), place)


def _part(chunk: Chunk, span: Span, sections: Sections) -> Chunk:
    """A span of characters of a chunk as a chunk of its own, with the headings that it is under."""
    start, end = chunk.start + span[0], chunk.start + span[1]
    text = chunk.document.text[start:end]
    headings = (*chunk.document.headings, *sections.path(start)) or chunk.headings
    return Chunk(chunk.document, start, end, text, 0, headings=headings)
