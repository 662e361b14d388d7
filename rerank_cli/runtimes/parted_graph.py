"""Runs a model whose graph comes in parts, in onnxruntime on the CPU.

The encoder reads one text alone, a query or a passage. The reader scores a pair by the encoder's
outputs for both texts. A query's states are made once for all its passages. A passage's states do
not depend on the query: they are kept, if there may be other queries. Each text has a run of its
own, because dynamic int8 takes one scale from all of a run.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from rerank_cli.errors import ModelError
from rerank_cli.models.folder import ENCODER, READER, ModelFolder
from rerank_cli.models.onnx_file import unmask
from rerank_cli.runtimes import Device, Runtime, RuntimeOptions
from rerank_cli.runtimes.network import NO_BATCHING, Findings, TokenRow, allow_more
from rerank_cli.runtimes.onnxruntime_graph import (
    LoadOptions,
    OpeningWay,
    Session,
    check_weights,
    find_scale,
    open_in_way,
    save_copy,
)
from rerank_cli.runtimes.prepared_cache import (
    PreparationError,
    PreparedCache,
    translate_write_errors,
)
from rerank_cli.runtimes.state_memory import PassageMemory, StateMemory, TextStates
from rerank_cli.runtimes.tensors import (
    MASK_INPUT,
    PASSAGE_INPUT,
    QUERY_INPUT,
    InputLayout,
    TensorSpec,
    probe_seconds,
    read_scores,
    score_alike,
)

_IDS, _MASK = "ids", "mask"  # the inputs of the reader that are not outputs of the encoder
_WHOLE = "pooled"  # the encoder's output of a whole text, in a model that `rerank` trains
_MASKED_FILE = "masked.onnx"
_MAX_QUERY_BYTES = 1 << 24  # of the states of queries that are remembered


class PartedGraph:
    """A reranker's graph in two parts; safe to run from several threads at once.

    Its rows are the token ids of a query and those of a passage, each with its special tokens.
    """

    notes: Sequence[str] = ()
    batching = NO_BATCHING

    def __init__(
        self,
        path: Path,
        loading: LoadOptions,
        narrow: "PartedGraph | None" = None,
        passage_memory: int = 0,
    ) -> None:
        """Load the reader, and the encoder beside it, and check that they fit.

        If there is a `narrow` graph of the same model, everything but its encoder is shared.
        Passages are kept in `passage_memory` bytes. Raises `ModelError`.
        """
        copy = loading.prepared_path
        encoder_copy = None if copy is None else copy.with_name(ENCODER)
        self._encoder = Session(
            path.with_name(ENCODER), replace(loading, prepared_path=encoder_copy)
        )
        # One thread always: it takes little of the time, and onnxruntime may add up products of the
        # states of two texts in another order where threads share them, if more than 128 are added.
        self._reader: Session = (
            narrow._reader if narrow else Session(path, replace(loading, threads=1))
        )
        self._layout = InputLayout.of_graph(
            self._encoder.inputs, self._encoder.path, loading.padding
        )
        if (texts := self._layout.pairs or 1) > 1:
            raise ModelError(
                f"{self._encoder.path}: takes exactly {texts} texts in a run, and each text is "
                "encoded alone",
                hint="export the model with a dynamic axis for texts",
            )
        if reserved_names := sorted({_IDS, _MASK} & self._encoder.outputs.keys()):
            raise ModelError(
                f"{self._encoder.path}: has an output called {reserved_names[0]}, which is the "
                "name of what is known of a text without it",
                hint="give the output another name, and the inputs of the reader that take it",
            )
        self._check_inputs()
        self._outputs = {side: self._outputs_for(side) for side in (QUERY_INPUT, PASSAGE_INPUT)}
        self.path = path
        self.prepared_path = copy
        self.workers = loading.workers
        self.runtime_name = "onnxruntime on the CPU"
        self.tokens = self._layout.tokens
        self.output = loading.output or self._reader.score_output()
        self._reader.check_scores(self.output)
        self.scale = loading.scale or find_scale(path, self.output)
        self._loading = loading
        self._queries: StateMemory = narrow._queries if narrow else StateMemory(_MAX_QUERY_BYTES)
        self.passages: PassageMemory = narrow.passages if narrow else PassageMemory(passage_memory)

    def scores(self, rows: Sequence[TokenRow]) -> list[float]:
        """Score pairs one after the other, as `Network` says; raises `ScorerError`."""
        scores = []
        for query, passage in rows:
            query_states = self._queries.find(query, self.encode_query)
            # Meanwhile another thread may be reading the query.
            passage_states = self.passages.find(passage, self.encode_passage)
            scores.append(self.read(query_states.result(), passage_states.result()))
        return scores

    @property
    def encode(self) -> Callable[[Sequence[int]], np.ndarray] | None:
        """Makes the vector (hidden,) of a whole query; None if the encoder gives none."""
        name = f"{QUERY_INPUT}{_WHOLE}"
        if name not in self._reader.inputs:
            return None

        def encode(ids: Sequence[int]) -> np.ndarray:
            states = self._queries.find(ids, self.encode_query).result()
            vector: np.ndarray = states.values[name][0]
            return vector

        return encode

    def encode_query(self, ids: Sequence[int]) -> TextStates:
        """The states of a query that the reader takes; raises `ScorerError`."""
        return self._encode(ids, QUERY_INPUT)

    def encode_passage(self, ids: Sequence[int]) -> TextStates:
        """The states of a passage that the reader takes; raises `ScorerError`."""
        return self._encode(ids, PASSAGE_INPUT)

    def read(self, query: TextStates, passage: TextStates) -> float:
        """Score a pair by the states of its texts; raises `ScorerError`."""
        tokens = query.tokens + passage.tokens
        feed = {**query.values, **passage.values}
        output = self._reader.run([self.output], feed, f"a pair of {tokens} tokens")[0]
        return read_scores(output, [(range(tokens), ())], self.path, self.scale)[0]

    def open_wide(self) -> "PartedGraph | None":
        """Open the encoder again with all cores for a run; None where `Graph` gives None."""
        if self.workers == 1 or self.prepared_path is None:
            return None
        try:
            return PartedGraph(self.path, replace(self._loading, threads=self.workers), self)
        except ModelError:  # this graph stays in use
            return None

    def _encode(self, ids: Sequence[int], side: str) -> TextStates:
        feed = self._layout.feed([(ids, [0] * len(ids))])
        names = self._outputs[side]
        outputs = self._encoder.run(names, feed, f"a text of {len(ids)} tokens") if names else ()
        values = dict(zip(names, outputs, strict=True))
        values[_IDS] = feed["input_ids"]
        values[_MASK] = feed.get(MASK_INPUT, np.ones_like(feed["input_ids"]))
        states = {}
        for name, spec in self._reader.inputs.items():
            if name.startswith(side):
                value = values[name.removeprefix(side)]
                states[name] = value if spec.dtype is None else value.astype(spec.dtype, copy=False)
        return TextStates(len(ids), states)

    def _outputs_for(self, side: str) -> list[str]:
        """The encoder's outputs that the reader takes of a query or of a passage."""
        sources = [name.removeprefix(side) for name in self._reader.inputs if name.startswith(side)]
        return [source for source in sources if source not in (_IDS, _MASK)]

    def _check_inputs(self) -> None:
        """Check that the encoder gives the reader's inputs; raises `ModelError`."""
        reader, outputs = self._reader.path, self._encoder.outputs
        sides = set()
        for name, spec in self._reader.inputs.items():
            side = next(
                (side for side in (QUERY_INPUT, PASSAGE_INPUT) if name.startswith(side)), None
            )
            if side is None:
                raise ModelError(
                    f"{reader}: its input {name} is neither of a query nor of a passage",
                    hint=f"its inputs are called {QUERY_INPUT}NAME and {PASSAGE_INPUT}NAME, and "
                    f"NAME is an output of {ENCODER}, or {_IDS} or {_MASK}",
                )
            sides.add(side)
            source = name.removeprefix(side)
            if source in (_IDS, _MASK):
                if spec.dtype is None or not np.issubdtype(spec.dtype, np.integer):
                    raise ModelError(
                        f"{reader}: its input {name} is a {spec.type_name}, and the {source} of a "
                        "text are whole numbers"
                    )
            elif source not in outputs:
                raise ModelError(
                    f"{reader}: takes {name}, and {ENCODER} has no output called {source}",
                    hint=f"its outputs are {', '.join(outputs) or 'none'}; the two files are of "
                    "two models, or of two exports of one",
                )
            elif not _fits(spec, outputs[source]):
                raise ModelError(
                    f"{reader}: its input {name} is a {_form(spec)}, and {ENCODER} gives "
                    f"{source} as a {_form(outputs[source])}",
                    hint="the two files are of two models, or of two exports of one",
                )
        if len(sides) < 2:
            missing = "passage" if QUERY_INPUT in sides else "query"
            raise ModelError(f"{reader}: takes nothing of a {missing}, and cannot score a pair")


def open_parts(
    folder: ModelFolder, runtime: RuntimeOptions, store: PreparedCache | None, threads: int
) -> PartedGraph:
    """Open a model in parts on the CPU for `threads` runs at once; raises `ModelError`."""
    load = partial(PartedGraph, passage_memory=runtime.passage_memory)
    way = OpeningWay(load, try_parts, make_copies, READER)
    graph = open_in_way(way, folder, store, threads)
    if runtime.runtime == Runtime.OPENVINO:
        graph.notes = [f"{folder.graph}: is one of two parts of a model, and onnxruntime runs them"]
    if runtime.device == Device.CUDA:  # as a setting, or for another model of a cascade
        graph.notes = [
            f"{folder.name} runs on the CPU: --device cuda is not for models in two parts"
        ]
    return graph


def try_parts(path: Path, loading: LoadOptions) -> None:
    """Open the two parts, and score a short pair; raises `ModelError`."""
    for part in _parts(path):
        check_weights(part)
    probe_seconds(PartedGraph(path, loading))


def make_copies(path: Path, folder: Path, longest: int, loading: LoadOptions) -> None:
    """Save optimised copies of both parts into a folder, as `make_copy` does of a whole graph."""
    try:
        for part in _parts(path):
            check_weights(part)
            save_copy(part, folder / part.name, f"{part.stem}.bin")
    except PreparationError:
        try_parts(path, loading)  # raises a better error
        raise
    loading = replace(loading, prepared_path=folder / READER)
    graph = PartedGraph(path, loading)
    allow_more(2 * probe_seconds(graph))
    with translate_write_errors(folder):
        if graph.tokens is None:
            _unmask_encoder(graph, folder, longest, loading)
        Findings(graph.scale, False, graph.output).write(folder)


def _unmask_encoder(graph: PartedGraph, folder: Path, longest: int, loading: LoadOptions) -> None:
    """Remove the mask from the encoder's copy, if that changes no score."""
    encoder, masked_file = folder / ENCODER, folder / _MASKED_FILE
    encoder.rename(masked_file)
    is_better = False
    with suppress(ModelError):  # the mask can stay
        is_better = unmask(masked_file, encoder) and score_alike(
            graph, PartedGraph(graph.path, loading), longest
        )
    if is_better:
        masked_file.unlink()
    else:
        masked_file.replace(encoder)


def _parts(path: Path) -> tuple[Path, Path]:
    return path.with_name(ENCODER), path


def _fits(input_spec: TensorSpec, output_spec: TensorSpec) -> bool:
    """Whether an input can take an output: sizes that are not known are right."""
    if input_spec.type_name != output_spec.type_name:
        return False
    if not input_spec.shape or not output_spec.shape:
        return True
    return len(input_spec.shape) == len(output_spec.shape) and all(
        first == second or not isinstance(first, int) or not isinstance(second, int)
        for first, second in zip(input_spec.shape, output_spec.shape, strict=True)
    )


def _form(spec: TensorSpec) -> str:
    """A tensor's type and shape in words."""
    sizes = ", ".join(str(size) if isinstance(size, int) else "?" for size in spec.shape)
    return f"{spec.type_name} of [{sizes}]"
