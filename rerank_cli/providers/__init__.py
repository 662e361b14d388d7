"""Rerank APIs as data: where they are, how they are asked, and how what they answer is read."""
