"""Imports point one way (see the packages' docstrings): checked on the source, and once in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("scorer", "pipelines", "service")
HEAVY = frozenset({"torch", "transformers", "tokenizers", "PIL", "ray", "fastapi"})

FORBIDDEN: Mapping[str, frozenset[str]] = {
    "scorer": frozenset({"ray", "fastapi", "starlette", "uvicorn", "pipelines", "service"}),
    "pipelines": frozenset({"fastapi", "starlette", "uvicorn", "service"}),
    "service": frozenset({"pipelines"}),
}
"""What a package may not import anywhere, not even inside a function."""

LIGHT = (
    "scorer",
    "scorer.types",
    "scorer.errors",
    "scorer.config",
    "scorer.weights",
    "scorer.spans",
    "scorer.table",
    "scorer.training",
    "scorer.training.reader",
    "scorer.training.weight_table",
    "scorer.training.alignment",
    "scorer.training.collator",
)
"""What a trainer imports: neither these nor what they import on the way may need more than numpy and pyarrow."""


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file of every module of the project."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, module: str, *, lazy: bool) -> Iterator[str]:
    """Dotted names that a file imports; with ``lazy``, also those that importing it does not run."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if not lazy and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)  # a name may be a module
        waiting += ast.iter_child_nodes(node)


def forbidden_imports(root: Path) -> list[str]:
    """Every import that crosses a layer, as ``module imports name``."""
    return sorted(
        {
            f"{module} imports {name.split('.')[0]}"
            for module, path in modules(root).items()
            for name in imports(path, module, lazy=True)
            if name.split(".")[0] in FORBIDDEN[module.split(".")[0]]
        }
    )


def loaded_by(root: Path, module: str) -> dict[str, str]:
    """Everything that importing ``module`` imports in turn → who imports it first; outside the project, top names."""
    own = modules(root)
    found: dict[str, str] = {}
    waiting = [(part, "") for part in parents(module)]
    while waiting:
        name, importer = waiting.pop()
        if name in found:
            continue
        if name not in own:
            if name.split(".")[0] not in PACKAGES:
                found.setdefault(name.split(".")[0], importer)
            continue
        found[name] = importer
        waiting += [(part, name) for other in imports(own[name], name, lazy=False) for part in parents(other)]
    return found


def parents(module: str) -> list[str]:
    """Importing a.b.c runs a and a.b too."""
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def heavy_imports(root: Path, module: str) -> list[str]:
    found = loaded_by(root, module)
    return sorted(f"{found[name]} imports {name}" for name in HEAVY & set(found))


def test_no_layer_imports_one_above_it() -> None:
    assert forbidden_imports(ROOT) == []


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_trainer_imports_is_light(module: str) -> None:
    assert module in modules(ROOT)
    assert heavy_imports(ROOT, module) == []


def test_importing_the_packages_loads_nothing_heavy() -> None:
    code = (
        "import sys, scorer, scorer.training, scorer.spans, scorer.table, scorer.training.reader; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "scorer" in loaded
    assert not loaded & HEAVY


PLANTED = {
    "scorer/__init__.py": "",
    "scorer/weights.py": "from scorer import helper\n",
    "scorer/helper.py": "from .deep import thing\n",
    "scorer/deep/__init__.py": "from ..far import torch_user\n",
    "scorer/far.py": "import torch.nn.functional as F\n",
    "scorer/lazy.py": "def f():\n    from ray import data\n",
    "scorer/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch, service.app\n",
    "pipelines/job.py": "try:\n    import service.app\nexcept ImportError:\n    pass\n",
    "service/app.py": "import fastapi\nfrom pipelines import job\nfrom scorer import lazy\n",
}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    for name, source in PLANTED.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


def test_planted_violations_are_found(planted: Path) -> None:
    """Negative control: inside functions, in ``try``, as ``from package import module``."""
    assert forbidden_imports(planted) == [
        "pipelines.job imports service",
        "scorer.lazy imports ray",
        "scorer.typed imports service",
        "service.app imports pipelines",
    ]


def test_a_planted_heavy_import_is_found_through_relative_imports(planted: Path) -> None:
    assert heavy_imports(planted, "scorer.weights") == ["scorer.far imports torch"]
    assert heavy_imports(planted, "scorer.lazy") == []  # a function that nobody has called
    assert heavy_imports(planted, "scorer.typed") == []  # for the type checker only
