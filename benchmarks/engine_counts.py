"""Count what a GPU would be asked to do: calls, kernel launches, waits, copies, padding; print a table, write JSON.

    python -m benchmarks.engine_counts              # about ten minutes on two cores; exits 1 where a row misses
    python -m benchmarks.engine_counts --only launches waits

Nothing here needs a GPU. Launches, attention calls and copies are counted on the meta device, with models of the true
depth and FlexAttention, whose compiled kernel counts as one launch. Waits and transfers are counted on small models of
the true depth whose tensors remember whether they would be on the device.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llava import modeling_llava
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl

from benchmarks import engine_flops, engine_speed, naive, shapes
from benchmarks.engine import Figure
from benchmarks.random_models import qwen2_5_vl_7b
from scorer import Sample
from scorer.config import ScorerConfig
from scorer.engine import Scorer
from scorer.forward import FastPath, ReferenceModel
from scorer.forward.attention import FlexAttention, interface
from scorer.forward.labels import split_scores
from scorer.forward.model import ForwardRow
from scorer.forward.packed import PackedForward, PreparedBatch
from scorer.forward.packing import Packer
from scorer.types import EncodedSample

RESULT = Path(__file__).parent / "results" / "engine_counts.json"
GROUPS = {"50 images × 1 caption": (50, 1), "10 × 5": (10, 5), "25 × 2": (25, 2)}
BUDGET = 16_384
GPU_BUDGET = 32_768
"""Tokens of a batch, as one would set it for a model of 7B on a GPU with 80 GB."""
UNIT = 4096


class OneKernel(FlexAttention):
    """FlexAttention as its compiled kernel: one launch, and an output like the queries. It computes nothing."""

    calls = 0

    def place(self, tensors: Any) -> None:
        """Take nothing: there is nothing to compute."""

    def __call__(self, query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        OneKernel.calls += 1
        return torch.empty_like(query)


class Launches(TorchDispatchMode):
    """Counts operations that run a kernel: not views, not allocations."""

    FREE = ("empty", "_unsafe_view", "detach", "lift_fresh", "_reshape_alias", "alias", "_assert_async")

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        view = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        if not view and not name.startswith(self.FREE):
            self.count[name] += 1
        return out


class OnDevice(torch.Tensor):
    """A tensor that would be on the device: whatever is computed from it is, too."""


class Waits(TorchFunctionMode):
    """Counts calls that make the host wait for a tensor on the device, and copies to it."""

    READS = frozenset({"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero"})
    SEARCHES = frozenset({"unique", "unique_consecutive", "masked_select", "argwhere", "equal", "allclose"})
    CREATED = frozenset({"tensor", "as_tensor"})

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        on_device = bool(args) and isinstance(args[0], OnDevice)
        if on_device and name in self.READS | self.SEARCHES:
            self.waits[name] += 1
        by_mask = name in ("__getitem__", "__setitem__") and on_device and _holds_mask(args[1])
        if by_mask:
            self.waits["index by mask"] += 1
        if on_device and name == "repeat_interleave" and any(isinstance(one, OnDevice) for one in args[1:]):
            self.waits[name] += 1
        if name in self.CREATED:
            self.copies[name] += 1
        out = func(*args, **(kwargs or {}))
        return out.as_subclass(Tensor) if name == "cpu" else out  # what is read is on the host


def _holds_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(one, OnDevice) and one.dtype == torch.bool for one in parts)


@contextmanager
def unchecked() -> Iterator[None]:
    """Skip the classes' check of placeholder counts, which reads values that meta tensors do not have."""
    modules = (modeling_llava, modeling_qwen2_5_vl)
    before = [module.torch_compilable_check for module in modules]
    for module in modules:
        module.torch_compilable_check = lambda *args: None
    try:
        yield
    finally:
        for module, check in zip(modules, before, strict=True):
            module.torch_compilable_check = check


def llava_7b_meta() -> ReferenceModel:
    return shapes.llava(shapes.LLAVA_7B, 32, shapes.CLIP_L_336, device="meta")


def batches(path: FastPath, rows: Sequence[EncodedSample], budget: int) -> list[PreparedBatch]:
    """Return a unit's batches as a run forms them, prepared."""
    return [path._forward.prepare([one for _, one in batch]) for batch in path._batches(rows, budget, None)]


def launches() -> tuple[list[Figure], dict[str, Any]]:
    """Count kernel launches and module calls of 50 rows: both branches in one batch, and as a part of a unit.

    In a unit, batches hold 32,768 tokens, and the contrast of all its rows is run after the clean branch.
    """
    model = llava_7b_meta()
    found: dict[str, Any] = {}
    calls: Counter[str] = Counter()
    base = model.model.model
    for name in ("vision_tower", "language_model"):
        getattr(base, name).register_forward_pre_hook(lambda *args, name=name: calls.update([name]))
    for title, (images, captions) in GROUPS.items():
        first = [shapes.row(i, 16, 48) for i in range(images)]
        rows = [shapes.with_caption(row, k, 48) for row in first for k in range(captions)]
        path = FastPath(model, ["blank"], backend=OneKernel)
        with unchecked():
            together = [path._forward.prepare([one for _, one in b]) for b in path._kept_batches(rows, 2**20)]
            calls.clear()
            with Launches() as counted:
                for batch in together:
                    path._forward.run(batch)
        launched = counted.count.total() + OneKernel.calls
        OneKernel.calls = 0
        found[title] = {
            "launches_per_row": launched / len(rows),
            "calls_per_batch": calls.total() / len(together),
            "unit_launches_per_row": launched / len(together) * unit_batches(captions) / UNIT,
        }
    figures = [
        Figure(
            f"kernel launches a row, {title}", "≤ 35", f"{one['launches_per_row']:.1f}", one["launches_per_row"] <= 35
        )
        for title, one in found.items()
    ]
    figures += [
        Figure(f"the same in a unit of {UNIT:,} rows, {title}", "", f"{one['unit_launches_per_row']:.1f}", True)
        for title, one in found.items()
    ]
    most = max(one["calls_per_batch"] for one in found.values())
    return [*figures, Figure("vision and decoder calls a batch", "2", f"{most:g}", most == 2)], found


def unit_batches(captions: int) -> int:
    """Return the number of batches of a unit of LLaVA's rows, with several captions an image."""
    clean, contrast = Packer[int](GPU_BUDGET), Packer[int](GPU_BUDGET)
    for i in range(UNIT):
        for packer, image in ((clean, i // captions), (contrast, -1)):
            row = text_row(i, 577, 16, 48, str(image).encode())
            packer.add(i, packer.path(row, [578, 594]))
    return sum(1 for packer in (clean, contrast) for _ in packer.rest())


def tiny_qwen(folder: Path) -> Scorer:
    """Return Qwen2.5-VL with all its layers, and narrow ones."""
    checkpoint = qwen2_5_vl_7b(folder, tiny=True)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 28
    config["text_config"].pop("layer_types", None)
    config["vision_config"] |= {"depth": 32, "fullatt_block_indexes": [7, 15, 23, 31]}
    (folder / "config.json").write_text(json.dumps(config))
    return Scorer(checkpoint, ScorerConfig(device="cpu"))


def images(scorer: Scorer, count: int, side: int) -> list[EncodedSample]:
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        pixels = rng.integers(0, 256, (side + 28 * i, side, 3), dtype=np.uint8)
        found.append(scorer.encoder.encode(Sample.caption(str(i), Image.fromarray(pixels), "a red kite over boats")))
    return found


def windows() -> tuple[list[Figure], dict[str, Any]]:
    """Count the attention calls of one batch of Qwen2.5-VL: 32 layers of the tower, 28 of the decoder."""
    with tempfile.TemporaryDirectory() as folder:
        scorer = tiny_qwen(Path(folder))
        rows = images(scorer, 4, 280)
        counted: Counter[str] = Counter()
        forward = PackedForward(scorer.model)
        packer: Packer[int] = Packer(2**20)
        path = FastPath(scorer.model, ["blank"])
        for i, row in enumerate(rows):
            packer.add(i, path._path(packer, row.clean))
        (batch,) = packer.rest()
        with counting_attention(counted):
            forward.run(forward.prepare([one for _, one in batch]))
    total = counted.total()
    return [Figure("attention calls a batch, Qwen2.5-VL", "≤ 60", f"{total}", total <= 60)], dict(counted)


@contextmanager
def counting_attention(counted: Counter[str]) -> Iterator[None]:
    """Count calls of the attention that transformers finds registered."""
    mapping = interface.AttentionInterface._global_mapping
    before = {name: mapping[name] for name in (interface.PACKED, interface.WINDOWED)}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return function(*args, **kwargs)

        return call

    for name, function in before.items():
        mapping[name] = counting(name, function)
    try:
        yield
    finally:
        mapping.update(before)


def waits() -> tuple[list[Figure], dict[str, Any]]:
    """Count waits and copies to the device of one batch: 12 rows of LLaVA, 4 of Qwen2.5-VL."""
    llava = shapes.llava(shapes.SMALL, 2, shapes.small_vision(56))
    small = [shapes.row(i, 16, 12, 16, 56) for i in range(12)]
    with tempfile.TemporaryDirectory() as folder:
        scorer = tiny_qwen(Path(folder))
        cases = {"12 rows of LLaVA": (llava, small), "4 rows of Qwen2.5-VL": (scorer.model, images(scorer, 4, 280))}
        found = {name: _waits(*case) for name, case in cases.items()}
    figures = []
    for name, one in found.items():
        waiting, copies = sum(one["waits"].values()), sum(one["copies"].values())
        figures += [
            Figure(f"waits a batch, {name}", "≤ 2", f"{waiting}", waiting <= 2),
            Figure(f"copies to the device a batch, {name}", "≤ 6", f"{copies}", copies <= 6),
        ]
    return figures, found


def _waits(model: ReferenceModel, rows: Sequence[EncodedSample]) -> dict[str, Any]:
    path = FastPath(model, ["blank"])
    packer: Packer[int] = Packer(2**20)
    for i, row in enumerate(rows):
        packer.add(i, path._path(packer, row.clean))
    (batch,) = packer.rest()
    prepared = path._forward.prepare([one for _, one in batch])
    staged = prepared.staged
    moved = {name: tensor.as_subclass(OnDevice) for name, tensor in staged.to_device().items()}
    staged.to_device = lambda: moved  # type: ignore[method-assign]
    with Waits() as counted:
        scores = path._forward.run(prepared).scores
        split_scores(scores, [len(reads) for reads in prepared.layout.reads])
    counted.copies["the batch's buffer"] += 1
    return {"waits": dict(counted.waits), "copies": dict(counted.copies)}


def keys_copied() -> tuple[list[Figure], dict[str, Any]]:
    """Count the bytes of keys and values that attention copies for a row, in a whole unit's batches."""
    model = llava_7b_meta()
    rows = [shapes.with_caption(shapes.row(0, 16, 48), k, 48) for k in range(60)]
    path = FastPath(model, ["blank"], backend=OneKernel)
    sizes: list[int] = []
    with unchecked():
        for batch in batches(path, rows, BUDGET):
            with watching_copies(sizes):
                path._forward.run(batch)
    copied = sum(sizes) / len(rows)
    figure = Figure("keys and values copied a row, LLaVA", "0", f"{copied / 1e6:.1f} MB", copied == 0)
    return [figure], {"bytes": copied}


@contextmanager
def watching_copies(sizes: list[int]) -> Iterator[None]:
    """Note the bytes of every tensor that the attention function makes before it attends."""
    mapping = interface.AttentionInterface._global_mapping
    own = mapping[interface.PACKED]

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func.overloadpacket.__name__ in ("cat", "repeat_interleave", "index_select", "expand_copy", "_to_copy"):
                sizes.append(out.nbytes)
            return out

    def watched(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        with Made():
            out, _ = own(module, query, key, value, mask, **kwargs)
        return out, None

    mapping[interface.PACKED] = watched
    try:
        yield
    finally:
        mapping[interface.PACKED] = own


def web_grids(count: int) -> list[tuple[int, int]]:
    """Return image grids of Qwen2.5-VL, in tokens, for web image sizes: median 0.6 Mpx, common and odd proportions."""
    rng = np.random.default_rng(0)
    area = np.exp(rng.normal(np.log(0.6e6), 0.9, count))
    common = rng.choice([1, 4 / 3, 3 / 4, 3 / 2, 2 / 3, 16 / 9, 9 / 16], count, p=[0.2, 0.2, 0.1, 0.25, 0.1, 0.1, 0.05])
    odd = np.exp(rng.normal(0, 0.35, count))
    aspect = np.where(rng.random(count) < 0.6, common, odd)
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    shrink = np.minimum(1, np.sqrt(1280 * 28 * 28 / area))
    return [
        (max(1, round(h / 28)), max(1, round(w / 28))) for h, w in zip(height * shrink, width * shrink, strict=True)
    ]


def text_row(number: int, image: int, prompt: int, caption: int, digest: bytes) -> ForwardRow:
    """Return a row of one token, an image, a prompt and a caption, which is all that planning looks at."""
    words = np.random.default_rng(number).integers(10, 9999, caption)
    ids = np.concatenate([[1], np.full(image, 9), np.full(prompt, 2), words])
    count = len(ids)
    return ForwardRow(
        ids=ids,
        positions=np.arange(count)[None],
        attend=np.ones(count, dtype=np.bool_),
        label_index=np.arange(count - caption, count),
        pixels={},
        pixels_digest=digest,
        token_inputs={},
        places=np.arange(count),
        blocks=None,
    )


def web_row(number: int, grid: tuple[int, int], digest: bytes) -> ForwardRow:
    """Return a row with a caption of 10 to 250 tokens, log-uniform."""
    caption = int(np.exp(np.random.default_rng([1, number]).uniform(np.log(10), np.log(250))))
    return text_row(number, grid[0] * grid[1], 6, caption, digest)


def blanks() -> tuple[list[Figure], dict[str, Any]]:
    """Count the blank images' tokens of a unit of web images ÷ the tokens of its clean branch."""
    grids = web_grids(UNIT)
    clean = sum(len(web_row(i, grid, b"").ids) for i, grid in enumerate(grids))
    found = {}
    for title, same in (("same grid", True), ("one canonical grid", False)):
        packer: Packer[int] = Packer(BUDGET)
        for i, own in enumerate(grids):
            grid = own if same else (16, 16)
            row = web_row(i, grid, str(grid).encode())
            after = 1 + grid[0] * grid[1]
            packer.add(i, packer.path(row, [after, after + 6]))
        ran = sum(
            {id(path.root): path.root.length for _, path in batch}[key]
            for batch in packer.rest()
            for key in {id(path.root) for _, path in batch}
        )
        found[title] = {"blank_over_clean": ran / clean, "grids": len(set(grids)) if same else 1}
    same, one = (found[title]["blank_over_clean"] for title in found)
    unit = f"a unit of {UNIT:,} web images"
    return [
        Figure(f"blank ÷ clean tokens, {unit}", "≤ 0.20", f"{same:.3f}", same <= 0.2),
        Figure("the same with one canonical blank grid", "0", f"{one:.3f}", one < 0.005),
    ], found


def parity() -> tuple[list[Figure], dict[str, Any]]:
    """Compare packed scores with the naive way's, in float32."""
    model = shapes.llava(shapes.SMALL, 4, shapes.small_vision(168))
    rows = [shapes.with_caption(shapes.row(i, 16, 30, 144, 168), k, 20 + 5 * k) for i in range(3) for k in range(3)]
    worst = 0.0
    ours = FastPath(model, ["blank"]).score(rows)
    for (clean, contrast), (gap, logprob, other) in zip(ours, naive.score(model, rows, BUDGET), strict=True):
        for a, b in ((clean.logit - contrast.logit, gap), (clean.logprob, logprob), (contrast.logprob, other)):
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
    return [Figure("fp32 difference from the naive way", "≤ 1e-5", f"{worst:.1e}", worst <= 1e-5)], {"worst": worst}


def padding() -> tuple[list[Figure], dict[str, Any]]:
    """Count padding, and the tokens that round totals to few shapes on a GPU."""
    model = shapes.llava(shapes.SMALL | {"hidden_size": 64}, 1, shapes.small_vision(56))
    found = engine_speed.padding(model, 512, 16, 56)
    texts = "texts of 20–400 tokens"
    return [
        Figure(f"padding, {texts}", "0", f"{found['padding']:.1%}", found["padding"] == 0),
        Figure(f"rounding to few shapes on a GPU, {texts}", "", f"{found['rounding']:.1%}", True),
    ], found


def flops() -> tuple[list[Figure], dict[str, Any]]:
    with unchecked():
        counts = engine_flops.measure(llava_7b_meta(), "blank")
    ratio = counts["fast"] / counts["bare_clean_forward"]
    title = "FLOPs ÷ one clean pass, LLaVA-1.5-7B shape"
    return [Figure(title, "≤ 1.075", f"{ratio:.4f}", ratio <= 1.075)], {"ratio": ratio, **counts}


PARTS: dict[str, Callable[[], tuple[list[Figure], dict[str, Any]]]] = {
    "launches": launches,
    "windows": windows,
    "waits": waits,
    "keys": keys_copied,
    "blanks": blanks,
    "parity": parity,
    "padding": padding,
    "flops": flops,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args()
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    missed = False
    print("| figure | target | measured | |\n|---|---|---|---|")
    for part in options.only:
        figures, stored[part] = PARTS[part]()
        for figure in figures:
            missed |= not figure.reached
            print(
                f"| {figure.name} | {figure.target} | {figure.value} | {'✓' if figure.reached else '✗'} |", flush=True
            )
    RESULT.write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    sys.exit(int(missed))


if __name__ == "__main__":
    main()
