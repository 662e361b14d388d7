"""Where records come from: lines of JSON, or a run with its queries and its corpus."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from rerank_cli.batch.items import PARQUET_SUFFIX, Given, Item, Problem, Record, Refused, reservoir
from rerank_cli.batch.lines import Lines, digest_of
from rerank_cli.batch.lookup import Lookup
from rerank_cli.batch.reading import Fields, read_line, too_large
from rerank_cli.batch.sizes import shown
from rerank_cli.commands.batch_asked import BatchOptions
from rerank_cli.errors import InputError
from rerank_cli.inputs.file_types import STDIN
from rerank_cli.inputs.trec import run_line
from rerank_cli.terminal import encodable
from rerank_cli.types import ScorerInfo
from rerank_cli.user_files import cache_directory


class Source(Protocol):
    """The items of a batch, read once and in order."""

    missing: int  # documents that a run names and the corpus does not have

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        """The items but for the first so many, read for a scorer; raises `InputError`."""

    @property
    def share(self) -> float | None:
        """How much of the input has been read, 0 to 1; None where its size is not known."""

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        """How many items there are, and some of them, drawn by lot; reads all of the input."""

    def identity(self) -> Mapping[str, Any]:
        """What it is, so that another input is told from it."""

    def close(self) -> None: ...


class JsonLines:
    """A record a line."""

    missing = 0

    def __init__(self, path: str, fields: Fields, most: int) -> None:
        self._lines = Lines(path, most)
        self._fields = fields
        self._most = most

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, line in enumerate(self._lines):
            if place < skip:
                continue
            if line.raw is None:
                yield too_large(line.size, self._most)
            else:
                yield read_line(line.raw, self._fields, info)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, lines = reservoir(self._lines)
        return count, [
            too_large(line.size, self._most)
            if line.raw is None
            else read_line(line.raw, self._fields, info)
            for line in lines
        ]

    def identity(self) -> Mapping[str, Any]:
        if self._lines.path == STDIN:
            return {"file": STDIN}
        return {"bytes": self._lines.size, "sha256": digest_of(Path(self._lines.path))}

    def close(self) -> None:
        self._lines.close()


class Run:
    """A query a record, with the documents that a run has for it, in the run's order.

    `folder` is where a compressed corpus is unpacked.
    """

    def __init__(self, run: Path, queries: Path, corpus: Path, folder: Path, most: int) -> None:
        self.missing = 0
        self._paths = {"run": run, "queries": queries, "corpus": corpus}
        self._lines = Lines(str(run), most)
        self._queries = Lookup(queries, "query", folder)
        self._corpus = Lookup(corpus, "document", folder)

    def items(self, info: ScorerInfo, skip: int) -> Iterator[Item]:
        for place, (query, names) in enumerate(self._groups()):
            if place >= skip:
                yield self._record(query, names)

    @property
    def share(self) -> float | None:
        return self._lines.share

    def sample(self, info: ScorerInfo) -> tuple[int, list[Item]]:
        count, groups = reservoir(self._groups())
        return count, [self._record(query, names) for query, names in groups]

    def identity(self) -> Mapping[str, Any]:
        return {name: digest_of(path) for name, path in self._paths.items()}

    def close(self) -> None:
        for one in (self._lines, self._queries, self._corpus):
            one.close()

    def _groups(self) -> Iterator[tuple[str, list[str]]]:
        """The documents of each query; those of one stand together in a run."""
        seen: set[int] = set()
        query, names = "", list[str]()
        for line in self._lines:
            where = f"{self._lines.path}:{self._lines.number}"
            if line.raw is None:
                raise InputError(f"{where}: not a line of a run: it has {shown(line.size)}")
            if not line.raw.strip():
                continue
            text = encodable(line.raw.decode("utf-8", "surrogateescape"))
            own, document, _ = run_line(text, where)
            if own != query:
                if names:
                    yield query, names
                if hash(own) in seen:
                    raise InputError(
                        f"{where}: query {own} was there before, and others since",
                        hint="sort -s -k1,1 puts the lines of each query together",
                    )
                seen.add(hash(own))
                query, names = own, []
            names.append(document)
        if names:
            yield query, names

    def _record(self, query: str, names: list[str]) -> Record | Refused:
        found = self._queries.find(query)
        documents = [one for one in map(self._corpus.find, names) if one is not None]
        self.missing += len(names) - len(documents)
        given = Given(b"", name=query, size=sum(len(one.text) + 100 for one in documents))
        if found is None or not found.text.strip():
            name = self._paths["queries"].name
            return Refused(given, Problem("no_query", f"query {query} is not in {name}"))
        if not documents:
            name = self._paths["corpus"].name
            return Refused(given, Problem("no_documents", f"none of its documents is in {name}"))
        return Record(given, found.text, documents)


def source_of(asked: BatchOptions) -> Source:
    """Open the input that a command line names."""
    if asked.runs is not None:
        runs = asked.runs
        return Run(runs.run, runs.queries, runs.corpus, cache_directory(), asked.most)
    if holds_parquet(asked.input):
        from rerank_cli.batch.parquet import Rows

        return Rows(Path(asked.input), asked.fields)
    return JsonLines(asked.input, asked.fields, asked.most)


def holds_parquet(path: str) -> bool:
    """Whether an input is a Parquet file, or a folder with parts of one."""
    if path.endswith(PARQUET_SUFFIX):
        return True
    return path != STDIN and any(Path(path).glob(f"*{PARQUET_SUFFIX}"))
