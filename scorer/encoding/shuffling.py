"""Find the partners of rows that are at hand, by the bytes of their images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from scorer.encoding.images import EncodedImage, read_image
from scorer.errors import RowError
from scorer.partners import Images, find_partners, group_of
from scorer.types import ImageSource, Sample


def partners_of(images: Sequence[Images], seed: int, max_image_bytes: int) -> list[tuple[Images, ...]]:
    """Return the partners of each row of a group: see :func:`scorer.partners.find_partners`.

    A row without images takes no part, nor does one with an image that cannot be read: it fails by itself.

    Raises:
        OSError: reading fails for a reason that is not the row's fault.
    """
    return find_partners(images, [_digests(one, max_image_bytes) for one in images], seed)


def with_partners(samples: Sequence[Sample], seed: int, max_image_bytes: int) -> Iterator[Sample]:
    """Yield samples with their partners, which are other ones of the list; a sample that has some keeps them.

    Raises:
        OSError: as :func:`partners_of`.
    """
    at = 0
    while at < len(samples):
        group = [samples[i] for i in group_of(at, len(samples))]
        found = partners_of([sample.images for sample in group], seed, max_image_bytes)
        for sample, partners in zip(group, found, strict=True):
            yield sample if sample.partners else replace(sample, partners=partners)
        at += len(group)


def _digests(images: Images, max_image_bytes: int) -> tuple[bytes, ...] | None:
    try:
        return tuple(_digest(source, max_image_bytes) for source in images) or None
    except RowError:
        return None


def _digest(source: ImageSource, max_image_bytes: int) -> bytes:
    read = read_image(source, max_image_bytes)
    if isinstance(read, EncodedImage):
        return hashlib.blake2b(read.data, digest_size=16).digest()
    digest = hashlib.blake2b(f"{read.mode} {read.size}".encode(), digest_size=16)
    digest.update(read.tobytes())
    return digest.digest()
