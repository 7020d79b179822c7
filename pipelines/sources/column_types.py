"""What Arrow's types can be read as: a text, an image, messages, an id. Values are not looked at."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from scorer.messages import PAIR_KEYS, PART_IMAGE_KEYS


def is_text(kind: pa.DataType) -> bool:
    """Whether the type is a string, dictionary-encoded or not."""
    kind = _plain(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Whether the type is raw bytes, dictionary-encoded or not."""
    kind = _plain(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether the type is Hugging Face's image feature: ``struct<bytes: binary, path: string>``."""
    kind = _plain(kind)
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def is_messages(kind: pa.DataType) -> bool:
    """Whether the type is a list of message structs, or a struct of lists, as Hugging Face's ``Sequence`` stores it."""
    if pa.types.is_struct(kind):
        names = {field.name for field in kind}
        return bool({"role", "from"} & names) and all(is_list(field.type) for field in kind)
    return is_list(kind) and bool(pa.types.is_struct(kind.value_type))


def has_message_keys(kind: pa.DataType) -> bool:
    """Whether the type is messages whose structs have a role, or a question and its answer."""
    if not is_messages(kind) or pa.types.is_struct(kind):
        return is_messages(kind)
    return is_pairs(kind) or bool({"role", "from"} & {field.name for field in kind.value_type})


def is_pairs(kind: pa.DataType) -> bool:
    """Whether the type is a list of question and answer structs, such as the_cauldron's ``texts``."""
    if not (is_list(kind) and pa.types.is_struct(kind.value_type)):
        return False
    names = {field.name for field in kind.value_type}
    return any({user, assistant} <= names for user, assistant in PAIR_KEYS)


def is_id(kind: pa.DataType) -> bool:
    """Whether :func:`scorer.ids.row_id` has a rule for the type's values: strings, numbers, bytes and UUIDs."""
    kind = _plain(kind)
    return (
        is_text(kind)
        or is_binary(kind)
        or bool(
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_decimal(kind)
            or pa.types.is_fixed_size_binary(kind)
        )
    )


def is_unknown(kind: pa.DataType) -> bool:
    """Whether the type is null, or a list of it: no value has shown what the column holds."""
    return bool(pa.types.is_null(kind)) or (is_list(kind) and is_unknown(kind.value_type))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary, of runs or of an extension type."""
    while True:
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def is_image(kind: pa.DataType) -> bool:
    return is_image_struct(kind) or is_binary(kind) or is_text(kind)


def is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def listed(accepts: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    """Accept the type itself or a list of it, as for several images in a row."""
    return lambda kind: accepts(kind) or (is_list(kind) and accepts(kind.value_type))


def reads_as_messages(kind: pa.DataType) -> bool:
    return is_messages(kind) or listed(is_text)(kind)


def reads_as_prompt(kind: pa.DataType) -> bool:
    return is_text(kind) or is_messages(kind)


def parts_hold_images(kind: pa.DataType) -> bool:
    """Whether a message's parts have a field for their image."""
    if pa.types.is_struct(kind):
        return any(
            is_list(field.type)
            and pa.types.is_struct(field.type.value_type)
            and bool({part.name for part in field.type.value_type} & set(PART_IMAGE_KEYS))
            for field in kind
        )
    return is_list(kind) and parts_hold_images(kind.value_type)
