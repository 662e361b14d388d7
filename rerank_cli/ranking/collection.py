"""What BM25 must know of a collection to score one of its texts: how often terms are where.

query ─ TermCollection ─ add, for each text ─ score, for any of them
"""

import math
from collections import Counter
from collections.abc import Sequence

from rerank_cli.ranking.chunking import segments
from rerank_cli.words import QueryTerms, Words

K1, B = 1.2, 0.75


class TermCollection:
    """The counts of texts for one query, by which each text is scored.

    A text's score is the sum over the query's terms of

        idf · tf / (tf + k1 · (1 - b + b · length / mean length))
        idf = ln(1 + (N - df + 0.5) / (df + 0.5))

    where `tf` is how often the term is in the text, `length` that of the text, in any unit, `df`
    the number of texts with the term, and `N` that of all texts (Robertson and Zaragoza 2009, in
    the form that Lucene uses: Kamphuis and others 2020, "Which BM25 do you mean?").
    """

    def __init__(self, query: QueryTerms) -> None:
        self.texts = 0
        self.length = 0  # of all texts
        weights = Counter((*query.terms, *query.parts))
        self._code_terms = frozenset(query.parts)  # which count in code alone
        self._terms = tuple(weights)
        self._weights = tuple(weights.values())  # how often each term is in the query
        self._frequencies = [0] * len(weights)  # texts with each term
        self._singles = query.singles

    def count_terms(
        self, text: str, words: Words, *, is_code: bool = False
    ) -> tuple[int, list[int]]:
        """How many terms a text has, and how often it has each of the query's.

        Reads the text in pieces, so that a long one takes little memory.
        """
        length, counts = 0, [0] * len(self._terms)
        cut = words.code_terms if is_code else words.terms
        for start, end in segments(text):
            terms = cut(text[start:end], self._singles)
            length += len(terms)
            counts = [
                count + terms.count(term) for count, term in zip(counts, self._terms, strict=True)
            ]
        if self._code_terms and not is_code:
            pairs = zip(counts, self._terms, strict=True)
            counts = [0 if term in self._code_terms else count for count, term in pairs]
        return length, counts

    def add(self, length: int, counts: Sequence[int]) -> None:
        """Add a text of a length; `counts` has how often it has each of the query's terms."""
        self.add_others(1, length)
        for place, count in enumerate(counts):
            if count:
                self._frequencies[place] += 1

    def add_others(self, texts: int, length: int) -> None:
        """Add some texts, of a length together, that have no term of the query."""
        self.texts += texts
        self.length += length

    def score(self, length: int, counts: Sequence[int]) -> float:
        """Score a text, given as to `add`; 0 for one without a term of the query."""
        if not self.length:  # nothing was counted
            return 0.0
        score = 0.0
        for place, count in enumerate(counts):
            if count:
                relative_length = length * self.texts / self.length
                df = self._frequencies[place]
                idf = math.log(1 + (self.texts - df + 0.5) / (df + 0.5))
                saturation = count + K1 * (1 - B + B * relative_length)
                score += self._weights[place] * idf * count / saturation
        return score
