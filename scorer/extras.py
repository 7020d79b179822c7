"""The optional packages: which extra of tokensight brings each, and what is said where one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from scorer.errors import MissingPackageError


class Package(NamedTuple):
    """A distribution, and the extra that brings it; None where no extra does."""

    name: str
    extra: str | None


PACKAGES: Final[Mapping[str, Package]] = {
    "torch": Package("torch", "score"),
    "transformers": Package("transformers", "score"),
    "tokenizers": Package("tokenizers", "score"),
    "PIL": Package("pillow", "score"),
    "jinja2": Package("jinja2", "score"),
    "safetensors": Package("safetensors", "score"),
    "httpcore": Package("httpcore", "score"),
    "yaml": Package("pyyaml", "score"),
    "ray": Package("ray", "ray"),
    "fastapi": Package("fastapi", "service"),
    "uvicorn": Package("uvicorn", "service"),
    "pydantic": Package("pydantic", "service"),
    "pydantic_settings": Package("pydantic-settings", "service"),
    "prometheus_client": Package("prometheus_client", "service"),
    "python_multipart": Package("python-multipart", "service"),
    "s3fs": Package("s3fs", "s3"),
    "gcsfs": Package("gcsfs", "gcs"),
    "peft": Package("peft", "adapters"),
    "accelerate": Package("accelerate", "adapters"),
    "bitsandbytes": Package("bitsandbytes", "nf4"),
    "torchao": Package("torchao", "torchao-int8"),
    "trl": Package("trl", None),
    "flash_attn": Package("flash-attn", None),
}
"""What is imported, by its top-level module. Quantizations have extras of their own names, see ``extra`` below."""


def require(*modules: str, wanted_by: str, extra: str | None = None) -> None:
    """Look for modules without importing them.

    Args:
        modules: keys of :data:`PACKAGES`.
        wanted_by: what cannot do without them, for the message.
        extra: the extra to name, instead of each module's own.

    Raises:
        MissingPackageError: for the first that is not installed.
    """
    for module in modules:
        if not _is_installed(module):
            raise _missing(module, wanted_by, extra)


@contextmanager
def needing(wanted_by: str, extra: str | None = None) -> Iterator[None]:
    """Name the extra where an import in the block fails because an optional package is not installed.

    Args:
        wanted_by: what is imported or done, for the message.
        extra: the extra to name, instead of the package's own.

    Raises:
        MissingPackageError: for a module of :data:`PACKAGES`; other errors pass.
    """
    try:
        yield
    except MissingPackageError:
        raise  # said already, nearer to the cause
    except ImportError as error:
        module = _not_found(error)
        if module is None:
            raise
        raise _missing(module, wanted_by, extra) from error


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):
        return False


def _not_found(error: BaseException | None) -> str | None:
    """The optional module that was not found: fsspec says so in the cause of its own error only."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name is not None:
            module = error.name.partition(".")[0]
            return module if module in PACKAGES else None
        error = error.__cause__
    return None


def _missing(module: str, wanted_by: str, extra: str | None) -> MissingPackageError:
    name, own = PACKAGES[module]
    extra = extra or own
    advice = name if extra is None else f"'tokensight[{extra}]'"
    return MissingPackageError(f"{wanted_by} needs {name}, which is not installed: pip install {advice}")
