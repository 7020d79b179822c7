"""Project states to the vocabulary in float32, whatever dtype the model computes in.

A class returns logits in its own dtype. In bfloat16, a logit between 16 and 32 is a multiple of 1/8, and so is a
difference of two. States and weights lose nothing here: a product of two bfloat16 or float16 numbers is exact in
float32, and sums are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import linear

from scorer.forward.memory import is_out_of_memory

WEIGHTS_BLOCK: Final = 2**22
"""The most weights converted to float32 at once, in elements (16 MiB), where a device cannot multiply into float32."""


class Head:
    """A model's vocabulary projection, with float32 logits.

    - Float32 weights, and modules other than a plain linear one, are called as they are; their logits are converted.
    - Elsewhere, one product of low-precision matrices gives float32 logits if the device has one (CUDA).
    - If not, the weights are converted in blocks of the vocabulary, and each block is multiplied in float32. So are
      weights quantised by torchao, if they can be converted.
    - Weights that several processes share are gathered whole in each: they take little memory beside the decoder's.

    Args:
        module: the output embeddings of the transformers model, on their device.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._gathered: Tensor | None = None
        self._widens = self._converts = False
        # A subclass of Linear with a forward of its own (bitsandbytes), or an offloaded module, is called as it is.
        linear_module = getattr(type(module), "forward", None) is torch.nn.Linear.forward
        if not linear_module or (module.weight.is_meta and hasattr(module, "_hf_hook")):
            return
        weight = module.weight
        if weight.dtype not in (torch.bfloat16, torch.float16):
            return
        if _is_shared(weight):
            if module.bias is not None:
                return  # no class that supports sharing has a bias
            self._gathered = weight = torch.nn.Parameter(weight.full_tensor(), requires_grad=False)
        plain = type(weight) is torch.nn.Parameter
        self._widens = plain and _widens(weight.device, weight.dtype)
        self._converts = not self._widens and (plain or self._multiplies_converted())

    @property
    def _weight(self) -> Any:
        return self._module.weight if self._gathered is None else self._gathered

    @property
    def vocabulary(self) -> int:
        """The number of rows of the projection."""
        return int(self._module.weight.shape[0])

    @property
    def block(self) -> int:
        """The number of vocabulary entries whose logits :meth:`logits` computes at once."""
        if not self._converts:
            return self.vocabulary
        width = int(self._module.weight.shape[1])
        return min(max(1, WEIGHTS_BLOCK // width), self.vocabulary)

    @property
    def width(self) -> int:
        """The most float32 values that :meth:`logits` holds per state: a block's logits, or the converted state."""
        return max(self.block, self._module.weight.shape[1]) if self._converts else self.vocabulary

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Yield float32 logits [n, :attr:`block`] of hidden states [n, D], on the head's device, in vocabulary order.

        The last block may be shorter. Usually there is only one.
        """
        if not self._widens and not self._converts:
            yield self._module(hidden).float()
            return
        weight, bias = self._weight, self._module.bias
        hidden = hidden.to(weight.device)
        if self._widens:
            product = torch.mm(hidden, weight.T, out_dtype=torch.float32)
            yield product if bias is None else product + bias.float()
            return
        hidden = hidden.float()
        # One buffer for all blocks: allocating tens of megabytes for each would fragment the heap.
        buffer = torch.empty(self.block, hidden.shape[1], device=weight.device)
        for first in range(0, self.vocabulary, self.block):
            tokens = slice(first, first + self.block)
            yield linear(hidden, self._rows(tokens, buffer), None if bias is None else bias[tokens].float())

    def _rows(self, tokens: slice, buffer: Tensor) -> Tensor:
        """Return the weights of some vocabulary entries in float32: in ``buffer``, or a new tensor for torchao's."""
        weight = self._weight
        if type(weight) is torch.nn.Parameter:
            rows = weight[tokens]
            return buffer[: len(rows)].copy_(rows)
        # In inference mode, torchao's weights cannot be sliced.
        with torch.inference_mode(False), torch.no_grad():
            quantised: Tensor = weight[tokens].float()
        return quantised

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Have the module itself return float32 logits, so that its class's further steps are done in float32.

        A module whose weights several processes share keeps its own forward, which does more than multiply.
        """
        if (not self._widens and not self._converts) or self._gathered is not None:
            yield
            return
        before = vars(self._module).get("forward")
        self._module.forward = self._all_logits
        try:
            yield
        finally:
            del self._module.forward
            if before is not None:
                self._module.forward = before

    def _all_logits(self, hidden: Tensor) -> Tensor:
        """Return float32 logits [..., V] of hidden states [..., D]."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        whole = torch.empty(len(rows), self.vocabulary, dtype=torch.float32, device=self._module.weight.device)
        for part, logits in zip(torch.split(whole, self.block, dim=1), self.logits(rows), strict=True):
            part.copy_(logits)
        return whole.reshape(*hidden.shape[:-1], -1)

    @torch.inference_mode()
    def _multiplies_converted(self) -> bool:
        """Whether torchao's or other weights can be converted and multiplied row by row; tried with one row."""
        weight = self._weight
        try:
            row = torch.ones(1, weight.shape[1], device=weight.device)
            out = linear(row, self._rows(slice(0, 1), row))
        except (RuntimeError, TypeError, AttributeError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            return False
        return out.dtype == torch.float32 and out.shape == (1, 1)


def _is_shared(weight: Tensor) -> bool:
    """Whether each of several processes holds a part of the weights."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return False  # spares the import below
    from torch.distributed.tensor import DTensor

    return isinstance(weight, DTensor)


@functools.cache
def _widens(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a device multiplies matrices of a dtype into float32 without rounding; tried once for each device."""
    # A size that every kernel takes.
    left, right = (torch.zeros(16, 16, dtype=dtype, device=device) for _ in range(2))
    left[0, :2] = 1
    right[0, 0], right[1, 0] = 1, 2**-12
    try:
        product = torch.mm(left, right, out_dtype=torch.float32)
    except RuntimeError as error:  # a NotImplementedError is one
        if is_out_of_memory(error):
            raise
        return False
    return device.type == "meta" or float(product[0, 0]) == 1 + 2**-12
