"""The script and the language of texts, and what a user is told of them."""

from pathlib import Path

import pytest

from rerank_cli.ranking.languages import LanguageCheck, is_latin
from tests.conftest import Run

NOTE = "reads English"


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("plain words", True),
        ("", True),
        ("12 % → 14 %", True),
        ("Größe, naïve, Łódź, Việt Nam ế", True),
        ("Как вернуть деньги", False),
        ("如何退款", False),
        ("Πώς;", False),
        ("كيف", False),
        ("the word Москва in a sentence", True),
        ("URL в тексте письма", False),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_letters(text: str, latin: bool) -> None:
    assert is_latin(text) == latin


def test_a_query_in_another_script_is_said_once(rerank: Run) -> None:
    outcome = rerank("как вернуть деньги", "-d", "one", "-d", "two", "-d", "three")
    assert outcome.code == 0
    assert outcome.err.count(NOTE) == 1
    assert "the query is not in Latin script" in outcome.err
    assert "take -m multi, which pip install rerank-model-multi brings" in outcome.err


def test_most_documents_in_another_script_are_said_once(rerank: Run) -> None:
    others = ["-d", "Верните деньги", "-d", "如何退款"]
    outcome = rerank("refund", "-d", "one", *others)
    assert outcome.err.count(NOTE) == 1
    assert "most documents are not in Latin script" in outcome.err
    assert NOTE not in rerank("refund", "-d", "one", "-d", "two", *others).err


def test_what_counts_are_all_documents_and_not_their_chunks(rerank: Run, tmp_path: Path) -> None:
    first = ["Верните деньги"] * 290  # more than are scored at once
    path = tmp_path / "first.txt"
    path.write_text("\n".join([*first, *["one", "two"] * 300]), encoding="utf-8")
    assert NOTE not in rerank("refund", str(path), "-n", "1", "--candidates", "all").err
    long = tmp_path / "long.md"
    long.write_text("Верните деньги за тридцать дней. " * 100, encoding="utf-8")
    assert NOTE not in rerank("refund", str(long), "-d", "one", "-d", "two", "-n", "1").err


def test_other_models_say_nothing_of_it(rerank: Run) -> None:
    assert NOTE not in rerank("как вернуть", "-d", "one", "-m", "bm25").err
    assert NOTE not in rerank("как вернуть", "-d", "one", "-m", "./tests/models/bert").err


@pytest.mark.parametrize(
    ("query", "is_told"),
    [
        ("Wo ist mein Paket?", True),
        ("Wie kann ich mein Konto kündigen", True),
        ("où est mon colis", True),
        ("¿Dónde está mi paquete?", True),
        ("quel est le délai de livraison", True),
        ("los horarios de las tiendas por ciudad", True),
        ("van der Waals forces", False),
        ("flights Las Vegas Los Angeles", False),
        ("El Niño La Niña effects", False),
        ("en es locale files", False),
        ("ps aux | od", False),
        ("where is my parcel", False),
        ("who directed Das Boot", False),
        ("what does je ne sais quoi mean", False),
        ("la liga table", False),
        ("rate limit per user", False),
        ("el.addEventListener()", False),
        ("restaurant Sao Paulo", False),
        ("SELECT un FROM mit", False),
        ("der", False),
    ],
)
def test_a_query_of_another_language_is_told_if_its_words_are_sure(
    query: str, is_told: bool
) -> None:
    check = LanguageCheck(["en"])
    check.see("a parcel that is late")
    notes = check.notes(query, "mini", lambda: "take another")
    expected = ("mini reads English, and the query is in another language: take another",)
    assert notes == (expected if is_told else ())
    assert LanguageCheck(["en", "de"]).notes(query, "multi", str) == ()
