"""Cuts documents into windows of a scorer's tokens, with overlap, where a reader would cut.

    query ─ plan_chunks ─ Plan ─ split ─ segments ─ windows ─ judge_cut ─ Chunk…

`plan_chunks` finds how much fits beside a query. The `Plan` then cuts one document after the other.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from rerank_cli.errors import QueryTooLong, UsageError
from rerank_cli.ranking import DEFAULT_MAX_CHUNKS, Aggregation, ChunkOptions, Encoding
from rerank_cli.types import Chunk, Document, ScorerInfo, Tokenizer, Tokens

Span = tuple[int, int]

# The window of passages if the scorer has none (BM25, in words).
PASSAGE_TOKENS = 128
# A text is encoded in pieces of this size: a text of 50 MB then needs neither the memory of all its
# tokens nor a minute in which nothing can interrupt it.
SEGMENT_CHARACTERS = 1 << 18
_LOOK_BACK_CHARACTERS = 64  # for an end of a segment between two visible characters
_RUN_CHARACTERS = 64  # how far a run of white space, brackets or flags is followed

_SENTENCE_END = frozenset(".!?…。！？｡؟।")
_WIDE_SENTENCE_END = frozenset("。！？｡")  # which no space follows
_CLOSING = frozenset("\"'”’»)]}」』）】")
_ZERO_WIDTH_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Plan:
    """How documents are cut for one query.

    query       as it is scored: it may have been cut
    room        the most tokens of a window; None if documents are scored whole
    overlap     the most tokens that neighbours share
    max_chunks  the most windows of a document
    notes       for the user
    first_only  whether only the first `room` tokens of a document are scored
    """

    query: str
    tokenizer: Tokenizer | None
    room: int | None
    overlap: int
    max_chunks: int
    notes: tuple[str, ...] = ()
    first_only: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What a document's score depends on besides the document and the model."""
        return self.query, self.room, self.overlap, self.max_chunks, self.first_only

    def split(self, document: Document) -> "Split":
        """Cut a document into windows. A blank document has none.

        Each window has less room by the tokens of the title, a quarter at most. An image or a video
        goes with each window of its document's text.
        """
        text, title, tokenizer = document.text, document.title, self.tokenizer
        if not text or text.isspace():
            return Split(document, (), 0, 0)
        if tokenizer is None or document.text_is_label:
            return Split(document, (_whole_chunk(document, 0),), 0, 0)
        if self.room is None:
            total = sum(tokenizer.count(text[a:b]) for a, b in segments(text))
            return Split(document, (_whole_chunk(document, total),), total, 0)

        head, dropped_title = _cut_title(title, tokenizer, self.room // 4)
        room = self.room - len(head.ids)
        tokens, total = _encode(text, tokenizer, self.max_chunks * room)
        overlap = min(self.overlap, room // 4)
        if self.first_only:
            ranges = [(0, min(room, len(tokens.ids)))] if tokens.ids else []
        else:
            ranges = list(islice(windows(text, tokens.spans, room, overlap), self.max_chunks))
        if not ranges:  # the tokenizer knows none of the text, as of control characters
            return Split(document, (_whole_chunk(document, 0),), 0, 0)
        covered = ranges[-1][1]
        chunks = [_make_chunk(document, head, tokens, a, b) for a, b in ranges]
        # If white space is tokens too, as in models of characters, a window may hold only that.
        chunks = [chunk for chunk in chunks if chunk.text] or [_whole_chunk(document, total)]
        return Split(document, chunks, total, total - covered + dropped_title)


class Split(NamedTuple):
    """A document's windows, its `tokens`, and how many of them are in no window."""

    document: Document
    chunks: Sequence[Chunk]
    tokens: int
    dropped: int


def plan_chunks(
    query: str, info: ScorerInfo, options: ChunkOptions, *, passages: bool = False
) -> Plan:
    """Fit windows beside a query; with `passages` each window becomes a result of its own.

    Raises `QueryTooLong` if the query leaves less than a quarter of the model's window, and
    `UsageError` for options that make no sense.
    """
    options.check()
    if options.encoding == Encoding.FLAG:
        return _flag_plan(query, info, options.chunk_tokens)
    notes: list[str] = []
    # A service that cuts gets documents whole; a passage is a document.
    size = None if info.cuts and not passages else options.chunk_tokens
    wanted = size or info.window or (PASSAGE_TOKENS if passages else None)
    if info.tokenizer is not None and info.length is not None:
        fits = info.length - info.specials
        limit = fits - max(1, (info.window or info.length) // 4)
        query, tokens = _fit_query(query, info, limit, options, notes)
        fits -= tokens
        if options.chunk_tokens is not None and options.chunk_tokens > fits:
            notes.append(
                f"chunks have {fits} tokens, not {options.chunk_tokens}: "
                f"{info.model} takes {info.length} with the query"
            )
        wanted = min(wanted or fits, fits)
    only_first = options.aggregate == Aggregation.FIRST and not passages
    max_chunks = 1 if only_first else options.max_chunks or DEFAULT_MAX_CHUNKS
    if wanted is None or info.tokenizer is None:
        return Plan(query, info.tokenizer, None, 0, max_chunks, tuple(notes))

    max_overlap, overlap = wanted // 4, options.overlap_tokens
    if overlap is not None and overlap > max_overlap:
        notes.append(f"chunks overlap by {max_overlap} tokens, not {overlap}: a quarter at most")
    overlap = max_overlap if overlap is None else min(overlap, max_overlap)
    return Plan(query, info.tokenizer, wanted, overlap, max_chunks, tuple(notes))


def _fit_query(
    query: str, info: ScorerInfo, limit: int, options: ChunkOptions, notes: list[str]
) -> tuple[str, int]:
    """Check that a query has at most `limit` tokens, or cut it. Returns it with its tokens."""
    assert info.tokenizer is not None  # noqa: S101 - `plan_chunks` has checked
    measure = info.query_tokens or info.tokenizer.count
    count = tokens = measure(query)
    if not info.tokenizer.count(query):
        raise UsageError(f"the query is empty: it has no token that {info.model} knows")
    if tokens > limit and not options.truncate_query:
        raise QueryTooLong(tokens, limit, info.model)
    if tokens > limit:
        query, tokens = _cut_query(query, info.tokenizer, measure, limit)
        notes.append(f"the query was cut to its first {tokens} of {count} tokens")
    return query, tokens


def _flag_plan(query: str, info: ScorerInfo, length: int | None) -> Plan:
    """Fit query and passage into one sequence of `length` tokens, as FlagEmbedding does.

    The query gets three quarters of it at most. The passage is cut to the rest
    (FlagEmbedding/inference/reranker/encoder_only/base.py: truncation "only_second").
    """
    if info.tokenizer is None or info.length is None or info.remote:
        raise UsageError(f"--encoding flag is for models that are run here, not for {info.model}")
    length = min(length or info.window or info.length, info.length)
    measure = info.query_tokens or info.tokenizer.count
    count = tokens = measure(query)
    limit = length * 3 // 4
    notes: tuple[str, ...] = ()
    if tokens > limit:
        query, tokens = _cut_query(query, info.tokenizer, measure, limit)
        notes = (f"the query was cut to its first {tokens} of {count} tokens",)
    room = length - info.specials - tokens
    if room < 1:
        raise QueryTooLong(count, length - info.specials - 1, info.model)
    return Plan(query, info.tokenizer, room, 0, 1, notes, first_only=True)


def _cut_query(
    query: str, tokenizer: Tokenizer, measure: Callable[[str], int], limit: int
) -> tuple[str, int]:
    """Cut a query to at most `limit` tokens by `measure`. Returns it with its tokens."""
    spans = tokenizer.encode(query).spans
    keep, count = min(limit, len(spans)), limit + 1
    while count > limit and keep > 0:  # the rest of a cut word can have more tokens than before
        query = query[: spans[keep - 1][1]]
        count = measure(query)
        keep -= 1
    return query, count


def windows(text: str, spans: Sequence[Span], room: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Lay windows of at most `room` tokens over a text. Yields half-open ranges of tokens.

    The rest of the text is always shared evenly among the windows that it needs, so that none is a
    stub. A window ends at the best place near its share. The next one begins at the best place
    within `overlap` tokens before that end.
    """
    count, start = len(spans), 0
    while count - start > room:
        left = count - start
        shares = -(-(left - overlap) // (room - overlap))
        share = start + -(-(left + (shares - 1) * overlap) // shares)
        reach = room // 4
        lowest, highest = max(start + 1, share - reach), min(start + room, share + reach)
        end = _best_cut(text, spans, lowest, highest, share)
        if end is None:  # a character has more tokens than were searched: look further back
            end = _best_cut(text, spans, start + 1, highest, share) or share
        yield start, end
        start = _next_start(text, spans, start, end, overlap)
    if count:
        yield start, count


def _best_cut(text: str, spans: Sequence[Span], lowest: int, highest: int, near: int) -> int | None:
    """The best place to cut from `lowest` to `highest`; of equal ones the nearest to `near`.

    None if each is inside a code point.
    """
    best, place = (Cut.IN_CHARACTER, 0), None
    for index in range(lowest, highest + 1):
        quality = (judge_cut(text, spans, index), -abs(index - near))
        if quality[0] is not Cut.IN_CHARACTER and (place is None or quality > best):
            best, place = quality, index
    return place


def _next_start(text: str, spans: Sequence[Span], start: int, end: int, overlap: int) -> int:
    if overlap == 0:
        return end
    lowest = max(start + 1, end - overlap)
    return _best_cut(text, spans, lowest, max(lowest, end - overlap // 2), lowest) or end


def segments(text: str) -> Iterator[Span]:
    """Cut a long text into segments, at white space if possible. Yields ranges of characters."""
    start = 0
    while len(text) - start > SEGMENT_CHARACTERS:
        end = start + SEGMENT_CHARACTERS
        for space in ("\n", " "):
            found = text.rfind(space, start + SEGMENT_CHARACTERS // 2, end)
            if found > 0:
                end = found
                break
        else:
            places = range(end, end - _LOOK_BACK_CHARACTERS, -1)
            end = next((place for place in places if not is_inside_character(text, place)), end)
        yield start, end
        start = end
    yield start, len(text)


def _encode(text: str, tokenizer: Tokenizer, enough: int) -> tuple[Tokens, int]:
    """Encode a text, and count all its tokens. Tokens far beyond `enough` are only counted."""
    ids: list[int] = []
    spans: list[Span] = []
    total = 0
    for start, end in segments(text):
        tokens = tokenizer.encode(text[start:end])
        total += len(tokens.ids)
        if len(ids) <= enough:
            ids.extend(tokens.ids)
            spans.extend((a + start, b + start) for a, b in tokens.spans)
    return Tokens(ids, spans), total


class _TitleTokens(NamedTuple):
    """The title that is put before each chunk of a document, as text and as tokens."""

    text: str
    ids: Sequence[int]


def _cut_title(title: str, tokenizer: Tokenizer, limit: int) -> tuple[_TitleTokens, int]:
    """Cut a title to `limit` tokens. Returns it with the number of tokens that are dropped."""
    if not title:
        return _TitleTokens("", ()), 0
    ids, spans = tokenizer.encode(title)
    if len(ids) <= limit:
        return _TitleTokens(title, ids), 0
    end = spans[limit - 1][1] if limit else 0
    return _TitleTokens(title[:end], ids[:limit]), len(ids) - limit


def _whole_chunk(document: Document, tokens: int) -> Chunk:
    start, end = _strip_range(document.text, 0, len(document.text))
    return Chunk(document, start, end, document.text[start:end], tokens, title=document.title)


def _make_chunk(
    document: Document, title: _TitleTokens, tokens: Tokens, first: int, last: int
) -> Chunk:
    """Make the chunk of a range of tokens, with the characters beside them that no token covers."""
    text, spans = document.text, tokens.spans
    start = 0 if first == 0 else spans[first][0]
    end = len(text) if last == len(spans) else max(spans[last][0], spans[last - 1][1])
    start, end = _strip_range(text, start, end)
    ids = (*title.ids, *tokens.ids[first:last]) if title.ids else tokens.ids[first:last]
    return Chunk(document, start, end, text[start:end], last - first, ids, title.text)


def _strip_range(text: str, start: int, end: int) -> Span:
    """The range without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


class Cut(IntEnum):
    """How good a place to cut is, worst first."""

    IN_CHARACTER = 0  # between tokens of one code point: only if there is no other place
    IN_GRAPHEME = 1  # between code points that a reader sees as one character
    CHARACTER = 2
    PUNCTUATION = 3  # as inside 3.14 and x-y, which is better than inside a word
    WORD = 4
    LINE = 5
    SENTENCE = 6
    PARAGRAPH = 7


def judge_cut(text: str, spans: Sequence[Span], index: int) -> Cut:
    """Judge a cut before token `index`, which is not the first one."""
    place = spans[index][0]
    if place < spans[index - 1][1] or not 0 < place < len(text):
        return Cut.IN_CHARACTER  # also beside a token at an end that has no text
    start, end = place, place
    while start > 0 and place - start < _RUN_CHARACTERS and text[start - 1].isspace():
        start -= 1
    while end < len(text) and end - place < _RUN_CHARACTERS and text[end].isspace():
        end += 1
    gap = text[start:end]
    lines = gap.count("\n") or gap.count("\r")
    if lines > 1:
        return Cut.PARAGRAPH
    if _ends_sentence(text, start, spaced=bool(gap)):
        return Cut.SENTENCE
    if lines:
        return Cut.LINE
    if gap:
        return Cut.WORD
    if is_inside_character(text, place):
        return Cut.IN_GRAPHEME
    before, after = text[place - 1], text[place]
    if _is_ideograph(before) or _is_ideograph(after):
        return Cut.WORD
    return Cut.CHARACTER if _in_word(before) and _in_word(after) else Cut.PUNCTUATION


def is_inside_character(text: str, place: int) -> bool:
    """Whether the code points on both sides of a place are one visible character.

    Knows marks, joiners, emoji modifiers and flags, after Unicode's rules for extended grapheme
    clusters (UAX #29). It leaves out conjoining Hangul: texts have it composed.
    """
    before, after = text[place - 1], text[place]
    if _is_mark(after) or _ZERO_WIDTH_JOINER in (before, after):
        return True
    if (before, after) == ("\r", "\n") or "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    return _is_flag(before) and _is_flag(after) and _flags_before(text, place) % 2 == 1


def _ends_sentence(text: str, end: int, *, spaced: bool) -> bool:
    lowest = max(0, end - _RUN_CHARACTERS)
    while end > lowest and text[end - 1] in _CLOSING:
        end -= 1
    if end == 0:
        return False
    return text[end - 1] in (_SENTENCE_END if spaced else _WIDE_SENTENCE_END)


def _is_ideograph(char: str) -> bool:
    """Whether a character is of a script without spaces: a wide one that is not Hangul."""
    return unicodedata.east_asian_width(char) in "WF" and not "\uac00" <= char <= "\ud7a3"


def _in_word(char: str) -> bool:
    return char.isalnum() or _is_mark(char)


def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _flags_before(text: str, place: int) -> int:
    start = place
    while start > 0 and place - start < _RUN_CHARACTERS and _is_flag(text[start - 1]):
        start -= 1
    return place - start
