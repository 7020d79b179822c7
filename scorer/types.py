"""The small frozen records that travel through the library, in the order in which a sample meets them.

``Sample`` (what the user has) → ``EncodedSample`` (what the model sees) → ``TokenScores`` (what is stored).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
"""Encoded bytes, a local path, or a decoded PIL image (typed Any to keep Pillow optional)."""


class ImageSlot:
    """Marks the place of one image inside a turn's content. Use the constant :data:`IMAGE`."""

    def __repr__(self) -> str:
        return "IMAGE"

    def __reduce__(self) -> str:
        return "IMAGE"  # stays one object across processes, so that `part is IMAGE` holds


IMAGE: Final = ImageSlot()
ContentPart = str | ImageSlot


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation.

    ``content`` is the literal text and the places of images, in order. Text is never interpreted: a caption that
    spells ``<image>`` is eight characters of text.
    """

    role: Role
    content: tuple[ContentPart, ...]

    @classmethod
    def question(cls, images: int, prompt: str) -> Turn:
        """The user turn that a caption answers: the places of its images, then ``prompt`` unless it is empty."""
        return cls("user", (IMAGE,) * images + ((prompt,) if prompt else ()))

    @property
    def text(self) -> str:
        """The turn's text, image slots left out."""
        return "".join(part for part in self.content if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Sample:
    """One row to be scored: its images, and a conversation of which every assistant turn is scored.

    ``contrast_images`` is read by the contrast ``image`` only and replaces ``images`` one to one.
    """

    sample_id: str
    images: tuple[ImageSource, ...]
    turns: tuple[Turn, ...]
    contrast_images: tuple[ImageSource, ...] = ()

    @classmethod
    def caption(
        cls,
        sample_id: str,
        image: ImageSource,
        text: str,
        prompt: str | None = None,
        contrast_image: ImageSource | None = None,
    ) -> Sample:
        """A picture and its caption, asked for by ``prompt`` (default :data:`scorer.types.DEFAULT_PROMPT`)."""
        question = Turn.question(1, DEFAULT_PROMPT if prompt is None else prompt)
        contrast = () if contrast_image is None else (contrast_image,)
        return cls(sample_id, (image,), (question, Turn("assistant", (text,))), contrast)

    @property
    def scored_texts(self) -> tuple[str, ...]:
        """The scored turns' texts, in order: of the assistant turns. ``token_turns`` indexes this tuple."""
        return tuple(turn.text for turn in self.turns if turn.role == "assistant")


@dataclass(frozen=True, slots=True, eq=False)
class BytePixels:
    """Pixels before they are normalised, a quarter of the size, and the table that normalises them.

    ``np.asarray`` gives the float32 array that stands in the processor's output, bit for bit.

    Attributes:
        values: uint8 [..., 3, H, W], or flattened patches [n, 3·k].
        table: float32 [3, 256]; the normalised value of each level, by channel.
    """

    values: npt.NDArray[np.uint8]
    table: Float32Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of ``values``, and of what they are normalised to."""
        return self.values.shape

    @property
    def by_channel(self) -> npt.NDArray[np.uint8]:
        """``values`` as uint8 [N, 3, M]: in both layouts, what belongs to one channel lies in one piece."""
        leading = self.shape[:1] if len(self.shape) == 2 else self.shape[:-3]
        return self.values.reshape(math.prod(leading), 3, -1)

    def __getitem__(self, images: slice) -> BytePixels:
        """Some of the images: a slice of the leading axis."""
        return BytePixels(self.values[images], self.table)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The normalised pixels, float32 unless asked otherwise. Raises ValueError for ``copy=False``."""
        if copy is False:
            raise ValueError("pixels kept as bytes cannot be had as floats without a copy")
        pixels = self.table[np.arange(3)[:, None], self.by_channel].reshape(self.shape)
        return pixels if dtype is None else pixels.astype(dtype, copy=False)


PixelArray = npt.NDArray[Any] | BytePixels
"""One of the image processor's outputs: as it is, or pixels as bytes."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One forward pass's input for one sample: the clean branch or the contrast branch.

    A label at position p is predicted by the state at p − 1, so there is such a token, and it is not hidden.

    Attributes:
        input_ids: int64 [T], images already expanded to their placeholder tokens.
        attend: bool [T]; False hides a position from attention (``masked`` contrast).
        label_index: int64 [N]; the scored tokens' positions in ``input_ids``, ascending, each ≥ 1.
        pixels: the image processor's tensors by the model's argument name. Empty for ``removed``.
        pixels_digest: identifies ``pixels``: equal digests are equal tensors. Empty for ``removed``.

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
    """A sample as the model sees it; independent of torch, cheap to send between processes.

    Attributes:
        token_ids: int32 [N], the scored tokens' ids; N ≥ 1.
        token_starts, token_ends: int32 [N], half-open UTF-8 byte span of each token within its turn's text.
        token_turns: int16 [N], index into the sample's ``scored_texts``; ascending.
        text_hash: see :func:`scorer.table.text_hash`.
        clean, contrast: the two branches; both hold the same N labels.
    """

    sample_id: str
    token_ids: Int32Array
    token_starts: Int32Array
    token_ends: Int32Array
    token_turns: Int16Array
    text_hash: str
    clean: Branch
    contrast: Branch

    @property
    def length(self) -> int:
        """Tokens of the longer branch: what the sample costs in a padded batch."""
        return max(len(self.clean.input_ids), len(self.contrast.input_ids))


@dataclass(frozen=True, slots=True)
class Usage:
    """What forward passes have run.

    Attributes:
        tokens: tokens of rows.
        padded: the same with the padding behind shorter rows: rows × longest row.
    """

    tokens: int = 0
    padded: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.tokens + other.tokens, self.padded + other.padded)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.tokens - other.tokens, self.padded - other.padded)

    @property
    def waste(self) -> float:
        """Share of what was run that is padding, 0 to 1."""
        return 1.0 - self.tokens / self.padded if self.padded else 0.0
