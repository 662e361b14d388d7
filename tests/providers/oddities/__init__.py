"""What rerank APIs are known to do, each oddity by itself: a server does it, a command is right.

Each case has the words of what is known for its id: by file, what surrounds a ranking, scores and
their order, limits, HTTP, the bodies of errors, and headers.
"""
