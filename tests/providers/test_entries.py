"""Entries of providers: all that ship are valid, what is wrong in one's own is said, and what
`providers show` writes is the entry again."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.errors import ConfigError
from rerank_cli.providers.catalogue import (
    account_of,
    find_provider,
    find_rules,
    provider_names,
    user_file,
)
from rerank_cli.providers.schema import REQUEST_OPTIONS, Provider, placeholders
from tests.conftest import ROOT, Run
from tests.support.loopback import serve

pytestmark = pytest.mark.usefixtures("home")


def models_of(provider: str) -> list[str]:
    """Names of models that between them meet every rule of a provider, and some that meet none."""
    patterns = [pattern for rule in find_rules(provider) for pattern in rule["names"]]
    names = [pattern.replace("*", "x") for pattern in patterns]
    return [find_provider(provider).example, "another", *names, *map(str.upper, names)]


def facts_of(provider: Provider) -> dict[str, Any]:
    return provider.model_dump(exclude={"name", "aliases"})


@pytest.mark.parametrize("name", provider_names())
def test_every_entry_is_valid_for_every_model(name: str) -> None:
    for model in models_of(name):
        provider = find_provider(name, model)
        assert provider.docs.startswith("https://")
        assert provider.source
        assert provider.defaults.keys() <= REQUEST_OPTIONS.keys()


def test_a_list_in_json_has_numbers(rerank: Run) -> None:
    rows_by_name = {
        row["name"]: row for row in json.loads(rerank("providers", "list", "--json").out)
    }
    assert rows_by_name["cohere"]["documents"] == 1000
    assert rows_by_name["jina"]["documents"] is None


def test_the_endpoint_of_a_model_has_its_name(rerank: Run) -> None:
    def show_provider(name: str) -> str:
        return rerank("providers", "show", name).out

    assert "/nvidia/$slug/reranking\n" in show_provider("nvidia")
    assert "/nvidia/rerank-1_5b/reranking\n" in show_provider("nvidia/nvidia/rerank-1.5b")


def test_the_options_of_entries_are_those_of_the_command_line(rerank: Run) -> None:
    option_names = set(re.findall(r"--([a-z-]+)", rerank("--help").out))
    assert set(REQUEST_OPTIONS) <= option_names


@pytest.mark.parametrize("name", provider_names())
def test_what_is_shown_as_toml_is_the_entry_again_with_its_rules(name: str, rerank: Run) -> None:
    expected = {model: facts_of(find_provider(name, model)) for model in models_of(name)}
    toml_text = rerank("providers", "show", name, "--toml").out
    assert (
        json.loads(rerank("providers", "show", name, "--json").out)
        == tomllib.loads(toml_text)[name]
    )
    for own in ("mine", name):  # beside the one that ships, and over it
        text = re.sub(
            rf"^(\[\[?){re.escape(name)}\b", rf"\g<1>{own}", toml_text, flags=re.MULTILINE
        )
        user_file().write_text(text, encoding="utf-8")
        for model, facts in expected.items():
            assert facts_of(find_provider(own, model)) == facts


def test_a_model_is_shown_as_its_rules_make_it(rerank: Run) -> None:
    show_provider = json.loads(
        rerank("providers", "show", "pinecone/Cohere-Rerank-3.5", "--json").out
    )
    assert show_provider["limits"] == {"documents": 200, "pair": 40_000}
    assert "models" not in show_provider


def test_what_differs_between_models_is_shown(rerank: Run) -> None:
    text = rerank("providers", "show", "pinecone").out
    block = text[text.index("cohere-rerank-3.5") :]
    for message in (
        r"limit: documents in a request +200\n",
        r"limit: tokens of query and document +40,000\n",
        r"--max-chunks +parameters\.max_chunks_per_doc, 1 to 3072\n",
        r"--truncate +\(none\)\n",
    ):
        assert re.search(message, block), message
    assert "images" in rerank("providers", "show", "jina").out.split("jina-reranker-m0")[1]
    assert "unknown, listwise" in rerank("providers", "show", "jina").out
    assert "models" not in rerank("providers", "show", "siliconflow/x").out


def templates_of(provider: Provider) -> Iterator[tuple[str, str]]:
    for name in type(provider.request).model_fields:
        for placeholder in placeholders(getattr(provider.request, name)):
            yield name, placeholder


@given(st.sampled_from(provider_names()), st.data())
def test_a_placeholder_that_stands_for_nothing_is_named(name: str, data: st.DataObject) -> None:
    table = find_provider(name).model_dump()
    template, placeholder = data.draw(st.sampled_from([*templates_of(find_provider(name))]))
    place = data.draw(st.integers(1, len(placeholder) - 1))
    wrong = placeholder[:place] + "_" + placeholder[place:]
    content = json.dumps(table["request"][template]).replace(f'"{placeholder}"', f'"{wrong}"')
    table["request"][template] = json.loads(content)
    with pytest.raises(ValueError, match=re.escape(f"{template}: {wrong} is not a placeholder")):
        Provider.model_validate(table)


WRONG = [
    ('options.instructon = "x"', "options: instructon: there is no such option: did you mean ins"),
    ('options.insecure = "x"', "options: insecure: there is no such option"),
    ('defaults.usr = "x"', "defaults: usr: there is no such option: did you mean user?"),
    ("options.user = {}", "options.user: needs a field that it goes into"),
    ('options.user = { json_key = "x" }', "options.user: needs a field"),
    ('options.user = "a..b"', "options.user: 'a..b' is not the path of a field"),
    ('options.user = { field = "u", least = 1 }', "options.user: least and most are for numbers"),
    ('options.user.values.me = { u = 1 }', "options.user: it has no fixed values"),
    ('options.truncate.values.middle = { t = 1 }', "options.truncate.values: middle is not none"),
    ('options.max-chunks = { field = "m", least = 2, most = 1 }', "at least 2 and at most 1"),
    ('options.user = "query"', "options.user: query is written by request.body too"),
    ('options.user = "query.by"', "options.user: query.by is written by request.body too"),
    ('options.truncate.values.end = { documents = 1 }', "documents is written by request.body too"),
    ('options.user = "u"\noptions.instruction = "u"', "u is written by options.user too"),
    ('options.user = "u"\noptions.metadata = "u.v"', "u.v is written by options.user too"),
    ("defaults.instruction = 3", "defaults.instruction: 3 is not a text"),
    ('defaults.truncate = "middle"', "defaults.truncate: 'middle' is not none or start or end"),
    ('defaults.max-chunks = "8"', "defaults.max-chunks: '8' is not a number"),
    ("defaults.max-chunks = true", "defaults.max-chunks: True is not a number"),
    ('defaults.metadata = "x"', "defaults.metadata: 'x' is not a table"),
    (
        'options.max-chunks = { field = "m", most = 4 }\ndefaults.max-chunks = 8',
        "defaults.max-chunks: 8: it takes 0 to 4",
    ),
    (
        'options.truncate.values.end = { t = 1 }\ndefaults.truncate = "start"',
        "defaults.truncate: start: it takes end",
    ),
    ('request.body = { q = "$qeury", d = "$documents" }', "$qeury is not a placeholder: $query?"),
    ('request.body = { q = "$query" }', "body: $documents is not in it"),
    ('request.body = { d = "$documents" }', "body: $queries or $query is not in it"),
    ('request.document = { t = "$txt" }', "document: $txt is not a placeholder: $text?"),
    ('request.document = { t = "text" }', "document: $text is not in it"),
    ('request.record = { id = "$id" }', "record: $text is not in it"),
    ('request.image = { image = "$text" }', "image: $url is not in it"),
    ('path = "/v1/$modle"', "path: $modle is not a placeholder: $model or $slug?"),
    ('poll = "https://h/$id"', "poll: $id is not a placeholder: $request_id?"),
    ("price = true", "price: is a table"),
    ("headers = { X = 1 }", "headers.X: "),
    ("headers = { X = ' 1' }", "headers.X: not the value of a header"),
    ("headers = { Content-Length = '3' }", "the request sets this header itself"),
    ("request.body = 3", "request.body: is a table"),
    ('key = "KEY"', "key: is a list"),
    ("urll = false", "urll = false: there is nothing of that name"),
    ("limits.docs = false", "limits.docs = false: there is nothing of that name"),
    ("options.instructon = false", "options.instructon = false: there is nothing of that name"),
    ('[[mine.models]]\nnames = ["x"]\nlimits.documents = 0', ": models x: limits.documents: "),
    ('[[mine.models]]\nnames = ["x"]\nscal = false', "scal = false: there is nothing of that name"),
    ('[[mine.models]]\nnames = ["x"]\nscal = "logit"', ": models x: scal: there is no such key"),
    ('price = { amount = -1, currency = "USD", per = "thousand searches" }', "price.amount"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "message"), WRONG)
def test_what_is_wrong_in_an_entry_is_said(entry: str, message: str, rerank: Run) -> None:
    """Also what is wrong for another model than the one that is asked for, and in a parent."""
    user_file().write_text(f"[mine]\n{entry}\n[other]\nlike = 'mine'\n")
    for model in ("mine/a", "other/a"):
        outcome = rerank("-m", model, "q", "-d", "x", "--dry-run")
        assert (outcome.code, outcome.out) == (2, "")
        assert message in outcome.err.splitlines()[0], outcome.err
        assert outcome.err.startswith(f"rerank: {user_file()}: ")


numbers_and_flags: st.SearchStrategy[Any] = st.one_of(st.booleans(), st.integers(-2, 9))
some_tables: st.SearchStrategy[Any] = st.sampled_from([{}, {"field": "f"}, {"a": 1}])
some_options = st.one_of(numbers_and_flags, some_tables, st.text(max_size=3))
some_defaults = st.one_of(numbers_and_flags, some_tables, st.sampled_from(["end", "x", ""]))
names = st.sampled_from([*REQUEST_OPTIONS, "rpm", "x"])


@given(
    st.dictionaries(names, some_options, max_size=3),
    st.dictionaries(names, some_defaults, max_size=3),
)
def test_an_entry_is_right_or_refused(options: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Never anything else: not a default that nothing sends, not an error of another kind."""
    table = find_provider("kkiai").model_dump(exclude_defaults=True)
    try:
        provider = Provider.model_validate({**table, "options": options, "defaults": defaults})
    except ValueError:
        return
    assert provider.sent_defaults.keys() <= provider.options.keys() <= REQUEST_OPTIONS.keys()
    for name, value in provider.sent_defaults.items():
        assert provider.options[name].violated_range(value) is None


def dry_run(rerank: Run, model: str, *more: str) -> tuple[dict[str, Any], str]:
    """The body that would be sent, and what is said of it."""
    outcome = rerank("-m", model, "q", "-d", "x", "--dry-run", "-v", *more)
    assert outcome.code == 0, outcome.err
    body = next(line for line in outcome.out.splitlines() if line.startswith("{"))
    return json.loads(body), outcome.err


def test_a_default_is_sent_for_models_that_have_its_option(rerank: Run) -> None:
    user_file().write_text('[siliconflow]\ndefaults.instruction = "Find."\n')
    body, message = dry_run(rerank, "siliconflow/Qwen/Qwen3-Reranker-8B")
    assert body["instruction"] == "Find."
    assert "--instruction is not given: sent 'Find.', the default of siliconflow\n" in message
    body, message = dry_run(rerank, "siliconflow/BAAI/bge-reranker-v2-m3")
    assert set(body) == {"model", "query", "documents", "top_n"}
    assert "defaults.instruction of siliconflow is not sent" in message
    assert rerank("providers").code == rerank("providers", "show", "siliconflow").code == 0


def test_a_rule_may_remove_an_option_whose_default_stays(rerank: Run) -> None:
    user_file().write_text(
        '[base]\nlike = "kkiai"\nurl = "http://h"\nkeyless = true\n'
        '[[base.models]]\nnames = ["plain*"]\noptions.instruction = false\n'
        '[child]\nlike = "base"\noptions.instruction = false\n'
    )
    assert "instruct" in dry_run(rerank, "base/m")[0]
    for model in ("base/plain-1", "base/PLAIN-1", "child/m"):
        assert "instruct" not in dry_run(rerank, model)[0]


def test_defaults_of_every_kind_are_sent(rerank: Run) -> None:
    user_file().write_text(
        '[llmingo]\nurl = "http://h"\n[llmingo.defaults]\nuser = "u"\ntruncate = "end"\n'
        "max-document-tokens = 300\nmetadata = { n = 3 }\n"
        "[siliconflow.defaults]\nmax-chunks = 8\n"
    )
    body, _ = dry_run(rerank, "llmingo/m")
    options_sent = {
        key: body[key] for key in ("user", "truncate", "max_tokens_per_document", "metadata")
    }
    assert options_sent == {
        "user": "u", "truncate": "end", "max_tokens_per_document": 300, "metadata": {"n": 3}
    }  # fmt: skip
    assert dry_run(rerank, "llmingo/m", "--user", "me")[0]["user"] == "me"
    bge = "siliconflow/BAAI/bge-reranker-v2-m3"
    assert dry_run(rerank, bge)[0]["max_chunks_per_doc"] == 8
    assert dry_run(rerank, bge, "--max-chunks", "2")[0]["max_chunks_per_doc"] == 2
    assert "max_chunks_per_doc" not in dry_run(rerank, bge, "--chunk", "local")[0]


@pytest.mark.parametrize("name", provider_names())
def test_rules_are_for_names_in_any_case(name: str) -> None:
    for model in models_of(name):
        assert find_provider(name, model) == find_provider(name, model.swapcase())


def test_every_name_has_an_account() -> None:
    for name in provider_names():
        provider = find_provider(name)
        for account_name in (name, *provider.aliases, provider.account):
            assert account_of(account_name) == provider.account
    assert account_of("silicon") is None


def test_an_entry_that_cannot_be_read_is_one_error() -> None:
    user_file().write_text('[mine]\noptions.instructon = "x"\n')
    with pytest.raises(ConfigError):
        find_provider("mine")
    assert find_provider("tei").name == "tei"


def test_a_header_of_the_users_is_sent_in_place_of_the_entrys(
    rerank: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "key")
    with serve("pinecone", strict=False) as server:
        for more in ([], ["--header", "x-pinecone-api-version: 2025-10"]):
            rerank("-m", "pinecone/m", "--base-url", server.url, "q", "-d", "x", *more)
    versions = [request.headers["x-pinecone-api-version"] for request in server.requests]
    assert versions == ["2026-07", "2025-10"]
    assert server.requests[0].json["return_documents"] is False


PAGE = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## An entry of your own\n")[1].split("\n## ")[0]
# What an entry says of itself, and what is said elsewhere.
DESCRIPTIVE = {"name", "title", "dialect", "docs", "source", "example", "aliases", "versionless"}


def test_the_entry_of_the_page_is_right_and_every_key_is_told(rerank: Run) -> None:
    (entry,) = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)
    user_file().write_text(entry, encoding="utf-8")
    body, _ = dry_run(rerank, "team/m", "--user", "me")
    assert (body["end_user"], body["instruction"]) == ("me", "Find what answers the question.")
    assert "instruction" not in dry_run(rerank, "team/Plain-1")[0]
    assert (
        "team has no --truncate"
        in rerank("-m", "team/m", "q", "-d", "x", "--truncate", "end", "--dry-run").err
    )
    for name in {*Provider.model_fields, *(f"`{option}`" for option in REQUEST_OPTIONS)}:
        assert name in SECTION or name in DESCRIPTIVE


def test_a_default_can_be_taken_away(rerank: Run) -> None:
    assert "instruct" in dry_run(rerank, "kkiai/m")[0]
    user_file().write_text("[kkiai]\ndefaults.instruction = false\n")
    assert "instruct" not in dry_run(rerank, "kkiai/m")[0]


@pytest.mark.parametrize(
    "entry",
    [
        "[dashscope-native]\noptions.instruction = false",
        "[mine]\nlike = 'dashscope-native'\noptions.instruction = false",
        "[mine]\nlike = 'tei'\nurl = 'http://h'\ndefaults.instruction = false",
        "[mine]\nlike = 'kkiai'\ndefaults.instruction = ' '",
    ],
)
def test_false_takes_away_what_is_inherited_from_any_entry_and_may_take_nothing(entry: str) -> None:
    user_file().write_text(entry)
    provider = find_provider(entry[1:].partition("]")[0])
    assert "instruction" not in provider.sent_defaults
    assert "options" not in entry or "instruction" not in provider.options


@pytest.mark.parametrize(
    "entry",
    [
        "[jina]\noptions.truncate = false\nlistwise = false",
        "[cohere-v1]\noptions.max-chunks = false\nlimits.request_chunks = 9",
        "[siliconflow]\nmodels = false",
        "[kkiai]\ndefaults.instruction = false",
        "[mine]\nlike = 'vllm'\noptions.user = false",
    ],
)
def test_what_is_shown_as_toml_takes_away_the_same(entry: str, rerank: Run) -> None:
    """Also under the name of a provider that ships, over which it is merged."""
    name = entry[1:].partition("]")[0]
    models = models_of("vllm" if name == "mine" else name)
    user_file().write_text(entry)
    expected = {model: facts_of(find_provider(name, model)) for model in models}
    user_file().write_text(rerank("providers", "show", name, "--toml").out)
    assert {model: facts_of(find_provider(name, model)) for model in models} == expected
