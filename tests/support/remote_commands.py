"""Helpers for tests of remote models: the options and the input of a command, and its requests."""

import functools
from collections.abc import Sequence
from typing import Any

import pytest

from rerank_cli.providers.catalogue import find_provider, provider_names
from tests.support.loopback import DIALECTS, Server
from tests.support.loopback.samples import TEXTS

KEY = "sk-0123456789abcdef"
# What the server calls a provider's dialect, where it is not the provider's name.
_DIALECTS = {
    "cohere": "cohere-v2",
    "dashscope": "dashscope-compat",
    "nvidia": "nvidia-hosted",
    "new-api": "newapi",
    "gitee-multimodal": "gitee",
}


def dialect_of(provider: str) -> str:
    """The loopback server's name of the dialect that a provider speaks."""
    dialect = _DIALECTS.get(provider, provider)
    return dialect if dialect in DIALECTS else "openai-like"


@functools.cache
def key_variables() -> tuple[str, ...]:
    """The variables that hold the keys of the providers that ship."""
    return tuple(variable for name in provider_names() for variable in find_provider(name).key)


def set_keys(monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> None:
    """Give every provider this key."""
    for variable in key_variables():
        monkeypatch.setenv(variable, key)


def model_options(server: Server, model: str = "openai-like/m") -> list[str]:
    """The options that name a model of this server."""
    return ["-m", model, "--base-url", server.url]


def documents(texts: Sequence[str] = TEXTS) -> list[str]:
    return [word for text in texts for word in ("-d", text)]


def lines(texts: Sequence[str]) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def sent_documents(server: Server, name: str = "documents") -> list[Any]:
    """The documents of all requests, one after the other."""
    return [document for request in server.requests for document in request.json[name]]
