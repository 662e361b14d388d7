"""Renders the body of a request from a provider's templates, and knows what it cannot say.

Whole values take the place of `$query` and its like; nothing is put into strings.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rerank_cli import media
from rerank_cli.providers.asked import Asked
from rerank_cli.providers.entries import Option, Provider
from rerank_cli.types import Chunk

_ABSENT = object()


def check(provider: Provider, asked: Asked, model: str) -> list[str]:
    """Say what a provider cannot honour of what it is asked, each in a sentence."""
    problems = []
    for name, value in asked.options.items():
        option = provider.options.get(name)
        if option is None:
            problems.append(f"{provider.name} has no --{name} for {model}")
        elif (problem := _out_of_range(option, value)) is not None:
            problems.append(f"--{name} {value}: {provider.name} takes {problem}")
    template = provider.request.image
    if asked.image is not None and template is None:
        problems.append(f"{provider.name} takes no image as a query for {model}")
    elif asked.image is not None and not (asked.image_only or _names(template, "$text")):
        problems.append(f"{provider.name} takes an image or a text as a query, and not both")
    return problems


def honoured(provider: Provider, asked: Asked) -> Mapping[str, Any]:
    """The options that a provider can honour, and its defaults for those that are not given."""
    given = {
        name: value
        for name, value in asked.options.items()
        if name in provider.options and _out_of_range(provider.options[name], value) is None
    }
    return {**provider.defaults, **given}


def body(
    provider: Provider,
    asked: Asked,
    model: str,
    query: str,
    chunks: Sequence[Chunk],
    top_n: int,
) -> dict[str, Any]:
    """The body of one request, in the order of the provider's own description."""
    templates = provider.request
    question = _question(provider, asked, query)
    rendered: dict[str, Any] = filled(
        templates.body,
        {
            "$model": model,
            "$query": question,
            "$queries": [question] * len(chunks),
            "$documents": [document(provider, chunk) for chunk in chunks],
            "$top_n": top_n,
        },
    )
    for name, value in honoured(provider, asked).items():
        option = provider.options[name]
        if option.field is not None:
            put(rendered, option.field, value)
        for path, stated in option.values.get(str(value), {}).items():
            put(rendered, path, stated)
    for path, value in asked.fields.items():
        put(rendered, path, value)
    return rendered


def document(provider: Provider, chunk: Chunk) -> Any:
    """A chunk as this provider takes it: a string, or an object."""
    templates, whole = provider.request, chunk.document
    if whole.media is not None:
        template = templates.image if whole.media.kind == "image" else templates.video
        return filled(template, {"$url": media.content(whole.media)})
    if templates.document == "$text" and not templates.record:
        return chunk.scored_text  # as nearly all are
    fields = whole.fields or {}
    title, described = fields.get("title"), fields.get("metadata")
    known = {
        "$id": whole.id,
        "$title": title if isinstance(title, str) and title and not chunk.title else None,
        "$metadata": described if isinstance(described, dict) else None,
    }
    known = {name: value for name, value in known.items() if value is not None}
    template = templates.record if templates.record and known else templates.document
    return filled(template, {"$text": chunk.scored_text, **known})


def filled(template: Any, values: Mapping[str, Any]) -> Any:
    """A template with values in their places; what has none is left out of its table."""
    made = _filled(template, values)
    return {} if made is _ABSENT else made


def put(target: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its dotted path, with the tables around it."""
    *tables, last = path.split(".")
    for name in tables:
        inner = target.get(name)
        target[name] = dict(inner) if isinstance(inner, dict) else {}
        target = target[name]
    target[last] = value


def encoded(content: Any) -> bytes:
    """A body or a part of one as it is sent, a lone surrogate as the escape JSON has for it."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _question(provider: Provider, asked: Asked, query: str) -> Any:
    templates = provider.request
    if asked.image is None:
        return filled(templates.query, {"$text": query})
    url = media.content(asked.image)
    values = {"$url": url} if asked.image_only else {"$url": url, "$text": query}
    return filled(templates.image, values)


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str) and template.startswith("$"):
        return values.get(template, _ABSENT)
    if isinstance(template, Mapping):
        made = {key: _filled(value, values) for key, value in template.items()}
        return {key: value for key, value in made.items() if value is not _ABSENT}
    if isinstance(template, list | tuple):
        return [one for one in (_filled(item, values) for item in template) if one is not _ABSENT]
    return template


def _names(template: Any, name: str) -> bool:
    """Whether a template has a place for a value."""
    if isinstance(template, Mapping):
        return any(_names(value, name) for value in template.values())
    if isinstance(template, list | tuple):
        return any(_names(value, name) for value in template)
    return bool(template == name)


def _out_of_range(option: Option, value: Any) -> str | None:
    """What an option takes, if that is not this."""
    if option.values and str(value) not in option.values:
        return " or ".join(option.values)
    if isinstance(value, int):
        least, most = option.least, option.most
        if (least is not None and value < least) or (most is not None and value > most):
            return f"{least or 0} to {most}" if most is not None else f"{least} or more"
    return None
