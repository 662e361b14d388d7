"""`rerank providers …`: lists the rerank APIs that are known, shows one, and tries one.

Also says what a dry run of a ranking would have sent. The entries are in `providers.catalogue`;
`scorers.remote` sends.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rerank_cli.cli import option_values
from rerank_cli.cli.parameters import with_options
from rerank_cli.cli.provider_options import provider_options
from rerank_cli.cli.typer_commands import ListGroup, PlainCommand, make_app
from rerank_cli.errors import ConfigError, ExitCode, UsageError
from rerank_cli.terminal import Terminal, format_count, format_json, hide_user

if TYPE_CHECKING:
    from rerank_cli.providers.schema import Option, Provider
    from rerank_cli.scorers.dry_run import DryRunScorer
    from rerank_cli.scorers.remote import RemoteScorer
    from rerank_cli.types import Ranking, Scorer


app = make_app(ListGroup)


def _complete_name() -> Sequence[str]:
    from rerank_cli.providers.catalogue import example_models

    return example_models()


Name = Annotated[str, typer.Argument(metavar="NAME[/MODEL]", autocompletion=_complete_name)]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.callback()
def _providers() -> None:
    """List, show and try the rerank APIs that are known by name.

    Add your own to providers.toml, beside config.toml: a table for each, with its differences from
    a provider that it is like.

    \b
    rerank providers                         all providers, and which have a key
    rerank providers show cohere             a provider's limits and options
    rerank providers show tei --toml         an entry to start your own from
    rerank providers check jina              send a provider two documents
    """


@app.command("list", cls=PlainCommand)
def list_(as_json: AsJson = False) -> int:
    """List providers: a model of each as an example, and whether its key is set.

    In a pipe a line has tabs between the name, the key, the example, the most documents in a
    request, the scale of scores, and the service.

    \b
    rerank providers list
    rerank providers | cut -f 1,2
    rerank providers list --json | jq -r '.[] | select(.key == "set") | .name'
    """

    from rerank_cli.providers import catalogue

    terminal = Terminal.current()
    rows = [provider_row(catalogue.find_provider(name)) for name in catalogue.provider_names()]
    if as_json:
        terminal.write([format_json([asdict(row) for row in rows])])
    else:
        terminal.write_table(_cells(rows, terminal), _HEADS)
    if terminal.interactive:
        terminal.say(
            "\nrerank providers show NAME  says more\nrerank config set-key NAME  keeps a key"
        )
    return ExitCode.OK


@app.command("show", cls=PlainCommand)
def show(
    name: Name,
    as_json: AsJson = False,
    as_toml: Annotated[
        bool, typer.Option("--toml", help="Write TOML, to start your own entry from.")
    ] = False,
) -> int:
    """Show what is known about a provider, or about one of its models.

    Without a model the last lines say what is different for some of them.

    \b
    rerank providers show siliconflow
    rerank providers show siliconflow/BAAI/bge-reranker-v2-m3
    """

    from rerank_cli.providers import catalogue

    provider, _, model = name.partition("/")
    entry = catalogue.find_provider(provider, model)
    rules = [] if model else catalogue.find_rules(provider)
    terminal = Terminal.current()
    table = {**entry_table(entry), **({"models": rules} if rules else {})}
    if as_json:
        terminal.write([format_json(table)])
    elif as_toml:
        import tomlkit

        table = catalogue.add_removals(entry.name, table)
        terminal.write([tomlkit.dumps({entry.name: table}).encode()])
    else:
        rows = facts(entry, model)
        differences = [row for rule in rules for row in rule_facts(entry, rule)]
        terminal.write_facts([*rows, *differences])
    return ExitCode.OK


@app.command("check", cls=PlainCommand)
@with_options(provider_options, only="base_url header insecure")
def check(ctx: typer.Context, name: Name, as_json: AsJson = False) -> int:
    """Send a provider two documents, and show the answer.

    \b
    rerank providers check cohere
    rerank providers check tei/local --base-url http://127.0.0.1:8080
    """
    from rerank_cli.providers import catalogue
    from rerank_cli.providers.keys import find_credentials
    from rerank_cli.scorers.remote import open_remote

    provider, _, model = name.partition("/")
    entry = catalogue.find_provider(provider, model)
    remote = replace(option_values.remote_options(ctx), retries=1)
    scorer = open_remote(
        provider,
        model or entry.example,
        remote,
        find_credentials(catalogue.find_table(provider, model), remote.headers),
        chunks=option_values.chunk_options(ctx),
    )
    answer, notes = try_provider(scorer)
    terminal = Terminal.current()
    if as_json:
        terminal.write([format_json(answer)])
    else:
        terminal.write_facts([(key, _words(value)) for key, value in answer.items()])
    for note in notes:
        terminal.warn(note)
    return ExitCode.OK


# Any reranker prefers the second, so that a ranking differs from the order in which they are sent.
_QUERY = "What is the capital of France?"
_DOCUMENTS = ("The recipe needs two eggs and some milk.", "Paris is the capital of France.")


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """A provider in a list."""

    name: str
    key: str
    example: str
    documents: int | None
    scale: str
    title: str


def provider_row(provider: "Provider") -> ProviderRow:
    """A provider in a list; `documents` is the most in a request."""
    return ProviderRow(
        name=provider.name,
        key=key_state(provider),
        example=provider.example,
        documents=provider.limits.documents,
        scale=provider.scale,
        title=provider.title,
    )


_HEADS = ("EXAMPLE OF -m", "KEY", "SERVICE")


def _cells(rows: Sequence[ProviderRow], terminal: Terminal) -> list[list[str]]:
    """The cells of a list: the most important ones for a person, all of them for a program."""
    if terminal.interactive:
        return [[f"{row.name}/{row.example}", row.key, row.title] for row in rows]
    return [["" if cell is None else str(cell) for cell in astuple(row)] for row in rows]


def key_state(provider: "Provider") -> str:
    """The state of the key for a provider, in words."""
    from rerank_cli.providers.keys import find_key

    try:
        key = find_key(provider.account, provider.key)
    except ConfigError:
        return "unreadable"
    return "set" if key else "not needed" if provider.keyless else "not set"


def facts(provider: "Provider", model: str) -> list[tuple[str, str]]:
    """The facts about a provider for a person, in order."""
    from rerank_cli.providers.requests import media_templates, mixed_kinds
    from rerank_cli.providers.schema import placeholders

    limits = provider.limits.model_dump(exclude_defaults=True)
    kinds, mixed = [*media_templates(provider)], mixed_kinds(provider)
    fields = [name.removeprefix("$") for name in placeholders(provider.request.record)]
    all_facts = [
        ("name", ", ".join([provider.name, *provider.aliases])),
        ("title", provider.title),
        ("model", model or f"{provider.example} (an example)"),
        ("endpoint", _endpoint(provider, model)),
        ("key", f"{' or '.join(provider.key)}: {key_state(provider)}" if provider.key else ""),
        ("scale", f"{provider.scale}{', listwise' if provider.listwise else ''}"),
        *((f"limit: {_LIMITS[name]}", _limit_words(value)) for name, value in limits.items()),
        *((f"--{name}", _spelling(option)) for name, option in provider.options.items()),
        *((f"--{name}, if not given", f"{v}") for name, v in provider.sent_defaults.items()),
        ("records", f"with {', '.join(fields)}" if fields else ""),
        ("images", ", ".join(kinds)),
        ("images with a text", ", ".join(kind for kind in kinds if kind in mixed)),
        ("images in the query", "none" if kinds and provider.request.text_query else ""),
        ("price", _price(provider)),
        ("documentation", provider.docs),
        ("source", provider.source),
    ]
    return [(name, value) for name, value in all_facts if value]


def _endpoint(provider: "Provider", model: str) -> str:
    """The URL of requests; without a model `$model` and `$slug` in the path stand for one."""
    from rerank_cli.providers.endpoints import endpoint, public_url

    if model and provider.url:
        url = endpoint(provider.url, provider.path, model, versionless=provider.versionless)
        return public_url(url)
    return f"{public_url(provider.url or '') or '(--base-url)'}{provider.path}"


def rule_facts(provider: "Provider", rule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The differences that a rule for some models makes, in order; the first row names them."""
    from rerank_cli.providers import catalogue

    special = provider.model_validate(
        catalogue.apply_rule({**entry_table(provider), "name": provider.name}, rule)
    )
    usual, changed = dict(facts(provider, "")), dict(facts(special, ""))
    differences = [(name, value) for name, value in changed.items() if usual.get(name) != value]
    differences += [(name, "(none)") for name in usual if name not in changed]
    return [
        ("models", ", ".join(rule["names"])),
        *((f"  {name}", value) for name, value in differences),
    ]


def entry_table(provider: "Provider") -> dict[str, Any]:
    """An entry as it could be written in providers.toml, without its secrets."""
    from rerank_cli.providers.keys import hide_named_secrets, public_base_url

    table = provider.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    for name in ("headers", "request", "options"):  # the names of secrets mean something else above
        table |= {name: hide_named_secrets(table[name])} if name in table else {}
    for name in ("url", "poll"):
        table |= {name: public_base_url(table[name])} if name in table else {}
    return table


def try_provider(scorer: "RemoteScorer") -> tuple[dict[str, Any], Sequence[str]]:
    """Send two documents; return facts about the answer, and notes. Raises the scorer's errors."""
    from rerank_cli.render.json_results import request_object
    from rerank_cli.types import Pair

    exchange = scorer.exchange([Pair.from_texts(_QUERY, text) for text in _DOCUMENTS])
    scores = exchange.scored.values
    given_scores = [score for score in scores if score is not None]
    answer = {
        "endpoint": exchange.url,
        "seconds": round(exchange.seconds, 3),
        "scores": [None if score is None else round(score, 6) for score in scores],
        "order": "right"
        if len(given_scores) == len(scores) and given_scores == sorted(given_scores)
        else "wrong",
        "scale": f"{scorer.info.scale}, {_range(given_scores)}",
        "fields": ", ".join(exchange.fields),
        "usage": dict(exchange.scored.usage),
    }
    (request,) = exchange.scored.requests
    hidden = {"documents", "statuses", "seconds", "usage", "warnings"}  # shown already, or known
    fields = request_object(request)
    return answer | {
        n: value for n, value in fields.items() if n not in hidden
    }, exchange.scored.notes


def _words(value: object) -> str:
    """A value of an answer for a person: of a list its items, of a table its names too."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_words(item)}" for name, item in value.items())
    return ", ".join(map(_words, value)) if isinstance(value, list | tuple) else str(value)


_LIMITS = {
    "documents": "documents in a request",
    "tokens": "tokens in a request",
    "bytes": "bytes in a request",
    "images": "documents of a request with an image",
    "videos": "documents of a request with a video",
    "query_each": "the query counts with each document",
    "overhead": "bytes that each document takes besides",
    "pair": "tokens of query and document",
    "document": "tokens of a document",
    "query": "tokens of a query",
    "characters": "characters of a text",
    "query_characters": "characters of a query",
    "chunks": "longer documents are cut into chunks",
    "request_chunks": "chunks of a request, by --max-chunks",
}


def _limit_words(value: int) -> str:
    return "yes" if value is True else f"{value:,}"


def _spelling(option: "Option") -> str:
    words = option.field or " or ".join(option.values)
    if option.json_key is not None:
        words = f"{option.json_key} in the JSON of {words}"
    least, most = option.least, option.most
    if least is None and most is None:
        return words
    return f"{words}, {least or 0}{f' to {most}' if most is not None else ' or more'}"


def _price(provider: "Provider") -> str:
    tariff = provider.price
    if tariff is None:
        return ""
    words = f"{tariff.amount:g} {tariff.currency} for a {tariff.per}"
    if tariff.documents is not None:
        words += f"; a search has {tariff.documents} documents"
    if tariff.chunk is not None:
        words += f" of {tariff.chunk} tokens with the query"
    return f"{words} ({tariff.source})"


def _range(scores: list[float]) -> str:
    inside = all(0 <= score <= 1 for score in scores)
    return "these lie in 0 to 1" if inside else "these do not lie in 0 to 1"


def dry_run_report(scorer: "Scorer", ranking: "Ranking", *, as_json: bool, verbose: bool) -> bytes:
    """Report the requests of a dry run, as lines or JSON; `verbose` adds the first body."""
    from rerank_cli.costs import Price
    from rerank_cli.media import is_url
    from rerank_cli.providers.keys import redact_json
    from rerank_cli.providers.requests import encode_json
    from rerank_cli.scorers.cached import CachedScorer
    from rerank_cli.scorers.dry_run import DryRunScorer  # and all that sends

    is_cached = isinstance(scorer, CachedScorer)
    scorer = scorer.scorer if isinstance(scorer, CachedScorer) else scorer
    if not isinstance(scorer, DryRunScorer):
        raise UsageError("--dry-run shows what a provider would be sent, and nothing is sent")
    plan = _sums_of(scorer, ranking)
    if is_cached:
        plan["cached"] = ranking.cached
    if ranking.candidates is not None:
        plan["candidates"] = ranking.candidates._asdict()
    if ranking.unread is not None:
        plan["unread"] = ranking.unread._asdict()
    price = Price.total(request.price for request in scorer.plan.requests)
    request = None
    if verbose and scorer.plan.first_body:
        redact = scorer.scorer.address.redact
        request = redact_json(
            json.loads(scorer.plan.first_body),
            lambda text: redact(hide_user(text) if is_url(text) else text),
        )
    if as_json:
        body = {"first_request": request} if verbose else {}
        return format_json({**plan, "price": price and price._asdict(), **body})
    sizes = f"about {format_count(plan['tokens'], 'token')} with the query, {plan['bytes']:,} bytes"
    passages = format_count(plan["chunks"], "passage")
    documents = format_count(plan["documents"], "document")
    is_part = ranking.candidates is not None or ranking.unread is not None
    lines = [
        f"{format_count(plan['requests'], 'request')} to {plan['endpoint']}",
        f"{f'{passages} of {documents}' if is_part else f'{documents} in {passages}'}, {sizes}",
        f"{format_count(ranking.cached, 'score')} in the cache" if is_cached else "",
        f"{price} ({price.source}; prices change)" if price else "",
        encode_json(request).decode() if request else "",
        "nothing was sent",
    ]
    return "".join(f"{line}\n" for line in lines if line).encode()


def _sums_of(scorer: "DryRunScorer", ranking: "Ranking") -> dict[str, Any]:
    plans = scorer.plan.requests
    return {
        "endpoint": scorer.scorer.address.public_url,
        "model": scorer.info.name,
        "requests": len(plans),
        "documents": ranking.documents - ranking.empty,
        "chunks": sum(request.documents for request in plans),
        "tokens": sum(request.tokens for request in plans),
        "bytes": sum(request.bytes for request in plans),
        "largest": {
            "documents": max((request.documents for request in plans), default=0),
            "tokens": max((request.tokens for request in plans), default=0),
            "bytes": max((request.bytes for request in plans), default=0),
        },
    }
