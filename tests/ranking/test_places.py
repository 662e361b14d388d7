"""The prior for places: what a file's name, a definition and the like add to the model's scores."""

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_cli import Document, Ranking, rank
from rerank_cli.errors import UsageError
from rerank_cli.ranking import FileFacts, Selection
from rerank_cli.ranking.calibration import relevance
from rerank_cli.ranking.cascade import Cascade
from rerank_cli.ranking.places import (
    REPEAT_PART,
    WEIGHTS,
    FileCounter,
    PlacePrior,
)
from rerank_cli.ranking.query_names import NameSearch, QueryPath
from rerank_cli.ranking.reranker import Reranker
from rerank_cli.scorers.bm25 import BM25Scorer
from rerank_cli.types import Chunk
from tests.support.fakes import OverlapScorer, words_info
from tests.support.places import CODE, file, values

names = st.sampled_from(["a.py", "cats.py", "cats_test.py", "src/cats/a.go", "b.md", "c.txt"])
texts = st.lists(
    st.sampled_from(["cats", "dogs", "birds\n", "def cats():\n", "    return 1\n"]), max_size=30
).map(" ".join)


def scorer(**changes: object) -> OverlapScorer:
    """A scorer whose windows have eight words."""
    return OverlapScorer(words_info(8, scale="logit", **changes))


def sources(ranking: Ranking) -> list[str | None]:
    return [result.document.source for result in ranking]


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("session management", "src/sessions.py", 1.0),
        ("SessionStore", "session_store.py", 1.0),
        ("configuration loading", "config.py", 1.0),
        ("where are tokens refreshed", "token_cache.py", 0.5),
        ("how is the cache cleared", "src/cache/__init__.py", 1.0),
        ("how is the cache cleared", "lua/cache/init.lua", 1.0),
        ("how is the cache cleared", "src/Web/Cache/Internal.hs", 1.0),
        ("how is the cache cleared", "src/cache/package.scala", 1.0),
        ("how is the cache cleared", "routes/cache/+page.server.ts", 1.0),
        ("how is the cache cleared", "src/cache/mod.rs", 1.0),
        ("how is the cache cleared", "src/cache/init.py", 0.0),
        ("where is it", "sessions.py", 0.0),
        ("github client", "GitHubClient.java", 1.0),
        ("oauth token", "OAuthToken.cs", 1.0),
        ("ipv4 address", "IPv4Address.swift", 1.0),
        ("token of github", "GitHubClient.java", 2 / 3),
        ("hub client", "GitHubClient.java", 2 / 3),
        ("src/app.py", "lib/app.py", 1.0),
        ("src/app.py", "src.py", 0.0),
        ("read/write", "read.py", 1.0),
        ("why is it slow in src/app.py", "app.py", 1.0),
    ],
)
def test_the_name_of_a_file_counts_by_the_share_of_its_words(
    query: str, name: str, value: float
) -> None:
    assert values(query, name).get("name", 0.0) == value


@pytest.mark.parametrize(
    ("query", "text", "value"),
    [
        ("get_target", "def get_target():\n    pass\n", 1.0),
        ("get_target", "def GET_TARGET():\n    pass\n", 0.5),
        ("get_target", "get_target()\n", 0.0),
        ("where is get_target used", "def get_target():\n    pass\n", 1.0),
        ("how does app.run start", "def run():\n    pass\n", 1.0),
        ("who calls run() first?", "def run():\n    pass\n", 1.0),
        ("how does it run", "def run():\n    pass\n", 0.0),
        ("def run", "def run():\n    pass\n", 1.0),
        (" def run(): ", "def run():\n    pass\n", 1.0),
        ("class Run", "class Run:\n    pass\n", 1.0),
        ("class run", "class run:\n    pass\n", 0.0),
        ("type conversion", "def conversion():\n    pass\n", 0.0),
        ("src/run", "def run():\n    pass\n", 0.0),
        ("run.py", "def run():\n    pass\n", 0.0),
        ("MAX_SIZE", "MAX_SIZE = 5\n", 1.0),
        ("MAX_SIZE", "max_size: int = 5\n", 0.5),
        ("MAX_SIZE", "class A {\n    private static unsigned int MAX_SIZE = 5;\n", 1.0),
        ("MAX_SIZE", "export const MAX_SIZE: number = 5\n", 1.0),
        ("where is MAX_SIZE set", "x = 1\nMAX_SIZE = 5\n", 1.0),
        ("MAX_SIZE", "#define MAX_SIZE_BYTES 5\n", 0.0),
        ("MAX_SIZE", "def f():\n    MAX_SIZE = 5\n", 0.0),
        ("MAX_SIZE", "MAX_SIZE == 5\n", 0.0),
        ("MAX_SIZE", "f(MAX_SIZE=5)\n", 0.0),
    ],
)
def test_a_symbol_of_the_query_counts_where_it_is_defined(
    query: str, text: str, value: float
) -> None:
    assert values(query, "x.py", text).get("definition", 0.0) == value
    assert "definition" not in values(query, "x.txt", text)


def test_what_is_no_program_counts_less() -> None:
    assert [values("q", name).get("other") for name in ("a.py", "a.md", "a.yaml", "a")] == [
        None, 1.0, 1.0, 1.0
    ]  # fmt: skip


# Paths of tests, by language, and paths that only look like some.
TESTS = {
    "Python": "tests/app.py src/test_app.py unit/conftest.py src/app/tests.py src/_tests/app.py",
    "Go": "app_test.go pkg/testdata/app.go internal/testutil/app.go",
    "Rust": "src/app/tests.rs tests/app.rs src/test_helpers/mod.rs",
    "JavaScript": "src/__tests__/app.js src/__mocks__/app.js app.cy.js cypress/support/app.js"
    " e2e/app.js spec/operators/app-spec.js",
    "TypeScript": "app.spec.ts app_spec.ts app.e2e-spec.ts app.test-d.ts apps/app-e2e/src/app.ts",
    "C": "test_app.c test-app.c t/helper/app.c gcc/testsuite/app.c",
    "C++": "app_test.cc app_unittest.cc app_gtest.cpp unittests/ADT/App.cpp unit_tests/app.cpp",
    "Java": "AppTest.java AppIT.java app/src/test/java/Helper.java src/it/java/App.java"
    " src/testDebug/java/App.java src/testFixtures/java/App.java src/androidTest/java/App.java",
    "Kotlin": "src/jvmTest/kotlin/App.kt src/commonTest/kotlin/App.kt",
    "Scala": "src/AppSpec.scala src/AppSuite.scala perftests/App.scala",
    "C#": "src/Tests.cs AppTests.cs App.Tests/Helper.cs test/App.Test/Helper.cs"
    " App.IntegrationTests/Helper.cs App.TestUtilities/Helper.cs",
    "Swift": "Tests/AppTests/Helper.swift AppUITests/Helper.swift Tests-macOS/App.swift"
    " URLTests.swift",
    "Ruby": "spec/app_spec.rb spec/support/app.rb gems/app/spec/helper.rb features/support/env.rb"
    " features/step_definitions/app.rb",
    "PHP": "tests/AppTest.php spec/AppSpec.php src/Symfony/Tests/App.php tests/App.phpt",
    "Perl": "t/lib/App.pm xt/app.t",
    "shell": "test/app.bats t/0000-app.sh App.Tests.ps1",
    "others": "test/app_test.exs integration_test/support/app.ex integration_test/app_test.dart"
    " test/AppSpec.hs src/test.zig spec/helper.lua src/app_spec.lua App.t.sol",
}
NO_TESTS = {
    "Python": "testing.py testing/app.py latest.py latest/app.py spec.py unittest/case.py",
    "Go": "attestation.go job_spec.go",
    "Rust": "tokio-test/src/lib.rs",
    "TypeScript": "isLatest.ts openapi-spec.ts src/it/messages.ts features/steps/app.tsx"
    " app/t/page.tsx lib/test_runner/app.ts",
    "C": "contest.c greatest/app.c",
    "Java": "src/main/java/org/spring/test/App.java src/main/java/org/junit/Test.java"
    " java/security/spec/KeySpec.java FastestRoute.java",
    "Kotlin": "src/commonMain/kotlin/org/app/test/App.kt src/jvmMain/kotlin/TypeSpec.kt",
    "Swift": "Sources/XCTest/App.swift Sources/Testing/App.swift",
    "Ruby": "spec.rb lib/app/command/spec/cat.rb lib/app/testable.rb",
    "PHP": "src/Framework/TestCase.php src/Symfony/Test/WebTestCase.php",
    "Perl": "lib/Test/More.pm lib/Result/Test.pm",
    "others": "src/Test/Hspec/Core.hs flutter_test/app.dart Test-Path.ps1 specs/app.md"
    " inspector/app.ex",
}


@pytest.mark.parametrize("name", " ".join(TESTS.values()).split())
def test_a_test_counts_less_if_none_is_wanted(name: str) -> None:
    assert values("cats", name)["test"] == 1
    assert "test" not in values("where are cats tested", name)


@pytest.mark.parametrize(
    ("query", "name", "is_wanted"),
    [
        ("what does the spec helper do", "spec/spec_helper.rb", True),
        ("specs of cats", "src/cats_spec.lua", True),
        ("where is fetch mocked", "src/__mocks__/fetch.ts", True),
        ("cats spec", "app/cats.spec.ts", True),
        ("TypeSpec", "TypeSpecTest.kt", False),
        ("how are mocks made", "mock_test.go", False),
        ("how are mocks made", "tests/mock.py", False),
    ],
)
def test_a_query_may_want_tests_of_a_kind(query: str, name: str, is_wanted: bool) -> None:
    assert ("test" not in values(query, name)) == is_wanted


@pytest.mark.parametrize("name", " ".join(NO_TESTS.values()).split())
def test_a_path_that_only_looks_like_that_of_a_test_is_none(name: str) -> None:
    assert "test" not in values("cats", name)


@pytest.mark.parametrize(
    ("query", "name", "is_found"),
    [
        ("src/auth.py", "src/auth.py", True),
        ("src/auth.py", "./project/src/auth.py", True),
        ("./src/auth.py", "src/auth.py", True),
        ("auth.py", "src/auth.py", True),
        ("src/auth", "src/auth.py", True),
        ("src/auth.py:12", "src/auth.py", True),
        ("src/auth.py:12:4:", "src/auth.py", True),
        ("src\\Auth.py", "src/auth.py", True),
        ("/home/me/project/src/auth.py", "src/auth.py", True),
        ("/home/me/project/src/auth.py", "auth.py", False),  # any folder may have such a file
        ("lib/auth.py", "src/auth.py", False),
        ("../src/auth.py", "src/auth.py", True),
        ("../auth.py", "src/auth.py", True),
        ("/home/me/src/auth.py", "../src/auth.py", True),
        ("/home/me/src/auth.py", "/home/me/src/auth.py", True),
        ("src/../lib/auth.py", "lib/auth.py", True),
        ("src/auth.service", "src/auth.service.ts", True),
        ("src/auth", "src/auth.d.ts", True),
        ("src/auth.py", "src/auth.py.orig", False),
        ("App\\Models\\User", "app/Models/User.php", True),
        ("src/auth.py", "src/auth.pyi", False),
        ("src/auth.py", "src/oauth.py", False),
        ("auth", "src/auth.py", False),
        ("/", "src/auth.py", False),
        ("why src/auth.py", "src/auth.py", False),
        ("src/auth.py", "", False),
    ],
)
def test_a_query_may_be_the_path_of_a_file(query: str, name: str, is_found: bool) -> None:
    assert QueryPath(query).matches(file(name)) is is_found
    assert values(query, name).get("definition", 0.0) == is_found


@pytest.mark.parametrize(
    "path",
    [
        "src/UserService.ts",
        "src/auth/__init__.py",
        "src/auth/index.ts",
        "tests/auth.py",
        "src/auth.spec.ts",
        "src/AuthTest.java",
        "unit/conftest.py",
    ],
)
@pytest.mark.parametrize("form", ["{}", "./{}", "{}:3", "/home/me/{}"])
def test_a_file_has_all_that_its_path_as_query_can_give(path: str, form: str) -> None:
    values_by_part = values(form.format(path), path)
    assert (values_by_part["name"], values_by_part["definition"]) == (1.0, 1.0)
    assert "test" not in values_by_part


def test_a_name_with_its_namespace_is_found_in_whatever_file() -> None:
    text = "<?php\nclass User {\n}\n"
    assert values("App\\Models\\User", "src/all.php", text)["definition"] == 1.0
    assert values("App\\Models\\User", "src/all.php", text.lower())["definition"] == 0.5
    assert values("App\\Models\\User", "App/Models/User.php", text.lower())["definition"] == 1.0


def lines_of(chunk: Chunk) -> range:
    first = chunk.line or 0
    return range(first, first + chunk.text.rstrip().count("\n") + 1)


@settings(max_examples=30)
@given(
    st.lists(
        st.sampled_from(["x.py", "x.py cats", "    x.py 1 2", "", "def x():", "class A:"]),
        min_size=1,
        max_size=40,
    ),
    st.data(),
)
def test_the_passage_with_the_line_of_a_query_is_the_best_of_its_file(
    lines: list[str], data: st.DataObject
) -> None:
    """Whatever the model says, and however few passages it reads."""
    line = data.draw(st.integers(1, len(lines)))
    expected_line = next((n for n in range(line, len(lines) + 1) if lines[n - 1].strip()), None)
    others = [file(f"y{number}.py", "x.py x.py\n") for number in range(3)]
    documents = [*others, file("src/x.py", "\n".join(lines))]
    query = data.draw(st.sampled_from([f"x.py:{line}", f"src/x.py:{line}:4:"]))
    limits: dict[str, Any] = data.draw(
        st.sampled_from([{}, {"candidates": 4}, {"max_time": 600.0}])
    )
    by_passage = data.draw(st.booleans())
    ranking = rank(query, documents, scorer(), prior="code", passages=by_passage, **limits)
    results = [result for result in ranking if result.document.source == "src/x.py"]
    if expected_line is not None:
        assert expected_line in lines_of(results[0].passage)
        assert results[0].prior is not None
        assert "line" in results[0].prior.parts


@pytest.mark.parametrize(
    ("query", "is_first"),
    [
        ("asyncio.gather", True),
        ("gather", True),
        ("gather()", True),
        ("def gather", True),
        ("Gather", False),  # half of a definition
        ("where does gather wait", False),
    ],
)
def test_the_definition_of_a_name_is_the_best_of_its_file(query: str, is_first: bool) -> None:
    """Whatever the model says of it, and of what else the file has."""
    texts = ["await gather(a)\n", "def gather(a):\n    return a\n", "gather(b)\n"]
    document = file("tasks.py", "".join(texts))
    ends = list(itertools.accumulate(map(len, texts)))
    chunks = [
        Chunk(document, end - len(text), end, text, 0)
        for text, end in zip(texts, ends, strict=True)
    ]
    logits = [4.0, -3.0, 2.0]
    priors = PlacePrior(query).weigh(document, chunks, logits)
    scores = [logit + prior.total for logit, prior in zip(logits, priors, strict=True)]
    assert (scores.index(max(scores)) == 1) is is_first
    if is_first:
        assert priors[1].parts["definition"] == 7 + WEIGHTS["definition"]


@given(st.lists(st.floats(-30, 30), max_size=60))
def test_several_passages_count_if_they_may_answer(logits: list[float]) -> None:
    document = file("a.py")
    chunks = [Chunk(document, 0, len(CODE), CODE, 0) for _ in logits]
    rows = PlacePrior("cats").values(document, chunks, logits)
    values = {row["several"] for row in rows}
    assert len(values) <= 1
    for value in values:
        odds = [math.exp(logit) for logit in logits]
        if max(logits) >= -2:  # the logarithm of the sum of odds, above that of the best
            assert value == pytest.approx(math.log(sum(odds) / max(odds)), abs=1e-9)
        assert (
            0 <= value <= math.log1p((len(logits) - 1) * math.exp(min(0, max(logits) + 2))) + 1e-9
        )


@pytest.mark.parametrize(
    ("query", "line"), [("x.py:3", 3), ("x.py:2", 3), ("x.py:4:1", 4), ("x.py:9", 1), ("x.py", 1)]
)
def test_the_sentence_of_a_line_is_that_line(query: str, line: int) -> None:
    with Reranker(OverlapScorer(words_info(40, scale="logit"))) as reranker:
        ranking = reranker.rank(query, [file("x.py", "a = 1\n\n  b = 2\nc = 3")], prior="code")
        (sentence,) = reranker.find_sentences(ranking)
    assert sentence.line == line


def test_of_the_parts_of_a_file_the_one_with_the_line_is_named() -> None:
    parts = [
        replace(file("x.py", f"value = {number}\nvalue = 0\n"), line=2 * number + 1, whole=False)
        for number in range(900)
    ]
    ranking = rank("x.py:1500", parts, scorer(), prior="code", candidates=2, n=2)
    assert ranking[0].document.line == 1499
    assert ranking[1].prior is not None
    assert "definition" not in ranking[1].prior.parts


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, 4),
        ({"line": 2}, 2),
        ({"line": None}, None),
        ({"line": None, "page": 3}, None),
        ({"line": 3, "fields": {}}, 0),
        ({"line": 1, "fields": {}}, None),
        ({"source_lines": [1, 1, 3, 9]}, 4),
        ({"source_lines": [1, 3, 3, 9]}, 2),
        ({"source_lines": [1, 1, 1, 2]}, None),
        ({"line": 4}, None),
    ],
)
def test_a_line_is_found_by_what_is_known_of_the_lines_of_a_document(
    changes: dict[str, Any], place: int | None
) -> None:
    document = replace(file("x.py", "a\nb\nc\nd"), **changes)
    assert QueryPath("x.py:3").find_line(document) == place


@pytest.mark.parametrize(
    ("query", "absent"),
    [
        ("find_dogs", "find_dogs"),
        ("findDogs()", "findDogs"),
        ("app.find_dogs", "find_dogs"),
        ("App\\Models\\FindDogs", "FindDogs"),
        ("def find_dogs", "find_dogs"),
        ("src/dogs.py:12", "dogs.py"),
        ("dogs", "dogs"),
        ("FIND_CATS", ""),
        ("cats.py", ""),
        ("lib/cats.py:4", ""),
        ("cats.py:2", ""),
        ("cats.py:2-4", ""),
        ("cats.py:4", "cats.py:4"),
        ("src/cats.py:0", "cats.py:0"),
        ("src/cats.py#L4-L5", "cats.py:4"),
        ("where is find_dogs", ""),
        ("find-dogs", ""),
        ("https://example.com/dogs.py", ""),
        ("read/dogs", ""),
        ("what", ""),
        ("v1.2", ""),
        ("犬はどこ", ""),
        ("find_" + "dogs" * 100, ""),
    ],
)
def test_a_name_that_occurs_nowhere_is_absent(query: str, absent: str) -> None:
    documents = [file("src/cats.py", "def find_cats():\n    pass\n"), file("b.py")]
    assert rank(query, documents, scorer(), prior="code").absent == absent


@pytest.mark.parametrize(("query", "absent"), [("find_dogs", "find_dogs"), ("dogs", "")])
def test_a_plain_word_is_no_name_in_prose(query: str, absent: str) -> None:
    assert rank(query, ["The cats are here."], scorer()).absent == absent


@given(st.lists(st.tuples(names, texts), max_size=4), st.none() | st.integers(1, 3))
def test_a_name_is_absent_if_no_text_of_the_whole_input_has_it(
    files: list[tuple[str, str]], candidates: int | None
) -> None:
    documents = [file(name, text) for name, text in files]
    has_name = any("cats" in name + text for name, text in files)
    ranking = rank("x.cats()", documents, scorer(), prior="code", candidates=candidates or "all")
    assert ranking.absent == ("" if has_name else "cats")


def test_no_name_is_absent_if_not_all_was_read() -> None:
    search = NameSearch("find_dogs")
    documents = iter(search.watch([file("a.py"), file("b.py")]))
    next(documents)
    assert search.absent_name(in_code=True) == ""
    assert len(list(documents)) == 1
    assert search.absent_name(in_code=True) == "find_dogs"


def test_the_first_model_of_a_cascade_knows_what_is_absent() -> None:
    documents = [file("a.py", "cats dogs"), file("b.py", "find_cats birds")]
    with Reranker(scorer()) as first, Reranker(scorer()) as last:
        ranking = Cascade([first, last], keep=[1]).rank("find_cats", documents, Selection())
    assert ranking.absent == ""


@pytest.mark.parametrize(
    "part", [":1", ":", "1", "/", "a/", "../", "\\", "t/", "spec/", "Test/", "Tests.", "_test", "-"]
)
def test_a_long_query_is_read_in_no_time(part: str) -> None:
    start = time.process_time()
    PlacePrior(part * 30_000 + "x.py")
    assert time.process_time() - start < 2


def test_a_path_finds_its_file_among_many() -> None:
    """None of the words of the path are in the file's text, and other files have them."""
    others = [file(f"src/other{number}.py", "src auth py = 1\n") for number in range(40)]
    for first_stage in ("hybrid", "bm25"):
        best, *_ = rank(
            "src/auth.py",
            [*others, file("src/auth.py")],
            scorer(),
            candidates=5,
            n=3,
            first_stage=first_stage,
            prior="code",
        )
        assert best.document.source == "src/auth.py"


@pytest.mark.parametrize(
    ("paths", "old"),
    [
        (["src/v3/a.ts", "src/v4/core/b.ts"], ["src/v3/"]),
        (["v3/a.ts", "v10/a.ts", "v9/a.ts"], ["v3/", "v9/"]),
        (["src/v3/a.ts", "lib/v4/a.ts"], []),
        (["pkg/v1/a.py", "pkg/v1/b.py", "pkg/v1/c.py", "pkg/a.py", "pkg/b.py"], ["pkg/v1/"]),
        (["pkg/v1/a.py", "pkg/v1/b.py", "pkg/a.py"], []),
        (["pkg/v1/__init__.py", "pkg/v1/a.py", "pkg/__init__.py"], []),
        (["v1/a.go", "a.go", "v2/a.go"], ["v1/"]),
        (["v2/a.go", "a.go"], []),
        (["v1/v2/a.go", "v1/v3/a.go"], ["v1/v2/"]),
        (["src\\v1\\a.py", "src\\v2\\a.py"], ["src/v1/"]),
        (["v3/a.md", "v4/a.ts"], []),
        (["v3a/a.ts", "v4/a.ts", "dev3/a.ts"], []),
    ],
)
def test_a_version_is_old_if_a_newer_one_is_there(paths: list[str], old: list[str]) -> None:
    counter = FileCounter()
    for _ in counter.watch(map(file, paths)):
        pass
    assert counter.facts.old_folders == old


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("cats", "src/v3/a.ts", 1.0),
        ("cats", "src/v4/a.ts", 0.0),
        ("cats", "other/src/v3/a.ts", 0.0),
        ("cats in V3?", "src/v3/a.ts", 0.0),
        ("cats in v30", "src/v3/a.ts", 1.0),
    ],
)
def test_an_old_version_counts_less_if_the_query_does_not_name_it(
    query: str, name: str, value: float
) -> None:
    document = file(name)
    prior = PlacePrior(query, files=FileFacts(old_folders=["src/v3/"]))
    (values_by_part,) = prior.values(document, [Chunk(document, 0, len(CODE), CODE, 0)], [0.0])
    assert values_by_part["old"] == value


@pytest.mark.parametrize(
    ("paths", "tests"),
    [
        (["home/tests/proj/a.py", "home/tests/proj/tests/a.py"], ["home/tests/proj/tests/a.py"]),
        (["tests/a.py", "src/a.py"], ["tests/a.py"]),
        (["tests/a.py", "tests/unit/b.py"], []),
        (["tests/test_a.py", "tests/README.md"], []),
        (["proj/tests/a.py", "proj/contests/a.py"], ["proj/tests/a.py"]),
        (["..\\test\\proj\\a.py", "..\\test\\proj\\a_test.py"], ["..\\test\\proj\\a_test.py"]),
        (["test_a.py"], []),
        (["/tests/a.py", "b.py"], ["/tests/a.py"]),
    ],
)
def test_a_test_is_one_below_the_folder_that_all_files_are_in(
    paths: list[str], tests: list[str]
) -> None:
    ranking = rank("cats", map(file, paths), scorer(), candidates=9, n=9, prior="code")
    assert [
        result.document.source
        for result in sorted(ranking, key=lambda result: result.index)
        if result.prior is not None and "test" in result.prior.parts
    ] == tests


@given(
    st.lists(st.sampled_from(["a", "ab", "tests", "v1", ".."]), max_size=3),
    st.lists(
        st.lists(st.sampled_from(["a", "ab", "tests", "v1"]), max_size=2).map(
            lambda folders: "/".join([*folders, "a.py"])
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_where_the_files_lie_changes_no_prior(folders: list[str], names: list[str]) -> None:
    """The same files in another folder, and beside the folder itself, have the same scores."""
    priors = []
    for root in ("", "".join(f"{folder}/" for folder in folders)):
        documents = [file(root + name) for name in [*names, "b.py", "c/d.py"]]
        ranking = rank("cats", documents, scorer(), candidates=9, n=9, prior="code")
        priors.append({result.index: result.prior for result in ranking})
    assert priors[0] == priors[1]


VERSIONS = [file("v3/a.ts", "cats dogs"), file("v4/a.ts", "cats birds birds"), file("b.ts")]


@pytest.mark.parametrize("rule", ["auto", "code"])
def test_versions_are_known_where_a_first_stage_has_read_all_files(rule: str) -> None:
    ranking = rank("cats dogs", VERSIONS, scorer(), candidates=2, prior=rule)
    assert sources(ranking) == ["v4/a.ts", "v3/a.ts"]
    assert ranking[1].prior is not None
    assert ranking[1].prior.parts == {"old": WEIGHTS["old"]}
    ranking = rank("cats dogs", VERSIONS, scorer(), prior=rule)
    assert sources(ranking)[:2] == ["v3/a.ts", "v4/a.ts"]


def test_the_next_model_of_a_cascade_knows_old_versions_that_are_left_alone() -> None:
    documents = [file("v3/a.ts", "cats dogs " * 2), file("v4/a.ts", "birds"), file("b.ts")]
    with Reranker(scorer()) as first, Reranker(scorer()) as last:
        selection = Selection(candidates=2, prior="auto")
        ranking = Cascade([first, last], keep=[1]).rank("cats dogs", documents, selection)
    assert ranking[0].document.source == "v3/a.ts"
    assert ranking[0].prior is not None
    assert ranking[0].prior.parts["old"] == WEIGHTS["old"]


def test_scores_are_the_models_and_the_prior_is_apart() -> None:
    documents = [file("dogs.py", "cats dogs"), file("cats.py", "cats dogs")]
    plain = rank("cats", documents, scorer())
    prior_ranking = rank("cats", documents, scorer(), prior="code")
    assert sources(plain) == ["dogs.py", "cats.py"]
    assert sources(prior_ranking) == ["cats.py", "dogs.py"]
    best = prior_ranking[0]
    assert (plain.prior, prior_ranking.prior) == (None, "code")
    assert best.prior is not None
    assert best.prior.parts["name"] == WEIGHTS["name"]
    assert best.raw_score == pytest.approx(plain[1].raw_score)
    assert best.score == pytest.approx(best.raw_score + best.prior.total)
    assert best.relevance_score == relevance(best.score, "logit")


def test_the_passage_that_defines_a_symbol_is_the_one_that_counts() -> None:
    text = "# the cats are named\n\nvalue = 1\n\n\ndef cats():\n    return none at all\n"
    plain = rank("cats", [file("x.py", text)], scorer())[0]
    result_with_prior = rank("cats", [file("x.py", text)], scorer(), prior="code")[0]
    assert plain.passage.line == 1
    assert result_with_prior.passage.line == 6


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "a.java",
            "class A {\n  /**\n   * Cats.\n   * @see #cats(int)\n   */\n  public int cats() {\n",
            6,
        ),
        ("a.c", "/* cats -- all cats */\nstatic int *\ncats(int dogs)\n{\n  return 0;\n}\n", 3),
        ("a.py", "# cats are cats\n@cats\ndef cats():\n    pass\n", 3),
        ("a.rs", "/// The cats.\npub fn cats() {\n}\n", 2),
    ],
)
def test_a_definition_is_where_its_name_is_and_not_in_its_comment(
    name: str, text: str, line: int
) -> None:
    if name == "a.java":
        text += "    return 1;\n  }\n}\n"
    with Reranker(scorer()) as reranker:
        ranking = reranker.rank("cats", [file(name, text)], prior="code")
        (sentence,) = reranker.find_sentences(ranking)
    assert sentence.line == line


def test_the_sentence_of_a_definition_is_its_line() -> None:
    text = '"""cats"""\n\n# cats of all cats\n@cats\ndef cats():\n    return "cats", cats\n'
    with Reranker(scorer()) as reranker:
        ranking = reranker.rank("cats", [file("x.py", text)], prior="code")
        (sentence,) = reranker.find_sentences(ranking)
    assert (sentence.text, sentence.line) == ("def cats():", 5)


def test_further_passages_of_a_file_count_less_in_a_ranking_of_passages() -> None:
    text = "\n".join(f"cats dogs {number} is here for a line of it" for number in range(3))
    documents = [file("a.py", text), file("b.py", "cats\n")]
    ranking = rank("cats dogs", documents, scorer(), passages=True, prior="code")
    repeats = [result.prior.parts.get(REPEAT_PART, 0.0) for result in ranking if result.prior]
    count = len(repeats) - 1  # of the passages of a.py
    expected = [WEIGHTS[REPEAT_PART] * math.log(place) for place in range(1, count + 1)]
    assert sorted(repeats) == pytest.approx(sorted([0.0, *expected]))
    whole = rank("cats dogs", documents, scorer(), prior="code", explain=True)
    assert all(REPEAT_PART not in result.prior.parts for result in whole if result.prior)


@given(st.lists(st.tuples(names, texts), max_size=6), st.none() | st.integers(1, 3), st.booleans())
def test_prose_is_untouched_to_the_bit(
    files: list[tuple[str, str]], n: int | None, passages: bool
) -> None:
    documents = [file(f"{number}/{name}", text) for number, (name, text) in enumerate(files)]
    prose = [replace(document, syntax="") for document in documents]
    plain = rank("cats dogs", prose, scorer(), n=n, passages=passages, explain=True)
    assert (
        rank("cats dogs", prose, scorer(), n=n, passages=passages, explain=True, prior="auto")
        == plain
    )


@given(st.lists(st.tuples(names, texts), max_size=6), st.none() | st.integers(1, 3), st.booleans())
def test_auto_is_what_the_files_make_it(
    files: list[tuple[str, str]], n: int | None, is_stream: bool
) -> None:
    documents = [file(f"{number}/{name}", text) for number, (name, text) in enumerate(files)]

    def read() -> Sequence[Document] | Iterator[Document]:
        return iter(documents) if is_stream else documents

    code = sum(len(d.text) for d in documents if d.syntax in ("python", "go"))
    rule = "code" if code > sum(len(d.text) for d in documents) - code else "none"
    assert rank("cats dogs", read(), scorer(), n=n, prior="auto") == rank(
        "cats dogs", documents, scorer(), n=n, prior=rule
    )


def test_configuration_is_neither_code_nor_prose() -> None:
    program, *others = [file("a.py"), file("b.yaml"), file("c.toml")]
    assert rank("cats", [program, *others], scorer(), prior="auto").prior == "code"
    assert rank("cats", others, scorer(), prior="auto").prior is None
    assert rank("cats", [program, file("d.md"), *others], scorer(), prior="auto").prior is None


def is_code_tree(documents: Iterable[Document]) -> bool:
    counter = FileCounter()
    for _ in counter.watch(documents):
        pass
    return counter.is_code


def test_neither_many_tiny_files_nor_a_large_one_decide_about_a_tree() -> None:
    programs = [file(f"{number}.py", CODE * 500) for number in range(3)]
    keys = [file(f"{number}.asc", "key\n") for number in range(50)]
    log = file("log.txt", "line\n" * 100_000)
    lines = [Document("line", source="log.txt", line=number) for number in range(1, 20_000)]
    assert is_code_tree([*programs, *keys])
    assert is_code_tree([*programs, log])
    assert is_code_tree([*programs, *lines])
    assert not is_code_tree([programs[0], log, file("b.txt", log.text)])
    assert not is_code_tree([programs[0], *map(Document, [log.text, log.text])])


def test_files_that_are_read_twice_are_counted_once() -> None:
    counter, documents = FileCounter(), [file("a.py"), file("b.md"), file("c.md"), file("d.py")]
    for _ in zip(range(2), counter.watch(documents), strict=False):
        pass  # a reading that is broken off, as of a stream that fails
    for _ in counter.watch([*documents, file("e.py")]):
        pass
    assert counter.is_code
    for document in counter.watch(documents):
        assert counter.is_code, f"{document.source} was counted again"


def test_scores_of_other_scales_have_no_prior() -> None:
    for model in (BM25Scorer(), OverlapScorer(words_info(8, scale="probability"))):
        ranking = rank("cats", [file("cats.py", "cats")], model, prior="code")
        assert (ranking.prior, ranking[0].prior) == (None, None)
    assert rank("cats", [file("cats.py", "cats")], scorer(remote=True), prior="code").prior is None


def test_a_prior_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="prior"):
        Selection(prior="prose").check()


def test_a_result_has_its_best_passages_best_first() -> None:
    text = "\n".join(["dogs " * 8, "cats dogs " * 4, "cats " * 8, "birds " * 8])
    selection = Selection(best_passages=2)
    with Reranker(scorer()) as reranker:
        (result,) = reranker.submit("cats dogs", [Document(text)], selection).result()
    assert result.explanation[0].chunk == result.passage
    scores = [chunk_score.raw_score for chunk_score in result.explanation]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
