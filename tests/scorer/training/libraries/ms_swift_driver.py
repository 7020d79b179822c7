"""ms-swift: its dataset loader, template, collator and SFT loss on an exported file: ``FOLDER FILE MODEL LANGUAGE``.

MODEL is a LLaVA, LANGUAGE a language model with the same tokenizer. The rest is its text part: its other VLM templates
want torchvision, or an older transformers than ours.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import torch
from swift.dataset import load_dataset
from swift.model import get_model_processor
from swift.template import get_template
from swift.trainers.seq2seq_trainer import Seq2SeqTrainer


def load(path: str, model_type: str) -> tuple[Any, Any]:
    options = {"torch_dtype": torch.float32, "device_map": "cpu", "attn_impl": "sdpa"}
    return get_model_processor(path, model_type=model_type, **options)  # type: ignore[no-any-return]  # untyped


def train_template(model: Any, processor: Any, **options: Any) -> Any:
    template = get_template(processor, **options)
    template.set_mode("train")
    template.model = model
    return template


def loss_of(model: Any, template: Any, batch: dict[str, Any]) -> float:
    """By the trainer's own compute_loss, with as much of a trainer as that looks at."""
    args = SimpleNamespace(
        enable_dft_loss=False,
        enable_channel_loss=False,
        use_liger_kernel=False,
        average_tokens_across_devices=False,
        router_aux_loss_coef=None,
        tuner_backend="peft",
        acc_strategy="token",
    )
    trainer = SimpleNamespace(
        args=args,
        label_smoother=None,
        template=template,
        model=model,
        accelerator=SimpleNamespace(unwrap_model=lambda one: one),
        model_accepts_loss_kwargs=True,
        custom_metrics={},
        _compute_acc=lambda *_, **__: None,
    )
    with torch.no_grad():
        return float(Seq2SeqTrainer.compute_loss(trainer, model, dict(batch)))


def main(folder: str, file: str, llava: str, language: str) -> None:
    rows, _ = load_dataset(file, num_proc=1, strict=True)
    loaded = rows.to_list()
    model, processor = load(language, "llama")
    model.eval()
    texts = [{"messages": row["messages"]} for row in loaded]
    for row in texts:
        row["messages"][0]["content"] = row["messages"][0]["content"].replace("<image>", "")
    out: dict[str, Any] = {}
    for name, binary in (("floats", False), ("default", None)):
        template = train_template(model, processor, template_type="chatml", is_binary_loss_scale=binary)
        encoded = [template.encode(row) for row in texts]
        batch = template.data_collator(encoded)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        nll = (
            -logits[:, :-1].double().log_softmax(-1).gather(-1, batch["labels"][:, 1:].clamp(min=0)[..., None])[..., 0]
        )
        kept = {key: batch[key].tolist() for key in ("input_ids", "labels", "loss_scale") if key in batch}
        out[name] = {"loss": loss_of(model, template, batch), "nll": nll.tolist(), **kept}
        if name == "floats":  # what VLM templates do where images take more tokens than their placeholder
            one = encoded[0]
            arrays = one["input_ids"], one["labels"], one["loss_scale"]
            out["extended"] = template._extend_tokens(*arrays, [3], lambda _: [9] * 4)
            out["encoded"] = arrays
    template = train_template(*load(llava, "llava1_5_hf"), is_binary_loss_scale=False)
    one = template.encode(dict(loaded[0]))
    out["llava"] = {name: len(one[name]) for name in ("input_ids", "labels", "loss_scale")}
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
