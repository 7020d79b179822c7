"""Turn a dataset's own id of a row into the ``sample_id`` that is stored: one rule for writing and for looking up."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa

_EXACT: Final = 2.0**53
"""Up to here every integer is a float."""
_LONGEST: Final = 4096
"""Bits of an integer that is still an id."""


def row_id(value: Any) -> str | None:
    """Return the id as a string; None if the value cannot be one.

    ======================================= ===================================================================
    value                                   id
    ======================================= ===================================================================
    string                                  itself
    integer                                 its decimal digits
    float                                   as an integer if it is one (``7.0`` → ``7``), else the shortest
                                            decimal that gives the same float64
    decimal                                 its digits without trailing zeros after the point
    UUID, or 16 bytes                       ``xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx``, lower case
    other bytes                             their text if they are UTF-8, else hexadecimal
    null, NaN, boolean, list, struct, other None: the row is named ``<shard>#<row>``
    ======================================= ===================================================================

    Integers and floats of the same value are the same id, because a column of integers with a null becomes one of
    floats in many tools. Scalars of numpy, Arrow and torch count as the value that they hold.
    """
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    elif isinstance(value, np.floating):
        value = float(value)
    elif not isinstance(value, (str, bytes)) and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if value.bit_length() <= _LONGEST else None
    if isinstance(value, float):
        return _of_float(value)
    if isinstance(value, Decimal):
        return _of_decimal(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    return _of_bytes(bytes(value)) if isinstance(value, (bytes, bytearray, memoryview)) else None


def _of_float(value: float) -> str | None:
    if value != value:
        return None
    return str(int(value)) if value.is_integer() and abs(value) <= _EXACT else repr(value)


def _of_decimal(value: Decimal) -> str | None:
    if value.is_nan():
        return None
    if abs(value.adjusted()) > _LONGEST:
        return str(value)
    digits = format(value, "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _of_bytes(value: bytes) -> str:
    if len(value) == 16:
        return str(uuid.UUID(bytes=value))
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()
