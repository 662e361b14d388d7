"""Cuts documents into windows of a scorer's tokens, with overlap, where a reader would cut.

    query ─ plan_chunks ─ Plan ─ split ─ segments, find_blocks ─ lay_windows ─ Chunk…

`plan_chunks` finds how much fits beside a query. The `Plan` then cuts one document after the other.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import NamedTuple

from rerank_cli.errors import QueryTooLong, UsageError, check_type
from rerank_cli.media import sent_size
from rerank_cli.ranking import (
    DEFAULT_MAX_CHUNKS,
    Aggregation,
    CandidateCount,
    ChunkOptions,
    Encoding,
)
from rerank_cli.ranking.windows import (
    LayoutOptions,
    Room,
    Span,
    Window,
    is_inside_character,
    join_windows,
    lay_windows,
)
from rerank_cli.structure import Block, find_blocks, is_code
from rerank_cli.types import Chunk, Document, ScorerInfo, Tokenizer, Tokens

# The window of passages if the scorer has none (BM25, in words).
PASSAGE_TOKENS = 128
# A text is encoded in pieces of this size: a text of 50 MB then needs neither the memory of all its
# tokens nor a minute in which nothing can interrupt it.
SEGMENT_CHARACTERS = 1 << 18
_LOOK_BACK_CHARACTERS = 64  # for an end between two visible characters
_MAX_TOKENS_PER_CHARACTER = 4  # one for each byte
_HEADINGS_JOINT = " > "
TOKEN_CHARACTERS = 4  # of a token, about
# Documents are read and cut in batches of the size that suits the scorer. A batch has no more
# characters than this, so that a stream of any length fits in memory.
_MAX_BATCH_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How documents are cut for one query.

    query            as it is scored: it may have been cut
    room             the most tokens of a window; None for any number
    overlap          the most tokens that neighbours share, a quarter of a window at most
    max_chunks       the most windows of a document
    notes            for the user
    first_only       whether only the first `room` tokens of a document are scored
    characters       the most characters of a window with its title; None for any number
    characters_note  for the user, if `characters` ends a window that could have more tokens
    sure_tokens      the tokens of a window beyond which there is `unsure_note` for the user; None
                     for any number
    prepend_headings whether a window is scored behind those of its headings that it does not have;
                     None for code alone

    Documents are scored whole if neither `room` nor `characters` is given.
    """

    query: str
    tokenizer: Tokenizer | None
    room: int | None
    overlap: int
    max_chunks: int
    notes: tuple[str, ...] = ()
    first_only: bool = False
    characters: int | None = None
    characters_note: str = ""
    sure_tokens: int | None = None
    unsure_note: str = ""
    prepend_headings: bool | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """The values on which a document's score depends besides the document and the model."""
        room = (self.room, self.characters, self.first_only)
        return self.query, *room, self.overlap, self.max_chunks, self.prepend_headings

    @property
    def cut_key(self) -> tuple[object, ...]:
        """The values on which a document's windows depend besides document and tokenizer."""
        notes = (self.characters_note, self.sure_tokens, self.unsure_note)
        return (*self.key[1:], *notes)

    def split(self, document: Document) -> "Split":
        """Cut a document into windows. A blank document has none.

        The title takes some of the room of each window, a quarter at most. An image or a video goes
        with each window of its document's text.
        """
        text, tokenizer = document.text, self.tokenizer
        if not text or text.isspace():
            return Split(document, (), 0, 0)
        if tokenizer is None or document.text_is_label:
            return Split(document, (_whole_chunk(document, 0),), 0, 0)
        if self.room is None and _is_within(document, self.characters):
            total = sum(tokenizer.count(text[a:b]) for a, b in segments(text))
            return Split(
                document, (_whole_chunk(document, total),), total, 0, self._notes_on(total)
            )
        return self._split_windows(document, tokenizer)

    def estimate(self, tokens: float) -> tuple[float, float]:
        """Estimate how many windows a document of `tokens` tokens has, and their tokens."""
        if self.room is None or tokens <= self.room:
            return 1, tokens
        step = max(1, self.room - self.overlap)
        count = min(self.max_chunks, math.ceil((tokens - self.overlap) / step))
        return count, min(tokens + (count - 1) * self.overlap, count * self.room)

    def _split_windows(self, document: Document, tokenizer: Tokenizer) -> "Split":
        text, characters = document.text, self.characters
        room = self.room or _MAX_TOKENS_PER_CHARACTER * (characters or 1)
        if _is_within(document, characters):
            characters = None  # which no window can exceed
        heads = _Heads(document, tokenizer, room // 4, characters, self._has_headings(document))
        room -= len(heads.title.ids)
        fit = None
        if characters is None:
            encoded = _encode(text, tokenizer, self.max_chunks * room)
        else:
            characters -= heads.title.characters
            encoded = _encode(text, tokenizer, self.max_chunks * room, self.max_chunks * characters)
            encoded = _divide_long_tokens(text, encoded, characters)
            fit = _CharacterRoom(encoded, characters)
        tokens, total = encoded.tokens, encoded.total

        def room_at(first: int, names: tuple[str, ...]) -> int:
            head = heads.headings(names)
            most = room - len(head.ids)
            return most if fit is None else min(most, fit(first, head.characters))

        windows = self._lay(document, encoded, room_at)
        if not windows:  # the tokenizer makes no tokens, for example of control characters
            return Split(document, (_whole_chunk(document, 0),), 0, 0)
        covered_tokens = windows[-1].last
        chunks = [_make_chunk(document, heads, tokens, window) for window in windows]
        # If white space is tokens too, as in models of characters, a window may hold nothing else.
        chunks = [chunk for chunk in chunks if chunk.text] or [_whole_chunk(document, total)]
        notes = self._notes_on(max(len(chunk.ids or ()) for chunk in chunks))
        is_bound = fit and any(fit(w.first) < min(room, len(tokens.ids) - w.first) for w in windows)
        if is_bound and self.characters_note:
            notes = (*notes, self.characters_note)
        return Split(document, chunks, total, total - covered_tokens + heads.dropped, notes)

    def _lay(self, document: Document, encoded: "_EncodedText", room: Room) -> Sequence[Window]:
        """The windows of a document, at most `max_chunks`."""
        count = len(encoded.tokens.ids)
        most = room(0, ()) if count else 0
        if self.first_only:
            return [Window(0, min(most, count))] if count else []
        is_whole = count <= most and count == encoded.total
        if is_whole and not document.syntax and document.blocks is None:
            return [Window(0, count)] if count else []
        text, blocks = document.text, document.blocks
        if blocks is None:
            end = encoded.end if count < encoded.total else len(text)
            blocks = find_blocks(text[:end], document.syntax)
        if is_whole:
            return [Window(0, count, _headings_of_all(text, blocks))] if count else []
        options = LayoutOptions(room, self.overlap, self._has_headings(document))
        windows = lay_windows(text, encoded.tokens.spans, blocks, options)
        if len(windows) > self.max_chunks:
            windows = join_windows(windows, room)
        return windows[: self.max_chunks]

    def _has_headings(self, document: Document) -> bool:
        """Whether the windows of a document are scored behind headings.

        A method is hard to understand without its class. In texts headings were no gain
        (docs/passages.md).
        """
        setting = self.prepend_headings
        return is_code(document.syntax) if setting is None else setting

    def _notes_on(self, tokens: int) -> tuple[str, ...]:
        """Notes for the user on a window of `tokens`."""
        is_sure = self.sure_tokens is None or tokens <= self.sure_tokens
        return () if is_sure else (self.unsure_note,)


def _is_within(document: Document, characters: int | None) -> bool:
    """Whether a document with its title has at most `characters` characters; None is no limit."""
    if characters is None:
        return True
    title = len(document.title) + 1 if document.title else 0
    return title + len(document.text.strip()) <= characters


class Split(NamedTuple):
    """A document's windows, its `tokens`, and how many of them are in no window.

    `notes` are for the user; they are the same for all documents of a plan. If only some windows
    are chosen, `left_out` counts the others, and `document_index` is the document's place in the
    input. If the windows of a document come one after the other, `places` has their places in it.
    """

    document: Document
    chunks: Sequence[Chunk]
    tokens: int
    dropped: int
    notes: Sequence[str] = ()
    left_out: int = 0
    document_index: int | None = None
    places: Sequence[int] = ()


class WorkEstimate:
    """Estimates what documents take to score for a query, by their sizes and a sample of text.

    Sizes are in bytes or in characters, as the sample is.
    """

    def __init__(self, plan: Plan, info: ScorerInfo, sample: bytes | str) -> None:
        self._plan = plan
        self._fixed_tokens = fixed_work(plan.query, info)
        text = sample if isinstance(sample, str) else sample.decode("utf-8", "ignore")
        tokens = 0 if plan.tokenizer is None else plan.tokenizer.count(text)
        self._share = tokens / len(sample) if tokens else 1 / TOKEN_CHARACTERS

    def work_of(self, size: float) -> float:
        """The work of a document of a size."""
        return self.work_of_all([size])

    def work_of_all(self, sizes: Iterable[float], most: CandidateCount | None = None) -> float:
        """The work of documents of some sizes, if at most `most` passages are read."""
        estimates = [self._plan.estimate(size * self._share) for size in sizes]
        passages = sum(estimate[0] for estimate in estimates)
        work = passages * self._fixed_tokens + sum(estimate[1] for estimate in estimates)
        if most is None or passages <= most.number:
            return work
        return work * min(1.0, most.among(int(passages)) / passages)


def batch_splits(
    splits: Iterable[Split], size: int, *, everything: bool
) -> Generator[list[Split], None, None]:
    """Group a stream of documents; with `everything` in one batch, for scores of a whole set."""
    batch: list[Split] = []
    characters = 0
    for split in splits:
        batch.append(split)
        document = split.document
        characters += sent_size(document) if document.media else len(document.text)
        if (len(batch) >= size or characters >= _MAX_BATCH_CHARACTERS) and not everything:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def fixed_work(query: str, info: ScorerInfo) -> int:
    """The tokens of any pair of a query besides those of its chunk."""
    return info.pair_tokens + info.specials + len(query) // TOKEN_CHARACTERS


def plan_chunks(
    query: str, info: ScorerInfo, options: ChunkOptions, *, passages: bool = False
) -> Plan:
    """Fit windows beside a query; with `passages` each window becomes a result of its own.

    Raises `QueryTooLong` if the query leaves less than a quarter of the model's window or is longer
    than a service takes, and `UsageError` for options that make no sense.
    """
    check_type("the query", query, str)
    options.check()
    if options.encoding == Encoding.FLAG:
        return _flag_plan(query, info, options.chunk_tokens)
    notes: list[str] = []
    if info.cuts and not passages:  # a service that cuts gets documents whole
        options = replace(options, chunk_tokens=None)
    query = _fit_query_characters(query, info, options, notes)
    limits, characters = info.limits, info.limits.passage_characters
    target = options.chunk_tokens or info.window
    if target is None and passages and (characters is None or limits.sure_tokens is not None):
        target = PASSAGE_TOKENS
    if info.tokenizer is None:
        target = None
    else:
        query, target = _fit_tokens(query, target, info, options, notes)
        sure = limits.sure_tokens
        if sure is not None and limits.query is None and info.tokenizer.count(query) > sure:
            notes.append(
                f"queries of more than {sure:,} tokens are sent whole, and how much {info.model} "
                "reads of them is not known"
            )
    only_first = options.aggregate == Aggregation.FIRST and not passages
    # Each window of characters overlaps by a quarter of its own tokens.
    overlap, max_overlap = options.overlap_tokens, (target or 0) // 4 or characters or 0
    if target is not None and overlap is not None and overlap > max_overlap:
        notes.append(f"chunks overlap by {max_overlap} tokens, not {overlap}: a quarter at most")
    characters_note = ""
    if characters is not None and target is not None and options.chunk_tokens is not None:
        characters_note = (
            f"chunks have at most {characters} characters, and not always {target} tokens: "
            f"{info.model} takes no more"
        )
        notes += [characters_note] if target > characters else []
    return Plan(
        query=query,
        tokenizer=info.tokenizer,
        room=target,
        overlap=max_overlap if overlap is None else min(overlap, max_overlap),
        max_chunks=1 if only_first else options.max_chunks or DEFAULT_MAX_CHUNKS,
        notes=tuple(notes),
        characters=characters,
        characters_note=characters_note,
        sure_tokens=limits.sure_tokens,
        unsure_note=limits.unsure_note,
        prepend_headings=options.prepend_headings,
    )


def _fit_tokens(
    query: str, target: int | None, info: ScorerInfo, options: ChunkOptions, notes: list[str]
) -> tuple[str, int | None]:
    """Fit a query, and windows of `target` tokens, into the model's limits. Returns both."""
    limits, length = info.limits, info.length
    most, words = limits.passage, f"{limits.passage} of a document"
    query_limits = [] if limits.query is None else [limits.query]
    if length is not None:
        query_limits.append(length - info.specials - max(1, (info.window or length) // 4))
    if query_limits:
        query, tokens = _fit_query(query, info, min(query_limits), options, notes)
        if length is not None and (most is None or length - info.specials - tokens < most):
            most, words = length - info.specials - tokens, f"{length} with the query"
    if most is None:
        return query, target
    if options.chunk_tokens is not None and options.chunk_tokens > most:
        notes.append(
            f"chunks have {most} tokens, not {options.chunk_tokens}: {info.model} takes {words}"
        )
    return query, min(target or most, most)


def _fit_query_characters(
    query: str, info: ScorerInfo, options: ChunkOptions, notes: list[str]
) -> str:
    """Check that a query has no more characters than a service takes, or cut it."""
    limit, count = info.limits.query_characters, len(query)
    if limit is None or count <= limit:
        return query
    if not options.truncate_query:
        raise QueryTooLong(count, limit, info.model, "characters")
    query = query[: _visible_end(query, 0, limit)]
    notes.append(f"the query was cut to its first {len(query)} of {count} characters")
    return query


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
        query, tokens = _truncate_query(query, info.tokenizer, measure, limit)
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
        query, tokens = _truncate_query(query, info.tokenizer, measure, limit)
        notes = (f"the query was cut to its first {tokens} of {count} tokens",)
    room = length - info.specials - tokens
    if room < 1:
        raise QueryTooLong(count, length - info.specials - 1, info.model)
    return Plan(query, info.tokenizer, room, 0, 1, notes, first_only=True)


def _truncate_query(
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


class _CharacterRoom:
    """Counts the tokens from any token on that have room in a window of `characters`."""

    def __init__(self, encoded: "_EncodedText", characters: int) -> None:
        self._starts, self._ends = encoded.starts, encoded.ends
        self._characters = characters

    def __call__(self, start: int, beside: int = 0) -> int:
        """The tokens from `start` that fit, with `beside` characters put before the window."""
        most = self._starts[start] + self._characters - beside
        end = bisect_right(self._ends, most, start)
        return max(1, end - start)


def segments(text: str) -> Iterator[Span]:
    """Cut a long text into segments, at white space if possible. Yields ranges of characters."""
    start = 0
    while len(text) - start > SEGMENT_CHARACTERS:
        end = start + SEGMENT_CHARACTERS
        for space in ("\n", " "):
            space_place = text.rfind(space, start + SEGMENT_CHARACTERS // 2, end)
            if space_place > 0:
                end = space_place
                break
        else:
            end = _visible_end(text, start, end)
        yield start, end
        start = end
    yield start, len(text)


def _visible_end(text: str, start: int, end: int) -> int:
    """A place at `end`, or a little before it and after `start`, between two visible characters."""
    places = range(end, max(start, end - _LOOK_BACK_CHARACTERS), -1)
    return next((place for place in places if not is_inside_character(text, place)), end)


class _EncodedText(NamedTuple):
    """The tokens of a text from `begin` to `end`; `total` counts those behind it too."""

    tokens: Tokens
    total: int
    begin: int
    end: int

    @property
    def starts(self) -> Sequence[int]:
        """For each token, the character at which a window begins that begins with the token."""
        return [self.begin, *(start for start, _ in self.tokens.spans[1:])]

    @property
    def ends(self) -> Sequence[int]:
        """For each token, the end of a window that ends with the token, in characters."""
        places = (max(end, start) for (_, end), (start, _) in pairwise(self.tokens.spans))
        return [*accumulate(places, max), self.end]


def _encode(
    text: str, tokenizer: Tokenizer, enough: int, enough_characters: int | None = None
) -> _EncodedText:
    """Encode a text, and count all its tokens. Tokens far beyond `enough` are counted but not kept.

    With `enough_characters` the white space at both ends is left out.
    """
    ids: list[int] = []
    spans: list[Span] = []
    total, body, begin = 0, text, 0
    if enough_characters is not None:
        body, begin = text.strip(), len(text) - len(text.lstrip())
    last = begin
    for start, end in segments(body):
        tokens = tokenizer.encode(body[start:end])
        total += len(tokens.ids)
        if len(ids) <= enough and (enough_characters is None or start <= enough_characters):
            last = begin + end
            ids.extend(tokens.ids)
            spans.extend((a + begin + start, b + begin + start) for a, b in tokens.spans)
    return _EncodedText(Tokens(ids, spans), total, begin, last)


def _divide_long_tokens(text: str, encoded: _EncodedText, most: int) -> _EncodedText:
    """Divide tokens that have more than `most` characters with the uncovered text behind them.

    Each part counts as a token. A text without tokens is divided as if it were one.
    """
    if not encoded.tokens.ids:
        tokens = Tokens([0], [(encoded.begin, encoded.end)])
        encoded = encoded._replace(tokens=tokens, total=encoded.total + 1)
    places = [*zip(*encoded.tokens, encoded.starts, encoded.ends, strict=True)]
    if all(end - start <= most for _, _, start, end in places):
        return encoded
    ids: list[int] = []
    spans: list[Span] = []
    for token, span, start, end in places:
        while end - start > most:
            part_end = _visible_end(text, start, start + most)
            ids.append(token)
            spans.append((start, part_end))
            start, span = part_end, (part_end, end)
        ids.append(token)
        spans.append(span)
    total = encoded.total + len(ids) - len(places)
    return encoded._replace(tokens=Tokens(ids, spans), total=total)


def _headings_of_all(text: str, blocks: Sequence[Block]) -> tuple[str, ...]:
    """The names of the blocks that contain the whole text."""
    start, end = _strip_range(text, 0, len(text))
    names = list[str]()
    for block in blocks:
        if block.start > start or block.end < end:
            break
        names += [block.name] * bool(block.name)
    return tuple(names)


class _TitleTokens(NamedTuple):
    """The text before a chunk of a document, with its tokens."""

    text: str
    ids: Sequence[int]

    @property
    def characters(self) -> int:
        """The characters that it takes, with the newline behind it."""
        return len(self.text) + 1 if self.text else 0


_NO_TITLE = _TitleTokens("", ())


class _Heads:
    """The text before the chunks of a document: its title, and the headings of each.

    They have `limit` tokens at most, and a quarter of `characters`, if given. `dropped` counts the
    tokens of the title beyond the limit.
    """

    def __init__(
        self,
        document: Document,
        tokenizer: Tokenizer,
        limit: int,
        characters: int | None,
        prepend_headings: bool,
    ) -> None:
        self.title, self.dropped = _truncate_title(document.title, tokenizer, limit, characters)
        self._has_title = bool(document.title)
        self._outer = tuple(document.headings) if prepend_headings else ()
        self._tokenizer, self._limit, self.characters = tokenizer, limit, characters
        self._tokens_by_names: dict[tuple[str, ...], _TitleTokens] = {(): _NO_TITLE}

    def headings(self, names: tuple[str, ...]) -> _TitleTokens:
        """The headings that are put before a window; the innermost ones if there are too many.

        `names` are those in the document's text.
        """
        names = () if self._has_title else (*self._outer, *names)
        head = self._tokens_by_names.get(names)
        if head is None:
            head = self._truncate_headings(names)
            self._tokens_by_names[names] = head
        return head

    def _truncate_headings(self, names: tuple[str, ...]) -> _TitleTokens:
        while True:
            text = _HEADINGS_JOINT.join(names)
            head, dropped = _truncate_title(text, self._tokenizer, self._limit, self.characters)
            if len(names) == 1 or (not dropped and head.text == text):
                return head
            names = names[1:]

    def before(self, names: tuple[str, ...]) -> _TitleTokens:
        """The whole text that is put before a window."""
        return self.title if self._has_title else self.headings(names)


def _truncate_title(
    title: str, tokenizer: Tokenizer, limit: int, characters: int | None
) -> tuple[_TitleTokens, int]:
    """Cut a title to `limit` tokens, and to a quarter of a window's `characters`, if given.

    Returns it with the number of tokens that are dropped.
    """
    if not title:
        return _NO_TITLE, 0
    ids, spans = tokenizer.encode(title)
    if characters is not None and len(title) > characters // 4:
        limit = min(limit, sum(end <= characters // 4 for _, end in spans))
        if limit == len(ids):  # the rest is covered by no token
            title = title[: characters // 4]
    if len(ids) <= limit:
        return _TitleTokens(title, ids), 0
    end = spans[limit - 1][1] if limit else 0
    return _TitleTokens(title[:end], ids[:limit]), len(ids) - limit


def _whole_chunk(document: Document, tokens: int) -> Chunk:
    start, end = _strip_range(document.text, 0, len(document.text))
    text = document.text[start:end]
    headings = (*document.headings, *_headings_of_all(document.text, document.blocks or ()))
    return Chunk(document, start, end, text, tokens, title=document.title, headings=headings)


def _make_chunk(document: Document, heads: _Heads, tokens: Tokens, window: Window) -> Chunk:
    """Make the chunk of a window, with the characters beside it that no token covers."""
    text, spans = document.text, tokens.spans
    first, last = window.first, window.last
    start = 0 if first == 0 else spans[first][0]
    end = len(text) if last == len(spans) else max(spans[last][0], spans[last - 1][1])
    start, end = _strip_range(text, start, end)
    if document.syntax and heads.characters is None:
        start = _with_indentation(text, start)
    head = heads.before(window.prefix)
    ids = (*head.ids, *tokens.ids[first:last]) if head.ids else tokens.ids[first:last]
    part = text[start:end]
    headings = (*document.headings, *window.headings)
    return Chunk(document, start, end, part, last - first, ids, head.text, headings)


def _with_indentation(text: str, start: int) -> int:
    """The start of a line if only its indentation is before a place, else that place.

    Without that of its first line, a method would look as if its body were in another one.
    """
    line = start
    while line > 0 and text[line - 1] in " \t":
        line -= 1
    return line if line == 0 or text[line - 1] in "\r\n" else start


def _strip_range(text: str, start: int, end: int) -> Span:
    """The range without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
