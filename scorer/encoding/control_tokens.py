"""Find a tokenizer's control tokens and the token that begins every prompt, and keep data from spelling them."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from scorer.errors import ModelError
from scorer.families import Family
from scorer.token_bytes import is_byte_token


def control_tokens(processor: Any) -> list[str]:
    """Return the tokens that only the template may write: special tokens, and others that the template contains.

    A tokenizer with byte fallback may list its byte tokens as special; those encode text and are not control tokens.
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
    """Return the id of the token to put before a prompt that lacks it; None if the template writes everything.

    That is the token which the tokenizer itself puts before a text (LLaVA-1.5's template leaves BOS to the tokenizer).
    For a language model without a chat template, the text always begins with BOS or else EOS, because something must
    precede the first token to predict it.

    Raises:
        ModelError: such a language model's tokenizer has neither BOS nor EOS.
    """
    tokenizer = processor.tokenizer
    if family.template is not None and not family.bos_after_images:
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
    """Clone a tokenizer with the tokens in ``names`` (old spelling → new) renamed; all ids stay the same.

    Raises:
        ModelError: the tokenizer cannot be cloned, or renaming changes an id.
    """
    state = json.loads(tokenizer.to_str())
    # Post-processors add special tokens, which are not wanted here, and trim white space from offsets, which must stay.
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
