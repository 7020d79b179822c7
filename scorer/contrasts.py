"""Define the contrasts, one record each; everything that names, explains, builds or checks a contrast reads it here.

To add one, write its record below and put it into :data:`CONTRASTS`. If it has an option, add a field with a default
to :class:`scorer.contrast_images.ContrastOptions` and name it in the record: the contrast is then spelled with a value
(``patches@0.3``) or without. Nothing else names contrasts: the command line, the report, the dataset card and the HTTP
API list what is registered, and a family declares what it can do (:class:`Capability`) rather than which contrasts it
supports.

Needs only numpy; Pillow is imported when an image is created.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from scorer.contrast_images import (
    DIFFUSION_STEPS,
    ContrastOptions,
    blank_image,
    blurred_image,
    diffused_image,
    downsampled_image,
    noise_image,
    patched_image,
)
from scorer.errors import ConfigError, FailureCode, RowError
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
class OtherRowImage:
    """Replaces the row's images by those of another row near it; see :mod:`scorer.partners`."""


@dataclass(frozen=True, slots=True)
class EditedTokens:
    """Edits the clean branch: (branch, bool [T] that is True for image tokens) → the contrast branch.

    Raises RowError (``contrast_undefined``) if the edit leaves nothing to predict a label from.
    """

    edit: Callable[[Branch, BoolArray], Branch]


@dataclass(frozen=True, slots=True, kw_only=True)
class MainOption:
    """The option of a contrast that may be given with its name, as in ``blur@0.02``.

    Attributes:
        field: the field of :class:`ContrastOptions` that it sets.
        placeholder: what stands for its value in help texts.
        expected: which values it takes, in words that complete "must be …".
        allows: value → whether it takes it.
        whole: whether its values are whole numbers.
    """

    field: str
    placeholder: str
    expected: str
    allows: Callable[[float], bool]
    whole: bool = False

    def read(self, text: str) -> float:
        """Read a value. Raises ValueError if the option does not take it; see ``expected``."""
        if not re.fullmatch(r"[0-9]+" if self.whole else r"[0-9]*\.?[0-9]+", text):
            raise ValueError
        value = int(text) if self.whole else float(text)
        if not self.allows(value):
            raise ValueError
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One contrast: what replaces the image, and what follows from that.

    Attributes:
        name: its spelling in options, requests and fingerprints.
        phrase: what replaces the image, in words that complete "with …".
        description: the same for help texts, as a noun phrase on one line.
        source: where it was published; empty if nowhere.
        option: the option that may be given with the name; None if there is none.
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
    option: MainOption | None = None
    how: DrawnImage | AlteredImage | OtherImage | OtherRowImage | EditedTokens
    needs: frozenset[Capability]
    constant: bool

    @property
    def needs_column(self) -> bool:
        """Whether the contrast reads a column besides the image."""
        return isinstance(self.how, OtherImage)

    @property
    def needs_rows(self) -> bool:
        """Whether the contrast reads other rows: it is then not defined for a row alone."""
        return isinstance(self.how, OtherRowImage)

    @property
    def argument(self) -> str:
        """The spelling on the command line: the name, with a placeholder for the column or the option's value."""
        if self.option is not None:
            return f"{self.name}[@{self.option.placeholder}]"
        return f"{self.name}:COLUMN" if self.needs_column else self.name

    @property
    def explanation(self) -> str:
        """The description, followed by the source."""
        return f"{self.description} ({self.source})" if self.source else self.description


@dataclass(frozen=True, slots=True)
class ChosenContrast:
    """A contrast as it was chosen: which one, and the value of its option.

    Attributes:
        value: of the record's option; None leaves the value that :class:`ContrastOptions` has.
    """

    record: Contrast
    value: float | None = None

    @property
    def name(self) -> str:
        """The spelling that :func:`parse_contrast` reads, ``blur`` or ``blur@0.02``; the same for equal choices."""
        return self.record.name if self.value is None else f"{self.record.name}@{_spelled(self.value)}"

    @property
    def phrase(self) -> str:
        """The record's phrase, followed by the value."""
        return self.record.phrase if self.value is None else f"{self.record.phrase} ({_spelled(self.value)})"

    def options(self, options: ContrastOptions) -> ContrastOptions:
        """Return the options with the chosen value among them."""
        if self.record.option is None or self.value is None:
            return options
        changed: dict[str, Any] = {self.record.option.field: self.value}
        return replace(options, **changed)

    def canonical(self, options: ContrastOptions) -> ChosenContrast:
        """Return the same choice without a value that the options have anyway."""
        option = self.record.option
        return self if option is None or getattr(options, option.field) != self.value else replace(self, value=None)


def parse_contrast(spelling: str) -> ChosenContrast:
    """Read a contrast's name, and the value of its option after an ``@``.

    Raises:
        ConfigError: there is no such contrast, it has no option, or its option does not take the value.
    """
    name, at, text = spelling.partition("@")
    record = CONTRASTS.get(name)
    if record is None:
        raise ConfigError(f"the contrast is {spelling!r}; it must be one of {', '.join(CONTRASTS)}")
    if not at:
        return ChosenContrast(record)
    if record.option is None:
        raise ConfigError(f"the contrast is {spelling!r}, but {name!r} takes no value; write {name!r}")
    try:
        return ChosenContrast(record, record.option.read(text))
    except ValueError:
        example = f"{name}@{record.option.placeholder}"
        raise ConfigError(
            f"the contrast is {spelling!r}; in {example}, {record.option.placeholder} must be {record.option.expected}"
        ) from None


def known_contrast(spelling: str) -> ChosenContrast | None:
    """Read a contrast that another version may have written; None for one that this version does not know."""
    try:
        return parse_contrast(spelling)
    except ConfigError:
        return None


def _spelled(value: float) -> str:
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


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
            option=MainOption(
                field="blur_radius",
                placeholder="RADIUS",
                expected="a share of the longer side, above 0 and at most 1",
                allows=lambda radius: 0 < radius <= 1,
            ),
            how=AlteredImage(blurred_image),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="noise",
            phrase="noise",
            description="uniform noise of the same size",
            how=DrawnImage(noise_image),
            needs=frozenset({Capability.IMAGES}),
            # Noise depends only on the size, so it could be constant. But then rows would be cut elsewhere, which
            # changes the rounding of their scores.
            constant=False,
        ),
        Contrast(
            name="patches",
            phrase="patches blackened",
            description="the same image, each patch blackened with a chance of SHARE, by default 0.5",
            source="VPPO, arXiv 2510.09285; PAPO, 2507.06448, blackens 0.6",
            option=MainOption(
                field="patch_share",
                placeholder="SHARE",
                expected="above 0 and at most 1",
                allows=lambda share: 0 < share <= 1,
            ),
            how=AlteredImage(patched_image),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="diffusion",
            phrase="the image under diffusion noise",
            description="the same image under the noise of forward diffusion at STEP of 1000, by default 500",
            source="TPO, arXiv 2412.14487; VCD, 2311.16922",
            option=MainOption(
                field="diffusion_step",
                placeholder="STEP",
                expected=f"a whole number from 0 to {DIFFUSION_STEPS - 1}",
                allows=lambda step: 0 <= step < DIFFUSION_STEPS,
                whole=True,
            ),
            how=AlteredImage(diffused_image),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="downsample",
            phrase="a pixelated image",
            description="the same image, each side shrunk to RATIO of itself, by default 0.1, and enlarged again",
            source="VA-OPD, arXiv 2605.21924",
            option=MainOption(
                field="downsample_ratio",
                placeholder="RATIO",
                expected="above 0 and below 1",
                allows=lambda ratio: 0 < ratio < 1,
            ),
            how=AlteredImage(downsampled_image),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="shuffled",
            phrase="another row's image",
            description="the image of another row near it",
            how=OtherRowImage(),
            needs=frozenset({Capability.IMAGES}),
            constant=False,
        ),
        Contrast(
            name="image",
            phrase="another image",
            description="another image of the row, from COLUMN",
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
