"""The forms of queries, and passages that no longer answer them."""

import random
import re

from texts import sentences

# The words of a question that a keyword query leaves out.
_FUNCTION_WORDS = frozenset(
    {
        "a", "about", "after", "all", "also", "an", "and", "any", "are", "as", "at", "be",
        "been", "being", "between", "by", "can", "could", "did", "do", "does", "during", "each",
        "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its",
        "kind", "many", "me", "most", "much", "my", "name", "of", "on", "one", "or", "other",
        "s", "should", "some", "such", "than", "that", "the", "their", "them", "there", "these",
        "they", "this", "those", "to", "type", "under", "was", "we", "were", "what", "when",
        "where", "which", "while", "who", "whom", "whose", "why", "will", "with", "would",
        "you", "your",
    }
)  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.,])\d{1,4}(?![\w,]|\.\d)")


def as_query(text: str, draw: random.Random) -> str:
    """A question as it stands, or as keywords, or with a typing error."""
    kind = draw.random()
    if kind < 0.25:
        words = [
            word for word in re.findall(r"[\w'-]+", text) if word.lower() not in _FUNCTION_WORDS
        ]
        if len(words) < 2:
            return text
        if draw.random() < 0.2:
            draw.shuffle(words)
        return " ".join(words)
    if kind < 0.32:
        return with_typing_error(text, draw)
    return text


def with_typing_error(text: str, draw: random.Random) -> str:
    """A text with two letters of a longer word swapped, or one left out, doubled or replaced."""
    places = list(re.finditer(r"[A-Za-z]{4,}", text))
    if not places:
        return text
    place = draw.choice(places)
    position = draw.randrange(place.start() + 1, place.end() - 1)
    start, first, second, rest = (
        text[:position],
        text[position],
        text[position + 1],
        text[position + 2 :],
    )
    variants = [second + first, second, first + first + second, draw.choice("aeioustrn") + second]
    return start + draw.choice(variants) + rest


def without_answer(text: str, answers: list[str]) -> str | None:
    """The passage without the sentences that have an answer; None if no sentence would remain."""
    parts = sentences(text)
    rest = [part for part in parts if not any(answer.lower() in part.lower() for answer in answers)]
    if not answers or not rest or len(rest) == len(parts):
        return None
    return " ".join(rest)


def with_wrong_number(question: str, text: str, draw: random.Random) -> str | None:
    """The passage with a number of the question changed; None if they share no number."""
    common_numbers = [
        number for number in _NUMBER.findall(question) if number in _NUMBER.findall(text)
    ]
    if not common_numbers:
        return None
    number = draw.choice(common_numbers)
    other_number = str(max(1, int(number) + draw.choice([-20, -10, -3, -2, -1, 1, 2, 3, 10, 20])))
    if other_number == number:
        return None
    return re.sub(rf"(?<![\w.,]){number}(?![\w,]|\.\d)", other_number, text)
