"""The exception tree: one base to catch, codes that are stored, errors that cross processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from scorer import errors
from scorer.errors import FailureCode, RowError, TokensightError

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


def test_every_error_has_one_base_and_is_in_the_drawn_tree() -> None:
    tree = (errors.__doc__ or "").split("Every message")[0]
    for kind in CLASSES:
        assert issubclass(kind, TokensightError)
        assert kind.__name__ in tree


def test_the_tree_draws_nothing_that_does_not_exist() -> None:
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}
    assert drawn == {kind.__name__ for kind in CLASSES}


def test_wrong_arguments_are_value_errors_too() -> None:
    for kind in (errors.ConfigError, errors.SpanError, errors.WeightsError):
        assert issubclass(kind, ValueError)


@pytest.mark.parametrize("code", FailureCode)
def test_a_row_error_crosses_processes_with_its_code(code: FailureCode) -> None:
    error = pickle.loads(pickle.dumps(RowError(code, "what is wrong")))
    assert isinstance(error, RowError)
    assert (error.code, error.message, str(error)) == (code, "what is wrong", "what is wrong")


def test_codes_are_stored_as_they_are_spelled() -> None:
    """They stand in published files: renaming one is a change of format."""
    assert sorted(code.value for code in FailureCode) == sorted(code.name.lower() for code in FailureCode)
    assert "ok" not in {code.value for code in FailureCode}
