"""``--config FILE``: read options from a YAML file, and write the file that repeats a run.

The keys are option names; the values are what would follow them on the command line, and are parsed in the same way.
Scalars are read as text: the revision 0123456 does not become a number, nor the word ``no`` a boolean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipelines.output.record import CONFIG
from pipelines.sources.redacted import without_secrets
from scorer.command_line.parser import nearest
from scorer.contrasts import parse_contrast
from scorer.errors import ConfigError
from scorer.extras import needing
from scorer.storage import open_url

with needing(__name__):
    import yaml

_NULLS: Final = ("", "~", "null", "Null", "NULL")
_FLAGS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NOT_REPEATED: Final = frozenset({"help", "config", "dry_run", "force_new_run", "verify", "verbose"})
_OVERRULES: Final = {"report": "no_report", "no_report": "report", "method": "method_param"}
"""Option on the command line → option of the file that it overrides, besides the one of the same name."""
_SEPARATORS: Final = {
    "image_column": ",",
    "text_column": ",",
    "distribution_columns": ",",
    "blank_color": ",",
    "blank_size": "x",
}
"""What joins the list of an option's values; for any other option, a list repeats the option."""


def with_config(parser: argparse.ArgumentParser, argv: Sequence[str]) -> list[str]:
    """Return ``argv`` preceded by the options of the file that it names, so that the command line wins.

    Raises:
        ConfigError: The file cannot be read, is not a mapping, or has a key or value that no option accepts.
    """
    url = _config_of(argv)
    if url is None:
        return list(argv)
    options = _options(parser)
    words = {word.partition("=")[0] for word in argv}
    named = {name for name, option in options.items() if words & set(option.option_strings)}
    overridden = named | {_OVERRULES[name] for name in named & _OVERRULES.keys()}
    return [*(word for name, found in _read(url, options) if name not in overridden for word in found), *argv]


def _config_of(argv: Sequence[str]) -> str | None:
    alone = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    alone.add_argument("--config")
    try:
        found: str | None = alone.parse_known_args(argv)[0].config
    except argparse.ArgumentError:  # the full parser reports it better
        return None
    return found or None  # and so it does an empty one


def _read(url: str, options: dict[str, argparse.Action]) -> Iterator[tuple[str, list[str]]]:
    try:
        fs, path = open_url(url, "--config")
        with fs.open(path, "rt", encoding="utf-8") as file:
            root = yaml.compose(file.read(), Loader=yaml.SafeLoader)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"--config {url!r} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {url!r} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(
            f"--config {url!r} is nested too deeply; give options with values, lists or mappings"
        ) from error
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"--config {url!r} must map options to values, for example 'input: data/train'")
    seen: set[str] = set()
    for key, value in root.value:
        where = f"--config {url!r}, line {key.start_mark.line + 1}"
        name = str(key.value).replace("-", "_")
        if name not in options:
            raise ConfigError(f"{where}: {_unknown(str(key.value), options)}")
        if name in seen:
            raise ConfigError(f"{where}: {key.value} is given twice; remove one of them")
        seen.add(name)
        yield name, _words(options[name], value, where)


def _unknown(key: str, options: dict[str, argparse.Action]) -> str:
    names = [name.replace("_", "-") for name in options]
    near = nearest(key.replace("_", "-"), names)
    hint = f"the nearest is {near!r}, and " if near else ""
    return f"there is no option {key!r}; {hint}--help lists them all"


def _words(option: argparse.Action, node: Any, where: str) -> list[str]:
    """Return the value of a key as command-line arguments."""
    name = option.option_strings[0]
    if option.nargs == 0:
        value = _FLAGS.get(str(node.value).lower()) if isinstance(node, yaml.ScalarNode) else None
        if value is None:
            raise ConfigError(f"{where}: {name.lstrip('-')} is {_spelled(node)}; it must be true or false")
        return [name] if value else list(option.option_strings[1:])  # --no-NAME, if there is one
    values = list(_values(node, where, name))
    if not values:
        return []
    if any("\0" in value for value in values):
        raise ConfigError(f"{where}: {name.lstrip('-')} holds a NUL character, which no option accepts; remove it")
    if option.dest in _SEPARATORS:
        values = [_SEPARATORS[option.dest].join(values)]
    if len(values) > 1 and not isinstance(option, argparse._AppendAction):
        raise ConfigError(f"{where}: {name.lstrip('-')} takes one value, but {len(values)} are given")
    return [f"{name}={value}" for value in values]


def _values(node: Any, where: str, name: str) -> Iterator[str]:
    """Yield a single value, the values of a list, or the NAME=VALUE pairs of a mapping."""
    if isinstance(node, yaml.ScalarNode):
        if node.style is not None or node.value not in _NULLS:
            yield str(node.value)
        return
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    if any(not isinstance(part, yaml.ScalarNode) for part in parts):
        raise ConfigError(
            f"{where}: {name.lstrip('-')} is {_spelled(node)} nested too deeply; give one value, a list or a mapping"
        )
    spelled = [str(part.value) for part in parts]
    if isinstance(node, yaml.SequenceNode):
        yield from spelled
    else:
        yield from (f"{key}={value}" for key, value in zip(spelled[::2], spelled[1::2], strict=True))


def _spelled(node: Any) -> str:
    return repr(node.value) if isinstance(node, yaml.ScalarNode) else f"a {node.id}"


def to_yaml(parser: argparse.ArgumentParser, options: argparse.Namespace, output: str) -> bytes:
    """Return the file that repeats this run into ``output``: defaults written out, credentials left out."""
    document: dict[str, Any] = {}
    hidden: list[str] = []
    for option in parser._actions:
        value = getattr(options, option.dest, None)
        if option.dest in _NOT_REPEATED or value is None or value in ([], ()):
            continue
        name = option.option_strings[0].lstrip("-")
        plain = _plain(option.dest, output if option.dest == "output" else value, options)
        document[name] = without_secrets(plain) if isinstance(plain, str) else plain
        if document[name] != plain:
            hidden.append(name)
    lines = [
        "# The options of this run. To repeat it:",
        f"#   tokensight score --config {CONFIG}",
        "# Relative paths are relative to the folder in which the run was started.",
        *(f"# {name}: credentials are left out; give it on the command line." for name in hidden),
    ]
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return ("\n".join(lines) + "\n" + body).encode()


def _plain(dest: str, value: Any, options: argparse.Namespace) -> Any:
    if dest == "contrast":
        column = options.contrast_image_column
        names = (value, *options.further_contrasts)
        return ",".join(f"{name}:{column}" if parse_contrast(name).record.needs_column else name for name in names)
    if dest == "method_param":
        return dict(value)
    if isinstance(value, (list, tuple)):
        return list(value)
    return value if isinstance(value, (bool, int, float)) else str(value)


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options by long name."""
    return {
        option.option_strings[0].lstrip("-").replace("-", "_"): option
        for option in parser._actions
        if option.dest not in ("help", "config")
    }
