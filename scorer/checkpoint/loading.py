"""Load a reference model's weights as configured: dtype, attention, devices, quantization and adapter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from scorer.config import ScorerConfig
from scorer.errors import ModelError, explain
from scorer.extras import require
from scorer.families.base import Family

log = logging.getLogger(__name__)


def load_model(path: Path, name: str, config: ScorerConfig, model_config: Any, family: Family) -> Any:
    """Load a model from a checkpoint's directory, in evaluation mode, frozen, on its device.

    Args:
        path: the directory.
        name: the checkpoint's name as the user gave it, for messages.
        model_config: the checkpoint's transformers configuration, which names no attention of its own.
        family: the record of its family.

    Raises:
        ModelError: the weights cannot be loaded, or the adapter does not fit the model.
        MissingPackageError: a package that an option needs is not installed.
    """
    import torch

    options: dict[str, Any] = {
        "config": model_config,
        "dtype": getattr(torch, config.dtype),
        # Requested by name, sdpa fails for a class without it (Gemma 2); left unset, such a class falls back to eager.
        "attn_implementation": None if config.attention == "sdpa" else config.attention,
        "use_safetensors": True,
        "trust_remote_code": False,
        "use_kernels": False,
    }
    device = resolve_device(config.device)
    if config.attention == "flash_attention_2":
        require("flash_attn", wanted_by=f"attention {config.attention!r}")
    if config.device_map is not None:
        require("accelerate", wanted_by=f"device_map {config.device_map!r}")
        options["device_map"] = config.device_map
    if config.tensor_parallel > 1:
        options["distributed_config"] = _tensor_parallel(config.tensor_parallel, family)
    if config.quantization is not None:
        options["quantization_config"] = quantization_config(config.quantization)
        options.setdefault("device_map", {"": device})
    _turn_off_hub_kernels()
    try:
        model, found = _model_class(family.text_only).from_pretrained(path, output_loading_info=True, **options)
    except Exception as error:  # a value of the wrong type in a document surfaces as any of them
        shared = (
            f"; try --device-map auto, not tensor_parallel={config.tensor_parallel}"
            if config.tensor_parallel > 1
            else ""
        )
        raise ModelError(f"the weights of model {name} cannot be loaded: {explain(error)}{shared}") from error
    _refuse_other_attention(model, name, config.attention)
    _blank_missing(model, name, found["missing_keys"])
    if config.tensor_parallel > 1:
        _refuse_unshared(model, name, config.tensor_parallel)
    if config.adapter is not None:
        model = _adapted(model, config.adapter)
    model = model.eval().requires_grad_(False)
    if options.keys().isdisjoint({"device_map", "distributed_config"}):
        model = model.to(device)
    return model


def _tensor_parallel(count: int, family: Family) -> Any:
    """Return transformers' configuration for ``count`` processes that share a model, of which this is one."""
    import transformers
    from transformers.distributed import DistributedConfig

    try:
        return DistributedConfig(tp_size=count, tp_plan="auto" if family.sharing is None else dict(family.sharing))
    except TypeError as error:
        raise ModelError(
            f"tensor_parallel is {count}, but the DistributedConfig of transformers {transformers.__version__} takes "
            "no tp_size; install a newer transformers (5.23 is tested)"
        ) from error


def _refuse_unshared(model: Any, name: str, count: int) -> None:
    """Refuse a model whose decoder each process holds whole: transformers has no plan for its class."""
    from torch.distributed.tensor import DTensor

    if not any(isinstance(parameter, DTensor) for parameter in model.get_decoder().parameters()):
        raise ModelError(
            f"tensor_parallel is {count}, but transformers has no tensor parallel plan for the decoder of model {name} "
            f"({type(model.get_decoder()).__name__}); use --device-map auto, which spreads whole layers"
        )


def _blank_missing(model: Any, name: str, missing: Collection[str]) -> None:
    """Set parameters that the weight files lack to NaN, and warn: transformers made them up at random.

    Some checkpoints lack a part that no score needs, such as a pooling head. Any score that does need one is NaN, which
    fails its row.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    absent = {key: own[key] for key in missing if key in own}  # a buffer is computed, not made up
    if not absent:
        return
    log.warning(
        "the weights of model %s lack %d of its parameters, the first is %s: they are set to NaN, and every row whose "
        "scores depend on one fails; download or save the model again",
        *(name, len(absent), min(absent)),
    )
    for parameter in absent.values():
        if parameter.is_floating_point():
            parameter.data.fill_(float("nan"))


def _turn_off_hub_kernels() -> None:
    """Have transformers download no kernels from the hub.

    Where the package kernels is installed, some models would run them, and no fingerprint names them. The variable
    ``USE_HUB_KERNELS`` is read when transformers is imported, which a trainer in this process may have done already.
    """
    from transformers.integrations import hub_kernels

    hub_kernels._kernels_enabled = False


def _refuse_other_attention(model: Any, name: str, asked: str) -> None:
    """Refuse a model with a part that does not run the attention that its fingerprint says."""
    allowed = ("sdpa", "eager") if asked == "sdpa" else (asked,)
    for part in model.modules():
        actual = getattr(getattr(part, "config", None), "_attn_implementation", asked)
        if actual not in allowed:
            raise ModelError(
                f"the part {type(part).__name__} of model {name} runs attention {actual!r}, but {asked!r} was asked "
                "for; choose another --attention"
            )


def _model_class(text_only: bool) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForCausalLM if text_only else AutoModelForImageTextToText


def quantization_config(name: str) -> Any:
    """Return transformers' configuration for a :data:`scorer.config.Quantization`; its extra has the same name.

    Raises:
        MissingPackageError: a required package is not installed.
    """
    import torch
    from transformers import BitsAndBytesConfig, TorchAoConfig

    package = "torchao" if name.startswith("torchao-") else "bitsandbytes"
    require(package, "accelerate", wanted_by=f"quantization {name!r}", extra=name)
    if package == "torchao":
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        return TorchAoConfig(quant_type=Int8WeightOnlyConfig() if name == "torchao-int8" else Float8WeightOnlyConfig())
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def adapter_path(adapter: str) -> Path:
    """Return the directory of a LoRA adapter: local, or a snapshot of a hub repository (safetensors only).

    Raises:
        ModelError: there is no such adapter, or its weights have another format.
    """
    path = Path(adapter)
    if not path.is_dir():
        from huggingface_hub import snapshot_download

        try:
            path = Path(snapshot_download(adapter, allow_patterns=["adapter_config.json", "*.safetensors"]))
        except Exception as error:  # network, authentication, no such repository: all end up here
            raise ModelError(
                f"adapter {adapter!r} is neither a local directory nor a hub repository that can be downloaded "
                f"({type(error).__name__}: {error}); check the name, the network and HF_TOKEN"
            ) from error
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (path / file).is_file():
            raise ModelError(f"adapter {adapter} holds no {file}; give a directory saved by peft as safetensors")
    return path


def _adapted(model: Any, adapter: str) -> Any:
    """Merge a LoRA adapter into the model's weights, which makes it as fast as without."""
    path = adapter_path(adapter)
    require("peft", wanted_by=f"adapter {adapter!r}")
    from peft import PeftModel

    with warnings.catch_warnings():
        # If an adapter's weights do not belong to the model, peft only warns and skips them.
        warnings.simplefilter("ignore", FutureWarning)  # peft uses transformers attributes that were renamed
        warnings.filterwarnings("error", message=".*(missing adapter keys|unexpected keys).*")
        try:
            return PeftModel.from_pretrained(model, path, is_trainable=False).merge_and_unload(safe_merge=True)
        except (UserWarning, RuntimeWarning, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"adapter {adapter} does not fit the model: {error}") from error


def resolve_device(device: str) -> str:
    """Resolve ``auto`` to ``cuda`` if available, else ``cpu``. Raises ModelError for CUDA on a machine without it."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {device!r} was requested, but torch sees no CUDA device; use --device cpu or auto")
    return device
