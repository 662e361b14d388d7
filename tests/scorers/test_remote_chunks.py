"""Who cuts long documents: here or there, never silently, and with the same result."""

import json
import random
from typing import Any

import pytest

from rerank_cli.providers.token_estimate import EstimatedTokenizer
from rerank_cli.ranking.results import AGGREGATES
from rerank_cli.scorers.tokenization import ModelTokenizer
from tests.conftest import ROOT, Outcome, Run
from tests.support.asking import at, lines, sent_documents
from tests.support.loopback import Server, logit_of, score_of, serve

TOKENIZER = ROOT / "models" / "mini" / "tokenizer.json"
QUERY = "refund window"
BGE = "siliconflow/BAAI/bge-reranker-v2-m3"


def long_text(words: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    said = ["refund", "window", "delivery", "of", "the", "parcel.", "Sentence", "Größe", "a1b2c3"]
    return f"{seed} " + " ".join(chance.choice(said) for _ in range(words))


LONG = [long_text(words, seed) for seed, words in enumerate([10, 3000, 30, 9000])]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILICONFLOW", "COHERE", "ZHIPUAI", "ISAACUS"):
        monkeypatch.setenv(f"{name}_API_KEY", "key")


def asked(rerank: Run, server: Server, model: str, *more: str, texts: list[str] = LONG) -> Outcome:
    ran = rerank(*at(server, model), QUERY, "--json", *more, stdin=lines(texts))
    assert (ran.code, ran.err) == (0, "")
    return ran


def results(ran: Outcome) -> list[dict[str, Any]]:
    return list(json.loads(ran.out)["results"])


@pytest.mark.parametrize(
    ("dialect", "model"), [("siliconflow", BGE), ("isaacus", "isaacus/m"), ("tei", "tei/m")]
)
def test_who_cuts_or_takes_all_is_given_documents_whole(
    dialect: str, model: str, rerank: Run
) -> None:
    with serve(dialect) as server:
        found = results(asked(rerank, server, model))
    name = "documents" if dialect == "siliconflow" else "texts"
    assert sent_documents(server, name) == LONG
    assert all(result["chunks"] == 1 and not result["truncated"] for result in found)


@pytest.mark.parametrize("tokenizer", [[], ["--tokenizer", str(TOKENIZER)]])
@pytest.mark.parametrize(
    ("dialect", "model", "limit", "pair"),
    [("cohere-v2", "cohere/m", 4096, False), ("llamacpp", "llamacpp/m", 512, True)],
)
def test_what_would_be_cut_unseen_is_cut_here(
    dialect: str, model: str, limit: int, pair: bool, tokenizer: list[str], rerank: Run
) -> None:
    with serve(dialect) as server:
        found = results(asked(rerank, server, model, *tokenizer))
    count = (ModelTokenizer(TOKENIZER) if tokenizer else EstimatedTokenizer()).count
    beside = count(QUERY) + 4 if pair else 0
    assert max(count(text) for text in sent_documents(server)) + beside <= limit
    assert max(count(text) for text in sent_documents(server)) + beside > limit * 0.9
    for place, text in enumerate(LONG):
        own = [chunk for chunk in sent_documents(server) if chunk in text]
        result = next(one for one in found if one["index"] == place)
        assert result["chunks"] == len(own)
        assert not result["truncated"]
        best = max(own, key=lambda chunk: score_of(QUERY, chunk))
        of = logit_of if pair else score_of
        assert result["raw_score"] == pytest.approx(of(QUERY, best), abs=1e-5)
        assert result["passage"]["text"] == best


@pytest.mark.parametrize("tokenizer", [[], ["--tokenizer", str(TOKENIZER)]])
def test_a_limit_in_characters_is_kept_in_characters(tokenizer: list[str], rerank: Run) -> None:
    with serve("zhipu") as server:
        found = results(asked(rerank, server, "zhipu/rerank", *tokenizer))
    lengths = [len(text) for text in sent_documents(server)]
    assert max(lengths) <= 4096
    assert max(lengths) > 3900
    assert sum(result["chunks"] for result in found) == len(lengths)


def test_a_title_takes_its_room_from_each_chunk(rerank: Run, tmp_path: Any) -> None:
    path = tmp_path / "records.jsonl"
    record = {"title": "A title that is sent", "text": "x" * 5000}
    path.write_text(json.dumps(record) + "\n")
    with serve("zhipu") as server:
        ran = rerank(*at(server, "zhipu/rerank"), QUERY, str(path), "--prepend", "title")
    assert (ran.code, ran.err) == (0, "")
    assert all(text.startswith("A title that is sent\nx") for text in sent_documents(server))
    assert max(len(text) for text in sent_documents(server)) <= 4096


def test_the_best_of_chunks_is_the_same_whoever_cuts(rerank: Run) -> None:
    """A server that cuts as we do, and takes the best, gives what cutting here gives."""
    chunks = dict[str, list[str]]()

    def best(query: str, text: str) -> float:
        return max(score_of(query, part) for part in chunks.get(text, [text]))

    with serve("siliconflow") as server:
        here = results(asked(rerank, server, BGE, "--chunk", "local"))
        for text in LONG:
            chunks[text] = [chunk for chunk in sent_documents(server) if chunk in text]
    with serve("siliconflow", score=best) as other:
        there = results(asked(rerank, other, BGE, "--chunk", "remote"))
    assert len(sent_documents(server)) > len(LONG) == len(sent_documents(other))
    scores = [[(one["index"], one["raw_score"]) for one in found] for found in (here, there)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("model", [BGE, "tei/m"])
def test_what_is_asked_for_is_cut_here(model: str, rerank: Run) -> None:
    name = "documents" if model == BGE else "texts"
    with serve(model.partition("/")[0]) as server:
        ran = asked(rerank, server, model, "--chunk-tokens", "100", "--overlap-tokens", "0")
        counts = [EstimatedTokenizer().count(text) for text in sent_documents(server, name)]
        assert 80 < max(counts) <= 100
        assert "overlap_tokens" not in server.requests[0].json
        found = results(ran)
    with serve(model.partition("/")[0]) as server:
        for way in AGGREGATES.keys() - {"first", "max"}:
            assert len(results(asked(rerank, server, model, "--aggregate", way))) == len(found)
        assert max(EstimatedTokenizer().count(t) for t in sent_documents(server, name)) <= 512


def test_chunks_beyond_the_most_are_dropped_and_said(rerank: Run) -> None:
    with serve("llamacpp") as server:
        ran = rerank(
            *at(server, "llamacpp/m"), QUERY, "--json", "--max-chunks", "2", "--strict",
            stdin=lines(LONG),
        )  # fmt: skip
    assert ran.code == 4
    assert "2 documents of 4 not scored whole" in ran.err
    assert len(sent_documents(server)) == 6


def test_all_scores_are_asked_for_where_documents_are_in_chunks(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        ran = rerank(*at(server, "cohere/m"), QUERY, "-n", "1", stdin=lines(LONG))
    assert len(ran.out.splitlines()) == 1
    (request,) = server.requests
    assert request.json["top_n"] == len(request.json["documents"]) > len(LONG)


def test_who_is_to_cut_is_not_told_how_long_chunks_are(rerank: Run) -> None:
    with serve("siliconflow") as server:
        ran = rerank(
            *at(server, BGE), QUERY, "--chunk", "remote", "--chunk-tokens", "100",
            stdin=lines(LONG),
        )  # fmt: skip
    assert (ran.code, ran.out, server.count) == (2, "", 0)
    assert "--chunk remote" in ran.err


def test_a_query_that_leaves_no_room_is_refused(rerank: Run) -> None:
    with serve("llamacpp") as server:
        ran = rerank(*at(server, "llamacpp/m"), "word " * 600, stdin=lines(LONG))
        assert (ran.code, server.count) == (2, 0)
        assert "the query is too long for llamacpp/m" in ran.err
        ran = rerank(*at(server, "llamacpp/m"), "word " * 600, "--truncate-query", stdin=b"a\n")
    assert ran.code == 0
    assert "the query was cut to its first" in ran.err
