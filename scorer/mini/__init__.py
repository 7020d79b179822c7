"""The packaged reference model: a small LLaVA, the world it was trained on, and a sample dataset.

Importing this package imports neither torch nor transformers.
"""

from pathlib import Path

MODEL_PATH: Path = Path(__file__).parent / "model"
"""Checkpoint directory for `AutoModelForImageTextToText` and `AutoProcessor`."""

SAMPLE_PATH: Path = Path(__file__).parent / "sample"
"""Directory of Parquet shards: images, captions, and the true label of every word."""

__all__ = ["MODEL_PATH", "SAMPLE_PATH"]
