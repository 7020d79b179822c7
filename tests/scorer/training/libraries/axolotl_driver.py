"""Axolotl: its chat-template strategy on an exported file: ``FOLDER FILE MODEL``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from axolotl.prompt_strategies.chat_template import ChatTemplatePrompter, ChatTemplateStrategy
from transformers import AutoTokenizer

TEMPLATE = "".join(
    (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n",
        "{{ message['content'] }}<|im_end|>\n{% endfor %}",
    )
)


def main(folder: str, file: str, model_path: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    template = TEMPLATE
    out = []
    for field in ("train_detail", None):  # as configured, and without the field
        prompter = ChatTemplatePrompter(
            tokenizer,
            template,
            max_length=2048,
            message_property_mappings={"role": "role", "content": "content"},
            message_field_training_detail=field,
        )
        options = {"train_on_inputs": False, "roles_to_train": ["assistant"], "train_on_eos": "turn"}
        strategy = ChatTemplateStrategy(prompter, tokenizer, sequence_len=2048, **options)
        rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
        seen = [strategy.tokenize_prompt(row) for row in rows]
        out.append([{"input_ids": one["input_ids"], "labels": one["labels"]} for one in seen])
    print(json.dumps({"selected": out[0], "all": out[1]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
