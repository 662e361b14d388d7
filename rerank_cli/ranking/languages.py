"""Guesses whether a model reads the language of a query and of its documents.

Letters show the script. Among the languages in Latin script, frequent words distinguish English
from the others.
"""

import re
from collections.abc import Callable, Sequence

_READ_CHARACTERS = 400  # of each text, to find its script and language
_MAX_LANGUAGE_TEXTS = 200  # whose language is looked at; the script of all documents is
# Letters from Greek on belong to other scripts, except these blocks of Latin.
_FIRST_AFTER_LATIN = 0x370
_LATIN_BLOCKS = (range(0x1E00, 0x1F00), range(0x2C60, 0x2C80), range(0xA720, 0xA800))
_ENGLISH_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about an and are as at be by can could did do does for from had has have he how i if in "
        "into is it its may my no not of on one or our should so that the their them then there "
        "these they this to up was we were what when where which who why will with would you your",
    )
)
# Frequent words of German, Dutch, French, Spanish, Portuguese, Italian, the Scandinavian languages
# and Polish that are not usual in English, in code and in logs.
_FOREIGN_WORDS = frozenset(
    re.findall(
        r"\w+",
        "aber als auch auf aus bei das dem der des ein eine einen einer es für geht gibt ich ist "
        "kann kein mein nach nicht oder sich sie sind und unter von wann warum wenn wer werden wie "
        "wird wo zu zum zur über "
        "aan bij dat deze een en het hoe ik mijn naar niet ook uit van voor waar wat worden zijn "
        "au aux avec ce ces cette dans du elle est et je la le les leur ne nous pas peut pourquoi "
        "quand que quel quelle qui sans sont sur un une vous où "
        "cómo como cuál cuando cuándo del donde dónde el ella está esta este las los más para pero "
        "puede por qué quién ser su una uno "
        "da isso mas meu na não nas ou pela pelo posso quando são sua uma você "
        "alla anche cosa della delle di dove gli il nel nella perché quanto sono "
        "att av den det där eller ett från hur inte jag med och på som till vad är "
        "af dig er fra hvad hvor hvordan ikke jeg og skal til "
        "czy dla jak jest nie od się",
    )
)
# The words among them that English has in names and as codes: van der Waals, Las Vegas, El Niño,
# en.
_NAME_WORDS = frozenset(
    re.findall(r"\w+", "aux da das del der des dig du el en es est la las le les los od van von")
)
_WORD = re.compile(r"[^\W\d_]+")


class LanguageCheck:
    """Counts the documents of a ranking that a model of English does not read.

    It counts all documents in other scripts. Among the first ones it also counts those in other
    languages.
    """

    def __init__(self, languages: Sequence[str]) -> None:
        self._is_english = list(languages) == ["en"]
        self._documents = self._others = self._foreign = 0

    def see(self, text: str) -> None:
        if self._is_english:
            if self._documents < _MAX_LANGUAGE_TEXTS:
                self._foreign += is_foreign(text)
            self._documents += 1
            self._others += not is_latin(text)

    def reads(self, query: str) -> bool:
        """Whether the model seems to read the language of the query and of most documents."""
        if not self._is_english:
            return True
        looked_at = min(self._documents, _MAX_LANGUAGE_TEXTS)
        is_read = 2 * self._others <= self._documents and 2 * self._foreign <= looked_at
        has_accents = any(letter.isalpha() and not letter.isascii() for letter in query)
        return is_read and not has_accents and not is_foreign(query)

    def notes(self, query: str, model: str, find_advice: Callable[[], str]) -> Sequence[str]:
        """A note for the user if the query, or most documents, are in another script or language.

        No note is about the language of the documents, because names and quotations may be in
        another language. The note ends with the advice of `find_advice`.
        """
        if not self._is_english:
            return ()
        if not is_latin(query):
            what = "the query is not in Latin script"
        elif is_foreign(query):
            what = "the query is in another language"
        elif 2 * self._others > self._documents:
            what = "most documents are not in Latin script"
        else:
            return ()
        return (f"{model} reads English, and {what}: {find_advice()}",)


def is_latin(text: str) -> bool:
    """Whether at least half of a text's letters are Latin, or it has none."""
    if text.isascii():
        return True
    letters = [ord(letter) for letter in text[:_READ_CHARACTERS] if letter.isalpha()]
    others = [
        code
        for code in letters
        if code >= _FIRST_AFTER_LATIN and not any(code in block for block in _LATIN_BLOCKS)
    ]
    return 2 * len(others) <= len(letters)


def is_foreign(text: str) -> bool:
    """Whether a text in Latin script has at least two words that show that it is not English.

    At least one of them is not a word that English has in names.
    """
    words = set(_WORD.findall(text[:_READ_CHARACTERS].lower()))
    foreign = words & _FOREIGN_WORDS
    is_sure = len(foreign) >= 2 and not foreign <= _NAME_WORDS
    return is_sure and len(foreign) > 2 * len(words & _ENGLISH_WORDS)
