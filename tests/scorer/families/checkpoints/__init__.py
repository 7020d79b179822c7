"""Tiny random checkpoints of every family: the real classes and processors, a few thousand parameters each."""
