"""The Lightning example trains, by the loss that the plain one computes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.examples.test_train_plain_pytorch import EXAMPLE, folders

__all__ = ["folders"]


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    names = ("train_plain_pytorch", "train_lightning")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("train_lightning")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's advice
@pytest.mark.filterwarnings("ignore:The number of training batches")  # and its logging interval
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's, of Lightning's imports
def test_it_trains(
    example: ModuleType, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data, weights = map(str, folders)
    short = example.main(["--data", data, "--weights", weights, "--steps", "1", "--batch", "6"])
    long = example.main(["--data", data, "--weights", weights, "--steps", "20", "--batch", "6"])
    assert long.global_step == 20
    assert long.callback_metrics["loss"] < 0.7 * short.callback_metrics["loss"]
    assert capsys.readouterr().out.count("loss of the last step") == 2


def test_its_loss_by_hand(example: ModuleType) -> None:
    torch.manual_seed(0)
    module = example.WeightedCaptioner(9)
    module.log = lambda *_, **__: None
    pixels, ids = torch.rand(2, 3, 64, 64), torch.tensor([[1, 2, 3], [4, 5, 0]])
    labels, weights = torch.tensor([[1, 2, 3], [4, 5, -100]]), torch.tensor([[1.0, 5, 2], [3, 1, 0]])
    with torch.no_grad():
        loss = module.training_step((pixels, ids, labels, weights), 0).item()
        log_probs = module.model(pixels, ids)[:, :-1].double().log_softmax(-1)
    top = sum(float(weights[b, t]) * -float(log_probs[b, t, labels[b, t]]) for b in range(2) for t in range(3 - b))
    assert loss == pytest.approx(top / 12, rel=1e-6)
