"""Make the reference model from nothing: `python -m scorer.mini.train --out DIR`.

Everything is drawn, written and initialised from the seed. About half an hour on two CPU cores.
"""

import argparse
import copy
import ctypes
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from scorer.mini import MODEL_PATH
from scorer.mini.batches import PROMPTS, SYSTEM, Batch, Encoder, Rows, collate
from scorer.mini.captions import write
from scorer.mini.evaluation import grounding, held_out
from scorer.mini.objective import SceneProbe, losses
from scorer.mini.packaging import build_model, build_processor, train_tokenizer
from scorer.mini.world import sample_scene, seeded


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the checkpoint depends on."""

    seed: int = 0
    steps: int = 1400
    rows: int = 16
    captions: int = 4
    simple_steps: int = 200
    warmup: int = 100
    rate: float = 1.5e-3
    weight_decay: float = 0.05
    hidden: int = 192
    layers: int = 4
    tokenizer_captions: int = 20_000


def caption_texts(seed: int, count: int) -> Iterator[str]:
    """Captions and prompts to train the tokenizer on."""
    yield from [*PROMPTS, f"system\n{SYSTEM}", "user\n", "assistant\n"] * 50
    for index in range(count):
        rng = seeded("tokenizer", seed, index)
        yield write(sample_scene(rng), rng).text


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning them to the kernel each step: a quarter of the time here."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            trim, mmap = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of <malloc.h>
            libc.mallopt(mmap, 2**30)
            libc.mallopt(trim, 2**31 - 1)


def rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine to a fiftieth."""
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def _loader(recipe: Recipe, encoder: Encoder, workers: int) -> DataLoader[Batch]:
    rows = Rows(
        encoder,
        seed=recipe.seed,
        blocks=recipe.steps,
        block=recipe.rows,
        captions=recipe.captions,
        simple=recipe.simple_steps,
    )
    return DataLoader(
        rows,  # type: ignore[arg-type]  # collating turns rows into one batch
        batch_size=recipe.rows,
        collate_fn=partial(collate, encoder=encoder),
        num_workers=workers,
    )


def train(
    recipe: Recipe, out: Path, *, workers: int = 1, evaluate_every: int = 100
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Train tokenizer and model by `recipe`; saved to `out` at every evaluation. Progress goes to standard output."""
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(caption_texts(recipe.seed, recipe.tokenizer_captions))
    encoder = Encoder(tokenizer)
    model = build_model(tokenizer, hidden=recipe.hidden, layers=recipe.layers).train()
    model.set_attn_implementation("eager")  # the fused kernel's backward is twice as slow on CPU
    probe = SceneProbe(recipe.hidden)
    weights = [*model.parameters(), *probe.parameters()]
    optimizer = torch.optim.AdamW(
        weights, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay, fused=True
    )
    pairs = held_out("training", 100)
    started = time.monotonic()
    for step, batch in enumerate(_loader(recipe, encoder, workers)):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            answers, seen = losses(model, probe, batch)
        optimizer.zero_grad()
        torch.autograd.backward(answers + seen)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 0 or step + 1 == recipe.steps:
            spent = time.monotonic() - started
            print(f"{spent:7.0f} s  step {step}  answers {answers.item():.4f}  probe {seen.item():.4f}", flush=True)
        if (step + 1) % evaluate_every == 0 or step + 1 == recipe.steps:
            figures = grounding(model, encoder, pairs)
            print(json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)
            save(model, tokenizer, out)
    return model.eval(), tokenizer


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write weights as float16 safetensors, tokenizer, processor and chat template to `out`."""
    half = copy.deepcopy(model).to(torch.float16)
    half.set_attn_implementation("sdpa")
    half.save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    default = Recipe()
    parser.add_argument("--out", type=Path, default=MODEL_PATH, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--rows", type=int, default=default.rows, help="pictures a step")
    parser.add_argument("--hidden", type=int, default=default.hidden, help="width of both towers, a multiple of 32")
    parser.add_argument("--layers", type=int, default=default.layers, help="layers of each tower")
    parser.add_argument("--evaluate-every", type=int, default=100, help="steps between evaluations")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        seed=options.seed,
        steps=options.steps,
        rows=options.rows,
        hidden=options.hidden,
        layers=options.layers,
    )
    started = time.monotonic()
    model, _ = train(recipe, options.out, evaluate_every=options.evaluate_every)
    print(f"{options.out}: {model.num_parameters():,} parameters, {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
