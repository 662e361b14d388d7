"""What bench_local.py runs: one module for each engine, the passages, and the table."""
