"""tokenizer.json of strangers: one that cannot be used is one error, and harms nobody."""

import base64
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError
from rerank_cli.scorers import open_scorer
from rerank_cli.scorers.tokenization import ModelTokenizer, open_tokenizer, prepare_tokenizer
from tests.conftest import MODELS, Run
from tests.support.folders import with_tokenizer
from tests.support.json_values import VALUES


def sequence(*parts: object) -> dict[str, object]:
    return {"type": "Sequence", "normalizers": parts}


def replacement(pattern: str, content: str, kind: str = "String") -> dict[str, object]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def character_map(content: bytes) -> dict[str, object]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def split_at(pattern: str) -> dict[str, object]:
    return {
        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False
    }  # fmt: skip


def without_unknown(model: dict[str, Any]) -> dict[str, Any]:
    return {**model, "vocab": {k: v for k, v in model["vocab"].items() if k != "[UNK]"}}


def with_many(processor: dict[str, Any]) -> dict[str, Any]:
    token = {"id": "[CLS]", "ids": [2] * 5_000, "tokens": ["[CLS]"] * 5_000}
    return {**processor, "special_tokens": {**processor["special_tokens"], "[CLS]": token}}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# What is changed of which model's tokenizer, and a word of the error.
HARMFUL: dict[str, tuple[str, dict[str, Any], str]] = {
    "a text doubled forty times": (
        "bert", {"normalizer": sequence(*[replacement("zebra", "zebrazebra")] * 40)},
        "may make a text more than 100 times as long",
    ),
    "a pattern that matches everywhere": (
        "bert", {"normalizer": replacement("z*", "z" * 1_000, "Regex")}, "more than 100 times",
    ),
    "a map of characters to a book": (
        "xlmr", {"normalizer": character_map(struct.pack("<I", 4) + bytes(4) + b"x" * 5_000)},
        "more than 100 times",
    ),
    "a long prefix": (
        "bert", {"normalizer": {"type": "Prepend", "prepend": "x" * 5_000}}, "more than 100 times",
    ),
    "a damaged map of characters": (
        "xlmr",
        {"normalizer": character_map(struct.pack("<I", 64) + b"\x7f" * 64 + b"abc\0")},
        "cannot encode a pair of texts: index out of bounds",
    ),
    "a map of characters that is cut": (
        "xlmr", {"normalizer": character_map(b"\x01")}, "not a tokenizer: ",
    ),
    "a pattern that backtracks": (
        "bert", {"pre_tokenizer": split_at("(x+x+)+y")}, "fails on a text: Onig",
    ),
    "a pattern that is none": ("bert", {"pre_tokenizer": split_at("(")}, "not a tokenizer: "),
    "no token for unknown words": (
        "bert", {"model": without_unknown, "added_tokens": []}, r"fails on a text: .*\[UNK\]",
    ),
    "no piece for unknown text": (
        "xlmr", {"model": lambda model: {**model, "unk_id": None}}, "fails on a text: .*unk_id",
    ),
    "special tokens that are not defined": (
        "bert", {"post_processor": lambda processor: {**processor, "special_tokens": {}}},
        "cannot encode a pair of texts",
    ),
    "too many special tokens": (
        "bert", {"post_processor": with_many}, "adds 5,002 tokens to each pair, and .* takes 64",
    ),
    "nothing between query and passage": (
        "bert", {"post_processor": None}, "puts nothing between a query and a passage",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes", "word"), HARMFUL.values(), ids=HARMFUL)
@pytest.mark.parametrize("prepared_setting", ["prepared", "off"])
def test_what_is_wrong_with_a_tokenizer_is_said_when_it_is_opened(
    name: str,
    changes: dict[str, Any],
    word: str,
    prepared_setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = str(tmp_path / "prepared") if prepared_setting == "prepared" else "off"
    monkeypatch.setenv("RERANK_PREPARED", place)
    folder = with_tokenizer(name, tmp_path, **changes)
    for _ in range(2):
        with pytest.raises(ModelError, match=word) as error_info:
            open_scorer(str(folder))
        assert str(error_info.value).startswith(f"{folder}/tokenizer.json: ")
        assert "\n" not in str(error_info.value)


@pytest.mark.trial
@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        pytest.param(
            "bert",
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 40}},
            "takes more than 2.15 GB of memory to open",
            marks=pytest.mark.slow,
        ),
        (
            "xlmr",
            {"normalizer": character_map(struct.pack("<I", 0xFFFFFFFF) + b"x" * 100)},
            "takes more than 2.15 GB of memory to open",
        ),
        HARMFUL["a damaged map of characters"],
    ],
    ids=["bytes doubled forty times", "a map as long as memory", "a panic"],
)
def test_no_tokenizer_harms_the_process_or_prints(
    name: str,
    changes: dict[str, Any],
    word: str,
    tmp_path: Path,
    rerank: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RERANK_PREPARED", str(tmp_path / "prepared"))
    folder = with_tokenizer(name, tmp_path, **changes)
    outcome = rerank("-m", str(folder), "late", "-d", "the parcel is late")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(f"rerank: {folder}/tokenizer.json: {word}")
    assert capfd.readouterr() == ("", "")


def test_a_panic_at_one_text_is_an_error_of_scoring(tmp_path: Path, rerank: Run) -> None:
    """The pattern backtracks at a text that the trial does not have."""
    folder = with_tokenizer("bert", tmp_path, pre_tokenizer=split_at("q(z+z+)+y"))
    assert rerank("-m", str(folder), "late", "-d", "the parcel").code == 0
    outcome = rerank("-m", str(folder), "late", "-d", "q" + "z" * 60)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"{folder}/tokenizer.json: fails on a text: Onig: " in outcome.err


def test_tokenizers_that_grow_a_text_a_little_are_fine(tmp_path: Path) -> None:
    normalizer = sequence(
        replacement("``", '"'), replacement(" {2,}", "▁", "Regex"), replacement("ß", "ss"),
        {"type": "NFKD"}, {"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"},
    )  # fmt: skip
    folder = with_tokenizer("bert", tmp_path, normalizer=normalizer)
    assert open_scorer(str(folder)).info.length == 64


def test_a_causal_models_tokenizer_need_not_join_pairs(tmp_path: Path) -> None:
    path = with_tokenizer("bert", tmp_path, post_processor=None) / "tokenizer.json"
    assert open_tokenizer(path, None, joins_pairs=False).count("the parcel") > 1
    with pytest.raises(ModelError, match="puts nothing between"):
        open_tokenizer(path, None)


SOURCE = {
    name: json.loads((MODELS / name / "tokenizer.json").read_text(encoding="utf-8"))
    for name in ("bert", "xlmr")
}


def places(content: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there are values in a tokenizer.json; few of the vocabulary's."""
    yield path
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in list(items)[:8]:
            yield from places(value, (*path, key))


def replace_value(content: Any, path: tuple[Any, ...], value: object) -> Any:
    """The same with another value at a place."""
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = replace_value(copy[path[0]], path[1:], value)
    return copy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODELS / "bert", tmp_path_factory.mktemp("damaged") / "bert"))


@st.composite
def damaged_contents(draw: Callable[[Any], Any]) -> object:
    content = SOURCE[draw(st.sampled_from(sorted(SOURCE)))]
    return replace_value(content, draw(st.sampled_from([*places(content)])), draw(VALUES))


@pytest.mark.slow
@given(content=damaged_contents())
def test_any_damage_is_an_error_or_harmless(content: object, place: Path) -> None:
    path = place / "tokenizer.json"
    path.write_text(json.dumps(content))
    with suppress(ModelError):
        prepare_tokenizer(path, True, None)
        assert ModelTokenizer(path).encode("the parcel").ids is not None


@pytest.mark.skipif(os.name == "nt", reason="a file may be deep there too, but the stack is not")
def test_a_deep_file_is_no_tokenizer(tmp_path: Path) -> None:
    for content in ("[" * 100_000, '{"a":' * 100_000, '{"a":' + "[" * 100_000):
        folder = with_tokenizer("bert", tmp_path / str(len(content)))
        (folder / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match="not a tokenizer"):
            open_scorer(str(folder))
