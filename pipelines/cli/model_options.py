"""Command-line options of the scorer: the reference model, the contrast and the limits."""

from __future__ import annotations

import argparse
from typing import Final, get_args

from pipelines.cli.arguments import SWITCH
from pipelines.cli.source_options import ContrastAction
from scorer.columns import ASKED
from scorer.command_line.parser import not_empty
from scorer.config import Attention, DType, Quantization, ScorerConfig
from scorer.contrasts import CONTRASTS

_DEFAULTS: Final = ScorerConfig()


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add one option for every field of :class:`ScorerConfig`, under the field's name, in groups."""
    _add_model(parser)
    _add_contrast(parser)
    _add_limits(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reference model")
    group.add_argument(
        "--model", type=not_empty, metavar="MODEL", help="a folder or a hub id (default: the packaged mini model)"
    )
    group.add_argument("--revision", help="branch, tag or commit of a hub model")
    group.add_argument(
        "--dtype",
        choices=get_args(DType),
        default=_DEFAULTS.dtype,
        help="dtype in which the model computes (default: %(default)s)",
    )
    group.add_argument("--device", default=_DEFAULTS.device, help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    group.add_argument("--device-map", choices=("auto",), help="auto: spread one large model over the node's GPUs")
    group.add_argument(
        "--tensor-parallel",
        type=int,
        default=_DEFAULTS.tensor_parallel,
        metavar="N",
        help="GPUs of a node that share one model's decoder, for a model that exceeds one GPU (default: %(default)s)",
    )
    group.add_argument(
        "--attention",
        choices=get_args(Attention),
        default=_DEFAULTS.attention,
        help="attention of the vision tower and of the plain path (default: %(default)s)",
    )
    group.add_argument("--quantization", choices=get_args(Quantization), help="quantise the model when loading it")
    group.add_argument(
        "--adapter",
        type=not_empty,
        metavar="ADAPTER",
        help="LoRA adapter to merge when loading: a folder or a hub id",
    )
    group.add_argument("--compile", **SWITCH, help="compile the decoder blocks with torch.compile")
    group.add_argument(
        "--prompt", default=_DEFAULTS.prompt, help="instruction that a bare caption answers (default: %(default)r)"
    )
    group.add_argument(
        "--truncate",
        **SWITCH,
        help="truncate texts that exceed the context instead of failing their rows",
    )
    group.add_argument(
        "--stop-token",
        **(SWITCH | {"default": _DEFAULTS.stop_token}),
        help="also score the token with which the chat template ends a turn (default: on; off: --no-stop-token)",
    )
    group.add_argument(
        "--columns",
        dest="distribution_columns",
        type=_names,
        metavar="NAME[,…]",
        default=_DEFAULTS.distribution_columns,
        help="also store measures of the whole predicted distribution: kl, the Kullback–Leibler divergence in both "
        "directions; js, the Jensen–Shannon divergence; entropy; top1, whether the token is the most likely one "
        "(default: none)",
    )
    group.add_argument(
        "--score-bits",
        type=int,
        default=_DEFAULTS.score_bits,
        metavar="N",
        help="round raw scores to N bits after the leading one, for smaller files; 10 is the precision of float16 "
        "(default: %(default)s, all)",
    )
    group.add_argument(
        "--jpeg-draft",
        **SWITCH,
        help="decode large JPEGs at a reduced scale if the model gets the same grid of image tokens; faster, but "
        "changes pixels a little",
    )


def _add_contrast(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contrast, which replaces the image")
    group.add_argument(
        "--contrast",
        action=ContrastAction,
        metavar="NAME[,…]",
        default=_DEFAULTS.contrast,
        help="one of the contrasts listed below, or several separated by commas. They share the pass with the image: "
        "the first has the plain column names, each further one adds logit_gap_NAME and logprob_NAME "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--blank-color",
        type=_color,
        metavar="R,G,B",
        help="colour of the blank, 0–255 each (default: the image processor's mean)",
    )
    group.add_argument(
        "--blank-size",
        type=_size,
        metavar="WIDTHxHEIGHT",
        help="size in pixels of all blanks, so that rows with the same prompt share one (default: their images' own)",
    )
    group.add_argument(
        "--blur-radius",
        type=float,
        default=_DEFAULTS.blur_radius,
        metavar="SHARE",
        help="radius (standard deviation) of a blur without @RADIUS, as a share of the longer side "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--noise-seed",
        type=int,
        default=_DEFAULTS.noise_seed,
        metavar="N",
        help="seed of every contrast that draws at random (default: %(default)s)",
    )


def describe_contrasts() -> str:
    """Return what each contrast shows, a line each, for a command's help."""
    width = max(len(contrast.argument) for contrast in CONTRASTS.values())
    return "\n".join(f"  {contrast.argument:<{width}}  {contrast.explanation}" for contrast in CONTRASTS.values())


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    for option, value, text in (
        (
            "--max-text-bytes",
            _DEFAULTS.max_text_bytes,
            "maximum size of a row's texts and prompt together, UTF-8; a larger row fails",
        ),
        ("--max-image-bytes", _DEFAULTS.max_image_bytes, "maximum size of an image file; a larger one fails its row"),
        (
            "--max-image-pixels",
            _DEFAULTS.max_image_pixels,
            "maximum size of a decoded image, width × height; a larger one fails its row",
        ),
        (
            "--max-batch-tokens",
            _DEFAULTS.max_batch_tokens,
            "maximum number of tokens in a forward pass; what rows share counts once",
        ),
    ):
        group.add_argument(option, type=int, default=value, metavar="N", help=f"{text} (default: %(default)s)")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    wrong = next((name for i, name in enumerate(names) if name not in ASKED or name in names[:i]), None)
    if wrong is not None:
        raise argparse.ArgumentTypeError(f"{wrong!r} is not one of {', '.join(ASKED)}, each given once")
    return names


def _color(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not three numbers, for example 124,116,104") from None


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and a height, for example 672x448") from None
    return width, height
