"""Errors as objects: what they keep on their way to another process."""

import copy
import pickle

import pytest

from rerank_cli import errors
from rerank_cli.errors import QueryTooLong, RecordError, RerankError

KINDS = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, RerankError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_error_can_be_pickled_and_copied(kind: type[RerankError]) -> None:
    error = kind.__new__(kind, "the disk is full")  # each has an `__init__` of its own
    error.hint = "make room"
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is kind
        assert str(other) == "the disk is full"
        assert other.hint == "make room"


def test_a_pickled_error_keeps_what_only_its_kind_has() -> None:
    error, query_error = RecordError("no_query", "no query"), QueryTooLong(600, 500, "mini")
    assert pickle.loads(pickle.dumps(error)).code == "no_query"
    assert vars(pickle.loads(pickle.dumps(query_error))) == vars(query_error)
