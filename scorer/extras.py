"""Map optional packages to the extras that install them, and name the extra when one is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

from scorer.errors import MissingPackageError


class Package(NamedTuple):
    """A distribution, and the extra that installs it; None if no extra does."""

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
"""Optional packages by top-level module. A quantization has an extra of the same name; see ``extra`` below."""


def require(*modules: str, wanted_by: str, extra: str | None = None) -> None:
    """Check that modules are installed, without importing them.

    Args:
        modules: keys of :data:`PACKAGES`.
        wanted_by: what needs them, for the message.
        extra: the extra to name, instead of the one listed for the module.

    Raises:
        MissingPackageError: a module is not installed; the message names the first.
    """
    for module in modules:
        if not _is_installed(module):
            raise _missing(module, wanted_by, extra)


@contextmanager
def needing(wanted_by: str, extra: str | None = None) -> Iterator[None]:
    """Name the missing extra if an import in the block fails because an optional package is not installed.

    Args:
        wanted_by: what needs the package, for the message.
        extra: the extra to name, instead of the one listed for the package.

    Raises:
        MissingPackageError: a module in :data:`PACKAGES` is missing; other errors pass through.
    """
    try:
        yield
    except MissingPackageError:
        raise  # already reported, closer to the cause
    except (ImportError, RuntimeError) as error:  # transformers and trl import lazily, and raise RuntimeError
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
    """Return the optional module that was not found; fsspec names it only in the cause of its own error."""
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
