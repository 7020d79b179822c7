"""``Sample`` → ``EncodedSample``: decode the images, tokenize the conversation, build both branches.

Runs on CPUs, without torch and without the model's weights; the Ray pipeline does it in other processes than the
forward pass.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from scorer import images as image_ops
from scorer.config import ScorerConfig
from scorer.errors import FailureCode, ModelError, RowError
from scorer.processing import ProcessedImage, join_pixels, process_image
from scorer.reference import Reference
from scorer.rendering import ChatTokenizer, RenderedTokens
from scorer.table import text_hash
from scorer.types import IMAGE, Branch, EncodedSample, Failure, ImageSource, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

_BYTE_PIECE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_BLANKS_KEPT: Final = 64


class Encoder:
    """Encodes samples for one reference model under one configuration."""

    def __init__(self, reference: Reference, config: ScorerConfig) -> None:
        self.reference = reference
        self.config = config
        self.family = reference.family
        self._processor = reference.load_processor()
        tokenizer = self._processor.tokenizer
        self.image_token_id = int(reference.config.image_token_id)
        self._chat = ChatTokenizer(
            tokenizer.backend_tokenizer,
            _control_tokens(self._processor),
            self._render,
            slot=str(self._processor.image_token),
            image_token=tokenizer.convert_ids_to_tokens(self.image_token_id),
            bos=_automatic_bos(tokenizer),
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
        rendered = self._chat.encode(sample.turns, [image.replacement for image in processed])
        kept = self._labels_that_fit(rendered)
        clean = _branch(rendered, kept, processed)
        return EncodedSample(
            sample_id=sample.sample_id,
            token_ids=rendered.ids[rendered.scored[:kept]].astype(np.int32),
            token_starts=rendered.starts[:kept],
            token_ends=rendered.ends[:kept],
            token_turns=rendered.turns[:kept],
            text_hash=text_hash(sample.scored_texts),
            clean=clean,
            contrast=self._contrast(sample, images, clean, rendered, kept),
        )

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
        return process_image(self._processor, self.family, image)

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

    def _labels_that_fit(self, rendered: RenderedTokens) -> int:
        """How many labels the model's context holds: all, fewer (``truncate``), or an error."""
        limit = self.reference.context_length
        # The last label is predicted and never read, but positions are counted as the model's users do.
        if rendered.scored[-1] < limit:
            return len(rendered.scored)
        kept = int(np.searchsorted(rendered.scored, limit))
        if self.config.truncate and kept > 0:
            return kept
        remedy = "prompt and images leave nothing to score" if self.config.truncate else "shorten it or use --truncate"
        raise RowError(
            FailureCode.TEXT_TOO_LONG,
            f"prompt, images and text take {rendered.scored[-1] + 1} tokens; the model's context has {limit}: {remedy}",
        )

    def _contrast(
        self, sample: Sample, images: list[Image], clean: Branch, rendered: RenderedTokens, kept: int
    ) -> Branch:
        """The branch that the clean one is compared with."""
        image_tokens = clean.input_ids == self.image_token_id
        if self.config.contrast == "masked":
            return replace(clean, attend=~image_tokens)
        if self.config.contrast == "removed":
            label_index = (np.cumsum(~image_tokens) - 1)[clean.label_index]
            ids = clean.input_ids[~image_tokens]
            return Branch(ids, np.ones(len(ids), dtype=np.bool_), label_index, {}, b"")
        if self.config.contrast == "image":
            return self._other_images(sample, kept)
        replaced = [self._altered(image) for image in images]
        branch = _branch(self._chat.encode(sample.turns, [image.replacement for image in replaced]), kept, replaced)
        if not np.array_equal(branch.input_ids, clean.input_ids):
            raise RowError(
                FailureCode.CONTRAST_UNDEFINED,
                f"the contrast {self.config.contrast!r} encodes to {len(branch.input_ids)} other tokens than the "
                f"image's {len(clean.input_ids)}; use the contrast 'removed'",
            )
        return branch

    def _altered(self, image: Image) -> ProcessedImage:
        if self.config.contrast == "blank":
            return self._blank(image)
        if self.config.contrast == "blur":
            return self._process(image_ops.blurred(image, self.config.blur_radius))
        return self._process(image_ops.noise_like(image, self.config.noise_seed))

    def _other_images(self, sample: Sample, kept: int) -> Branch:
        """The contrast ``image``: other pictures, which may take another number of tokens."""
        if len(sample.contrast_images) != len(sample.images):
            raise RowError(
                FailureCode.CONTRAST_UNDEFINED,
                f"the row has {len(sample.contrast_images)} contrast images for {len(sample.images)} images; the "
                "contrast 'image' needs one for each",
            )
        others = [self._process(self._load(image)) for image in sample.contrast_images]
        branch = _branch(self._chat.encode(sample.turns, [image.replacement for image in others]), kept, others)
        if len(branch.input_ids) > self.reference.context_length:
            raise RowError(
                FailureCode.TEXT_TOO_LONG,
                f"with the contrast image the sequence takes {len(branch.input_ids)} tokens; the model's context has "
                f"{self.reference.context_length}: use a smaller contrast image",
            )
        return branch


def _branch(rendered: RenderedTokens, kept: int, images: list[ProcessedImage]) -> Branch:
    """A branch that ends with its last label: attention is causal, so nothing behind it matters, images included."""
    label_index = rendered.scored[:kept]
    end = int(label_index[-1]) + 1
    used = images[: int(np.searchsorted(rendered.images, end))]
    ids = rendered.ids[:end]
    digest = b"".join(image.digest for image in used)
    return Branch(ids, np.ones(end, dtype=np.bool_), label_index, _join_pixels(used), digest)


def _join_pixels(images: list[ProcessedImage]) -> dict[str, npt.NDArray[Any]]:
    if len(images) == 1:
        return images[0].pixels  # the same object as the cached blank's, so that it travels once
    return join_pixels([image.pixels for image in images])


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
