"""Scores pairs with a cross-encoder on this machine.

Each run has one thread, and there are as many runs at once as cores; a pair that runs alone has all
cores. A pair's score must not depend on other pairs. Dynamic int8 takes one scale from all
activations of a batch, so that a batch would change every score in it: there each pair has its own
run. If a model's batches are found to keep scores, short pairs of one length share a run.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

from rerank_cli import __version__, machine
from rerank_cli.atomic_files import file_digest
from rerank_cli.errors import ModelError, ScorerError, UsageError
from rerank_cli.models import check_hashes
from rerank_cli.models.catalogue import Prompt
from rerank_cli.models.folder import LEAST_LENGTH, ModelFolder, check_file
from rerank_cli.models.onnx_file import needs
from rerank_cli.ranking.powers import Encoder, Part, PassageCounts
from rerank_cli.ranking.text_memory import MEMORY_SHARE, TextMemory
from rerank_cli.runtimes import RuntimeOptions
from rerank_cli.runtimes.network import Network, make_batches, open_network
from rerank_cli.runtimes.prepared_cache import PreparationError, PreparedCache
from rerank_cli.scorers.scheduler import (
    PieceResult,
    Scheduler,
    SchedulerJob,
    wait_for_scores,
)
from rerank_cli.scorers.tokenization import (
    ModelTokenizer,
    PairTemplate,
    PromptTokenizer,
    TextTemplate,
    open_tokenizer,
)
from rerank_cli.terminal import format_count
from rerank_cli.types import Chunk, Pair, Scored, ScorerInfo

# Pairs to tokenise while others run: more than are in a batch, so that one always waits.
_MAX_PENDING_PAIRS = 512
# From this length on, opening the graph again for all cores saves time.
_LONG_PAIR_TOKENS = 256


def open_local(
    folder: ModelFolder, runtime: RuntimeOptions, instruction: str | None = None
) -> "LocalScorer":
    """Open the model in a folder; raises `ModelError` if it is not a reranker.

    Only a model that has a prompt takes an `instruction`; others raise `UsageError`.
    """
    if folder.prompt is None and instruction is not None:
        raise UsageError(
            f"--instruction: {folder.name} takes none",
            hint="Qwen3-Reranker and its kin do, and some providers' models",
        )
    store = PreparedCache.default()
    folder = _check_files(folder, store)
    if folder.prompt is None:
        scorer = _open_encoder(folder, runtime, store)
    else:
        scorer = _open_causal(folder, runtime, store, folder.prompt, instruction)
    # Otherwise parts of two models could have been opened together.
    folder.check_unchanged()
    scorer.find_digests = partial(_find_digests, folder, store)
    return scorer


def _find_digests(folder: ModelFolder, store: PreparedCache | None) -> Mapping[str, str]:
    """The hashes of a model's files, by their names; raises `ModelError`."""
    if store is None:
        return folder.digests()
    try:
        digests = {path.name: store.find_source(path).digest for path in folder.files()}
    except (OSError, PreparationError) as error:
        raise ModelError(f"{folder.graph}: {error}", hint="run the same again") from error
    folder.check_unchanged()
    return digests


def _check_files(folder: ModelFolder, store: PreparedCache | None) -> ModelFolder:
    """Compare a model's files with their hashes; return the model with the stamps of its weights.

    Raises `ModelError`.
    """

    def digest(path: Path) -> str:
        return file_digest(path) if store is None else store.find_source(path).digest

    try:
        if store is not None and (folder.hashes or store.is_writable()):
            weight_names = [store.find_source(graph, needs).needs or () for graph in folder.graphs]
            names = {name: None for names in weight_names for name in names}
            weights = [folder.graph.parent / name for name in names]
        else:
            weights = folder.weights()
        for path in weights:
            check_file(path)
        folder = folder.with_weights(weights)
        check_hashes(folder, digest)
    except OSError as error:
        raise ModelError(f"{folder.graph}: {error.strerror}") from error
    except PreparationError as error:
        raise ModelError(str(error), hint="run the same again") from error
    return folder


def _open_encoder(
    folder: ModelFolder, runtime: RuntimeOptions, store: PreparedCache | None
) -> "LocalScorer":
    """Open a cross-encoder."""
    # The graph and the tokenizer are opened at the same time.
    opener = ThreadPoolExecutor(1, thread_name_prefix="open-graph")
    opening = opener.submit(open_network, folder, runtime, store)
    opener.shutdown(wait=False)
    is_whole = folder.encoder is None
    tokenizer = open_tokenizer(
        folder.tokenizer, store, joins_pairs=is_whole, is_trusted=folder.is_shipped
    )
    template = tokenizer.template() if is_whole else tokenizer.text_template()
    network = opening.result()
    scorer = LocalScorer(folder, network, tokenizer, template)
    scorer.notes = (*network.notes, *(store.notes if store else ()))
    return scorer


class LocalScorer:
    """A local cross-encoder with its tokenizer and its threads; `open_local` makes one.

    `notes` are sentences that every user of the model should read, and `find_digests` finds the
    hashes of its files.
    """

    notes: Sequence[str] = ()
    find_digests: Callable[[], Mapping[str, str]] | None = None

    def __init__(
        self,
        folder: ModelFolder,
        network: Network,
        tokenizer: ModelTokenizer | PromptTokenizer,
        template: PairTemplate | TextTemplate,
        query_tokens: Callable[[str], int] | None = None,
    ) -> None:
        length = min(folder.length, network.tokens or folder.length)
        if length - template.specials < LEAST_LENGTH // 2:
            raise ModelError(
                f"{folder.tokenizer}: adds {template.specials:,} tokens to each pair, and the "
                f"model takes {length:,}"
            )
        self.info = ScorerInfo(
            name=folder.name,
            revision=folder.revision,
            scale=network.scale,
            window=min(folder.window, length),
            length=length,
            specials=template.specials,
            query_tokens=query_tokens,
            languages=folder.languages,
            weak_below=folder.weak_below,
            spare_tokens=folder.spare_tokens,
            tokenizer=tokenizer,
            max_pending_pairs=_MAX_PENDING_PAIRS,
        )
        self._length = length
        self._is_shipped = folder.is_shipped
        self._network = network
        self._tokenizer = tokenizer
        self._template = template
        self._wide: Network | None = None
        self._wide_lock = Lock()
        self._scheduler = Scheduler(self._scores, network.workers)
        # How many pairs were scored so far, also by the same model with other instructions.
        self._counts: Counter[str] = Counter()
        self._count_lock = Lock()
        passages = network.passages
        # What a first stage makes of texts is kept in the same memory.
        self.text_memory = (
            None
            if passages is None
            else TextMemory(passages.max_bytes // MEMORY_SHARE, passages.leave_room)
        )

    def with_instruction(self, instruction: str) -> "LocalScorer":
        """The same model with another instruction; raises `UsageError` if it takes none."""
        if not isinstance(self._tokenizer, PromptTokenizer):
            raise UsageError(f"{self.info.name} takes no instruction")
        other = copy(self)
        other._tokenizer = self._tokenizer.with_instruction(instruction)
        other.info = replace(
            self.info, tokenizer=other._tokenizer, query_tokens=other._tokenizer.query_tokens
        )
        return other

    @property
    def identity(self) -> str:
        """The facts on which its scores depend besides a pair: see `LastingScorer`.

        These are the files, the libraries, the processor, and the prompt with its instruction.
        Neither threads nor prepared copies change a score; but padding on a GPU does, so that such
        scores do not stay.
        """
        if self.find_digests is None or self._network.batching.padded:
            return ""
        libraries = [
            f"{name} {getattr(sys.modules.get(name), '__version__', '')}"
            for name in (self.runtime_name.partition(" ")[0], "tokenizers")
        ]
        parts = [
            [__version__, self.runtime_name, libraries, machine.signature()],
            self.find_digests(),
            [self.info.scale, self.info.length, repr(self._template)],
            [*self._tokenizer.encode_query("")],
        ]
        return json.dumps(parts, sort_keys=True)

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        """Its answer for pairs whose scores are known; `usage` has the tokens of the sequences."""
        queries = {query: len(self._tokenizer.encode_query(query)) for query, _ in pairs}
        tokens = sum(
            self._template.specials + queries[query] + len(self._passage(chunk))
            for query, chunk in pairs
        )
        return Scored(values, usage={"total_tokens": tokens}, notes=self.notes)

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score all pairs, whatever `keep` is; `usage` has the tokens of all sequences."""
        return wait_for_scores(self, pairs, keep)

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> SchedulerJob:
        """Tokenise pairs, and begin to score them; see `ConcurrentScorer`.

        Raises `ScorerError` for a pair that is longer than the model takes.
        """
        queries = {query: self._tokenizer.encode_query(query) for query in {p.query for p in pairs}}
        rows = [(queries[pair.query], self._passage(pair.chunk)) for pair in pairs]
        lengths = [self._template.specials + len(q) + len(p) for q, p in rows]
        if (longest := max(lengths, default=0)) > self._length:
            raise ScorerError(
                f"a pair has {longest} tokens, and {self.info.model} takes {self._length}"
            )
        batches = make_batches(lengths, self._network.batching, self._network.workers)

        def take(result: PieceResult | BaseException) -> None:
            if isinstance(result, BaseException):
                receive(result)
                return
            places = batches[result.place]
            with self._count_lock:
                self._counts["pairs"] += len(places)
            usage = {"total_tokens": sum(lengths[place] for place in places)}
            receive(Part(places, Scored(result.value, usage=usage, notes=self.notes)))

        return self._scheduler.submit(
            [[rows[place] for place in batch] for batch in batches],
            [sum(lengths[place] for place in batch) for batch in batches],
            take,
            client,
        )

    def close(self) -> None:
        """End the threads, after the runs that have begun."""
        self._scheduler.close()

    @property
    def runtime_name(self) -> str:
        """The runtime and its device in words, as in "onnxruntime on the CPU"."""
        return self._network.runtime_name

    @property
    def prepared_path(self) -> Path | None:
        """The copy of the model that was prepared for this machine, if that is what runs."""
        return self._network.prepared_path

    def account(self) -> str:
        """How many pairs were scored, in words, and whether the model is prepared."""
        threads = format_count(self._scheduler.threads, "thread")
        prepared = "prepared" if self._network.prepared_path else "not prepared"
        pairs = self._counts["pairs"]
        return (
            f"{format_count(pairs, 'pair')} on {threads}; the model is {prepared} for this machine"
            + ("" if self.passage_counts is None else f"; {self.passage_counts.in_words()}")
        )

    @property
    def passage_counts(self) -> PassageCounts | None:
        """How often passages were read and known; None for a model that keeps none."""
        passages = self._network.passages
        return passages.counts if passages is not None and passages.max_bytes else None

    @property
    def shipped_encoder(self) -> Encoder | None:
        """A function that makes the vector of a query; None unless this is the model that ships."""
        return self._network.encode if self._is_shipped else None

    def _passage(self, chunk: Chunk) -> Sequence[int]:
        """A chunk's token ids."""
        return chunk.ids if chunk.ids is not None else self._tokenizer.encode(chunk.scored_text).ids

    def _scores(
        self, batch: Sequence[tuple[Sequence[int], Sequence[int]]], alone: bool
    ) -> list[float]:
        """Score pairs of token ids in one run; `alone` says that nothing else runs or waits."""
        rows = [self._template.row(query, passage) for query, passage in batch]
        if not alone or len(rows) > 1:
            return self._network.scores(rows)
        length = self._template.specials + sum(map(len, batch[0]))
        return self._choose_network(length).scores(rows)

    def _choose_network(self, length: int) -> Network:
        """The network for a pair of `length` tokens that runs alone: with all cores, if it is open.

        It is opened for the first long pair. It gives exactly the same scores.
        """
        with self._wide_lock:
            if self._wide is None and length >= _LONG_PAIR_TOKENS:
                self._wide = self._network.open_wide()
        return self._wide or self._network


def _open_causal(
    folder: ModelFolder,
    runtime: RuntimeOptions,
    store: PreparedCache | None,
    prompt: Prompt,
    instruction: str | None,
) -> "LocalScorer":
    """Open a causal model, which answers yes or no; its tokenizer is needed to find the answers."""
    plain = open_tokenizer(folder.tokenizer, store, joins_pairs=False)
    tokenizer = PromptTokenizer(plain, prompt, instruction)
    network = open_network(folder, runtime, store, tokenizer.find_answers())
    scorer = LocalScorer(folder, network, tokenizer, tokenizer.template(), tokenizer.query_tokens)
    scorer.notes = (*network.notes, *(store.notes if store else ()))
    return scorer
