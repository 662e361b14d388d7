"""How long texts may be for a provider's model: who cuts longer ones, and where.

Tokens are estimated for models whose tokenizer is not on this machine.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rerank_cli.providers import Cutting
from rerank_cli.ranking import DEFAULT_WINDOW_TOKENS, Aggregation, ChunkOptions
from rerank_cli.types import TextLimits, Tokens

if TYPE_CHECKING:
    from rerank_cli.providers import RemoteOptions
    from rerank_cli.providers.schema import Provider


CHUNK_OPTIONS = ("max-chunks", "chunk-tokens", "overlap-tokens")  # of a provider that cuts


def chunk_sizes(chunks: ChunkOptions) -> Mapping[str, int]:
    """The given sizes of chunks, by the names of their options."""
    sizes = {name: getattr(chunks, name.replace("-", "_")) for name in CHUNK_OPTIONS}
    return {name: size for name, size in sizes.items() if size is not None}


def document_tokens(
    provider: "Provider", values: Mapping[str, Any], fields: Mapping[str, Any]
) -> int | None:
    """How many tokens of a document a request asks a provider to read, by an option or --set."""
    option = provider.options.get("max-document-tokens")
    if option is None:
        return None
    count = values.get("max-document-tokens")
    if count is not None and option.violated_range(count) is not None:
        count = None  # it is not sent
    count = fields.get(option.field or "", count)  # fields are put into the body last
    return count if type(count) is int and count > 0 else None


def needs_local_chunks(provider: "Provider", chunks: ChunkOptions) -> bool:
    """Whether an option for chunks is given that only this machine can honour."""
    is_sized = chunks.chunk_tokens is not None and "chunk-tokens" not in provider.options
    return is_sized or chunks.aggregate not in (Aggregation.ADJUSTED_MAX, Aggregation.MAX)


def choose_cutting(provider: "Provider", options: "RemoteOptions", chunks: ChunkOptions) -> Cutting:
    """Decide who cuts long documents, so that a provider with known limits cuts none silently."""
    limits = provider.limits
    if options.chunk != Cutting.AUTO:
        return Cutting(options.chunk)
    sizes, needs_local = chunk_sizes(chunks), needs_local_chunks(provider, chunks)
    if limits.chunks and not needs_local and sizes.keys() <= provider.options.keys():
        return Cutting.REMOTE
    has_limit = limits.pair or limits.document or limits.characters
    return Cutting.LOCAL if has_limit or needs_local or sizes else Cutting.REMOTE


def find_window(
    provider: "Provider", options: "RemoteOptions", chunks: ChunkOptions, cutting: Cutting
) -> int | None:
    """The tokens of a chunk that is cut here; None if another limit decides."""
    if cutting is not Cutting.LOCAL:
        return None
    is_wanted = needs_local_chunks(provider, chunks) or chunk_sizes(chunks)
    if (is_wanted or options.chunk == Cutting.LOCAL) and not _is_length_known(provider):
        return DEFAULT_WINDOW_TOKENS
    return provider.limits.document


def text_limits(
    provider: "Provider",
    model: str,
    options: "RemoteOptions",
    chunks: ChunkOptions,
    cutting: Cutting,
) -> TextLimits:
    """The limits of texts, and a note on texts that the model may read only in part."""
    limits = provider.limits
    result = TextLimits(
        query=limits.query, query_characters=limits.query_characters or limits.characters
    )
    if cutting is Cutting.LOCAL:
        result = replace(result, passage=limits.document, passage_characters=limits.characters)
        is_sure = _is_length_known(provider) or find_window(provider, options, chunks, cutting)
    else:
        is_sure = limits.chunks
    if is_sure or options.truncate is not None or chunks.chunk_tokens is not None:
        return result
    name, most = f"{provider.name}/{model}", limits.document or limits.pair
    note = f"{name} reads no more than that: --chunk local cuts them here"
    if most is None:
        most = DEFAULT_WINDOW_TOKENS
        note = (
            f"how much {name} reads of them is not known: --chunk local cuts them here into "
            f"chunks of {most}, --chunk-tokens N into larger ones"
        )
    most_characters = result.passage_characters
    how = f"in chunks of up to {most_characters:,} characters" if most_characters else "whole"
    note = f"texts of more than {most:,} tokens are sent {how}, and {note}"
    return replace(result, sure_tokens=most, unsure_note=note)


def _is_length_known(provider: "Provider") -> bool:
    """Whether it is known how long a text may be for the model to read all of it.

    Servers that people run themselves have limits in characters to protect themselves, and any
    model.
    """
    limits = provider.limits
    return bool(limits.pair or limits.document or (limits.characters and not provider.keyless))


# The first alternative that matches wins. Look-behinds stand after the first letter of their
# alternative, so that this letter alone rules out the others; that makes it twice as fast.
_PIECE = re.compile(
    # Letters by threes. A letter after a digit or after a capital inside a word is alone, as in
    # hexadecimal and base64; beyond the sixth of a word, by twos, for words of no vocabulary.
    r"[a-z](?:(?<=[0-9].)|(?<=[0-9a-z][A-Z].)|(?<=[a-z]{6}.)[a-z]?|[a-z]{0,2})"
    r"|[A-Z](?:(?<=[0-9a-z].)|[a-z]{0,2})"
    # White space, except for the single space before a word. A space before a digit counts too,
    # because Qwen's digits take none.
    r"|\s+(?=[0-9])|\s*[\r\n]|[^\S\r\n]{2,}|[^\S\r\n ]"
    r"|[0-9]"
    # Cyrillic as Russian has it, Arabic, Hebrew: by twos.
    r"|[\u0401\u0410-\u044f\u0451][\u0430-\u044f\u0451]?"
    r"|[\u0621-\u063a\u0641-\u064a]{1,2}"
    r"|[\u05d0-\u05ea]{1,2}"
    r"|\S"
)
# Characters of two or more tokens each, because vocabularies hold them as bytes, or because they
# break up their word. Those of `_THREE_TOKENS`, which are here too, have three.
_TWO_TOKENS = re.compile(
    "["
    "\u00d0\u00de\u00f0\u00fe\u0100-\u017f\u0250-\u02ff"  # Icelandic, Czech, Latvian; phonetic
    "\u0386-\u0390\u03ac-\u03b0\u03ca-\u03ce"  # Greek with accents
    "\u0490-\u05cf"  # Kazakh and others; Armenian; the points of Hebrew
    "\u0600-\u0620\u064b-\u065f\u0670-\u0900"  # Persian, Uyghur, Syriac; the points of Arabic
    "\u0901-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"  # Devanagari's signs and vowels
    "\u0981-\u0983\u09bc-\u09d7"  # Bengali's
    "\u0a00-\u0b82\u0bbe-\u0bd7"  # Gurmukhi to Oriya; Tamil's signs and vowels
    "\u0c00-\u0dff\u0e80-\u10ff\u1200-\u1cff"  # Telugu to Sinhala, Lao to Georgian, Ethiopic, Khmer
    "\u200b-\u200f\u2070-\u218f\u2200-\u22ff\u27c0-\u2bff"  # joiners, mathematics
    "\u3400-\u4dbf\ua000-\uabff"  # rare Chinese, scripts of few speakers
    "\U00010000-\U0010ffff"  # emoji and whatever else
    "]"
)
# Oriya, Tibetan, emoji.
_THREE_TOKENS = re.compile("[\u0b00-\u0b7f\u0f00-\u0fff\U00010000-\U0010ffff]")


class EstimatedTokenizer:
    """Makes about as many tokens as the tokenizer of a multilingual reranker, or some more.

    If a character has several tokens, they share its span; most spaces are in no span.

    The estimate has no vocabulary. It should be too high rather than too low, because documents are
    cut by it, and a service may cut a text that is too long without saying so. It was measured in
    windows of 64 estimated tokens against the tokenizers of XLM-RoBERTa (bge), multilingual BERT,
    Qwen and English BERT. The figures are estimated tokens divided by true tokens, in the median
    window and, in brackets, in the lowest:

    - English and code 1.2 to 1.9 (1.0), other languages in Latin letters 1.1 to 2.3 (0.9; Welsh 1.0
      and 0.8);
    - Russian, Arabic, Hebrew 1.2 to 2.0 (1.0), Chinese, Japanese, Korean 1.1 to 1.7 (1.0), Indic
      scripts 1.1 to 1.4 for Qwen (1.0) and two to five for the others;
    - hex, numbers, identifiers, URLs, logs 1.0 to 1.9 (1.0), base64 1.0 to 1.2 (0.9), emoji 2.5
      (2.1).

    The estimate is too low for words of random small letters (0.7), for random Chinese characters
    (0.6 for Qwen), and for English BERT on Korean or on Cyrillic, Hebrew or Arabic letters (0.6).
    """

    def encode(self, text: str) -> Tokens:
        spans = [match.span() for match in _PIECE.finditer(text)]
        if not text.isascii():
            spans = [span for span in spans for _ in range(_token_count(text[span[0]]))]
        return Tokens(range(len(spans)), spans)

    def count(self, text: str) -> int:
        count = len(_PIECE.findall(text))
        if not text.isascii():
            count += len(_TWO_TOKENS.findall(text)) + len(_THREE_TOKENS.findall(text))
        return count


def _token_count(char: str) -> int:
    """How many tokens a piece has that begins with a character; only single ones have several."""
    if char.isascii() or not _TWO_TOKENS.match(char):
        return 1
    return 3 if _THREE_TOKENS.match(char) else 2
