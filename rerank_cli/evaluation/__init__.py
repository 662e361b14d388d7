"""Does reranking help on a user's own queries: collections, candidates, measures, and how sure.

collection   queries, judgements and candidates, whatever form they came in (beir, trec, lists)
first_stage  candidates by BM25, where none came
systems      what is compared: a model and its options
runner       scores every candidate once, and foretells how long that takes
measures     figures per query by ir-measures; statistics: what they tell; agreement: of two
"""
