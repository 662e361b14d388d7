"""The forms in which queries come, and how a passage that answers becomes one that does not."""

import random
import re

from texts import sentences

# What a keyword query leaves out of a question.
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
        return mistyped(text, draw)
    return text


def mistyped(text: str, draw: random.Random) -> str:
    """One longer word with two letters swapped, or one left out, doubled or replaced."""
    places = list(re.finditer(r"[A-Za-z]{4,}", text))
    if not places:
        return text
    place = draw.choice(places)
    at = draw.randrange(place.start() + 1, place.end() - 1)
    left, one, two, right = text[:at], text[at], text[at + 1], text[at + 2 :]
    changed = [two + one, two, one + one + two, draw.choice("aeioustrn") + two]
    return left + draw.choice(changed) + right


def without_answer(text: str, answers: list[str]) -> str | None:
    """The passage without the sentences that hold an answer; None where nothing would be left."""
    parts = sentences(text)
    kept = [part for part in parts if not any(answer.lower() in part.lower() for answer in answers)]
    if not answers or not kept or len(kept) == len(parts):
        return None
    return " ".join(kept)


def wrong_number(question: str, text: str, draw: random.Random) -> str | None:
    """The passage with the question's number changed; None where they share none."""
    shared = [number for number in _NUMBER.findall(question) if number in _NUMBER.findall(text)]
    if not shared:
        return None
    number = draw.choice(shared)
    other = str(max(1, int(number) + draw.choice([-20, -10, -3, -2, -1, 1, 2, 3, 10, 20])))
    if other == number:
        return None
    return re.sub(rf"(?<![\w.,]){number}(?![\w,]|\.\d)", other, text)
