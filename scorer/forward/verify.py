"""Check a model whose family has no record against its own processor and class, before it scores anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scorer.errors import ModelError, RowError
from scorer.types import IMAGE, Sample, Turn

if TYPE_CHECKING:
    from torch import Tensor

    from scorer.encoding.encoder import Encoder
    from scorer.forward import ReferenceModel

_TURNS = (
    Turn("user", (IMAGE, "Describe the image.")),
    Turn("assistant", ("A red kite over two boats.",)),
)


def check_unlisted(encoder: Encoder, model: ReferenceModel, tolerance: float) -> None:
    """Compare ids and logits of one synthetic sample with those from the model's own processor and class.

    Args:
        encoder: the model's encoder.
        model: the reference model.
        tolerance: the allowed difference in a logit, relative to the largest logit.

    Raises:
        ModelError: they differ, so scores of this model would be silently wrong.
    """
    import torch
    from PIL import Image

    name = encoder.checkpoint.name
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    try:
        branch = encoder.encode(Sample("probe", (image,), _TURNS)).clean
        inputs = encoder.processor_inputs(_TURNS, [image])
        ids = inputs["input_ids"][0].numpy()
        if not np.array_equal(ids[: len(branch.input_ids)], branch.input_ids):
            raise ModelError(f"model {name}: its processor produces different tokens from those scored; {_REMEDY}")
        with torch.inference_mode():
            row = model.prepare(branch)
            ours = model.hidden([row.ids], [row.positions], [row.attend], [row.pixels])[0]
            moved = {
                n: v.to(model.device, model.model.dtype if v.is_floating_point() else v.dtype)
                for n, v in inputs.items()
            }
            theirs = model.model(**moved).logits[0].float()
    except (
        RowError,
        ValueError,
        RuntimeError,
        TypeError,
        NotImplementedError,
        AttributeError,
        KeyError,
        IndexError,
    ) as error:
        raise ModelError(f"model {name}: a synthetic sample cannot be scored ({error}); {_REMEDY}") from error
    shared = min(len(ours), len(branch.input_ids) - 1)
    difference = float((ours[:shared].float() - theirs[:shared]).abs().max())
    if not difference <= tolerance * max(1.0, float(theirs.abs().max())):
        raise ModelError(
            f"model {name}: scores differ by {difference:.3g} from those of its own processor and class, whose inputs "
            f"are {', '.join(sorted(inputs))}; {_REMEDY}"
        )


def check_causal(encoder: Encoder, model: ReferenceModel) -> None:
    """Check that a token does not change predictions before it. Raises ModelError if it does (BERT and the like)."""
    import torch

    ids = torch.from_numpy(encoder.encode(Sample("probe", (), _TURNS)).contrast.input_ids)[None].to(model.device)
    if not is_causal(model.model, ids):
        raise ModelError(
            f"model {encoder.checkpoint.name} also uses later tokens to predict a token, so it is not a causal "
            "language model; use one that is"
        )


def is_causal(model: Any, ids: Tensor) -> bool:
    """Whether the last of ``ids``, int64 [1, T], changes no prediction of a transformers language model before it."""
    import torch

    changed = ids.clone()
    changed[0, -1] = ids[0, -2]
    with torch.inference_mode():
        first, second = (model(input_ids=one).logits[0, :-1].float() for one in (ids, changed))
    return torch.allclose(first, second, atol=1e-3, rtol=1e-2)


_REMEDY = "its family needs a record of its own, so please report this, and use a model that README.md lists"
