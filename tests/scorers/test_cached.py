"""A scorer with a cache gives what it gives without one, and asks for nothing twice."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Reranker, open_scorer
from rerank_cli.errors import ScorerError, UsageError
from rerank_cli.providers import RemoteOptions
from rerank_cli.ranking import CacheOptions, ChunkOptions
from rerank_cli.ranking.powers import LastingScorer, Part
from rerank_cli.scorers.cached import CachedScorer
from rerank_cli.scorers.scheduler import wait_for_scores
from rerank_cli.scorers.score_file import ScoreFile
from rerank_cli.types import Chunk, Document, Media, Pair, Scored, Scorer
from tests.conftest import MODELS, ROOT, Run
from tests.support.fakes import WORDS_INFO, OverlapScorer
from tests.support.loopback import serve
from tests.support.remote_commands import KEY

BERT = str(MODELS / "bert")
FAQ = "examples/faq.txt"
SECRET = "sk-9876543210fedcba"
LINES = (ROOT / FAQ).read_text(encoding="utf-8").splitlines()
WORDS = st.text("abx! ", max_size=5)


class DoneJob:
    def cancel(self) -> None:
        pass


class LastingFake(OverlapScorer):
    """Remembers what it has scored. A text with an x has no score, and one with a ! fails."""

    def __init__(self, identity: str = "fake") -> None:
        super().__init__(replace(WORDS_INFO, remote=True))
        self.identity = identity
        self.given_pairs: list[tuple[str, str]] = []

    def start(
        self,
        pairs: Sequence[Pair],
        receive: Callable[[Part | BaseException], None],
        *,
        keep: int | None = None,
        client: object = None,
    ) -> DoneJob:
        for place in reversed(range(len(pairs))):
            query, text = pairs[place].query, pairs[place].chunk.scored_text
            self.given_pairs.append((query, text))
            if "!" in text:
                receive(ScorerError("it failed"))
                break
            score = None if "x" in text else crc32(f"{self.identity}{query}|{text}".encode()) / 7
            receive(Part([place], Scored([score], usage={"characters": len(text)}, notes=["n"])))
        return DoneJob()

    def score(self, pairs: Sequence[Pair], keep: int | None = None) -> Scored:
        return wait_for_scores(self, pairs, keep)

    def recall(self, pairs: Sequence[Pair], values: Sequence[float]) -> Scored:
        characters = sum(len(pair.chunk.scored_text) for pair in pairs)
        return Scored(values, usage={"characters": characters}, notes=["n"])

    def with_instruction(self, instruction: str) -> "LastingFake":
        return LastingFake(f"{self.identity} {instruction}")

    def account(self) -> str:
        return ""

    def close(self) -> None:
        pass


def outcome(scorer: Scorer, pairs: Sequence[Pair]) -> Scored | str:
    """What a scorer gives, or the error that it raises."""
    try:
        result = scorer.score(pairs)
    except ScorerError as error:
        return str(error)
    return replace(result, usage=dict(result.usage), notes=[*result.notes], cached=0)


PAIRS = st.tuples(st.sampled_from(["q", "qq"]), WORDS)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    calls=st.lists(st.lists(PAIRS, min_size=1, max_size=6), max_size=5), is_reopened=st.booleans()
)
def test_results_are_those_without_a_cache(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[tuple[str, str]]], is_reopened: bool
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    file = ScoreFile(folder)
    fake = LastingFake()
    for call in calls:
        pairs = [Pair.from_texts(*pair) for pair in call]
        assert outcome(CachedScorer(fake, file), pairs) == outcome(LastingFake(), pairs)
        if is_reopened:
            file.close()
            file = ScoreFile(folder)
    file.close()
    pairs_scored = [pair for pair in fake.given_pairs if "x" not in pair[1] and "!" not in pair[1]]
    again = Counter(pairs_scored) - Counter(set(pairs_scored))
    # Twice only if both were in one call: then `ScorePool` has one of them.
    assert all(any(call.count(pair) > 1 for call in calls) for pair in again)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ScoreFile]:
    file = ScoreFile(tmp_path / "scores")
    yield file
    file.close()


def chunk_of(text: str, **changes: Any) -> Chunk:
    document = Document(text, **changes.pop("document", {}))
    return replace(Chunk(document, 0, len(text), text, 1), **changes)


def test_all_that_is_scored_counts_and_nothing_else(file: ScoreFile) -> None:
    fake = LastingFake()
    first = CachedScorer(fake, file)
    first.score([Pair("q", chunk_of("a"))])
    same = [
        chunk_of("a", tokens=9, headings=["H"]),
        chunk_of("a", ids=[1, 2]),  # a service gets the text
        Chunk(Document("b a", id="other", source="x.txt", line=3), 2, 3, "a", 1),
    ]
    assert first.score([Pair("q", chunk) for chunk in same]).cached == len(same)
    others = [chunk_of("a "), chunk_of("A"), chunk_of("a", title="H"), chunk_of("")]
    assert first.score([Pair("q", chunk) for chunk in others]).cached == 0
    assert first.score([Pair("q ", chunk_of("a")), Pair("", chunk_of("qa"))]).cached == 0
    for other in (LastingFake("other"), fake.with_instruction("i")):
        assert CachedScorer(other, file).score([Pair("q", chunk_of("a"))]).cached == 0
    assert first.with_instruction("i").score([Pair("q", chunk_of("a"))]).cached == 1


def test_a_local_model_is_given_tokens(file: ScoreFile) -> None:
    fake = LastingFake()
    fake.info = WORDS_INFO
    scorer = CachedScorer(fake, file)
    scorer.score([Pair("q", chunk_of("a", ids=[1, 2]))])
    assert scorer.score([Pair("q", chunk_of("a", ids=[1, 2]))]).cached == 1
    assert scorer.score([Pair("q", chunk_of("b", ids=[1, 2]))]).cached == 1
    assert scorer.score([Pair("q", chunk_of("a", ids=[1, 3]))]).cached == 0
    assert scorer.score([Pair("q", chunk_of("a"))]).cached == 0


def test_what_may_change_is_scored_each_time(file: ScoreFile, tmp_path: Path) -> None:
    scorer = CachedScorer(LastingFake(), file)
    (tmp_path / "a.png").write_bytes(b"old")
    places = {
        "https://example.com/a.png": 0,
        str(tmp_path / "missing.png"): 0,
        str(tmp_path / "a.png"): 1,
        "data:image/png;base64,AAAA": 1,
    }
    for place, is_known in places.items():
        pair = Pair("q", chunk_of("a", document={"media": Media("image", place)}))
        scorer.score([pair])
        assert scorer.score([pair]).cached == is_known, place


def test_a_scorer_without_an_identity_is_not_cached(file: ScoreFile) -> None:
    scorer = CachedScorer(LastingFake(""), file)
    pairs = [Pair.from_texts("q", "a")]
    assert [scorer.score(pairs).cached for _ in range(2)] == [0, 0]
    assert scorer.find_missing_pairs(pairs) == pairs
    assert "not used" in scorer.account()


@pytest.mark.parametrize("model", ["bert", "bert-classes", "xlmr"])
def test_a_model_here_gives_the_same_ranking(model: str) -> None:
    """Whether all, some or none of the scores are known, also with what else a ranking says."""
    path = str(MODELS / model)
    query = "how do I get a refund"
    with Reranker(path) as plain:
        expected_ranking = plain.rank(query, LINES, explain=True)
        sentences = plain.find_sentences(expected_ranking)
    for known_count in (0, 5, len(LINES)):
        with Reranker(path, cache=True) as reranker:
            ranking = reranker.rank(
                query, LINES[:known_count] if known_count == 5 else LINES, explain=True
            )
            if known_count == 5:
                assert ranking.cached == 5
                continue
            assert ranking.cached == known_count
            assert replace(ranking, cached=0, info=expected_ranking.info) == expected_ranking
            assert reranker.find_sentences(ranking) == sentences
    with Reranker(path, cache=True) as reranker:  # sentences are scored too
        reranker.find_sentences(reranker.rank(query, LINES))
        assert isinstance(reranker.scorer, CachedScorer)
        assert reranker.scorer._counts["known"] == reranker.scorer._counts["scores"]


def test_another_model_in_its_place_is_another(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("bert", "xlmr", "bert"):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(MODELS / name, folder)
        with Reranker(str(folder), cache=True) as reranker:
            ranking = reranker.rank("how do I get a refund", LINES)
        with Reranker(str(MODELS / name)) as reranker:
            plain = reranker.rank("how do I get a refund", LINES)
        assert [r.raw_score for r in ranking] == [r.raw_score for r in plain]


def test_each_file_of_a_model_counts(tmp_path: Path) -> None:
    def identity() -> str:
        scorer = open_scorer(str(tmp_path / "bert"))
        assert isinstance(scorer, LastingScorer)
        return scorer.identity

    shutil.copytree(MODELS / "bert", tmp_path / "bert")
    identities = {identity(), identity()}
    assert len(identities) == 1
    config = tmp_path / "bert" / "config.json"
    config.write_text(config.read_text().rstrip() + "\n\n")
    identities.add(identity())
    tokenizer = tmp_path / "bert" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    identities.add(identity())
    assert len(identities) == 3


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", KEY)


COHERE = "cohere/rerank-v3.5"


def test_what_changes_a_services_scores_changes_its_identity() -> None:
    def identity(model: str = COHERE, *, cut: int | None = None, **options: Any) -> str:
        options = {"base_url": "http://localhost:9", **options}
        scorer = open_scorer(
            model, remote=RemoteOptions(**options), chunks=ChunkOptions(chunk_tokens=cut)
        )
        assert isinstance(scorer, LastingScorer)
        return scorer.identity

    plain = identity()
    assert identity(concurrency=9, retries=1, timeout=3.0, sigmoid=False) == plain
    assert KEY not in plain
    assert SECRET not in identity(headers={"X-Api-Key": SECRET}, fields={"api_key": SECRET})
    others = [
        identity("cohere/rerank-v4.0-pro"),
        identity(base_url="http://localhost:10"),
        identity(fields={"priority": 3}),
        identity(headers={"X-Model": "b"}),
        identity(max_document_tokens=100),
        identity("tei/m"),
        identity("tei/m", truncate="end"),
    ]
    assert len({plain, *others}) == 1 + len(others)


def jsonl(rerank: Run, *arguments: str) -> str:
    outcome = rerank("-f", "jsonl", "how do I get a refund", FAQ, *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    return outcome.out


def test_a_service_is_asked_once(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        service = ["-m", COHERE, "--base-url", server.url]
        expected_rows = jsonl(rerank, *service)
        request_count = len(server.requests)
        for n in ("3", "0", "1"):  # the first of these has the scores of all
            best = "".join(expected_rows.splitlines(keepends=True)[: int(n) or None])
            assert jsonl(rerank, *service, "--cache", "-n", n) == best
            assert len(server.requests) == request_count + 1
        assert jsonl(rerank, *service, "--no-cache") == expected_rows
        assert len(server.requests) == request_count + 2
        outcome = rerank(*service, "--cache", "-v", "how do I get a refund", FAQ, "-d", "a new one")
        assert "1 request to cohere; 1 search unit billed" in outcome.err
        assert f"cache: {len(LINES)} of {len(LINES) + 1} scores known from before" in outcome.err


def test_a_dry_run_plans_what_is_not_known_and_keeps_nothing(rerank: Run) -> None:
    with serve("cohere-v2") as server:
        arguments = ["-m", COHERE, "--base-url", server.url, "--cache", "refund", "-d", "a"]
        for _ in range(2):
            plan = json.loads(rerank(*arguments, "--dry-run", "--json").out)
            assert (plan["requests"], plan["cached"]) == (1, 0)
        rerank(*arguments)
        plan = json.loads(rerank(*arguments, "-d", "b", "--dry-run", "--json").out)
        assert (plan["requests"], plan["chunks"], plan["cached"]) == (1, 1, 1)
        outcome = rerank(*arguments, "--dry-run")
        assert "0 requests" in outcome.out
        assert "1 score in the cache" in outcome.out
        assert len(server.requests) == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["-m", "bm25"], ["-m", "jina/jina-reranker-v3"]])
def test_scores_of_a_set_are_not_kept(
    arguments: list[str], rerank: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JINA_API_KEY", KEY)
    with serve("jina") as server:
        url_options = [] if arguments[1] == "bm25" else ["--base-url", server.url]
        for _ in range(2):
            assert (
                rerank(*arguments, *url_options, "--cache", "a refund of the shoes", FAQ).code == 0
            )
    assert not (home / "cache" / "scores").exists()


def test_a_command_writes_the_same_bytes(rerank: Run) -> None:
    for arguments in (["--json"], ["-f", "table"], ["--json", "-n", "3", "--explain"]):
        runs = [
            rerank("-m", BERT, "how do I get a refund", FAQ, *arguments, *cache)
            for cache in ([], ["--cache"], ["--cache"])
        ]
        assert len({(outcome.code, outcome.raw, outcome.err) for outcome in runs}) == 1


@pytest.mark.slow
def test_an_instruction_counts(rerank: Run) -> None:
    path = str(ROOT / "tests" / "support" / "families" / "qwen3")
    scores = {
        instruction: json.loads(
            rerank("-m", path, "a", "-d", "b", "--json", *cache, "--instruction", instruction).out
        )["results"][0]["raw_score"]
        for cache in (["--cache"], ["--cache"])
        for instruction in ("find this", "find that")
    }
    for instruction, score in scores.items():
        outcome = rerank("-m", path, "a", "-d", "b", "--json", "--instruction", instruction)
        assert json.loads(outcome.out)["results"][0]["raw_score"] == score


@pytest.mark.slow
def test_damage_is_said_with_the_right_results(rerank: Run, home: Path) -> None:
    arguments = ["-m", BERT, "--cache", "how do I get a refund", FAQ]
    first = rerank(*arguments)
    path = home / "cache" / "scores" / "scores.db"
    path.write_bytes(b"not a database at all" * 1000)
    path.with_name("scores.db-wal").unlink(missing_ok=True)
    again, third = rerank(*arguments), rerank(*arguments)
    assert first.raw == again.raw == third.raw
    assert again.err.count("scores.db.damaged") == 1
    assert third.err == first.err == ""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rank", "batch", "eval"])
def test_what_fails_when_a_run_ends_is_said(
    rerank: Run, home: Path, tmp_path: Path, command: str
) -> None:
    """A short run writes its scores at its end."""
    if command == "eval":
        pytest.importorskip("ir_measures")
    source = tmp_path / "set.jsonl"
    record = {"query": "refund", "documents": LINES, "relevant": [1]}
    source.write_text(json.dumps(record) + "\n", encoding="utf-8")
    path = home / "cache" / "scores" / "scores.db"
    file = ScoreFile(path.parent)
    file.put({b"k" * 20: 0.5}, "m@1")
    file.close()
    content = bytearray(path.read_bytes())
    content[18] = 9  # of a later SQLite, whose files can be read and not written
    path.write_bytes(content)
    arguments = ("refund", FAQ) if command == "rank" else (str(source),)
    outcome = rerank(command, *arguments, "-m", BERT, "--cache")
    assert outcome.code == 0
    assert outcome.err.count(f"rerank: {path}: ") == 1


@pytest.mark.slow
def test_what_cannot_be_kept_fails_no_run(rerank: Run, home: Path) -> None:
    (home / "cache").mkdir(exist_ok=True)
    (home / "cache" / "scores").write_text("a file")
    outcome = rerank("-m", BERT, "--cache", "refund", FAQ)
    assert outcome.code == 0
    assert outcome.err.count("scores are not kept") == 1


@pytest.mark.slow
def test_a_batch_writes_the_same_bytes_and_says_what_was_known(rerank: Run, tmp_path: Path) -> None:
    queries = ["refund", "delivery", "refund"]
    source = tmp_path / "in.jsonl"
    records = [{"query": query, "documents": LINES} for query in queries]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    outputs, reports = [], []
    for number, cache in enumerate(([], ["--cache"], ["--cache"])):
        output, report = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.json"
        outcome = rerank(
            "batch", str(source), "-o", str(output), "-m", BERT, "--report", str(report), *cache
        )
        assert (outcome.code, outcome.err) == (0, "")
        outputs.append(output.read_bytes())
        reports.append(json.loads(report.read_text()))
    assert len(set(outputs)) == 1
    pairs = 2 * len(LINES)
    assert [report["pairs"] for report in reports] == [
        {"scored": pairs, "reused": len(LINES), "cached": 0},
        {"scored": pairs, "reused": len(LINES), "cached": 0},
        {"scored": 0, "reused": len(LINES), "cached": pairs},
    ]
    outcome = rerank("batch", str(source), "-m", BERT, "--cache", "-v")
    assert f"0 pairs scored, {pairs} from the cache, {len(LINES)} reused" in outcome.err
    outcome = rerank("batch", str(source), "-m", BERT, "--cache", "--plan")
    assert f"pairs     0, and {3 * len(LINES)} more are in the cache" in outcome.out


def test_a_plan_and_a_report_of_a_service_leave_out_what_is_known(
    rerank: Run, tmp_path: Path
) -> None:
    source, report = tmp_path / "in.jsonl", tmp_path / "report.json"
    records = [{"query": query, "documents": LINES} for query in ("refund", "delivery")]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    with serve("cohere-v2") as server:
        arguments = ["batch", str(source), "-m", COHERE, "--base-url", server.url, "--cache"]
        rerank("-m", COHERE, "--base-url", server.url, "--cache", "refund", FAQ)
        outcome = rerank(*arguments, "--plan")
        assert "requests  1, " in outcome.out
        output = str(tmp_path / "out.jsonl")
        assert rerank(*arguments, "-o", output, "--report", str(report)).code == 0
        assert len(server.requests) == 2
    report_body: Mapping[str, Any] = json.loads(report.read_text())
    assert report_body["requests"]["answered"] == 1
    assert report_body["pairs"]["cached"] == len(LINES)


def test_a_cluster_has_no_such_cache(rerank: Run) -> None:
    outcome = rerank("batch", "in.jsonl", "-o", "out.jsonl", "--engine", "ray", "--cache")
    assert outcome.code == 2
    assert "--cache keeps scores on one machine" in outcome.err


@pytest.mark.slow
def test_an_evaluation_measures_the_same_and_says_what_was_known(
    rerank: Run, tmp_path: Path
) -> None:
    pytest.importorskip("ir_measures")
    source = tmp_path / "set.jsonl"
    records = [
        {"query": query, "documents": LINES, "relevant": [place]}
        for place, query in enumerate(["refund", "delivery", "size", "invoice"])
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    runs = [
        rerank("eval", str(source), "-m", BERT, "--json", *cache)
        for cache in ([], ["--cache"], ["--cache"])
    ]
    eval_sets = [json.loads(outcome.out)["sets"][0] for outcome in runs]
    rows = [next(row for row in each["systems"] if row["system"] == BERT) for each in eval_sets]
    pairs = 4 * len(LINES)
    assert [row["cost"]["cached"] for row in rows] == [0, 0, pairs]
    assert rows[0]["measures"] == rows[1]["measures"] == rows[2]["measures"]
    assert rows[0]["cost"]["tokens"] == rows[2]["cost"]["tokens"]
    assert f"{pairs} of {pairs} scores came from the cache" in runs[2].err


def test_a_scorer_of_ones_own_has_no_cache() -> None:
    with pytest.raises(UsageError, match="only for a model by its name"):
        Reranker(OverlapScorer(), cache=True)
    with pytest.raises(UsageError, match="at least one byte"):
        Reranker(BERT, cache=CacheOptions(max_bytes=0))
