"""The example trains, and its weights are the published ones carried to its own tokens."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scorer.errors import FailureCode, TableError
from scorer.results import Failure, Result, TokenScores
from scorer.table import build_table, text_hash
from scorer.training import WeightRow
from scorer.weights import Method

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_plain_pytorch.py"
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "grün": (30, 200, 30)}
CAPTIONS = [f"there is a {color} kite over the sea 🪁" for color in COLORS] * 4


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_plain_pytorch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def score(sample_id: str, caption: str) -> TokenScores:
    """A reference whose tokens are words with the space before them, and which finds the color visual."""
    words = [(" " if i else "") + word for i, word in enumerate(caption.split(" "))]
    sizes = np.array([len(word.encode()) for word in words], np.int32)
    ends = np.cumsum(sizes, dtype=np.int32)
    gap = np.array([9.0 if word.strip() in COLORS else 0.0 for word in words], np.float32)
    nothing, turns = np.zeros(len(words), np.float32), np.zeros(len(words), np.int16)
    return TokenScores(
        sample_id,
        sizes,
        ends - sizes,
        ends,
        turns,
        text_hash([caption]),
        gap,
        nothing,
        nothing,
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset of one shard, with a broken image in row 1, and its published weights (CAL without pooling)."""
    images, results = [], list[Result]()
    for i, caption in enumerate(CAPTIONS):
        file = io.BytesIO()
        color = next(rgb for name, rgb in COLORS.items() if name in caption)
        Image.new("RGB", (20, 20), color).save(file, "PNG")
        images.append({"bytes": b"broken" if i == 1 else file.getvalue(), "path": None})
        failed = Failure(str(i), FailureCode.IMAGE_UNREADABLE, "does not decode")
        results.append(failed if i == 1 else score(str(i), caption))
    data, weights = tmp_path / "data", tmp_path / "weights"
    for folder in (data, weights):
        folder.mkdir()
    pq.write_table(pa.table({"image": images, "caption": CAPTIONS}), data / "part.parquet")
    pq.write_table(build_table(results, 0, Method("cal", {"window": 1}), {}), weights / "part.parquet")
    shards = [{"name": "part.parquet", "rows": len(CAPTIONS)}]
    (weights / "_SUCCESS").write_text(json.dumps({"shards": shards}))
    return data, weights


def test_it_trains(example: ModuleType, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    data, weights = folders
    losses = example.main(["--data", str(data), "--weights", str(weights), "--steps", "20", "--batch", "6"])
    (first_weighted, first_uniform), *_, (last_weighted, _) = losses
    assert last_weighted < 0.7 * first_weighted
    assert abs(first_weighted - first_uniform) > 1e-2  # the weights do something
    assert "weighted loss" in capsys.readouterr().out


def test_the_colors_bytes_carry_the_weight(example: ModuleType, folders: tuple[Path, Path]) -> None:
    rows = example.read_dataset(*map(str, folders))
    assert len(rows) == len(CAPTIONS) - 1  # the failed row is left out
    tokenizer = example.train_tokenizer(["x"])  # bytes: every token lies within one word
    for image, caption, row in rows:
        encoded = example.encode(image, caption, row, tokenizer)
        heavy = bytes(b for b, w in zip(caption.encode(), encoded.weights[:-1], strict=True) if w == 5)
        assert heavy.decode().strip() in COLORS
        assert set(encoded.weights) == {1.0, 5.0}
        assert encoded.weights[-1] == example.END_WEIGHT
        assert len(encoded.ids) == len(encoded.weights) == len(caption.encode()) + 1


def test_the_end_has_the_weight_of_the_stop_token(example: ModuleType) -> None:
    plain = score("s", CAPTIONS[0])
    arrays = {name: np.append(values, values[-1]) for name, values in plain.arrays.items()}
    arrays["token_starts"][-1] = arrays["token_ends"][-1]
    stop = np.arange(len(arrays["token_ids"])) == len(plain.token_ids)
    scores = TokenScores.from_arrays("s", plain.text_hash, {**arrays, "is_stop": stop})
    weights = np.where(stop, np.float32(0.25), np.float32(2))
    row = WeightRow("x", 0, "s", "ok", None, scores, weights)
    file = io.BytesIO()
    Image.new("RGB", (20, 20)).save(file, "PNG")
    encoded = example.encode(file.getvalue(), CAPTIONS[0], row, example.train_tokenizer(["x"]))
    assert encoded.weights == [*[2.0] * (len(encoded.ids) - 1), 0.25]


def test_a_changed_dataset_is_refused(example: ModuleType, folders: tuple[Path, Path]) -> None:
    data, weights = folders
    table = pq.read_table(data / "part.parquet")
    captions = pa.array(["a red kite", *CAPTIONS[1:]])
    pq.write_table(table.set_column(1, "caption", captions), data / "part.parquet")
    with pytest.raises(TableError, match=r"row 0 of part\.parquet"):
        example.read_dataset(str(data), str(weights))
