"""Keep the state of a training run in a file, so that a run that was interrupted continues to the same weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scorer.errors import ConfigError


class RunState:
    """The parts of a training run that change, and the file that they are written to.

    Data needs no state: every row follows from the seed and its number.
    """

    def __init__(
        self, file: Path, recipe: object, modules: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]
    ) -> None:
        self.file, self.recipe = file, str(recipe)
        self.modules, self.optimizers = modules, optimizers

    def save(self, step: int) -> None:
        """Write the state after `step` steps; the file is whole at any time."""
        state: dict[str, Any] = {
            "recipe": self.recipe,
            "step": step,
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": torch.get_rng_state(),
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".partial")
        torch.save(state, beside)
        beside.replace(self.file)

    def restore(self) -> int:
        """Read the state, if there is one, and return how many steps have been made.

        Raises:
            ConfigError: it is the state of a run with another recipe.
        """
        if not self.file.exists():
            return 0
        state = torch.load(self.file, weights_only=True)
        if state["recipe"] != self.recipe:
            raise ConfigError(
                f"{self.file} is the state of a run with the recipe {state['recipe']!r}, not with this one, "
                f"{self.recipe!r}: give the options of that run, delete the file, or choose another --out"
            )
        for name, module in self.modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["generator"])
        return int(state["step"])
