"""The sentence of a passage that answers a query: by the query's words, or by the model's score."""

import math
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from rerank_cli.ranking.windows import Span
from rerank_cli.types import Chunk, Pair, Ranking, Scored
from rerank_cli.words import QueryWords, sentences

_SEARCHED_CHARACTERS = 20_000  # of a long chunk in which a sentence is looked for
_MIN_SENTENCE_TOKENS = 250  # of sentences that may be scored in any case
_TOKENS_A_SENTENCE_TOKEN = 16  # of passages that were scored
_SENTENCE_CHARACTERS = 1000  # as long as most sentences are
_WORD = re.compile(r"[^\W\d_]+")


def find_sentence(chunk: Chunk, words: QueryWords) -> Chunk | None:
    """The sentence of a chunk that has the most of a query's words, as a chunk of its own.

    Of equal ones it is that with the words that the chunk has least, then the first. None if the
    chunk has no word of the query.
    """
    start = _densest_part(chunk.text, words)
    text = chunk.text[start : start + _SEARCHED_CHARACTERS]
    marks = words.marks(text)
    if not marks:
        return None
    counts = Counter(mark.term for mark in marks)
    rest = iter(marks)
    mark = next(rest, None)
    best, place = (0, 0.0), (start, start + len(text))
    for first, last in sentences(text):
        terms = set[str]()
        while mark is not None and mark.start < last:
            terms.add(mark.term)
            mark = next(rest, None)
        value = (len(terms), math.fsum(1 / counts[term] for term in terms))
        if value > best:
            best, place = value, (start + first, start + last)
    return _part(chunk, place)


def choose_sentences(
    ranking: Ranking, n: int, score: Callable[[Sequence[Pair]], Scored]
) -> Mapping[int, Chunk]:
    """The best sentences of the first `n` passages, by their ranks, where words do not tell them.

    That is where no sentence has half of the query's words. `score` scores the sentences as the
    model scores passages. They have at most a sixteenth of the tokens of the ranking, or 250:
    beyond that the sentences of the last passages are not scored. A passage of a single sentence
    needs no score.
    """
    tokenizer, words = ranking.info.tokenizer, QueryWords(ranking.query)
    if tokenizer is None:
        return {}
    room = max(_MIN_SENTENCE_TOKENS, ranking.tokens // _TOKENS_A_SENTENCE_TOKEN)
    beside = tokenizer.count(ranking.query) + ranking.info.specials
    candidates: list[tuple[int, Chunk]] = []
    for result in ranking.results[:n]:
        passage = result.passage
        if len(passage.text) > _SEARCHED_CHARACTERS or _has_words(passage, words):
            continue
        parts = [_part(passage, span) for span in sentences(passage.text)]
        parts = [part for part in parts if _has_several_words(part.text)]
        if len(parts) <= 1:
            continue
        room -= sum(tokenizer.count(part.text) + beside for part in parts)
        if room < 0:
            break
        candidates += [(result.rank, part) for part in parts]
    scored = score([Pair(ranking.query, part) for _, part in candidates])
    best: dict[int, tuple[float, Chunk]] = {}
    for (rank, part), value in zip(candidates, scored.values, strict=True):
        if value is not None and (rank not in best or value > best[rank][0]):
            best[rank] = value, part
    return {rank: part for rank, (_, part) in best.items()}


def _has_words(chunk: Chunk, words: QueryWords) -> bool:
    """Whether a sentence of a chunk has at least half of a query's words."""
    sentence = find_sentence(chunk, words)
    found = {mark.term for mark in words.marks(sentence.text)} if sentence else ()
    return 2 * len(found) >= words.count


def sentence_in(chunk: Chunk, words: QueryWords) -> Chunk:
    """The sentence of a chunk that has the most of a query's words, or else its first whole one."""
    return find_sentence(chunk, words) or first_sentence(chunk)


def first_sentence(chunk: Chunk) -> Chunk:
    """The first sentence of a chunk that is whole, as a chunk of its own."""
    text = chunk.document.text
    begin = max(0, chunk.start - _SENTENCE_CHARACTERS)
    end = min(chunk.end, chunk.start + _SEARCHED_CHARACTERS)
    spans = [
        (a + begin - chunk.start, b + begin - chunk.start) for a, b in sentences(text[begin:end])
    ]
    spans = [span for span in spans if span[1] > 0]
    whole = [_part(chunk, span) for span in spans if span[0] >= 0]
    telling = (part for part in whole if _has_several_words(part.text))
    return next(telling, whole[0] if whole else _part(chunk, (0, end - chunk.start)))


def _has_several_words(text: str) -> bool:
    """Whether a sentence has more than one word, as a line of code may not have."""
    return not text.isascii() or len(_WORD.findall(text)) > 1


def _densest_part(text: str, words: QueryWords) -> int:
    """Where the part of a long text begins that has the most of a query's terms close together."""
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
    return next((found + 1 for found in breaks if found >= 0), place)


def _part(chunk: Chunk, span: Span) -> Chunk:
    """A span of characters of a chunk as a chunk of its own."""
    start, end = span
    return Chunk(chunk.document, chunk.start + start, chunk.start + end, chunk.text[start:end], 0)
