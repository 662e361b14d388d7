"""How a causal reranker is asked: a prompt around each query and passage, and what it may answer.

The query, in its place in the prompt, is tokenised with what stands around it, and the passage with
the space before it: so that the tokens are those of the whole text, as the model was trained on it.
"""

from collections.abc import Sequence

from rerank_cli.errors import ModelError
from rerank_cli.models.catalogue import Prompt
from rerank_cli.runtimes.tensors import Answers
from rerank_cli.scorers.encoding import ModelTokenizer, PairTemplate
from rerank_cli.types import Tokens

_SPACE = " "  # between the prompt and the passage


class PromptTokenizer:
    """A tokenizer for passages that follow a prompt with an instruction and a query in it."""

    def __init__(self, plain: ModelTokenizer, prompt: Prompt, instruction: str | None) -> None:
        self._plain = plain
        self._prompt = prompt
        self._instruction = instruction or prompt.instruction

    def asking(self, instruction: str) -> "PromptTokenizer":
        """The same with another instruction."""
        return PromptTokenizer(self._plain, self._prompt, instruction)

    def encode(self, text: str) -> Tokens:
        ids, spans = self._plain.encode(_SPACE + text)
        return Tokens(ids, [(max(0, start - 1), max(0, end - 1)) for start, end in spans])

    def count(self, text: str) -> int:
        return self._plain.count(_SPACE + text)

    def query(self, text: str) -> Sequence[int]:
        """The tokens of the instruction, the query, and the words of the prompt beside them."""
        told = self._prompt.query.replace("{instruction}", self._instruction)
        return self._plain.encode(told.replace("{query}", text)).ids

    def template(self) -> PairTemplate:
        """The prompt before the query and after the passage."""
        return PairTemplate.of_types(
            self._plain.with_specials(self._prompt.before),
            (),
            self._plain.with_specials(self._prompt.after),
        )

    def query_tokens(self, text: str) -> int:
        """How many tokens a query has with the instruction and the words beside it."""
        return len(self.query(text))

    def answers(self) -> Answers:
        """Find the tokens of the answers; raises `ModelError`."""
        return Answers(self._answer(self._prompt.yes), self._answer(self._prompt.no))

    def _answer(self, text: str) -> int:
        ids = self._plain.encode(text).ids
        if len(ids) != 1:
            raise ModelError(
                f"the tokenizer has no one token for {text!r}, which the model answers"
            )
        return ids[0]
