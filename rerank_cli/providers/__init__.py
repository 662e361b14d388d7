"""Rerank APIs as data and words: what they answer, and what they say when they fail."""
