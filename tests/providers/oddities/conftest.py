"""What every case needs: a key for each provider, and no time to wait."""

import pytest

from rerank_cli.providers import client
from tests.providers.oddities.command import KEY
from tests.support.remote_commands import set_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    set_keys(monkeypatch, KEY)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(client, "_FIRST_POLL_SECONDS", 0.001)
