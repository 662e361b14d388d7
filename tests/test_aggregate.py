"""How chunks' scores become a document's."""

import pytest

from rerank_cli.ranking.results import AGGREGATES, Aggregation


@pytest.mark.parametrize(
    ("way", "scores", "expected"),
    [
        ("max", [1.0, 3.0, 3.0, -1.0], (3.0, 1)),
        ("max", [-5.0], (-5.0, 0)),
        ("mean-top-3", [1.0, 9.0, 2.0, 3.0, -100.0], (14 / 3, 1)),
        ("mean-top-3", [1.0, 2.0], (1.5, 1)),
        ("first", [1.0, 9.0], (1.0, 0)),
    ],
)
def test_score_and_deciding_chunk(
    way: str, scores: list[float], expected: tuple[float, int]
) -> None:
    assert AGGREGATES[way](scores) == expected


def test_every_way_has_a_name() -> None:
    assert set(AGGREGATES) == set(Aggregation)
