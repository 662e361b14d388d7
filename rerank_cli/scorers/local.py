"""Scores pairs with an ONNX cross-encoder on this machine's cores.

One pair a run, one thread a run, as many runs at once as there are cores; a pair that is alone has
all of them. Nothing is padded and nothing shares a run, so that a pair's score cannot depend on its
neighbours: dynamic int8 takes one scale from a whole batch of activations, and a batch would move
every score in it.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock

from rerank_cli import machine
from rerank_cli.errors import ScorerError
from rerank_cli.models import ModelFolder
from rerank_cli.prepared import Prepared
from rerank_cli.scorers.encoding import ModelTokenizer, PairTemplate
from rerank_cli.scorers.graph import Graph
from rerank_cli.scorers.optimised import open_graph
from rerank_cli.scorers.scheduler import Done, Scheduler
from rerank_cli.scorers.vocabulary import open_vocabulary
from rerank_cli.types import Chunk, Pair, Part, Scored, ScorerInfo

# Pairs that are tokenised while others run: more than are in a batch, so that one always waits.
_AHEAD = 512
# Tokens of a pair for which it pays to open the graph once more.
_LONG = 256


def open_local(folder: ModelFolder, *, threads: int | None = None) -> "LocalScorer":
    """Open the model in a folder. Raises `ModelError` for one that is not a cross-encoder."""
    aside = ThreadPoolExecutor(1)  # neither the graph nor the tokenizer waits for the other
    store = Prepared.usual()
    graph = aside.submit(open_graph, folder.graph, store)
    aside.shutdown(wait=False)
    tokenizer = ModelTokenizer(folder.tokenizer, open_vocabulary(folder.tokenizer, store))
    template = tokenizer.template()
    scorer = LocalScorer(folder, graph.result(), tokenizer, template, threads or machine.cores())
    scorer.notes = store.notes if store else ()
    return scorer


class LocalScorer:
    """A cross-encoder, its tokenizer, and the threads it runs on; `open_local` makes one.

    `notes` are sentences that every user of it should read.
    """

    notes: Sequence[str] = ()

    def __init__(
        self,
        folder: ModelFolder,
        graph: Graph,
        tokenizer: ModelTokenizer,
        template: PairTemplate,
        threads: int,
    ) -> None:
        self.info = ScorerInfo(
            name=folder.name,
            revision=folder.revision,
            scale="logit",
            window=folder.window,
            length=folder.length,
            specials=template.specials,
            tokenizer=tokenizer,
            ahead=_AHEAD,
        )
        self._length = folder.length
        self._graph = graph
        self._tokenizer = tokenizer
        self._template = template
        self._wide: Graph | None = None
        self._widening = Lock()
        self._scheduler = Scheduler(self._logit, threads)
        self._pairs = 0

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        """Score every pair, as none costs extra to return; usage is the tokens of all sequences."""
        values: list[float | None] = [None] * len(pairs)
        tokens = 0
        for places, scored in self.stream(pairs, keep):
            for place, value in zip(places, scored.values, strict=True):
                values[place] = value
            tokens += scored.usage.get("total_tokens", 0)
        return Scored(values, usage={"total_tokens": tokens}, notes=self.notes)

    def stream(self, pairs: Sequence[Pair], keep: int | None = None) -> Generator[Part]:
        """Begin to score pairs, and give the scores as they come; all are tokenised by now."""
        queries = {query: self._tokenizer.encode(query).ids for query in {p.query for p in pairs}}
        encoded = [(queries[pair.query], self._passage(pair.chunk)) for pair in pairs]
        lengths = [self._template.specials + len(q) + len(p) for q, p in encoded]
        if (longest := max(lengths, default=0)) > self._length:
            raise ScorerError(
                f"a pair has {longest} tokens, and {self.info.model} takes {self._length}"
            )
        self._pairs += len(pairs)
        parts = self._parts(self._scheduler.submit(encoded, lengths), lengths)
        next(parts)  # from now on it can be closed
        return parts

    def _parts(self, done: Generator[Sequence[Done]], lengths: Sequence[int]) -> Generator[Part]:
        with closing(done):
            yield Part((), Scored(()))
            for results in done:
                places = [result.place for result in results]
                usage = {"total_tokens": sum(lengths[place] for place in places)}
                values = [result.value for result in results]
                yield Part(places, Scored(values, usage=usage, notes=self.notes))

    def account(self) -> str:
        """What runs have taken, and whether the model was prepared for this machine."""
        threads = f"{self._scheduler.threads} thread{'' if self._scheduler.threads == 1 else 's'}"
        prepared = "prepared" if self._graph.prepared else "not prepared"
        return (
            f"{self._pairs:,} runs on {threads} took {self._scheduler.seconds:.2f} s in all; "
            f"the model is {prepared} for this machine"
        )

    def _passage(self, chunk: Chunk) -> Sequence[int]:
        return chunk.ids if chunk.ids is not None else self._tokenizer.encode(chunk.scored_text).ids

    def _logit(self, pair: tuple[Sequence[int], Sequence[int]], alone: bool) -> float:
        query, passage = pair
        ids = self._template.ids(query, passage)
        graph = self._widened(len(ids)) if alone else self._graph
        return graph.logit(ids, self._template.types(len(query), len(passage)))

    def _widened(self, length: int) -> Graph:
        """The graph for a pair that nothing else runs beside: one that uses all cores, if there is.

        It is opened for the first long pair, from the prepared copy, whose weights are in memory
        already. Scores are the same to the last bit.
        """
        prepared = self._graph.prepared
        if self._scheduler.threads == 1 or prepared is None:
            return self._graph
        with self._widening:
            if self._wide is None and length >= _LONG:
                self._wide = Graph(prepared, of=self._graph.path, threads=self._scheduler.threads)
        return self._wide or self._graph
