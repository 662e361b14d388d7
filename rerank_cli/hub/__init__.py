"""The Hugging Face Hub: what is in a repository, and its files.

    client      the only place that speaks to the Hub
    choosing    which of a repository's files make a model
    fetching    one file, taken up where it was cut off, and its hash
    pulling     a whole model, from its name to the store

Nothing here is imported before something is to be fetched.
"""

import os

OFFLINE_VARIABLES = ("RERANK_OFFLINE", "HF_HUB_OFFLINE")
_TRUE = {"1", "on", "yes", "true"}


def offline() -> str | None:
    """The variable that keeps this process off the network, if one does."""
    return next(
        (name for name in OFFLINE_VARIABLES if os.environ.get(name, "").lower() in _TRUE), None
    )
