"""Converts texts to a model's token ids, and joins a query and a passage into one sequence.

A cross-encoder's pairs are joined as its tokenizer.json says, and a causal model's by its prompt.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import tokenizers

from rerank_cli.atomic_files import file_stamp
from rerank_cli.errors import ModelError
from rerank_cli.models.catalogue import Prompt
from rerank_cli.runtimes.tensors import AnswerTokens
from rerank_cli.scorers.vocabulary_index import MAX_PARTS, Vocabulary
from rerank_cli.terminal import encodable
from rerank_cli.types import Tokens

_SPACE = " "  # between the prompt and the passage


class ModelTokenizer:
    """A model's tokenizer.json, without the truncation and padding that it may define.

    With a `vocabulary`, the whole file is read only if there is much text.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary | None = None) -> None:
        self._path = path
        self._stamp = _stamp_of(path)
        self._vocabulary = vocabulary
        self._reading = threading.Lock()
        if vocabulary is None:
            _ = self._tokenizer

    def encode(self, text: str) -> Tokens:
        text = encodable(text)
        vocabulary = self._vocabulary  # another thread may set it to None at any time
        if vocabulary is not None:
            if vocabulary.lookups < MAX_PARTS:
                return vocabulary.encode(text)
            with self._reading:
                _ = self._tokenizer
            self._vocabulary = None
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
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
        with self._reading:
            tokenizer.encode_special_tokens = False
            try:
                return tokenizer.encode(text, add_special_tokens=False).ids
            finally:
                tokenizer.encode_special_tokens = True

    @cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        """The whole tokenizer; raises `ModelError`."""
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(self._path))
        except Exception as error:  # the library has no exceptions of its own
            raise ModelError(f"{self._path}: not a tokenizer: {error}") from error
        if _stamp_of(self._path) != self._stamp:  # its tokens may be other ones than before
            raise ModelError(
                f"{self._path}: changed while it was in use", hint="run the same again"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # The text "[SEP]" in a document is text, and not the special token.
        tokenizer.encode_special_tokens = True
        return tokenizer

    def template(self) -> "PairTemplate":
        """Find out how a pair is joined, by joining one; raises `ModelError`."""
        # The post-processor adds the special tokens, so that a part of the vocabulary is enough.
        tokenizer = (
            self._tokenizer
            if self._vocabulary is None
            else self._vocabulary.tokenizer_for("a b")[0]
        )
        joined = tokenizer.encode("a", "b")
        sequences = joined.sequence_ids
        if 0 not in sequences or 1 not in sequences:
            raise ModelError("the tokenizer cannot encode a pair of texts")
        query = sequences.index(0)
        query_end = len(sequences) - sequences[::-1].index(0)
        passage = sequences.index(1)
        passage_end = len(sequences) - sequences[::-1].index(1)
        if not query < query_end < passage:
            raise ModelError(
                "the tokenizer puts nothing between a query and a passage",
                hint="its tokenizer.json needs a post_processor with a template for pairs",
            )
        ids, types = joined.ids, joined.type_ids
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


def _stamp_of(path: Path) -> list[int]:
    try:
        return file_stamp(path)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error


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
                f"the tokenizer has no one token for {text!r}, which the model answers"
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
