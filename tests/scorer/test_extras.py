"""A missing optional package ends in one line that names the extra which brings it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import tomllib
from typing import Any, get_args

import pytest

from scorer.config import Quantization
from scorer.errors import ConfigError, MissingPackageError
from scorer.extras import PACKAGES, needing
from tests.conftest import ROOT
from tokensight.command import SUBCOMMANDS

REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
"""
"""An interpreter in which one package is not installed."""


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def brought(extra: str) -> set[str]:
    """The distributions of an extra, those of the extras that it names among them."""
    found = set()
    for requirement in project()["optional-dependencies"][extra]:
        if requirement.startswith("tokensight["):
            found |= {name for other in requirement[11:-1].split(",") for name in brought(other)}
        else:
            found.add(re.split(r"[\[<>=~!;, ]", requirement)[0])
    return found


def without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    program = REFUSING.format(module=module) + code
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("module", PACKAGES)
def test_an_extra_brings_the_package(module: str) -> None:
    name, extra = PACKAGES[module]
    if extra is not None:
        assert name in brought(extra)


@pytest.mark.parametrize("quantization", get_args(Quantization))
def test_a_quantization_has_an_extra_of_its_name(quantization: str) -> None:
    package = "torchao" if quantization.startswith("torchao") else "bitsandbytes"
    assert {package, "accelerate"} <= brought(quantization)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_a_commands_extra_brings_what_it_looks_for(name: str) -> None:
    subcommand = SUBCOMMANDS[name]
    assert bool(subcommand.needs) == (subcommand.extra is not None)
    if subcommand.extra is not None:
        assert {PACKAGES[module].name for module in subcommand.needs} <= brought(subcommand.extra)


def test_all_is_everything_but_what_developers_need() -> None:
    extras = project()["optional-dependencies"]
    assert brought("all") == {name for extra in extras if extra not in ("dev", "bench") for name in brought(extra)}


COMMANDS = {
    "score": ("torch", "error: tokensight score needs torch, which is not installed: pip install 'tokensight[score]'"),
    "score --help": (
        "yaml",
        "error: tokensight score needs pyyaml, which is not installed: pip install 'tokensight[score]'",
    ),
    "serve": (
        "fastapi",
        "error: tokensight serve needs fastapi, which is not installed: pip install 'tokensight[service]'",
    ),
    "serve --port 0": (
        "torch",
        "error: tokensight serve needs torch, which is not installed: pip install 'tokensight[service]'",
    ),
    "inspect s3://bucket/out": (
        "s3fs",
        "error: output 's3://bucket/out' needs s3fs, which is not installed: pip install 'tokensight[s3]'",
    ),
    "compact gs://bucket/out": (
        "gcsfs",
        "error: output 'gs://bucket/out' needs gcsfs, which is not installed: pip install 'tokensight[gcs]'",
    ),
    "export --to jsonl --weights s3://bucket/out --output x": (
        "s3fs",
        "error: weights 's3://bucket/out' needs s3fs, which is not installed: pip install 'tokensight[s3]'",
    ),
    "score --input gs://bucket/in --output out": (
        "gcsfs",
        "error: input 'gs://bucket/in' needs gcsfs, which is not installed: pip install 'tokensight[gcs]'",
    ),
    "score --config s3://bucket/run.yaml": (
        "s3fs",
        "error: --config 's3://bucket/run.yaml' needs s3fs, which is not installed: pip install 'tokensight[s3]'",
    ),
    "score --input scorer/mini/sample --output out/absent": (
        "ray",
        "error: --executor ray needs ray, which is not installed: pip install 'tokensight[ray]', "
        "or use --executor local",
    ),
}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_names_the_extra_that_it_lacks(arguments: str) -> None:
    module, message = COMMANDS[arguments]
    code = f"from tokensight.command import main\nsys.exit(main({arguments.split()!r}))"
    done = without(module, code)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", message + "\n")


LIBRARY = {
    "from scorer import Scorer": ("torch", "scorer.Scorer needs torch", "score"),
    "from tokensight import Encoder": ("transformers", "scorer.Encoder needs transformers", "score"),
    "import scorer.training.huggingface": ("transformers", "scorer.training.huggingface needs transformers", "score"),
    "from scorer.training.huggingface import WeightedTrainer": (
        "torch",
        "scorer.training.huggingface needs torch",
        "train",
    ),
    "from scorer.training import weighted_cross_entropy": ("torch", "scorer.training.loss needs torch", "train"),
    "import scorer.training.llava": ("torch", "scorer.training.llava needs torch", "train"),
    "import scorer.training as t; t.WeightedCollator(lambda rows: {}, None, {})([])": (
        "torch",
        "WeightedCollator needs torch",
        "train",
    ),
    "import scorer.training as t; t.read_weights('s3://b/out')": ("s3fs", "weights 's3://b/out' needs s3fs", "s3"),
    "import pipelines.output.store as s; s.open_store('s3://b/out')": ("s3fs", "output 's3://b/out' needs s3fs", "s3"),
    "import pipelines.output.store as s; s.open_store('gs://b/out')": ("gcsfs", "output 'gs://b/out' needs", "gcs"),
}


@pytest.mark.parametrize("statement", LIBRARY)
def test_the_library_names_the_extra_that_it_lacks(statement: str) -> None:
    module, subject, extra = LIBRARY[statement]
    code = f"try:\n    {statement}\nexcept ImportError as error:\n    print(type(error).__name__, error, sep=': ')"
    done = without(module, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"MissingPackageError: {subject}")
    assert done.stdout.endswith(f"which is not installed: pip install 'tokensight[{extra}]'\n")


def test_a_package_that_no_extra_brings_is_named_itself() -> None:
    done = without("trl", "import scorer.training.trl")
    assert "scorer.training.trl needs trl, which is not installed: pip install trl" in done.stderr


def test_other_import_errors_pass() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, needing("this"):
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(caught.value, MissingPackageError)
    with pytest.raises(ImportError, match="cannot import name") as other, needing("this"):
        from torch import no_such_name  # type: ignore[attr-defined]  # noqa: F401
    assert not isinstance(other.value, MissingPackageError)


def test_the_error_crosses_processes() -> None:
    with pytest.raises(MissingPackageError) as caught:
        raise MissingPackageError("this needs that")
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ConfigError)
    assert str(error) == str(caught.value)
