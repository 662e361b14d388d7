"""Long documents: cut here, cut there, and never cut unseen."""

import json

import pytest

from rerank_cli.scorers.estimating import EstimatedTokenizer
from tests.conftest import ROOT, Run
from tests.loopback import Server, score_of, serve

LONG = " ".join(f"word{number}" for number in range(4000)) + " refund"
BGE = "siliconflow/BAAI/bge-reranker-v2-m3"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("SILICONFLOW_API_KEY", "CO_API_KEY", "ZHIPUAI_API_KEY"):
        monkeypatch.setenv(variable, "key")


def texts(rerank: Run, dialect: str, model: str, *more: str) -> list[str]:
    """What is sent of a long document and of a short one."""
    with serve(dialect, score=lambda _query, _text: 0.5) as server:
        arguments = ["-m", model, "--base-url", server.url, "refund", "-d", LONG, "-d", "short"]
        ran = rerank(*arguments, *more)
    assert (ran.code, ran.err) == (0, "")
    return [text for request in server.requests for text in all_of(request.json)]


def all_of(body: dict[str, list[str]]) -> list[str]:
    return body["documents"] if "documents" in body else body["texts"]


def test_a_provider_that_cuts_is_left_to(rerank: Run) -> None:
    for more in ([], ["--chunk", "remote"], ["--max-chunks", "5"]):
        assert texts(rerank, "siliconflow", BGE, *more) == [LONG, "short"]


def test_where_no_limit_is_known_documents_go_whole(rerank: Run) -> None:
    assert texts(rerank, "tei", "tei/m") == [LONG, "short"]


@pytest.mark.parametrize(
    ("dialect", "model", "most"),
    [("cohere-v2", "cohere/m", 4096), ("llamacpp", "llamacpp/m", 512)],
)
def test_where_a_limit_is_known_nothing_is_longer(
    dialect: str, model: str, most: int, rerank: Run
) -> None:
    sent = texts(rerank, dialect, model)
    assert len(sent) > 2
    assert sent[-1] == "short"
    assert max(EstimatedTokenizer().count(text) for text in sent) <= most
    assert " ".join(LONG.split()[:3]) in sent[0]
    assert any(text.endswith("refund") for text in sent[:-1])


def test_limits_in_characters_are_kept(rerank: Run) -> None:
    sent = texts(rerank, "zhipu", "zhipu/rerank")
    assert max(map(len, sent)) <= 4096
    assert len(sent) > 8


@pytest.mark.parametrize(
    "more", [["--chunk", "local"], ["--chunk-tokens", "512"], ["--aggregate", "mean-top3"]]
)
def test_what_only_we_know_is_done_here(more: list[str], rerank: Run) -> None:
    from rerank_cli.aggregate import Aggregation

    if more[0] == "--aggregate":
        more = ["--aggregate", next(one.value for one in Aggregation if one is not Aggregation.MAX)]
    sent = texts(rerank, "siliconflow", BGE, *more)
    assert LONG not in sent
    assert max(EstimatedTokenizer().count(text) for text in sent) <= 512


def test_a_models_own_tokenizer_counts(rerank: Run) -> None:
    tokenizer = str(ROOT / "models" / "mini" / "tokenizer.json")
    own = texts(rerank, "llamacpp", "llamacpp/m", "--tokenizer", tokenizer)
    estimated = texts(rerank, "llamacpp", "llamacpp/m")
    assert 2 < len(own) != len(estimated)


def ranked(rerank: Run, server: Server, *more: str) -> list[dict[str, object]]:
    documents = ["-d", "late " * 600 + "score=0.7", "-d", "score=0.6"]
    arguments = ["-m", "llamacpp/m", "--base-url", server.url, "refund", *documents, "--json"]
    return list(json.loads(rerank(*arguments, *more).out)["results"])


def test_the_best_chunk_is_the_documents(rerank: Run) -> None:
    with serve("llamacpp") as server:
        first, second = ranked(rerank, server, "--sigmoid", "--explain")
        (best,) = ranked(rerank, server, "--sigmoid", "-n", "1")
    assert (first["index"], second["index"], best["index"]) == (0, 1, 0)
    assert first["relevance_score"] == pytest.approx(0.7, abs=1e-4)
    assert int(str(first["chunks"])) > 1
    assert len(list(first["passages"])) == first["chunks"]  # type: ignore[call-overload]
    assert score_of("refund", "score=0.7") == 0.7


def test_passages_of_a_file_are_cut_here(rerank: Run) -> None:
    with serve("siliconflow") as server:
        arguments = ["-m", BGE, "--base-url", server.url, "refund", "README.md", "-n", "3"]
        ran = rerank(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert max(EstimatedTokenizer().count(t) for t in server.requests[0].json["documents"]) <= 128


def test_a_query_that_leaves_no_room_is_refused(rerank: Run) -> None:
    with serve("llamacpp") as server:
        ran = rerank("-m", "llamacpp/m", "--base-url", server.url, "word " * 900, "-d", "a")
    assert (ran.code, server.count) == (2, 0)
    assert "the query is too long for llamacpp/m" in ran.err
