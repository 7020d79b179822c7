"""Define the small frozen records that pass through the library, in the order in which a sample meets them.

``Sample`` (what the user has) → ``EncodedSample`` (what the model sees) → ``TokenScores`` (what is stored).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

Role = Literal["system", "user", "assistant"]

DEFAULT_PROMPT: Final = "Describe the image."
"""The instruction that a bare caption answers; part of the fingerprint."""

ImageSource = Any
"""Encoded bytes, a local path, or a decoded PIL image (typed as Any to keep Pillow optional)."""


class ImageSlot:
    """Marks the place of one image inside a turn's content. Use the constant :data:`IMAGE`."""

    def __repr__(self) -> str:
        return "IMAGE"

    def __reduce__(self) -> str:
        return "IMAGE"  # one object across processes, so that `part is IMAGE` works


IMAGE: Final = ImageSlot()
ContentPart = str | ImageSlot


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    ``content`` holds literal text and image places, in order. Text is never interpreted: in a caption, ``<image>`` is
    just seven characters.
    """

    role: Role
    content: tuple[ContentPart, ...]

    @classmethod
    def question(cls, images: int, prompt: str) -> Turn:
        """Return the user turn that a caption answers: its image places, then ``prompt`` unless it is empty."""
        return cls("user", (IMAGE,) * images + ((prompt,) if prompt else ()))

    @property
    def text(self) -> str:
        """The turn's text, without image places."""
        return "".join(part for part in self.content if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Sample:
    """One row to score: its images, and a conversation whose assistant turns are all scored.

    Only the contrast ``image`` reads ``contrast_images``, which replace ``images`` one to one, and only ``shuffled``
    reads ``partners``: the images of other rows, each as many as ``images``, in the order in which they are tried.
    ``Scorer.score`` fills them in where there are none. A sample without images and without places for them is
    text-only: it is encoded and kept, but no image can change its tokens.
    """

    sample_id: str
    images: tuple[ImageSource, ...]
    turns: tuple[Turn, ...]
    contrast_images: tuple[ImageSource, ...] = ()
    partners: tuple[tuple[ImageSource, ...], ...] = ()

    @classmethod
    def caption(
        cls,
        sample_id: str,
        image: ImageSource,
        text: str,
        prompt: str | None = None,
        contrast_image: ImageSource | None = None,
    ) -> Sample:
        """Build a sample from an image and its caption, which answers ``prompt`` (default :data:`DEFAULT_PROMPT`)."""
        question = Turn.question(1, DEFAULT_PROMPT if prompt is None else prompt)
        contrast = () if contrast_image is None else (contrast_image,)
        return cls(sample_id, (image,), (question, Turn("assistant", (text,))), contrast)

    @property
    def text_only(self) -> bool:
        """Whether the sample has neither images nor places for them."""
        return not self.images and not any(IMAGE in turn.content for turn in self.turns)

    @property
    def scored_texts(self) -> tuple[str, ...]:
        """The texts of the scored (assistant) turns, in order. ``token_turns`` indexes this tuple."""
        return tuple(turn.text for turn in self.turns if turn.role == "assistant")


@dataclass(frozen=True, slots=True, eq=False)
class BytePixels:
    """Pixels before normalisation, at a quarter of the size, and the table that normalises them.

    ``np.asarray`` returns the processor's float32 output, bit for bit.

    Attributes:
        values: uint8 [..., 3, H, W], or flattened patches [n, 3·k].
        table: float32 [3, 256], the normalised value of each level, by channel.
    """

    values: npt.NDArray[np.uint8]
    table: Float32Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``values``, before and after normalisation."""
        return self.values.shape

    @property
    def nbytes(self) -> int:
        """The memory that the pixels take here, in bytes, without the table that all images share."""
        return self.values.nbytes

    @property
    def by_channel(self) -> npt.NDArray[np.uint8]:
        """``values`` as uint8 [N, 3, M]."""
        found: npt.NDArray[np.uint8] = self.by_channel_of(self.values)
        return found

    @staticmethod
    def by_channel_of(values: Any) -> Any:
        """Return an array or tensor of pixels as [N, 3, M]; in both layouts, each channel is contiguous."""
        leading = values.shape[:1] if len(values.shape) == 2 else values.shape[:-3]
        return values.reshape(math.prod(leading), 3, -1)

    def __getitem__(self, images: slice) -> BytePixels:
        """Return some of the images: a slice along the leading axis."""
        return BytePixels(self.values[images], self.table)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the normalised pixels, float32 unless ``dtype`` is given. Raises ValueError for ``copy=False``."""
        if copy is False:
            raise ValueError("pixels kept as bytes cannot be converted to floats without a copy")
        pixels = self.table[np.arange(3)[:, None], self.by_channel].reshape(self.shape)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class UniformPixels:
    """Pixels of one colour, as their shape and that colour: a blank image takes a few bytes, whatever its size.

    ``np.asarray`` returns the processor's float32 output, bit for bit.

    Attributes:
        shape: [..., 3, H, W], or [n, 3·k] for flattened patches in which each channel is contiguous.
        color: float32 [3], the normalised value of each channel.
    """

    shape: tuple[int, ...]
    color: Float32Array

    @property
    def nbytes(self) -> int:
        """The memory that the pixels take here, in bytes."""
        return self.color.nbytes

    def __getitem__(self, images: slice) -> UniformPixels:
        """Return some of the images: a slice along the leading axis."""
        return UniformPixels((len(range(*images.indices(self.shape[0]))), *self.shape[1:]), self.color)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return the normalised pixels, float32 unless ``dtype`` is given. Raises ValueError for ``copy=False``."""
        if copy is False:
            raise ValueError("pixels kept as one colour cannot be converted to an array without a copy")
        flat = len(self.shape) == 2
        by_channel = self.color.repeat(self.shape[1] // 3) if flat else self.color[:, None, None]
        pixels = np.empty(self.shape, dtype=np.float32 if dtype is None else dtype)
        pixels[...] = by_channel
        return pixels


PixelArray = npt.NDArray[Any] | BytePixels | UniformPixels
"""One of the image processor's outputs, either unchanged or as pixels kept as bytes or as one colour."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The input of one forward pass for one sample: the clean branch or the contrast branch.

    A label at position p is predicted by the state at p − 1, so there is such a token, and it is not hidden.

    Attributes:
        input_ids: int64 [T], images already expanded to their placeholder tokens.
        attend: bool [T]; False hides a position from attention (``masked`` contrast).
        label_index: int64 [N], the scored tokens' positions in ``input_ids``, ascending, each ≥ 1. Empty if nothing
            predicts the first label of a text-only sample, which is not run then.
        pixels: the image processor's tensors by the model's argument name. Empty for ``removed``.
        pixels_digest: identifies ``pixels``: equal digests mean equal tensors. Empty for ``removed``.

    Raises:
        ValueError: nothing precedes the first label, or a hidden token precedes a label. Whoever builds a branch from
            a row refuses the row before.
    """

    input_ids: Int64Array
    attend: BoolArray
    label_index: Int64Array
    pixels: dict[str, PixelArray]
    pixels_digest: bytes

    def __post_init__(self) -> None:
        if (self.label_index < 1).any():
            raise ValueError(
                f"a label lies at position {int(self.label_index.min())} of the branch; it must be at least 1, since "
                "the token before a label predicts it"
            )
        if not self.attend[self.label_index - 1].all():
            hidden = int(self.label_index[~self.attend[self.label_index - 1]][0])
            raise ValueError(
                f"the token before the label at position {hidden} is hidden from attention; it must be seen, since it "
                "predicts the label"
            )


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample as the model sees it, independent of torch and cheap to send between processes.

    Attributes:
        token_ids: int32 [N], the scored tokens' ids; N ≥ 1.
        token_starts, token_ends: int32 [N], half-open UTF-8 byte span of each token within its turn's text.
        token_turns: int16 [N], index into the sample's ``scored_texts``; ascending.
        text_hash: see :func:`scorer.table.text_hash`.
        clean, contrast: the two branches, which have the same N labels.
        text_only: whether the sample is text-only; ``clean`` and ``contrast`` are then its text alone.
        further: one more branch with the same labels for each further contrast of the run; none if the sample is scored
            without images.
    """

    sample_id: str
    token_ids: Int32Array
    token_starts: Int32Array
    token_ends: Int32Array
    token_turns: Int16Array
    text_hash: str
    clean: Branch
    contrast: Branch
    text_only: bool = False
    further: tuple[Branch, ...] = ()

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All branches: the clean one, the contrast, the further contrasts."""
        return (self.clean, self.contrast, *self.further)

    def with_branches(self, branches: Sequence[Branch]) -> EncodedSample:
        """Return the sample with other branches, in the order of :attr:`branches`."""
        clean, contrast, *further = branches
        return replace(self, clean=clean, contrast=contrast, further=tuple(further))

    def without_images(self) -> EncodedSample:
        """Return the sample without its pixels."""
        return self.with_branches([replace(one, pixels={}) for one in self.branches])

    @property
    def length(self) -> int:
        """The number of tokens in the longest branch, which is the sample's cost in a padded batch."""
        return max(len(branch.input_ids) for branch in self.branches)


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that forward passes have run.

    Attributes:
        tokens: tokens of rows.
        padded: tokens with those that belong to no row: the padding after shorter rows on the plain path, and what
            rounds a packed batch up.
    """

    tokens: int = 0
    padded: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.tokens + other.tokens, self.padded + other.padded)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.tokens - other.tokens, self.padded - other.padded)

    @property
    def waste(self) -> float:
        """The share of run tokens that is padding, 0 to 1."""
        return 1.0 - self.tokens / self.padded if self.padded else 0.0
