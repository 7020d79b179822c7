"""Refuse a checkpoint with a damaged file by the file's name: what loads it would only show where it stumbled.

Nothing that is large is read: of weights, each file's header and size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scorer.documents import parse_object
from scorer.errors import ModelError

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

_OBJECTS: Final = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
)
"""The documents that transformers reads if they exist; each is a JSON object."""
_TEMPLATE: Final = "chat_template.jinja"
_REMEDY: Final = "download or save the model again"


def check_documents(path: Path, name: str) -> None:
    """Check that every document of a model directory that exists is what its name says.

    Args:
        path: the directory.
        name: the checkpoint's name as the user gave it, for messages.

    Raises:
        ModelError: one is empty, not UTF-8, or not a JSON object.
    """
    for file in (path / document for document in _OBJECTS):
        if file.is_file():
            _parse(file, name)
    template = path / _TEMPLATE
    if template.is_file():
        try:
            template.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(template, name, f"it is not UTF-8: {error}") from error


def check_weights(path: Path, name: str) -> None:
    """Check that the weight files that transformers would load exist and are whole.

    Raises:
        ModelError: there are none in safetensors, the index is damaged or names a file that is missing, or a file's
            header and size do not fit together.
    """
    from safetensors import SafetensorError, safe_open

    for file in _weight_files(path, name):
        try:
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise _damaged(file, name, f"it has {file.stat().st_size:,} bytes and does not open: {error}") from error


def _weight_files(path: Path, name: str) -> list[Path]:
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    index = path / INDEX
    if not index.is_file():
        raise ModelError(
            f"model {name} has neither {WEIGHTS} nor {INDEX} in {path}; other formats are not loaded: convert the "
            "weights to safetensors"
        )
    document = _parse(index, name)
    files, metadata = document.get("weight_map"), document.get("metadata", {})
    if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
        raise _damaged(index, name, f"its weight_map is {files!r:.40}, not an object of file names")
    if not isinstance(metadata, dict):
        raise _damaged(index, name, f"its metadata is {metadata!r:.40}, not an object")
    names = sorted(set(files.values()))
    missing = [file for file in names if not (path / file).is_file()]
    if missing:
        raise _damaged(
            index,
            name,
            f"{len(missing)} of the {len(names)} files that it names are missing, the first is {missing[0]}",
        )
    return [path / file for file in names]


def _parse(file: Path, name: str) -> dict[str, object]:
    try:
        return parse_object(file.read_bytes())
    except ValueError as error:
        raise _damaged(file, name, str(error)) from error


def _damaged(file: Path, name: str, problem: str) -> ModelError:
    return ModelError(f"{file} of model {name} is damaged: {problem}; {_REMEDY}")
