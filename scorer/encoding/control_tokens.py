"""A tokenizer's control tokens: which they are, which one begins every prompt, and how no data can spell them."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from scorer.errors import ModelError
from scorer.families import Family
from scorer.token_bytes import is_byte_token


def control_tokens(processor: Any) -> list[str]:
    """The tokens that only the template may write: special ones, and others that the template spells.

    A tokenizer with byte fallback may list its bytes' tokens as special; those are how text is encoded, not control.
    """
    template = processor.chat_template
    template_text = template if isinstance(template, str) else "\0".join(template.values())
    tokens = processor.tokenizer.added_tokens_decoder.values()
    return [
        token.content
        for token in tokens
        if (token.special or (token.content in template_text and not token.content.isspace()))
        and not is_byte_token(token.content)
    ]


def first_token(processor: Any, family: Family) -> int | None:
    """Id of the token put before a prompt that does not hold it; None where the template writes all there is.

    It is the one that the tokenizer itself puts before a text (LLaVA-1.5's template leaves BOS to the tokenizer). A
    bare language model's text begins with BOS in any case, or with EOS: its first token is predicted from something.
    """
    tokenizer = processor.tokenizer
    if family.template is not None and not family.bos_behind_images:
        return None
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    if ids and ids[0] == tokenizer.bos_token_id:
        return int(ids[0])
    if not family.text_only or processor.chat_template != family.template_without_chat:
        return None
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise ModelError("the model's tokenizer has neither BOS nor EOS, so nothing predicts a text's first token")


def with_renamed_tokens(tokenizer: Tokenizer, names: dict[str, str]) -> Tokenizer:
    """Clone a tokenizer, spelling the tokens in ``names`` differently; every id stays what it was."""
    state = json.loads(tokenizer.to_str())
    # Post-processors add special tokens (not asked for here) and trim white space off offsets (which must stay).
    state["post_processor"] = None
    state["truncation"] = state["padding"] = None
    for token in state["added_tokens"]:
        if token["content"] in names:
            token["content"] = names[token["content"]]
            token["normalized"] = False
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
    else:  # Unigram: a list of [piece, score], indexed by id
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    try:
        clone = Tokenizer.from_str(json.dumps(state))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(f"the tokenizer cannot be cloned with its control tokens renamed: {error}") from error
    moved = [old for old, new in names.items() if clone.token_to_id(new) != tokenizer.token_to_id(old)]
    if moved:
        raise ModelError(
            f"renaming control tokens moved the ids of {', '.join(moved)}; this tokenizer is not supported"
        )
    return clone
