"""Compute the training loss: next-token prediction on answers, and a probe of what the vision tower sees."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration

from scorer.mini.attention import attending_by_segments
from scorer.mini.batches import RANKED, Batch
from scorer.mini.packaging import IMAGE_SIZE
from scorer.mini.world import CELLS, GRID, World

MEAN_COLOUR = 128
"""The image processor's mean (0.5) as a colour value; the blank image has this colour."""


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 to float32 in [-1, 1], as the image processor does."""
    return pixels.float() / 127.5 - 1.0


def with_blank(pixels: torch.Tensor) -> torch.Tensor:
    """Append the blank image to uint8 `pixels` [P, 3, H, W]."""
    blank = torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), MEAN_COLOUR, dtype=torch.uint8)
    return torch.cat([pixels, blank])


def image_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Return the decoder's image features, float [P, tokens, hidden], for uint8 `pixels` [P, 3, H, W]."""
    tower = model.model.vision_tower(normalise(pixels), output_hidden_states=True, return_dict=True)
    features: torch.Tensor = model.model.multi_modal_projector(tower.hidden_states[-1])
    return features


def hidden_states(model: LlavaForConditionalGeneration, batch: Batch, features: torch.Tensor) -> torch.Tensor:
    """Return the decoder's last hidden states [B, T, hidden].

    `features` are those of the batch's images and, last, of the blank image, which `image_numbers` calls -1.
    """
    embeddings = model.get_input_embeddings()(batch.ids)
    is_image = batch.ids == model.config.image_token_index
    seen = features[batch.image_numbers].flatten(0, 1)
    embeddings = embeddings.masked_scatter(is_image[..., None], seen.to(embeddings.dtype))
    with attending_by_segments(model.model.language_model):
        output = model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask={"full_attention": batch.segments},
            position_ids=batch.positions,
            use_cache=False,
        )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


class SceneProbe(nn.Module):
    """Predict the contents of each cell (shape, colour, size, count, rank in each order of mention) and the background.

    The input is the mean of a cell's image tokens. A few hundred caption tokens per step teach a young vision tower
    little; naming each cell teaches it much, and the ranks teach it where each cell is. The probe is discarded after
    training.
    """

    KINDS = ("shape", "colour", "size", "count", "rank", "background")

    def __init__(self, hidden: int) -> None:
        super().__init__()
        world = World()
        kinds = (world.shapes, world.colours, world.sizes, world.counts, *[range(CELLS)] * len(RANKED))
        self.cells = nn.ModuleList(nn.Linear(hidden, 1 + len(kind)) for kind in kinds)
        self.background = nn.Linear(hidden, len(world.backgrounds))

    def forward(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the losses of `KINDS`, [6]."""
        # Normalise each token as the decoder's first layer does: the probe must not read what that layer discards.
        features = F.rms_norm(features.float(), features.shape[-1:])
        side = int(features.shape[1] ** 0.5)
        grid = features.transpose(1, 2).reshape(len(features), -1, side, side)  # [P, hidden, side, side]
        cells = F.adaptive_avg_pool2d(grid, GRID).flatten(2).transpose(1, 2)  # [P, CELLS, hidden]
        found = [
            F.cross_entropy(head(cells).float().flatten(0, 1), batch.cells[..., k].flatten())
            for k, head in enumerate(self.cells)
        ]
        background = F.cross_entropy(self.background(cells.mean(1)).float(), batch.backgrounds)
        return torch.stack([*found[:4], torch.stack(found[4:]).mean(), background])


LOG_SUM_WEIGHT = 1e-3
"""Weight of the squared log-sum-exp of the logits in the loss (the "z-loss" of PaLM, arXiv 2204.02311, section 5). It
fixes what a softmax leaves open, a shift common to all logits, which raw gaps would show."""


def losses(model: LlavaForConditionalGeneration, probe: SceneProbe, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weighted mean loss of the answers' tokens (0 in a batch without answers), and the probe's losses [6]
    (0 in a batch without images)."""
    features = image_features(model, with_blank(batch.pixels))
    seen = probe(features[:-1], batch) if len(batch.pixels) else torch.zeros(len(SceneProbe.KINDS))
    chosen = batch.weights[:, 1:] > 0
    if not chosen.any():
        return torch.zeros(()), seen
    hidden = hidden_states(model, batch, features)
    logits = model.lm_head(hidden[:, :-1][chosen])  # token t is predicted at t - 1
    logits = logits.float()
    total = logits.logsumexp(1)
    each = total - logits.gather(1, batch.ids[:, 1:][chosen][:, None])[:, 0] + LOG_SUM_WEIGHT * total.square()
    weights = batch.weights[:, 1:][chosen]
    return (each * weights).sum() / weights.sum(), seen
