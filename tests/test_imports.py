"""Imports point one way (see the packages' docstrings): checked on the source, and once in a fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("scorer", "pipelines", "service", "tokensight")
HEAVY = frozenset({"torch", "transformers", "tokenizers", "PIL", "ray", "fastapi"})

FORBIDDEN: Mapping[str, frozenset[str]] = {
    "scorer": frozenset({"ray", "fastapi", "starlette", "uvicorn", "pipelines", "service", "tokensight"}),
    "pipelines": frozenset({"fastapi", "starlette", "uvicorn", "service", "tokensight"}),
    "service": frozenset({"pipelines", "tokensight"}),
    "tokensight": frozenset({"torch", "ray", "fastapi", "starlette", "uvicorn"}),
}
"""What a package may not import anywhere, not even inside a function."""

FLOORS: Mapping[str, tuple[frozenset[str], ...]] = {
    package: tuple(frozenset(floor.split()) for floor in floors)
    for package, floors in {
        "scorer": (
            "rank_process",
            "assessment",
            "engine text_reference",
            "assembly ranks",
            "forward",
            "forward.attention",
            "encoding",
            "checkpoint",
            "families fetching mini training.export",
            "mini.language training",
            "mini.world",
            "decoding",
            "table method_options",
            "weights score_bits",
            "results",
            "display statistics",
            "base64_images messages spans config allocator weighting summary ids",
            "contrasts columns",
            "contrast_images partners",
            "types token_bytes storage versions",
            "extras command_line",
            "errors documents",
        ),
        "pipelines": (
            "score_dataset inspect_run compact",
            "cli",
            "assess",
            "progress",
            "executors",
            "executors.isolation",
            "run",
            "report",
            "report.quality",
            "output",
            "output.store",
            "sources",
            "formatting",
        ),
        "service": (
            "__main__ serve",
            "command_line",
            "app",
            "health security request_context page",
            "routes",
            "disconnect scoring",
            "fetches",
            "bodies connections limits responses batcher scorer_pool",
            "problems settings pending",
            "schemas metrics logs",
        ),
        "tokensight": ("__main__", "command", "version"),
    }.items()
}
"""The rooms of each package, a folder or a loose file each, from the top floor down. A room imports from floors below
its own and from nowhere else in its package; a new one is given a floor here."""

LIGHT = (
    "scorer",
    "scorer.types",
    "scorer.errors",
    "scorer.results",
    "scorer.display.html",
    "scorer.extras",
    "scorer.command_line.parser",
    "scorer.command_line.process",
    "scorer.storage",
    "scorer.versions",
    "scorer.config",
    "scorer.contrast_images",
    "scorer.contrasts",
    "scorer.partners",
    "scorer.weights",
    "scorer.method_options",
    "scorer.spans",
    "scorer.columns",
    "scorer.ids",
    "scorer.table",
    "scorer.decoding",
    "scorer.summary",
    "scorer.training",
    "scorer.training.reader",
    "scorer.training.weight_table",
    "scorer.training.alignment",
    "scorer.training.collator",
    "tokensight",
    "tokensight.command",
    "tokensight.version",
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


def import_statements(path: Path, module: str, *, lazy: bool) -> Iterator[tuple[str, str | None]]:
    """(module, name taken or None) of what a file imports; with ``lazy``, also what importing it does not run."""
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
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((base, alias.name) for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def imports(path: Path, module: str, *, lazy: bool) -> Iterator[str]:
    """Dotted names that a file imports; a name taken from a package may be a module."""
    for base, name in import_statements(path, module, lazy=lazy):
        yield base
        if name is not None:
            yield f"{base}.{name}"


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


def room_of(module: str, path: Path) -> str:
    """The room of a module within its package: its folder, or the file itself where it lies loose; the package's own
    ``__init__``, its front door, has none."""
    parts = module.split(".")[1:]
    if path.name != "__init__.py" and len(parts) > 1:
        parts = parts[:-1]
    return ".".join(parts)


def own_imports(root: Path) -> set[tuple[str, str]]:
    """(module, module) for every import within one package, also inside functions and for types only.

    ``from package import name`` counts for the module of that name where there is one, else for the package itself.
    """
    own = modules(root)
    found = set()
    for module, path in own.items():
        for base, name in import_statements(path, module, lazy=True):
            other = f"{base}.{name}" if f"{base}.{name}" in own else base
            if other in own and other.split(".")[0] == module.split(".")[0]:
                found.add((module, other))
    return found


def stairs_up(root: Path, floors: Mapping[str, tuple[frozenset[str], ...]] = FLOORS) -> list[str]:
    """Rooms without a floor, and every import that does not go down, as ``module imports module``."""
    own, found = modules(root), set()
    height = {
        (package, room): -number
        for package, storeys in floors.items()
        for number, storey in enumerate(storeys)
        for room in storey
    }
    rooms = {module: (module.split(".")[0], room_of(module, path)) for module, path in own.items()}
    found |= {
        f"{package}.{room} has no floor" for package, room in rooms.values() if room and (package, room) not in height
    }
    for module, other in own_imports(root):
        here, there = rooms[module], rooms[other]
        if here != there and here in height and there in height and height[here] <= height[there]:
            found.add(f"{module} imports {other}")
    return sorted(found)


def circles(root: Path) -> list[str]:
    """Modules that import each other, directly or by way of others; front doors, which load on demand, aside."""
    graph: dict[str, set[str]] = {}
    for module, other in own_imports(root):
        if "." in module and module != other:
            graph.setdefault(module, set()).add(other)
    found = set()
    for start in graph:
        reached, waiting = set(), [*graph[start]]
        while waiting:
            module = waiting.pop()
            if module not in reached:
                reached.add(module)
                waiting += graph.get(module, ())
        if start in reached:
            found.add(start)
    return sorted(found)


def test_no_layer_imports_one_above_it() -> None:
    assert forbidden_imports(ROOT) == []


def test_rooms_import_from_lower_floors_only() -> None:
    assert stairs_up(ROOT) == []


def test_every_floor_is_a_room_that_exists() -> None:
    rooms = {f"{module.split('.')[0]}.{room_of(module, path)}" for module, path in modules(ROOT).items()}
    assert {f"{package}.{room}" for package, floors in FLOORS.items() for floor in floors for room in floor} <= rooms


def test_no_modules_import_each_other() -> None:
    assert circles(ROOT) == []


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
    "service/app.py": "import fastapi\nfrom pipelines import job\nfrom scorer import lazy\nimport tokensight\n",
    "tokensight/command.py": "import pipelines.job, service.app\n",
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
        "service.app imports tokensight",
    ]


def test_a_planted_heavy_import_is_found_through_relative_imports(planted: Path) -> None:
    assert heavy_imports(planted, "scorer.weights") == ["scorer.far imports torch"]
    assert heavy_imports(planted, "scorer.lazy") == []  # a function that nobody has called
    assert heavy_imports(planted, "scorer.typed") == []  # for the type checker only


def test_a_planted_import_upstairs_is_found(tmp_path: Path) -> None:
    """Negative control: up a floor, across one, lazily, by a relative name, from a room that has no floor."""
    for name, source in {
        "pipelines/__init__.py": "",
        "pipelines/cli/__init__.py": "",
        "pipelines/cli/score.py": "from pipelines.run import job\nfrom pipelines.cli import options\n",
        "pipelines/cli/options.py": "",
        "pipelines/run/__init__.py": "",
        "pipelines/run/job.py": "def f():\n    from ..cli.score import main\n",
        "pipelines/report/__init__.py": "",
        "pipelines/report/page.py": "import pipelines.cards.text\nfrom pipelines.run.job import f\n",
        "pipelines/cards/__init__.py": "",
        "pipelines/cards/text.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    floors = {"pipelines": (frozenset({"cli"}), frozenset({"run", "report"}))}
    assert stairs_up(tmp_path, floors) == [
        "pipelines.cards has no floor",
        "pipelines.report.page imports pipelines.run.job",
        "pipelines.run.job imports pipelines.cli.score",
    ]
    assert circles(tmp_path) == ["pipelines.cli.score", "pipelines.run.job"]
