"""Cuts text into sentences, and into the words that BM25 compares and a table marks.

    text ─ normalise ─ words, and runs of scripts without blanks ─ stems and bigrams ─ terms

Words are letters, digits and their marks. Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese
have no blanks between words, or no words between blanks: there every two neighbouring characters
are a term, as in Lucene's CJKBigramFilter. The stemmer and the stop words are English.

In code the words of an identifier are terms too, beside the whole of it: get, redirect and target
of get_redirect_target and getRedirectTarget.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, pairwise
from operator import add
from typing import NamedTuple

# Lucene's English stop words, which bm25s uses too.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with",
    )
)
# Words that are frequent in queries and say nothing about their subject.
COMMON_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about an and any are as at be been but by can could did do does for from get had has "
        "have how i if in into is it its me my no not of on or our should so some than that the "
        "their then there these they this to was we were what when where which who whom whose why "
        "will with would you your",
    )
)
_MAX_STEMS = 200_000  # words whose stems are cached
_CHANGED_ENDS = re.compile(r"(?<=.)(?:ie|(?<=b)l|[eiy])\Z")
_NO_STEM = ""  # of a stop word, and of a word of one character

# Ranges of characters, written as in a regular expression.
_LATIN = "\0-\u036f\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff"
# Unicode's default-ignorable characters.
_INVISIBLE = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff"
)
# Vowel points of Hebrew, Arabic and Syriac, and the stroke that lengthens Arabic letters.
_LEFT_OUT_BY_WRITERS = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0730-\u074a"
)
# Han, kana, Bopomofo, Hangul with its parts, Yi; and beyond the first plane Tangut, kana and Han.
_EAST_ASIAN = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u3105-\u312f\u3131-\u318e\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua48c\uf900-\ufaff\uff66-\uff9d\uffa1-\uffdc\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb"
    "\U00017000-\U00018cff\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"
)
# Thai and Lao, Burmese, Khmer, Tai Le and New Tai Lue, Tai Tham, Balinese, Javanese, and more
# Burmese with Tai Viet. They have digits and marks besides.
_SOUTH_EAST_ASIAN_BLOCKS = (
    range(0xE00, 0xF00), range(0x1000, 0x10A0), range(0x1780, 0x1800), range(0x1950, 0x19E0),
    range(0x1A20, 0x1AB0), range(0x1B00, 0x1B80), range(0xA980, 0xAA00), range(0xAA60, 0xAAE0),
)  # fmt: skip
# Characters that belong to the one before, beside Unicode's marks: invisible ones, vowels and final
# consonants of Hangul that is not composed, and the sound marks of narrow katakana.
_MARKS = f"{_INVISIBLE}\u1160-\u11ff\ud7b0-\ud7fb\uff9e\uff9f"
# Those of Unicode's first plane. With others a set of characters would be no table to look up in,
# and patterns many times slower.
_BLOCKS_WITH_MARKS = (range(0x300, 0x3400), range(0xA000, 0xAC00), range(0xFB00, 0xFFFF))

_SENTENCE_END = frozenset(".!?…。！？｡؟।")
_WIDE_SENTENCE_END = frozenset("。！？｡")  # which no space follows
_CLOSING = frozenset("\"'”’»)]}」』）】")
# The places where a sentence may end: white space, and behind a wide full stop.
_GAP = re.compile(rf"\s+|[{''.join(_WIDE_SENTENCE_END)}][{re.escape(''.join(_CLOSING))}]*")
_FULL_STOP_WORD = re.compile(r"([^\W_](?:[\w.]{0,9}\w)?)\.\Z")
_ABBREVIATIONS = frozenset(
    re.findall(r"\S+", "mr mrs ms dr prof st no nr vs cf fig e.g i.e approx bzw ca z.b d.h")
)
# A name of code that is made of words, as check_password and checkPassword, and one of these.
_IDENTIFIER = re.compile("_|[a-z0-9][A-Z]")
_IDENTIFIER_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+")
_JOINED_IDENTIFIER = re.compile(
    r"\b\w*?(?:_|[a-z0-9][A-Z]|[A-Z][A-Z][a-z]|[A-Za-z][0-9]|[0-9][A-Za-z])\w*"
)
_WORD_AHEAD = re.compile(r"\S{1,64}")
_MIN_WRAPPED_CHARACTERS = 40  # of a line that is wrapped
_CODE = re.compile(r"\w[(\[]|[={};<>\\]|[^\W\d]\.[^\W\d]")  # characters that prose hardly has
_ITEM = re.compile(r"(?:[-*+•#>|]|\d+[.):])(?=\s|\Z)|[#>|@]|\d")  # the start of a line of its own
_CLOSING_CHARACTERS = 64  # the most that may close a sentence

_WORD = re.compile(r"\w+")
_TERM = re.compile(r"\b\w\w+\b")  # two characters or more, as in bm25s and scikit-learn


class _Spelling(NamedTuple):
    """Patterns of text that is not all ASCII.

    special    a character of the blocks that have marks or scripts without blanks; the words of
               text without such are plain ones
    plain      a text that needs no normalising, and whose words are plain ones
    no_word    characters that would become letters or digits of the word before: Foo™ and 2½
    ignored    characters that no word has
    latin      a word in Latin script
    """

    special: re.Pattern[str]
    plain: re.Pattern[str]
    no_word: re.Pattern[str]
    ignored: re.Pattern[str]
    latin: re.Pattern[str]


@cache
def _spelling() -> _Spelling:
    """The patterns for text that is not ASCII, made when first needed: that takes a while."""
    return _Spelling(
        special=re.compile(
            "[\xad\u0300-\u036f\u0483-\u1dff\u200b-\u200f\u202a-\u202e\u2060-\u206f"
            "\u20d0-\u20ff\u2ce0-\u2dff\u3000-\ud7ff\uf900-\ufdff\ufe20-\ufefc\uff66-\uffdc"
            "\U00017000-\U0001b2ff\U00020000-\U000e0fff]"
        ),
        plain=re.compile(
            "[\0-\x7f\xa0\xa9\xab\xae\xb0\xb7\xbb\xc0-\u012f\u2013\u2014\u2018\u2019\u201c"
            "\u201d\u2022\u2026\u20ac]*"
        ),
        no_word=re.compile("[\u2120\u2122\xbc-\xbe\u2150-\u215f\u2189]"),
        ignored=re.compile(f"[{_INVISIBLE}{_LEFT_OUT_BY_WRITERS}]"),
        latin=re.compile(f"[{_LATIN}]*"),
    )


def normalise(text: str) -> str:
    """A text in the one form that all its spellings have.

    The form is NFKC, with case folded and without invisible characters: composed and decomposed,
    narrow and wide, upper and lower case are the same, and so are ligatures and their letters.
    Accents stay, because they distinguish words: schon and schön.
    """
    if text.isascii():
        return text.lower()
    spelling = _spelling()
    if spelling.plain.fullmatch(text):
        return text.casefold()
    text = spelling.no_word.sub(" ", text)
    text = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")  # of İ
    return unicodedata.normalize("NFKC", spelling.ignored.sub("", text))


class QueryTerms(NamedTuple):
    """The terms of a query in order; `singles` are those that `Words.terms` only finds on demand.

    `parts` are the further terms of the identifiers in the query. They count in code alone.
    """

    terms: Sequence[str]
    singles: frozenset[str]
    parts: Sequence[str] = ()

    @property
    def beginnings(self) -> frozenset[str]:
        """Prefixes: a normalised text with a term of the query contains at least one of them.

        The stemmer changes the last letters of some words: memory to memori, dying to die, and
        possibility to possibl.
        """
        terms = (*self.terms, *self.parts)
        return frozenset(_CHANGED_ENDS.sub("", term, count=1) or term for term in terms)


class Words(dict[str, str]):
    """Cuts texts into terms. A cache of the stems of words; that of a stop word is empty."""

    def __init__(self) -> None:
        super().__init__()
        import Stemmer  # few runs need it

        self._stemmer = Stemmer.Stemmer("english")
        self._parts: dict[str, Sequence[str]] = {}  # the terms within identifiers, a cache

    def code_terms(self, text: str, singles: frozenset[str] = frozenset()) -> list[str]:
        """The terms of source code: those of any text, then those within its identifiers."""
        terms = self.terms(text, singles)
        return terms + self._terms_within(text)

    def _terms_within(self, code: str) -> list[str]:
        """The terms within the identifiers of a text."""
        code = code if code.isascii() else unicodedata.normalize("NFC", code)
        parts_by_word, terms = self._parts, list[str]()
        for word in _TERM.findall(code):
            parts = parts_by_word.get(word)
            if parts is None:
                parts = self._add_parts(word)
            if parts:
                terms += parts
        return terms

    def _add_parts(self, word: str) -> Sequence[str]:
        """The terms within an identifier; none if it is a plain word."""
        if len(self._parts) >= _MAX_STEMS:
            self._parts.clear()
        stems = (self[normalise(part)] for part in identifier_words(word))
        parts = self._parts[word] = tuple(filter(None, stems))
        return parts

    def terms(self, text: str, singles: frozenset[str] = frozenset()) -> list[str]:
        """The terms of a text: stems of words, and bigrams of runs. Runs come last.

        Leaves out stop words and words of one character, but not `singles`. A character that is
        one of these is a term wherever it is in a run, beside the bigrams.
        """
        text = text.lower() if text.isascii() else normalise(text)
        if singles or is_special(text):
            return self._terms_of(*split_words(text), singles)
        return list(filter(None, [self[word] for word in _TERM.findall(text)]))

    def query_terms(self, query: str) -> QueryTerms:
        """The terms of a query. A character that is alone in it counts in any run of a text.

        A query that has only stop words and single letters has these as its terms.
        """
        words, runs = split_words(normalise(query))
        singles = frozenset(run[0] for run in runs if len(run) == 1)
        terms = self._terms_of(words, runs, singles)
        if not terms:
            return QueryTerms(words, frozenset(words))
        parts = [part for part in self._terms_within(query) if part not in terms]
        return QueryTerms(terms, singles, parts)

    def _terms_of(
        self, words: Sequence[str], runs: Sequence[Sequence[str]], singles: frozenset[str]
    ) -> list[str]:
        terms = [word if word in singles else self[word] for word in words]
        for run in runs:
            if len(run) == 1:
                terms.append(run[0])
                continue
            terms += map(add, run, run[1:])
            if singles:
                terms += filter(singles.__contains__, run)
        return list(filter(None, terms))

    def __missing__(self, word: str) -> str:
        if len(self) >= _MAX_STEMS:
            self.clear()
        is_left_out = len(word) == 1 or word in STOP_WORDS
        stem = self[word] = _NO_STEM if is_left_out else self.stem(word)
        return stem

    def stem(self, word: str) -> str:
        """The English stem of a word in Latin script; any other word unchanged."""
        is_latin = word.isascii() or _spelling().latin.fullmatch(word)
        return str(self._stemmer.stemWord(word)) if is_latin else word


def without_common_words(query: str) -> str:
    """A query without words that say nothing about its subject, or all of it if it has no others.

    In short texts such as lines of a log, words such as how and my are rare, and would count too
    much.
    """
    words, runs = split_words(normalise(query))
    rest = [word for word in words if word not in COMMON_WORDS]
    return " ".join([*rest, *map("".join, runs)]) or query


class QueryTermFinder:
    """Finds the terms of one query in texts, without cutting the texts into words.

    `query` has the terms. Those of texts are numbers: the places of these terms, each once, and of
    the further terms of its identifiers, which come last. `terms` is how many there are.
    """

    def __init__(self, query: str) -> None:
        self._words = Words()
        self.query = self._words.query_terms(query)
        terms = dict.fromkeys((*self.query.terms, *self.query.parts))
        self.terms = len(terms)
        self._places = {term: place for place, term in enumerate(terms)}
        self._place_cache: dict[str, int | None] = {}  # a cache of the places of words
        beginnings = sorted(self.query.beginnings)
        # A pattern of nothing would match anywhere.
        self._any = re.compile("|".join(map(re.escape, beginnings)) or r"(?!)")
        # Each branch begins with a character, so that the search is fast. The rest of a branch
        # checks whether a word begins there.
        words = [rf"{re.escape(word[0])}(?<!\w\w){re.escape(word[1:])}" for word in beginnings]
        self._word = re.compile(rf"(?:{'|'.join(words) or '(?!)'})\w*")

    def find(self, text: str) -> list[tuple[int, int]]:
        """The terms of the query in a normalised text, as pairs (character, place of the term)."""
        return self._find_special(text) if is_special(text) else self.find_plain(text)

    def find_plain(self, text: str) -> list[tuple[int, int]]:
        """Find terms in a text that is not special (`is_special`), in the order of the text."""
        places = []
        for match in self._word.finditer(text):
            place = self._place_of(match[0])
            if place is not None:
                places.append((match.start(), place))
        return places

    def _find_special(self, text: str) -> list[tuple[int, int]]:
        if self._any.search(text) is None:
            return []
        patterns, places, singles = _patterns(), self._places, self.query.singles
        terms = [(match.start(), match[0]) for match in patterns.word.finditer(text)]
        pairs = [(start, self._place_of(word)) for start, word in terms]
        for run in patterns.run.finditer(text):
            characters = [
                (match.start(), match[0])
                for match in patterns.character.finditer(text, run.start(), run.end())
            ]
            if len(characters) == 1 or singles:
                pairs += [
                    (start, places.get(character))
                    for start, character in characters
                    if len(characters) == 1 or character in singles
                ]
            pairs += [
                (start, places.get(first + second))
                for (start, first), (_, second) in pairwise(characters)
            ]
        return sorted((start, place) for start, place in pairs if place is not None)

    def _place_of(self, word: str) -> int | None:
        """The place of a word's term among the terms of the query."""
        if word not in self._place_cache:
            if len(self._place_cache) >= _MAX_STEMS:
                self._place_cache.clear()
            term = word if word in self.query.singles else self._words[word]
            self._place_cache[word] = self._places.get(term)
        return self._place_cache[word]


class QueryMark(NamedTuple):
    """A word of a text that is in the query too: its span of characters, and the query's term."""

    start: int
    end: int
    term: str


class QueryWords:
    """The words of a query that are worth marking: all of them if it has only common words.

    In scripts without blanks that is any two neighbouring characters of the query, or one that is
    alone in it. In names of code, as check_password, it is each of their words.
    """

    def __init__(self, query: str) -> None:
        self._words = Words()
        words, runs = split_words(normalise(query))
        self._stems = {self._words.stem(word) for word in {*words} - COMMON_WORDS or words}
        self._bigrams = {first + second for run in runs for first, second in pairwise(run)}
        self._singles = {run[0] for run in runs if len(run) == 1}
        self._terms: dict[str, tuple[str, str]] = {}  # a cache

    @property
    def count(self) -> int:
        """How many terms they are."""
        return len(self._stems) + len(self._bigrams) + len(self._singles)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The half-open spans of characters where the query's words are."""
        return [(mark.start, mark.end) for mark in self.marks(text)]

    def marks(self, text: str) -> list[QueryMark]:
        """The places of the query's words, each with the term of the query that it is."""
        marks = []
        before, before_start, before_end = "", 0, 0  # the token before
        for match in token_pattern(text).finditer(text):
            start, end = match.span()
            token, term = self._find_term(match.group())
            if before_end == start and before + token in self._bigrams:
                marks.append(QueryMark(before_start, end, before + token))
            elif term:
                marks.append(QueryMark(start, end, term))
            elif _IDENTIFIER.search(match.group()):
                parts = _IDENTIFIER_PART.finditer(text, start, end)
                spans = ((*part.span(), self._find_term(part.group())[1]) for part in parts)
                marks += [QueryMark(*mark) for mark in spans if mark[2]]
            before, before_start, before_end = token, start, end
        return marks

    def _find_term(self, token: str) -> tuple[str, str]:
        """The normal form of a token, and the term of the query that it is; empty if it is none."""
        cached_term = self._terms.get(token)
        if cached_term is not None:
            return cached_term
        if len(self._terms) >= _MAX_STEMS:
            self._terms.clear()
        form = normalise(token)
        stem = self._words.stem(form)
        term = form if form in self._singles else stem if stem in self._stems else ""
        self._terms[token] = form, term
        return form, term


def identifier_words(identifier: str) -> Sequence[str]:
    """The words of an identifier, cut at case, digits and underscores; none if it is one word.

    HTTPServer is HTTP and Server, sha256_sum is sha, 256 and sum, and _private is private.
    """
    parts = _IDENTIFIER_PART.findall(identifier)
    return () if parts == [identifier] else parts


def with_identifier_words(code: str) -> str:
    """Source code with the words of each identifier behind it, if there are several."""
    return _JOINED_IDENTIFIER.sub(_spell_out, code)


def _spell_out(identifier: re.Match[str]) -> str:
    return " ".join((identifier.group(), *identifier_words(identifier.group())))


def token_pattern(text: str) -> re.Pattern[str]:
    """The pattern of the tokens of a text as it stands: each word, and each character of a run."""
    return _patterns().token if is_special(text) else _WORD


def split_words(text: str) -> tuple[list[str], list[Sequence[str]]]:
    """The words of a normalised text, and the characters of each of its runs."""
    if not is_special(text):
        return _WORD.findall(text), []
    patterns = _patterns()
    runs = patterns.run.findall(text)
    return patterns.word.findall(text), [
        patterns.character.findall(run) if patterns.mark.search(run) else run for run in runs
    ]


def is_special(text: str) -> bool:
    """Whether a text may have marks, or scripts without blanks."""
    return not text.isascii() and _spelling().special.search(text) is not None


class _Patterns(NamedTuple):
    """Patterns of normalised text; a text as it stands has `token` and `run` too.

    mark       a mark
    word       a word: letters and digits of scripts with blanks, and their marks
    run        neighbouring characters of scripts without blanks
    character  one of these, and its marks
    token      a word or a character
    """

    mark: re.Pattern[str]
    word: re.Pattern[str]
    run: re.Pattern[str]
    character: re.Pattern[str]
    token: re.Pattern[str]


@cache
def _patterns() -> _Patterns:
    """The patterns, made when a text first needs them: that takes some milliseconds."""
    marks = _MARKS + _ranges(_BLOCKS_WITH_MARKS, "M")
    unspaced = _EAST_ASIAN + _ranges(_SOUTH_EAST_ASIAN_BLOCKS, "L")
    word = rf"[^\W{unspaced}]+(?:[{marks}]+[^\W{unspaced}]*)*"
    character = f"[{unspaced}][{marks}]*"
    return _Patterns(
        mark=re.compile(f"[{marks}]"),
        word=re.compile(word),
        run=re.compile(f"[{unspaced}][{unspaced}{marks}]*"),
        character=re.compile(character),
        token=re.compile(f"{word}|{character}"),
    )


def _ranges(blocks: Sequence[range], category: str) -> str:
    """The characters of some blocks that have a category, written as in a regular expression."""
    ranges: list[list[int]] = []
    for code in chain.from_iterable(blocks):
        if unicodedata.category(chr(code))[0] == category:
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """The sentences of a text, without the white space at their ends.

    A line ends a sentence too, unless it is wrapped: then the next word had no room in the longest
    line of the paragraph. So lists, tables and code fall into their lines.
    """
    paragraph: list[tuple[int, int]] = []  # its gaps
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    for gap in _GAP.finditer(text, start, end):
        before, after = gap.span()
        if not text[before].isspace():
            before = after
        paragraph.append((before, after))
        if _count_lines(text[before:after]) > 1:
            yield from _paragraph_sentences(text, start, paragraph)
            paragraph, start = [], after
    yield from _paragraph_sentences(text, start, [*paragraph, (end, end)])


def _paragraph_sentences(
    text: str, start: int, gaps: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The sentences of a paragraph from `start` on. It ends with its last gap."""
    end = gaps[-1][0]
    widest = max(map(len, text[start:end].splitlines()), default=0)
    line_start = start
    for before, after in gaps:
        lines = _count_lines(text[before:after])
        is_end = before == end or (
            _is_sentence_end(text, start, before, after)
            or (lines > 0 and not _is_wrapped(text, line_start, (before, after), widest))
        )
        if lines:
            line_start = max(text.rfind(end, before, after) for end in "\r\n") + 1
        if is_end and start < before:
            yield start, before
        if is_end or start == before:
            start = after


def _count_lines(white_space: str) -> int:
    """The line ends in white space."""
    return white_space.count("\n") or white_space.count("\r")


def _is_sentence_end(text: str, start: int, before: int, after: int) -> bool:
    """Whether a sentence from `start` ends where a gap begins."""
    if not ends_sentence(text, before, spaced=before < after):
        return False
    if before == after:
        return True
    if text[after : after + 1].islower():
        return False
    word = _FULL_STOP_WORD.search(text, max(start, before - 12), before)
    if word is None:
        return True
    is_number = word[1].isdecimal() and word.start() == start  # of an item or a heading
    is_initial = len(word[1]) == 1 and word[1].isalpha()
    return not (is_number or is_initial or word[1].lower() in _ABBREVIATIONS)


def _is_wrapped(text: str, line_start: int, gap: tuple[int, int], widest: int) -> bool:
    """Whether the line before a gap continues in the next one."""
    before, after = gap
    line = text[line_start:before]
    if len(line) < _MIN_WRAPPED_CHARACTERS or _CODE.search(line):
        return False
    next_start = max(text.rfind(end, before, after) for end in "\r\n") + 1
    indent = len(line) - len(line.lstrip())
    if after - next_start < indent or _ITEM.match(text, after):
        return False
    if after - next_start > indent and not _ITEM.match(line.lstrip()):
        return False
    word = _WORD_AHEAD.match(text, after)
    return len(line) + 1 + (word.end() - after if word else 0) > widest


def ends_sentence(text: str, end: int, *, spaced: bool) -> bool:
    """Whether a sentence ends at a place, which white space follows if it is `spaced`."""
    lowest = max(0, end - _CLOSING_CHARACTERS)
    while end > lowest and text[end - 1] in _CLOSING:
        end -= 1
    if end == 0:
        return False
    return text[end - 1] in (_SENTENCE_END if spaced else _WIDE_SENTENCE_END)
