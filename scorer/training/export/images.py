"""Turn the images of a dataset into file paths, as trainers' JSON needs them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from scorer.errors import TableError

_SIGNATURES: Final = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}


class ImageFiles:
    """Return a path for every image: its own, or that of a file with its bytes, named by their digest.

    Args:
        folder: where bytes are written; created on first use.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: list[Path] = []

    def path(self, image: Any) -> str:
        """Return the path of an image.

        Args:
            image: a path, the bytes of an image file, or Hugging Face's struct of either.

        Raises:
            TableError: it is none of these.
        """
        if isinstance(image, dict):  # Hugging Face's struct
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str) and image:
            return image
        if not isinstance(image, bytes):
            raise TableError(
                f"an image is of type {type(image).__name__}; give a path, bytes or Hugging Face's image struct"
            )
        suffix = next((suffix for start, suffix in _SIGNATURES.items() if image.startswith(start)), ".img")
        file = self.folder / f"{hashlib.blake2b(image, digest_size=12).hexdigest()}{suffix}"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._written.append(file)
            file.write_bytes(image)
        return str(file)

    def delete_written(self) -> None:
        """Delete the files that this object has written, and the folder if it is empty then."""
        for file in self._written:
            file.unlink(missing_ok=True)
        self._written.clear()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
