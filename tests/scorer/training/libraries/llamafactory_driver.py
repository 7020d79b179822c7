"""LLaMA-Factory v1: its data engine, renderer, padding and loss on an exported file: ``FOLDER FILE MODEL CUTOFF…``."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from llamafactory.v1.core import model_engine
from llamafactory.v1.core.data_engine import DataEngine
from llamafactory.v1.core.utils.rendering import Renderer
from llamafactory.v1.trainers.sft_trainer import SFTTrainer
from llamafactory.v1.utils.helper import pad_and_truncate
from torch.utils.data import default_collate
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from scorer.training import llama_factory


def seen(renderer: Any, samples: list[Any], model: Any, cutoff: int) -> dict[str, Any]:
    """What the trainer would make of the samples, and what it would train on."""
    inputs = pad_and_truncate(renderer.process_samples(samples), cutoff)
    batch = default_collate([{k: v for k, v in row.items() if isinstance(v, torch.Tensor)} for row in inputs])
    trainer = SimpleNamespace(device=torch.device("cpu"), model=model)
    trainer.compute_log_probs = lambda model, batch: SFTTrainer.compute_log_probs(trainer, model, batch)
    with torch.no_grad():
        loss = SFTTrainer.compute_loss(trainer, batch).item()
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        log_probs = logits[:, :-1].double().log_softmax(-1)
    nll = -log_probs.gather(-1, batch["labels"][:, 1:].clamp(min=0)[..., None])[..., 0]
    lists = {name: batch[name].tolist() for name in ("input_ids", "labels", "loss_weights")}
    return {"loss": loss, "nll": nll.tolist(), **lists}


def main(folder: str, file: str, model_path: str, *cutoffs: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    plain = Renderer("chatml", tokenizer)
    llama_factory.install()
    renderer = model_engine.Renderer("chatml", tokenizer)  # as the model engine calls it
    data = DataEngine(file)
    samples = [data[i] for i in range(len(data))]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    renderers = {"weighted": renderer, "plain": plain}
    out = {cut: {name: seen(one, samples, model, int(cut)) for name, one in renderers.items()} for cut in cutoffs}
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
