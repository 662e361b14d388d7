"""Many queries, each with its own documents: scored together, and written in the order they came.

    sources ─ Item… ─ flow ─ Outcome… ─ outputs, parquet
       │      records          │
       └──────── job (one machine, with a journal) or cluster (Ray) ────────┘

`sources` read items, and `records` makes records of them. `flow` ranks them by a `Reranker`, many
at once, in memory that is bounded in bytes. `outputs` and `parquet` write the outcomes. None of
these knows where it runs: `local` runs a `job` on this machine, which continues where one died,
and `cluster` runs shards on Ray. `report` counts, and `estimate` says beforehand what a job takes.
This module has what a user can choose, and imports nothing slow.
"""

from enum import StrEnum


class BatchEngine(StrEnum):
    """The engine that runs a batch."""

    LOCAL = "local"
    RAY = "ray"


class ResultsShape(StrEnum):
    """How much of each result is written."""

    FULL = "full"  # as in `rerank --json`
    SCORES = "scores"  # its index, id and scores
    IDS = "ids"  # its document's id, or the index of a document without an id
