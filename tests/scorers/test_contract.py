"""The contract in `Scorer`'s docstring, held against every scorer."""

import math
from collections.abc import Sequence

import pytest

from rerank_cli import Pair, Scorer, open_scorer
from rerank_cli.runtimes import RuntimeOptions
from tests.conftest import MODELS, ROOT

SCORERS = {
    "mini": lambda: open_scorer("mini@3"),
    "bert": lambda: open_scorer(str(MODELS / "bert")),
    "xlmr": lambda: open_scorer(str(MODELS / "xlmr"), runtime=RuntimeOptions(threads=1)),
    "bm25": lambda: open_scorer("bm25"),
    "cached": lambda: open_scorer(str(MODELS / "bert"), cache=True),
}
TEXTS = (ROOT / "examples" / "faq.txt").read_text(encoding="utf-8").splitlines()
QUERIES = ["how do I get a refund", "delivery"]


@pytest.fixture(scope="module", params=sorted(SCORERS))
def scorer(request: pytest.FixtureRequest) -> Scorer:
    return SCORERS[request.param]()


def pairs(texts: Sequence[str], queries: Sequence[str] = QUERIES) -> list[Pair]:
    return [Pair.from_texts(q, t) for t in texts for q in queries]


def test_a_number_for_every_pair_in_their_order(scorer: Scorer) -> None:
    many_pairs = pairs(TEXTS)
    values = scorer.score(many_pairs).values
    assert len(values) == len(many_pairs)
    assert all(type(value) is float and math.isfinite(value) for value in values)
    if scorer.info.scope == "pair":
        single = [scorer.score([pair]).values[0] for pair in many_pairs[:6]]
        assert single == list(values[:6])


def test_queries_may_mix_and_are_scored_as_if_alone(scorer: Scorer) -> None:
    mixed = scorer.score(pairs(TEXTS)).values
    for place, query in enumerate(QUERIES):
        assert list(scorer.score(pairs(TEXTS, [query])).values) == list(mixed[place::2])


def test_nothing_for_nothing(scorer: Scorer) -> None:
    assert list(scorer.score([]).values) == []


def test_the_same_again(scorer: Scorer) -> None:
    assert scorer.score(pairs(TEXTS)).values == scorer.score(pairs(TEXTS)).values


@pytest.mark.parametrize("text", ["", "\x00", "the of and", "\ud800", "日本", "🥕" * 20])
def test_odd_texts_get_a_number(scorer: Scorer, text: str) -> None:
    assert all(
        value is not None and math.isfinite(value) for value in scorer.score(pairs([text])).values
    )


def test_what_is_known_beforehand(scorer: Scorer) -> None:
    info = scorer.info
    assert info.scale == ("unbounded" if info.name == "bm25" else "logit")
    assert info.scope == ("set" if info.name == "bm25" else "pair")
    assert not info.remote
    assert info.tokenizer is not None
    assert info.tokenizer.encode("a b").spans[0] == (0, 1)
