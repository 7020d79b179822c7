"""Measure the costliest image that each image processor is given: seconds, and peak memory.

    python -m benchmarks.image_shapes

Writes ``benchmarks/results/image_shapes.json``. Of all shapes of at most ``--max-pixels`` pixels that are accepted, it
takes the one of which most pixels are predicted, and a 4:3 photo of ``--max-pixels`` to compare with. Each is processed
once, as a row's image is, in a process of its own. With the contrasts ``blank``, ``blur`` and ``noise``, a row's image
is processed twice.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from PIL import Image
from transformers import (
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    DeepseekVLImageProcessorPil,
    Gemma3ImageProcessorPil,
    GotOcr2ImageProcessorPil,
    Idefics2ImageProcessorPil,
    Idefics3ImageProcessorPil,
    LlavaImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaOnevisionImageProcessorPil,
    MllamaImageProcessorPil,
    PixtralImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
    SmolVLMImageProcessorPil,
)

from scorer.encoding.image_shape import MAX_SIDE, processed_limit
from scorer.families import FAMILIES, UNLISTED_VISION, Family
from scorer.families.resizing import Resizing

OUTPUT = Path("benchmarks/results/image_shapes.json")

PUBLISHED: Final[dict[str, tuple[Family, Any]]] = {
    "llava 1.5": (
        FAMILIES["llava"],
        CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
    ),
    "llava 1.5, padded": (
        FAMILIES["llava"],
        LlavaImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_pad=True),
    ),
    "pixtral": (FAMILIES["llava"], PixtralImageProcessorPil()),
    "mistral 3.1": (FAMILIES["mistral3"], PixtralImageProcessorPil(size={"longest_edge": 1540}, patch_size=14)),
    "llava next": (FAMILIES["llava_next"], LlavaNextImageProcessorPil(size={"shortest_edge": 336})),
    "llava onevision": (FAMILIES["llava_onevision"], LlavaOnevisionImageProcessorPil()),
    "qwen2-vl": (
        FAMILIES["qwen2_vl"],
        Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12_845_056}),
    ),
    "qwen3-vl": (
        FAMILIES["qwen3_vl"],
        Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 65_536, "longest_edge": 16_777_216}),
    ),
    "idefics3": (FAMILIES["idefics3"], Idefics3ImageProcessorPil()),
    "smolvlm": (
        FAMILIES["smolvlm"],
        SmolVLMImageProcessorPil(size={"longest_edge": 2048}, max_image_size={"longest_edge": 512}),
    ),
    "gemma 3": (FAMILIES["gemma3"], Gemma3ImageProcessorPil(size={"height": 896, "width": 896})),
    "internvl 3": (
        FAMILIES["internvl"],
        GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True),
    ),
    "instructblip": (FAMILIES["instructblip"], BlipImageProcessorPil(size={"height": 224, "width": 224})),
    "deepseek-vl": (FAMILIES["deepseek_vl"], DeepseekVLImageProcessorPil()),
    "llama 3.2 vision": (FAMILIES["mllama"], MllamaImageProcessorPil(size={"height": 560, "width": 560})),
    "paligemma": (FAMILIES["paligemma"], SiglipImageProcessorPil(size={"height": 448, "width": 448})),
    "idefics2, unlisted": (UNLISTED_VISION, Idefics2ImageProcessorPil()),
}
"""Image processors as published checkpoints configure them."""


def predicted(name: str, width: int, height: int) -> int:
    """Return the pixels that are predicted of an image, alone in its row."""
    family, image_processor = PUBLISHED[name]
    processor = SimpleNamespace(image_processor=image_processor)
    return family.processed_pixels(Resizing(processor, {}, width, height))


def costliest(name: str, max_pixels: int) -> tuple[int, int]:
    """Return the accepted size of which most pixels are predicted, from a grid of sides 5% apart."""
    sides = sorted({int(1.05**n) for n in range(242)} | {MAX_SIDE})
    sizes = [(w, h) for w in sides for h in sides if w * h <= max_pixels]
    sizes = [(w, h) for w, h in sizes if max(w, h) <= (200 * min(w, h) if "qwen" in name else MAX_SIDE)]
    accepted = [size for size in sizes if predicted(name, *size) <= processed_limit(*size)]
    return max(accepted, key=lambda size: (predicted(name, *size), -size[0] * size[1]))


def process(name: str, width: int, height: int) -> dict[str, Any]:
    """Process one image in this process."""
    image_processor = PUBLISHED[name][1]
    options = {"return_tensors": "np", "do_rescale": False, "do_normalize": False}
    image_processor([Image.new("RGB", (64, 64))], **options)  # imports
    image = Image.effect_noise((width, height), 60).convert("RGB")
    Path("/proc/self/clear_refs").write_text("5")
    before, started = peak_mb(), time.perf_counter()
    image_processor([image], **options)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 2), "peak_mb": round(peak_mb() - before)}


def peak_mb() -> float:
    """Return the most memory that this process has had since its peak was reset."""
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-pixels", type=int, default=25_000_000, help="the service's max_image_pixels")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        name, width, height = options.process
        print(json.dumps(process(name, int(width), int(height))))
        return
    side = int((options.max_pixels / 12) ** 0.5)
    found: dict[str, Any] = {"max_pixels": options.max_pixels, "processors": {}}
    for name in PUBLISHED:
        found["processors"][name] = {}
        for kind, size in (("costliest", costliest(name, options.max_pixels)), ("photo", (4 * side, 3 * side))):
            command = [sys.executable, "-m", "benchmarks.image_shapes", "--process", name, *map(str, size)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            measured = {"size": size, "predicted": predicted(name, *size), **json.loads(done.stdout)}
            found["processors"][name][kind] = measured
            print(name, kind, measured, flush=True)
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
