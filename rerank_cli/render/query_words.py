"""Finds a query's words in a passage, by English stem, for a reader's eye.

Marks only: no score comes from here.
"""

import re

import Stemmer

_WORD = re.compile(r"\w+")
# Words that a query is full of and that say nothing of its subject.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can could did do does for from had has have how i if in is it "
        "its me my no not of on or our should that the their there these they this to was we "
        "were what when where which who whom whose why will with would you your",
    )
)


class QueryWords:
    """The words of a query that are worth marking: all of them, if it has only common ones."""

    def __init__(self, query: str) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        words = {word.casefold() for word in _WORD.findall(query)}
        self._stems = {self._stem(word) for word in words - _COMMON or words}

    def spans(self, text: str) -> list[tuple[int, int]]:
        """The half-open spans of characters at which a word of the query stands."""
        return [
            match.span()
            for match in _WORD.finditer(text)
            if self._stem(match.group()) in self._stems
        ]

    def _stem(self, word: str) -> str:
        return str(self._stemmer.stemWord(word.casefold()))
