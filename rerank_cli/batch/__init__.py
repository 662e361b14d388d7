"""Many queries, each with its own documents: read, scored together, written in the order they came.

    source (lines, TREC, Parquet) → Record… → flow (scores many at once) → Outcome… → sink
                                                                             └→ journal

`reading` makes records of what a source gives, `flow` scores them, whatever their number, in memory
that is bounded in bytes; `written` says what a record becomes. These know no files and no clock,
and are the same on one machine (`job`) and on a cluster (`on_ray`). Where a job was is in its
`journal`, so that one that died goes on there.
"""
