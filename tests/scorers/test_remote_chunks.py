"""Who cuts long documents: here or there, never silently, and with the same result."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.providers.text_limits import EstimatedTokenizer
from rerank_cli.ranking.results import AGGREGATES
from rerank_cli.scorers.tokenization import ModelTokenizer
from tests.conftest import ROOT, Outcome, Run
from tests.support.loopback import Server, logit_of, score_of, serve
from tests.support.remote_commands import lines, model_options, sent_documents

TOKENIZER = ROOT / "models" / "mini" / "tokenizer.json"
QUERY = "refund window"
BGE = "siliconflow/BAAI/bge-reranker-v2-m3"


def long_text(words: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    vocabulary = [
        "refund", "window", "delivery", "of", "the", "parcel.", "Sentence", "Größe", "a1b2c3",
    ]  # fmt: skip
    return f"{seed} " + " ".join(chance.choice(vocabulary) for _ in range(words))


LONG = [long_text(words, seed) for seed, words in enumerate([10, 1000, 30, 6500])]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SILICONFLOW", "COHERE", "ZHIPUAI", "ISAACUS", "QIANFAN", "DASHSCOPE", "VOYAGE", "MXBAI"
    ):  # fmt: skip
        monkeypatch.setenv(f"{name}_API_KEY", "key")


def run_command(
    rerank: Run, server: Server, model: str, *more: str, texts: list[str] = LONG
) -> Outcome:
    outcome = rerank(*model_options(server, model), QUERY, "--json", *more, stdin=lines(texts))
    assert (outcome.code, outcome.err) == (0, "")
    return outcome


def results(outcome: Outcome) -> list[dict[str, Any]]:
    return list(json.loads(outcome.out)["results"])


@pytest.mark.parametrize(
    ("dialect", "model", "more"),
    [
        ("siliconflow", BGE, []),
        ("isaacus", "isaacus/m", []),
        ("tei", "tei/m", ["--truncate", "end"]),
    ],
)
def test_who_cuts_or_takes_all_is_given_documents_whole(
    dialect: str, model: str, more: list[str], rerank: Run
) -> None:
    with serve(dialect) as server:
        chunk_results = results(run_command(rerank, server, model, *more))
    name = "documents" if dialect == "siliconflow" else "texts"
    assert sent_documents(server, name) == LONG
    assert all(result["chunks"] == 1 and not result["truncated"] for result in chunk_results)


@pytest.mark.parametrize("tokenizer", [[], ["--tokenizer", str(TOKENIZER)]])
@pytest.mark.parametrize(
    ("dialect", "model", "limit", "pair"),
    [("cohere-v2", "cohere/m", 4096, False), ("llamacpp", "llamacpp/m", 512, True)],
)
def test_what_would_be_cut_unseen_is_cut_here(
    dialect: str, model: str, limit: int, pair: bool, tokenizer: list[str], rerank: Run
) -> None:
    with serve(dialect) as server:
        chunk_results = results(run_command(rerank, server, model, *tokenizer))
    count = (ModelTokenizer(TOKENIZER) if tokenizer else EstimatedTokenizer()).count
    beside = count(QUERY) + 4 if pair else 0
    assert max(count(text) for text in sent_documents(server)) + beside <= limit
    assert max(count(text) for text in sent_documents(server)) + beside > limit * 0.9
    for place, text in enumerate(LONG):
        own = [chunk for chunk in sent_documents(server) if chunk in text]
        result = next(
            chunk_result for chunk_result in chunk_results if chunk_result["index"] == place
        )
        assert result["chunks"] == len(own)
        assert not result["truncated"]
        best = max(own, key=lambda chunk: score_of(QUERY, chunk))
        score = logit_of if pair else score_of
        assert result["raw_score"] == pytest.approx(score(QUERY, best), abs=1e-5)
        assert result["passage"]["text"] == best


@pytest.mark.parametrize("tokenizer", [[], ["--tokenizer", str(TOKENIZER)]])
def test_a_limit_in_characters_is_kept_in_characters(tokenizer: list[str], rerank: Run) -> None:
    with serve("zhipu") as server:
        chunk_results = results(run_command(rerank, server, "zhipu/rerank", *tokenizer))
    lengths = [len(text) for text in sent_documents(server)]
    assert max(lengths) <= 4096
    assert max(lengths) > 3900
    assert sum(result["chunks"] for result in chunk_results) == len(lengths)
    # Tokens are tokens all the same, of the user's tokenizer if there is one.
    count = (ModelTokenizer(TOKENIZER) if tokenizer else EstimatedTokenizer()).count
    assert {result["index"]: result["tokens"] for result in chunk_results} == dict(
        enumerate(map(count, LONG))
    )


def test_a_title_takes_its_room_from_each_chunk(rerank: Run, tmp_path: Any) -> None:
    path = tmp_path / "records.jsonl"
    record = {"title": "A title that is sent", "text": "x" * 5000}
    path.write_text(json.dumps(record) + "\n")
    with serve("zhipu") as server:
        outcome = rerank(
            *model_options(server, "zhipu/rerank"), QUERY, str(path), "--prepend", "title"
        )
    assert (outcome.code, outcome.err) == (0, "")
    assert all(text.startswith("A title that is sent\nx") for text in sent_documents(server))
    assert max(len(text) for text in sent_documents(server)) <= 4096


def test_the_best_of_chunks_is_the_same_whoever_cuts(rerank: Run) -> None:
    """A server that cuts as we do, and takes the best, gives what cutting here gives."""
    chunks = dict[str, list[str]]()

    def best(query: str, text: str) -> float:
        return max(score_of(query, part) for part in chunks.get(text, [text]))

    with serve("siliconflow") as server:
        here = results(run_command(rerank, server, BGE, "--chunk", "local"))
        for text in LONG:
            chunks[text] = [chunk for chunk in sent_documents(server) if chunk in text]
    with serve("siliconflow", score=best) as other:
        there = results(run_command(rerank, other, BGE, "--chunk", "remote"))
    assert len(sent_documents(server)) > len(LONG) == len(sent_documents(other))
    scores = [
        [(result["index"], result["raw_score"]) for result in results_found]
        for results_found in (here, there)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("model", [BGE, "tei/m"])
def test_what_is_asked_for_is_cut_here(model: str, rerank: Run) -> None:
    name = "documents" if model == BGE else "texts"
    with serve(model.partition("/")[0]) as server:
        outcome = run_command(
            rerank, server, model, "--chunk-tokens", "100", "--overlap-tokens", "0"
        )
        counts = [EstimatedTokenizer().count(text) for text in sent_documents(server, name)]
        assert 80 < max(counts) <= 100
        assert "overlap_tokens" not in server.requests[0].json
        chunk_results = results(outcome)
    with serve(model.partition("/")[0]) as server:
        for way in AGGREGATES.keys() - {"first", "max", "adjusted-max"}:
            assert len(results(run_command(rerank, server, model, "--aggregate", way))) == len(
                chunk_results
            )
        assert max(EstimatedTokenizer().count(t) for t in sent_documents(server, name)) <= 512


def test_chunks_beyond_the_most_are_dropped_and_said(rerank: Run) -> None:
    with serve("llamacpp") as server:
        outcome = rerank(
            *model_options(server, "llamacpp/m"), QUERY, "--json", "--max-chunks", "2", "--strict",
            stdin=lines(LONG),
        )  # fmt: skip
    assert outcome.code == 4
    assert "2 documents of 4 not scored whole" in outcome.err
    assert len(sent_documents(server)) == 6


def test_all_scores_are_asked_for_where_documents_are_in_chunks(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        outcome = rerank(*model_options(server, "cohere/m"), QUERY, "-n", "1", stdin=lines(LONG))
    assert len(outcome.out.splitlines()) == 1
    (request,) = server.requests
    assert request.json["top_n"] == len(request.json["documents"]) > len(LONG)


def test_who_is_to_cut_is_not_told_how_long_chunks_are(rerank: Run) -> None:
    with serve("siliconflow") as server:
        outcome = rerank(
            *model_options(server, BGE), QUERY, "--chunk", "remote", "--chunk-tokens", "100",
            stdin=lines(LONG),
        )  # fmt: skip
    assert (outcome.code, outcome.out, server.count) == (2, "", 0)
    assert "--chunk remote" in outcome.err


def test_a_query_that_leaves_no_room_is_refused(rerank: Run) -> None:
    with serve("llamacpp") as server:
        outcome = rerank(*model_options(server, "llamacpp/m"), "word " * 600, stdin=lines(LONG))
        assert (outcome.code, server.count) == (2, 0)
        assert "the query is too long for llamacpp/m" in outcome.err
        outcome = rerank(
            *model_options(server, "llamacpp/m"), "word " * 600, "--truncate-query", stdin=b"a\n"
        )
    assert outcome.code == 0
    assert "the query was cut to its first" in outcome.err


def messages_of(
    rerank: Run, model: str, *more: str, texts: list[str] = LONG
) -> tuple[list[str], int]:
    """What a dry run says, and how many chunks it would send."""
    outcome = rerank("-m", model, QUERY, "--dry-run", "--json", *more, stdin=lines(texts))
    assert outcome.code == 0
    notes = [line.removeprefix("rerank: ") for line in outcome.err.splitlines()]
    return notes, json.loads(outcome.out)["chunks"]


TOKENS = "chunks have {limit} tokens, not {size}: {model} takes {words}"
CHARACTERS = (
    "chunks have at most {limit} characters, and not always {size} tokens: {model} takes no more"
)


@pytest.mark.parametrize(
    ("model", "size", "note", "limit", "words"),
    [
        ("cohere/m", 9000, TOKENS, 4096, "4096 of a document"),
        ("dashscope/qwen3-rerank", 9000, TOKENS, 4000, "4000 of a document"),
        ("qianfan/m", 9000, TOKENS, 1024, "1024 of a document"),
        ("llamacpp/m", 9000, TOKENS, 504, "512 with the query"),
        ("zhipu/rerank", 9000, CHARACTERS, 4096, ""),
        ("zhipu/rerank", 2500, CHARACTERS, 4096, ""),  # so many characters here have fewer tokens
        ("infinity/m", 200_000, CHARACTERS, 122_880, ""),
        ("cohere/m", 2000, "", 0, ""),
        ("zhipu/rerank", 500, "", 0, ""),
        ("infinity/m", 9000, "", 0, ""),
        ("tei/m", 9000, "", 0, ""),
    ],
)
def test_chunks_are_held_to_what_a_service_takes_and_that_is_said(
    model: str, size: int, note: str, limit: int, words: str, rerank: Run
) -> None:
    notes, _ = messages_of(rerank, model, "--chunk-tokens", str(size))
    line = note.format(model=model, size=size, limit=limit, words=words)
    assert notes == ([line] if note else [])


UNKNOWN = (
    "texts of more than 512 tokens are sent {how}, and how much {model} reads of them is not "
    "known: --chunk local cuts them here into chunks of 512, --chunk-tokens N into larger ones"
)


@pytest.mark.parametrize(
    ("model", "more", "is_said"),
    [
        ("tei/m", [], True),
        ("infinity/m", [], True),  # whose limit in characters is the server's, not the model's
        ("tei/m", ["--chunk", "local"], False),
        ("infinity/m", ["--chunk", "local"], False),
        ("tei/m", ["--chunk-tokens", "3000"], False),
        ("tei/m", ["--truncate", "none"], False),
        ("tei/m", ["--truncate", "end"], False),
        ("zhipu/rerank", [], False),
        ("cohere/m", [], False),
        (BGE, [], False),
        (BGE, ["--chunk", "remote"], False),
    ],
)
def test_a_long_text_for_a_model_of_unknown_length_is_said_once(
    model: str, more: list[str], is_said: bool, rerank: Run
) -> None:
    notes, _ = messages_of(rerank, model, *more)
    manner = "in chunks of up to 122,880 characters" if model == "infinity/m" else "whole"
    assert notes == ([UNKNOWN.format(model=model, how=manner)] if is_said else [])
    assert messages_of(rerank, model, *more, texts=LONG[::2])[0] == []  # none of which is long


def test_so_is_a_long_query(rerank: Run) -> None:
    note = (
        "rerank: queries of more than 512 tokens are sent whole, and how much tei/m reads of them "
        "is not known\n"
    )
    with serve("tei") as server:
        for query, err in ((long_text(600), note), (long_text(20), "")):
            assert rerank(*model_options(server, "tei/m"), query, "-d", "a").err == err


@pytest.mark.slow
def test_what_a_field_tells_a_service_to_read_of_a_document_is_kept_to(rerank: Run) -> None:
    field = "max_tokens_per_doc=100"
    _, chunks = messages_of(rerank, "cohere/m", "--set", field)
    assert (
        chunks == messages_of(rerank, "cohere/m", "--max-document-tokens", "100")[1] > len(LONG) * 4
    )
    assert (
        messages_of(rerank, "cohere/m", "--set", field, "--max-document-tokens", "9")[1] == chunks
    )
    # A number that is not sent, as it is too large, is no limit.
    lenient = ("--max-document-tokens", "9000", "--lenient")
    model = "jina/jina-reranker-v3"
    assert messages_of(rerank, model, *lenient)[1] == messages_of(rerank, model)[1] > len(LONG)


def test_a_long_text_that_is_not_to_be_cut_here_is_said(rerank: Run) -> None:
    (cuts, reads), chunks = messages_of(rerank, "cohere/m", "--chunk", "remote", "--lenient")
    assert chunks == len(LONG)
    assert cuts == "cohere does not cut documents into chunks"
    cut_message, _, rest = reads.partition(", and ")
    assert cut_message == "texts of more than 4,096 tokens are sent whole"
    assert rest == "cohere/m reads no more than that: --chunk local cuts them here"


def test_chunks_that_are_asked_for_suit_most_models_where_no_length_is_known(rerank: Run) -> None:
    for model in ("tei/m", "infinity/m"):
        _, chunks = messages_of(rerank, model, "--chunk", "local")
        assert chunks > len(LONG) * 4
        _, chunks = messages_of(rerank, model, "--aggregate", "mean-top-3")
        assert chunks > len(LONG) * 4


def test_a_batch_counts_the_records_with_long_texts(rerank: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    records = [{"query": QUERY, "documents": [text, "short"]} for text in LONG]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with serve("tei") as server:
        outcome = rerank(
            "batch", str(path), "-o", str(tmp_path / "out.jsonl"), *model_options(server, "tei/m")
        )
    plan = rerank("batch", str(path), "--plan", "-m", "tei/m")
    note = f"rerank: {UNKNOWN.format(model='tei/m', how='whole')} (of 2 records)\n"
    assert (outcome.code, outcome.err) == (0, note)
    assert (plan.code, plan.err) == (0, note)


@pytest.mark.parametrize(
    ("model", "limit", "unit"),
    [
        ("zhipu/rerank", 4096, "characters"),
        ("qianfan/m", 1600, "characters"),
        ("mixedbread/m", 32_000, "characters"),
        ("infinity/m", 122_880, "characters"),
        ("cohere/m", 2048, "tokens"),
        ("voyage/rerank-lite-1", 1000, "tokens"),
        ("voyage/rerank-2.5-lite", 8000, "tokens"),
    ],
)
def test_a_query_that_is_longer_than_a_service_takes_is_refused_or_cut(
    model: str, limit: int, unit: str, rerank: Run, tmp_path: Path
) -> None:
    query = tmp_path / "query.txt"
    query.write_text("refund " * (limit // (7 if unit == "characters" else 2) + 1))
    command = ["-m", model, "--query-file", str(query), "-d", "a", "--dry-run", "--json", "-v"]
    outcome = rerank(*command)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{model}: it has " in outcome.err
    assert f" {unit} and {limit} fit" in outcome.err
    outcome = rerank(*command, "--truncate-query")
    assert outcome.code == 0
    assert f"the query was cut to its first {limit} of " in outcome.err
    query_sent = json.loads(outcome.out)["first_request"]["query"]
    size = len(query_sent) if unit == "characters" else EstimatedTokenizer().count(query_sent)
    assert limit * 0.8 < size <= limit


def test_an_image_in_place_of_a_query_has_no_length(rerank: Run) -> None:
    url = "data:image/png;base64," + "iVBORw0K" * 9000
    outcome = rerank(
        *("-m", "dashscope-native/qwen3-vl-rerank", "--image", url, "-d", "a"),
        "--dry-run",
        "--json",
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert json.loads(outcome.out)["tokens"] == 1


def test_a_request_has_no_more_chunks_in_all_than_it_may(rerank: Run) -> None:
    texts = lines([f"text {number}" for number in range(101)])
    for chunks, most in (("10", 101), ("100", 99), ("9999", 1)):
        arguments = ("-m", "cohere-v1/m", QUERY, "--dry-run", "--json", "--max-chunks", chunks)
        assert json.loads(rerank(*arguments, stdin=texts).out)["largest"]["documents"] == most


def test_a_limit_that_a_user_sets_is_the_one_that_is_kept(rerank: Run) -> None:
    outcome = rerank(
        *("-m", "cohere/m", QUERY, "--max-document-tokens", "500", "--dry-run", "--json", "-v"),
        stdin=lines(LONG),
    )
    assert (outcome.code, outcome.err) == (0, "")
    request = json.loads(outcome.out)["first_request"]
    assert request["max_tokens_per_doc"] == 500
    assert 400 < max(map(EstimatedTokenizer().count, request["documents"])) <= 500
    notes, _ = messages_of(
        rerank, "cohere/m", "--max-document-tokens", "500", "--chunk-tokens", "900"
    )
    assert notes == ["chunks have 500 tokens, not 900: cohere/m takes 500 of a document"]
