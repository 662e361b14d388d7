"""`--resume --retry-errors`: only what failed is done again, and OUT ends as if nothing had."""

import gzip
import json
import random
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from rerank_cli.atomic_files import publish_file
from rerank_cli.batch import local
from rerank_cli.batch.outputs import EarlierLines
from rerank_cli.batch.records import Original
from rerank_cli.errors import InputError, OutputError
from rerank_cli.providers import client as client_module
from tests.conftest import Outcome, Run
from tests.support.batches import read, record, start_batch, write
from tests.support.loopback import Body, Fault, Request, Server, Status, serve
from tests.support.remote_commands import model_options


class Service:
    """A service that is away for some queries: with `status`, or `fault`."""

    def __init__(self) -> None:
        self.away: Collection[str] = ()
        self.fault: Fault = Status(503)
        self.delay = 0.0
        self.server = serve("openai-like", faults=self._plan)

    def _plan(self, request: Request, _number: int) -> Fault | None:
        time.sleep(self.delay)
        return self.fault if request.json["query"] in self.away else None

    def take_queries(self) -> list[str]:
        """The queries of the requests since the last time."""
        queries = sorted(str(request.json["query"]) for request in self.server.requests)
        self.server.requests.clear()
        return queries


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_SECONDS", 0.001)
    service = Service()
    with service.server:
        yield service


class Job:
    """A batch that can be run again and again, in other ways."""

    def __init__(self, rerank: Run, service: Service, source: Path, *more: str | Path) -> None:
        self.rerank, self.service = rerank, service
        self._arguments = [str(part) for part in ("batch", source, *more)]

    @property
    def server(self) -> Server:
        return self.service.server

    def __call__(self, *more: str, away: Collection[str] = ()) -> Outcome:
        self.service.away = away
        url = model_options(self.server)
        return self.rerank(*self._arguments, *url, "--retries", "0", "--concurrency", "2", *more)

    def retry(self, *more: str, away: Collection[str] = ()) -> Outcome:
        return self("--resume", "--retry-errors", *more, away=away)


def queries(*numbers: int) -> list[str]:
    return sorted(f"garden {number}" for number in numbers)


def rows(count: int = 12) -> list[Any]:
    """Records, among them one that can never be scored."""
    records: list[Any] = [record(number) for number in range(count)]
    records[4] = {"id": "r4", "documents": ["no query"]}
    return records


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = write(tmp_path / "in.jsonl", rows())
    path.write_text(path.read_text().replace('{"id": "r6"', '\n{"id": "r6"'))  # a blank line
    return path


def other_files(folder: Path) -> set[str]:
    """What a retry may leave."""
    return {path.name for path in folder.iterdir() if "retry" in path.name}


def content(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize(
    ("name", "errors"),
    [
        ("out.jsonl", None),
        ("out.jsonl.gz", "errors.jsonl"),
        pytest.param("out.jsonl.gz", None, marks=pytest.mark.slow),
        pytest.param("out.jsonl", "errors.jsonl.gz", marks=pytest.mark.slow),
    ],
)
def test_what_failed_is_done_again_and_nothing_else(
    name: str, errors: str | None, rerank: Run, service: Service, source: Path, tmp_path: Path
) -> None:
    files = []
    for kind in ("whole", "failed"):
        (tmp_path / kind).mkdir()
        out = tmp_path / kind / name
        side = [] if errors is None else [tmp_path / kind / errors]
        job = Job(rerank, service, source, "-o", out, *(["--errors"] if side else []), *side)
        assert job(away=queries(2, 5, 6, 11) if kind == "failed" else ()).code == 3
        files.append([out, *side])
    service.take_queries()
    assert content(files[0][0]) != content(files[1][0])
    outcome = job.retry()
    assert (outcome.code, service.take_queries()) == (3, queries(2, 5, 6, 11))
    assert "1 record of 12 failed (no_query: 1)" in outcome.err
    assert [content(path) for path in files[1]] == [content(path) for path in files[0]]
    assert other_files(tmp_path / "failed") == set()
    again = job.retry()
    assert (again.code, service.take_queries()) == (3, [])
    assert "nothing to retry in" in again.err
    assert job("--resume").code == 3


def test_it_is_said_how_they_are_done_again(
    rerank: Run, service: Service, source: Path, tmp_path: Path
) -> None:
    job = Job(rerank, service, source, "-o", tmp_path / "out.jsonl")
    outcome = job(away=queries(1, 2))
    assert outcome.err.endswith("--resume --retry-errors does 2 records again\n")
    assert job.retry(away=queries(2)).err.endswith("--resume --retry-errors does 1 record again\n")
    assert "--retry-errors" not in job.retry().err
    assert "--retry-errors" not in rerank("batch", str(source), *model_options(service.server)).err


@pytest.mark.parametrize(
    ("fault", "code", "passes"),
    [
        (Status(503), "provider_unavailable", True),
        (Status(500), "provider_unavailable", True),
        (Body({"no": "ranking"}), "bad_answer", True),
        (Status(400), "provider_failed", False),
    ],
    ids=str,
)
def test_which_errors_may_pass(
    fault: Fault, code: str, passes: bool, rerank: Run, service: Service, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(3)])
    out = tmp_path / "out.jsonl"
    job = Job(rerank, service, source, "-o", out)
    service.fault = fault
    job(away=queries(1))
    assert read(out)[1]["error"]["code"] == code
    service.take_queries()
    outcome = job.retry()
    assert (outcome.code, service.take_queries()) == ((0, queries(1)) if passes else (3, []))


def test_counts_are_those_of_a_job_that_never_failed(
    rerank: Run, service: Service, source: Path, tmp_path: Path
) -> None:
    reports = []
    for name, away in (("a", ()), ("b", queries(0, 1, 9))):
        report = tmp_path / f"{name}.json"
        job = Job(rerank, service, source, "-o", tmp_path / name, "--report", report)
        job(away=away)
        if away:
            job.retry()
        figures = json.loads(report.read_text())
        reports.append({key: figures[key] for key in ("records", "errors", "documents", "usage")})
    assert reports[0] == reports[1]


def test_pairs_and_ids(rerank: Run, service: Service, tmp_path: Path) -> None:
    pairs = [{"query": f"garden {n}", "document": "soil", "error": {"code": "x"}} for n in range(5)]
    source = write(tmp_path / "in.jsonl", pairs)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    Job(rerank, service, source, "--pairs", "-o", whole)()
    job = Job(rerank, service, source, "--pairs", "-o", out)
    job(away=queries(0, 4))
    assert job.retry().code == 0
    assert out.read_bytes() == whole.read_bytes()


def write_run(folder: Path) -> list[str | Path]:
    names = range(6)
    run = "".join(f"q{n} Q0 d{d} {d} 1 bm25\n" for n in names for d in range(3))
    (folder / "run.trec").write_text(run)
    write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"garden {n}"} for n in names])
    write(folder / "corpus.jsonl", [{"_id": f"d{d}", "text": f"leaf {d}"} for d in range(3)])
    files = {"--run": "run.trec", "--queries": "queries.jsonl", "--corpus": "corpus.jsonl"}
    return [part for option, name in files.items() for part in (option, folder / name)]


def test_a_run_has_its_errors_in_a_file(rerank: Run, service: Service, tmp_path: Path) -> None:
    first, *rest = write_run(tmp_path)
    whole, out = tmp_path / "whole.trec", tmp_path / "out.trec"
    Job(rerank, service, Path(first), *rest, "-o", whole)()
    job = Job(rerank, service, Path(first), *rest, "-o", out, "--errors", tmp_path / "errors")
    job(away=queries(0, 3, 5))
    assert len(read(tmp_path / "errors")) == 3
    assert job.retry(away=queries(3)).code == 3
    assert len(read(tmp_path / "errors")) == 1
    assert job.retry().code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert (tmp_path / "errors").read_bytes() == b""


@pytest.mark.slow
def test_parquet(rerank: Run, service: Service, tmp_path: Path, monkeypatch: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("rerank_cli.batch.parquet._PART_ROWS", 3)
    source = tmp_path / "in.parquet"
    pq.write_table(pa.Table.from_pylist([record(number) for number in range(10)]), source)
    sides: list[list[str | Path]] = [[], ["--errors", tmp_path / "errors"]]
    for side in sides:
        folders = [tmp_path / f"{name}{len(side)}.parquet" for name in ("whole", "failed")]
        Job(rerank, service, source, "-o", folders[0])()
        job = Job(rerank, service, source, "-o", folders[1], *side)
        job(away=queries(1, 7, 8, 9))
        service.take_queries()
        outcome = job.retry()
        assert (outcome.code, service.take_queries()) == (0, queries(1, 7, 8, 9)), outcome.err
        names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
        assert names[0] == names[1]
        assert pq.read_table(folders[0]).equals(pq.read_table(folders[1]))
        assert other_files(tmp_path) == set()


@pytest.mark.slow
def test_what_was_not_done_yet_is_done_too(rerank: Run, service: Service, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(40)])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    Job(rerank, service, source, "-o", whole)()
    job = Job(rerank, service, source, "-o", out)
    outcome = job(away=queries(2, *range(5, 40)))  # the last ones are so many that it gives up
    assert outcome.code == 3
    assert len(read(out)) == 5
    assert "ended after 5 records: --resume continues" in outcome.err
    service.take_queries()
    assert job.retry().code == 0
    assert service.take_queries() == queries(2, *range(5, 40))
    assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_retry_that_ends_early_goes_on(rerank: Run, service: Service, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(60)])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    Job(rerank, service, source, "-o", whole)()
    job = Job(rerank, service, source, "-o", out)
    failed = [*range(0, 50, 2)]
    assert job(away=queries(*failed)).code == 3
    before = out.read_bytes()
    service.fault = Status(401)  # which ends a job at once
    assert job.retry(away=queries(30)).code == 3
    assert out.read_bytes() == before
    assert other_files(tmp_path) == {"out.jsonl.retry", "out.jsonl.retry.journal"}
    service.take_queries()
    assert job("--resume").code == 0  # as this is what was interrupted
    assert {f"garden {number}" for number in range(0, 20, 2)}.isdisjoint(service.take_queries())
    assert out.read_bytes() == whole.read_bytes()
    assert other_files(tmp_path) == set()


@pytest.mark.slow
def test_a_service_that_is_still_away_ends_a_retry_soon(
    rerank: Run, service: Service, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(100)])
    job = Job(rerank, service, source, "-o", tmp_path / "out.jsonl")
    away = queries(*range(1, 100, 2))
    job(away=away)
    service.take_queries()
    outcome = job.retry(away=away)
    assert outcome.code == 3
    assert "records in a row" in outcome.err
    # What was done of the earlier run came between them: they are written.
    assert "--resume continues, and --retry-errors scores them again" in outcome.err
    assert len(service.take_queries()) < 40


@pytest.mark.parametrize(
    "number",
    [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)],
)
def test_a_retry_may_be_killed_while_its_files_are_put_in_place(
    number: int, rerank: Run, service: Service, source: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    Job(rerank, service, source, "-o", whole, "--errors", tmp_path / "none")()
    job = Job(rerank, service, source, "-o", out, "--errors", tmp_path / "errors")
    job(away=queries(1, 10))
    publish, count = publish_file, 0

    def break_off(new: Path, target: Path) -> None:
        nonlocal count
        if count == number:
            raise OutputError("killed")
        count += 1
        publish(new, target)

    monkeypatch.setattr(local, "publish_file", break_off)
    assert job.retry().code == 2
    monkeypatch.setattr(local, "publish_file", publish)
    service.take_queries()
    assert job("--resume").code == 3
    assert service.take_queries() == []
    assert out.read_bytes() == whole.read_bytes()
    assert (tmp_path / "errors").read_bytes() == (tmp_path / "none").read_bytes()
    assert other_files(tmp_path) == set()


def test_another_input_is_refused(
    rerank: Run, service: Service, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    job = Job(rerank, service, source, "-o", out)
    job(away=queries(1))
    before = out.read_bytes()
    write(source, rows(13))
    outcome = job.retry()
    assert (outcome.code, out.read_bytes()) == (2, before)
    assert "this is not the job that was begun there, in the input" in outcome.err
    assert other_files(tmp_path) == set()


def test_another_stream_is_refused(rerank: Run, service: Service, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    lines = [f"{json.dumps(record(number))}\n".encode() for number in range(6)]
    service.away = queries(1)
    arguments = ("batch", "-", "-o", str(out), *model_options(service.server), "--retries", "0")
    rerank(*arguments, stdin=b"".join(lines))
    before = out.read_bytes()
    service.away = ()
    again = (*arguments, "--resume", "--retry-errors")
    for other in ([lines[5], *lines[1:]], lines[:3], []):
        outcome = rerank(*again, stdin=b"".join(other))
        assert (outcome.code, out.read_bytes()) == (2, before)
        assert "the input does not begin with the records that are done" in outcome.err
    outcome = rerank(*again, stdin=b"".join(lines))
    assert outcome.code == 0, outcome.err
    assert all("results" in line for line in read(out))


def test_an_output_with_more_or_less_than_was_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"{}\n{}\n")
    lines = EarlierLines((path, 6))
    for number in (1, 2):
        lines.take(Original(b"", place={"line": number}))
    lines.check_end()
    with pytest.raises(InputError, match="is shorter than what the job has written"):
        lines.take(Original(b"", place={"line": 3}))
    lines.close()
    lines = EarlierLines((path, 6))
    with pytest.raises(InputError, match="is longer than what the job has written"):
        lines.check_end()
    lines.close()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-o", "OUT", "--retry-errors"], "--retry-errors continues OUT"),
        (["--resume", "--retry-errors"], "--resume continues a file"),
        (
            ["-o", "OUT", "--errors", "/dev/stderr", "--resume", "--retry-errors"],
            "--retry-errors needs the error records",
        ),
        (
            ["-o", "OUT", "--resume", "--retry-errors", "--engine", "ray"],
            "--retry-errors is for services",
        ),
    ],
)
def test_what_cannot_be_done_again_is_refused(
    more: list[str], words: str, rerank: Run, source: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out.jsonl")
    outcome = rerank("batch", str(source), *(out if part == "OUT" else part for part in more))
    assert outcome.code == 2
    assert words in outcome.err


def test_a_run_without_a_file_of_errors_is_refused(
    rerank: Run, service: Service, tmp_path: Path
) -> None:
    first, *rest = write_run(tmp_path)
    job = Job(rerank, service, Path(first), *rest, "-o", tmp_path / "out.trec")
    assert "--retry-errors" not in job(away=queries(1)).err
    outcome = job.retry()
    assert (outcome.code, "needs the error records" in outcome.err) == (2, True)


def test_a_job_whose_server_was_never_reached_can_go_on(
    rerank: Run, source: Path, tmp_path: Path
) -> None:
    with serve("openai-like") as dead_server:
        url = dead_server.url
    out = tmp_path / "out.jsonl"
    arguments = ("batch", str(source), "-o", str(out), "-m", "openai-like/m")
    outcome = rerank(*arguments, "--base-url", url, "--retries", "0")
    assert (outcome.code, "ended after 0 records: --resume continues" in outcome.err) == (3, True)
    with serve("openai-like", port=int(url.rpartition(":")[2])):
        assert rerank(*arguments, "--base-url", url, "--resume").code == 3  # one has no query
    assert sum("results" in json.loads(line) for line in out.read_text().splitlines() if line) == 11


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_whatever_fails_and_however_often_the_end_is_the_same(
    count: int, rerank: Run, service: Service, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", rows(19))
    whole = tmp_path / "whole.jsonl"
    Job(rerank, service, source, "-o", whole)()
    draw = random.Random(20)
    for number in range(count):
        out = tmp_path / f"out{number}.jsonl"
        job = Job(rerank, service, source, "-o", out)
        share = draw.random()
        away = {f"garden {n}" for n in range(19) if draw.random() < share}
        job(away=away)
        while away:
            away = {query for query in away if draw.random() < 0.5}
            job.retry(away=away)
        job.retry()
        assert out.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_a_retry_that_is_killed_twice_scores_little_again(
    rerank: Run, service: Service, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", [record(number) for number in range(300)])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    Job(rerank, service, source, "-o", whole)()
    job = Job(rerank, service, source, "-o", out)
    failed = queries(*range(0, 300, 2))
    # Errors in a row would end the job: those between them succeed.
    assert job(away=failed).code == 3
    service.take_queries()
    service.away, service.delay = (), 0.02
    url = model_options(service.server)
    options = (*url, "--retries", "0", "--concurrency", "2")
    for _ in range(2):
        before = service.server.count
        process = start_batch(source, "-o", out, *options, "--resume", "--retry-errors")
        while service.server.count < before + 40:
            time.sleep(0.01)
        process.kill()
        process.communicate()
    service.delay = 0.0
    assert job.retry().code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert len(service.take_queries()) < len(failed) + 60
