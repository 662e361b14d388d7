"""What there is to say of a provider: in a row of a list, in a page, and after having tried it."""

from dataclasses import dataclass
from typing import Any

from rerank_cli.errors import ConfigError
from rerank_cli.providers.keys import find_key
from rerank_cli.providers.schema import Option, Provider
from rerank_cli.scorers.remote import RemoteScorer
from rerank_cli.types import Chunk, Document, Pair

# Of which any reranker knows the better; the second, so that the order they are in is not theirs.
_QUERY = "What is the capital of France?"
_DOCUMENTS = ("The recipe needs two eggs and some milk.", "Paris is the capital of France.")


@dataclass(frozen=True, slots=True)
class Row:
    """A provider in a list."""

    name: str
    key: str
    documents: str
    dialect: str
    scale: str
    title: str


def row(provider: Provider) -> Row:
    """A provider in a list; `documents` is the most in a request."""
    most = provider.limits.documents
    return Row(
        name=provider.name,
        key=key_state(provider),
        documents=str(most) if most is not None else "",
        dialect=provider.dialect,
        scale=provider.scale,
        title=provider.title,
    )


def key_state(provider: Provider) -> str:
    """Whether there is a key for a provider."""
    try:
        found = find_key(provider.account, provider.key)
    except ConfigError:
        return "unreadable"
    return "set" if found else "not needed" if provider.keyless else "not set"


def facts(provider: Provider, model: str) -> list[tuple[str, str]]:
    """All that a person may want to know, in order."""
    limits = provider.limits.model_dump(exclude_defaults=True)
    kinds = [k for k in ("image", "video") if getattr(provider.request, k) is not None]
    stated = [
        ("name", ", ".join([provider.name, *provider.aliases])),
        ("title", provider.title),
        ("model", model or f"{provider.example} (an example)"),
        ("endpoint", f"{provider.url or '(--base-url)'}{provider.path}"),
        ("key", f"{' or '.join(provider.key)}: {key_state(provider)}" if provider.key else ""),
        ("dialect", provider.dialect),
        ("scale", f"{provider.scale}{', listwise' if provider.listwise else ''}"),
        *((f"limit: {_LIMITS[name]}", _shown(value)) for name, value in limits.items()),
        *((f"--{name}", _spelling(option)) for name, option in provider.options.items()),
        *((f"--{name}, if not given", value) for name, value in provider.defaults.items()),
        ("images", ", ".join(kinds)),
        ("price", _price(provider)),
        ("documentation", provider.docs),
        ("source", provider.source),
    ]
    return [(name, value) for name, value in stated if value]


def table(provider: Provider) -> dict[str, Any]:
    """An entry as it could be written in providers.toml."""
    return provider.model_dump(mode="json", exclude_defaults=True, exclude={"name"})


def tried(scorer: RemoteScorer) -> dict[str, Any]:
    """Send two documents, and say what came back; raises the scorer's errors."""
    chunks = [Chunk(Document(text), 0, len(text), text, 0) for text in _DOCUMENTS]
    sent = scorer.exchange([Pair(_QUERY, chunk) for chunk in chunks])
    scores = sent.scored.values
    known = [score for score in scores if score is not None]
    return {
        "endpoint": sent.url,
        "seconds": round(sent.seconds, 3),
        "scores": [None if score is None else round(score, 6) for score in scores],
        "order": "right" if len(known) == len(scores) and known == sorted(known) else "wrong",
        "scale": f"{scorer.info.scale}, {_range(known)}",
        "fields": ", ".join(sent.fields),
        "usage": dict(sent.scored.usage),
        "trace": ", ".join(sent.scored.trace_ids),
    }


_LIMITS = {
    "documents": "documents in a request",
    "tokens": "tokens in a request",
    "bytes": "bytes in a request",
    "query_each": "the query counts with each document",
    "overhead": "bytes that each document takes besides",
    "pair": "tokens of query and document",
    "document": "tokens of a document",
    "characters": "characters of a text",
    "chunks": "longer documents are cut into chunks",
}


def _shown(value: int) -> str:
    return "yes" if value is True else f"{value:,}"


def _spelling(option: Option) -> str:
    words = " or ".join(option.values)
    least, most = option.least, option.most
    span = "" if least is None and most is None else f", {least or 0} to {most or 'any'}"
    return f"{option.field or words}{span}"


def _price(provider: Provider) -> str:
    price = provider.price
    return f"{price.amount} {price.currency} for a {price.per} ({price.source})" if price else ""


def _range(scores: list[float]) -> str:
    inside = all(0 <= score <= 1 for score in scores)
    return "these lie in 0 to 1" if inside else "these do not lie in 0 to 1"
