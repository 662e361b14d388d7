"""Measures whether reranking helps on a user's own queries, and how sure that is.

datasets    queries, judgements and candidates, from a BEIR folder, parts or a JSONL file
run         scores every candidate once by each system
measures    figures of each query by ir-measures, and how alike two orders are
statistics  the meaning of differences: an interval, a test and a verdict
labels      scores with labels, from which thresholds and calibrations are made
thresholds  cuts of scores: their figures, and which to take
report      rows of figures, comparisons, JSON and runs
tradeoff    quality against seconds, where a model reads only some passages
tune        the cheapest setting that loses no more than a user allows
table       the table, and the sentences below it; `label_tables` has those of labels
evaluate    all of these, one after the other
"""
