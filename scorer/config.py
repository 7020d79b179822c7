"""Hold every scoring option in one frozen record that is validated once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from scorer.columns import ASKED, IS_STOP, asked_for, of_contrast
from scorer.contrast_images import ContrastOptions
from scorer.contrasts import DEFAULT, parse_contrast
from scorer.errors import ConfigError
from scorer.types import DEFAULT_PROMPT

DType = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Quantization = Literal["int8", "nf4", "torchao-int8", "torchao-fp8"]

MAX_TEXT_BYTES: Final = 2**20
"""Default of ``max_text_bytes``; the service, which serves strangers, has a lower one of its own."""

MAX_BATCH_TOKENS: Final = 16_384
"""Default of ``max_batch_tokens``. It is the same on every device, so that every device forms the same batches."""

EXECUTION_ONLY: Final = frozenset({"device", "device_map", "contrast_cache_bytes"})
"""Options that change where and how fast scores are computed, but not which scores."""

ALL_BITS: Final = 23
"""Default of ``score_bits``: the bits of a float32 after its leading one."""

ABSENT: Final[Mapping[str, Any]] = {
    "further_contrasts": [],
    "distribution_columns": [],
    "max_text_bytes": MAX_TEXT_BYTES,
    "blank_size": None,
    "jpeg_draft": False,
    "stop_token": False,
    "score_bits": ALL_BITS,
    "tensor_parallel": 1,
}
"""Options that came after outputs were published, each with the value that those outputs were scored with. At that
value, the fingerprint leaves the option out, so that those outputs keep their fingerprints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorerConfig:
    """How samples are scored.

    Attributes:
        contrast: what replaces the image, as :func:`scorer.contrasts.parse_contrast` reads it: a name, or a name with
            the value of its option, ``blur@0.02``. A value that is the default anyway is dropped.
        further_contrasts: more contrasts, compared with the same clean pass; each has columns of its own.
        dtype: the dtype the reference model computes in. Scores are always float32.
        device: ``auto`` (CUDA if available, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``.
        device_map: ``auto`` spreads one large model over all devices (needs accelerate); None keeps it on ``device``.
        tensor_parallel: the number of GPUs that share one model's decoder, a process each; 1 runs in this process. More
            form sums in another order, which changes their rounding.
        attention: the attention of the vision tower and of the plain path: ``sdpa`` (``eager`` for classes without it),
            ``eager``, or ``flash_attention_2``, which needs flash-attn. On the fast path, which packs rows, the decoder
            attends by SDPA or, on CUDA, FlexAttention (or flash attention, where that does not compile).
        quantization: ``int8`` or ``nf4`` with bitsandbytes, ``torchao-int8`` or ``torchao-fp8`` (weights alone, which
            are multiplied in ``dtype``) with torchao; None keeps the weights as saved.
        adapter: folder or hub id of a LoRA adapter for the model, merged at load (needs peft).
        compile: compile the decoder's blocks with ``torch.compile``; the first batches then take longer.
        prompt: the instruction that a bare caption answers.
        truncate: cut a text that exceeds the model's context instead of failing its row.
        stop_token: score the token with which the chat template ends a scored turn, too, if it has one.
        blank_color: RGB of the ``blank`` contrast, 0–255 each; None takes the image processor's mean colour.
        blank_size: (width, height) of every image's blank of the ``blank`` contrast, in pixels; None takes the image's
            own. Where image tokens depend on the size, rows with the same prompt then share one contrast prefix.
        blur_radius: standard deviation of the Gaussian of the ``blur`` contrast, as a fraction of the image's longer
            side, in (0, 1].
        noise_seed: seed of the contrasts that draw at random: ``noise``, which also depends on the image's size,
            ``patches`` and ``diffusion``, which depend on its pixels, and ``shuffled``. None depends on a place in a
            batch.
        jpeg_draft: decode a JPEG at a half, a quarter or an eighth of its size where the image processor would shrink
            it further anyway, and to the same grid. This saves time and changes pixels a little.
        distribution_columns: measures of the whole predicted distribution to store as well: ``kl`` (both directions),
            ``js``, ``entropy``, ``top1``; see :data:`scorer.columns.COLUMNS`.
        score_bits: raw scores are rounded to this many of the 23 bits after the leading one, so that files compress
            better. 10 is the precision of float16.
        max_text_bytes: limit for a row's texts and prompt together, in UTF-8 bytes.
        max_image_bytes: limit for one encoded image, in bytes.
        max_image_pixels: limit for one decoded image, width × height.
        contrast_cache_bytes: memory for the keys and values of contrast prefixes that a service or a notebook keeps
            from call to call, in bytes. A run keeps none.
        max_batch_tokens: budget of one forward pass, in tokens; what rows share counts once. It decides which rows
            share a pass, and so the rounding of their scores.

    Raises:
        ConfigError: an option has the wrong type or is out of range.
    """

    contrast: str = DEFAULT
    further_contrasts: tuple[str, ...] = ()
    dtype: DType = "float32"
    device: str = "auto"
    device_map: Literal["auto"] | None = None
    tensor_parallel: int = 1
    attention: Attention = "sdpa"
    quantization: Quantization | None = None
    adapter: str | None = None
    compile: bool = False
    prompt: str = DEFAULT_PROMPT
    truncate: bool = False
    stop_token: bool = True
    blank_color: tuple[int, int, int] | None = None
    blank_size: tuple[int, int] | None = None
    blur_radius: float = 0.1
    noise_seed: int = 0
    jpeg_draft: bool = False
    distribution_columns: tuple[str, ...] = ()
    score_bits: int = ALL_BITS
    max_text_bytes: int = MAX_TEXT_BYTES
    max_image_bytes: int = 64 * 2**20
    max_image_pixels: int = 100_000_000
    contrast_cache_bytes: int = 2**30
    max_batch_tokens: int = MAX_BATCH_TOKENS

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, get_args(DType))
        _require(
            "device",
            self.device,
            isinstance(self.device, str) and self.device != "",
            "a device name or 'auto'",
        )
        _one_of("device_map", self.device_map, ("auto", None))
        _one_of("attention", self.attention, get_args(Attention))
        _one_of("quantization", self.quantization, (*get_args(Quantization), None))
        _require(
            "adapter",
            self.adapter,
            self.adapter is None or (isinstance(self.adapter, str) and self.adapter != ""),
            "a folder, a hub id or null",
        )
        if self.adapter is not None and self.quantization is not None:
            raise ConfigError(
                "an adapter is merged into the weights, which quantised weights do not allow: use one or the other"
            )
        _require("compile", self.compile, isinstance(self.compile, bool), "true or false")
        _require("jpeg_draft", self.jpeg_draft, isinstance(self.jpeg_draft, bool), "true or false")
        _require("prompt", self.prompt, isinstance(self.prompt, str), "a string")
        _require("truncate", self.truncate, isinstance(self.truncate, bool), "true or false")
        _require("stop_token", self.stop_token, isinstance(self.stop_token, bool), "true or false")
        if self.blank_color is not None:
            # YAML and JSON only have lists; the frozen record must stay hashable.
            object.__setattr__(self, "blank_color", _color(self.blank_color))
        if self.blank_size is not None:
            object.__setattr__(self, "blank_size", _size(self.blank_size))
        _require(
            "blur_radius",
            self.blur_radius,
            _is_number(self.blur_radius) and 0 < self.blur_radius <= 1,
            "a number in (0, 1]",
        )
        for name, low in (
            ("noise_seed", 0),
            ("max_text_bytes", 1),
            ("max_image_bytes", 1),
            ("max_image_pixels", 1),
            ("contrast_cache_bytes", 0),
            ("max_batch_tokens", 1),
            ("tensor_parallel", 1),
        ):
            value = getattr(self, name)
            valid = isinstance(value, int) and not isinstance(value, bool) and value >= low
            _require(name, value, valid, f"an integer of at least {low}")
        _require("score_bits", self.score_bits, _is_bits(self.score_bits), f"an integer from 1 to {ALL_BITS}")
        self._settle_contrasts()
        self._settle_columns()
        self._check_tensor_parallel()

    def _settle_contrasts(self) -> None:
        """Spell equal contrasts alike, so that their fingerprints are equal."""
        _require("contrast", self.contrast, isinstance(self.contrast, str), "a contrast's name")
        further = self.further_contrasts
        valid = isinstance(further, (list, tuple)) and all(isinstance(one, str) for one in further)
        _require("further_contrasts", further, valid, "a list of contrasts")
        options = self.contrast_options((0, 0, 0))
        names = [parse_contrast(name).canonical(options).name for name in (self.contrast, *further)]
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise ConfigError(f"the contrast {twice!r} is given twice; name each contrast once")
        object.__setattr__(self, "contrast", names[0])
        object.__setattr__(self, "further_contrasts", tuple(names[1:]))

    def _settle_columns(self) -> None:
        """Put the names in file order, so that equal choices have equal fingerprints."""
        asked = self.distribution_columns
        valid = (
            isinstance(asked, (list, tuple)) and all(one in ASKED for one in asked) and len(set(asked)) == len(asked)
        )
        _require("distribution_columns", asked, valid, f"a list of {', '.join(ASKED)}, each once")
        object.__setattr__(self, "distribution_columns", tuple(one for one in ASKED if one in asked))

    def _check_tensor_parallel(self) -> None:
        """Refuse what a model whose weights several processes share cannot do."""
        if self.tensor_parallel == 1:
            return
        for name, allowed in (("device_map", None), ("adapter", None), ("quantization", None), ("compile", False)):
            value = getattr(self, name)
            if value != allowed:
                raise ConfigError(
                    f"scorer option {name} is {value!r} and tensor_parallel is {self.tensor_parallel!r}; it must be "
                    f"{allowed!r} where processes share the weights: use one or the other"
                )
        if ":" in str(self.device):
            raise ConfigError(
                f"scorer option device is {self.device!r} and tensor_parallel is {self.tensor_parallel!r}, which takes "
                "the first GPUs; use device 'cuda', and CUDA_VISIBLE_DEVICES to choose them"
            )

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> ScorerConfig:
        """Build the record from plain data. Raises ConfigError for an unknown option, listing the known ones."""
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ConfigError(f"unknown scorer option {', '.join(unknown)}; known options: {', '.join(known)}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` and JSON accept."""
        values = dataclasses.asdict(self)
        for name in ("further_contrasts", "distribution_columns"):
            values[name] = list(values[name])
        for name in ("blank_color", "blank_size"):
            values[name] = None if values[name] is None else list(values[name])
        return values

    @property
    def contrasts(self) -> tuple[str, ...]:
        """All contrasts, the first of which has the plain column names."""
        return (self.contrast, *self.further_contrasts)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the optional columns that a run with these options writes."""
        asked = self.distribution_columns
        first = (column.name for column in asked_for(asked))
        further = (column.name for name in self.further_contrasts for column in of_contrast(name, asked))
        return (*([IS_STOP] if self.stop_token else []), *first, *further)

    def contrast_options(self, mean_color: tuple[int, int, int]) -> ContrastOptions:
        """Return the options of contrasts without a value.

        Args:
            mean_color: the image processor's RGB mean, used if no colour is set.
        """
        return ContrastOptions(
            blank_color=self.blank_color or mean_color, blur_radius=self.blur_radius, noise_seed=self.noise_seed
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return the options that change scores, as plain data; options that only affect execution are left out.

        ``columns`` names the optional columns that a run writes, if there are any.
        """
        options = {
            name: value
            for name, value in self.to_dict().items()
            if name not in EXECUTION_ONLY and not (name in ABSENT and value == ABSENT[name])
        }
        return options | ({"columns": list(self.columns)} if self.columns else {})


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that decides the scores: equal digests mean comparable scores."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _require(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise ConfigError(f"scorer option {name} is {value!r}; it must be {expected}")


def _one_of(name: str, value: Any, allowed: tuple[str | None, ...]) -> None:
    _require(name, value, value in allowed, "one of " + ", ".join(map(str, allowed)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_bits(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= ALL_BITS


def _integers(value: Any, count: int) -> bool:
    valid = isinstance(value, (list, tuple)) and len(value) == count
    return valid and all(isinstance(one, int) and not isinstance(one, bool) for one in value)


def _color(value: Any) -> tuple[int, int, int]:
    valid = _integers(value, 3) and all(0 <= level <= 255 for level in value)
    _require("blank_color", value, valid, "three integers in 0–255 (red, green, blue)")
    red, green, blue = value
    return (red, green, blue)


def _size(value: Any) -> tuple[int, int]:
    valid = _integers(value, 2) and all(side >= 1 for side in value)
    _require("blank_size", value, valid, "two integers of at least 1 (width, height)")
    width, height = value
    return (width, height)
