"""Count, rather than estimate, the arithmetic that something runs."""

from __future__ import annotations

from collections.abc import Callable

from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], object]) -> int:
    """Return the floating-point operations of all that ``run`` computes; a multiply-add counts as two, as in torch."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
