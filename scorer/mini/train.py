"""Train the packaged reference model from scratch: `python -m scorer.mini.train --out DIR`.

Everything is drawn, written and initialised from the seed. The state of the run is kept in DIR, too: the same command
continues a run that was interrupted, to the same weights. Takes hours on two CPU cores.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from scorer.extras import needing

with needing(__name__):
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Subset
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    from scorer.allocator import keep_freed_memory
    from scorer.mini.batches import REMOVED, SYSTEM, Batch, Rows, SceneEncoder, Stage, collate
    from scorer.mini.evaluation import HeldOut, grounding, validation
    from scorer.mini.inputs import BLANK
    from scorer.mini.language.captions import write
    from scorer.mini.language.compose import compose
    from scorer.mini.language.filler import TRAINING
    from scorer.mini.language.lexicon import spellings
    from scorer.mini.language.phrases import REPETITIVE, TERSE
    from scorer.mini.language.prompts import PLAIN, any_prompt
    from scorer.mini.objective import SceneProbe, losses
    from scorer.mini.packaging import build_model, build_processor, train_tokenizer
    from scorer.mini.run_state import RunState
    from scorer.mini.world import sample_scene, seeded


QUALITIES = (0.7, 0.8, 0.9)
"""AUROC of the raw gap, visual against filler words, at which checkpoints are kept as weaker reference models."""

OUT = Path("out/mini")

STATE = "run.pt"
"""The file in the output directory from which a run continues; it is not part of the checkpoint."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the checkpoint depends on."""

    stages: tuple[Stage, ...]
    seed: int = 0
    warmup: int = 100
    rate: float = 2.5e-3
    descent: float = 0.4
    weight_decay: float = 0.05
    hidden: int = 224
    layers: int = 5
    vision_hidden: int = 160
    vision_layers: int = 4
    tokenizer_captions: int = 20_000

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def __str__(self) -> str:
        stages = ", ".join(f"{s.name} {s.steps} × {s.rows} × {s.captions}" for s in self.stages)
        scalars = ", ".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self) if f.name != "stages")
        return f"{stages}; {scalars}"


def stages(drill: int, read: int, look: int, name: int, describe: int, rows: int) -> tuple[Stage, ...]:
    """Return the curriculum from each stage's number of steps; each stage builds on the one before.

    The decoder learns to look up what a text has said, first in drills and then in texts; the vision tower learns to
    see, through a probe; then images are named tersely, and finally described in free language. A decoder only learns
    to look if there is something to see, and a vision tower learns little from captions that ignore it: trained
    together from scratch, they take many times as long.
    """
    return (
        Stage("drill", drill, 4 * rows, captions=1, book=None, modes=(REMOVED,)),
        Stage("read", read, 4 * rows, captions=1, book=REPETITIVE, modes=(REMOVED,)),
        Stage("look", look, 4 * rows, captions=0),
        Stage("name", name, rows, captions=4, book=TERSE),
        Stage("describe", describe, rows, captions=6, free=True),
    )


def caption_texts(seed: int, count: int) -> Iterator[str]:
    """Yield captions and prompts to train the tokenizer on, and the words that need an image, in any case."""
    yield from [*PLAIN, f"system\n{SYSTEM}", "user\n", "assistant\n"] * 50
    for index in range(count):
        rng = seeded("tokenizer", seed, index)
        scene = sample_scene(rng)
        yield any_prompt(rng)
        yield write(scene, rng).text if index % 10 == 0 else compose(scene, rng).text
    yield from spellings() * max(1, count // 200)


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


def _batches(recipe: Recipe, encoder: SceneEncoder, workers: int, done: int) -> Iterator[Batch]:
    """Yield the batches of the steps after the first `done`."""
    for stage in recipe.stages:
        skipped = min(done, stage.steps)
        done -= skipped
        rows = Rows(encoder, stage, recipe.seed)
        rest = Subset(rows, range(skipped * stage.rows, len(rows)))
        # The loader's type does not express that collating turns rows into one batch.
        loader: DataLoader[Any] = DataLoader(
            rest, batch_size=stage.rows, collate_fn=partial(collate, encoder=encoder), num_workers=workers
        )
        yield from loader


def train(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 1,
    evaluate_every: int = 100,
    save_every: int = 100,
    captions_evaluated: int = 100,
) -> tuple[LlavaForConditionalGeneration, PreTrainedTokenizerFast]:
    """Train tokenizer and model by `recipe`, and save them to `out` at every evaluation. Prints progress.

    The state of the run is written to `out` every `save_every` steps; a run that finds one there continues it. The
    first checkpoints that reach the `QUALITIES` are kept in `out`/checkpoints.

    Raises:
        ConfigError: the state in `out` is that of another recipe.
    """
    keep_freed_memory()
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(caption_texts(recipe.seed, recipe.tokenizer_captions))
    encoder = SceneEncoder(tokenizer)
    model = build_model(
        tokenizer,
        hidden=recipe.hidden,
        layers=recipe.layers,
        vision_hidden=recipe.vision_hidden,
        vision_layers=recipe.vision_layers,
    ).train()
    model.set_attn_implementation("eager")  # the fused kernel's backward is twice as slow on CPU
    probe = SceneProbe(recipe.hidden)
    optimizers = build_optimizers(model, probe, recipe)
    state = RunState(out / STATE, recipe, {"model": model, "probe": probe}, optimizers)
    done = state.restore()
    print(
        f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens, step {done} of {recipe.steps}", flush=True
    )
    measured = validation("training", captions_evaluated)
    started = time.monotonic()
    for step, batch in enumerate(_batches(recipe, encoder, workers, done), start=done):
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
        last = step + 1 == recipe.steps
        if step % 50 == 0 or last:
            spent = time.monotonic() - started
            probed = "  ".join(f"{kind} {loss:.3f}" for kind, loss in zip(SceneProbe.KINDS, seen.tolist(), strict=True))
            print(f"{spent:7.0f} s  step {step}  answers {answers.item():.4f}  probe: {probed}", flush=True)
        if (step + 1) % evaluate_every == 0 or last:
            _evaluate(model, tokenizer, encoder, measured, step + 1, out)
        if (step + 1) % save_every == 0 or last:
            state.save(step + 1)
    return model.eval(), tokenizer


def _evaluate(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    encoder: SceneEncoder,
    measured: Mapping[str, Sequence[HeldOut]],
    step: int,
    out: Path,
) -> None:
    """Print the figures of a model in training, and save it."""
    found = {name: grounding(model, encoder, pairs) for name, pairs in measured.items()}
    for name, figures in found.items():
        print(json.dumps({"step": step, "on": name, **{k: round(v, 4) for k, v in figures.items()}}), flush=True)
    save(model, tokenizer, out)
    reached = found[TRAINING][f"{BLANK} logit visual/filler"]
    for quality in QUALITIES:
        directory = out / "checkpoints" / f"auroc-{quality:.2f}"
        if reached >= quality and not directory.exists():
            save(model, tokenizer, directory)


def save(model: LlavaForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write the weights as float16 safetensors, the tokenizer, processor and chat template to `out`.

    Each file is whole at any time: it is written beside and then put into its place.
    """
    half = copy.deepcopy(model).to(torch.float16)
    half.set_attn_implementation("sdpa")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as directory:
        half.save_pretrained(directory)
        build_processor(tokenizer).save_pretrained(directory)
        for file in Path(directory).iterdir():
            file.replace(out / file.name)


def main(arguments: list[str] | None = None) -> None:
    usual = Recipe(())
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, default=OUT, help=f"directory for the checkpoint and the run's state (default: {OUT})"
    )
    parser.add_argument("--seed", type=int, default=0)
    for stage, steps in (("drill", 300), ("read", 200), ("look", 1200), ("name", 800), ("describe", 10_000)):
        parser.add_argument(f"--{stage}", type=int, default=steps, help=f"steps of the stage (default: {steps})")
    parser.add_argument("--rows", type=int, default=12, help="images per step")
    parser.add_argument("--hidden", type=int, default=usual.hidden, help="width of the decoder, a multiple of 32")
    parser.add_argument("--layers", type=int, default=usual.layers, help="layers of the decoder")
    parser.add_argument("--vision-hidden", type=int, default=usual.vision_hidden, help="width of the vision tower")
    parser.add_argument("--vision-layers", type=int, default=usual.vision_layers, help="layers of the vision tower")
    parser.add_argument("--evaluate-every", type=int, default=500, help="steps between evaluations")
    parser.add_argument("--save-every", type=int, default=100, help="steps between states to continue from")
    parser.add_argument("--captions-evaluated", type=int, default=200, help="held-out captions per kind and evaluation")
    parser.add_argument("--tokenizer-captions", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1, help="processes that draw and write in the background")
    options = parser.parse_args(arguments)
    recipe = Recipe(
        stages(options.drill, options.read, options.look, options.name, options.describe, options.rows),
        seed=options.seed,
        hidden=options.hidden,
        layers=options.layers,
        vision_hidden=options.vision_hidden,
        vision_layers=options.vision_layers,
        tokenizer_captions=options.tokenizer_captions,
    )
    started = time.monotonic()
    model, _ = train(
        recipe,
        options.out,
        workers=options.workers,
        evaluate_every=options.evaluate_every,
        save_every=options.save_every,
        captions_evaluated=options.captions_evaluated,
    )
    print(f"{options.out}: {model.num_parameters():,} parameters, {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
