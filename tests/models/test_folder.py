"""What is read of a model's folder: the right figures, or one error that names the file."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ModelError
from rerank_cli.models.export import read_checkpoint
from rerank_cli.models.folder import describe
from rerank_cli.scorers import open_scorer
from tests.conftest import MODELS, Run
from tests.support.folders import IN_PLACE, LFS_POINTER, copy_model, with_external_data
from tests.support.json_values import VALUES

pytestmark = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and links")
FILES = ["model.onnx", "model.onnx_data", "tokenizer.json", "config.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("put_file", IN_PLACE.values(), ids=IN_PLACE)
@pytest.mark.parametrize("prepared_setting", ["prepared", "off"])
def test_each_file_may_be_something_else(
    name: str,
    put_file: Callable[[Path], None],
    prepared_setting: str,
    tmp_path: Path,
    rerank: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_off = prepared_setting == "off"
    monkeypatch.setenv("RERANK_PREPARED", "off" if is_off else str(tmp_path / "prepared"))
    folder = (
        with_external_data("bert", tmp_path) if "_data" in name else copy_model("bert", tmp_path)
    )
    path = folder / ("onnx" if "_data" in name else "") / name
    path.unlink(missing_ok=True)
    put_file(path)
    outcome = rerank("-m", str(folder), "late", "-d", "the parcel is late")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(f"rerank: {path}: ")
    assert len(outcome.err.splitlines()) == (3 if "a Git LFS pointer" in outcome.err else 1)


def test_a_pointer_of_git_lfs_is_told_with_what_to_do(tmp_path: Path, rerank: Run) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / "model.onnx").write_bytes(LFS_POINTER)
    outcome = rerank("-m", str(folder), "late", "-d", "the parcel is late")
    assert "a Git LFS pointer, not the file itself" in outcome.err
    assert "hint: git lfs pull" in outcome.err


def test_a_checkpoint_may_hold_pointers_too(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "sentencepiece.bpe.model"):
        folder = tmp_path / name
        folder.mkdir()
        for other in ("config.json", "model.safetensors", "sentencepiece.bpe.model"):
            (folder / other).write_bytes(LFS_POINTER if other == name else b"{}")
        with pytest.raises(ModelError, match=f"{name}: a Git LFS pointer"):
            read_checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000],
    ids=["empty", "cut", "array", "null", "UTF-16", "deep objects", "deep arrays"],
)
def test_a_configuration_that_is_no_object(name: str, content: bytes, tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name}: not "):
        describe(folder, "x")


@pytest.mark.parametrize("key", ["max_position_embeddings", "pad_token_id", "model_type"])
@pytest.mark.parametrize("value", [True, 1.5, [], {}, ["x"], {"a": 1}])
def test_a_value_of_another_type_is_refused_and_named(
    key: str, value: object, tmp_path: Path
) -> None:
    folder = copy_model("bert", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ModelError, match=rf"config\.json: {key} is not "):
        describe(folder, "x")


def test_null_is_as_good_as_no_value(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    keys = ("max_position_embeddings", "pad_token_id", "model_type")
    (folder / "config.json").write_text(json.dumps(dict.fromkeys(keys)))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": null}')
    assert describe(folder, "x").length == 512


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text, encoding="utf-8-sig")
    assert describe(folder, "x") == describe(folder, "x")
    assert describe(folder, "x").length == 64


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODELS / "bert", tmp_path_factory.mktemp("configured") / "bert"))


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(
            ["max_position_embeddings", "pad_token_id", "model_type", "model_max_length"]
        ),
        VALUES,
    ),
    st.sampled_from(["config.json", "tokenizer_config.json"]),
)
def test_any_configuration_is_read_or_refused(
    place: Path, values: dict[str, Any], name: str
) -> None:
    shutil.copy(MODELS / "bert" / "config.json", place / "config.json")
    (place / name).write_text(json.dumps(values))
    with suppress(ModelError):
        folder = describe(place, "x")
        assert folder.length >= folder.window >= 16
        assert isinstance(folder.padding, int)


def test_a_huge_padding_token_is_refused(tmp_path: Path) -> None:
    folder = copy_model("bert", tmp_path)
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 10**30}))
    with pytest.raises(ModelError, match="pad_token_id is not the id of a token"):
        open_scorer(str(folder))
