"""Opens a remote model: finds its endpoint, what its provider can honour, and who cuts documents.

Everything that can be wrong is found here, before anything is sent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urljoin, urlsplit

from rerank_cli.errors import UsageError
from rerank_cli.providers import Asked, Cutting, Remote, requests
from rerank_cli.providers.catalogue import find_provider
from rerank_cli.providers.endpoints import Address, endpoint, is_loopback, shown
from rerank_cli.providers.keys import Credentials
from rerank_cli.providers.requests import USUAL_DOCUMENTS
from rerank_cli.providers.schema import Provider
from rerank_cli.providers.token_estimate import CharacterTokenizer, EstimatedTokenizer
from rerank_cli.types import ScorerInfo, Tokenizer

if TYPE_CHECKING:
    from rerank_cli.scorers.remote import RemoteScorer

# The window of a model of which no limit is known, where we are to cut: most rerankers read well
# what they were trained at.
USUAL_WINDOW = 512
_SPECIALS = 4  # special tokens of a pair, in the models that have most
_LEAST_BATCH = 256
_LEAST_SECRET = 6  # characters
# So many requests wait for each that is sent at once, that no connection has to wait for us.
_REQUESTS_AHEAD = 4
_MOST_AHEAD = 1 << 15


def open_remote(name: str, model: str, remote: Remote, allowed: Credentials) -> "RemoteScorer":
    """Open a provider's model; raises `UsageError` for what the provider cannot honour."""
    provider = find_provider(name, model)
    if remote.cutting is Cutting.REMOTE and remote.cuts:
        raise UsageError(
            "--chunk remote: --chunk-tokens and --aggregate are for chunks that are cut here",
            hint="leave it out, or let --chunk local cut them",
        )
    cutting = who_cuts(provider, remote)
    asked = _with_cutting(remote, cutting)
    problems = requests.check(provider, asked, model)
    if remote.cutting is Cutting.REMOTE and not provider.limits.chunks:
        problems.append(f"{name} does not cut documents into chunks")
    # A server of one's own, or one that is asked for more, may send logits all the same.
    may_differ = provider.keyless or remote.base_url is not None or remote.asked.fields
    if remote.sigmoid and provider.scale == "probability" and not may_differ:
        raise UsageError(
            f"--sigmoid: the scores of {name} are in 0 to 1 already", hint="leave it out"
        )
    if problems and not remote.lenient:
        raise UsageError(
            "; ".join(problems), hint="leave it out, or let --lenient make it a warning"
        )
    address = _address(provider, model, remote, allowed)
    info = _info(provider, model, remote, cutting)
    remarks = [
        f"--{option} is not given: sent {value!r}, as {name} needs one"
        for option, value in provider.defaults.items()
        if option not in asked.options
    ]

    from rerank_cli.scorers.remote import RemoteScorer  # what sends, now that there is what to send

    scorer = RemoteScorer(provider, model, asked, info, address, remote.calling)
    scorer.notes, scorer.remarks = problems, remarks
    return scorer


def who_cuts(provider: Provider, remote: Remote) -> Cutting:
    """Decide who cuts long documents: never is one left to be cut silently, if that is known."""
    limits = provider.limits
    if remote.cutting is not Cutting.AUTO:
        return remote.cutting
    sizes = _sizes(remote)
    if limits.chunks and not remote.cuts and sizes.keys() <= provider.options.keys():
        return Cutting.REMOTE
    known = limits.pair or limits.document or limits.characters
    return Cutting.LOCAL if known or remote.cuts or sizes else Cutting.REMOTE


def _with_cutting(remote: Remote, cutting: Cutting) -> Asked:
    """What is asked of the provider, with the sizes of chunks if it is to cut them."""
    if cutting is Cutting.LOCAL:
        return remote.asked
    return remote.asked._replace(options={**remote.asked.options, **_sizes(remote)})


def _sizes(remote: Remote) -> Mapping[str, int]:
    """The sizes of chunks that were given."""
    sizes = {"max-chunks": remote.max_chunks, "overlap-tokens": remote.overlap_tokens}
    return {name: size for name, size in sizes.items() if size is not None}


def _address(provider: Provider, model: str, remote: Remote, allowed: Credentials) -> Address:
    base = remote.base_url or provider.url
    if base is None:
        raise UsageError(
            f"{provider.name} is wherever you say, and no URL was given",
            hint="--base-url https://…, as its documentation has it",
        )
    url = endpoint(base, provider.path, model, versionless=provider.versionless)
    if remote.calling.insecure and not is_loopback(url):
        raise UsageError(
            f"--insecure is for servers on this machine, and not for {shown(url)}",
            hint="SSL_CERT_FILE names a file with the certificates to trust",
        )
    poll = provider.poll
    if poll is not None and remote.base_url is not None:  # never to another host than was typed
        poll = urljoin(url, urlsplit(poll).path)
    return Address(
        provider=provider.name,
        url=url,
        headers={**provider.headers, **allowed.headers, **remote.asked.headers},
        secrets=[*allowed.secrets, *_values(urlsplit(base).query)],
        variable=provider.key[0] if provider.key else None,
        poll=poll,
    )


def _values(query: str) -> list[str]:
    """The values in a URL's query, any of which may be a key."""
    return [value for _, value in parse_qsl(query) if len(value) >= _LEAST_SECRET]


def _info(provider: Provider, model: str, remote: Remote, cutting: Cutting) -> ScorerInfo:
    limits = provider.limits
    tokenizer: Tokenizer = EstimatedTokenizer()
    if limits.characters is not None and cutting is Cutting.LOCAL:
        tokenizer = CharacterTokenizer()
    elif remote.tokenizer is not None:
        tokenizer = _own_tokenizer(remote.tokenizer)
    window = length = None
    if cutting is Cutting.LOCAL:
        length = limits.pair
        # One character is the line break after a title.
        window = limits.characters - 1 if limits.characters else limits.document
        if window is None and length is None:
            window = USUAL_WINDOW
    kinds = {"image": provider.request.image, "video": provider.request.video}
    documents = limits.documents or USUAL_DOCUMENTS
    return ScorerInfo(
        name=f"{provider.name}/{model}",
        revision="",
        scale="logit" if remote.sigmoid else provider.scale,
        scope="set" if provider.listwise else "pair",
        window=window,
        length=length,
        specials=_SPECIALS,
        tokenizer=tokenizer,
        remote=True,
        estimated=remote.tokenizer is None,
        media=frozenset(kind for kind, template in kinds.items() if template is not None),
        batch=documents * -(-_LEAST_BATCH // documents),  # requests that are full
        ahead=min(_MOST_AHEAD, remote.calling.concurrency * documents * _REQUESTS_AHEAD),
    )


def _own_tokenizer(path: str) -> Tokenizer:
    from rerank_cli.scorers.encoding import ModelTokenizer

    place = Path(path).expanduser()
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        raise UsageError(f"{path}: no such tokenizer", hint="--tokenizer takes a tokenizer.json")
    return ModelTokenizer(file)
