"""The command line's options that say what the dataset is, and the source that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pipelines.sources import Source
from pipelines.sources.columns import OPTIONS, Columns
from pipelines.sources.formats import FORMATS, open_source
from pipelines.sources.images import ImageOptions
from scorer.config import ScorerConfig
from scorer.contrasts import CONTRASTS
from scorer.fetching.fetcher import Fetcher

_MEANING = {
    "image": "the picture: struct<bytes, path>, bytes, a path or a URL; a list, or A,B, for several",
    "text": "the caption to score; a list, or A,B, for several captions of one image, each a turn of its own",
    "messages": "a conversation whose assistant turns are scored, instead of a caption",
    "id": "the row's id (default: SHARD#ROW)",
    "prompt": "the instruction that the caption answers (default: --prompt for every row)",
}


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the groups of options."""
    group = parser.add_argument_group(
        "columns",
        "Found by type and usual names where they are not given. In JSON they are the records' keys; in WebDataset\n"
        "the members' suffixes, the keys of the json member, __key__, and image for the one picture whatever its\n"
        "suffix.",
    )
    for role, meaning in _MEANING.items():
        group.add_argument(OPTIONS[role], metavar="NAME", help=meaning)
    parser.set_defaults(contrast_image_column=None)
    group = parser.add_argument_group("dataset")
    group.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="; ".join(f"{one.name}: {one.words}" for one in FORMATS.values() if one.words) + " (default: by suffix)",
    )
    group.add_argument(
        "--image-root",
        metavar="PATH",
        help="folder or URL that image paths are relative to and stay below (default: each shard's own folder)",
    )
    group.add_argument(
        "--allow-image-host",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch image URLs of this host, or of all below *.HOST; may be repeated (default: URLs are not fetched)",
    )
    group.add_argument(
        "--image-url-timeout",
        type=float,
        default=Fetcher().seconds,
        metavar="SECONDS",
        help="for one image URL, redirects included (default: %(default)s)",
    )


class ContrastAction(argparse.Action):
    """``--contrast NAME``, or ``--contrast NAME:COLUMN`` where it needs a column of other images."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        name, colon, column = str(values).partition(":")
        contrast = CONTRASTS.get(name)
        if contrast is None or contrast.needs_column != bool(column) or bool(colon) != bool(column):
            *others, last = (known.argument for known in CONTRASTS.values())
            parser.error(f"argument --contrast: {values!r} is none of {', '.join(others)} and {last}")
        namespace.contrast = name
        namespace.contrast_image_column = column or None


def make_source(options: argparse.Namespace, config: ScorerConfig) -> Source:
    """The source that the options ask for. Raises ConfigError."""
    fetcher = Fetcher(tuple(options.allow_image_host), config.max_image_bytes, options.image_url_timeout)
    return open_source(
        options.input,
        options.format,
        Columns(**{role: getattr(options, f"{role}_column") for role in OPTIONS}),
        prompt=config.prompt,
        contrast_images=CONTRASTS[config.contrast].needs_column,
        images=ImageOptions(options.image_root, config.max_image_bytes, fetcher),
        max_text_bytes=config.max_text_bytes,
    )
