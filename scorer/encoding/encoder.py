"""Encode a sample: decode its images, tokenize its conversation, build both branches.

Runs on the CPU, without torch or the model's weights; the Ray pipeline encodes and runs the model in separate
processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.checkpoint.files import Checkpoint
from scorer.config import ScorerConfig
from scorer.contrasts import (
    AlteredImage,
    ChosenContrast,
    DrawnImage,
    EditedTokens,
    OtherImage,
    OtherRowImage,
    parse_contrast,
)
from scorer.encoding.blanks import as_blank, compact, uniform_color
from scorer.encoding.control_tokens import control_tokens, first_token
from scorer.encoding.image_processing import ProcessedImage, digest_of, image_options, join_pixels, process_images
from scorer.encoding.image_shape import check_processed, check_side
from scorer.encoding.images import DecodedImage, EncodedImage, decode_image, read_image
from scorer.encoding.jpeg_draft import check_draft, draft_scale
from scorer.encoding.pixels import pixel_table
from scorer.encoding.recent import Recent
from scorer.encoding.rendering import ChatTokenizer, RenderedTokens
from scorer.errors import FailureCode, ModelError, RowError
from scorer.families import Family
from scorer.families.base import image_token_id
from scorer.messages import check_text_bytes, to_messages
from scorer.results import Failure
from scorer.table import text_hash
from scorer.types import IMAGE, Branch, EncodedSample, Float32Array, ImageSource, PixelArray, Sample, Turn

if TYPE_CHECKING:
    from PIL.Image import Image

_KEPT_BYTES: Final = 2**26
"""Memory for processed images that later rows may share, in bytes."""
_RUST: Final = "pyo3_runtime"
"""The module that the exception of a panic in Rust says it is from."""


class Encoder:
    """Encodes samples for one reference model under one configuration.

    Attributes:
        contrast_options: the options for drawing contrast images.
        pixel_table: see :func:`scorer.encoding.pixels.pixel_table`; None if pixels are the processor's own floats.
    """

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self.checkpoint = checkpoint
        self.config = config
        self.family = checkpoint.family
        _check_contrasts(config.contrasts, checkpoint)
        self._processor = checkpoint.load_processor()
        self.pixel_table = pixel_table(self._processor, self.family)
        tokenizer = self._processor.tokenizer
        self.image_token_id = image_token_id(checkpoint.config)
        with_images = not self.family.text_only
        self._chat = ChatTokenizer(
            tokenizer.backend_tokenizer,
            control_tokens(self._processor),
            self.render,
            slot=str(self._processor.image_token) if with_images else None,
            image_token=tokenizer.convert_ids_to_tokens(self.image_token_id) if with_images else None,
            bos=first_token(self._processor, self.family),
            bos_after_images=self.family.bos_after_images,
            separate_text=self.family.separate_text,
            stop_token=config.stop_token,
        )
        if config.jpeg_draft and with_images:
            check_draft(self._processor, self.family, checkpoint.name, str(checkpoint.config.model_type))
        needs_mean = with_images and config.blank_color is None
        mean_color = _mean_color(self._processor.image_processor) if needs_mean else (0, 0, 0)
        self.contrast_options = config.contrast_options(mean_color)
        self._recent: Recent[tuple[bytes, bool, tuple[ChosenContrast, ...]], _Prepared] = _recent()
        self._drawn: Recent[tuple[DrawnImage, tuple[int, int]], ProcessedImage] = _recent()
        self._equal_drawn: Recent[tuple[str, bytes], ProcessedImage] = _recent()
        self._blank_colors: dict[DrawnImage, Float32Array | None] = {}
        self._begin()

    @property
    def unknown_id(self) -> int | None:
        """The tokenizer's id for text that it does not know; None if it can encode any."""
        found = self._processor.tokenizer.unk_token_id
        return None if found is None else int(found)

    @classmethod
    def load(
        cls, model: str | PathLike[str], config: ScorerConfig | None = None, revision: str | None = None
    ) -> Encoder:
        """Load processor and configuration from a local directory or hub id. Raises ModelError if they do not load."""
        return cls(Checkpoint.locate(model, revision), config or ScorerConfig())

    def with_contrast(self, *contrasts: str) -> Encoder:
        """Return an encoder for other contrasts on the same processor. Raises ModelError for an undefined contrast."""
        _check_contrasts(contrasts, self.checkpoint)
        first, *further = contrasts
        other = copy(self)
        other.config = replace(self.config, contrast=first, further_contrasts=tuple(further))
        other._begin()
        return other

    def _begin(self) -> None:
        """Prepare what belongs to the contrasts."""
        self._contrasts = tuple(parse_contrast(contrast) for contrast in self.config.contrasts)
        self._altering = tuple(one for one in self._contrasts if isinstance(one.record.how, AlteredImage))
        for contrast in self._contrasts:
            how = contrast.record.how
            if isinstance(how, DrawnImage) and how.uniform:
                self._prepare_uniform(how)

    def _prepare_uniform(self, how: DrawnImage) -> None:
        """Find the colour of blanks, None if they must be drawn, or draw the one that all images share.

        Raises:
            ModelError: the size of the shared blank is refused.
        """
        size = self.config.blank_size
        if size is not None:
            self._check_blank_size(how, size)
        elif how not in self._blank_colors:
            self._blank_colors[how] = uniform_color(
                self._processor, self.family, lambda size: how.draw(size, self.contrast_options), self.pixel_table
            )

    def _check_blank_size(self, how: DrawnImage, size: tuple[int, int]) -> None:
        width, height = size
        given = f"--blank-size {width}x{height}"
        if width * height > self.config.max_image_pixels:
            raise ModelError(
                f"{given} has {width * height} pixels, more than max_image_pixels={self.config.max_image_pixels}; "
                "choose a smaller one"
            )
        try:
            check_side(given, width, height)
            check_processed(self._processor, image_options(self._processor), self.family, width, height, several=False)
            self._draw(how, size)
        except RowError as error:
            raise ModelError(f"model {self.checkpoint.name} takes no {given}: {error.message}") from error

    def encode(self, sample: Sample) -> EncodedSample:
        """Encode one sample.

        Raises:
            RowError: this sample cannot be scored; ``code`` says why.
        """
        _check_sample(sample, self.config.max_text_bytes)
        if self.family.text_only or sample.text_only:
            return self._encode_text(sample)
        _check_images(sample, self.family)
        images = self._prepare(sample.images)
        rendered = self._chat.encode(sample.turns, [image.processed.replacement for image in images])
        kept = self._labels_that_fit(rendered)
        clean = self._branch(sample, rendered, kept, [image.processed for image in images])
        contrasts = [self._contrast(contrast, sample, images, clean, rendered, kept) for contrast in self._contrasts]
        return self._encoded(sample, rendered, kept, clean, *contrasts)

    def _encoded(
        self, sample: Sample, rendered: RenderedTokens, kept: int, clean: Branch, contrast: Branch, *further: Branch
    ) -> EncodedSample:
        return EncodedSample(
            sample_id=sample.sample_id,
            token_ids=rendered.ids[rendered.scored[:kept]].astype(np.int32),
            token_starts=rendered.starts[:kept],
            token_ends=rendered.ends[:kept],
            token_turns=rendered.turns[:kept],
            is_stop=rendered.is_stop[:kept] if self.config.stop_token else None,
            text_hash=text_hash(sample.scored_texts),
            clean=clean,
            contrast=contrast,
            text_only=sample.text_only,
            further=further,
        )

    def _encode_text(self, sample: Sample) -> EncodedSample:
        """Encode text alone: a text-only sample, or any for a language model, which leaves images out.

        Only the contrast branch is scored.
        """
        turns = [replace(turn, content=tuple(p for p in turn.content if p is not IMAGE)) for turn in sample.turns]
        rendered = self._chat.encode(turns, [])
        kept = self._labels_that_fit(rendered)
        if sample.text_only and rendered.scored[0] == 0:  # nothing predicts its first token, so it is kept unscored
            ids = rendered.ids[: int(rendered.scored[kept - 1]) + 1]
            branch = Branch(ids, np.ones(len(ids), dtype=np.bool_), rendered.scored[:0], {}, b"")
        else:
            branch = self._branch(sample, rendered, kept, [])
        return self._encoded(sample, rendered, kept, branch, branch)

    def try_encode(self, sample: Sample) -> EncodedSample | Failure:
        """Encode one sample, returning a row's error as a :class:`Failure` instead of raising it.

        Raises:
            RuntimeError: the tokenizer panicked. Its own exception is no Exception, and would end the worker.
        """
        try:
            return self.encode(sample)
        except RowError as error:
            return Failure(sample.sample_id, error.code, error.message)
        except BaseException as error:
            if type(error).__module__ != _RUST:
                raise
            raise RuntimeError(f"the tokenizer panicked: {error}") from error

    def render(self, messages: list[dict[str, Any]]) -> str:
        """Render Hugging Face messages into the prompt that the model's processor receives."""
        return str(self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=False))

    def processor_inputs(self, turns: Sequence[Turn], images: Sequence[Image]) -> dict[str, Any]:
        """Run the model's own processor on a conversation; return tensors by the model's argument names."""
        return dict(self._processor(images=list(images), text=[self.render(to_messages(turns))], return_tensors="pt"))

    def _prepare(self, sources: Sequence[ImageSource]) -> list[_Prepared]:
        """Decode and process a sample's images; one that a recent sample had is neither decoded nor processed again."""
        read = [read_image(source, self.config.max_image_bytes) for source in sources]
        several = len(read) > 1
        if several and self.family.joint_images:
            return self._prepared([self._load(one, several) for one in read])

        def prepare(one: EncodedImage | Image) -> _Prepared:
            (prepared,) = self._prepared([self._load(one, several)])
            return prepared

        # A decoded image may be changed by its owner, and reading all its pixels to see whether it was takes long.
        return [
            self._recent.get((_digest(one), several, self._altering), partial(prepare, one))
            if isinstance(one, EncodedImage)
            else prepare(one)
            for one in read
        ]

    def _prepared(self, decoded: list[DecodedImage]) -> list[_Prepared]:
        images = [one.image for one in decoded]
        processed = self._process(images)
        altered = [self._process(self._altered(contrast, images)) for contrast in self._altering]
        return [
            _Prepared(one.size, processed[i], {by: of[i] for by, of in zip(self._altering, altered, strict=True)})
            for i, one in enumerate(decoded)
        ]

    def _altered(self, contrast: ChosenContrast, images: Sequence[Image]) -> list[Image]:
        how, options = contrast.record.how, contrast.options(self.contrast_options)
        assert isinstance(how, AlteredImage)
        return [how.alter(image, options) for image in images]

    def _load(self, image: EncodedImage | Image, several: bool) -> DecodedImage:
        """Decode an image; it is upright, and of no shape that would cost more than its pixels.

        The contrasts that replace an image keep its size, so what is accepted here bounds them too.
        """
        settings = (self._processor, image_options(self._processor), self.family)
        return decode_image(
            image,
            max_bytes=self.config.max_image_bytes,
            max_pixels=self.config.max_image_pixels,
            check_shape=partial(check_processed, *settings, several=several),
            choose_scale=partial(draft_scale, *settings, several=several) if self.config.jpeg_draft else None,
        )

    def _process(self, images: list[Image]) -> list[ProcessedImage]:
        return process_images(self._processor, self.family, images, self.pixel_table)

    def _draw(self, how: DrawnImage, size: tuple[int, int]) -> ProcessedImage:
        """Draw an image of a size; equal drawn images are one object, even of different sizes."""

        def make() -> ProcessedImage:
            (drawn,) = self._process([how.draw(size, self.contrast_options)])
            drawn = compact(drawn) if how.uniform else drawn
            # Tiles side by side and one above the other may have equal tensors, and different texts.
            return self._equal_drawn.get((drawn.replacement, drawn.digest), lambda: drawn)

        return self._drawn.get((how, size), make)

    def _labels_that_fit(self, rendered: RenderedTokens) -> int:
        """Return how many labels fit in the model's context.

        A last stop token that does not fit is left out: it fails no row whose text fits.

        Raises:
            RowError: not all of the text fits, and ``truncate`` is off.
        """
        limit = self.checkpoint.context_length
        # The last label is only predicted, never read, but its position counts, as it does for the model's users.
        kept = int(np.searchsorted(rendered.scored, limit))
        if rendered.is_stop[kept:].all():
            return kept
        if self.config.truncate and kept > 0:
            return kept
        remedy = "prompt and images leave nothing to score" if self.config.truncate else "shorten it or use --truncate"
        raise RowError(
            FailureCode.TEXT_TOO_LONG,
            f"prompt, images and text take {rendered.scored[-1] + 1} tokens; the model's context has {limit}: {remedy}",
        )

    def _contrast(
        self,
        contrast: ChosenContrast,
        sample: Sample,
        images: list[_Prepared],
        clean: Branch,
        rendered: RenderedTokens,
        kept: int,
    ) -> Branch:
        """Build a branch that the clean branch is compared with."""
        name, how = contrast.name, contrast.record.how
        if isinstance(how, EditedTokens):
            return how.edit(clean, clean.input_ids == self.image_token_id)
        if isinstance(how, OtherImage):
            others = self._prepare(_contrast_images(sample, name))
            return self._other_branch(sample, kept, [image.processed for image in others], "contrast image")
        if isinstance(how, OtherRowImage):
            return self._partner_branch(name, sample, images, kept)
        size = self.config.blank_size
        if isinstance(how, DrawnImage) and how.uniform and size is not None:
            return self._other_branch(sample, kept, self._drawn_images(how, [size] * len(images)), "--blank-size")
        if isinstance(how, AlteredImage):
            replaced = [image.altered[contrast] for image in images]
        else:
            replaced = self._blanks(how, images)
        replacements = [image.replacement for image in replaced]
        if replacements != [image.processed.replacement for image in images]:  # else the prompt is the same
            rendered = self._chat.encode(sample.turns, replacements)
        branch = self._branch(sample, rendered, kept, replaced)
        if not np.array_equal(branch.input_ids, clean.input_ids):
            raise RowError(
                FailureCode.CONTRAST_UNDEFINED,
                f"with the contrast {name!r} the row encodes to {len(branch.input_ids)} tokens, which "
                f"differ from the {len(clean.input_ids)} with the image; use the contrast 'removed'",
            )
        return branch

    def _blanks(self, how: DrawnImage, images: list[_Prepared]) -> list[ProcessedImage]:
        """Replace the images by drawn ones of the same sizes."""
        color = self._blank_colors.get(how)
        if color is not None:
            return [as_blank(image.processed, color) for image in images]
        return self._drawn_images(how, [image.size for image in images])

    def _drawn_images(self, how: DrawnImage, sizes: Sequence[tuple[int, int]]) -> list[ProcessedImage]:
        if self.family.joint_images and len(sizes) > 1:
            return self._process([how.draw(size, self.contrast_options) for size in sizes])
        return [self._draw(how, size) for size in sizes]

    def _partner_branch(self, name: str, sample: Sample, images: list[_Prepared], kept: int) -> Branch:
        """Build the branch with the images of the first partner that has other ones and can be used."""
        problem = "every other row near it has another number of images, none, or the same"
        for partner in sample.partners:
            if len(partner) != len(images):
                continue
            try:
                others = self._prepare(partner)
                if any(one.processed.digest == own.processed.digest for one, own in zip(others, images, strict=True)):
                    problem = "they look the same to the model"
                    continue
                return self._other_branch(sample, kept, [image.processed for image in others], "images of another row")
            except RowError as error:
                problem = f"the last one says: {error.message}"
        raise RowError(
            FailureCode.CONTRAST_UNDEFINED,
            f"the contrast {name!r} needs another row's images, and none of the {len(sample.partners)} candidates can "
            f"be used ({problem}); score rows of several images together, shuffle the dataset's rows, or use the "
            "contrast 'blank'",
        )

    def _other_branch(self, sample: Sample, kept: int, others: list[ProcessedImage], what: str) -> Branch:
        """Build the branch with other images of any size, which may take a different number of tokens."""
        rendered = self._chat.encode(sample.turns, [image.replacement for image in others])
        branch = self._branch(sample, rendered, kept, others)
        if len(branch.input_ids) > self.checkpoint.context_length:
            raise RowError(
                FailureCode.TEXT_TOO_LONG,
                f"with the {what} the sequence takes {len(branch.input_ids)} tokens; the model's context has "
                f"{self.checkpoint.context_length}: use a smaller {what}",
            )
        return branch

    def _branch(self, sample: Sample, rendered: RenderedTokens, kept: int, images: list[ProcessedImage]) -> Branch:
        """Build a branch that ends with its last label; attention is causal, so nothing after that matters."""
        label_index = rendered.scored[:kept]
        if label_index[0] == 0:
            raise RowError(
                FailureCode.TEMPLATE_FAILED,
                "the model's chat template writes nothing before the text to score, and its tokenizer no BOS, so that "
                "nothing predicts the first token; give the row a prompt, or use another reference model",
            )
        end = int(label_index[-1]) + 1
        used = images[: int(np.searchsorted(rendered.images, end))]
        if self.family.joint_images and len(used) < len(images):
            raise RowError(
                FailureCode.CONVERSATION_INVALID,
                f"image {len(used) + 1} of {len(images)} comes after the last scored token, but this model processes "
                "a row's images together; end the row with the turn to score, and do not truncate it",
            )
        ids = rendered.ids[:end]
        pixels = _join_pixels(used, self.family.image_axis)
        digest = b"".join(image.digest for image in used)
        extra = self.family.sample_inputs(self._processor, sample.turns, ids, pixels) if used else {}
        if extra:
            pixels = {**pixels, **extra}
            digest += digest_of(extra)
        return Branch(ids, np.ones(end, dtype=np.bool_), label_index, pixels, digest)


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """One image of a sample, ready for both branches.

    Attributes:
        size: (width, height) of the upright image, in pixels.
        processed: the image as the model receives it.
        altered: the same of the image as each contrast alters it that does.
    """

    size: tuple[int, int]
    processed: ProcessedImage
    altered: Mapping[ChosenContrast, ProcessedImage]

    @property
    def nbytes(self) -> int:
        return self.processed.nbytes + sum(one.nbytes for one in self.altered.values())


def _recent() -> Recent[Any, Any]:
    return Recent(_KEPT_BYTES, lambda image: image.nbytes)


def _digest(image: EncodedImage) -> bytes:
    return hashlib.blake2b(image.data, digest_size=16).digest()


def _join_pixels(images: list[ProcessedImage], axis: int) -> dict[str, PixelArray]:
    if len(images) == 1:
        return dict(images[0].pixels)  # the same arrays in all samples that share the image or the blank
    return join_pixels([image.pixels for image in images], axis)


def _check_contrasts(contrasts: Iterable[str], checkpoint: Checkpoint) -> None:
    for contrast in contrasts:
        if parse_contrast(contrast).record.name not in checkpoint.family.contrasts:
            raise ModelError(
                f"the contrast {contrast!r} is not defined for models of type {checkpoint.config.model_type!r}; choose "
                f"one of {', '.join(checkpoint.family.contrasts)}"
            )


def _contrast_images(sample: Sample, contrast: str) -> tuple[ImageSource, ...]:
    if len(sample.contrast_images) != len(sample.images):
        raise RowError(
            FailureCode.CONTRAST_UNDEFINED,
            f"the row has {len(sample.contrast_images)} contrast images for {len(sample.images)} images; the "
            f"contrast {contrast!r} needs one for each image",
        )
    return sample.contrast_images


def _check_images(sample: Sample, family: Family) -> None:
    slots = sum(turn.content.count(IMAGE) for turn in sample.turns)
    if not sample.images:
        raise RowError(FailureCode.IMAGE_MISSING, "the row has places for images, but no image; give its images")
    if slots != len(sample.images):
        raise RowError(
            FailureCode.CONVERSATION_INVALID,
            f"the turns have places for {slots} images, but the row has {len(sample.images)}; the numbers must match",
        )
    if len(sample.images) > 1 and not family.several_images:
        raise RowError(
            FailureCode.CONVERSATION_INVALID,
            f"the row has {len(sample.images)} images; this model takes one image per row",
        )


def _check_sample(sample: Sample, max_text_bytes: int) -> None:
    check_text_bytes((part for turn in sample.turns for part in turn.content), max_text_bytes)
    for turn in sample.turns:
        for part in turn.content:
            if part is not IMAGE and not isinstance(part, str):
                missing = part is None
                code = FailureCode.TEXT_MISSING if missing else FailureCode.TEXT_INVALID
                raise RowError(code, f"a text of the {turn.role} turn is {type(part).__name__}; a string is needed")
    if not "".join(sample.scored_texts).strip():
        raise RowError(FailureCode.TEXT_MISSING, "the text to score is empty or white space only")


def _mean_color(image_processor: Any) -> tuple[int, int, int]:
    """Return the processor's mean colour, which normalises to about zero. Raises ModelError if it has none."""
    mean = getattr(image_processor, "image_mean", None)
    if mean is None or len(mean) != 3:
        raise ModelError(
            f"the image processor {type(image_processor).__name__} has no RGB mean; set --blank-color for the contrast "
            "'blank'"
        )
    red, green, blue = (min(255, max(0, round(255 * value))) for value in mean)
    return (red, green, blue)
