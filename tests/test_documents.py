"""What the documents say can be done, can be done: links, options, and the README's Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

import scorer
from pipelines.cli.compact import build_parser as compact_parser
from pipelines.cli.inspect import build_parser as inspect_parser
from pipelines.cli.options import build_parser as job_parser
from pipelines.cli.train_text_reference import build_parser as text_reference_parser
from pipelines.sources.columns import PAIRS, ROLES
from service.command_line import build_parser as serve_parser
from tests.pipelines.helpers import make_job, run, write_dataset

ROOT = Path(__file__).parents[1]
PACKAGES = ("scorer", "pipelines", "service", "tokensight")
DOCUMENTS = sorted(
    path for folder in (".", "docs", "deploy", "examples", "benchmarks") for path in (ROOT / folder).glob("*.md")
)
COMMANDS = {
    "tokensight score": job_parser,
    "tokensight compact": compact_parser,
    "tokensight inspect": inspect_parser,
    "tokensight serve": serve_parser,
    "tokensight train-text-reference": text_reference_parser,
    "pipelines/score_dataset.py": job_parser,  # where Ray submits it
}


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text()
    assert "@@" not in text and "TODO" not in text
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.read_text()), target


def test_the_datasets_page_has_the_known_names() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text()

    def names(role: str) -> list[list[str]]:
        cell = re.search(rf"^\| {role} \| (.*?) \|", page, flags=re.M)
        assert cell, role
        return [re.findall("`([a-z_]+)`", part) for part in cell[1].split(";")]

    assert {question: tuple(answers) for question, *answers in names("question and answer")} == PAIRS
    assert names("id") == [list(ROLES["id"].names)]
    assert names("messages")[0] == list(ROLES["messages"].names)
    for role in ("image", "text"):
        assert {name for part in names(role) for name in part} - {"image_n", "caption_n"} <= set(ROLES[role].names)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_use_options_that_exist(name: str) -> None:
    known = {option for action in COMMANDS[name]()._actions for option in action.option_strings}
    used = set()
    for path in DOCUMENTS:
        commands = "\n".join(re.findall(r"```(?:console|sh|bash)\n(.*?)```", path.read_text(), flags=re.S))
        for command in re.sub(r"\\\n", " ", commands).splitlines():
            if name in command:
                used |= set(re.findall(r"(?<=\s)(--[a-z][a-z-]*)", command.partition(name)[2].partition(" #")[0]))
    assert used, f"no document shows how to run {name}"
    assert used <= known, f"{used - known} of {name} do not exist"


def test_methods_and_formats_of_the_readme_exist() -> None:
    options = {option for build in COMMANDS.values() for action in build()._actions for option in action.option_strings}
    text = (ROOT / "README.md").read_text()
    words = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    assert len(words) > 5
    elsewhere = {"--help", "--json", "--seeds"}
    assert words <= options | elsewhere, f"{words - options - elsewhere} are options of no command"


def test_the_reading_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (snippet,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
        if "read_weights" in block
    )
    run(make_job(write_dataset(tmp_path / "data"), tmp_path / "out" / "demo"))
    monkeypatch.chdir(tmp_path)
    reading, training = snippet.split("\n\nloss = ")
    names = {"starts": [0], "ends": [1]}  # a trainer's one token, on the first byte
    exec(reading, names)
    assert names["weights"].shape == (1,)
    batch = {"logits": torch.zeros(1, 2, 4), "labels": torch.tensor([[-100, 3]]), "weights": torch.ones(1, 2)}
    exec("loss = " + training, names | batch | {"weighted_cross_entropy": names["weighted_cross_entropy"]}, found := {})
    assert found["loss"].item() == pytest.approx(torch.tensor(4.0).log().item())


def test_one_version_everywhere() -> None:
    """The citation and the deployment name the version that is built."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == scorer.__version__
    assert f"tokensight:{scorer.__version__}" in (ROOT / "deploy" / "README.md").read_text()
    assert f"## {scorer.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_a_commit_is_checked_by_the_checks_of_ci() -> None:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (hook,) = repo["hooks"]
    assert hook["entry"] == "make check"
    assert re.search(r"^check:", (ROOT / "Makefile").read_text(), flags=re.M)
    assert "make check" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_places_that_the_guides_name_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    named = {path for path in re.findall(r"`([\w./<>-]+/[\w./<>-]*)`", text) if "<" not in path}
    assert len(named) > 5
    packages = (ROOT, ROOT / "scorer", ROOT / "pipelines", ROOT / "service")
    assert [path for path in named if not any((package / path).exists() for package in packages)] == []


def test_the_tree_of_the_architecture_is_that_of_the_code() -> None:
    """Every room of scorer and pipelines has its line, and no line is of a room that is not there."""
    tree = (ROOT / "docs" / "architecture.md").read_text().partition("Imports point down")[0]
    folders = {line.split("/")[0].strip() for line in tree.splitlines() if re.match(r" +[a-z_]+/", line)}
    for package in ("scorer", "pipelines"):
        there = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert there <= folders, package
    everywhere = {path.parent.name for path in ROOT.glob("*/*/__init__.py")} | set(PACKAGES)
    assert folders <= everywhere
