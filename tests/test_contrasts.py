"""A contrast is one record: put into the registry it is everywhere, and nothing else decides by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageOps
from pydantic import ValidationError
from starlette.testclient import TestClient

from pipelines.cli.options import build_parser, make_config, make_job
from pipelines.output.record import RunRecord
from pipelines.report.dataset_card import render_card
from pipelines.report.page import contrast_name
from scorer import Encoder, Sample, Scorer, ScorerConfig, TokenScores
from scorer.contrasts import CONTRASTS, AlteredImage, Capability, Contrast, EditedTokens, OtherImage
from scorer.errors import ConfigError
from scorer.families import FAMILIES, TEXT_ONLY, UNLISTED_VISION
from scorer.forward import FastPath, score_full_forwards
from scorer.forward.model import ForwardRow, ReferenceModel
from scorer.forward.self_check import SelfCheck, compare
from scorer.mini import MODEL_PATH
from scorer.types import BoolArray, Branch
from service import schemas
from service.scorer_pool import ScorerPool
from tests.pipelines.helpers import make_job as make_dataset_job
from tests.pipelines.helpers import run, write_dataset
from tests.service import helpers
from tests.service.conftest import wait_until_ready

ROOT = Path(__file__).parents[1]

MIRROR = Contrast(
    name="mirror",
    phrase="the image in a mirror",
    description="the same image, flipped: 100 % of it",
    source="Alice, 1871",
    how=AlteredImage(lambda image, options: ImageOps.mirror(image)),
    needs=frozenset({Capability.IMAGES}),
    constant=False,
)


def half_hidden(branch: Branch, image_tokens: BoolArray) -> Branch:
    """Every second image token hidden: the others still tell of the image."""
    return replace(branch, attend=~(image_tokens & (np.cumsum(image_tokens) % 2 == 0)))


HALF = Contrast(
    name="half",
    phrase="half of the image",
    description="every second image token hidden",
    how=EditedTokens(half_hidden),
    needs=frozenset({Capability.HIDDEN_TOKENS}),
    constant=False,
)


KNOWN = tuple(CONTRASTS.values())
"""The contrasts of the registry, before a test adds one."""


def register(patch: pytest.MonkeyPatch, contrast: Contrast) -> None:
    patch.setitem(cast(dict[str, Contrast], CONTRASTS), contrast.name, contrast)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Contrast:
    """A contrast that stands in the registry and nowhere else."""
    register(monkeypatch, MIRROR)
    return MIRROR


@pytest.fixture(scope="module")
def mini() -> Scorer:
    """The packaged model."""
    return Scorer.load(MODEL_PATH, ScorerConfig(device="cpu"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {"x.parquet": 3})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def samples() -> list[Sample]:
    texts = ("A red kite over two boats.", "There are two hearts.")
    return [Sample.caption(f"{i} {text}", picture(i), text) for i in range(3) for text in texts]


def fast_against_plain(scorer: Scorer) -> SelfCheck:
    rows = [scorer.encoder.encode(sample) for sample in samples()]
    fast = FastPath(scorer.model, scorer.config.contrasts, 2**24)
    fast.score(rows)
    return compare(fast.score(rows), score_full_forwards(scorer.model, rows), scorer.config.dtype)


# --- a new contrast ---------------------------------------------------------------------------------------------


def test_it_is_encoded(mirror: Contrast) -> None:
    config = ScorerConfig(contrast=mirror.name)
    assert ScorerConfig.from_dict(config.to_dict()).fingerprint()["contrast"] == "mirror"
    encoder = Encoder.load(MODEL_PATH, config)
    row = encoder.encode(Sample.caption("a", picture(1), "A kite."))
    flipped = encoder.encode(Sample.caption("a", ImageOps.mirror(picture(1)), "A kite."))
    assert row.contrast.pixels_digest == flipped.clean.pixels_digest != row.clean.pixels_digest
    np.testing.assert_array_equal(row.contrast.input_ids, row.clean.input_ids)


def test_it_is_scored_fast_and_plain(mirror: Contrast, mini: Scorer) -> None:
    scorer = mini.with_contrast(mirror.name)
    assert fast_against_plain(scorer).passed
    results = scorer.score(samples())
    assert scorer.path == "fast"
    for result in results:
        assert isinstance(result, TokenScores)
        assert np.abs(result.logit_gap).max() > 0.01


def test_it_is_defined_where_families_can_do_what_it_needs(mirror: Contrast) -> None:
    assert all(mirror.name in family.contrasts for family in (*FAMILIES.values(), UNLISTED_VISION))
    assert mirror.name not in TEXT_ONLY.contrasts


def test_the_command_line_takes_it(mirror: Contrast, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--input", str(tmp_path), "--output", str(tmp_path / "out"), "--contrast"]
    assert make_config(build_parser().parse_args([*argv, "mirror"])).contrast == "mirror"
    said = " ".join(build_parser().format_help().split())
    arguments = [contrast.argument for contrast in KNOWN]
    assert all(f" {contrast.argument} {contrast.explanation} " in said for contrast in [*KNOWN, mirror])
    assert "mirror the same image, flipped: 100 % of it (Alice, 1871)" in said
    for wrong in ("mirror:column", "mirrors"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([*argv, wrong])
        assert f"{wrong!r} is not one of {', '.join(arguments)} and mirror" in (capsys.readouterr().err)


def test_one_with_a_column_asks_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, replace(MIRROR, name="twin", how=OtherImage()))
    (tmp_path / "x.jsonl").write_text('{"image": "1.jpg", "other": "2.jpg", "text": "A kite."}')
    argv = ["--input", str(tmp_path / "x.jsonl"), "--output", str(tmp_path / "out"), "--contrast", "twin:other"]
    source: Any = make_job(build_parser().parse_args(argv)).source
    assert source.shards()
    assert source.columns.contrast_image == "other"
    with pytest.raises(SystemExit):
        build_parser().parse_args([*argv[:-1], "twin"])
    assert "twin" not in schemas.contrast_names(), "a request has one image"


def test_an_unknown_one_is_refused_with_the_choices(mirror: Contrast) -> None:
    names = ", ".join([*(contrast.name for contrast in KNOWN), "mirror"])
    with pytest.raises(ConfigError, match=f"must be one of {names}"):
        ScorerConfig(contrast="mirrors")


def test_report_and_card_have_its_words(mirror: Contrast, dataset: Path, output: Path) -> None:
    summary = run(make_dataset_job(dataset, output))
    record = RunRecord.from_bytes((output / "_run.json").read_bytes())
    card = render_card(record, {**summary, "contrast": mirror.name})
    assert "| contrast input | `mirror`: the same image, flipped: 100 % of it (Alice, 1871) |" in card
    assert contrast_name(mirror.name) == "the image in a mirror"


def test_report_and_card_keep_a_name_that_they_do_not_know(dataset: Path, output: Path) -> None:
    """The output may be of another version."""
    summary = run(make_dataset_job(dataset, output))
    record = RunRecord.from_bytes((output / "_run.json").read_bytes())
    assert "`later`: see the fingerprint" in render_card(record, {**summary, "contrast": "later"})
    assert contrast_name("later") == "later"


def test_the_service_takes_it(mirror: Contrast) -> None:
    served = [contrast.name for contrast in KNOWN if not (contrast.needs_column or contrast.needs_rows)]
    with pytest.raises(ValidationError, match=f"Input should be {', '.join(map(repr, served))} or"):
        helpers.settings(contrasts="blank,mirrors")
    options: dict[str, Any] = {"contrasts": "blank,mirror"}
    models = ScorerPool.load(helpers.settings(**options))
    with TestClient(helpers.app_of(models, **options)) as client:
        wait_until_ready(client)
        (model,) = client.get("/v1/models").json()["models"]
        schemas.ModelOut.model_validate(model)
        assert model["contrasts"] == ["blank", "mirror"]
        assert model["contrast_words"] == {"blank": "a blank image", "mirror": "the image in a mirror"}
        answer = client.post("/v1/score", json=helpers.request(contrast="mirror"))
        assert (answer.status_code, answer.json()["contrast"]) == (200, "mirror")
        for name in ("shuffled", "patches@0.3"):
            refused = client.post("/v1/score", json=helpers.request(contrast=name))
            assert (refused.status_code, "'patches', 'diffusion'" in refused.text) == (422, True)
        components = client.get("/openapi.json").json()["components"]["schemas"]
    assert components["ScoreResponse"]["properties"]["contrast"] == {
        "type": "string",
        "title": "Contrast",
        "enum": [*served, "mirror"],
    }


def test_values_and_other_rows_stand_beside_each_other(mini: Scorer) -> None:
    """One clean pass, two blurs, patches and another row's image: each as if it were the only contrast."""
    names = ("blur@0.02", "blank", "blur@0.05", "patches@0.30", "shuffled")
    found = mini.with_contrast(*names).score(samples())
    for name, spelled in zip(names, ("", "blank", "blur_0_05", "patches_0_3", "shuffled"), strict=True):
        gap = f"logit_gap_{spelled}" if spelled else "logit_gap"
        for ours, alone in zip(found, mini.with_contrast(name).score(samples()), strict=True):
            assert isinstance(ours, TokenScores) and isinstance(alone, TokenScores)
            np.testing.assert_allclose(ours.arrays[gap], alone.logit_gap, atol=1e-4)
            if name != "blank":
                assert np.abs(ours.arrays[gap] - ours.arrays["logit_gap_blank"]).max() > 0.01
    with pytest.raises(ConfigError, match="'patches' is given twice"):
        mini.with_contrast("patches", "patches@0.5")


# --- the fast path reads the record -----------------------------------------------------------------------------


def test_tokens_hidden_beside_shown_ones(monkeypatch: pytest.MonkeyPatch, mini: Scorer) -> None:
    register(monkeypatch, HALF)
    assert fast_against_plain(mini.with_contrast("half")).passed


def test_one_wrongly_marked_constant_costs_memory_and_no_score(monkeypatch: pytest.MonkeyPatch, mini: Scorer) -> None:
    register(monkeypatch, replace(HALF, constant=True))
    assert fast_against_plain(mini.with_contrast("half")).passed


def test_hidden_tokens_that_are_seen_would_be_seen(monkeypatch: pytest.MonkeyPatch, mini: Scorer) -> None:
    register(monkeypatch, HALF)
    scorer = mini.with_contrast("half")
    prepare = ReferenceModel.prepare

    def shown(self: ReferenceModel, branch: Branch) -> ForwardRow:
        return replace(prepare(self, branch), attend=np.ones(len(branch.input_ids), dtype=np.bool_))

    rows = [scorer.encoder.encode(sample) for sample in samples()]
    plain = score_full_forwards(scorer.model, rows)
    monkeypatch.setattr(ReferenceModel, "prepare", shown)
    verdict = compare(FastPath(scorer.model, ["half"]).score(rows), plain, "float32")
    assert verdict.difference > 10 * verdict.limit


# --- no name is decided by --------------------------------------------------------------------------------------

AMBIGUOUS = frozenset({"image"})
"""Also a column, and a part of a message: a comparison with it counts where it speaks of a contrast."""

TRAINING_MODES = frozenset({"scorer/mini/batches.py", "scorer/mini/inputs.py"})
"""What the packaged model is trained on: the contrasts, with the shares that they have."""


def deciding_names(root: Path, packages: Sequence[str] = ("scorer", "pipelines", "service")) -> list[str]:
    """Comparisons with a contrast's name, and tables of several, as ``file:line``, outside ``scorer/contrasts.py``."""
    return sorted(
        f"{name}:{node.lineno}"
        for package in packages
        for path in (root / package).rglob("*.py")
        if (name := path.relative_to(root).as_posix()) != "scorer/contrasts.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.expr | ast.pattern)
        if _compares(node) or (_lists(node) and name not in TRAINING_MODES)
    )


def _names(nodes: Sequence[ast.AST | None]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in CONTRASTS:
            yield node.value


def _compares(node: ast.AST) -> bool:
    if not isinstance(node, ast.Compare | ast.MatchValue):
        return False
    found = set(_names([*ast.walk(node)]))
    return bool(found - AMBIGUOUS) or bool(found and "contrast" in ast.unparse(node))


def _lists(node: ast.AST) -> bool:
    entries = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", [])
    return len(set(_names(entries))) > 1


def test_no_name_of_a_contrast_is_compared_or_listed_elsewhere() -> None:
    assert deciding_names(ROOT) == []


def test_planted_comparisons_are_found(tmp_path: Path) -> None:
    """Negative control."""
    lines = [
        'a = config.contrast == "masked"',
        'b = "blur" != name',
        'c = contrast in ("noise", "other")',
        'd = config.contrast == "image"',
        'words = {"blank": 1, "removed": 2}',
        'Name = Literal["blank", "masked"]',
        "match name:",
        '    case "removed":',
        "        pass",
        'fine = part["type"] == "image"',
        'default = "blank"',
    ]
    (tmp_path / "scorer").mkdir()
    (tmp_path / "scorer" / "contrasts.py").write_text(lines[0])
    (tmp_path / "scorer" / "x.py").write_text("\n".join(lines))
    assert deciding_names(tmp_path) == sorted(f"scorer/x.py:{line}" for line in (1, 2, 3, 4, 5, 6, 8))


def test_the_page_names_no_contrast() -> None:
    names = re.compile(rf"\b({'|'.join(set(CONTRASTS) - AMBIGUOUS)})\b")
    for path in (ROOT / "service" / "page" / "static").glob("*.js"):
        assert names.findall(path.read_text(encoding="utf-8")) == [], path.name


def test_the_readme_names_every_contrast() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [contrast.name for contrast in CONTRASTS.values() if f"`{contrast.argument}`" not in readme] == []
