"""The command line's options that say what scores: the reference model, the contrast, their limits."""

from __future__ import annotations

import argparse
from typing import Final, get_args

from pipelines.cli.arguments import SWITCH
from pipelines.cli.source_options import ContrastAction
from scorer.config import Attention, DType, Quantization, ScorerConfig
from scorer.contrasts import CONTRASTS

_DEFAULTS: Final = ScorerConfig()


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the groups of options; every option of :class:`ScorerConfig` is among them, under its own name."""
    _add_model(parser)
    _add_contrast(parser)
    _add_limits(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reference model")
    group.add_argument("--model", metavar="MODEL", help="a directory or a hub id (default: the packaged mini model)")
    group.add_argument("--revision", help="a hub model's branch, tag or commit")
    group.add_argument("--dtype", choices=get_args(DType), default=_DEFAULTS.dtype, help="default: %(default)s")
    group.add_argument("--device", default=_DEFAULTS.device, help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument("--device-map", choices=("auto",), help="auto: spread one big model over the node's GPUs")
    group.add_argument(
        "--attention", choices=get_args(Attention), default=_DEFAULTS.attention, help="default: %(default)s"
    )
    group.add_argument("--quantization", choices=get_args(Quantization), help="quantise the weights at load")
    group.add_argument("--adapter", metavar="ADAPTER", help="a LoRA adapter, merged at load: a directory or a hub id")
    group.add_argument("--compile", **SWITCH, help="torch.compile the decoder's blocks")
    group.add_argument("--prompt", default=_DEFAULTS.prompt, help="what a bare caption answers (default: %(default)r)")
    group.add_argument(
        "--truncate",
        **SWITCH,
        help="cut texts that exceed the context, not fail their rows",
    )


def _add_contrast(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contrast: what the image is replaced by")
    contrasts = CONTRASTS.values()
    explained = "; ".join(f"{contrast.argument}: {contrast.explanation}" for contrast in contrasts).replace("%", "%%")
    group.add_argument(
        "--contrast",
        action=ContrastAction,
        metavar="{" + ",".join(contrast.argument for contrast in contrasts) + "}",
        default=_DEFAULTS.contrast,
        help=f"{explained} (default: %(default)s)",
    )
    group.add_argument("--blank-color", type=_color, metavar="R,G,B", help="default: the processor's mean colour")
    group.add_argument(
        "--blur-radius",
        type=float,
        default=_DEFAULTS.blur_radius,
        metavar="SHARE",
        help="Gaussian radius relative to the longer side (default: %(default)s)",
    )
    group.add_argument("--noise-seed", type=int, default=_DEFAULTS.noise_seed, metavar="N", help="default: %(default)s")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    for option, value, text in (
        ("--max-text-bytes", _DEFAULTS.max_text_bytes, "of a row's texts and prompt in UTF-8; a longer row fails"),
        ("--max-image-bytes", _DEFAULTS.max_image_bytes, "of one encoded picture; a larger one fails its row"),
        ("--max-image-pixels", _DEFAULTS.max_image_pixels, "of one decoded picture; a larger one fails its row"),
        ("--contrast-cache-bytes", _DEFAULTS.contrast_cache_bytes, "of contrast prefixes that rows share"),
    ):
        group.add_argument(option, type=int, default=value, metavar="N", help=f"{text} (default: %(default)s)")
    group.add_argument(
        "--max-batch-tokens", type=int, metavar="N", help="of one padded forward pass (default: what fits the device)"
    )


def _color(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers such as 124,116,104") from None
