"""Finds and stores the keys of providers, and says which texts no message may show.

`make_address` puts a provider's URL together with its key.

A key comes from the provider's environment variable, or else from the user's keys.toml, which only
its owner may read.
"""

import os
import re
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urljoin, urlsplit

from rerank_cli.errors import ConfigError, NoHome, UsageError
from rerank_cli.providers import RemoteOptions
from rerank_cli.providers.bodies import HIDDEN, MIN_SECRET_CHARACTERS
from rerank_cli.providers.catalogue import account_of, is_secret, provider_tables
from rerank_cli.providers.endpoints import Address, endpoint, public_url
from rerank_cli.terminal import AT
from rerank_cli.user_files import (
    keys_file,
    parse_toml,
    read_user_file,
)

if TYPE_CHECKING:  # pydantic takes long to import
    from rerank_cli.providers.schema import Provider

_OWNER_ONLY = 0o600  # a file's mode
_PROVIDER_NAME = re.compile(r"[a-z0-9-]+")
_SCHEMES = frozenset({"bearer", "basic", "token", "apikey"})
_VALUE_IN_HEADER = re.compile(r"""=\s*"?([^\s;,"]+)""")  # as in a cookie
# A word that looks like a key, whatever its field is called: long, with letters and digits.
_KEY_LIKE = re.compile(r"(?=\S*[A-Za-z])(?=\S*\d)\S{16,}")


class Credentials(NamedTuple):
    """The header with the key, if there is one, and the texts that must not be shown.

    `place` is where the user has put the key, or may put it: a variable's name, or an option.
    """

    headers: Mapping[str, str]
    secrets: Sequence[str]
    place: str | None = None


def find_credentials(
    table: Mapping[str, Any], user_headers: Mapping[str, str], *, dry_run: bool = False
) -> Credentials:
    """Find a provider's key; `table` is its entry, and the `user_headers` come first.

    Raises `ConfigError` if a key is needed and there is none; a `dry_run` needs none.
    """
    headers = {**table.get("headers", {}), **user_headers}
    secrets = [part for name, value in headers.items() for part in _secrets_in(name, str(value))]
    header = table["authorization"]
    if dry_run or header.lower() in {name.lower() for name in user_headers}:
        return Credentials({}, secrets, f"--header '{header}: …'")
    variables = table.get("key", ())
    key = find_key(table["account"], variables)
    variable = next((name for name in variables if os.environ.get(name, "").strip()), None)
    place = variable or (next(iter(variables), None) if key is None else None)
    if key is None and not table.get("keyless"):
        names = " or ".join(variables)
        raise ConfigError(
            f"{table['name']} needs a key" + (f": {names} is not set" if names else ""),
            hint=(f"export {variables[0]}=…, or " if names else "") + key_hint(table["account"]),
        )
    if key is None:
        return Credentials({}, secrets, place)
    if fault := _key_fault(key):
        source = f" in {variable}" if variable else ""
        raise ConfigError(f"the key for {table['name']}{source} {fault[0]}", hint=fault[1])
    return Credentials({header: f"{table['scheme']} {key}".strip()}, [*secrets, key], place)


def find_key(
    provider: str, variables: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> str | None:
    """Find a provider's key in its environment variables, or else in the user's file.

    Raises `ConfigError` if the file is damaged or others can read it.
    """
    values = (environ.get(variable, "").strip() for variable in variables)
    return next(filter(None, values), None) or _read_keys().get(provider)


def store_key(provider: str, key: str) -> None:
    """Store a provider's key; raises `UsageError` for an invalid name or key."""
    check_provider(provider)
    key = key.strip()
    if not key:
        raise UsageError(f"the key for {provider} is empty", hint=key_hint(provider))
    if fault := _key_fault(key):
        raise UsageError(f"the key for {provider} {fault[0]}", hint=fault[1])
    from rerank_cli.atomic_files import set_toml_value  # not at every start

    set_toml_value(keys_file(), provider, key, mode=_OWNER_ONLY)


def forget_key(provider: str) -> bool:
    """Remove a provider's key from the user's file; False if it was not there."""
    check_provider(provider)
    from rerank_cli.atomic_files import remove_toml_key

    return remove_toml_key(keys_file(), provider, mode=_OWNER_ONLY)


def providers_with_keys() -> list[str]:
    """The names that have a key in the user's file, sorted; raises as `find_key` does."""
    return sorted(_read_keys())


def check_provider(name: str) -> None:
    """Raise `UsageError` for a name that is not a provider's and cannot become one's.

    It may be a key, which someone has pasted in the wrong place.
    """
    if not _PROVIDER_NAME.fullmatch(name) and account_of(name) is None:
        guess = _guess_provider(name) or "PROVIDER"
        raise UsageError(
            "a provider's name has small letters, digits and hyphens only",
            hint=f"rerank config set-key {guess}; the key itself is never an argument",
        )


def _guess_provider(name: str) -> str | None:
    """Guess the provider of a name: one in capitals, or the name of a provider's variable."""
    tables = provider_tables()
    if name.lower() in tables:
        return name.lower()
    return next((other for other in tables if name in (tables[other].get("key") or ())), None)


def hide_secrets(value: Any) -> Any:
    """A JSON value without secrets, for journals, reports and messages.

    A value that has the name of a secret is hidden. A text that looks like a key is replaced by its
    hash, so that two of them differ.
    """
    if isinstance(value, str):
        return _digest(value) if _KEY_LIKE.search(value) else value
    return hide_named_secrets(value, hide_secrets)


def hide_named_secrets(value: Any, show: Callable[[Any], Any] | None = None) -> Any:
    """A JSON value without values that have the name of a secret; `show` converts the others."""
    show = show or hide_named_secrets
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret_path(name) and inner else show(inner)
            for name, inner in value.items()
        }
    return [show(inner) for inner in value] if isinstance(value, list) else value


def public_base_url(url: str | None) -> str | None:
    """A URL for journals, reports and lists: without a user, and with hashes in the query."""
    if url is None:
        return None
    query = url.partition("#")[0].partition("?")[2]
    pairs = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True)]
    # A name without a value may be a key, and an @ may end a password.
    if query and (re.search(AT, url) or not all(value for _, value in pairs)):
        return f"{public_url(url)}?{_digest(query)}"
    parts = [f"{name}={HIDDEN if is_secret(name) else _digest(value)}" for name, value in pairs]
    return "?".join([public_url(url), *(["&".join(parts)] if parts else [])])


def secrets_in(value: Any, *, all_texts: bool = False) -> Iterator[str]:
    """The texts in a JSON value that have the name of a secret, or are in something with one."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from secrets_in(inner, all_texts=all_texts or is_secret_path(name))
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, all_texts=all_texts)
    elif (
        all_texts
        and not isinstance(value, bool | None)
        and len(str(value)) >= MIN_SECRET_CHARACTERS
    ):
        yield str(value)


def redact_json(value: Any, redact: Callable[[str], str]) -> Any:
    """A JSON value in which texts, and numbers as well, have no secrets."""
    if isinstance(value, Mapping):
        return {name: redact_json(inner, redact) for name, inner in value.items()}
    if isinstance(value, list):
        return [redact_json(inner, redact) for inner in value]
    if isinstance(value, str):
        return redact(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return redact(str(value)) if is_number and redact(str(value)) != str(value) else value


def query_secrets(url: str) -> list[str]:
    """Possible keys in a URL's query: values, and names without a value."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    texts = (value or name for name, value in pairs)
    return [text for text in texts if len(text) >= MIN_SECRET_CHARACTERS]


def is_secret_path(path: str) -> bool:
    """Whether a name of a dotted path says that its value is secret."""
    return any(map(is_secret, path.split(".")))


def key_hint(provider: str) -> str:
    """How to set a key, in words for the user."""
    return f"rerank config set-key {provider}, which asks for it or reads it from a pipe"


def _read_keys() -> dict[str, str]:
    """The keys in the user's file, by name."""
    try:
        path = keys_file()
    except NoHome:
        return {}
    try:
        content = read_user_file(path)
        if content is None:
            return {}
        _check_mode(path, path.stat().st_mode)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        keys = parse_toml(content)
    except ValueError:  # its message may quote the file
        raise ConfigError(f"{path}: not TOML", hint="mend it, or move it away") from None
    if not all(isinstance(key, str) and key for key in keys.values()):
        raise ConfigError(f"{path}: holds something that is not a key", hint='provider = "key"')
    return keys


def _check_mode(path: Path, mode: int) -> None:
    """Raise `ConfigError` if others than the owner can read or write the file."""
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(
            f"{path}: others can read or write it, so its keys are not used",
            hint=f"chmod 600 {path}",
        )


def _digest(text: str) -> str:
    return f"[hidden {blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}]"


def _secrets_in(name: str, value: str) -> list[str]:
    """The secrets in a header that authorizes: its value, its last word, and values within it."""
    scheme, _, rest = value.strip().partition(" ")
    if not is_secret(name) and scheme.lower() not in _SCHEMES:
        return []
    parts = [value, *value.split()[-1:], *_VALUE_IN_HEADER.findall(value)]
    if scheme.lower() == "basic":
        with suppress(ValueError):  # of what is not base64
            user = b64decode(rest).decode("utf-8", "replace")
            parts += [user, user.partition(":")[2]]
    return [part for part in parts if len(part) >= MIN_SECRET_CHARACTERS]


def _key_fault(key: str) -> tuple[str, str] | None:
    """Why a key cannot be in the value of an HTTP header, and what to do; None if it can."""
    if key.isascii() and key.isprintable() and " " not in key:
        return None
    hint = "copy it again, alone on one line"
    scheme = next(iter(key.split()), "")
    if scheme.lower() in _SCHEMES:
        hint = f"leave out {scheme.capitalize()}, which is added where it is needed"
    return "has spaces, line breaks or characters that no key has", hint


def make_address(
    provider: "Provider", model: str, options: RemoteOptions, credentials: Credentials
) -> Address:
    """Where requests go, and their headers; raises `UsageError` for a wrong or missing URL."""
    # An empty one is an unset variable, and never means the provider's own server.
    base = provider.url if options.base_url is None else options.base_url
    if base is None:
        raise UsageError(
            f"{provider.name} has no fixed URL, and none was given",
            hint="--base-url https://…, as its documentation has it",
        )
    url = endpoint(
        base, provider.path, model, versionless=provider.versionless, own_url=provider.url
    )
    own_names = {name.lower() for name in options.headers}  # HTTP takes a header's name in any case
    own = {
        name: value
        for name, value in {**provider.headers, **credentials.headers}.items()
        if name.lower() not in own_names
    }
    poll = provider.poll
    if poll is not None and options.base_url is not None:  # only to the host that the user named
        poll = urljoin(url, urlsplit(poll).path)
    return Address(
        provider=provider.name,
        url=url,
        headers={**own, **options.headers},
        secrets=[
            *credentials.secrets,
            *query_secrets(url),
            *query_secrets(poll or ""),
            *secrets_in(options.fields),
            *secrets_in(options.metadata),
        ],
        key_place=credentials.place,
        poll=poll,
    )
