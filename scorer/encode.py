"""``Sample`` → ``EncodedSample``: decode the images, tokenize the conversation, build both branches.

Runs on CPUs, without torch and without the model's weights; the Ray pipeline does it in other processes than the
forward pass.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scorer import images as image_ops
from scorer.config import ScorerConfig
from scorer.errors import FailureCode, ModelError, RowError
from scorer.reference import Reference
from scorer.rendering import ChatTokenizer
from scorer.table import text_hash
from scorer.types import IMAGE, Branch, EncodedSample, Failure, ImageSource, Int64Array, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_BYTE_PIECE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_BLANKS_KEPT: Final = 64


class ProcessedImage:
    """One image as the model takes it: its placeholder ids and its tensors, by the model's argument names."""

    __slots__ = ("ids", "pixels")

    def __init__(self, ids: Int64Array, pixels: dict[str, npt.NDArray[Any]]) -> None:
        self.ids = ids
        self.pixels = pixels


class Encoder:
    """Encodes samples for one reference model under one configuration."""

    def __init__(self, reference: Reference, config: ScorerConfig) -> None:
        self.reference = reference
        self.config = config
        self.family = reference.family
        self._processor = reference.load_processor()
        self.image_token_id = int(reference.config.image_token_id)
        tokenizer = self._processor.tokenizer
        self._image_token: str = tokenizer.convert_ids_to_tokens(self.image_token_id)
        self._chat = ChatTokenizer(
            tokenizer.backend_tokenizer, _control_tokens(self._processor), self._render, _automatic_bos(tokenizer)
        )
        self._blank_color = config.blank_color or _mean_color(self._processor.image_processor)
        self._blanks: OrderedDict[tuple[int, int], ProcessedImage] = OrderedDict()

    @classmethod
    def load(
        cls, model: str | PathLike[str], config: ScorerConfig | None = None, revision: str | None = None
    ) -> Encoder:
        """Load processor and configuration of a local directory or hub id. Raises ModelError."""
        return cls(Reference.locate(model, revision), config or ScorerConfig())

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode one sample.

        Raises:
            RowError: this sample cannot be scored; ``code`` says why.
        """
        _check_sample(sample)
        images = [self._load(image) for image in sample.images]
        processed = [self._process(image) for image in images]
        rendered = self._chat.encode(sample.turns)
        token_ids = rendered.ids[rendered.scored]
        clean = self._branch(rendered.ids, rendered.scored, processed)
        clean, kept = self._fit(clean, len(token_ids))
        encoded = EncodedSample(
            sample_id=sample.sample_id,
            token_ids=token_ids[:kept].astype(np.int32),
            token_starts=rendered.starts[:kept],
            token_ends=rendered.ends[:kept],
            token_turns=rendered.turns[:kept],
            text_hash=text_hash(sample.scored_texts),
            clean=clean,
            contrast=self._contrast(sample, images, clean, rendered.ids, rendered.scored[:kept]),
        )
        for branch in (encoded.clean, encoded.contrast):
            if not np.array_equal(branch.input_ids[branch.label_index], encoded.token_ids):
                raise AssertionError(f"sample {sample.sample_id}: a branch's labels are not the scored tokens")
        return encoded

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        """:meth:`encode`, with a row's error as a value: one bad row costs that row only."""
        try:
            return self.encode(sample)
        except RowError as error:
            return Failure(sample.sample_id, error.code, error.message)

    def _render(self, messages: list[dict[str, Any]]) -> str:
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))

    def _load(self, source: ImageSource) -> Image:
        return image_ops.load_image(
            source, max_bytes=self.config.max_image_bytes, max_pixels=self.config.max_image_pixels
        )

    def _process(self, image: Image) -> ProcessedImage:
        """The processor's own tensors and its own expansion of the image placeholder."""
        try:
            output = self._processor(
                images=[image], text=[self._image_token], add_special_tokens=False, return_tensors="np"
            )
        except ValueError as error:
            # Extreme aspect ratios are refused by some image processors.
            raise RowError(
                FailureCode.IMAGE_UNREADABLE,
                f"the model's image processor refuses an image of {image.width} x {image.height} pixels: {error}",
            ) from error
        pixels = {name: np.asarray(output[name]) for name in self.family.pixel_names}
        return ProcessedImage(np.asarray(output["input_ids"][0], dtype=np.int64), pixels)

    def _blank(self, image: Image) -> ProcessedImage:
        """The blank of an image's size; kept, so that equal blanks are one object and travel once."""
        blank = self._blanks.get(image.size)
        if blank is None:
            blank = self._process(image_ops.blank_like(image, self._blank_color))
            self._blanks[image.size] = blank
            if len(self._blanks) > _BLANKS_KEPT:
                self._blanks.popitem(last=False)
        self._blanks.move_to_end(image.size)
        return blank

    def _branch(self, ids: Int64Array, scored: Int64Array, images: list[ProcessedImage]) -> Branch:
        """Expand each image placeholder to its image's tokens, and move the labels along.

        ids      <user> <image>                 What ? <assistant> A kite        scored = [5, 6]
        expanded <user> <start> ▢ ▢ ▢ ▢ <end>   What ? <assistant> A kite        label_index = [10, 11]
        """
        slots = np.flatnonzero(ids == self.image_token_id)
        if len(slots) != len(images):
            raise AssertionError(f"the prompt has {len(slots)} image placeholders for {len(images)} images")
        pieces: list[Int64Array] = []
        last = 0
        for slot, image in zip(slots, images, strict=True):
            pieces += [ids[last:slot], image.ids]
            last = int(slot) + 1
        expanded = np.concatenate([*pieces, ids[last:]])
        growth = np.zeros(len(ids), dtype=np.int64)
        growth[slots] = [len(image.ids) - 1 for image in images]
        label_index = scored + np.cumsum(growth)[scored]
        # Causal attention: nothing behind the last label matters, except an image that its placeholder must meet.
        placeholders = np.flatnonzero(expanded == self.image_token_id)
        end = max(label_index[-1], placeholders[-1] if len(placeholders) else 0) + 1
        return _make_branch(expanded[:end], label_index, _join_pixels(images))

    def _fit(self, branch: Branch, labels: int) -> tuple[Branch, int]:
        """Hold a branch against the model's context: as it is, cut (``truncate``), or an error."""
        limit = self.reference.context_length
        length = len(branch.input_ids)
        if length <= limit:
            return branch, labels
        kept = int(np.searchsorted(branch.label_index, limit))
        if not self.config.truncate:
            remedy = "shorten it or use --truncate"
        elif kept == 0 or bool(np.any(branch.input_ids[limit:] == self.image_token_id)):
            remedy = "cutting it would cut an image or leave nothing to score"
        else:
            end = int(branch.label_index[kept - 1]) + 1
            return _make_branch(branch.input_ids[:end], branch.label_index[:kept], branch.pixels), kept
        raise RowError(
            FailureCode.TEXT_TOO_LONG,
            f"prompt, images and text take {length} tokens; the model's context has {limit}: {remedy}",
        )

    def _contrast(
        self, sample: Sample, images: list[Image], clean: Branch, ids: Int64Array, scored: Int64Array
    ) -> Branch:
        """The branch that the clean one is compared with."""
        config = self.config
        if config.contrast == "masked":
            return Branch(
                clean.input_ids,
                clean.position_ids,
                clean.input_ids != self.image_token_id,
                clean.label_index,
                clean.pixels,
            )
        if config.contrast == "removed":
            keep = clean.input_ids != self.image_token_id
            label_index = (np.cumsum(keep) - 1)[clean.label_index]
            return _make_branch(clean.input_ids[keep], label_index, {})
        if config.contrast == "image":
            if len(sample.contrast_images) != len(images):
                raise RowError(
                    FailureCode.CONTRAST_UNDEFINED,
                    f"the row has {len(sample.contrast_images)} contrast images for {len(images)} images; the contrast "
                    "'image' needs one for each",
                )
            replaced = [self._process(self._load(image)) for image in sample.contrast_images]
            # Another picture may take another number of tokens, so the context is checked again.
            branch = self._branch(ids, scored, replaced)
            if len(branch.input_ids) > self.reference.context_length:
                raise RowError(
                    FailureCode.TEXT_TOO_LONG,
                    f"with the contrast image the sequence takes {len(branch.input_ids)} tokens; the model's context "
                    f"has {self.reference.context_length}: use a smaller contrast image",
                )
            return branch
        if config.contrast == "blank":
            replaced = [self._blank(image) for image in images]
        elif config.contrast == "blur":
            replaced = [self._process(image_ops.blurred(image, config.blur_radius)) for image in images]
        else:
            replaced = [self._process(image_ops.noise_like(image, config.noise_seed)) for image in images]
        branch = self._branch(ids, scored, replaced)
        if not np.array_equal(branch.input_ids, clean.input_ids):
            raise RowError(
                FailureCode.CONTRAST_UNDEFINED,
                f"the contrast {config.contrast!r} of the same size encodes to {len(branch.input_ids)} other tokens "
                f"than the image's {len(clean.input_ids)}; use the contrast 'removed'",
            )
        return branch


def _make_branch(ids: Int64Array, label_index: Int64Array, pixels: dict[str, npt.NDArray[Any]]) -> Branch:
    length = len(ids)
    return Branch(ids, np.arange(length, dtype=np.int64), np.ones(length, dtype=np.bool_), label_index, pixels)


def _join_pixels(images: list[ProcessedImage]) -> dict[str, npt.NDArray[Any]]:
    if len(images) == 1:
        return images[0].pixels  # the same object as the cached blank's, so that it travels once
    return {name: np.concatenate([image.pixels[name] for image in images]) for name in images[0].pixels}


def _check_sample(sample: Sample) -> None:
    slots = sum(turn.content.count(IMAGE) for turn in sample.turns)
    if not sample.images:
        raise RowError(FailureCode.IMAGE_MISSING, "the row has no image; visual weights need one")
    if slots != len(sample.images):
        raise RowError(
            FailureCode.CONVERSATION_INVALID,
            f"the turns have places for {slots} images, the row has {len(sample.images)}; they must match",
        )
    for turn in sample.turns:
        for part in turn.content:
            if part is not IMAGE and not isinstance(part, str):
                missing = part is None
                code = FailureCode.TEXT_MISSING if missing else FailureCode.TEXT_INVALID
                raise RowError(code, f"a text of the {turn.role} turn is {type(part).__name__}; a string is needed")
    if not "".join(sample.scored_texts).strip():
        raise RowError(FailureCode.TEXT_MISSING, "the text to score is empty or white space only")


def _control_tokens(processor: Any) -> list[str]:
    """The tokens that only the template may write: special ones, and others that the template spells.

    A tokenizer with byte fallback may list its byte pieces as special; those are how text is encoded, not control.
    """
    template = processor.chat_template
    template_text = template if isinstance(template, str) else "\0".join(template.values())
    tokens = processor.tokenizer.added_tokens_decoder.values()
    return [
        token.content
        for token in tokens
        if (token.special or (token.content in template_text and not token.content.isspace()))
        and not _BYTE_PIECE.fullmatch(token.content)
    ]


def _automatic_bos(tokenizer: Any) -> int | None:
    """The id that the tokenizer itself puts before a text (LLaVA-1.5's template leaves BOS to the tokenizer)."""
    ids = tokenizer("", add_special_tokens=True)["input_ids"]
    return int(ids[0]) if ids and ids[0] == tokenizer.bos_token_id else None


def _mean_color(image_processor: Any) -> tuple[int, int, int]:
    """The processor's mean, which normalises to about zero."""
    mean = getattr(image_processor, "image_mean", None)
    if mean is None or len(mean) != 3:
        raise ModelError(
            f"the image processor {type(image_processor).__name__} has no RGB mean; set --blank-color for the contrast "
            "'blank'"
        )
    red, green, blue = (min(255, max(0, round(255 * value))) for value in mean)
    return (red, green, blue)
