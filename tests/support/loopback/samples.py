"""A right request for each dialect, and where its results are."""

from typing import Any

from tests.support.loopback.scores import score_of

QUERY = "refund window"
TEXTS = ["Shipping takes a week.", "The refund window is 30 days.", "A refund is possible."]
RANKING = sorted(range(3), key=lambda place: -score_of(QUERY, TEXTS[place]))
A = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": 2}
OBJECTS = [{"text": text} for text in TEXTS]
RELEVANCE, SCORE, LOGIT = "relevance_score", "score", "logit"
NATIVE = {"query": QUERY, "documents": TEXTS}
DASHSCOPE = {"model": "m", "input": NATIVE, "parameters": {"top_n": 2}}
PASSAGES = {"model": "m", "query": {"text": QUERY}, "passages": OBJECTS}
VOYAGE = {"model": "m", "query": QUERY, "documents": TEXTS, "top_k": 2}
MIXEDBREAD = {"model": "m", "query": QUERY, "input": TEXTS, "top_k": 2}
TEI = {"query": QUERY, "texts": TEXTS}
VERSION = {"X-Pinecone-Api-Version": "2026-07"}
INSTRUCTED = {**A, "instruct": "Find passages that answer."}

# Dialect, path, body, where the results are, and what their score is called.
CASES: list[tuple[str, str, Any, str, str]] = [
    ("kkiai", "/v1/rerank", INSTRUCTED, "results", RELEVANCE),
    ("siliconflow", "/v1/rerank", A, "results", RELEVANCE),
    ("crazyrouter", "/v1/rerank", A, "results", RELEVANCE),
    ("llmingo", "/v1/rerank", {**A, "documents": OBJECTS}, "results", RELEVANCE),
    ("sealink", "/v1/rerank", A, "results", RELEVANCE),
    ("openai-like", "/v1/rerank", A, "results", RELEVANCE),
    ("cohere-v2", "/v2/rerank", A, "results", RELEVANCE),
    ("cohere-v1", "/v1/rerank", A, "results", RELEVANCE),
    ("azure", "/v2/rerank", A, "", RELEVANCE),
    ("azure", "/v1/rerank", A, "", RELEVANCE),
    ("azure-foundry", "/providers/cohere/v2/rerank", A, "results", RELEVANCE),
    ("jina", "/v1/rerank", A, "results", RELEVANCE),
    ("together", "/v1/rerank", A, "results", RELEVANCE),
    ("zhipu", "/api/paas/v4/rerank", A, "results", RELEVANCE),
    ("novita", "/openai/v1/rerank", A, "results", RELEVANCE),
    ("openrouter", "/api/v1/rerank", A, "results", RELEVANCE),
    ("qianfan", "/v2/rerank", A, "results", RELEVANCE),
    ("gitee", "/v1/rerank", A, "results", RELEVANCE),
    ("voyage", "/v1/rerank", VOYAGE, "data", RELEVANCE),
    ("mixedbread", "/v1/reranking", MIXEDBREAD, "data", SCORE),
    ("fireworks", "/inference/v1/rerank", A, "data", RELEVANCE),
    ("pinecone", "/rerank", {**A, "documents": OBJECTS}, "data", SCORE),
    ("zeroentropy", "/v1/models/rerank", A, "results", RELEVANCE),
    ("contextual", "/v1/rerank", A, "results", RELEVANCE),
    ("isaacus", "/v1/rerankings", {**TEI, "model": "m", "top_n": 2}, "results", SCORE),
    ("dashscope-compat", "/compatible-api/v1/reranks", A, "results", RELEVANCE),
    (
        "dashscope-native",
        "/api/v1/services/rerank/text-rerank/text-rerank",
        DASHSCOPE,
        "output.results",
        RELEVANCE,
    ),
    ("nim", "/v1/ranking", PASSAGES, "rankings", LOGIT),
    ("tei", "/rerank", TEI, "", SCORE),
    ("vllm", "/v1/rerank", A, "results", RELEVANCE),
    ("sglang", "/v1/rerank", A, "", SCORE),
    ("llamacpp", "/v1/rerank", A, "results", LOGIT + RELEVANCE),
    ("llamacpp", "/rerank", TEI, "", LOGIT + SCORE),
    ("infinity", "/rerank", A, "results", RELEVANCE),
    ("xinference", "/v1/rerank", A, "results", RELEVANCE),
    ("localai", "/v1/rerank", A, "results", RELEVANCE),
    ("litellm", "/rerank", A, "results", RELEVANCE),
    ("newapi", "/v1/rerank", A, "results", RELEVANCE),
]
