"""The heart: a query and documents in, a ranking out. Reads nothing and prints nothing.

    query ─ plan_chunks ─ Plan ─┐
    documents ──────────── split ─ Split ─ ScorePool ─ RankingBuilder ─ Ranking

`chunking` cuts documents, `scoring` gets the scores of many rankings at once, `results` selects,
and `reranker` puts these together.
"""
