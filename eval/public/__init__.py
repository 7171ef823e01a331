"""Public benchmarks, an optional extra."""
