"""Any JSON values, of those that a server might answer, and what no message may show of them."""

import re

from hypothesis import strategies as st

# What ends a line, moves a cursor or cannot be written; the rest that Unicode has may be shown.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 4),
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), "", "1", "-1", "0.5", "nan", "inf", "1e999", "²", "٣"]),
    st.text(max_size=5),
)
NAMES = st.text(max_size=3) | st.sampled_from([
    "results", "data", "output", "rankings", "records", "predictions", "scores", "result", "usage",
    "index", "document_index", "id", "relevance_score", "score", "logit", "embedding", "choices",
    "error", "message", "detail", "code", "loc", "msg", "meta", "tokens", "warnings", "errors",
])  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
