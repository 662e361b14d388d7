"""A checkpoint to ONNX: in float32, and in int8 for this kind of processor, each in its own folder.

    checkpoint    what transformers saved, read by PyTorch
    graphs        a graph of it, and the same in int8
    report        how far both are from PyTorch, in numbers, samples and checksums

Needs the extra `export`. The report's samples and checksums are what `rerank doctor` checks by.
"""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerank_cli import machine
from rerank_cli.atomic_files import clean_up_on_signal, file_digest, publish_folder
from rerank_cli.errors import ModelError, NotInstalled, UsageError, require_extra
from rerank_cli.models import HUB, Reference, check_checkpoint, offline_variable, read_name
from rerank_cli.models.catalogue import Prompt, Sample, prompts
from rerank_cli.models.folder import (
    CHECKSUMS,
    SELF_TEST,
    ModelConfig,
    check_file,
    length_in,
)
from rerank_cli.models.store import Store
from rerank_cli.output_files import check_output_folder
from rerank_cli.progress import remark_on_interrupt
from rerank_cli.runtimes.tensors import scale_of
from rerank_cli.terminal import Terminal
from rerank_cli.types import Scale
from rerank_cli.user_files import expand_user

TOKENIZER = "tokenizer.json"
TEXTS = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """PyTorch's model, transformers' tokenizer, and the prompt of a causal model."""

    model: Any
    tokenizer: Any
    prompt: Prompt | None

    @property
    def is_typed(self) -> bool:
        """Whether the model distinguishes queries from passages by token types."""
        return getattr(self.model.config, "type_vocab_size", 0) > 1


def read_checkpoint(source: Path) -> Checkpoint:
    """Read a checkpoint's folder. Raises `MissingExtra`, and `ModelError` for no reranker's."""
    prompt = prompts().get(_model_type(source))
    torch, transformers = import_libraries()
    kind = (
        transformers.AutoModelForSequenceClassification
        if prompt is None
        else transformers.AutoModelForCausalLM
    )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, use_fast=True)
        model = kind.from_pretrained(
            source, dtype=torch.float32, attn_implementation="eager", use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{source}: cannot be read: {' '.join(str(error).split())}") from error
    labels = getattr(model.config, "num_labels", 1)
    if prompt is None and labels > 2:
        raise ModelError(f"{source}: not a reranker: it has {labels} classes")
    return Checkpoint(model.eval(), tokenizer, prompt)


def write_texts(checkpoint: Checkpoint, source: Path, folder: Path) -> None:
    """Write the tokenizer in its fast form, and what describes the model."""
    checkpoint.tokenizer.save_pretrained(folder)
    for path in [path for path in folder.iterdir() if path.name not in TEXTS]:
        path.unlink()
    if not (folder / TOKENIZER).is_file():
        raise ModelError(f"{source}: its tokenizer has no fast form")
    shutil.copyfile(source / "config.json", folder / "config.json")


def import_libraries() -> tuple[Any, Any]:
    """Import PyTorch and transformers; raises `MissingExtra`."""
    with require_extra("rerank models export", "export"):
        import onnx  # noqa: F401 - so that a missing library is reported now
        import torch
        import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return torch, transformers


def _model_type(source: Path) -> str:
    """Check the files of a checkpoint, and find what its model is called in transformers."""
    if not (source / "config.json").exists():
        raise ModelError(
            f"{source}: no checkpoint: it has no config.json",
            hint="name the folder that transformers saved the model in",
        )
    if not any(source.glob("*.safetensors")):
        raise ModelError(
            f"{source}: has no weights in safetensors",
            hint="weights in pickles can run anything: save them anew with save_pretrained",
        )
    for path in source.iterdir():
        if not path.is_dir():
            check_file(path)
    return ModelConfig.read(source, "config.json").text("model_type")


NAME = "model.onnx"
OPSET = 17
_WEIGHTS = "model.onnx_data"
_MAX_FILE_BYTES = 1_900_000_000  # protobuf takes 2 GB


def write_graph(checkpoint: Checkpoint, path: Path) -> None:
    """Write a graph in float32, weights beside it where they are too many for one file."""
    import onnx
    import torch

    model = checkpoint.model

    class Logits(torch.nn.Module):  # type: ignore[misc]
        """The model's logits, of a causal one after the last token alone."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *values: Any) -> Any:
            more = (
                {"logits_to_keep": 1, "use_cache": False} if checkpoint.prompt is not None else {}
            )
            return self.model(**dict(zip(names, values, strict=True)), **more).logits

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if checkpoint.is_typed else [])]
    ids = torch.arange(5, 17).unsqueeze(0) % model.config.vocab_size
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    example["token_type_ids"] = torch.zeros_like(ids)
    axes: dict[str, Mapping[int, str]] = {name: {0: "pairs", 1: "tokens"} for name in names}
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        first = Path(scratch) / NAME
        _export(
            Logits().eval(),
            tuple(example[name] for name in names),
            str(first),
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "pairs"}},
        )
        size = sum(path.stat().st_size for path in Path(scratch).iterdir())
        graph = onnx.load(first)
        if size <= _MAX_FILE_BYTES:
            onnx.save(graph, path)
        else:
            onnx.save(graph, path, save_as_external_data=True, location=_WEIGHTS)


def _export(*arguments: Any, **options: Any) -> None:
    """Have torch write a graph, without the warnings of its tracer about every branch."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(*arguments, **options)


def quantise(plain: Path, path: Path, features: Collection[str]) -> str:
    """Write a graph in int8, as suits a processor, and say how in words."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Without these two 8-bit products are added in 16 bits, for which weights need a bit less.
    full = bool({"avx512_vnni", "avx_vnni", "asimddp"} & set(features))
    quantize_dynamic(
        plain,
        path,
        per_channel=True,
        reduce_range=not full,
        weight_type=QuantType.QInt8,
        use_external_data_format=False,
        extra_options={"MatMulConstBOnly": True},
    )
    bits = "8 bits, for processors with VNNI or arm64's dot product" if full else "7 of 8 bits"
    return f"int8, weights per channel in {bits}; activations per run, as they come"


_QUERIES = {
    "how do I get a refund": (
        "If you are not happy with what you bought, send it back and we return the full price.",
        "We are closed on public holidays.",
        "Money for returned goods reaches your card about a week later.",
    ),
    "what is panda?": (
        "hi",
        "The giant panda is a bear species endemic to China.",
        "pandas is a library for tables in Python.",
    ),
    "is it safe to eat raw potatoes": (
        "Green potatoes contain solanine, which is poisonous in larger amounts.",
        "Potatoes were brought to Europe in the sixteenth century.",
        "Raw potato is hard to digest, and its bitter parts should be cut out. " * 4,
    ),
}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How far scores in ONNX are from PyTorch's, over all sample pairs.

    The largest difference of raw scores, and Spearman's rank correlation.
    """

    precision: str
    largest: float
    correlation: float


def samples_of(checkpoint: Checkpoint, tokenizer: Path, scale: Scale) -> list[Sample]:
    """Sample pairs, and PyTorch's scores of them, which are on a scale."""
    import torch

    from rerank_cli.runtimes.tensors import read_scores
    from rerank_cli.scorers.tokenization import ModelTokenizer, PromptTokenizer

    plain = ModelTokenizer(tokenizer)
    encoder = (
        plain if checkpoint.prompt is None else PromptTokenizer(plain, checkpoint.prompt, None)
    )
    answers = None if isinstance(encoder, ModelTokenizer) else encoder.find_answers()
    template, most, samples = encoder.template(), length_in(tokenizer.parent), []
    for query, passages in _QUERIES.items():
        for passage in passages:
            query_ids, passage_ids = encoder.encode_query(query), encoder.encode(passage).ids
            ids = template.ids(query_ids, passage_ids)
            types = template.types(len(query_ids), len(passage_ids))
            if len(ids) > most:
                continue
            inputs = {"input_ids": torch.tensor([ids])}
            if checkpoint.is_typed:
                inputs["token_type_ids"] = torch.tensor([types])
            with torch.no_grad():
                output = checkpoint.model(**inputs).logits.double().numpy()
            [score] = read_scores(output, [(ids, types)], tokenizer, scale, answers)
            samples.append(Sample(query, passage, round(score, 5), scale))
    return samples


def measure_fidelity(folder: Path, samples: Sequence[Sample]) -> Fidelity:
    """Score the samples by an exported graph, and compare the scores."""
    from rerank_cli.scorers import open_scorer
    from rerank_cli.types import Pair

    scorer = open_scorer(str(folder))
    pairs = [Pair.from_texts(sample.query, sample.passage) for sample in samples]
    scores = [float(value or 0.0) for value in scorer.score(pairs).values]
    expected = [sample.score for sample in samples]
    largest = max(abs(a - b) for a, b in zip(scores, expected, strict=True))
    return Fidelity(folder.name, largest, _rank_correlation(scores, expected))


def write_report(
    folder: Path, fidelity: Fidelity, samples: Sequence[Sample], name: str, recipe: str
) -> None:
    """Write the samples, the card and the checksums."""
    tests = [sample.row() for sample in samples]
    (folder / SELF_TEST).write_text(json.dumps(tests, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(fidelity, name, recipe), encoding="utf-8")
    sums = [f"{file_digest(path)}  {path.name}\n" for path in sorted(folder.iterdir())]
    (folder / CHECKSUMS).write_text("".join(sums), encoding="utf-8")


def _rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's: Pearson's correlation of ranks (no two scores of the samples are equal)."""
    first_ranks, second_ranks = (
        np.argsort(np.argsort(values)).astype(float) for values in (first, second)
    )
    return float(np.corrcoef(first_ranks, second_ranks)[0, 1])


def _card(fidelity: Fidelity, name: str, recipe: str) -> str:
    from importlib.metadata import version

    versions = ", ".join(
        f"{package} {version(package)}" for package in ("torch", "transformers", "onnx")
    )
    return (
        f"# {name}, {fidelity.precision}\n\n"
        f"Made by `rerank models export` ({versions}, opset {OPSET}): {recipe}.\n\n"
        f"Against PyTorch in float32, on the pairs of {SELF_TEST}: scores differ by "
        f"{fidelity.largest:.5f} at most, and Spearman's correlation of their ranks is "
        f"{fidelity.correlation:.3f}.\n\nThe licence is the original's. `rerank doctor -m` this "
        f"folder scores the pairs again and checks {CHECKSUMS}.\n"
    )


Say = Callable[[str], None]


def export(
    source: Path, out: Path, *, features: Collection[str], name: str, say: Say
) -> list[Fidelity]:
    """Make `out`/fp32 and `out`/int8 of a checkpoint's folder, and compare them with it.

    `name` is what the model is called in its card. Raises `UsageError` where `out` is there
    already, `MissingExtra`, and `ModelError` for anything but a reranker's checkpoint.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty", hint="name a folder that does not exist yet")
    with _make_scratch(_parent(out)) as scratch:
        plain, small = Path(scratch) / "fp32", Path(scratch) / "int8"
        say(f"{name}: read by PyTorch")
        checkpoint = read_checkpoint(source)
        plain.mkdir()
        write_texts(checkpoint, source, plain)
        say(f"{name}: written in float32")
        write_graph(checkpoint, plain / NAME)
        scale: Scale = "logit" if checkpoint.prompt is not None else scale_of(plain / NAME)
        samples = samples_of(checkpoint, plain / TOKENIZER, scale)
        del checkpoint
        say(f"{name}: written in int8")
        small.mkdir()
        for text in TEXTS:
            if (plain / text).is_file():
                shutil.copyfile(plain / text, small / text)
        recipe = quantise(plain / NAME, small / NAME, features)
        fidelities = [measure_fidelity(folder, samples) for folder in (plain, small)]
        recipes = ("float32", recipe)
        for folder, fidelity, how in zip((plain, small), fidelities, recipes, strict=True):
            write_report(folder, fidelity, samples, name, how)
        out = Path(os.path.realpath(out))  # a link may lead to where no folder is yet
        out.mkdir(parents=True, exist_ok=True)
        for folder in (plain, small):
            publish_folder(folder, out / folder.name)
    return fidelities


def export_for_user(source: str, out: str, terminal: Terminal) -> list[Fidelity]:
    """Export a folder's checkpoint or `hf:OWNER/REPOSITORY`'s; raises what `export` raises."""
    check_output_folder(out and str(expand_user(out)), "OUT")
    folder = expand_user(source)
    if not source.startswith(HUB):
        check_checkpoint(folder, source)
    with ExitStack() as stack:
        ending = f"interrupted: nothing was written to {out}"
        stack.enter_context(remark_on_interrupt(terminal, lambda: ending))
        name = folder.resolve().name
        if source.startswith(HUB):
            reference, name = read_name(source), source.removeprefix(HUB)
            import_libraries()  # missing libraries are reported before anything is fetched
            folder = _fetch_checkpoint(reference, stack, terminal)
        return export(
            folder, expand_user(out), features=machine.features(), name=name, say=terminal.say
        )


def _fetch_checkpoint(reference: Reference, stack: ExitStack, terminal: Terminal) -> Path:
    if (barrier := offline_variable()) is not None:
        raise NotInstalled(
            f"{reference} ({barrier} keeps off the network)", "checkpoint of it here"
        )

    from rerank_cli.models.pull import (
        describe_plan,
        fetch_checkpoint,
        plan_checkpoint,
        say_waiting,
        watch_fetching,
    )

    store = Store.usual()
    plan = plan_checkpoint(reference, store)
    terminal.say(describe_plan(plan, store))
    watch = stack.enter_context(watch_fetching(terminal, plan, store))
    return stack.enter_context(
        fetch_checkpoint(plan, store, on_wait=lambda: say_waiting(terminal), watch=watch)
    )


@contextmanager
def _make_scratch(folder: Path) -> Iterator[str]:
    """Make a folder that is gone when the block ends, or a signal ends the process in it."""
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch,
        clean_up_on_signal(lambda: shutil.rmtree(scratch, ignore_errors=True)),
    ):
        yield scratch


def _parent(out: Path) -> Path:
    """The nearest folder above that is there, on whose disk `out` will be."""
    above = Path(os.path.abspath(out)).parents  # noqa: PTH100 - links stay as they are
    return next(folder for folder in above if folder.is_dir())
