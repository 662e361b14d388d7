"""A checkpoint to ONNX: in float32, and in int8 for this kind of processor, each in its own folder.

    checkpoint    what transformers saved, read by PyTorch
    graphs        a graph of it, and the same in int8
    report        how far both are from PyTorch, in numbers, samples and checksums

Needs the extra `export`. The report's samples and checksums are what `rerank doctor` checks by.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from rerank_cli.errors import UsageError
from rerank_cli.export import checkpoint, graphs, report
from rerank_cli.export.report import Compared

Say = Callable[[str], None]


def export(
    source: Path, out: Path, *, features: Collection[str], name: str, say: Say
) -> list[Compared]:
    """Make `out`/fp32 and `out`/int8 of a checkpoint's folder, and compare them with it.

    `name` is what the model is called in its card. Raises `UsageError` where `out` is there
    already, `MissingExtra`, and `ModelError` for what is no reranker's checkpoint.
    """
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out}: is not empty", hint="name a folder that is to be made")
    with tempfile.TemporaryDirectory(dir=_parent(out), prefix=".export-") as scratch:
        plain, small = Path(scratch) / "fp32", Path(scratch) / "int8"
        say(f"{name}: read by PyTorch")
        read = checkpoint.read(source)
        plain.mkdir()
        checkpoint.write_texts(read, source, plain)
        samples = report.samples_of(read, plain / checkpoint.TOKENIZER)
        say(f"{name}: written in float32")
        graphs.write(read, plain / graphs.NAME)
        del read
        say(f"{name}: written in int8")
        small.mkdir()
        for text in checkpoint.TEXTS:
            if (plain / text).is_file():
                shutil.copyfile(plain / text, small / text)
        recipe = graphs.quantise(plain / graphs.NAME, small / graphs.NAME, features)
        found = [report.compared(folder, samples) for folder in (plain, small)]
        for folder, one, how in zip((plain, small), found, ("float32", recipe), strict=True):
            report.write(folder, one, samples, name, how)
        out.mkdir(parents=True, exist_ok=True)
        for folder in (plain, small):
            folder.rename(out / folder.name)
    return found


def _parent(out: Path) -> Path:
    """The nearest folder above that is there, on whose disk `out` will be."""
    above = Path(os.path.abspath(out)).parents  # noqa: PTH100 - links stay as they are
    return next(folder for folder in above if folder.is_dir())
