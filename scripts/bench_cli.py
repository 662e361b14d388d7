"""Time the command against scripts that do the least: ratios, side by side in one run.

    python scripts/bench_cli.py --passages ../shared/data/eval/scifact/corpus.jsonl.gz

1. `rerank --help` against `python -c "import typer, pydantic"`.
2. Ten short lines, the whole process, against a script that opens the same model with onnxruntime
   and tokenizers and scores the same pairs in one padded batch.
3. Passages of 20 to 400 tokens, the whole process, against that script with batches of 32 in
   input order.

Every pair of commands is run in turn, A B A B, after one run of each that is not counted; the
ratio is that of the medians. Exits with 1 where a bound is missed.
"""

import argparse
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "mini"
QUERY = "who wrote the first book about it"
SHORT = [
    "cats purr when they are content",
    "stocks fell sharply on Monday morning",
    "dogs bark at strangers in the night",
    "the museum opens at nine",
    "rain is expected over the weekend",
    "she wrote her first book at twenty",
    "bread rises in a warm place",
    "the train leaves from platform two",
    "glaciers move a metre a day",
    "a good knife is a sharp one",
]

# The least that scores pairs with a model in two parts: what a user would write first.
MINIMAL = """
import sys
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, query, path, size = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.enable_truncation(512)
tokenizer.enable_padding()
encoder, reader = (
    onnxruntime.InferenceSession(f"{folder}/{part}.onnx") for part in ("encoder", "reader")
)
names = [output.name for output in encoder.get_outputs()]
input_names = {value.name for value in reader.get_inputs()}

def read(texts, side):
    rows = tokenizer.encode_batch(texts)
    ids = np.array([row.ids for row in rows])
    mask = np.array([row.attention_mask for row in rows])
    outputs = encoder.run(names, {"input_ids": ids, "attention_mask": mask})
    states = dict(zip(names, outputs), ids=ids, mask=mask)
    return {f"{side}_{name}": states[name] for name in states if f"{side}_{name}" in input_names}

lines = open(path, encoding="utf-8").read().splitlines()
scores = []
question = read([query], "query")
for start in range(0, len(lines), int(size)):
    passages = read(lines[start : start + int(size)], "passage")
    count = len(passages["passage_ids"])
    repeated = {name: np.repeat(value, count, 0) for name, value in question.items()}
    scores += reader.run(None, repeated | passages)[0].ravel().tolist()
for place in sorted(range(len(lines)), key=lambda place: -scores[place]):
    print(lines[place])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=Path, help="a corpus.jsonl.gz; without it 3 is left out")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--long-runs", type=int, default=3)
    arguments = parser.parse_args()

    python, rerank = [sys.executable], [sys.executable, "-m", "rerank_cli"]
    ok = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = folder / "minimal.py"
        script.write_text(MINIMAL)
        (folder / "short.txt").write_text("\n".join(SHORT) + "\n")
        ok &= compare(
            "rerank --help / importing typer and pydantic",
            [*rerank, "--help"],
            [*python, "-c", "import typer, pydantic"],
            arguments.runs,
            at_most=1.5,
        )
        short = str(folder / "short.txt")
        ok &= compare(
            "ten short lines / minimal script, one padded batch",
            [*rerank, QUERY, short],
            [*python, str(script), str(MODEL), QUERY, short, "10"],
            arguments.runs,
            at_most=1.3,
        )
        if arguments.passages:
            long = folder / "passages.txt"
            passages = sample(arguments.passages, arguments.count)
            long.write_text("\n".join(passages) + "\n", encoding="utf-8")
            ok &= compare(
                f"minimal script, batches of 32 / {len(passages)} passages of 20 to 400 tokens",
                [*python, str(script), str(MODEL), QUERY, str(long), "32"],
                [*rerank, QUERY, str(long)],
                arguments.long_runs,
                at_least=1.5,
            )
    sys.exit(0 if ok else 1)


def compare(
    description: str,
    first: list[str],
    second: list[str],
    runs: int,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> bool:
    """Time two commands in turn, print the ratio of their medians, and hold it to a bound."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(runs + 1):
        for command, own_times in zip((first, second), times, strict=True):
            seconds = measure_seconds(command)
            if turn:
                own_times.append(seconds)
    medians = [statistics.median(own_times) for own_times in times]
    ratio = medians[0] / medians[1]
    is_met = (at_most is None or ratio <= at_most) and (at_least is None or ratio >= at_least)
    target = f"at most {at_most}" if at_most is not None else f"at least {at_least}"
    print(
        f"{ratio:5.2f}  {'met   ' if is_met else 'MISSED'}  {target:12}  {description}  "
        f"({medians[0]:.3f} s / {medians[1]:.3f} s, {runs} runs)",
        flush=True,
    )
    return is_met


def measure_seconds(command: list[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def sample(corpus: Path, count: int) -> list[str]:
    """Draw passages and cut each to a length drawn evenly from 20 to 400 tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    draw = random.Random(0)
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        texts = [" ".join(json.loads(line)["text"].split()) for line in lines]
    draw.shuffle(texts)
    passages: list[str] = []
    for text in texts:
        token_count = draw.randint(20, 400)
        spans = tokenizer.encode(text, add_special_tokens=False).offsets
        if len(spans) >= token_count:
            passages.append(text[: spans[token_count - 1][1]])
        if len(passages) == count:
            return passages
    raise SystemExit(f"{corpus} is long enough for {len(passages)} passages only")


if __name__ == "__main__":
    main()
