"""Make a model from a bi-encoder's weights, the training sets and what collect.py wrote.

    pip install -r scripts/train/requirements.txt -e .
    python scripts/train/make.py mini ../shared/data/train ../shared/data/eval \\
        ../shared/models/e5-small WORK models/mini

Runs on CPU cores, or on a GPU where there is one. What is done is kept in WORK: a run that ended,
by --minutes or otherwise, goes on where it was. The evaluation sets are read for one thing only: to
leave their text out of training.
"""

import argparse
import copy
import hashlib
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import held
import overlap
import static
import torch
from collect import collect, packages_of
from encoder import FrozenTower, Int8Tower, TorchTower, Tower, channels, e5, minilm
from export import quantise, write_encoder, write_reader
from late import LateInteraction, Network
from learn import Learner
from mine import by_model, neighbours
from network import Reader
from pools import Pool, Source
from teachers import Beginning, BiEncoder, Teacher, embed
from texts import SETS, TRANSLATED_SETS, Corpus, read, read_collected
from vocabulary import write_pruned
from weights import means_of, weights_of

SEED = 0
READER = "reader.pt"  # the weights that were chosen, calibrated
# Of what training changes, how much is kept: the weights are between those of the beginning and of
# the end (Wortsman et al. 2022, WiSE-FT), as what is learned of these texts is lost on other ones.
TRAINED_SHARE = 0.5
QUESTIONS = 200  # of each set, for which passages are mined
DOCS = "docs"  # what was collected in other languages than English
EASING = 400  # every so many passages, to see which channels are large
MEANS = 60  # every so many passages, for the means of states
# The allocator gives large tensors back to the system at once, and takes as long to get them again:
# without that a step takes 0.6 of the time.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}


@dataclass(frozen=True)
class Recipe:
    """What a model is made of.

    `sets` are judged, and its scores are calibrated by `held_out` questions of each. `teachers` are
    towers, and what their cosines of whole texts and of tokens are multiplied by; the first one is
    the model's own, which begins as that. If it `is_late`, it compares tokens (late.py), and learns
    from what it began as alone. `shares` say how often a pool is of which corpus; `docs` of those
    in other languages, which have equal parts of it. Before each of the `rounds` but the first,
    passages are mined by the model of the one before. Of a corpus of collect.py at most `pairs` are
    embedded, and `translated_pairs` of those in another language: more than training comes to see
    costs time for nothing.
    """

    sets: Sequence[str]
    teachers: Mapping[str, tuple[float, float]]
    shares: Mapping[str, float]
    steps: int
    pairs: int
    translated_pairs: int = 0
    rounds: int = 2
    held_out: int = 150
    is_late: bool = False


RECIPES = {
    "mini": Recipe(
        sets=SETS,
        # By these the tokens of both weigh about the same, and whole texts a third of that.
        teachers={"minilm": (6.0, 22.0), "e5": (25.0, 75.0)},
        shares={
            "squad": 20, "nq": 20, "bioasq": 16, "qamr": 6,
            "section": 16, "option": 4, "command": 7, "listing": 12, "manual": 1, "definition": 4,
            "function": 6,
        },
        steps=700,
        pairs=10_000,
    ),
    "multi": Recipe(
        sets=(*SETS, *TRANSLATED_SETS),
        teachers={"e5-pruned": (0.0, 40.0)},
        shares={
            "squad": 14, "nq": 14, "bioasq": 8, "qamr": 3,
            "jaquad": 14, "drcd": 7, "cmrc2018": 7, "arcd": 3, DOCS: 20,
            "section": 4, "option": 1, "command": 2, "listing": 2, "definition": 1, "function": 2,
        },
        steps=400,
        pairs=2_000,
        translated_pairs=600,
        rounds=1,
        held_out=60,
        is_late=True,
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("train", type=Path)
    parser.add_argument("avoid", type=Path, help="evaluation sets, whose text is left out")
    parser.add_argument("e5", type=Path, help="folder of multilingual-e5-small")
    parser.add_argument("work", type=Path, help="where what is done is kept")
    parser.add_argument("out", type=Path, help="where the model's files go")
    parser.add_argument("--minutes", type=float, default=10_000, help="end after so many, to go on")
    parser.add_argument("--fp32", type=Path, help="keep the unquantised model in this folder too")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.minutes * 60
    work = arguments.work / arguments.model
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)

    recipe = RECIPES[arguments.model]
    corpora = read_corpora(recipe, arguments.train, arguments.avoid, arguments.work)
    towers = {
        name: freeze(tower, corpora, work / f"{name}.onnx")
        for name, tower in open_towers(recipe, corpora, arguments.e5, work).items()
    }
    bi_encoders = [
        BiEncoder(towers[name], scale, likeness)
        for name, (scale, likeness) in recipe.teachers.items()
    ]
    own = bi_encoders[0]
    tower = own.tower
    sources = {}
    for corpus in corpora:
        vectors = embed(corpus, tower, work / f"{corpus.name}-vectors.npz")
        sources[corpus.name] = Source(corpus, *neighbours(corpus, vectors, work))
        counts = f"{len(corpus.passages):,} passages, {len(corpus.questions):,} questions"
        say(f"{corpus.name}: {counts}")
    weights = weights_of(tower.tower, corpora)
    reader: Network
    teachers: Sequence[Teacher]
    if recipe.is_late:
        texts = [passage.text for corpus in corpora for passage in corpus.passages[::MEANS]]
        reader = LateInteraction(weights, means_of(tower, texts), own.likeness)
        teachers = [Beginning(tower, copy.deepcopy(reader).to(tower.device).eval())]
    else:
        levels = len(tower.tower.levels)
        reader = Reader(tower.hidden, levels, weights, own.scale, own.likeness)
        teachers = bi_encoders
    beginning = copy.deepcopy(reader.state_dict())
    learner = Learner(teachers, reader, sources, shares_of(recipe, sources), SEED)
    judged = {name: source for name, source in sources.items() if name in recipe.sets}
    learn(learner, judged, recipe, work, until)
    reader, lists = calibrated(learner, beginning, judged, recipe.held_out)
    for row in held.reliability(lists):
        say("scores {:.1f} to {:.1f}: {:6} pairs, {:.2f} relevant, {:.2f} in lists".format(*row))
    reader = reader.cpu()
    torch.save(reader.state_dict(), work / READER)
    for place in filter(None, [arguments.out, arguments.fp32]):
        place.mkdir(parents=True, exist_ok=True)
    if arguments.model == "mini":  # whose tokens the first stage compares
        table = [corpus for corpus in corpora if corpus.name in static.SETS]
        static.write_table(tower.tower, table, arguments.out)
    write_model(tower.tower, reader, corpora, arguments.out, arguments.fp32)


def read_corpora(recipe: Recipe, train: Path, avoid: Path, work: Path) -> list[Corpus]:
    """All texts that are learned from; what overlaps with evaluation sets is barred."""
    collected = work / "pairs.jsonl.gz"
    if not collected.exists():
        collect(collected, work / "packages")
    held_out = {
        name for registry in ("debian", "pypi") for name in packages_of(registry, held_out=True)
    }
    corpora = [read(train, name) for name in recipe.sets]
    corpora += [
        corpus
        for corpus in read_collected(collected, held_out, recipe.pairs, recipe.translated_pairs)
        if (DOCS if is_translated(corpus.name) else corpus.name) in recipe.shares
    ]
    overlap.bar(corpora, avoid)
    return corpora


def is_translated(name: str) -> bool:
    """Whether a corpus is of what was collected in another language than English."""
    return name.startswith(f"{DOCS}-")


def shares_of(recipe: Recipe, names: Collection[str]) -> dict[str, float]:
    translated = [name for name in names if is_translated(name)]
    shares = {name: share for name, share in recipe.shares.items() if name in names}
    return shares | {name: recipe.shares[DOCS] / len(translated) for name in translated}


def open_towers(
    recipe: Recipe, corpora: Sequence[Corpus], folder: Path, work: Path
) -> dict[str, Tower]:
    """The towers of a recipe; that of e5 with fewer pieces is made if it is not there."""
    towers = {}
    for name in recipe.teachers:
        if name == "minilm":
            towers[name] = minilm()
        elif name == "e5":
            towers[name] = e5(folder)
        else:
            if not (work / name).exists():
                passages = [each.text for corpus in corpora for each in corpus.passages]
                write_pruned(e5(folder), passages, work / name)
            towers[name] = e5(work / name)
    return towers


def freeze(tower: Tower, corpora: Sequence[Corpus], path: Path) -> FrozenTower:
    """Open a tower in int8 at `path`, or on a GPU where there is one."""
    if torch.cuda.is_available():
        return TorchTower(tower, torch.device("cuda"))
    return Int8Tower(tower, easing_texts(corpora), path)


def easing_texts(corpora: Sequence[Corpus]) -> list[str]:
    return [passage.text for corpus in corpora for passage in corpus.passages[::EASING]]


def learn(
    learner: Learner, sources: Mapping[str, Source], recipe: Recipe, work: Path, until: float
) -> None:
    """Train in rounds; ends the program where the time is over."""
    path = work / "learner.pt"
    if path.exists():
        learner.load(path)
    for ended in range(1, recipe.rounds + 1):
        if ended > 1:
            mine(learner, sources, work / f"mined-{ended}.json")
        last = recipe.steps * ended // recipe.rounds
        learner.run(last, recipe.steps, path, until, say)
        if learner.step < last:
            raise SystemExit(f"step {learner.step} of {recipe.steps}: run it again to go on")


def mine(learner: Learner, sources: Mapping[str, Source], path: Path) -> None:
    if not path.exists():
        reader = learner.averaged()
        found = {
            name: by_model(source, lambda pool: learner.logits(pool, reader), QUESTIONS, SEED)
            for name, source in sources.items()
        }
        making = path.with_suffix(".making")
        making.write_text(json.dumps(found))
        making.rename(path)
    for name, mined in json.loads(path.read_text()).items():
        sources[name].mined = {int(place): passages for place, passages in mined.items()}
    say(f"passages of {path.name} are used")


def calibrated(
    learner: Learner,
    beginning: Mapping[str, torch.Tensor],
    sources: Mapping[str, Source],
    questions: int,
) -> tuple[Network, list[held.Judged]]:
    """The reader whose scores mean something, by half of the held-out questions; and the others.

    It is the learner's, TRAINED_SHARE of the way from its `beginning`.
    """
    reader = learner.averaged()
    ends = reader.state_dict()
    reader.load_state_dict(
        {name: beginning[name].lerp(ends[name].cpu(), TRAINED_SHARE) for name in ends}
    )

    def score(pool: Pool) -> torch.Tensor:
        return learner.logits(pool, reader)

    pools = held.pools_of(list(sources.values()), questions, SEED)
    lists = held.judged(pools, score)
    say(f"held out: {len(lists)} questions, nDCG@10 {held.ndcg(lists):.4f}")
    factor, bias = held.fit(lists[::2])
    say(f"calibrated by the factor {factor:.4f} and the bias {bias:.4f}")
    reader.fold(factor, bias)
    rest = [held.Judged(one.logits * factor + bias, one.relevant) for one in lists[1::2]]
    return reader, rest


def write_model(
    tower: Tower, reader: Network, corpora: Sequence[Corpus], out: Path, fp32: Path | None
) -> None:
    torch.set_num_threads(1)  # sums in one order: which channels are eased is the same each time
    weights = tower.weights()
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    eased = channels(tower, easing_texts(corpora))
    for part in ("encoder", "reader"):
        plain = out / f"{part}.fp32"
        if part == "encoder":
            write_encoder(weights, reader, tower.levels, eased, plain)
        else:
            write_reader(reader, hidden, tower.specials, plain)
        quantise(plain, out / f"{part}.onnx")
        if fp32:
            (fp32 / f"{part}.onnx").write_bytes(plain.read_bytes())
        plain.unlink()
    for place in filter(None, [out, fp32]):
        write_texts(tower, place)
    write_checksums(out)


def write_texts(tower: Tower, place: Path) -> None:
    """Write the tokenizer, and what transformers wants to know."""
    tokenizer = json.loads((tower.folder / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}
    if tower.query_mark:
        tokenizer["post_processor"] = marked(tower, tokenizer["post_processor"])
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (place / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = json.loads((tower.folder / "config.json").read_text(encoding="utf-8"))
    kept = ("hidden_size", "max_position_embeddings", "model_type", "pad_token_id", "vocab_size")
    some = {"architectures": ["RerankerOfTwoTowers"], **{name: config[name] for name in kept}}
    some |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (place / "config.json").write_text(json.dumps(some, indent=2) + "\n", encoding="utf-8")


def marked(tower: Tower, processor: dict[str, Any]) -> dict[str, Any]:
    """A template that puts a tower's marks before texts, those of passages with token type 1."""
    special = dict(processor["special_tokens"])
    pair: list[dict[str, Any]] = []
    for kind, (sequence, mark) in enumerate((("A", tower.query_mark), ("B", tower.passage_mark))):
        found = tower.tokenizer.encode(mark.strip())
        *before, end = found.tokens
        for token, place in zip(found.tokens, found.ids, strict=True):
            special.setdefault(token, {"id": token, "ids": [place], "tokens": [token]})
        pair += [{"SpecialToken": {"id": token, "type_id": kind}} for token in before]
        pair.append({"Sequence": {"id": sequence, "type_id": kind}})
        pair.append({"SpecialToken": {"id": end, "type_id": kind}})
    return {**processor, "pair": pair, "special_tokens": special}


def write_checksums(place: Path) -> None:
    """Write SHA256SUMS over what is read of the folder, as `sha256sum -c` checks it."""
    names = [
        "config.json", "encoder.onnx", "model.toml", "reader.onnx", "static.npz", "tokenizer.json",
    ]  # fmt: skip
    sums = [
        f"{hashlib.sha256((place / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if (place / name).exists()
    ]
    (place / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    if sys.platform == "linux" and not ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    main()
