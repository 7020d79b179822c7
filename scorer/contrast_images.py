"""Make the images that contrasts show in place of a row's own. Needs numpy and Pillow.

Each image follows from its arguments alone: the same in every process, in any order, on any machine. Random numbers
come from a generator's raw stream, which numpy keeps stable across versions, unlike its distributions.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from scorer.types import BoolArray, Float32Array, Int64Array

if TYPE_CHECKING:
    from PIL.Image import Image

PATCHES: Final = 24
"""Square patches along an image's longer side: LLaVA 1.5 has as many, each of the published 14 pixels at 336."""
DIFFUSION_STEPS: Final = 1000
GRAIN: Final = 640
"""The most values of diffusion noise along an image's longer side. If noise were finer, a model's processor would
average it away when it shrinks a large photo."""
_BAND: Final = 2**20
"""Pixels that are turned into floats at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastOptions:
    """The options for making contrast images, with the model's own defaults filled in.

    Attributes:
        blank_color: RGB, 0–255 each.
        blur_radius: standard deviation of the Gaussian, as a fraction of the longer side, in (0, 1].
        noise_seed: seed of whatever is drawn at random, at least 0.
        patch_share: chance of each patch to be black, in (0, 1].
        diffusion_step: steps of forward diffusion, as an index into the schedule: 0 to 999.
        downsample_ratio: what each side is shrunk to, as a fraction of itself, in (0, 1).
    """

    blank_color: tuple[int, int, int]
    blur_radius: float
    noise_seed: int
    patch_share: float = 0.5
    diffusion_step: int = 500
    downsample_ratio: float = 0.1


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
    """Draw uniform RGB noise."""
    from PIL import Image

    width, height = size
    length = width * height * 3
    raw = np.random.PCG64(np.random.SeedSequence([options.noise_seed, width, height])).random_raw(-(-length // 8))
    pixels = raw.astype("<u8").view(np.uint8)[:length].reshape(height, width, 3)
    return Image.fromarray(pixels) if length else Image.new("RGB", size)


def patched_image(image: Image, options: ContrastOptions) -> Image:
    """Blacken square patches of an RGB image, each with the same chance and independently of the others.

    Published with patches of 14 pixels, and a chance of 0.5 (VPPO's code) or 0.6 (PAPO's). Here the longer side has
    :data:`PATCHES`, at any resolution. Which ones turn black follows from the seed and the image's pixels, so images of
    one size lose different places.
    """
    from PIL import Image

    if 0 in image.size:
        return image.copy()
    rows, columns = _cells(image.size, PATCHES)
    raw = _stream(image, options).random_raw(PATCHES * PATCHES)
    black: BoolArray = ((raw >> np.uint64(11)) * 2.0**-53 < options.patch_share).reshape(PATCHES, PATCHES)
    pixels = np.array(image)
    pixels[black[rows[:, None], columns]] = 0
    return Image.fromarray(pixels)


def diffused_image(image: Image, options: ContrastOptions) -> Image:
    """Return x_t = √ᾱ_t · x_0 + √(1 − ᾱ_t) · ε of an RGB image x_0 with levels in [0, 1]; ε is standard normal.

    The schedule is that of VCD's code. As in TPO's code, with t = 500, the noise is added to the image; VCD adds it to
    what the model's processor returns. Levels outside [0, 1] are clipped, where TPO's conversion to 8 bits wraps them
    around. The longer side has at most :data:`GRAIN` values of noise, where the published noise has one for each pixel.
    ε follows from the seed and the image's pixels.
    """
    from PIL import Image

    if 0 in image.size:
        return image.copy()
    rows, columns = _cells(image.size, GRAIN)
    # In an image smaller than the grain, each pixel has a value of its own, and values without a pixel are not drawn.
    rows, columns = (np.unique(places, return_inverse=True)[1] for places in (rows, columns))
    height, width = int(rows[-1]) + 1, int(columns[-1]) + 1
    noise = _normal(_stream(image, options), height * width * 3).reshape(height, width, 3)
    kept = signal_share(options.diffusion_step)
    noise *= np.float32(255 * math.sqrt(1 - kept))
    pixels = np.array(image)
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        band = pixels[top : top + step] * np.float32(math.sqrt(kept))
        band += noise[rows[top : top + step, None], columns]
        pixels[top : top + step] = np.clip(np.rint(band), 0, 255)
    return Image.fromarray(pixels)


def downsampled_image(image: Image, options: ContrastOptions) -> Image:
    """Shrink an image and enlarge it to its size again, as VA-OPD's code does: bilinear, then by nearest neighbours."""
    from PIL import Image

    if 0 in image.size:
        return image.copy()
    width, height = (max(1, math.floor(side * options.downsample_ratio)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.NEAREST)


@functools.cache
def signal_share(step: int) -> float:
    """Return ᾱ_t, the share of the variance that is the image's at a step of the schedule, in (0, 1).

    β rises along a sigmoid over [−6, 6] from 1e-5 to 5e-3, as in VCD's code; ᾱ_t is the product of 1 − β up to t.
    """
    product = 1.0
    for t in range(step + 1):
        x = -6 + 12 * t / (DIFFUSION_STEPS - 1)
        product *= 1 - (1e-5 + (5e-3 - 1e-5) / (1 + math.exp(-x)))
    return product


def _cells(size: tuple[int, int], count: int) -> tuple[Int64Array, Int64Array]:
    """Divide an image into squares, ``count`` along its longer side; return each row's and each column's number."""
    longer = max(size)
    width, height = size
    rows, columns = (((np.arange(side, dtype=np.int64) + 1) * count - 1) // longer for side in (height, width))
    return rows, columns


def _stream(image: Image, options: ContrastOptions) -> np.random.PCG64:
    """Return the random stream that belongs to an image's pixels and the seed."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.tobytes())
    return np.random.PCG64(np.random.SeedSequence([options.noise_seed, int.from_bytes(digest.digest(), "little")]))


def _normal(stream: np.random.PCG64, count: int) -> Float32Array:
    """Draw standard normal numbers, float32 [count]: a quantile for each 16 bits of the stream."""
    bits: npt.NDArray[np.uint16] = stream.random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    return _quantiles()[bits]


@functools.cache
def _quantiles() -> Float32Array:
    """Return the normal distribution's quantiles in the middle of 2¹⁶ equal shares, float32 [65536]; at most ±4.3."""
    normal = NormalDist()
    upper = np.array([normal.inv_cdf(0.5 + (k + 0.5) / 2**16) for k in range(2**15)], dtype=np.float32)
    return np.concatenate([-upper[::-1], upper])
