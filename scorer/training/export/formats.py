"""Convert an example to the object that a trainer's file contains, with one function per trainer.

``docs/training.md`` says what each trainer does with it; tests check this against the trainers' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from scorer.columns import IS_STOP
from scorer.errors import TableError
from scorer.messages import to_messages
from scorer.spans import char_to_byte
from scorer.training.alignment import WeightAligner
from scorer.training.export.dataset import Example
from scorer.training.means import Mean
from scorer.training.rows import short_floats
from scorer.training.weighted_text import WeightedText
from scorer.types import IMAGE, Turn


@dataclass(frozen=True)
class FormatOptions:
    """What a format needs besides the example.

    Attributes:
        tokenize: returns a text's ids in the trainer's vocabulary; for formats that store ids.
        aligner: for that tokenizer.
        threshold: tokens with at least this weight are trained on; for formats that select tokens.
        mean: what has a mean of 1.
    """

    tokenize: Callable[[str], Sequence[int]] | None
    aligner: WeightAligner | None
    threshold: float
    mean: Mean


def jsonl(example: Example, images: Sequence[str], options: FormatOptions) -> dict[str, Any]:
    """Return messages in Hugging Face's form, and the spans and weights of :meth:`WeightRow.to_record`."""
    return {
        "id": example.name,
        "images": list(images),
        "messages": to_messages(example.turns),
        "token_weights": _record(example),
    }


def llava_json(example: Example, images: Sequence[str], options: FormatOptions) -> dict[str, Any]:
    """Return a record of LLaVA's JSON, with the spans and weights of :meth:`WeightRow.to_record` added.

    Raises:
        TableError: the row has more than one image, or a turn spells ``<image>``.
    """
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    conversations = [{"from": roles[turn.role], "value": _with_markers(turn, "<image>\n")} for turn in example.turns]
    if len(images) > 1:
        raise TableError(f"{example.row.name} has {len(images)} images; a LLaVA record holds one: use --to jsonl")
    named = {"image": images[0]} if images else {}
    return {"id": example.name, **named, "conversations": conversations, "token_weights": _record(example)}


def ms_swift(example: Example, images: Sequence[str], options: FormatOptions) -> dict[str, Any]:
    """Return answers as ms-swift takes them from rollouts: token ids with a float ``loss_scale`` each.

    ms-swift does not label tokens with ``loss_scale`` 0. It divides by the number of labels, so weights average 1: over
    an answer, or over the dataset if the options say so. Its template writes the stop token behind the answer's ids, so
    that token's own weight is left out: ms-swift trains it with 1.

    Raises:
        TableError: a turn spells ``<image>``.
    """
    assert options.tokenize is not None
    assert options.aligner is not None
    messages: list[dict[str, Any]] = []
    answers = iter(example.trained)
    for turn in example.turns:
        if turn.role != "assistant":
            messages.append({"role": turn.role, "content": _with_markers(turn, "<image>")})
            continue
        ids = list(options.tokenize(turn.text))
        sample = WeightedText(example.row, example.texts, turns=[next(answers)])
        (weights,) = options.aligner([ids], [ids], [sample])
        scale = len(ids) / float(weights.sum()) if options.mean == "sequence" and weights.any() else 1.0
        content = {"token_ids": ids, "loss_scale": short_floats(weights * np.float32(scale))}
        messages.append({"role": "assistant", "content": content})
    return {"messages": messages, "images": list(images)}


def axolotl(example: Example, images: Sequence[str], options: FormatOptions) -> dict[str, Any]:
    """Return messages with ``train_detail``: which ranges of characters, both ends included, are trained on.

    A stop token has no characters, so its weight is left out: axolotl's ``train_on_eos`` decides about it.
    """
    answers = iter(example.trained)
    messages = []
    for turn in example.turns:
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.role == "assistant":
            message["train_detail"] = _train_detail(example, next(answers), options.threshold)
        messages.append(message)
    return {"messages": messages}


def llama_factory(example: Example, images: Sequence[str], options: FormatOptions) -> dict[str, Any]:
    """Return a sample of LLaMA-Factory's v1, with the weights in ``extra_info`` as JSON."""
    import json

    messages = [
        {
            "role": turn.role,
            "content": [{"type": "text", "value": turn.text}],
            "loss_weight": 1.0 if turn.role == "assistant" else 0.0,
        }
        for turn in example.turns
    ]
    return {"messages": messages, "extra_info": json.dumps({"id": example.name, "token_weights": _record(example)})}


Format = Callable[[Example, Sequence[str], FormatOptions], Mapping[str, Any]]

FORMATS: Final[Mapping[str, Format]] = {
    "ms-swift": ms_swift,
    "axolotl": axolotl,
    "llava-json": llava_json,
    "llama-factory": llama_factory,
    "jsonl": jsonl,
}

OWN_MEANS: Final[Mapping[str, Mean]] = {"ms-swift": "sequence"}
"""What has a mean of 1 unless another is asked for; a sequence is an answer. Only these formats can scale one."""
OWN_MEANS_ELSE: Final[Mean] = "none"


def _record(example: Example) -> dict[str, Any]:
    """Return the row's record for the trained texts only, as each of several captions becomes a conversation."""
    record = example.row.to_record()
    if example.trained == tuple(range(len(example.texts))):
        return record
    from scorer.table import text_hash

    at = {turn: i for i, turn in enumerate(example.trained)}
    kept = [i for i, turn in enumerate(record["turns"]) if turn in at]
    named = [name for name in ("starts", "ends", "weights", IS_STOP) if name in record]
    lists: dict[str, Any] = {name: [record[name][i] for i in kept] for name in named}
    turns = [at[record["turns"][i]] for i in kept]
    return {**lists, "turns": turns, "text_hash": text_hash([example.texts[turn] for turn in example.trained])}


def _with_markers(turn: Turn, marker: str) -> str:
    if "<image>" in turn.text:
        raise TableError(
            f"a {turn.role} turn spells <image>, which the trainer would take for an image: {turn.text[:60]!r}; use "
            "--to jsonl, which keeps images apart from text"
        )
    return "".join(marker if part is IMAGE else str(part) for part in turn.content)


def _train_detail(example: Example, turn: int, threshold: float) -> list[dict[str, Any]]:
    """Merge neighbouring tokens on the same side of the threshold.

    Characters that no token covers are trained on, and so is all of a text-only row.
    """
    text = example.texts[turn]
    scores, weights = example.row.scores, example.row.weights
    assert scores is not None
    assert weights is not None
    edges = char_to_byte(text)  # [characters + 1]
    trained = np.ones(len(text), dtype=np.bool_)
    for i in () if example.row.text_only else np.flatnonzero(scores.token_turns == turn):
        first = int(np.searchsorted(edges, scores.token_starts[i], side="right")) - 1
        end = int(np.searchsorted(edges, scores.token_ends[i], side="left"))
        trained[first:end] = weights[i] >= threshold
    breaks = np.flatnonzero(np.diff(trained)) + 1
    starts = [0, *breaks.tolist()] if len(text) else []
    return [
        {"begin_offset": start, "end_offset": end - 1, "train": bool(trained[start])}
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True)
    ]
