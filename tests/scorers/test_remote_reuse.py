"""Documents share a score only if the same is sent for them, for every provider that is known."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date
from hashlib import blake2b
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker
from rerank_cli.errors import UsageError
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.catalogue import find_provider, provider_names, provider_tables
from rerank_cli.providers.client import Reply
from rerank_cli.scorers import open_scorer
from rerank_cli.scorers.remote import RemoteScorer
from rerank_cli.types import Document, Media, Pair
from tests.conftest import Run
from tests.support.json_values import VALUES
from tests.support.loopback import serve
from tests.support.remote_commands import model_options, set_keys

GivenDocument = Mapping[str, Any] | Document


def models() -> Iterator[str]:
    """Each provider's example, and a model of each of its rules."""
    tables = provider_tables()
    for name in provider_names():
        yield f"{name}/{find_provider(name).example}"
        table: Mapping[str, Any] | None = tables[name]
        while table is not None:
            for rule in table.get("models", ()):
                yield f"{name}/{rule['names'][0].replace('*', 'x')}"
            table = tables.get(table.get("like", ""))


def documents_in(body: bytes) -> list[Any]:
    """The documents of a request, whatever they are called."""
    content = json.loads(body)
    content = content["input"] if isinstance(content.get("input"), dict) else content
    names = ("documents", "texts", "passages", "text_2", "input")
    return next(content[name] for name in names if name in content)


def sent_key(value: Any) -> bytes:
    """What was sent for a document, less its id."""
    if isinstance(value, dict) and "id" in value:
        value = {**value, "id": ""}
    return json.dumps(value).encode()


def score_of(value: Any) -> float:
    return int.from_bytes(blake2b(sent_key(value), digest_size=6).digest()) / 2**48


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    set_keys(monkeypatch, "key")


class Service:
    """Answers with scores that follow from all that is sent for a document but its id."""

    def __init__(self, model: str) -> None:
        remote = RemoteOptions(base_url="http://localhost:9")
        scorer = open_scorer(model, remote=remote)
        assert isinstance(scorer, RemoteScorer)
        self.scorer = scorer
        self.first = scorer.provider.answer.first_index
        self.sent_keys: list[bytes] = []
        scorer._client.send = self.send  # type: ignore[method-assign]

    def send(
        self, body: bytes, tokens: int = 0, until: float = 0.0, cancellation: Event | None = None
    ) -> Reply:
        values = documents_in(body)
        self.sent_keys += map(sent_key, values)
        results = [
            {"index": place + self.first, "relevance_score": score_of(value)}
            for place, value in enumerate(values)
        ]
        return Reply(json.dumps({"results": results}).encode(), {}, [200], 0.0)

    def value_alone(self, document: GivenDocument) -> Any:
        """What is sent for a document that has a request to itself."""
        plan = Reranker(self.scorer).plan("q")
        whole = document if isinstance(document, Document) else as_document(document)
        (chunk,) = plan.split(whole).chunks
        builder = self.scorer.builder
        (value,) = documents_in(builder.body(builder.build([Pair("q", chunk)])[0], None))
        return value


def as_document(record: Mapping[str, Any]) -> Document:
    fields = {name: value for name, value in record.items() if name != "text"}
    return Document(record["text"], id=record.get("id"), fields=fields)


def check(model: str, documents: list[GivenDocument]) -> None:
    """Rank documents in three rankings of one query, and hold each score to what is sent for it."""
    service = Service(model)
    values = [service.value_alone(document) for document in documents]
    try:
        reranker = Reranker(service.scorer)
        half = len(documents) // 2
        for part in (slice(0, half), slice(half, None), slice(None)):
            ranking = reranker.rank("q", documents[part])
            scores = {result.index: result.raw_score for result in ranking}
            assert [scores[n] for n in sorted(scores)] == [score_of(v) for v in values[part]]
    finally:
        service.scorer.close()
    distinct = set(map(sent_key, values))
    assert set(service.sent_keys) == distinct
    if service.scorer.info.scope == "pair":  # and sharing is as good as it was
        assert len(service.sent_keys) <= len(distinct) + len(PREPENDED_DOCUMENTS)


TITLES: list[dict[str, Any]] = [{}, {"title": ""}, {"title": "A"}, {"title": "B"}, {"title": 1}]
METADATA = [{}, *({"metadata": value} for value in (
    None, {}, {"n": 1}, {"n": 1.0}, {"n": True}, {"n": "1"}, {"a": 1, "b": 2}, {"b": 2, "a": 1},
))]  # fmt: skip
IDS: list[dict[str, Any]] = [{}, {"id": "1"}, {"id": "2"}]
RECORDS: list[GivenDocument] = [
    {"text": text, **title, **metadata, **name}
    for text in ("x", "A\nx")
    for title in TITLES
    for metadata in METADATA
    for name in IDS
]
PREPENDED_DOCUMENTS: list[GivenDocument] = [
    Document(text, title=title, fields={"title": title}) for text in "xy" for title in ("A", "B")
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Media]:
    folder = tmp_path_factory.mktemp("pictures")
    for name in "ab":
        Path(folder, name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    return [Media("image", str(folder / name)) for name in "ab"]


@pytest.mark.parametrize("model", sorted({*models()}))
def test_a_score_is_shared_only_where_the_same_is_sent(model: str, pictures: list[Media]) -> None:
    provider, _, name = model.partition("/")
    request = find_provider(provider, name).request
    media = pictures if request.image is not None else []
    # In most templates only the text counts: some records will do.
    some = RECORDS if request.record else RECORDS[::7]
    documents: list[GivenDocument] = [Document("a picture", media=picture) for picture in media]
    check(model, [*some, *PREPENDED_DOCUMENTS, *documents])


json_values = VALUES.filter(lambda value: not re.search("NaN|Infinity", json.dumps(value)))
records = st.fixed_dictionaries(
    {"text": st.sampled_from(["x", "y", "A\nx"])},
    optional={
        "title": st.sampled_from(["A", "B", ""]),
        "id": st.sampled_from(["1", "2"]),
        "metadata": st.dictionaries(st.sampled_from("ab"), json_values, max_size=2),
        "other": st.sampled_from("ab"),
    },
)


@pytest.mark.parametrize("model", ["llmingo/m", "pinecone/m", "tei/m"])
@given(st.lists(records, min_size=1, max_size=8))
@settings(max_examples=15)
def test_records_of_any_content(model: str, documents: list[GivenDocument]) -> None:
    check(model, documents)


def test_what_is_no_json_is_said() -> None:
    service = Service("llmingo/m")
    with pytest.raises(UsageError, match="for a document is not JSON"):
        Reranker(service.scorer).rank("q", [{"text": "a", "metadata": {"n": date(2026, 1, 1)}}])


def test_a_picture_that_has_changed_is_another(pictures: list[Media]) -> None:
    service = Service("jina/jina-reranker-m0")
    reranker = Reranker(service.scorer)
    for end in (b"1", b"22"):
        Path(pictures[0].place).write_bytes(b"\x89PNG\r\n\x1a\n" + end)
        reranker.rank("q", [Document("", media=pictures[0])])
    assert len(service.sent_keys) == 2


def test_records_of_a_batch_share_scores_only_where_the_same_is_sent(
    rerank: Run, tmp_path: Path
) -> None:
    documents: list[dict[str, Any]] = [
        {"id": "1", "title": "Refunds", "text": "See the page."},
        {"id": "2", "title": "Parcels", "text": "See the page."},
        {"id": "3", "title": "Refunds", "text": "See the page."},
    ]
    path = tmp_path / "in.jsonl"
    path.write_text(2 * (json.dumps({"query": "q", "documents": documents}) + "\n"))
    report = tmp_path / "report.json"
    with serve("llmingo") as server:
        command = ("batch", str(path), "--report", str(report), *model_options(server, "llmingo/m"))
        assert rerank(*command).code == 0
    titles = [
        [value["title"] for value in request.json["documents"]] for request in server.requests
    ]
    assert titles == [["Refunds", "Parcels"]]
    assert json.loads(report.read_text())["pairs"] == {"scored": 2, "reused": 4, "cached": 0}


def test_records_of_an_entry_of_ones_own_are_told_apart_by_all_that_is_sent(home: Path) -> None:
    (home / "providers.toml").write_text(
        '[mine]\nlike = "tei"\n'
        'request.body = { query = "$query", documents = "$documents" }\n'
        'request.record = { content = "$text", about = { id = "$id", of = "$title" } }\n'
    )
    service = Service("mine/m")
    records: list[GivenDocument] = [
        {"text": "a", "title": title, "id": "1"} for title in ("A", "B", "A")
    ]
    Reranker(service.scorer).rank("q", records)
    assert len(service.sent_keys) == 2
