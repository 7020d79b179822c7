"""Create the packaged sample dataset: `python -m scorer.mini.sample_data --out DIR`.

It has two Parquet shards of drawn scenes with captions in which every word is labelled. Some captions have a planted
error, and five rows are bad or odd, as in real datasets; the column `planted` names them.
"""

import argparse
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scorer.mini import SAMPLE_PATH
from scorer.mini.language.captions import Caption, write, write_false
from scorer.mini.world import sample_scene, seeded
from scorer.mini.world.drawing import draw

SHARDS = 2
ROWS_PER_SHARD = 120
SAMPLE_IMAGE_SIZE = 256
FALSE_EVERY = 6
"""One caption in this many has a planted error."""

BOMB_SIDE = 13_000

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("caption", pa.string()),
        ("truth", pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("label", pa.string())]))),
        ("planted", pa.string()),
    ],
    # The datasets library needs this to show the column as images.
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)

Record = dict[str, Any]


def _encode(index: int, kind: str) -> bytes:
    """Return the image of row `index` as the bytes of a file of `kind` ("PNG" or "JPEG")."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"quality": 90} if kind == "JPEG" else {}
    draw(sample_scene(seeded("sample", index)), SAMPLE_IMAGE_SIZE).save(buffer, kind, **options)
    return buffer.getvalue()


def sample_row(index: int) -> Record:
    """Return record `index` before it is spoiled."""
    rng = seeded("sample", index)
    scene = sample_scene(rng)
    false = index % FALSE_EVERY == FALSE_EVERY - 1
    caption = write_false(scene, rng) if false else write(scene, rng)
    kind = "JPEG" if index % 3 == 0 else "PNG"
    name = f"scene-{index:05d}"
    return {
        "id": name,
        "image": {"bytes": _encode(index, kind), "path": f"{name}.{'jpg' if kind == 'JPEG' else 'png'}"},
        **_caption_columns(caption),
        "planted": f"contradiction: {caption.planted}" if false else None,
    }


def _caption_columns(caption: Caption) -> Record:
    truth = [{"start": span.start, "end": span.end, "label": span.label} for span in caption.spans]
    return {"caption": caption.text, "truth": truth}


def decompression_bomb(side: int = BOMB_SIDE) -> bytes:
    """Return a small PNG file (1 bit per pixel, all black) that decodes to `side` by `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    line = bytes(1 + (side + 7) // 8)  # filter type, then the pixels
    packer = zlib.compressobj(9)
    pixels = b"".join([*(packer.compress(line) for _ in range(side)), packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _corrupt_jpeg(row: Record, index: int) -> None:
    data = _encode(index, "JPEG")
    row["image"] = {"bytes": data[: len(data) // 2], "path": f"{row['id']}.jpg"}


def _missing_path(row: Record, index: int) -> None:
    row["image"] = {"bytes": None, "path": f"pictures/{row['id']}-is-not-there.jpg"}


def _empty_caption(row: Record, index: int) -> None:
    row.update(caption="", truth=[])


def _literal_image_token(row: Record, index: int) -> None:
    """Append the word to a caption; the row stays valid, as the word is text like any other."""
    start = len(row["caption"].encode()) + 1
    row["caption"] += " <image>"
    row["truth"].append({"start": start, "end": start + len("<image>"), "label": "filler"})


def _decompression_bomb(row: Record, index: int) -> None:
    row["image"] = {"bytes": decompression_bomb(), "path": f"{row['id']}.png"}


PLANTED = {
    18: ("corrupt_jpeg", _corrupt_jpeg),
    62: ("missing_path", _missing_path),
    100: ("empty_caption", _empty_caption),
    150: ("literal_image_token", _literal_image_token),
    200: ("decompression_bomb", _decompression_bomb),
}


def sample_rows() -> list[Record]:
    """Return all rows in order, the same on every call."""
    rows = [sample_row(index) for index in range(SHARDS * ROWS_PER_SHARD)]
    for index, (name, plant) in PLANTED.items():
        plant(rows[index], index)
        rows[index]["planted"] = name
    return rows


def write_shards(out: Path) -> list[Path]:
    """Write the shards to `out` (created if absent) and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    rows, paths = sample_rows(), []
    for shard in range(SHARDS):
        table = pa.Table.from_pylist(rows[shard * ROWS_PER_SHARD : (shard + 1) * ROWS_PER_SHARD], schema=SCHEMA)
        paths.append(out / f"train-{shard:05d}-of-{SHARDS:05d}.parquet")
        pq.write_table(table, paths[-1], compression="zstd")
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write the packaged sample dataset.")
    parser.add_argument("--out", type=Path, default=SAMPLE_PATH, help="directory for the shards")
    for path in write_shards(parser.parse_args(arguments).out):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
