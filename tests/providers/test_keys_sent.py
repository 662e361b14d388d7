"""Keys: where each one goes and where not, and that nothing ever shows one."""

import json
from pathlib import Path

import httpx2
import pytest

from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.client import Client
from rerank_cli.providers.endpoints import Address
from rerank_cli.providers.keys import store_key
from tests.conftest import Outcome, Run, process
from tests.support.batches import write
from tests.support.loopback import Body, Fault, Redirect, Server, Status, first, serve
from tests.support.remote_commands import KEY, documents, model_options

HEAVY = {"httpx2", "httpcore2", "h2", "ssl"}


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COHERE_API_KEY", "CO_API_KEY", "SILICONFLOW_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def run_command(rerank: Run, server: Server, *more: str, model: str = "siliconflow/m") -> Outcome:
    return rerank(*model_options(server, model), "refund", *documents(), *more)


def authorizations(server: Server) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


def test_the_variable_comes_before_what_is_stored(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("siliconflow") as server:
        assert run_command(rerank, server).code == 2
        assert rerank("config", "set-key", "siliconflow", stdin=b"stored\n").code == 0
        run_command(rerank, server)
        monkeypatch.setenv("SILICONFLOW_API_KEY", " typed \n")
        run_command(rerank, server)
    assert authorizations(server) == ["Bearer stored", "Bearer typed"]


def test_of_two_variables_the_first_that_is_set_counts(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("cohere-v2") as server:
        monkeypatch.setenv("COHERE_API_KEY", "second")
        run_command(rerank, server, model="cohere/m")
        monkeypatch.setenv("CO_API_KEY", "first")
        run_command(rerank, server, model="cohere/m")
    assert authorizations(server) == ["Bearer second", "Bearer first"]


def test_those_of_one_account_share_a_key(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    store_key("dashscope", "stored")
    with serve("dashscope-native") as server:
        assert run_command(rerank, server, model="dashscope-native/m").code == 0
    assert authorizations(server) == ["Bearer stored"]


def test_a_header_that_is_typed_takes_the_place_of_the_key(rerank: Run) -> None:
    with serve("siliconflow") as server:
        outcome = run_command(
            rerank, server, "--header", "authorization: Basic abc", "--header", "ACCEPT: x"
        )
    assert (outcome.code, outcome.err) == (0, "")
    (request,) = server.requests
    assert request.headers["authorization"] == "Basic abc"
    assert request.headers["accept"] == "x"


def test_a_key_that_cannot_be_one_is_not_sent_and_not_shown(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("two words", "line\nbreak", "schlüssel", "\x7f"):
        monkeypatch.setenv("SILICONFLOW_API_KEY", key)
        with serve("siliconflow") as server:
            outcome = run_command(rerank, server)
        assert (outcome.code, server.count) == (2, 0)
        assert "the key for siliconflow in SILICONFLOW_API_KEY has spaces, line" in outcome.err
        assert key not in outcome.err


def test_a_key_with_its_scheme_before_it_is_told(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", "bearer key-1")
    outcome = rerank("-m", "siliconflow/m", "q", "-d", "a")
    assert (outcome.code, outcome.out) == (2, "")
    assert "hint: leave out Bearer" in outcome.err


def test_a_refused_key_is_named_by_its_place(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server("cohere-v2", key="another") as server:
        line = ("-m", "cohere/m", "q", "-d", "a", "--base-url", server.url)
        header = rerank(*line, "--header", "Authorization: Bearer x").err
        monkeypatch.setenv("COHERE_API_KEY", "x")
        variable = rerank(*line).err
        monkeypatch.delenv("COHERE_API_KEY")
        store_key("cohere", "x")
        message = rerank(*line).err
    assert "check the key: --header 'Authorization: …', or rerank" in header
    assert "check the key: COHERE_API_KEY, or rerank" in variable
    assert "check the key: rerank config set-key cohere" in message


ECHOES = [
    Status(401, {"message": f"invalid token {KEY}"}),
    Status(400, {"error": {"message": "x" * 279 + f" {KEY}"}}),
    Status(400, {"error": {"message": "x" * 215 + f" {KEY}", "code": "key"}}),
    Status(403, f"<html><title>{KEY}</title></html>".encode()),
    Status(503, {"detail": [{"loc": [KEY], "msg": KEY}]}, {"Retry-After": "999"}),
    Status(500, f"Bearer {KEY}".encode(), {"x-request-id": KEY}),
    Status(413, KEY.encode()),
    Body({"error": KEY}),
    Body({KEY: 1}),
    Body("x" * 100 + KEY),
    Body(b"x" * 108 + KEY.encode()),
    Body({"results": [{"index": KEY, "relevance_score": 1}]}),
    Body({"results": [{"index": 0, "relevance_score": KEY}]}),
    Body({"results": [{"index": 0, "relevance_score": 1}], "warnings": [KEY], "id": KEY}),
    Redirect(f"http://127.0.0.1:1/{KEY}?k={KEY}"),
    Redirect(f"/{KEY}", code=302),
    Redirect(f"http://[{KEY}/"),
]


@pytest.mark.parametrize("fault", ECHOES, ids=lambda fault: str(fault)[:60])
def test_what_a_server_repeats_is_not_shown(
    fault: Fault, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", KEY)
    with serve("siliconflow", faults=fault) as server:
        outcome = run_command(rerank, server, "-v", "--json", "--retries", "0")
    assert server.count
    assert outcome.code in (0, 3)
    for end in range(6, len(KEY) + 1):
        assert KEY[:end] not in outcome.out + outcome.err


@pytest.mark.parametrize(
    "header",
    [f"Authorization: Token {KEY}", f"X-Api-Key: {KEY}", f"cookie:{KEY}", f"my-secret: a {KEY}"],
)
def test_secrets_of_typed_headers_are_not_shown(
    header: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", "other")
    with serve("siliconflow", faults=Status(400, {"message": f"what is {KEY}?"})) as server:
        outcome = run_command(rerank, server, "--header", header, "-v")
    assert "what is [secret]?" in outcome.err
    assert KEY not in outcome.err
    assert rerank("-m", "tei/x", "--header", f"Authorization {KEY}", "q", "-d", "x").code == 2
    outcome = rerank("-m", "tei/x", "--header", f"Authorization\x07: {KEY}", "q", "-d", "x")
    assert outcome.code == 2
    assert KEY not in outcome.err


@pytest.mark.parametrize("header", ["Authorization:", "X-Key: ", "X-Team:"])
def test_a_header_may_be_empty(header: str, rerank: Run) -> None:
    with serve("openai-like", faults=first(1, Status(400, {"message": "no"}))) as server:
        outcome = run_command(rerank, server, "--header", header, model="openai-like/m")
        assert outcome.err == "rerank: openai-like: answered 400: no\n"
        assert run_command(rerank, server, "--header", header, model="openai-like/m").code == 0


def test_a_secret_in_a_url_is_sent_and_not_shown(rerank: Run) -> None:
    with serve("openai-like", faults=first(1, Status(404))) as server:
        url = f"{server.url}/v1/rerank?api_key={KEY}"
        for more in ([], ["-v"], ["--dry-run", "-v"]):
            outcome = rerank("-m", "openai-like/m", "--base-url", url, "q", "-d", "x", *more)
            assert KEY not in outcome.out + outcome.err
    assert [request.query for request in server.requests] == [{"api_key": KEY}] * 2
    outcome = rerank("-m", "tei/m", "--base-url", f"http://me:{KEY}@127.0.0.1:1", "q", "-d", "x")
    assert outcome.code == 2
    assert KEY not in outcome.err


def test_secrets_are_not_shown_however_they_are_written(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "abcDEF/ghi+JKL"
    monkeypatch.setenv("SILICONFLOW_API_KEY", key)
    echo = b'{"odd": "bad key abcDEF\\/ghi+JKL"}'
    with serve("siliconflow", faults=Status(401, echo)) as server:
        assert "ghi+JKL" not in run_command(rerank, server).err
    (home / "providers.toml").write_text(
        f'[mine]\nlike = "openai-like"\nheaders = {{ X-Api-Key = "{KEY}" }}\n'
    )
    with serve("openai-like", faults=Status(401, {"message": f"bad {KEY}"})) as server:
        assert KEY not in run_command(rerank, server, model="mine/m").err
        outcome = rerank(
            "-m", "openai-like/m", "--base-url", f"{server.url}?k={KEY}", "q", "-d", "x"
        )
        assert outcome.code == 3
        assert KEY not in outcome.err
    outcome = rerank("-m", "tei/m", "--header", f"Authorization Bearer {KEY}:abc", "q", "-d", "x")
    assert outcome.code == 2
    assert KEY not in outcome.err


def test_what_is_short_or_no_secret_is_left_as_it_is(rerank: Run) -> None:
    with serve("openai-like", faults=Status(401, {"message": "limit 1 of 401"})) as server:
        for header in ("X-Max-Tokens: 1", "X-Token: 1", "X-Author: limit 1 of 401"):
            outcome = run_command(rerank, server, "--header", header, model="openai-like/m")
            assert "answered 401: limit 1 of 401" in outcome.err


def test_a_bug_shows_no_key(rerank: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(answer: httpx2.Response) -> None:
        request = answer.request
        assert KEY in request.headers["Authorization"]
        raise RuntimeError(f"with {request}, {request.headers}, {client}")

    address = Address("some", "http://host", {"Authorization": KEY}, [KEY])
    client = Client(address, RemoteOptions())
    monkeypatch.setenv("SILICONFLOW_API_KEY", KEY)
    monkeypatch.setattr(httpx2.Response, "iter_raw", fail)
    with serve("siliconflow") as server:
        outcome = run_command(rerank, server)
    assert outcome.code == 70
    assert "RuntimeError: with <Request" in outcome.err
    assert "Traceback" in outcome.err
    assert KEY not in outcome.err
    assert KEY not in repr(address)


def test_a_rehearsal_needs_no_key_and_shows_none(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve("siliconflow") as server:
        assert run_command(rerank, server, "--dry-run").code == 0
        monkeypatch.setenv("SILICONFLOW_API_KEY", KEY)
        for more in (["-v"], ["--json"], ["--json", "-v"]):
            outcome = run_command(rerank, server, "--dry-run", *more)
            assert (outcome.code, outcome.err) == (0, "")
            assert KEY not in outcome.out
    assert server.count == 0


def test_a_key_is_for_its_own_host_and_not_for_one_that_only_speaks_alike(
    rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", KEY)
    store_key("cohere", KEY)
    with serve("cohere-v2") as server:
        own = home / "providers.toml"
        own.write_text(f'[mine]\nlike = "cohere"\nurl = "{server.url}"\n')
        outcome = rerank("-m", "mine/m", "refund", *documents())
        assert (outcome.code, server.count) == (2, 0)
        assert "mine needs a key" in outcome.err
        assert "rerank config set-key mine" in outcome.err
        store_key("mine", "own")
        assert rerank("-m", "mine/m", "refund", *documents()).code == 0
        own.write_text(f'[mine]\nlike = "cohere"\nurl = "{server.url}"\nkeyless = true\n')
        assert rerank("-m", "mine/m", "refund", *documents()).code == 0
        own.write_text(f'[mine]\nlike = "cohere"\nurl = "{server.url}"\nkey = ["CO_API_KEY"]\n')
        assert rerank("-m", "mine/m", "refund", *documents()).code == 0
    assert authorizations(server) == ["Bearer own", "Bearer own", f"Bearer {KEY}"]


def test_where_there_is_no_key_nothing_is_imported_that_sends() -> None:
    code = (
        "import sys; from rerank_cli.cli import app; code = app.run(sys.argv[1:]);"
        "print(code, *sys.modules)"
    )
    outcome = process("-m", "cohere/rerank-v3.5", "q", "-d", "x", python=["-c", code])
    thread_count, *modules = outcome.stdout.decode().split()
    assert thread_count == "2"
    assert b"CO_API_KEY" in outcome.stderr
    assert HEAVY & set(modules) == set()


@pytest.mark.parametrize("code", [307, 308])
def test_a_redirect_on_the_same_server_is_followed(code: int, rerank: Run) -> None:
    with serve("openai-like", faults=first(1, Redirect("/v1/rerank?again=1", code))) as server:
        outcome = run_command(rerank, server, model="openai-like/m")
    assert (outcome.code, outcome.err) == (0, "")
    assert [request.body for request in server.requests] == [server.requests[0].body] * 2
    assert json.loads(server.requests[1].body)["query"] == "refund"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_another_server_sees_neither_the_key_nor_the_text(
    code: int, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SILICONFLOW_API_KEY", KEY)
    with serve("siliconflow") as other:
        with serve("siliconflow", faults=Redirect(f"{other.url}/v1/rerank", code)) as server:
            outcome = run_command(rerank, server)
        assert (outcome.code, outcome.out) == (3, "")
        assert f"redirects to another server, {other.url}/v1/rerank" in outcome.err
        assert f"--base-url {other.url}/v1/rerank" in outcome.err
        assert (other.count, other.connections, server.count) == (0, 0, 1)


@pytest.mark.parametrize("code", [301, 302, 303])
def test_a_redirect_that_drops_the_request_is_an_error(code: int, rerank: Run) -> None:
    with serve("openai-like", faults=Redirect("/v1/rerank/", code)) as server:
        outcome = run_command(rerank, server, model="openai-like/m")
    assert (outcome.code, server.count) == (3, 1)
    assert f"({code}), which drops the request" in outcome.err


def test_redirects_have_an_end(rerank: Run) -> None:
    with serve("openai-like", faults=Redirect("/v1/rerank")) as server:
        outcome = run_command(rerank, server, model="openai-like/m")
    assert (outcome.code, server.count) == (3, 4)
    assert "redirects again and again" in outcome.err


@pytest.mark.parametrize("target", ["http://[", "http://host:port/", "//:0", "\x00", "javascript:"])
def test_a_redirect_to_nowhere_is_an_error(target: str, rerank: Run) -> None:
    with serve("openai-like", faults=Redirect(target)) as server:
        outcome = run_command(rerank, server, "--retries", "0", model="openai-like/m")
    assert (outcome.code, outcome.out, server.count) == (3, "", 1)


def test_no_file_of_a_batch_has_a_secret(
    rerank: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever on the command line it stands; and another key is the same job."""
    monkeypatch.setenv("SILICONFLOW_API_KEY", KEY)
    records = [{"id": n, "query": "refund", "documents": ["a", "b"]} for n in range(3)]
    source, out = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    report, errors = tmp_path / "report.json", tmp_path / "errors.jsonl"

    def command_line(server: Server, key: str) -> list[str]:
        options = ["--set", f"api_key={key}", "--set", f'more={{"token": "{key}", "x": ["{key}"]}}']
        options += ["--metadata", f"secret={key}", "--header", f"X-Api-Key: {key}", "--lenient"]
        options += ["-m", "openai-like/m", "--base-url", f"{server.url}?key={key}&version=1"]
        files = ["-o", str(out), "--report", str(report), "--errors", str(errors)]
        return ["batch", str(source), *files, *options]

    with serve("openai-like") as server:
        outcome = rerank(*command_line(server, KEY))
        assert outcome.code == 3, outcome.err  # this server knows no such field
        assert server.requests[0].query["key"] == KEY
        assert server.requests[0].json["api_key"] == KEY
        texts = [path.read_text() for path in tmp_path.iterdir()]
        assert len(texts) == 5
        others = [
            rerank(*command_line(server, KEY), "--resume", "--set", "more=1"),
            rerank(
                *command_line(server, KEY),
                "--resume",
                "--base-url",
                f"http://127.0.0.1:1/?key={KEY}",
            ),
            rerank(
                *command_line(server, KEY),
                "--resume",
                "--base-url",
                f"http://me:{KEY}@host/?k={KEY}",
            ),
        ]
        assert [other.code for other in others] == [2, 2, 2]
        output_texts = [text for other in (outcome, *others) for text in (other.out, other.err)]
        assert "base_url was" in others[1].err
        for text in [*texts, *output_texts]:
            assert KEY[:-2] not in text
        journal = json.loads((tmp_path / "out.jsonl.journal").read_text().splitlines()[0])
        assert journal["options"]["asked"][1]["api_key"] == "[secret]"
        # What only looks like a key may decide the scores: it is told apart by its hash.
        assert json.loads(report.read_text())["asked"]["model"]["base_url"].startswith(server.url)


def test_another_key_is_the_same_job(rerank: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"query": "refund", "documents": ["a"]}])
    line = ["batch", str(source), "-o", str(tmp_path / "out.jsonl"), "-m", "tei/m"]
    with serve("tei") as server:
        for more, code, resumed in (
            (["--base-url", f"{server.url}?key=first1"], 0, []),
            (["--base-url", f"{server.url}?key=second"], 0, ["--resume"]),
            (["--base-url", f"{server.url}?key=second&version=2"], 2, ["--resume"]),
        ):
            assert rerank(*line, *more, *resumed).code == code
        assert server.count == 1


@pytest.mark.parametrize(
    "url", [f"ftp://me:{KEY}@h/?k={KEY}", f"me:{KEY}@h?k={KEY}", f"h?k={KEY}#{KEY}", f"//{KEY}@"]
)
def test_a_url_that_cannot_be_one_is_shown_without_secrets(url: str, rerank: Run) -> None:
    outcome = rerank("-m", "tei/m", "--base-url", url, "q", "-d", "x")
    assert (outcome.code, KEY in outcome.err + outcome.out) == (2, False)


def test_a_dry_run_shows_no_secret_field(rerank: Run) -> None:
    for more in ([], ["--json"]):
        outcome = rerank(
            *("-m", "siliconflow/m", "--set", f"api_key={KEY}", "--dry-run", "-v"), "q", "-d", "x",
            *more,
        )  # fmt: skip
        assert outcome.code == 0
        assert KEY not in outcome.out + outcome.err
        assert "[secret]" in outcome.out
