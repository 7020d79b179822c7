"""Turn the flags of ``tokensight serve`` into settings: one flag per setting, overriding its environment variable."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from scorer.command_line.parser import Parser
from scorer.command_line.process import INTERRUPTIONS
from scorer.errors import ConfigError
from service.problems import reason
from service.settings import PREFIX, Settings

_EPILOG = f"""\
environment:
  Each option can also be given as a variable: {PREFIX}PORT for --port, and so on. A flag overrides its variable.

exit status:
  0  stopped after answering accepted requests
  1  the model cannot be loaded, or failed while serving
  2  an option or variable is invalid
{INTERRUPTIONS}
  After SIGTERM, a service that was ready answers what it has accepted and ends with 0; 143 is one that was not ready.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("tokensight serve", Settings.__doc__ or "", _EPILOG, "%(prog)s [options]")
    for name, field in Settings.model_fields.items():
        parser.add_argument(_flag(name), default=argparse.SUPPRESS, help=_help(field), **_kind(field))
    return parser


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Return the settings that flags and environment variables give.

    Raises:
        ConfigError: A setting is invalid; the message names the option, its value and what it must be.
    """
    try:
        return Settings(**vars(build_parser().parse_args(arguments)))
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise ConfigError("; ".join(_described(one) for one in found)) from None


def _described(error: Any) -> str:
    why = reason(error)
    if not error["loc"]:
        return why
    name = str(error["loc"][0])
    if name == "api_keys":  # the value is secret
        return f"{_flag(name)}: {why}"
    return f"{_flag(name)} is {error['input']}: {why.replace('Input should be', 'it must be')}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _help(field: FieldInfo) -> str:
    text = str(field.description).replace("%", "%%")
    if field.default in (None, (), False) or "default:" in text:
        return text
    value = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    return f"{text} (default: {value})".replace("%", "%%")


def _kind(field: FieldInfo) -> dict[str, Any]:
    """Return how argparse reads a flag; values are checked by :class:`Settings` alone."""
    types = [kind for kind in get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if types[0] in (int, float):
        return {"metavar": "N"}
    literal = field.annotation if get_origin(field.annotation) is Literal else types[0]
    if get_origin(literal) is Literal:
        return {"metavar": "{" + ",".join(map(str, get_args(literal))) + "}"}
    return {"metavar": "VALUE"}
