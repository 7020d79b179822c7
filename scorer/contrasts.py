"""Define the contrasts, one record each; everything that names, explains, builds or checks a contrast reads it here.

To add one, write its record below and put it into :data:`CONTRASTS`. If it needs an option, add a field to
:class:`ContrastOptions` and to :class:`scorer.config.ScorerConfig`. Nothing else names contrasts: the command line,
the report, the dataset card and the HTTP API list what is registered, and a family declares what it can do
(:class:`Capability`) rather than which contrasts it supports.

Needs only numpy; Pillow is imported when an image is created.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.errors import FailureCode, RowError
from scorer.types import BoolArray, Branch

if TYPE_CHECKING:
    from PIL.Image import Image


class Capability(Enum):
    """Something that a model family can do and a contrast may need."""

    IMAGES = "images"
    """It takes images, so it can be shown different ones."""
    TEXT_ALONE = "text_alone"
    """It runs on text alone: tokens represent an image, and the other tokens run without them."""
    HIDDEN_TOKENS = "hidden_tokens"
    """Tokens can be hidden from attention, and the others are known to keep their positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastOptions:
    """The options for drawing contrast images, with the model's own defaults filled in.

    Attributes:
        blank_color: RGB, 0–255 each.
        blur_radius: standard deviation of the Gaussian, as a fraction of the longer side, in (0, 1].
        noise_seed: at least 0.
    """

    blank_color: tuple[int, int, int]
    blur_radius: float
    noise_seed: int


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """Replaces each image by one that depends only on its size (width, height) and the options.

    Attributes:
        draw: (size, options) → the RGB image.
        uniform: whether all its pixels have one colour, the same for every size.
    """

    draw: Callable[[tuple[int, int], ContrastOptions], Image]
    uniform: bool = False


@dataclass(frozen=True, slots=True)
class AlteredImage:
    """Replaces each image by one of the same size that is derived from it."""

    alter: Callable[[Image, ContrastOptions], Image]


@dataclass(frozen=True, slots=True)
class OtherImage:
    """Replaces each image by another one, of any size, that the row holds in a separate column."""


@dataclass(frozen=True, slots=True)
class EditedTokens:
    """Edits the clean branch: (branch, bool [T] that is True for image tokens) → the contrast branch.

    Raises RowError (``contrast_undefined``) if the edit leaves nothing to predict a label from.
    """

    edit: Callable[[Branch, BoolArray], Branch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One contrast: what replaces the image, and what follows from that.

    Attributes:
        name: its spelling in options, requests and fingerprints.
        phrase: what replaces the image, in words that complete "with …".
        description: the same for help texts, as a noun phrase on one line.
        source: where it was published; empty if nowhere.
        how: how the contrast branch is built.
        needs: what a model must be able to do for the contrast to be defined.
        constant: whether the branch before the first label is the same for all rows with the same prompt and image
            size, and holds nothing of the image. If so, its prefix may be kept across rows, and the tokens that it
            hides need not be run.
    """

    name: str
    phrase: str
    description: str
    source: str = ""
    how: DrawnImage | AlteredImage | OtherImage | EditedTokens
    needs: frozenset[Capability]
    constant: bool

    @property
    def needs_column(self) -> bool:
        """Whether the contrast reads a column besides the image."""
        return isinstance(self.how, OtherImage)

    @property
    def argument(self) -> str:
        """The spelling on the command line: the name, followed by a placeholder for the column if it needs one."""
        return f"{self.name}:COLUMN" if self.needs_column else self.name

    @property
    def explanation(self) -> str:
        """The description, followed by the source."""
        return f"{self.description} ({self.source})" if self.source else self.description


def blank_image(size: tuple[int, int], options: ContrastOptions) -> Image:
    """Draw an RGB image of one colour."""
    from PIL import Image

    return Image.new("RGB", size, options.blank_color)


def blurred_image(image: Image, options: ContrastOptions) -> Image:
    """Blur an image relative to its longer side, so that it loses the same detail at any resolution."""
    from PIL import ImageFilter

    if 0 in image.size:
        return image.copy()
    return image.filter(ImageFilter.GaussianBlur(options.blur_radius * max(image.size)))


def noise_image(size: tuple[int, int], options: ContrastOptions) -> Image:
    """Draw uniform RGB noise.

    The noise comes from the generator's raw stream, which numpy keeps stable across versions, unlike its distributions.
    """
    from PIL import Image

    width, height = size
    length = width * height * 3
    raw = np.random.PCG64(np.random.SeedSequence([options.noise_seed, width, height])).random_raw(-(-length // 8))
    pixels = raw.astype("<u8").view(np.uint8)[:length].reshape(height, width, 3)
    return Image.fromarray(pixels) if length else Image.new("RGB", size)


def hide_image_tokens(branch: Branch, image_tokens: BoolArray) -> Branch:
    """Hide the image's tokens from attention; all tokens keep their positions.

    The token before a label predicts it. If that is an image token, as in LLaVA's plain template (``<image>caption``),
    the contrast does not exist: hidden from every other token, its own state still carries the image.

    Raises:
        RowError: ``contrast_undefined`` if an image token stands directly before a label.
    """
    after_image = image_tokens[branch.label_index - 1]
    if after_image.any():
        raise RowError(
            FailureCode.CONTRAST_UNDEFINED,
            f"an image token stands directly before the scored token {int(after_image.argmax())} and would predict "
            "it; the contrast 'masked' hides the image, but that token's own state carries it: give the row a prompt "
            "between image and text, or use the contrast 'blank'",
        )
    return replace(branch, attend=~image_tokens)


def remove_image_tokens(branch: Branch, image_tokens: BoolArray) -> Branch:
    """Remove the image's tokens; those after them move up.

    ids        <user> ▢ ▢ ▢ What ? <assistant> A kite     label_index = [7, 8]
    removed    <user> What ? <assistant> A kite           label_index = [4, 5]

    A label after an image is then predicted by what stands before the image: BOS will do.

    Raises:
        RowError: ``contrast_undefined`` if nothing but image tokens stands before the first label.
    """
    ids = branch.input_ids[~image_tokens]
    label_index = (np.cumsum(~image_tokens) - 1)[branch.label_index]
    if label_index[0] == 0:
        raise RowError(
            FailureCode.CONTRAST_UNDEFINED,
            f"only the image's {int(image_tokens.sum())} tokens stand before the text; the contrast 'removed' takes "
            "them out and leaves nothing to predict the first token from: give the row a prompt, or use the contrast "
            "'blank'",
        )
    return Branch(ids, np.ones(len(ids), dtype=np.bool_), label_index, {}, b"")


CONTRASTS: Final[Mapping[str, Contrast]] = {
    contrast.name: contrast
    for contrast in (
        Contrast(
            name="blank",
            phrase="a blank image",
            description="an image of one colour and the same size",
            how=DrawnImage(blank_image, uniform=True),
            needs=frozenset({Capability.IMAGES}),
            constant=True,
        ),
        Contrast(
            name="masked",
            phrase="the image hidden",
            description="the image tokens hidden from attention",
            source="CAL, arXiv 2405.17871",
            how=EditedTokens(hide_image_tokens),
            needs=frozenset({Capability.TEXT_ALONE, Capability.HIDDEN_TOKENS}),
            constant=True,
        ),
        Contrast(
            name="removed",
            phrase="no image",
            description="the image tokens removed",
            how=EditedTokens(remove_image_tokens),
            needs=frozenset({Capability.TEXT_ALONE}),
            constant=True,
        ),
        Contrast(
            name="blur",
            phrase="a blurred image",
            description="the same image, blurred",
            source="VIG, arXiv 2602.17186",
            how=AlteredImage(blurred_image),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="noise",
            phrase="noise",
            description="noise of the same size",
            how=DrawnImage(noise_image),
            needs=frozenset({Capability.IMAGES}),
            # Noise depends only on the size, so it could be constant; but where a row is cut changes the rounding of
            # its scores.
            constant=False,
        ),
        Contrast(
            name="image",
            phrase="another image",
            description="another image from the row",
            how=OtherImage(),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
    )
}
"""Contrasts by name, in display order."""


def of_run(fingerprint: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a run's contrasts; the first has the plain column names."""
    return (str(fingerprint.get("contrast")), *map(str, fingerprint.get("further_contrasts", ())))


DEFAULT: Final = "blank"
"""The default contrast: as good as the published ones on the packaged model (docs/grounding.md), and defined for every
family that takes images."""
