"""Scores pairs with a cross-encoder on this machine.

One thread a run, as many runs at once as there are cores; a pair that is alone has all of them. A
score cannot depend on a pair's neighbours: dynamic int8 takes one scale from a whole batch of
activations, and a batch would move every score in it, so that each pair has a run of its own.
Where batches are seen to have the very scores of their pairs, short pairs of one length share one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from threading import Lock

from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.models.catalogue import Prompt
from rerank_cli.models.folder import ModelFolder
from rerank_cli.ranking.scoring import wait_for_scores
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.runtimes.network import Network, TokenRow, make_batches, open_network
from rerank_cli.runtimes.prepared_cache import PreparedCache
from rerank_cli.scorers.scheduler import PieceResult, Scheduler, SchedulerJob
from rerank_cli.scorers.tokenization import ModelTokenizer, PairTemplate, PromptTokenizer
from rerank_cli.scorers.vocabulary_index import open_vocabulary
from rerank_cli.types import Chunk, Pair, Part, Scored, ScorerInfo

# Pairs that are tokenised while others run: more than are in a batch, so that one always waits.
_MAX_PENDING_PAIRS = 512
# Tokens of a pair for which it pays to open the graph once more.
_LONG_TOKENS = 256


def open_local(
    folder: ModelFolder, runtime: RuntimeOptions, instruction: str | None = None
) -> "LocalScorer":
    """Open the model in a folder. Raises `ModelError` for one that is not a reranker.

    A model that is asked by a prompt takes an `instruction`; of others that is a `UsageError`.
    """
    store = PreparedCache.default()
    if folder.prompt is not None:
        return _open_causal(folder, runtime, store, folder.prompt, instruction)
    if instruction is not None:
        raise UsageError(
            f"--instruction: {folder.name} takes none",
            hint="Qwen3-Reranker and its kin do, and some providers' models",
        )
    aside = ThreadPoolExecutor(1)  # neither the graph nor the tokenizer waits for the other
    opening = aside.submit(open_network, folder, runtime, store)
    aside.shutdown(wait=False)
    tokenizer = ModelTokenizer(folder.tokenizer, open_vocabulary(folder.tokenizer, store))
    template = tokenizer.template()
    network = opening.result()
    scorer = LocalScorer(folder, network, tokenizer, template)
    scorer.notes = (*network.notes, *(store.notes if store else ()))
    return scorer


def _open_causal(
    folder: ModelFolder,
    runtime: RuntimeOptions,
    store: PreparedCache | None,
    prompt: Prompt,
    instruction: str | None,
) -> "LocalScorer":
    """Open a model that answers yes or no; what these are in tokens its tokenizer says."""
    tokenizer = PromptTokenizer(ModelTokenizer(folder.tokenizer), prompt, instruction)
    network = open_network(folder, runtime, store, tokenizer.find_answers())
    scorer = LocalScorer(folder, network, tokenizer, tokenizer.template(), tokenizer.query_tokens)
    scorer.notes = (*network.notes, *(store.notes if store else ()))
    return scorer


class LocalScorer:
    """A cross-encoder, its tokenizer, and the threads it runs on; `open_local` makes one.

    `notes` are sentences that every user of it should read.
    """

    notes: Sequence[str] = ()

    def __init__(
        self,
        folder: ModelFolder,
        network: Network,
        tokenizer: ModelTokenizer | PromptTokenizer,
        template: PairTemplate,
        query_tokens: Callable[[str], int] | None = None,
    ) -> None:
        self.info = ScorerInfo(
            name=folder.name,
            revision=folder.revision,
            scale=network.scale,
            window=folder.window,
            length=folder.length,
            specials=template.specials,
            query_tokens=query_tokens,
            languages=folder.languages,
            tokenizer=tokenizer,
            max_pending_pairs=_MAX_PENDING_PAIRS,
        )
        self._length = folder.length
        self._network = network
        self._tokenizer = tokenizer
        self._template = template
        self._wide: Network | None = None
        self._widening = Lock()
        self._scheduler = Scheduler(self._scores, network.workers)
        self._pairs = 0  # counted by a lock, as many threads may begin to score at once
        self._counting = Lock()

    def with_instruction(self, instruction: str) -> "LocalScorer":
        """The same model with another instruction; raises `UsageError` where it takes none."""
        if not isinstance(self._tokenizer, PromptTokenizer):
            raise UsageError(f"{self.info.name} takes no instruction")
        other = copy(self)
        other._tokenizer = self._tokenizer.with_instruction(instruction)
        other.info = replace(
            self.info, tokenizer=other._tokenizer, query_tokens=other._tokenizer.query_tokens
        )
        return other

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score every pair, as none costs extra to return; usage is the tokens of all sequences."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> SchedulerJob:
        """Begin to score pairs, which are tokenised by the time it returns.

        Raises `ScorerError` for a pair that is longer than the model takes.
        """
        queries = {query: self._tokenizer.encode_query(query) for query in {p.query for p in pairs}}
        encoded = [(queries[pair.query], self._passage(pair.chunk)) for pair in pairs]
        lengths = [self._template.specials + len(q) + len(p) for q, p in encoded]
        if (longest := max(lengths, default=0)) > self._length:
            raise ScorerError(
                f"a pair has {longest} tokens, and {self.info.model} takes {self._length}"
            )
        with self._counting:
            self._pairs += len(pairs)
        batches = make_batches(lengths, self._network.batching, self._network.workers)

        def take(result: PieceResult | BaseException) -> None:
            if isinstance(result, BaseException):
                receive(result)
                return
            places = batches[result.place]
            usage = {"total_tokens": sum(lengths[place] for place in places)}
            receive(Part(places, Scored(result.value, usage=usage, notes=self.notes)))

        return self._scheduler.submit(
            [[encoded[place] for place in batch] for batch in batches],
            [sum(lengths[place] for place in batch) for batch in batches],
            take,
            client,
        )

    def close(self) -> None:
        """End the threads, when what they have begun is done."""
        self._scheduler.close()

    @property
    def runtime_name(self) -> str:
        """The runtime and what it runs on, in words."""
        return self._network.runtime_name

    @property
    def prepared_path(self) -> Path | None:
        """The copy of the model that was made for this machine, if that is what is run."""
        return self._network.prepared_path

    def account(self) -> str:
        """What runs have taken, and whether the model was prepared for this machine."""
        threads = f"{self._scheduler.threads} thread{'' if self._scheduler.threads == 1 else 's'}"
        prepared = "prepared" if self._network.prepared_path else "not prepared"
        return (
            f"{self._pairs:,} pairs on {threads} took {self._scheduler.seconds:.2f} s in all; "
            f"the model is {prepared} for this machine"
        )

    def _passage(self, chunk: Chunk) -> Sequence[int]:
        return chunk.ids if chunk.ids is not None else self._tokenizer.encode(chunk.scored_text).ids

    def _scores(
        self, batch: Sequence[tuple[Sequence[int], Sequence[int]]], alone: bool
    ) -> list[float]:
        rows: list[TokenRow] = [
            (self._template.ids(query, passage), self._template.types(len(query), len(passage)))
            for query, passage in batch
        ]
        alone = alone and len(rows) == 1
        return (self._choose_network(len(rows[0][0])) if alone else self._network).scores(rows)

    def _choose_network(self, length: int) -> Network:
        """The model for a pair that nothing else runs beside: all cores for it, if there is one.

        It is opened for the first long pair. Scores are the same to the last bit.
        """
        with self._widening:
            if self._wide is None and length >= _LONG_TOKENS:
                self._wide = self._network.open_wide()
        return self._wide or self._network
