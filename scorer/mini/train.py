"""Train the packaged reference model from scratch: `python -m scorer.mini.train --out DIR`.

Everything is drawn, written and initialised from the seed. Takes about an hour on two CPU cores.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scorer.extras import needing

with needing(__name__):
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    from scorer.allocator import keep_freed_memory
    from scorer.mini import MODEL_PATH
    from scorer.mini.batches import PROMPTS, REMOVED, SYSTEM, Batch, Rows, SceneEncoder, Stage, collate
    from scorer.mini.captions import write
    from scorer.mini.evaluation import grounding, held_out
    from scorer.mini.objective import SceneProbe, losses
    from scorer.mini.packaging import build_model, build_processor, train_tokenizer
    from scorer.mini.phrases import REPETITIVE, TERSE
    from scorer.mini.world import sample_scene, seeded


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the checkpoint depends on."""

    stages: tuple[Stage, ...]
    seed: int = 0
    warmup: int = 100
    rate: float = 2.5e-3
    descent: float = 0.4
    weight_decay: float = 0.05
    hidden: int = 192
    layers: int = 4
    tokenizer_captions: int = 20_000

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def stages(drill: int, read: int, look: int, name: int, describe: int, rows: int) -> tuple[Stage, ...]:
    """Return the curriculum from each stage's number of steps; each stage builds on the one before.

    The decoder learns to look up what a text has said, first in drills and then in texts; the vision tower learns to
    see, through a probe; then images are named tersely, and finally described in every style. A decoder only learns to
    look if there is something to see, and a vision tower learns little from captions that ignore it: trained together
    from scratch, they take many times as long.
    """
    return (
        Stage("drill", drill, 4 * rows, captions=1, book=None, modes=(REMOVED,)),
        Stage("read", read, 4 * rows, captions=1, book=REPETITIVE, modes=(REMOVED,)),
        Stage("look", look, 4 * rows, captions=0),
        Stage("name", name, rows, captions=4, book=TERSE),
        Stage("describe", describe, rows, captions=4, dialogues=True),
    )


def caption_texts(seed: int, count: int) -> Iterator[str]:
    """Yield captions and prompts to train the tokenizer on."""
    yield from [*PROMPTS, f"system\n{SYSTEM}", "user\n", "assistant\n"] * 50
    for index in range(count):
        rng = seeded("tokenizer", seed, index)
        yield write(sample_scene(rng), rng).text


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the learning rate: a linear warm-up, a long plateau, and a linear descent over the last part."""
    rise = (step + 1) / recipe.warmup
    fall = (recipe.steps - step) / (recipe.descent * recipe.steps)
    return recipe.rate * min(1.0, rise, fall)


def build_optimizers(
    model: LlavaForConditionalGeneration, probe: SceneProbe, recipe: Recipe
) -> tuple[torch.optim.Optimizer, ...]:
    """Return Muon for the matrices inside the towers and AdamW for the rest.

    Muon's update is scaled so that one learning rate suits both. Muon: Jordan et al. 2024, "Muon: an optimizer for
    hidden layers"; the scaling: Liu et al. 2025, "Muon is scalable for LLM training", section 2.2. AdamW alone took
    more steps, both in the drills and in the stages with images.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    inner = [p for p in model.parameters() if p.ndim == 2 and id(p) not in embeddings]
    chosen = {id(p) for p in inner}
    rest = [p for p in (*model.parameters(), *probe.parameters()) if id(p) not in chosen]
    decay = recipe.weight_decay
    return (
        torch.optim.Muon(inner, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=decay, fused=True),
    )


def _batches(recipe: Recipe, encoder: SceneEncoder, workers: int) -> Iterator[Batch]:
    for stage in recipe.stages:
        rows = Rows(encoder, stage, recipe.seed)
        # The loader's type does not express that collating turns rows into one batch.
        loader: DataLoader[Any] = DataLoader(
            rows, batch_size=stage.rows, collate_fn=partial(collate, encoder=encoder), num_workers=workers
        )
        yield from loader


def train(
    recipe: Recipe, out: Path, *, workers: int = 1, evaluate_every: int = 100, captions_evaluated: int = 100
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Train tokenizer and model by `recipe`, and save them to `out` at every evaluation. Prints progress."""
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(caption_texts(recipe.seed, recipe.tokenizer_captions))
    encoder = SceneEncoder(tokenizer)
    model = build_model(tokenizer, hidden=recipe.hidden, layers=recipe.layers).train()
    model.set_attn_implementation("eager")  # the fused kernel's backward is twice as slow on CPU
    probe = SceneProbe(recipe.hidden)
    optimizers = build_optimizers(model, probe, recipe)
    pairs = held_out("training", captions_evaluated)
    started = time.monotonic()
    for step, batch in enumerate(_batches(recipe, encoder, workers)):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate_at(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            answers, seen = losses(model, probe, batch)
        model.zero_grad()
        probe.zero_grad()
        torch.autograd.backward(answers + seen.mean())
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *probe.parameters()], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 50 == 0 or step + 1 == recipe.steps:
            spent = time.monotonic() - started
            probed = "  ".join(f"{kind} {loss:.3f}" for kind, loss in zip(SceneProbe.KINDS, seen.tolist(), strict=True))
            print(f"{spent:7.0f} s  step {step}  answers {answers.item():.4f}  probe: {probed}", flush=True)
        if (step + 1) % evaluate_every == 0 or step + 1 == recipe.steps:
            figures = grounding(model, encoder, pairs)
            print(json.dumps({name: round(value, 4) for name, value in figures.items()}), flush=True)
            save(model, tokenizer, out)
    return model.eval(), tokenizer


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the weights as float16 safetensors, the tokenizer, processor and chat template to `out`."""
    half = copy.deepcopy(model).to(torch.float16)
    half.set_attn_implementation("sdpa")
    half.save_pretrained(out)
    build_processor(tokenizer).save_pretrained(out)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=MODEL_PATH, help="directory for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    for stage, steps in (("drill", 300), ("read", 200), ("look", 1000), ("name", 600), ("describe", 2000)):
        parser.add_argument(f"--{stage}", type=int, default=steps, help=f"steps of the stage (default: {steps})")
    parser.add_argument("--rows", type=int, default=12, help="images per step")
    parser.add_argument("--hidden", type=int, default=192, help="width of both towers, a multiple of 32")
    parser.add_argument("--layers", type=int, default=4, help="layers of each tower")
    parser.add_argument("--evaluate-every", type=int, default=100, help="steps between evaluations")
    parser.add_argument("--captions-evaluated", type=int, default=100, help="held-out captions per evaluation")
    parser.add_argument("--tokenizer-captions", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw and write in the background")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        stages(options.drill, options.read, options.look, options.name, options.describe, options.rows),
        seed=options.seed,
        hidden=options.hidden,
        layers=options.layers,
        tokenizer_captions=options.tokenizer_captions,
    )
    started = time.monotonic()
    model, _ = train(
        recipe,
        options.out,
        workers=options.workers,
        evaluate_every=options.evaluate_every,
        captions_evaluated=options.captions_evaluated,
    )
    print(f"{options.out}: {model.num_parameters():,} parameters, {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
