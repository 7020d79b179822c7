"""Command-line options of the dataset, and the source they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pipelines.sources import Source
from pipelines.sources.columns import OPTIONS, Columns
from pipelines.sources.formats import FORMATS, open_source
from pipelines.sources.images import ImageOptions
from pipelines.sources.shuffled import ShuffledSource
from scorer.command_line.parser import not_empty
from scorer.config import ScorerConfig
from scorer.contrasts import CONTRASTS, parse_contrast
from scorer.errors import ConfigError
from scorer.fetching.fetcher import Fetcher

_MEANING = {
    "image": "the image: struct<bytes, path>, bytes, a path, a URL or base64; a list, or A,B, for several; none: no "
    "column holds images",
    "text": "the caption to score; a list, or A,B, for several captions of one image, each a turn of its own",
    "messages": "a conversation whose assistant turns are scored, instead of a caption; a list, or a JSON string",
    "id": "the row's id (default: the first column of a known name, else SHARD#ROW; none: SHARD#ROW)",
    "prompt": "the instruction or question that the text answers (default: the known one that goes with the text, as "
    "question with answer; none: every text answers --prompt)",
}


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options, in groups."""
    add_columns(parser)
    parser.set_defaults(further_contrasts=())
    group = parser.add_argument_group("dataset")
    add_format(group)
    group.add_argument(
        "--image-root",
        type=not_empty,
        metavar="PATH",
        help="folder or URL that image paths are relative to and must stay inside (default: the folder of each shard)",
    )
    group.add_argument(
        "--allow-image-host",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch image URLs from HOST, or *.HOST for subdomains; may be repeated (default: fetch no URLs)",
    )
    group.add_argument(
        "--image-url-timeout",
        type=float,
        default=Fetcher().seconds,
        metavar="SECONDS",
        help="time limit for fetching one image, including redirects (default: %(default)s)",
    )


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that name columns."""
    group = parser.add_argument_group(
        "columns",
        "A column that no option names is taken under a known name (docs/datasets.md) and printed. Columns are\n"
        "the records' keys in JSON; in WebDataset, the members' suffixes, the keys of the json member, __key__, and\n"
        "image for a sample's only image, whatever its suffix.",
    )
    for role, meaning in _MEANING.items():
        group.add_argument(OPTIONS[role], metavar="NAME", help=meaning)
    parser.set_defaults(contrast_image_column=None)  # --contrast names it


def add_format(group: argparse._ActionsContainer) -> None:
    """Add ``--format``."""
    group.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="; ".join(f"{one.name}: {one.words}" for one in FORMATS.values() if one.words) + " (default: by suffix)",
    )


class ContrastAction(argparse.Action):
    """Parse ``--contrast NAME,…``; one with a value is ``NAME@VALUE``, one of a column of images ``NAME:COLUMN``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        names: list[str] = []
        namespace.contrast_image_column = None
        for one in str(values).split(","):
            name, colon, column = one.strip().partition(":")
            try:
                contrast = parse_contrast(name).record
            except ConfigError as error:
                if name.partition("@")[0] in CONTRASTS:
                    parser.error(f"argument --contrast: {error}")
                contrast = None
            if contrast is None or contrast.needs_column != bool(column) or bool(colon) != bool(column):
                *others, last = (known.argument for known in CONTRASTS.values())
                parser.error(f"argument --contrast: {one!r} is not one of {', '.join(others)} and {last}")
            names.append(name)
            namespace.contrast_image_column = column or namespace.contrast_image_column
        namespace.contrast, *further = names
        namespace.further_contrasts = tuple(further)


def columns_of(options: argparse.Namespace) -> Columns:
    """Return the columns that the options name."""
    return Columns(**{role: getattr(options, f"{role}_column") for role in OPTIONS})


def make_source(options: argparse.Namespace, config: ScorerConfig) -> Source:
    """Open the source that the options describe. Raises ConfigError."""
    fetcher = Fetcher(tuple(options.allow_image_host), config.max_image_bytes, options.image_url_timeout)
    contrasts = [parse_contrast(name).record for name in config.contrasts]
    source = open_source(
        options.input,
        options.format,
        columns_of(options),
        prompt=config.prompt,
        contrast_images=any(contrast.needs_column for contrast in contrasts),
        images=ImageOptions(options.image_root, config.max_image_bytes, fetcher),
        max_text_bytes=config.max_text_bytes,
    )
    if any(contrast.needs_rows for contrast in contrasts):
        return ShuffledSource(source, config.noise_seed, config.max_image_bytes)
    return source
