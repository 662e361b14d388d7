"""Each field of the API documents can be asked for, and had: the table of docs/providers.md.

Every row is sent from the command line, in a batch and from Python, as its cells say, to a server
that speaks the service's dialect; what the rows of the second half name is looked up in what comes
out.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rerank_cli import ChunkOptions, Document, Media, Ranking, RemoteOptions, Reranker
from tests.conftest import ROOT, Run
from tests.providers.test_seeds import DESCRIPTIONS, DOCUMENTS, EXAMPLES, MARKS, document
from tests.support.loopback import Server, serve
from tests.support.loopback.faults import Manner
from tests.support.loopback.wire import Reply

SERVICES = tuple(MARKS)
# The models that have a field, where not all of a service have it.
MODELS = {
    "instruction": "Qwen/Qwen3-Reranker-8B",
    "max_chunks_per_doc": "BAAI/bge-reranker-v2-m3",
    "overlap_tokens": "BAAI/bge-reranker-v2-m3",
    "image": "Qwen/Qwen3-VL-Reranker-8B",
}
TEXTS = ["a", "b"]


class Row(NamedTuple):
    """A row of the table: of each cell the code in it, or else its words.

    `batch_path` is where a batch has what is answered: in its report, if `batch` is `--report`.
    """

    field: str
    services: tuple[str, ...]
    command: str
    batch: str
    python: str
    batch_path: str = ""

    @property
    def fragment(self) -> Mapping[str, Any]:
        """What is in the body that is sent."""
        return dict(json.loads(f"{{{self.field}}}")) if self.field.startswith('"') else {}

    @property
    def header(self) -> tuple[str, str] | None:
        name, colon, value = self.field.partition(": ")
        return (name, value) if colon and not self.fragment else None

    @property
    def model(self) -> str:
        models = (model for word, model in MODELS.items() if f'"{word}"' in self.field)
        return "m-1" if '"model"' in self.field else next(models, "m")


def read_table() -> tuple[list[Row], list[Row]]:
    """The rows of what is sent, and those of what is answered."""
    page = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
    lines = page.split("## Fields, one by one\n")[1].split("\n## ")[0].splitlines()
    parts: tuple[list[Row], list[Row]] = ([], [])
    place = -1
    for line in lines:
        if not line.startswith("| "):
            continue
        if line.startswith("| **"):
            place += 1
        elif place >= 0:
            first, by, *cells = (cell.strip() for cell in line[1:-1].split("|"))
            services = SERVICES if "all five" in by else tuple(s for s in SERVICES if s in by)
            path = re.findall(r"`([^`]+)`", cells[1])[-1:]
            parts[place].append(Row(code_of(first), services, *map(code_of, cells), *path))
    return parts


def code_of(cell: str) -> str:
    code = re.search(r"`([^`]+)`", cell)
    return code[1] if code else cell


REQUEST_FIELDS, ANSWER_FIELDS = read_table()


def params_of(rows: list[Row]) -> Iterator[Any]:
    for row in rows:
        for service in row.services:
            yield pytest.param(row, service, id=f"{row.field[:30]}-{service}")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in SERVICES:
        monkeypatch.setenv(f"{service.upper()}_API_KEY", "key-1")


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the API documents are not beside the checkout")
@pytest.mark.parametrize("service", SERVICES)
def test_each_field_of_the_documents_is_in_the_table(service: str) -> None:
    start, pattern = DESCRIPTIONS[service]
    text = re.split(r"\nResponse", document(service).partition(start)[2], maxsplit=1)[0]
    fields_sent = {key for row in REQUEST_FIELDS if service in row.services for key in row.fragment}
    assert set(re.findall(pattern, text, re.MULTILINE)) == fields_sent


@pytest.mark.parametrize("service", SERVICES)
def test_each_field_of_their_answers_is_in_the_table(service: str) -> None:
    fields = [row.field for row in ANSWER_FIELDS if service in row.services]
    for path in paths_in(EXAMPLES[service]["response"]):
        assert any(path == field or path.startswith(field) for field in fields), path


def paths_in(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_in(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from paths_in(inner, f"{path}[]")
    else:
        yield path


def words_of(row: Row, service: str, url: str, code: str) -> list[str]:
    """The words of a command for a row, without the query and the documents."""
    words = shlex.split(code.replace("SERVICE", service))
    model_option = [] if "-m" in words else ["-m", f"{service}/{row.model}"]
    return [*model_option, "--base-url", url, *words]


def send_by_command(row: Row, service: str, server: Server, rerank: Run, *more: str) -> str:
    content = b""
    if isinstance((row.fragment.get("documents") or [""])[0], dict):
        content = b"".join(json.dumps(item).encode() + b"\n" for item in row.fragment["documents"])
        words = words_of(row, service, server.url, "--input-format jsonl")
    else:
        words = words_of(row, service, server.url, row.command if row.command[0] == "-" else "")
    if "-q" not in words:
        words += ["-q", "refund"]
    if "-d" not in words and not content:
        words += [word for text in TEXTS for word in ("-d", text)]
    outcome = rerank(*words, *more, stdin=content)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out


def send_by_batch(
    row: Row, service: str, server: Server, rerank: Run, path: Path, *more: str
) -> str:
    is_option = row.batch.startswith("-")
    own = json.loads(f"{{{row.batch}}}") if row.batch.startswith('"') else {}
    path.write_text(json.dumps({"query": "refund", "documents": TEXTS, **own}) + "\n")
    words = words_of(row, service, server.url, row.batch if is_option else "")
    outcome = rerank("batch", str(path), *words, *more)
    assert outcome.code == 0, outcome.err
    return outcome.out


@dataclass
class ShownCall:
    """The arguments of a call that a cell shows."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


def send_by_python(row: Row, service: str, server: Server) -> Ranking:
    def note(*arguments: Any, **keywords: Any) -> ShownCall:
        return ShownCall(arguments, keywords)

    opening, ranking = ShownCall((f"{service}/{row.model}",), {}), ShownCall(("refund", TEXTS), {})
    remote, chunks = RemoteOptions(), ChunkOptions()
    if "(" in row.python:
        names = {
            "Reranker": note, "rank": note, "RemoteOptions": RemoteOptions,
            "ChunkOptions": ChunkOptions, "Document": Document, "Media": Media,
            "model": f"{service}/{row.model}", "texts": TEXTS,
        }  # fmt: skip
        value = eval(row.python.replace("SERVICE", service), names)
        if isinstance(value, RemoteOptions):
            remote = value
        elif isinstance(value, ChunkOptions):
            chunks = value
        elif row.python.startswith("Reranker"):
            opening = value
        else:
            ranking = value
    remote = replace(remote, base_url=server.url)
    with Reranker(*opening.arguments, remote=remote, chunks=chunks, **opening.keywords) as reranker:
        return reranker.rank(*ranking.arguments, **ranking.keywords)


@pytest.mark.parametrize(("row", "service"), [*params_of(REQUEST_FIELDS)])
def test_a_field_is_sent_as_the_table_says(
    row: Row, service: str, rerank: Run, tmp_path: Path
) -> None:
    with serve(service, key="key-1") as server:
        send_by_command(row, service, server, rerank)
        send_by_batch(row, service, server, rerank, tmp_path / "in.jsonl")
        send_by_python(row, service, server)
    assert len(server.requests) == 3
    for request in server.requests:
        if row.header is not None:
            assert request.headers[row.header[0].lower()] == row.header[1]
        else:
            assert row.fragment.items() <= request.json.items()
            for key, value in row.fragment.items():
                assert json.dumps(request.json[key]) == json.dumps(value)


def answer_of(service: str) -> dict[str, Any]:
    """The answer of a document, for the documents that are sent here; counts are not 0."""
    answer: dict[str, Any] = json.loads(json.dumps(EXAMPLES[service]["response"]))
    answer.pop("choices", None)  # of a chat completion, which a document describes by mistake
    for unit in ("tokens", "billed_units"):
        if "meta" in answer:
            counts = answer["meta"][unit]
            answer["meta"][unit] = {name: place + 1 for place, name in enumerate(counts)}
    answer["results"] = [
        {"index": 1, "relevance_score": 0.9, "document": {"id": "8", "text": "b"}},
        {"index": 0, "relevance_score": 0.2, "document": {"id": "7", "text": "a"}},
    ]
    return answer


@dataclass(frozen=True)
class Answer:
    """Another body, with the dialect's headers."""

    value: Any
    code: int = 200

    def spoil(self, reply: Reply, manner: Manner) -> None:
        reply.code, reply.body = self.code, self.value
        if "id" in self.value and self.code != 200:
            reply.headers.clear()  # else the id of an error is that of its headers


def at_path(value: Any, path: str) -> Any:
    """The value at a dotted path; after `[]` it is a list of those of each item."""
    for place, step in enumerate(steps := path.split(".")):
        value = value[step.removesuffix("[]")]
        if step.endswith("[]"):
            rest = ".".join(steps[place + 1 :])
            return [at_path(item, rest) if rest else item for item in value]
    return value


@pytest.mark.parametrize(("row", "service"), [*params_of(ANSWER_FIELDS)])
def test_what_is_answered_can_be_had_as_the_table_says(
    row: Row, service: str, rerank: Run, tmp_path: Path
) -> None:
    if not row.python or row.python == "ProviderError":
        assert "not kept" in row.command or "exit code 3" in row.command
        return
    records = '"documents": [{"id": "7", "text": "a"}, {"id": "8", "text": "b"}]'
    request_row = Row(
        records, (service,), "", records, f"rank('refund', {records.partition(':')[2]})"
    )
    report = tmp_path / "report.json"
    with serve(service, faults=Answer(answer_of(service))) as server:
        output = json.loads(send_by_command(request_row, service, server, rerank, "--json"))
        more = ("--report", str(report))
        record = json.loads(
            send_by_batch(request_row, service, server, rerank, tmp_path / "in.jsonl", *more)
        )
        ranking = send_by_python(request_row, service, server)
    expected = (
        [f"rerank-{number:08x}" for number in (1, 2, 3)]
        if row.field.startswith("x-")
        else at_path(answer_of(service), row.field)
    )

    def is_equal(value: Any, place: int) -> bool:
        if row.field.startswith("x-"):
            return bool(value == [expected[place]])
        return bool(value == expected or value == [expected])

    assert is_equal(at_path(output, row.command), 0)
    python_value = eval(row.python, {"ranking": ranking})
    assert is_equal([*python_value] if isinstance(python_value, list) else python_value, 2)
    if row.batch == "--report":
        python_value = at_path(json.loads(report.read_text()), row.batch_path)
        assert is_equal([*python_value] if isinstance(python_value, dict) else python_value, 1)
    elif row.batch.startswith("results"):
        assert is_equal(at_path(record, row.batch), 1)
    else:
        check_failed_record(row, service, rerank, tmp_path)


def check_failed_record(row: Row, service: str, rerank: Run, tmp_path: Path) -> None:
    """The error record of a batch has what a service says of a request that it refuses."""
    (tmp_path / "in.jsonl").write_text('{"query": "q", "documents": ["a"]}\n')
    id_field = {} if row.field.startswith("x-") else {"id": "e-1"}
    with serve(service, faults=Answer({**id_field, "message": "no"}, 400)) as server:
        outcome = rerank(
            "batch", str(tmp_path / "in.jsonl"), *words_of(row, service, server.url, "")
        )
    assert outcome.code == 3
    expected = "rerank-00000001" if row.field.startswith("x-") else "e-1"
    assert at_path(json.loads(outcome.out), row.batch_path) == [expected]
