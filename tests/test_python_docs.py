"""docs/python.md: its examples run, print what the page says, and are typed.

Those for other libraries need `[dev-all]`. Each runs in a process of its own, without a network and
with warnings as errors.
"""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerank_cli.batch import flow
from rerank_cli.errors import OutputError, RerankError, ScorerError
from tests.conftest import ROOT
from tests.support.console import is_printed
from tests.support.loopback import serve

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
_EXAMPLE = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
)
EXAMPLES = _EXAMPLE.findall(PAGE)
LIBRARIES = ("langchain_core", "langchain_classic", "llama_index", "haystack")
# Neither reports of use nor traces are sent, and no file of theirs is written to a user's home.
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "",
}


def test_the_table_of_errors_has_each_kind_that_calls_raise() -> None:
    kinds = {*RerankError.__subclasses__(), *ScorerError.__subclasses__()} - {OutputError}
    kinds = {kind for kind in kinds if kind.__module__ == "rerank_cli.errors"}
    table = PAGE.partition("## Errors")[2]
    assert [kind.__name__ for kind in kinds if f"| `{kind.__name__}` |" not in table] == []


def library_of(code: str) -> str:
    """The library that an example is for; empty if it needs none."""
    return next((name for name in LIBRARIES if f"from {name}" in code), "")


OWN = [(code, output) for code, output in EXAMPLES if not library_of(code)]
FOR_LIBRARIES = {library_of(code): (code, output) for code, output in EXAMPLES if library_of(code)}


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server in the place of Cohere's."""
    monkeypatch.setenv("COHERE_API_KEY", "key")
    with serve("cohere-v2", key="key") as server:
        (home / "providers.toml").write_text(f'[cohere]\nurl = "{server.url}"\n')
        yield


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(("code", "output"), OWN)
def test_an_example_prints_what_the_page_says(
    code: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(code, {})
    text = capsys.readouterr().out
    assert is_printed(output.splitlines(), text) if output else text


def run_with(library: str, code: str, folder: Path) -> str:
    """What a program prints that needs a library, if that is installed."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"needs {library}, which [dev-all] installs")
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **QUIET, "HOME": str(folder), "PYTHONPATH": str(ROOT)},
    )
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


def test_there_is_an_example_for_each_library() -> None:
    assert set(FOR_LIBRARIES) == {"langchain_core", "llama_index", "haystack"}
    assert len(OWN) >= 5
    for library in ("langchain-core", "langchain-classic", "llama-index-core", "haystack-ai"):
        assert f'"{library}>=' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_every_code_of_an_error_is_in_the_table() -> None:
    source = (ROOT / "rerank_cli" / "batch" / "records.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'Problem(?:Found)?\("(\w+)"', source))
    lines_only = {"not_json", "too_large"}  # what comes as mappings has been parsed
    codes = codes - lines_only | {*flow._PROBLEM_CODES.values(), *flow.PASSING_CODES}
    assert set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE.split("| code |")[1].split("\n\n")[0])) == (
        codes | {"top_n", "min_score"}
    )


# What runs after each example: all documents, none, in a retriever, an engine or a loaded pipeline.
MORE = {
    "langchain_core": """
import asyncio
both = compressor.model_copy(update={"top_n": None}).compress_documents(documents, "a jacket")
assert sorted(str(each.id) for each in both) == ["d1", "d2"]
assert compressor.compress_documents([], "a jacket") == []
assert "relevance_score" not in documents[1].metadata
(result,) = asyncio.run(compressor.acompress_documents(documents, "How do I return an item?"))
assert result.id == "d2"
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.runnables import RunnableLambda
retriever = ContextualCompressionRetriever(
    base_compressor=compressor, base_retriever=RunnableLambda(lambda query: documents)
)
assert [each.id for each in retriever.invoke("How do I return an item?")] == ["d2"]
print("done")
""",
    "llama_index": """
import asyncio
both = RerankPostprocessor(reranker=Reranker()).postprocess_nodes(nodes, query_str="a jacket")
assert sorted(node.node_id for node in both) == ["n1", "n2"]
assert postprocessor.postprocess_nodes([], query_str="a jacket") == []
assert postprocessor.postprocess_nodes(nodes) == nodes
assert nodes[1].score == 0.7
query = QueryBundle("How do I return an item?")
(node,) = asyncio.run(postprocessor.apostprocess_nodes(nodes, query))
assert node.node_id == "n2"
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.llms import MockLLM
class FixedRetriever(BaseRetriever):
    def _retrieve(self, query_bundle):
        return nodes
engine = RetrieverQueryEngine.from_args(
    FixedRetriever(), llm=MockLLM(), node_postprocessors=[postprocessor]
)
assert [node.node_id for node in engine.query("How do I return an item?").source_nodes] == ["n2"]
print("done")
""",
    "haystack": """
ranker = RerankRanker()
both = ranker.run("a jacket", documents)["documents"]
assert sorted(each.id for each in both) == ["h1", "h2"]
assert len(ranker.run("a jacket", documents, top_k=1)["documents"]) == 1
assert ranker.run("a jacket", []) == {"documents": []}
assert documents[1].score is None
again = Pipeline.loads(pipeline.dumps(), unsafe=True)
answer = again.run({"ranker": {"query": "How do I return an item?", "documents": documents}})
assert [each.id for each in answer["ranker"]["documents"]] == ["h2"]
print("done")
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("library", MORE)
def test_an_example_for_a_library_does_what_the_library_wants(library: str, tmp_path: Path) -> None:
    code, output = FOR_LIBRARIES[library]
    text = run_with(library, code + MORE[library], tmp_path)
    assert text.endswith("done\n")
    assert is_printed(output.splitlines(), text.removesuffix("done\n"))


@pytest.mark.slow
def test_the_examples_are_typed(tmp_path: Path) -> None:
    """A user's mypy, as strict as it can be, finds nothing wrong in them."""
    codes = [code for code, _ in OWN]
    codes += [code for name, (code, _) in FOR_LIBRARIES.items() if importlib.util.find_spec(name)]
    for number, code in enumerate(codes):
        (tmp_path / f"example_{number}.py").write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert (process.returncode, process.stdout.splitlines()[-1:]) == (
        0,
        [f"Success: no issues found in {len(codes)} source files"],
    ), process.stdout
