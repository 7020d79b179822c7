"""Every snippet of docs/training.md runs, and does what the page says."""

from __future__ import annotations

import io
import re
import shlex
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.testing import assert_array_equal
from transformers import AutoModelForImageTextToText, AutoProcessor

from pipelines.cli.score import main as score
from scorer.training.excess_loss import excess_loss_cross_entropy
from scorer.training.export.__main__ import main as export
from scorer.weights import Method
from tests.scorer.training.chat_collator import ChatCollator
from tests.scorer.training.conftest import Scored
from tests.scorer.training.splice import SplicingLlava

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
BLOCKS = re.findall(r"^#+ (.*?)$|^```(python|console)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)

Check = Callable[[dict[str, Any], Scored], None]


def snippets(language: str) -> dict[str, str]:
    """Heading → the snippet below it."""
    found, heading = {}, ""
    for title, kind, code in BLOCKS:
        heading = title or heading
        if kind == language:
            found[heading] = code
    return found


@pytest.fixture(scope="module")
def place(scored: Scored, chatml_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the page speaks of."""
    root = tmp_path_factory.mktemp("docs")
    (root / "data" / "tar").mkdir(parents=True)
    (root / "out").mkdir()
    links = {
        "data/train": scored.data,
        "out/train": scored.weights,
        "out/merged": scored.merged,
        "my-vlm": chatml_model,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    with tarfile.open(root / "data" / "tar" / "train-0.tar", "w") as tar:
        for row in scored.rows()[:3]:
            for suffix, data in (("jpg", row["image"]["bytes"]), ("txt", row["caption"].encode())):
                member = tarfile.TarInfo(f"{row['id']}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    arguments = ["--input", str(root / "data" / "tar"), "--output", str(root / "out" / "tar"), "--no-report"]
    assert score([*arguments, "--executor", "local", "--device", "cpu"]) == 0
    return root


def reading(names: dict[str, Any], scored: Scored) -> None:
    row = names["row"]
    assert row.sample_id == "scene-00001"
    assert_array_equal(row.weights, Method("cal", {"window": 1})(row.scores))


def thresholds(names: dict[str, Any], scored: Scored) -> None:
    plain, dropped = list(scored.table()), [row.dropped for row in names["better_half"]]
    gaps = [row.scores.logprob_gap.mean() for row in plain if row.ok]
    assert names["kept"] == [row.sample_id for row, out in zip(plain, dropped, strict=True) if not out]
    assert 3 < len(names["kept"]) < len(plain) and sum(dropped) <= len(gaps) / 2
    weights = np.concatenate([row.weights for row in names["best_tokens"] if row.ok])
    assert 0.25 <= weights.mean() < 0.35  # stop tokens are kept as well
    assert 0.1 <= names["share"] < 0.12 and names["threshold"] > 0


def of_datasets(names: dict[str, Any], scored: Scored) -> None:
    row = names["row"]
    published = scored.table(method="prior").find("scene-00001")
    assert row.sample_id == published.sample_id
    assert_array_equal(row.weights, published.weights)
    assert row.weights.mean() == pytest.approx(1, rel=1e-5)
    assert names["first"].sample_id == "scene-00000"
    row.check_text([names["merged"][1]["caption"]])


def of_tables(names: dict[str, Any], scored: Scored) -> None:
    rows = names["rows"]
    assert [row.sample_id for row in rows[:2]] == ["scene-00000"] * 2
    for row in rows:
        published = scored.table().find(row.sample_id)
        assert_array_equal(row.weights, published.weights)
        assert row.weights.dtype == np.float32
        assert_array_equal(row.scores.token_ends, published.scores.token_ends)
        assert row.scores.text_hash == published.scores.text_hash
    assert all(len(names[f"of_{name}"]) == 12 for name in ("polars", "pyarrow"))
    assert 0 < len(names["of_duckdb"]) <= 11


def of_webdataset(names: dict[str, Any], scored: Scored) -> None:
    assert names["sample"]["__key__"] == names["row"].sample_id == scored.rows()[2]["id"]
    assert names["sample"]["jpg"] == scored.rows()[2]["image"]["bytes"]
    assert len(np.unique(names["row"].weights)) > 5


def of_torch(names: dict[str, Any], scored: Scored) -> None:
    assert_array_equal(names["sample"]["weights"].weights, scored.table().find("scene-00001").weights)


def alignment(names: dict[str, Any], scored: Scored) -> None:
    weights, row = names["weights"], names["row"]
    assert weights.shape == (len(names["ids"]),)
    assert len(np.unique(weights)) > 5
    assert row.weights.min() <= weights[5:-1].min() <= weights.max() <= row.weights.max()


def trained(names: dict[str, Any], scored: Scored) -> None:
    before = AutoModelForImageTextToText.from_pretrained("my-vlm").state_dict()
    after = names["model"].state_dict()
    lora = any("lora_" in name for name in after)
    assert lora or any(not torch.equal(before[name], value) for name, value in after.items())


def against_a_student(names: dict[str, Any], scored: Scored) -> None:
    reference, labels = names["reference"], names["batch"]["labels"]
    assert reference.shape == labels.shape
    known = ~torch.isnan(reference) & (labels != -100)
    assert int(known.sum()) > 40 and float(reference[known].min()) >= 0
    whole = excess_loss_cross_entropy(names["logits"], labels, reference, share=1.0)
    assert torch.isfinite(names["loss"]) and names["loss"].requires_grad
    assert abs(names["loss"].item() - whole.item()) > 1e-3


def llava(names: dict[str, Any], scored: Scored) -> None:
    assert issubclass(names["WeightedLlava"], SplicingLlava)


CHECKS: dict[str, Check] = {
    "Reading": reading,
    "Thresholds of the dataset": thresholds,
    "datasets": of_datasets,
    "Tables": of_tables,
    "WebDataset": of_webdataset,
    "torch": of_torch,
    "Onto your own tokens": alignment,
    "Hugging Face Trainer": trained,
    "TRL SFTTrainer": trained,
    "Against a live student": against_a_student,
    "LLaVA's own trainer": llava,
}


def test_every_snippet_is_checked() -> None:
    assert set(snippets("python")) == set(CHECKS)
    assert len(snippets("python")) == PAGE.count("```python")
    assert len(snippets("console")) == PAGE.count("```console") == 5


@pytest.mark.filterwarnings("ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning")  # TRL's
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")  # no accelerator
@pytest.mark.filterwarnings("ignore:Exception ignored in.*train-0.tar:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file.*train-0.tar:ResourceWarning")  # WebDataset's
@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("heading", CHECKS)
def test_a_snippet_runs(heading: str, place: Path, scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(place / "cache"))
    package = ModuleType("llava.model")
    package.LlavaLlamaForCausalLM = SplicingLlava  # type: ignore[attr-defined]  # LLaVA is on no index
    monkeypatch.setitem(sys.modules, "llava", ModuleType("llava"))
    monkeypatch.setitem(sys.modules, "llava.model", package)
    samples = scored.messages()[:4]
    names: dict[str, Any] = {
        "caption": scored.rows()[1]["caption"],
        "my_collator": ChatCollator(AutoProcessor.from_pretrained("my-vlm")),
        "samples": samples,
        "prompts_and_completions": Dataset.from_list(
            [{**sample, "prompt": sample["messages"][:1], "completion": sample["messages"][1:]} for sample in samples]
        ).remove_columns("messages"),
    }
    on_cpu = snippets("python")[heading].replace("report_to=[]", "report_to=[], use_cpu=True")
    exec(compile(on_cpu, heading, "exec"), names)
    CHECKS[heading](names, scored)


@pytest.mark.parametrize("heading", snippets("console"))
def test_an_export_runs(heading: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    command = shlex.split(snippets("console")[heading])
    assert command[:2] == ["tokensight", "export"]
    assert export(command[2:]) == 0
    assert Path(command[command.index("--output") + 1]).stat().st_size > 1000
