"""Build what training begins with: tokenizer, chat template and model, from scratch or from a base."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from scorer.checkpoint.files import Checkpoint
from scorer.errors import ConfigError, explain
from scorer.text_reference.recipe import HEAD_SIZE, Recipe

BEGIN: Final = "<|begin|>"
END: Final = "<|end|>"
PAD: Final = "<|pad|>"


def chat_template(begin: str, end: str) -> str:
    """Return a template that writes every text unchanged: a line for each question, and ``end`` after each answer."""
    return (
        f"{{{{ {begin!r} }}}}{{% for message in messages %}}{{{{ message['content'] }}}}"
        f"{{% if message['role'] == 'assistant' %}}{{{{ {end!r} }}}}{{% elif message['content'] %}}{{{{ '\\n' }}}}"
        "{% endif %}{% endfor %}"
    )


def save_start(recipe: Recipe, texts: Iterable[str], folder: Path) -> None:
    """Save the model to start from, with its tokenizer, as transformers does.

    Args:
        texts: every text that is trained on, for the tokenizer.

    Raises:
        ConfigError: the base is not a causal language model, or a tokenizer lacks what training needs.
        ModelError: the base cannot be found.
    """
    if recipe.base is not None:
        _save_base(recipe.base, folder)
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer(texts, recipe.vocab_size) if recipe.tokenizer is None else _load(recipe.tokenizer)
    _complete(tokenizer, recipe.tokenizer or "trained on the texts")
    heads = recipe.hidden // HEAD_SIZE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=-(-8 * recipe.hidden // 3 // HEAD_SIZE) * HEAD_SIZE,
        num_hidden_layers=recipe.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_base(base: str, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from scorer.forward.verify import is_causal

    checkpoint = Checkpoint.locate(base)
    if not checkpoint.family.text_only:
        raise ConfigError(
            f"--base {base!r} has type {checkpoint.config.model_type!r}, which takes images; give a causal language "
            "model, or leave --base out to train one from scratch"
        )
    tokenizer = _load(str(checkpoint.path))
    _complete(tokenizer, base)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    except Exception as error:  # a value of the wrong type in a document surfaces as any of them
        raise ConfigError(f"--base {base!r} cannot be loaded: {explain(error)}") from error
    if not is_causal(model.eval(), torch.arange(min(8, model.get_input_embeddings().num_embeddings))[None]):
        raise ConfigError(
            f"--base {base!r} has type {checkpoint.config.model_type!r} and also uses later tokens to predict a token; "
            "give a causal language model, or leave --base out to train one from scratch"
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # network, no such repository, a damaged file: all end up here
        raise ConfigError(
            f"the tokenizer {name!r} cannot be loaded: {explain(error)}; give a folder or a hub id"
        ) from error


def _complete(tokenizer: Any, name: str) -> None:
    """Give a tokenizer the chat template, unless it has one. Raises ConfigError if it cannot be used."""
    if not tokenizer.is_fast:
        raise ConfigError(f"the tokenizer {name!r} has no tokenizer.json, which training needs; give one that has it")
    if tokenizer.eos_token is None:
        raise ConfigError(f"the tokenizer {name!r} has no EOS token to end a text with; give one that has it")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = chat_template(tokenizer.bos_token or tokenizer.eos_token, tokenizer.eos_token)


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Train a byte-level BPE; its alphabet has all 256 bytes, so any UTF-8 text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        clean_up_tokenization_spaces=False,
    )
