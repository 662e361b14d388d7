"""Secrets that a server repeats, and passwords in URLs: in no spelling, form or place."""

import base64
import html
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rerank_cli.errors import RerankError
from rerank_cli.media import find_media, is_url, media_label
from rerank_cli.providers.bodies import Redactor, hide_in_lines, one_line, page_title
from rerank_cli.providers.endpoints import Address, parse_server_url, public_url
from rerank_cli.providers.failures import read_failure
from rerank_cli.providers.keys import (
    find_credentials,
    hide_named_secrets,
    public_base_url,
    query_secrets,
    redact_json,
    secrets_in,
)
from rerank_cli.providers.responses import field_names, read_request
from rerank_cli.providers.transport import find_proxy
from rerank_cli.terminal import hide_user
from tests.conftest import Run
from tests.support.loopback import Body, Fault, Status, serve

MARK = "Hunter2x"  # in each password: whatever is around it, it may not be seen
KEY = f'sk-{MARK}/c+9"x&y<Z_01'

# Forms of a URL with a user and a password, of which only the last two are right.
FORMS = [
    "{user}:{password}@host", "{user}:{password}%40host", "{user}:{password}%2540host",
    "//{user}:{password}@host", "http:{user}:{password}@host/v1", "http:/{user}:{password}@host",
    "http:\\\\{user}:{password}@host", "ftp://{user}:{password}@host", "HTTP://{user}:{password}@host:x",
    "http://{user}:{password}@[::1", "http://{user}:{password}@[::1]:x/", " http://{user}:{password}@host",
    "http://{user}:{password}@host:99999/v1?key={password}#{password}",
    "http://{user}:{password}\uff20host", "http://a@{user}:{password}@host", "{user}:{password}@",
    "http://{user}:{password}@host/v1/rerank?key={password}", "https://{user}:{password}@[::1]:80",
]  # fmt: skip
AROUND = st.text(st.characters(codec="utf-8"), max_size=6)
PASSWORDS = st.builds(
    lambda before, after: before + MARK + after,
    AROUND | st.sampled_from(["a@", "a:", "a/", "?", "#", "%", "[", "a b", "a\n", "\\", "1/a"]),
    AROUND | st.sampled_from(["@", ":", "/", "?", "#", " ", "%40", "\t"]),
)
USERS = st.text("abcXYZ019._-", min_size=1, max_size=6)


def is_ambiguous(password: str) -> bool:
    """Whether it may be a port and a path by every standard, with an @ that begins a part of it."""
    port, slash, _ = password.partition("/")
    return bool(slash) and not port.strip("0123456789") and len(port) <= 5 and password[-1] in "/\\"


@given(st.sampled_from(FORMS), USERS, PASSWORDS)
def test_no_password_of_a_url_is_shown(form: str, user: str, password: str) -> None:
    assume(not is_ambiguous(password))
    url = form.format(user=user, password=password)
    urls = [public_url(url), public_base_url(url) or ""]
    try:
        parse_server_url(url)
    except RerankError as error:
        urls += [str(error), error.hint or ""]
    for text in urls:
        assert MARK not in text


def check_commands(url: str, rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command shows the password of a URL, wherever it comes from."""
    monkeypatch.setenv("CO_API_KEY", "stored")
    ask = ("-m", "cohere/m", "q", "-d", "x", "--dry-run", "-v", "--json")
    commands = [(*ask, "--base-url", url), (*ask, "--image", url, "--lenient")]
    commands += [("config",), ("config", "--json"), ask]
    monkeypatch.setenv("RERANK_BASE_URL", url)
    entries = ""
    for key in ("url", "poll", "path"):
        base = "" if key == "url" else 'url = "http://127.0.0.1:9"\n'
        entries = f'[own]\nlike = "tei"\ntitle = "x"\n{base}{key} = {json.dumps(url)}\n'
        (home / "providers.toml").write_text(entries, encoding="utf-8")
        outcome = rerank("providers", "show", "own", "--json")
        assert MARK not in outcome.out + outcome.err
        assert outcome.code in (0, 2)
    (home / "providers.toml").unlink()
    for command in commands:
        outcome = rerank(*command)
        assert MARK not in outcome.out + outcome.err, command
        assert outcome.code in (0, 2), command


@pytest.mark.parametrize("form", [FORMS[5], FORMS[8], FORMS[-1]])
def test_no_command_shows_a_password_of_a_url(
    form: str, rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_commands(form.format(user="me", password=MARK), rerank, home, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "form"), [*enumerate(FORMS)], ids=FORMS)
def test_no_command_shows_any_of_many_passwords(
    number: int, form: str, rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two a form, each form with others."""
    passwords = (MARK, f"a@{MARK}", f"a/{MARK}", f"{MARK}@", f"12/{MARK}")
    for place in (number, number + 2):
        password = passwords[place % len(passwords)]
        check_commands(form.format(user="me", password=password), rerank, home, monkeypatch)


@pytest.mark.parametrize(
    ("url", "public_place"),
    [
        ("http://localhost:8080/@cf/baai/m", "http://localhost:8080/@cf/baai/m"),
        ("https://h/models/x@1:predict?a=b", "https://h/models/x@1:predict"),
        ("https://[::1]:80/v1#x", "https://[::1]:80/v1"),
        ("localhost:8080", "localhost:8080"),
        ("socks5://me:pw@h:1080", "socks5://h:1080"),
        ("https://me@h/v1", "https://h/v1"),
        (f"http://me:{MARK}", "http://me…"),
        (f"me:{MARK}", "me…"),
        ("ftp://h/x?to=a@b", "…"),
    ],
)
def test_the_place_of_a_server_is_shown(url: str, public_place: str) -> None:
    assert public_url(url) == public_place


@pytest.mark.parametrize(
    ("text", "public_text"),
    [
        ("img@2x.png", "img@2x.png"),
        ("C:\\a\\img@2x.png", "C:\\a\\img@2x.png"),
        ("/a:b/img@2x.png", "/a:b/img@2x.png"),
        ("https://h/img@2x.png?to=a@b", "https://h/img@2x.png?to=a@b"),
        ("https://me:pw@h/img.png?sign=1", "https://h/img.png?sign=1"),
    ],
)
def test_an_image_keeps_its_name(text: str, public_text: str) -> None:
    assert hide_user(text) == media_label(text) == public_text


def test_no_path_of_an_image_has_a_password() -> None:
    for form in FORMS:
        place = form.format(user="me", password=MARK)
        if not is_url(place):
            with pytest.raises(RerankError) as error_info:
                find_media(place.partition("?")[0])
            assert MARK not in str(error_info.value)


def test_a_url_in_any_message_has_no_password(rerank: Run) -> None:
    for arguments in (
        ("q", f"http://me:{MARK}@h/x.txt"),
        ("-m", f"https://me:{MARK}@h/m", "q", "-d", "x"),
        ("-m", "bm25", "q", "-d", "x", f"--runtime=http://me:{MARK}@h"),
    ):
        outcome = rerank(*arguments)
        assert outcome.code == 2
        assert MARK not in outcome.err


@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
def test_no_variable_for_the_network_is_shown(
    variable: str, rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for form in FORMS[:-2]:
        monkeypatch.setenv(variable, form.format(user="me", password=MARK))
        if variable == "HF_ENDPOINT":
            with suppress(RerankError):
                parse_server_url(os.environ[variable], may_have_user=True)
                continue  # it would be asked
            outcome = rerank("models", "pull", "hf:a/b")
            assert outcome.code == 2, outcome.err
            assert MARK not in outcome.err
            continue
        messages = ""
        try:
            proxy = find_proxy("https://h" if variable == "HTTPS_PROXY" else "http://h")
            messages = f"{proxy!r}{proxy.public_url}{proxy.hint}" if proxy else "no proxy"
        except RerankError as error:
            messages = f"{error}{error.hint}"
        assert messages
        assert MARK not in messages


def escape(text: str, form: str) -> str:
    return "".join(form.format(ord(character)) for character in text)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "capitals": str.upper,
    "small": str.lower,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text))[1:-1],
    "slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "\\u": lambda text: escape(text, "\\u{:04x}"),
    "\\U in JSON": lambda text: escape(text, "\\\\u{:04X}"),
    "\\x": lambda text: escape(text, "\\x{:02x}"),
    "some \\u": lambda text: text[:3] + escape(text[3:6], "\\u{:04x}") + text[6:],
    "URL": lambda text: quote(text, safe=""),
    "URL in small letters": lambda text: escape(text, "%{:02x}"),
    "URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "form": quote_plus,
    "HTML": html.escape,
    "HTML in HTML": lambda text: html.escape(html.escape(text)),
    "HTML numbers": lambda text: escape(text, "&#{};"),
    "HTML digits": lambda text: escape(text, "&#x{:X};"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"me:{text}".encode()).decode(),
    "base64 of another": lambda text: base64.urlsafe_b64encode(f"a {text}.".encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "lines": "\n".join,
    "spaces": " ".join,
    "zeros": "\0".join,
    "pictures": "\u2400".join,
    "not seen": "\u200b".join,
    "Bearer": lambda text: f"Bearer {text}",
}


def hides(text: str, secret: str) -> bool:
    """Whether no more than three of a secret's characters stand beside each other in a text."""
    plain = "".join(character for character in text if character.isprintable())
    plain = plain.replace(" ", "").replace("\u2400", "").casefold()
    return not any(secret[i : i + 5].casefold() in plain for i in range(len(secret) - 4))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_is_hidden(spelling: str) -> None:
    redact = Redactor([KEY])
    spelled_key = SPELLINGS[spelling](KEY)
    for text in (
        spelled_key,
        f"no {spelled_key} here",
        f"{spelled_key}{spelled_key}",
        f"%{spelled_key}\\",
    ):
        redacted_text = redact(text)
        assert "[secret]" in redacted_text
        assert spelled_key[2:12] not in redacted_text
        assert hides(html.unescape(redacted_text), KEY)
    assert redact(f"a{redact('b')}c") == "abc"


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=10, max_size=40)


@given(SECRETS, st.sampled_from([*SPELLINGS]), st.integers(0, 400), st.text(max_size=20))
@example("0000000001", "\\u", 285, "")
@example("sk-Ab3dEf9hIjKlMnOpQr", "base64", 285, "")
@example("sk-Ab3dEf9hIjKlMnOpQr", "hexadecimal", 285, "")
def test_no_line_has_a_part_of_a_secret(
    secret: str, spelling: str, before: int, after: str
) -> None:
    """Wherever a line is cut: three characters may be left, however long their spelling is."""
    spelled_secret = SPELLINGS[spelling](secret).replace(" ", "")
    first = SPELLINGS[spelling](secret[:4]).replace(" ", "").rstrip("=")
    start = spelled_secret[: max(8, len(first))]
    assume("base64" not in spelling or len(secret) >= 12)
    with hide_in_lines(Redactor([secret])):
        for limit in (40, 120, 300):
            text = "x" * before + " " * before * 20 + SPELLINGS[spelling](secret) + after
            rest = one_line(text, limit).replace("[secret]", "").replace("x", "").replace(" ", "")
            assert start not in rest or len(set(spelled_secret)) < 5


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=12), max_size=3))
def test_any_text_can_be_redacted(text: str, secrets: list[str]) -> None:
    redact = Redactor(secrets)
    assert isinstance(redact(text, is_cut=True), str)
    assert Redactor([])(text) == text
    for secret in secrets:
        if len(secret.strip()) >= 6 and secret.isascii() and "secre" not in secret:
            assert secret.strip() not in redact(f"a {secret} b")


def test_ordinary_words_stay() -> None:
    redact = Redactor(["key", "sk-0123456789"])
    assert redact("a monkey has no key...") == "a monkey has no [secret]..."
    assert redact("sk-0123… sk- and sk...") == "[secret]… sk- and sk..."


def test_a_long_text_is_searched_too() -> None:
    text = "some words of a document. " * 10_000
    redact = Redactor([KEY])
    assert redact(text) is text
    assert redact(text + KEY) == f"{text}[secret]"
    assert KEY not in redact(text + quote(KEY))


def test_a_title_with_tags_in_it_is_hidden() -> None:
    page = f"<html><title>no {KEY[:6]}<b>{html.escape(KEY[6:])}</b></title></html>".encode()
    with hide_in_lines(Redactor([KEY])):
        assert page_title(page) == "no [secret]"
        assert KEY[:6] not in read_failure(403, {}, page).message


def echoes(spelled_key: str) -> list[Fault]:
    """Answers that repeat something in each place that is shown."""
    results = [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]
    safe = spelled_key.encode("unicode_escape").decode()  # a header has one line
    good = {
        "results": results, "id": spelled_key, "model": spelled_key, "provider": spelled_key,
        "meta": {"warnings": [spelled_key]}, "usage": {spelled_key: 3, "total_tokens": 3},
        spelled_key: {spelled_key: [{spelled_key: 1}]},
    }  # fmt: skip
    headers = {"x-request-id": safe, "x-api-warning": safe, "x-litellm-model-id": safe}
    return [
        Status(200, good, headers),
        Status(401, {"error": {"message": f"bad {spelled_key}", "code": spelled_key}}, headers),
        Status(422, {"detail": [{"loc": ["body", spelled_key], "msg": spelled_key}]}),
        Status(500, f"<html><title>{spelled_key}</title>".encode()),
        Status(307, b"", {"location": f"http://elsewhere/{'x' * 280}{safe}?{safe}"}),
        Status(307, b"", {"location": f"http://[{safe}/"}),
        Status(400, b"x" * 250 + spelled_key.encode()),
        Body(b'{"results": [' + spelled_key.encode()),
        Body({"results": [{"index": spelled_key, "relevance_score": 1}]}),
        Body({"results": [], spelled_key: 1}),
    ]


def check_echoes(
    spelling: str, faults: Sequence[int], rerank: Run, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Nothing that a command writes has a key that the server repeats."""
    key = f"sk-{MARK}/c+9x&y<Z_01"
    monkeypatch.setenv("SILICONFLOW_API_KEY", key)
    spelled_key = SPELLINGS[spelling](key)
    (folder / "in.jsonl").write_text('{"query": "q", "documents": ["a", "b"]}\n')
    for number in faults:
        fault = echoes(spelled_key)[number]
        with serve("siliconflow", faults=fault) as server:
            ask = ("-m", "siliconflow/m", "--base-url", server.url, "--retries", "0")
            runs = [
                rerank(*ask, "q", "-d", "a", "-d", "b", "--json", "-v"),
                rerank("providers", "check", "siliconflow", "--base-url", server.url, "--json"),
                rerank("batch", str(folder / "in.jsonl"), "-o", str(folder / "out"), *ask, "-v"),
            ]
        texts = [outcome.out + outcome.err for outcome in runs]
        for path in [path for path in folder.iterdir() if path.name != "in.jsonl"]:
            texts.append(path.read_text(encoding="utf-8"))
            path.unlink()
        for text in texts:
            assert hides(text, key), fault
            assert spelled_key[:12] not in text, fault
        assert all(outcome.code in (0, 3) for outcome in runs), fault


@pytest.mark.parametrize(("spelling", "fault"), [("some \\u", 0), ("URL", 1), ("lines", 4)])
def test_a_server_that_repeats_the_key(
    spelling: str, fault: int, rerank: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_echoes(spelling, [fault], rerank, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_server_that_repeats_the_key_in_any_way(
    spelling: str, rerank: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_echoes(spelling, range(len(echoes(""))), rerank, monkeypatch, tmp_path)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_read_of_an_answer_has_no_key(spelling: str) -> None:
    spelled_key = SPELLINGS[spelling](KEY)
    with hide_in_lines(Redactor([KEY])):
        for fault in echoes(spelled_key):
            if not isinstance(fault, Status):
                continue
            raw = fault.body if isinstance(fault.body, bytes) else json.dumps(fault.body).encode()
            message = repr(read_failure(fault.code, fault.headers, raw))
            if isinstance(fault.body, dict):
                message += f"{field_names(fault.body)}{read_request(fault.body, fault.headers)}"
            assert hides(message, KEY)
            assert spelled_key[:12] not in message


def test_a_proxy_that_repeats_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{quote(KEY, safe='')}@127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    proxy = find_proxy("http://h")
    assert proxy is not None
    redact = Redactor(proxy.secrets)
    credentials = base64.b64encode(f"me:{KEY}".encode()).decode()
    assert (
        redact(f"{KEY}, {quote(KEY)}, Basic {credentials}") == "[secret], [secret], Basic [secret]"
    )


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (("X-Custom", f"Bearer {MARK}"), MARK),
        (("X-Custom", f"basic {base64.b64encode(f'me:{MARK}'.encode()).decode()}"), MARK),
        (("Cookie", f"a={MARK}; b=1"), MARK),
        (("X-Passwd", MARK), MARK),
    ],
)
def test_secrets_of_headers(header: tuple[str, str], secret: str) -> None:
    table = {"name": "n", "account": "n", "authorization": "Authorization", "keyless": True}
    credentials = find_credentials(table, dict([header]))
    assert secret in credentials.secrets


def test_secrets_of_fields_and_urls() -> None:
    fields = {"auth.inner": {"a": [MARK]}, "x.api_key.value": f"{MARK}1", "top_k": "ordinary"}
    assert [*secrets_in(fields)] == [MARK, f"{MARK}1"]
    assert query_secrets(f"http://h?{MARK}&a=1&b={MARK}2") == [MARK, f"{MARK}2"]
    address = Address("p", "http://h", {}, secrets=["12345678"])
    assert redact_json({"a": [12345678, 1.5, True, None]}, address.redact) == {
        "a": ["[secret]", 1.5, True, None]
    }
    assert hide_named_secrets({"X-Token": "a", "b": [{"c.key": "d"}]}) == {
        "X-Token": "[secret]", "b": [{"c.key": "[secret]"}],
    }  # fmt: skip


def test_a_number_that_is_a_secret_leaves_a_dry_run_in_json(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CO_API_KEY", "stored")
    outcome = rerank(
        "-m", "cohere/m", "q", "-d", "x", "--dry-run", "-v", "--json", "--set", "api_key=12345678"
    )
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["first_request"]["api_key"] == "[secret]"


@pytest.mark.parametrize("option", ["--set", "--metadata"])
@pytest.mark.parametrize("text", [f"api_key:{MARK}", MARK, f"={MARK}", f"a..b={MARK}"])
def test_an_option_that_is_wrong_is_not_repeated(option: str, text: str, rerank: Run) -> None:
    outcome = rerank("-m", "tei/x", "q", "-d", "x", option, text)
    assert outcome.code == 2
    assert MARK not in outcome.err
    assert "not KEY=VALUE" in outcome.err


def test_an_entry_of_ones_own_is_shown_without_secrets(rerank: Run, home: Path) -> None:
    (home / "providers.toml").write_text(
        f'[mine]\nlike = "tei"\nurl = "http://127.0.0.1:9?key={MARK}"\n'
        f'headers = {{ X-Api-Key = "{MARK}" }}\n'
        f'[mine.request.body]\nquery = "$query"\ntexts = "$documents"\napi_key = "{MARK}"\n'
    )
    for more in ([], ["--json"], ["--toml"]):
        outcome = rerank("providers", "show", "mine", *more)
        assert outcome.code == 0, outcome.err
        assert MARK not in outcome.out
