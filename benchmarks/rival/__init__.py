"""Parts of `benchmarks/rivals.py`: vLLM in an environment of its own, the rows it gets, and what it returns."""
