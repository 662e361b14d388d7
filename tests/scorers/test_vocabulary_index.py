"""A tokenizer of a text's own pieces splits it as the whole one does."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli.errors import ModelError
from rerank_cli.scorers import vocabulary_index
from rerank_cli.scorers.tokenization import ModelTokenizer, prepare_tokenizer
from rerank_cli.scorers.vocabulary_index import Vocabulary, make_index, open_vocabulary
from tests.conftest import MODELS, ROOT

SOURCE = MODELS / "xlmr" / "tokenizer.json"
CONTENT: dict[str, Any] = json.loads(SOURCE.read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
ODD = [
    "", " ", "\t\n", "<unk> <s></s> <mask>", "▁▁ a▁b", "ﬁne  é é Å", "東京都は日本の首都です。",
    "🥕👩‍👩‍👧\u200b", "\x00\x01", "مرحبا بالعالم", "x" * 300, "a" + " " * 30 + "b",
    "\ud800", README,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def index_small() -> Any:
    """Have a small vocabulary taken for a large one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary_index, "_MIN_PIECES", 1)
        yield


def variant(folder: Path, **changes: Any) -> Path:
    """The tokenizer with other entries, of its model where they are named so."""
    content = json.loads(json.dumps(CONTENT))
    for name, value in changes.items():
        if name.startswith("model_"):
            content["model"][name.removeprefix("model_")] = value
        else:
            content[name] = value
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def index_of(path: Path, folder: Path) -> Vocabulary | None:
    """The index of a tokenizer, made as for its first use."""
    folder = folder / "index"
    folder.mkdir(exist_ok=True)
    prepare_tokenizer(path, True, folder)
    return open_vocabulary(folder)


def open_tokenizer(path: Path, folder: Path) -> ModelTokenizer:
    own = index_of(path, folder)
    assert own is not None
    return ModelTokenizer(path, own)


BYTES = [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "with bytes": {
        "model_vocab": CONTENT["model"]["vocab"] + BYTES, "model_byte_fallback": True,
    },
    "without a normaliser": {"normalizer": None},
    "without words": {"pre_tokenizer": None},
    "in another order": {
        "model_vocab": CONTENT["model"]["vocab"][::-1],
        "model_unk_id": len(CONTENT["model"]["vocab"]) - 1 - CONTENT["model"]["unk_id"],
        "added_tokens": [],
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_tokens_and_spans_are_those_of_the_whole(changes: dict[str, Any], tmp_path: Path) -> None:
    path = variant(tmp_path, **changes)
    own, whole = open_tokenizer(path, tmp_path), ModelTokenizer(path)
    for text in ODD:
        assert own.encode(text) == whole.encode(text)
        assert own.count(text) == whole.count(text)
    assert own.template() == whole.template()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Vocabulary, ModelTokenizer]:
    folder = tmp_path_factory.mktemp("index")
    make_index(CONTENT, folder)
    return Vocabulary(folder), ModelTokenizer(SOURCE)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(text=st.text() | st.lists(st.sampled_from(README.split())).map(" ".join))
def test_any_text(text: str, tokenizers: tuple[Vocabulary, ModelTokenizer]) -> None:
    own, whole = tokenizers
    assert own.encode(text.encode("utf-8", "replace").decode()) == whole.encode(
        text.encode("utf-8", "replace").decode()
    )


def test_a_long_text_is_given_to_the_whole_at_once(tmp_path: Path) -> None:
    """All its parts would be in memory."""
    index = index_of(SOURCE, tmp_path)
    assert index is not None
    own, whole = ModelTokenizer(SOURCE, index), ModelTokenizer(SOURCE)
    text = "water the roots " * 4_000
    assert own.encode(text) == whole.encode(text)
    assert index.lookups == 0


def test_much_text_is_given_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rerank_cli.scorers.tokenization.MAX_PARTS", 500)
    own, whole = open_tokenizer(SOURCE, tmp_path), ModelTokenizer(SOURCE)
    for line in README.splitlines():
        assert own.encode(line) == whole.encode(line)
    assert own.template() == whole.template()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
        {"model_vocab": [*CONTENT["model"]["vocab"], ["x" * 300, -9.0]]},
        {"added_tokens": [{**CONTENT["added_tokens"][0], "id": 0, "special": False}]},
    ],
    ids=["of words", "a long piece", "a token that is not special"],
)
def test_others_are_read_whole(changes: dict[str, Any], tmp_path: Path) -> None:
    path = variant(tmp_path, **changes)
    assert index_of(path, tmp_path) is None


def test_what_is_no_tokenizer_is_told_by_its_reader(tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]", b"\xff"):
        path = tmp_path / "tokenizer.json"
        path.write_bytes(content)
        with pytest.raises(ModelError, match="not a tokenizer"):
            index_of(path, tmp_path)
