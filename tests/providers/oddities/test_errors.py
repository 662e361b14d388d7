"""Error bodies: one line of the server's own words, an id where there is one, and what helps."""

from typing import Any

import pytest

from tests.conftest import Run
from tests.providers.oddities.command import ask, ask_with_faults, complaint
from tests.support.loopback import Status, serve
from tests.support.loopback.faults import Fault

LOOK = "the endpoint was http://127.0.0.1:"
TOO_MANY = {"message": "Request was rejected due to rate limiting. Details: RPM limit", "data": {}}


def openai(message: str, kind: str, code: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


CASES: dict[str, tuple[str, int, Any, str, str]] = {
    "new-api": ("new-api", 500, openai("query is empty (request id: 2026)", "new_api_error", "bad"),
        "query is empty (request id: 2026) (bad), tried 2 times", ""),
    "vLLM": ("vllm", 400, openai("no model m", "NotFoundError", 404), "no model m (NotFoundError)",
        ""),
    "Infinity": ("infinity", 400, openai("model not found", "None", "400"), "model not found", ""),
    "LocalAI": ("localai", 500, openai("could not load model", "", 500),
        "could not load model, tried 2 times", ""),
    "Together": ("together", 401, openai("Invalid API key", "invalid_request_error", None),
        "Invalid API key (invalid_request_error)", "check the key: TOGETHER_API_KEY, or "),
    "llama.cpp": ("llamacpp", 501, {"error": {"code": 501, "message": "needs `--reranking`",
        "type": "not_supported_error"}}, "needs `--reranking` (not_supported_error)", ""),
    "LiteLLM": ("litellm", 401, openai("no key was passed", "auth_error", "401"),
        "no key was passed (auth_error)", "check the key: LITELLM_API_KEY, or "),
    "Mixedbread": ("mixedbread", 422, {"error": {"message": "is empty", "code": 422,
        "type": "validation_error"}}, "is empty (validation_error)", ""),
    "Pinecone": ("pinecone", 400, {"error": {"code": "INVALID_ARGUMENT", "message": "rank_fields"},
        "status": 400}, "rank_fields (INVALID_ARGUMENT)", ""),
    "OpenRouter": ("openrouter", 402, {"error": {"code": 402, "message": "Insufficient credits",
        "metadata": {"a": 1}}}, "Insufficient credits", "the account at openrouter has to be paid"),
    "TEI": ("tei", 422, {"error": "empty query", "error_type": "Validation"},
        "empty query (Validation)", ""),
    "SiliconFlow 400": ("siliconflow", 400, {"code": 20012, "message": "Model does not exist",
        "data": None}, "Model does not exist (20012)", ""),
    "SiliconFlow 401": ("siliconflow", 401, "Invalid token", "Invalid token",
        "check the key: SILICONFLOW_API_KEY, or rerank config set-key siliconflow"),
    "SiliconFlow 403": ("siliconflow", 403, b'"Forbidden"', "Forbidden", "check the key: "),
    "SiliconFlow 404": ("siliconflow", 404, b"404 page not found", "404 page not found", LOOK),
    "SiliconFlow 429": ("siliconflow", 429, TOO_MANY, f"{TOO_MANY['message']}, tried 6 times",
        "--rpm and --tpm keep to a rate"),
    "SiliconFlow 503": ("siliconflow", 503, {"code": 50505, "message": "Model service overloaded.",
        "data": ""}, "Model service overloaded. (50505), tried 6 times", ""),
    "SiliconFlow 504": ("siliconflow", 504, b'"Gateway timeout"',
        "Gateway timeout, tried 6 times", ""),
    "DashScope": ("dashscope-native", 400, {"code": "InvalidParameter", "request_id": "b-1",
        "message": "<400> InternalError.Algo: wrong"},
        "<400> InternalError.Algo: wrong (InvalidParameter) (request b-1)", ""),
    "DashScope, compatible": ("dashscope", 400, {"code": "InvalidParameter", "message": "wrong",
        "request_id": "b-1"}, "wrong (InvalidParameter) (request b-1)", ""),
    "Cohere": ("cohere", 401, {"id": "c-1", "message": "invalid api token"},
        "invalid api token (request c-1)", "check the key: CO_API_KEY, or "),
    "Cohere 498": ("cohere", 498, {"message": "blocked"}, "blocked", ""),
    "Jina": ("jina", 403, {"detail": "no balance", "code": "AUTHZ_INSUFFICIENT_BALANCE",
        "request_id": "j-1"}, "no balance (AUTHZ_INSUFFICIENT_BALANCE) (request j-1)",
        "the account at jina has to be paid for"),
    "Jina 422": ("jina", 422, {"detail": "Validation failed", "errors": [
        {"field": "top_n", "message": "must be positive", "type": "int", "input": -1}]},
        "Validation failed: top_n: must be positive", ""),
    "Voyage": ("voyage", 400, {"detail": "Model m is not supported."}, "Model m is not supported.",
        ""),
    "Xinference": ("xinference", 500, {"detail": "[address=0.0.0.0] broken"},
        "[address=0.0.0.0] broken, tried 2 times", ""),
    "FastAPI": ("openai-like", 422, {"detail": [{"loc": ["body", "texts"], "msg": "Field required",
        "type": "missing"}]}, "body.texts: Field required", ""),
    "DeepInfra": ("deepinfra", 400, {"detail": {"error": "queries must not be empty"}},
        "queries must not be empty", ""),
    "SGLang": ("sglang", 400, {"object": "error", "message": "empty query", "type": "BadRequest",
        "param": None, "code": 400}, "empty query (BadRequest)", ""),
    "JSON string": ("localai", 422, "top_n - should be greater", "top_n - should be greater", ""),
    "plain text": ("tei", 422, b"Failed to deserialize", "Failed to deserialize", ""),
    "HTML": ("openai-like", 404, b"<html><head><title>404 Not Found</title></head></html>",
        "404 Not Found", "a web page came from http://127.0.0.1:"),
    "empty": ("tei", 401, b"", "", "check the key: TEI_API_KEY, or rerank config set-key tei"),
    "AWS": ("openai-like", 403, {"message": "The security token is invalid."},
        "The security token is invalid.", "check the key: RERANK_API_KEY, or "),
    "Google": ("openai-like", 400, {"error": {"code": 400, "message": "no records",
        "status": "INVALID_ARGUMENT"}}, "no records (INVALID_ARGUMENT)", ""),
}  # fmt: skip


@pytest.mark.parametrize(("provider", "status", "body", "words", "hint"), CASES.values(), ids=CASES)
def test_one_line_of_the_servers_own_words(
    provider: str, status: int, body: Any, words: str, hint: str, rerank: Run
) -> None:
    message, advice = complaint(ask_with_faults(rerank, provider, Status(status, body)))
    message_end = f": {words}" if words else ""
    assert message == f"{provider}: answered {status}{message_end}"
    assert advice.startswith(hint)
    assert "\n" not in advice


@pytest.mark.parametrize("provider", ["dashscope", "dashscope-native", "new-api"])
def test_a_success_with_a_code_and_no_results_is_none(provider: str, rerank: Run) -> None:
    fault: Fault = Status(200, {"code": "Throttling", "message": "slow down", "request_id": "b-2"})
    message, _ = complaint(ask_with_faults(rerank, provider, fault))
    assert "slow down" in message
    assert "Throttling" in message


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 405, 418, 422, 498, 501])
def test_what_no_second_request_helps_is_not_sent_again(code: int, rerank: Run) -> None:
    with serve("openai-like", faults=Status(code, {"message": "no"})) as server:
        assert ask(rerank, "openai-like", server).code == 3
    assert server.count == 1
