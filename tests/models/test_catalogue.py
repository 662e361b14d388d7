"""The catalogue: names that contain what was typed."""

import pytest

from rerank_cli.errors import UsageError
from rerank_cli.models.catalogue import entries, names_containing
from rerank_cli.scorers import is_remote

BGE = ["bge-reranker-base", "bge-reranker-large", "bge-reranker-v2-m3"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("bge", BGE),
        ("BGE-reranker", BGE),
        ("BAAI/bge-reranker-base", ["bge-reranker-base"]),
        ("xenova/bge-reranker-base", ["bge-reranker-base"]),
        ("someone/bge-reranker-base", ["bge-reranker-base"]),
        ("bge_reranker_base:fp32", ["bge-reranker-base"]),
        ("hf:BAAI/bge-reranker-large@main", ["bge-reranker-large"]),
        ("bge-base", ["bge-reranker-base"]),
        ("ms-marco-MiniLM-L6", ["ms-marco-MiniLM-L-6-v2"]),
        ("qwen", ["Qwen3-Reranker-0.6B"]),
        ("m", []),
        ("bedrock/m", []),
        ("", []),
        ("/", []),
        ("nothing of the kind", []),
    ],
)
def test_names_contain_what_was_typed(part: str, names: list[str]) -> None:
    assert names_containing(part) == names


def test_each_repository_is_the_name_of_its_model() -> None:
    for entry in entries().values():
        if not entry.folder:
            assert names_containing(entry.repository) == [entry.name]
            assert names_containing(entry.name.upper()) == [entry.name]


def test_a_maker_who_is_a_service_too_leaves_the_choice() -> None:
    with pytest.raises(UsageError) as error_info:
        is_remote("jinaai/jina-reranker-v1-tiny-en")
    assert error_info.value.hint == (
        "did you mean jina-reranker-v1-tiny-en or jina/jina-reranker-v1-tiny-en?"
    )
