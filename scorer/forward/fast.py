"""Score on the fast path: whatever rows share is run once.

* Clean branch: rows with the same image share a prefix; other rows take one full pass.
* Constant contrasts (:attr:`scorer.contrasts.Contrast.constant`) are the same for every row with the same prompt and
  image size, and hidden image tokens are not run at all. So only caption tokens run, after a prefix kept across calls.
* Other contrasts depend on the row's own image, so they take a second full pass.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scorer.contrasts import CONTRASTS
from scorer.forward.labels import LabelScores, label_scores
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.forward.plain import full_forward
from scorer.forward.prefix import Prefix, PrefixCache, continue_prefixes, run_prefix
from scorer.types import EncodedSample

Cut = tuple[bytes, int]
"""A place where a row may be cut: the key of the prefix before it, and the prefix's length in tokens."""


class FastPath:
    """Scores batches, and keeps contrast prefixes across calls.

    Args:
        model: the reference model; its family must be verified for the fast path.
        contrast: the name of the contrast.
        cache_bytes: memory for contrast prefixes, in bytes.
    """

    def __init__(self, model: ReferenceModel, contrast: str, cache_bytes: int) -> None:
        self._model = model
        self._constant = CONTRASTS[contrast].constant
        self._cache = PrefixCache(cache_bytes)

    @torch.inference_mode()
    def score(self, samples: Sequence[EncodedSample]) -> list[tuple[LabelScores, LabelScores]]:
        """Return the (clean, contrast) scores of each sample in a batch."""
        clean = [self._model.prepare(sample.clean) for sample in samples]
        clean_scores = label_scores(self._model, clean, self._shared_images(clean))
        contrast = [self._model.prepare(sample.contrast) for sample in samples]
        contrast_scores = label_scores(self._model, contrast, self._contrast_states(contrast))
        return list(zip(clean_scores, contrast_scores, strict=True))

    def _shared_images(self, rows: Sequence[ForwardRow]) -> list[Tensor]:
        """Run the clean branch; a prefix is run separately only if at least two rows of the batch share it."""
        cuts = [self._cuts(row) for row in rows]
        seen = Counter(key for row in cuts for key, _ in row)
        chosen = [next((cut for cut in row if seen[cut[0]] > 1), None) for row in cuts]
        return self._run(rows, chosen, PrefixCache(0))

    def _contrast_states(self, rows: Sequence[ForwardRow]) -> list[Tensor]:
        if not self._constant:
            return full_forward(self._model, rows)
        if not all(row.attend.all() for row in rows):
            window = self._model.sliding_window or sys.maxsize
            # A sliding window counts places in the sequence, not positions, so hidden tokens must keep theirs.
            if max(len(row.ids) for row in rows) > window:
                return full_forward(self._model, rows)
            rows = [self._model.text_only(row) for row in rows]
        cuts = [self._cuts(row) for row in rows]
        seen = Counter(key for row in cuts for key, _ in row)
        chosen = []
        for row, places in zip(rows, cuts, strict=True):
            # The cut depends only on the batch, not on the state of the cache: where a row is cut changes the rounding
            # of its scores, and a resumed run must produce the same bytes as an uninterrupted one. A prefix with images
            # is worth keeping for later rows even if no other row of this batch shares it; a text prefix is not.
            shared = (cut for cut in places if seen[cut[0]] > 1)
            chosen.append(next(shared, places[-1] if places and row.pixels else None))
        return self._run(rows, chosen, self._cache)

    def _cuts(self, row: ForwardRow) -> list[Cut]:
        cuts = _cuts(row, self._model.image_token_id)
        return cuts[:1] if self._model.family.whole_prefix else cuts

    def _run(self, rows: Sequence[ForwardRow], cuts: Sequence[Cut | None], cache: PrefixCache) -> list[Tensor]:
        """Continue rows from their prefixes, equal prefix lengths together; rows without a cut take one full pass."""
        whole = [i for i, cut in enumerate(cuts) if cut is None]
        states = dict(zip(whole, full_forward(self._model, [rows[i] for i in whole]), strict=True)) if whole else {}
        by_length: defaultdict[int, dict[int, bytes]] = defaultdict(dict)
        for i, cut in enumerate(cuts):
            if cut is not None:
                by_length[cut[1]][i] = cut[0]
        for length, keys in by_length.items():
            prefixes: dict[bytes, Prefix] = {}
            for i, key in keys.items():
                if key not in prefixes:
                    prefixes[key] = cache.get(key) or run_prefix(self._model, rows[i], length)
                    cache.put(key, prefixes[key])
            members = list(keys)
            continued = continue_prefixes(self._model, [rows[i] for i in members], [prefixes[keys[i]] for i in members])
            states.update(zip(members, continued, strict=True))
        return [states[i] for i in range(len(rows))]


def _cuts(row: ForwardRow, image_token_id: int) -> list[Cut]:
    """Return where a row may be cut, longest prefix first: before its first label, and after its last image.

    Rows with the same prompt share the first cut; rows with different prompts can still share the second. There is no
    cut if an image follows a label, because its features would belong after the cut.
    """
    images = np.flatnonzero(row.ids == image_token_id)
    first_label = int(row.label_index[0])
    places = [first_label]
    if len(images):
        after_images = int(images[-1]) + 1
        places = [place for place in dict.fromkeys((first_label, after_images)) if place <= first_label]
        if after_images > first_label:
            return []
    return [(_prefix_key(row, place), place) for place in places]


def _prefix_key(row: ForwardRow, length: int) -> bytes:
    """Return a key over tokens, positions and pixels; equal keys mean equal prefixes."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(length.to_bytes(8, "little"))
    digest.update(row.ids[:length].tobytes())
    digest.update(row.positions[:, :length].tobytes())
    digest.update(row.pixels_digest)
    return digest.digest()
