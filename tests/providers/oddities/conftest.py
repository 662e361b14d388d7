"""What every case needs: a key for each provider, and no time to wait."""

import pytest

from rerank_cli.providers import client
from rerank_cli.providers.catalogue import find_provider, provider_names
from tests.providers.oddities.command import KEY


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in provider_names():
        for variable in find_provider(name).key:
            monkeypatch.setenv(variable, KEY)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(client, "_FIRST_POLL_SECONDS", 0.001)
