"""How the reference's weights are loaded: adapters, device maps, quantised weights, attention backends, compilation."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from scorer import Sample, Scorer, ScorerConfig, TokenScores
from scorer.checkpoint import loading
from scorer.errors import ConfigError, MissingPackageError, ModelError
from scorer.forward import compilation
from tests.scorer.scoring import load, picture

ROWS = [Sample.caption(str(n), picture(50, 30, n), "A red kite over two boats. " * n) for n in (1, 2)]


def scores(scorer: Scorer) -> np.ndarray:
    results = scorer.score(ROWS)
    for result in results:
        assert isinstance(result, TokenScores)
    return np.concatenate([getattr(one, name) for one in results for name in ("logprob_clean", "logprob_contrast")])


@pytest.fixture(scope="module")
def adapter(chatml_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the language model's projections, as peft saves it."""
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(chatml_model)
    targets = r".*language_model.*\.(q_proj|v_proj)"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    path = tmp_path_factory.mktemp("adapter")
    wrapped.save_pretrained(path)
    return path


def test_an_adapter_is_merged_and_recorded(chatml_model: Path, adapter: Path) -> None:
    import peft

    plain, adapted = load(chatml_model), load(chatml_model, adapter=str(adapter))
    assert np.abs(scores(adapted) - scores(plain)).max() > 0.01
    assert not [name for name, _ in adapted.model.model.named_parameters() if "lora" in name]
    reference = load(chatml_model)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        reference.model.model = peft.PeftModel.from_pretrained(reference.model.model, adapter).eval()
    with torch.inference_mode():
        row = reference.model.prepare(reference.encoder.encode(ROWS[0]).clean)
        ids = torch.from_numpy(row.ids)[None]
        pixels = torch.from_numpy(np.asarray(row.pixels["pixel_values"]))
        unmerged = reference.model.model(input_ids=ids, pixel_values=pixels).logits
        merged = adapted.model.model(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(merged, unmerged, atol=1e-4, rtol=1e-4)
    first, second = plain.fingerprint, adapted.fingerprint
    assert {name for name in first if first[name] != second[name]} == {"adapter", "adapter_sha256"}


def test_an_adapter_that_does_not_fit_is_refused(chatml_model: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    dropped = dict(list(weights.items())[2:])
    save_file(dropped, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        load(chatml_model, adapter=str(tmp_path))


def test_an_adapter_in_another_format_is_refused(chatml_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors"):
        load(chatml_model, adapter=str(tmp_path))


def test_an_adapter_and_quantised_weights_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="use one or the other"):
        ScorerConfig(adapter="lora", quantization="int8")


@pytest.mark.parametrize(
    ("options", "package", "install"),
    [
        ({"quantization": "int8"}, "bitsandbytes", "'tokensight[int8]'"),
        ({"quantization": "nf4"}, "bitsandbytes", "'tokensight[nf4]'"),
        ({"quantization": "torchao-int8"}, "torchao", "'tokensight[torchao-int8]'"),
        ({"quantization": "torchao-fp8"}, "torchao", "'tokensight[torchao-fp8]'"),
        ({"device_map": "auto"}, "accelerate", "'tokensight[adapters]'"),
        ({"attention": "flash_attention_2"}, "flash-attn", "flash-attn"),
        ({"adapter": "ADAPTER"}, "peft", "'tokensight[adapters]'"),
    ],
)
def test_a_missing_package_is_named(
    chatml_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    package: str,
    install: str,
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"{}")
    found = importlib.util.find_spec
    module = package.replace("-", "_")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else found(name, *rest))
    options = {name: str(tmp_path) if value == "ADAPTER" else value for name, value in options.items()}
    with pytest.raises(MissingPackageError) as caught:
        load(chatml_model, **options)
    assert str(caught.value).endswith(f" needs {package}, which is not installed: pip install {install}")


def test_a_quantised_model_asks_transformers_for_it(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed over where the packages are installed; the packages themselves need their own hardware."""
    monkeypatch.setattr(loading, "require", lambda *packages, wanted_by, extra: None)
    assert loading.quantization_config("int8").load_in_8bit
    four = loading.quantization_config("nf4")
    assert (four.load_in_4bit, four.bnb_4bit_quant_type) == (True, "nf4")


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("name", ["torchao-int8", "torchao-fp8"])
def test_torchao_weights_are_near_the_full_ones(chatml_model: Path, name: Any) -> None:
    quantised = scores(load(chatml_model, quantization=name))
    full = scores(load(chatml_model))
    assert 1e-5 < np.abs(quantised - full).max() < 0.5


def test_a_device_map_gives_the_same_scores(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    asked: list[Any] = []
    from_pretrained = LlavaForConditionalGeneration.from_pretrained

    def asking(*args: Any, **options: Any) -> Any:
        asked.append(options.get("device_map"))
        return from_pretrained(*args, **options)

    monkeypatch.setattr(LlavaForConditionalGeneration, "from_pretrained", asking)
    spread = Scorer.load(chatml_model, ScorerConfig(device_map="auto"))
    assert asked == ["auto"]
    if not torch.cuda.is_available():
        np.testing.assert_allclose(scores(spread), scores(load(chatml_model)), atol=1e-5)
    assert spread.fingerprint == load(chatml_model).fingerprint


def test_attention_backends_agree_and_are_recorded(chatml_model: Path) -> None:
    sdpa, eager = load(chatml_model), load(chatml_model, attention="eager")
    for scorer, name in ((sdpa, "sdpa"), (eager, "eager")):
        assert scorer.model.model.config.get_text_config()._attn_implementation == name
        assert scorer.fingerprint["attention"] == name
    np.testing.assert_allclose(scores(eager), scores(sdpa), atol=1e-5)


def attention_of(scorer: Scorer) -> set[str]:
    """What every part of the model runs."""
    parts = scorer.model.model.modules()
    return {part.config._attn_implementation for part in parts if hasattr(part, "config")}


FILES_ATTENTION: dict[str, dict[str, Any]] = {
    "the other": {"_attn_implementation": "eager"},
    "the other's own name": {"_attn_implementation": "sdpa"},
    "by part": {"_attn_implementation": {"text_config": "eager", "vision_config": "sdpa"}},
    "nested": {"text_config": {"_attn_implementation": "eager"}, "vision_config": {"_attn_implementation": "eager"}},
    "a kernel of the hub": {"_attn_implementation": "kernels-community/flash-attn2"},
    "a nested kernel": {"text_config": {"_attn_implementation": "kernels-community/flash-attn2"}},
    "public": {"attn_implementation": "eager", "use_kernels": True},
    "no name": {"_attn_implementation": 3},
}


@pytest.mark.parametrize("asked", ["sdpa", "eager"])
@pytest.mark.parametrize("says", FILES_ATTENTION)
def test_the_attention_asked_for_runs_whatever_the_files_name(
    chatml_model: Path, tmp_path: Path, says: str, asked: str
) -> None:
    model = Path(shutil.copytree(chatml_model, tmp_path / "model"))
    document = json.loads((model / "config.json").read_text())
    for name, value in FILES_ATTENTION[says].items():
        document[name] = {**document[name], **value} if isinstance(document.get(name), dict) else value
    (model / "config.json").write_text(json.dumps(document))
    scorer = load(model, attention=asked)
    assert attention_of(scorer) == {asked}
    assert scorer.fingerprint["attention"] == asked


def test_a_part_with_another_attention_is_refused(chatml_model: Path) -> None:
    model = load(chatml_model).model.model
    loading._refuse_other_attention(model, "m", "sdpa")
    model.config.vision_config._attn_implementation = "kernels-community/flash-attn2"
    with pytest.raises(ModelError, match=r"runs attention 'kernels-community/flash-attn2', but 'sdpa' was asked for"):
        loading._refuse_other_attention(model, "m", "sdpa")


def test_kernels_of_the_hub_are_off(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import hub_kernels

    monkeypatch.setattr(hub_kernels, "_kernels_enabled", True)  # also shows that the name is still transformers' own
    load(chatml_model)
    assert not hub_kernels._kernels_enabled


def test_the_decoder_is_compiled_once_for_all_lengths_and_change_no_score(
    chatml_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        seen.append(graph.print_readable(print_output=False))
        return graph.forward

    monkeypatch.setattr(compilation, "BACKEND", backend)
    scorer = load(chatml_model, compile=True)
    np.testing.assert_allclose(scores(scorer), scores(load(chatml_model)), atol=1e-5)
    assert scorer.self_check is not None and scorer.self_check.passed
    assert scorer.fingerprint != load(chatml_model).fingerprint, "compiled code rounds differently"
    graphs = len(seen)
    assert graphs <= 4, "the pieces before and after the attention, each once for all blocks"
    scorer.score([Sample.caption(str(n), picture(64, 48, n), "a red kite over two boats " * n) for n in (5, 9)])
    assert len(seen) == graphs, "another length is no other graph"


def test_a_compiler_at_fault_is_found_by_the_self_check(chatml_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        return lambda *args: tuple(
            1.5 * value if isinstance(value, torch.Tensor) else value for value in graph.forward(*args)
        )

    monkeypatch.setattr(compilation, "BACKEND", backend)
    scorer = load(chatml_model, compile=True)
    np.testing.assert_allclose(scores(scorer), scores(load(chatml_model)), atol=1e-5)
    assert scorer.self_check is not None and not scorer.self_check.passed


def test_a_decoder_without_blocks_is_not_compiled(chatml_model: Path) -> None:
    model = load(chatml_model).model.model
    model.get_decoder = lambda: torch.nn.Linear(1, 1)
    with pytest.raises(ModelError, match="Linear has no repeated blocks"):
        compilation.compile_decoder(model)


def test_unsupported_family_is_refused_before_loading(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match=r"'clip'.*llava"):
        Scorer.load(tmp_path)


def test_model_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        Scorer.load(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="neither a local directory nor a hub repository"):
        Scorer.load("nobody/nothing")


def test_weights_in_another_format_are_refused(chatml_model: Path, tmp_path: Path) -> None:
    for file in chatml_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        Scorer.load(tmp_path)


def test_fingerprint_names_what_decides_scores(chatml_model: Path, tmp_path: Path) -> None:
    base = load(chatml_model).fingerprint
    assert base != load(chatml_model, max_batch_tokens=77).fingerprint, "it decides which rows share a batch"
    assert base != load(chatml_model, contrast="masked").fingerprint
    for file in chatml_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    copy = load(tmp_path).fingerprint
    assert {key for key in base if base[key] != copy[key]} == {"model"}
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert load(tmp_path).fingerprint["weights_sha256"] != base["weights_sha256"]
