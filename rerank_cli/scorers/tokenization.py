"""Converts texts to a model's token ids, and joins a query and a passage into one sequence.

A cross-encoder's pairs are joined as its tokenizer.json says, and a causal model's by its prompt.
"""

import base64
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from rerank_cli.atomic_files import file_stamp
from rerank_cli.errors import ModelError, RerankError, UsageError
from rerank_cli.models.catalogue import Prompt
from rerank_cli.runtimes.network import TokenRow, Trial
from rerank_cli.runtimes.prepared_cache import (
    PreparationError,
    PreparedCache,
    translate_write_errors,
)
from rerank_cli.runtimes.tensors import AnswerTokens
from rerank_cli.scorers.vocabulary_index import (
    MAX_CHARACTERS,
    MAX_PARTS,
    Vocabulary,
    make_index,
    open_vocabulary,
)
from rerank_cli.terminal import encodable
from rerank_cli.types import Tokens
from rerank_cli.user_files import expand_user, parse_json_object

_SPACE = " "  # between the prompt and the passage
_MIN_INDEXED_BYTES = 4_000_000  # smaller files are loaded fast enough
_MEMORY_FACTOR = 40  # of a tokenizer.json's size: Python's objects of it, and the library's
_FORMAT_VERSION = 2  # of prepared indexes
# Texts that the trial encodes: of all kinds of characters, and with long words.
_TRIAL_TEXTS = (
    "".join(map(chr, range(0x20, 0x7F))),
    "\t\n\r\x00\x7f\u00a0\u200b\ufeff\ufffd é ü ß ñ ŉ Ω λ Ж я א ש ع ف ह न ก ไ",
    "日 本 ｶ 한 국 ﷺ ½ ™ 🥕 👩\u200d🔬 e\u0301 \U0001d49c",
    " ".join(chr(code) * 40 for code in range(0x21, 0x7F)),
)
_MAX_GROWTH = 100  # a text's length after a normalizer, in lengths before it
_MAX_EXPANSION = 1_000  # characters for one, in a compiled map of them


def load_tokenizer(path: str) -> "ModelTokenizer":
    """Load a tokenizer.json, given by its path or its folder; raises `UsageError`."""
    file = expand_user(path)
    if file.is_dir():
        file /= "tokenizer.json"
    if not file.is_file():
        reason = "not a file" if file.exists() else "no such tokenizer"
        raise UsageError(f"{path}: {reason}", hint="--tokenizer takes a tokenizer.json")
    return ModelTokenizer(file)


class ModelTokenizer:
    """A model's tokenizer.json, without the truncation and padding that it may define.

    With a `vocabulary`, the whole file is read only if there is much text. Raises `ModelError` for
    a file, and for a text, with which the library fails.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary | None = None) -> None:
        self.path = path
        self._stamp = _stamp_of(path)
        self._vocabulary = vocabulary
        self._reading_lock = threading.Lock()
        if vocabulary is None:
            _ = self._tokenizer

    def encode(self, text: str) -> Tokens:
        text = encodable(text)
        vocabulary = self._vocabulary  # another thread may set it to None at any time
        if vocabulary is not None:
            if vocabulary.lookups < MAX_PARTS and len(text) <= MAX_CHARACTERS:
                with self._name_failures("fails on a text"):
                    return vocabulary.encode(text)
            with self._reading_lock:
                _ = self._tokenizer
            self._vocabulary = None
        encoding = self._encode(self._tokenizer, text)
        return Tokens(encoding.ids, encoding.offsets)

    def count(self, text: str) -> int:
        return len(self.encode(text).ids)

    def encode_query(self, text: str) -> Sequence[int]:
        """The token ids of a query, without special tokens."""
        return self.encode(text).ids

    def encode_with_specials(self, text: str) -> Sequence[int]:
        """The token ids of a text in which the names of special tokens mean these tokens.

        This is for prompts, never for the texts of users.
        """
        tokenizer = self._tokenizer
        with self._reading_lock:
            tokenizer.encode_special_tokens = False
            try:
                return self._encode(tokenizer, text).ids
            finally:
                tokenizer.encode_special_tokens = True

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        """The whole tokenizer."""
        with self._name_failures("not a tokenizer"):
            tokenizer = tokenizers.Tokenizer.from_file(str(self.path))
        if _stamp_of(self.path) != self._stamp:  # its tokens may be other ones than before
            raise ModelError(f"{self.path}: changed while it was in use", hint="run the same again")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # The text "[SEP]" in a document is text, and not the special token.
        tokenizer.encode_special_tokens = True
        return tokenizer

    def _encode(self, tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
        with self._name_failures("fails on a text"):
            return tokenizer.encode(text, add_special_tokens=False)

    @contextmanager
    def _name_failures(self, what: str) -> Iterator[None]:
        """Turn the library's errors into a `ModelError` that names the file.

        It has no exceptions of its own, and its panics are not `Exception`s.
        """
        try:
            yield
        except (RerankError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(f"{self.path}: {what}: {reason}") from error

    def text_template(self) -> "TextTemplate":
        """Find the special tokens around a query's text and a passage's; raises `ModelError`.

        The template for pairs shows them by token types, if it gives the passage a beginning of its
        own; otherwise the template for one text shows them.
        """
        with self._name_failures("cannot encode a text"):
            single = _around(self._any_tokenizer().encode("a"), 0, 0)
            pair = self._any_tokenizer().encode("a", "b")
        if single is None:
            raise ModelError(f"{self.path}: cannot encode a text")
        if list(pair.type_ids) == sorted(pair.type_ids):
            query, passage = _around(pair, 0, 0), _around(pair, 1, 1)
            if query and passage and passage[0]:
                return TextTemplate(query, passage)
        return TextTemplate(single, single)

    def _any_tokenizer(self) -> tokenizers.Tokenizer:
        """A tokenizer that knows "a" and "b", and adds the special tokens."""
        # The post-processor adds them: a part of the vocabulary is enough.
        if self._vocabulary is None:
            return self._tokenizer
        return self._vocabulary.tokenizer_for("a b")[0]

    def template(self) -> "PairTemplate":
        """Find out how a pair is joined, by joining one; raises `ModelError`."""
        with self._name_failures("cannot encode a pair of texts"):
            encoding = self._any_tokenizer().encode("a", "b")
        sequences = encoding.sequence_ids
        if 0 not in sequences or 1 not in sequences:
            raise ModelError(f"{self.path}: cannot encode a pair of texts")
        query = sequences.index(0)
        query_end = len(sequences) - sequences[::-1].index(0)
        passage = sequences.index(1)
        passage_end = len(sequences) - sequences[::-1].index(1)
        if not query < query_end < passage:
            raise ModelError(
                f"{self.path}: puts nothing between a query and a passage",
                hint="it needs a post_processor with a template for pairs",
            )
        ids, types = encoding.ids, encoding.type_ids
        return PairTemplate(
            before=ids[:query],
            between=ids[query_end:passage],
            after=ids[passage_end:],
            query_type=types[query],
            passage_type=types[passage],
            types_before=types[:query],
            types_between=types[query_end:passage],
            types_after=types[passage_end:],
        )


def _around(
    encoding: tokenizers.Encoding, sequence: int, token_type: int
) -> tuple[Sequence[int], Sequence[int]] | None:
    """The tokens of a type before and after a text; None if the text has none of that type."""
    rows = zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True)
    own = [(token, place) for token, kind, place in rows if kind == token_type]
    sequences = [place for _, place in own]
    if sequence not in sequences:
        return None
    ids = [token for token, _ in own]
    end = len(sequences) - sequences[::-1].index(sequence)
    return ids[: sequences.index(sequence)], ids[end:]


def _stamp_of(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error


def open_tokenizer(
    path: Path, store: PreparedCache | None, *, joins_pairs: bool = True, is_trusted: bool = False
) -> ModelTokenizer:
    """Open a tokenizer.json, with the index that `store` has or can make; raises `ModelError`.

    A new one has a trial first. That of a causal model, or of a model in parts, joins no pairs.
    """
    size = path.stat().st_size
    if is_trusted and size < _MIN_INDEXED_BYTES:
        return ModelTokenizer(path)
    trial = Trial(path, lambda: size, _MEMORY_FACTOR, is_trusted=is_trusted)
    try:
        if store is None:
            raise PreparationError("there is no store")
        recipe = f"tokenizer {_FORMAT_VERSION}; tokenizers {tokenizers.__version__}"
        folder = store.prepare(
            path,
            f"{recipe}; {'pairs' if joins_pairs else 'texts'}",
            lambda target: trial.run(prepare_tokenizer, joins_pairs, target),
        )
    except PreparationError:
        if not trial.is_over:
            trial.run(prepare_tokenizer, joins_pairs, None)
        return ModelTokenizer(path)
    return ModelTokenizer(path, open_vocabulary(folder))


def prepare_tokenizer(path: Path, joins_pairs: bool, folder: Path | None) -> None:
    """Encode texts of all kinds, and write an index into a folder.

    Raises `ModelError`, and `PreparationError` if the index cannot be written.
    """
    tokenizer = ModelTokenizer(path)
    try:
        content = parse_json_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a tokenizer: {error}") from error
    if _growth(content.get("normalizer")) > _MAX_GROWTH:
        raise ModelError(
            f"{path}: its normalizer may make a text more than {_MAX_GROWTH} times as long",
            hint="it is damaged or not to be trusted: fetch it again from its source",
        )
    if joins_pairs:
        tokenizer.template()
    for text in _TRIAL_TEXTS:
        tokenizer.encode(text)
    if folder is not None:
        with translate_write_errors(folder):
            make_index(content, folder)


def _growth(normalizer: Any) -> float:
    """How many times as long a text may become by a normalizer that the library has loaded.

    The forms of Unicode count as 1: they make only few characters longer, and each once.
    """
    match normalizer:
        case {"type": "Sequence", "normalizers": list(parts)}:
            return math.prod(map(_growth, parts))
        case {"type": "Replace", "pattern": {"String": str(pattern)}, "content": str(content)}:
            return max(1.0, len(content) / max(1, len(pattern)))
        case {"type": "Replace", "content": str(content)}:  # may match an empty text anywhere
            return 1.0 + len(content)
        case {"type": "Prepend", "prepend": str(content)}:
            return 1.0 if len(content) <= _MAX_EXPANSION else math.inf
        case {"type": "Precompiled", "precompiled_charsmap": str(encoded)}:
            longest = max(map(len, base64.b64decode(encoded).split(b"\0")))
            return 1.0 if longest <= _MAX_EXPANSION else math.inf
    return 1.0


class PromptTokenizer:
    """The tokenizer of a causal model, whose passages follow a prompt with the query.

    `instruction` replaces the prompt's own.
    """

    def __init__(self, tokenizer: ModelTokenizer, prompt: Prompt, instruction: str | None) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._instruction = instruction or prompt.instruction

    def with_instruction(self, instruction: str) -> "PromptTokenizer":
        """The same tokenizer and prompt with another instruction."""
        return PromptTokenizer(self._tokenizer, self._prompt, instruction)

    def encode(self, text: str) -> Tokens:
        ids, spans = self._tokenizer.encode(_SPACE + text)
        return Tokens(ids, [(max(0, start - 1), max(0, end - 1)) for start, end in spans])

    def count(self, text: str) -> int:
        return self._tokenizer.count(_SPACE + text)

    def encode_query(self, text: str) -> Sequence[int]:
        """The token ids of the prompt's part with the instruction and the query."""
        prompt = self._prompt.query.replace("{instruction}", self._instruction)
        return self._tokenizer.encode(prompt.replace("{query}", text)).ids

    def template(self) -> "PairTemplate":
        """The parts of the prompt before the query's and after the passage."""
        return PairTemplate.without_types(
            self._tokenizer.encode_with_specials(self._prompt.before),
            (),
            self._tokenizer.encode_with_specials(self._prompt.after),
        )

    def query_tokens(self, text: str) -> int:
        """How many tokens a query has, with the instruction and the words of the prompt."""
        return len(self.encode_query(text))

    def find_answers(self) -> AnswerTokens:
        """Find the tokens of the answers yes and no; raises `ModelError`."""
        return AnswerTokens(
            self._answer_token(self._prompt.yes), self._answer_token(self._prompt.no)
        )

    def _answer_token(self, text: str) -> int:
        ids = self._tokenizer.encode(text).ids
        if len(ids) != 1:
            raise ModelError(
                f"{self._tokenizer.path}: has no one token for {text!r}, which the model answers"
            )
        return ids[0]


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens around a query and a passage, and the token types of all parts."""

    before: Sequence[int]
    between: Sequence[int]
    after: Sequence[int]
    query_type: int
    passage_type: int
    types_before: Sequence[int]
    types_between: Sequence[int]
    types_after: Sequence[int]

    @classmethod
    def without_types(
        cls, before: Sequence[int], between: Sequence[int], after: Sequence[int]
    ) -> "PairTemplate":
        """The template of a model that has no token types."""
        zeros = [[0] * len(part) for part in (before, between, after)]
        return cls(before, between, after, 0, 0, *zeros)

    @property
    def specials(self) -> int:
        """How many special tokens a pair has."""
        return len(self.before) + len(self.between) + len(self.after)

    def row(self, query: Sequence[int], passage: Sequence[int]) -> TokenRow:
        """The input of a network for a pair: token ids and types, from its texts' token ids."""
        return self.ids(query, passage), self.types(len(query), len(passage))

    def ids(self, query: Sequence[int], passage: Sequence[int]) -> list[int]:
        """The token ids of a pair, from those of its query and its passage."""
        return [*self.before, *query, *self.between, *passage, *self.after]

    def types(self, query: int, passage: int) -> list[int]:
        """The token types of a pair of `query` and `passage` tokens."""
        return [
            *self.types_before,
            *[self.query_type] * query,
            *self.types_between,
            *[self.passage_type] * passage,
            *self.types_after,
        ]


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """The special tokens before and after a text, of models that read each text alone."""

    query: tuple[Sequence[int], Sequence[int]]
    passage: tuple[Sequence[int], Sequence[int]]

    @property
    def specials(self) -> int:
        """How many special tokens a query and a passage have together."""
        return sum(len(part) for part in (*self.query, *self.passage))

    def row(self, query: Sequence[int], passage: Sequence[int]) -> TokenRow:
        """The input of a network in parts for a pair: the token ids of its two texts."""
        (before, after), (passage_before, passage_after) = self.query, self.passage
        return [*before, *query, *after], [*passage_before, *passage, *passage_after]
