"""Where a provider's requests go. Costs nothing to import, as what sends them does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rerank_cli.providers.endpoints import shown

_LEAST_TOLD = 3  # characters of a secret that say nothing of it


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider's requests go, and what goes with all of them.

    `headers` may hold the key; `secrets` are the texts that must not be shown. `variable` is where
    a key belongs, `poll` where an answer that is not ready is fetched.
    """

    provider: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    secrets: Sequence[str] = field(default=(), repr=False)
    variable: str | None = None
    poll: str | None = None

    @property
    def shown(self) -> str:
        """The endpoint as it may be shown."""
        return shown(self.url)

    def cleaned(self, text: str) -> str:
        """A text without the secrets that a server may repeat, be it cut within one."""
        for secret in {form for one in self.secrets for form in (one, *_escaped(one))}:
            text = text.replace(secret, "[secret]")
            for end in range(len(secret) - 1, _LEAST_TOLD, -1):
                text = text.replace(f"{secret[:end]}…", "[secret]…")
        return text


def _escaped(secret: str) -> Sequence[str]:
    """The forms that a secret has within JSON, which some write with every slash escaped."""
    escaped = json.dumps(secret)[1:-1]
    return (escaped, escaped.replace("/", "\\/"))
