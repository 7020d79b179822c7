"""The dataset card: what it says, when it is written, and that no reader stumbles over it."""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.output.record import RunRecord
from pipelines.output.store import open_store
from pipelines.output.store.local import LocalStore
from pipelines.report.dataset_card import OURS, render_card
from scorer.config import fingerprint_digest
from scorer.training import read_weights
from scorer.weights import METHODS
from tests.methods import ready
from tests.pipelines.fake_engine import FakeEngine
from tests.pipelines.helpers import ROWS, SHARDS, make_job, run, snapshot, write_dataset
from tests.pipelines.outputs import stop_after
from tests.toy_method import TOY, plant


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    return dict(yaml.safe_load(matter))


def test_a_finished_run_has_a_card(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    card = (output / "README.md").read_text()
    assert front_matter(card)["size_categories"] == ["n<1K"]
    for expected in ("`fake`", "`blank`", "cal", "| rows | 38 |", "| rows failed | 4 |", "| `text_missing` | 2 |"):
        assert expected in card
    assert fingerprint_digest(FakeEngine().fingerprint()) in card
    weights = np.concatenate([row.weights for row in read_weights(output) if row.weights is not None])
    threshold = read_weights(output).gaps().rows.top(0.7)[0]
    assert f"| mean weight | {weights.mean():.4g} |" in card
    assert f"| by the dataset's gaps | vig (threshold {threshold:.4g}, keep 0.7), top-tokens (threshold " in card
    assert str(dataset) not in card, "whose folder it was is nobody else's business"
    assert set(read_weights(output).shards) == set(SHARDS)


def test_the_card_names_the_published_files_and_no_others(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    (config,) = front_matter((output / "README.md").read_text())["configs"]
    (split,) = config["data_files"]
    assert split == {"split": "train", "path": ["*.parquet", "sub/*.parquet"]}
    files = [path.relative_to(output) for path in output.rglob("*.parquet")]
    assert len(files) > len(SHARDS), "unit files are there"
    found = {
        str(file) for file in files for pattern in split["path"] if file.match(pattern) and _same_depth(file, pattern)
    }
    assert found == set(SHARDS)


def _same_depth(file: Path, pattern: str) -> bool:
    """A glob's star stays within its folder."""
    return len(file.parts) == pattern.count("/") + 1 and fnmatch.fnmatch(str(file), pattern)


def test_the_code_in_the_card_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(make_job(write_dataset(tmp_path / "data", {"x.parquet": 3}), tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    _, loading, reading = [block.split("```")[0] for block in card.split("```python")]
    assert 'load_dataset("parquet", data_files="*.parquet", split="train")' in loading
    monkeypatch.chdir(tmp_path / "out")
    code = reading.replace("[caption]", "[f'x.parquet kite № {row.row_index}']")
    exec(code, {"starts": [0], "ends": [4]})


def test_a_card_comes_with_success_and_a_rerun_leaves_it(dataset: Path, output: Path) -> None:
    stop_after(6, dataset, output)
    assert not (output / "README.md").exists()
    run(make_job(dataset, output))
    before = snapshot(output)
    run(make_job(dataset, output))
    assert snapshot(output) == before


def test_a_card_follows_the_run_and_a_text_of_ones_own_stays(dataset: Path, output: Path) -> None:
    run(make_job(dataset, output))
    assert f"| rows | {ROWS} |" in (output / "README.md").read_text()
    write_dataset(dataset, {"new.parquet": 4})
    run(make_job(dataset, output))
    card = (output / "README.md").read_text()
    assert f"| rows | {ROWS + 4} |" in card
    (output / "README.md").write_text(card.replace(OURS, ""))
    write_dataset(dataset, {"newer.parquet": 4})
    run(make_job(dataset, output))
    assert (output / "README.md").read_text() == card.replace(OURS, "")


def test_the_card_is_there_before_success(dataset: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = LocalStore.put

    def stop(self: LocalStore, key: str, data: bytes) -> None:
        if key == "_SUCCESS":
            raise OSError(28, "No space left on device")
        put(self, key, data)

    monkeypatch.setattr(LocalStore, "put", stop)
    with pytest.raises(OSError, match="No space"):
        run(make_job(dataset, output))
    assert (output / "README.md").exists()


def test_buckets_have_cards(dataset: Path, tmp_path: Path) -> None:
    store = open_store(f"memory://card-{tmp_path.name}/out")
    run(make_job(dataset, store.root))
    assert OURS in store.get("README.md").decode()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "n>1B"), (10**12, "n>1B")],
)
def test_sizes(dataset: Path, output: Path, rows: int, expected: str) -> None:
    record, summary = record_and_summary(dataset, output)
    assert front_matter(render_card(record, {**summary, "rows": rows}))["size_categories"] == [expected]


def record_and_summary(dataset: Path, output: Path, **options: Any) -> tuple[RunRecord, dict[str, Any]]:
    summary = run(make_job(dataset, output, **options))
    return RunRecord.from_bytes((output / "_run.json").read_bytes()), summary


def weights_line(card: str) -> str:
    (line,) = (line for line in card.splitlines() if line.startswith("| weights |"))
    return line


@pytest.mark.parametrize("method", [*METHODS, TOY.name])
def test_every_method_is_told(dataset: Path, output: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    record, summary = record_and_summary(dataset, output, method=ready(method))
    told = METHODS[method]
    params = ", ".join(f"{name} {value}" for name, value in sorted(ready(method).params.items()))
    assert weights_line(render_card(record, summary)) == (
        f"| weights | `{method}`{f' ({params})' if params else ''}: {told.formula} ({told.source}) |"
    )


def test_a_method_of_another_release_is_named(dataset: Path, output: Path) -> None:
    record, summary = record_and_summary(dataset, output)
    card = render_card(record, {**summary, "method": {"name": "toy", "params": {"power": 2.0}}})
    assert weights_line(card) == "| weights | `toy` (power 2.0): see the fingerprint |"


def test_the_merged_layout_says_whose_columns_come_first(dataset: Path, output: Path) -> None:
    record, summary = record_and_summary(dataset, output, layout="merged")
    card = render_card(record, summary)
    assert "The original columns of the dataset come first" in card and "keep the dataset" not in card


def test_hostile_names_end_neither_table_nor_front_matter(dataset: Path, output: Path) -> None:
    record, summary = record_and_summary(dataset, output)
    shards = [{**summary["shards"][0], "name": 'a"\n--- |`/b.parquet'}]
    card = render_card(record, {**summary, "model": "x|y`z\n---", "shards": shards})
    (config,) = front_matter(card)["configs"]
    assert config["data_files"][0]["path"] == ['a"\n--- |`/*.parquet']
    assert "| reference model | `x¦y'z ---` |" in card
    assert json.dumps(shards[0]["name"])[1:5] in card


def test_the_card_and_the_summary_say_which_columns_were_read(tmp_path: Path) -> None:
    """Shards with the same columns of their own stand together."""
    image = pa.array([{"bytes": b"ok", "path": None}])
    tables: dict[str, dict[str, Any]] = {"a": {"image": image, "caption": ["kite"], "url": ["x"]}}
    tables |= {name: {"image": image, "text": ["kite"], "id": ["x"]} for name in ("b", "c")}
    tables |= {f"d{i}": {"image": image, f"caption_{i}": ["kite"]} for i in range(3)}
    (tmp_path / "data").mkdir()
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / "data" / f"{name}.parquet")
    job = make_job(tmp_path / "data", tmp_path / "out")
    run(job)
    choices = json.loads((tmp_path / "out" / "_SUCCESS").read_bytes())["choices"]
    assert choices["columns"]["text"] == ["caption"]
    assert choices["own"]["b.parquet"]["columns"]["text"] == ["text"]
    found = job.source.choices()
    assert found is not None
    assert choices == found.to_dict()
    card = (tmp_path / "out" / "README.md").read_text()
    _, _, section = card.partition("## Columns that were read\n")
    lines = section.split("## ")[0].splitlines()
    assert "| image | `image` | type struct&lt;bytes, path> |" in lines
    assert "| text | `caption` | known name |" in lines
    at = lines.index("| **in `b.parquet` and 1 more** | | |")
    assert "| text | `text` | known name |" in lines[at:]
    assert "| **in 1 other shards** | | see `choices` in `_SUCCESS` |" in lines
    assert "Known names that were not read: `url` (why: `choices` in `_SUCCESS`)." in lines


def test_a_column_s_name_cannot_end_its_cell(dataset: Path, output: Path) -> None:
    record, summary = record_and_summary(dataset, output)
    choices = {"columns": {"text": ["so|me`"]}, "taken": {"text": "a|b\nc"}, "passed_over": {}}
    assert "| text | `so¦me'` | a¦b c |" in render_card(record, {**summary, "choices": choices})
    without = {name: value for name, value in summary.items() if name != "choices"}
    assert "## Columns that were read" not in render_card(record, without), "an older summary"
