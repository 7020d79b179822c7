"""The ``README.md`` of an output: a dataset card for the Hugging Face Hub and the ``datasets`` library.

Its front matter names the published files, so ``load_dataset(OUTPUT)`` reads those and no unit files. The card is
written just before ``_SUCCESS``, and never replaces a README that tokensight did not write.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pipelines.output.record import RunRecord
from pipelines.output.store import Store
from pipelines.report.method_words import mean_weight, meaning, parameters, thresholds
from scorer import columns, contrasts
from scorer.config import fingerprint_digest
from scorer.contrasts import known_contrast

KEY: Final = "README.md"
OURS: Final = "<!-- Written by tokensight with every finished run. To keep a text of your own, delete this line. -->"

_SIZES: Final = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")

_OWN_SHOWN: Final = 3
"""Groups of shards with columns of their own that the card shows; ``_SUCCESS`` has all."""


def write_card(store: Store, record: RunRecord, summary: Mapping[str, Any]) -> None:
    """Write the card of a run that is about to finish, unless there is a ``README.md`` from elsewhere."""
    if any(shard["name"] == KEY for shard in summary["shards"]):
        return
    card = render_card(record, summary).encode()
    try:
        ours = OURS.encode() in store.get(KEY)
    except FileNotFoundError:
        store.create(KEY, card)
        return
    if ours:
        store.put(KEY, card)


def render_card(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """Return the text of the card."""
    patterns = _patterns([shard["name"] for shard in summary["shards"]])
    return "\n".join(
        (
            *_front_matter(summary, patterns),
            OURS,
            "",
            *_introduction(summary),
            *_reading(patterns),
            *_columns(record),
            *_making(record, summary),
            *_choices(summary.get("choices")),
            *_counts(summary),
        )
    )


def _front_matter(summary: Mapping[str, Any], patterns: Sequence[str]) -> Iterator[str]:
    yield from ("---", "pretty_name: Visual token weights")
    yield from ("tags:", "- tokensight", "- visual-token-weights", "- image-text")
    rows = int(summary["rows"])
    yield from ("size_categories:", f"- {_SIZES[max(0, min(len(str(max(rows, 1))) - 3, len(_SIZES) - 1))]}")
    if patterns:
        yield from ("configs:", "- config_name: default", "  data_files:", "  - split: train", "    path:")
        yield from (f"    - {json.dumps(pattern)}" for pattern in patterns)  # JSON strings are YAML strings
    yield "---"


def _introduction(summary: Mapping[str, Any]) -> Iterator[str]:
    what = (
        "For every token of the captions (or answers) in an image-text dataset: how much the image changes the "
        "prediction of a frozen reference model, and a weight for the token's training loss."
    )
    if summary["layout"] == "merged":
        beside = (
            "The original columns of the dataset come first: row *i* of a file is row *i* of the dataset shard with "
            "the same name."
        )
    else:
        beside = (
            "Row *i* of a file belongs to row *i* of the dataset shard with the same name. Images and texts are not "
            "included; keep the dataset."
        )
    yield from ("# Visual token weights", "", f"{what} {beside}", "")


def _reading(patterns: Sequence[str]) -> Iterator[str]:
    files = json.dumps(patterns[0] if len(patterns) == 1 else list(patterns))
    yield from ("## Usage", "", "```python", "from datasets import load_dataset", "")
    yield f'weights = load_dataset("parquet", data_files={files}, split="train")  # from this folder'
    yield from ("```", "", "In a trainer, with the package tokensight (this part needs only numpy and pyarrow):")
    yield from ("", "```python", "from scorer.spans import project", "from scorer.training import read_weights", "")
    yield 'for row in read_weights("."):  # method="prior" derives different weights from the same scores'
    yield "    if row.ok:"
    yield "        row.check_text([caption])  # raises an error if the text has changed since it was scored"
    yield "        s = row.scores"
    yield "        weights = project(row.weights, s.token_starts, s.token_ends, starts, ends)  # onto your spans"
    yield from ("```", "")


def _columns(record: RunRecord) -> Iterator[str]:
    yield from ("## Columns", "", "| column | meaning (lists have one element per scored token) |", "|---|---|")
    if record.layout == "merged":
        yield "| original columns | as in the dataset |"
    yield from (f"| `{column.name}` | {column.meaning} |" for column in columns.of_run(record.fingerprint))
    yield ""


def _making(record: RunRecord, summary: Mapping[str, Any]) -> Iterator[str]:
    method = summary["method"]
    yield from ("## Provenance", "", "| | |", "|---|---|")
    yield f"| reference model | {_code(_model(summary['model']))}{_revision(record)} |"
    for i, contrast in enumerate(contrasts.of_run(summary)):
        known = known_contrast(contrast)
        explained = "see the fingerprint" if known is None else known.record.explanation
        yield f"| {'further contrast' if i else 'contrast input'} | {_code(contrast)}: {explained} |"
    yield f"| weights | {_code(method['name'])}{parameters(method)}: {meaning(method) or 'see the fingerprint'} |"
    if (mean := mean_weight(summary)) is not None:
        yield f"| mean weight | {mean:.4g} |"
    if found := thresholds(summary):
        yield f"| by the dataset's gaps | {', '.join(found)} |"
    yield f"| numbers | {_code(str(summary['dtype']))} |"
    yield f"| finished | {summary['finished_at']} |"
    yield f"| fingerprint | {_code(fingerprint_digest(record.fingerprint))} (SHA-256; in full in `_run.json`) |"
    yield ""


def _choices(choices: Mapping[str, Any] | None) -> Iterator[str]:
    """Say which columns were read and why; shards with the same columns of their own are shown together."""
    if choices is None:
        return
    yield from ("## Columns that were read", "", "| role | column | why |", "|---|---|---|")
    yield from _taken(choices)
    alike: dict[str, list[str]] = {}
    for name, one in choices.get("own", {}).items():
        alike.setdefault("\n".join(_taken(one)), []).append(name)
    for lines, shards in list(alike.items())[:_OWN_SHOWN]:
        more = f" and {len(shards) - 1:,} more" if len(shards) > 1 else ""
        yield f"| **in {_code(shards[0])}{more}** | | |"
        yield lines
    if len(alike) > _OWN_SHOWN:
        others = sum(map(len, list(alike.values())[_OWN_SHOWN:]))
        yield f"| **in {others:,} other shards** | | see `choices` in `_SUCCESS` |"
    yield ""
    if choices["passed_over"]:
        names = ", ".join(map(_code, choices["passed_over"]))
        yield from (f"Known names that were not read: {names} (why: `choices` in `_SUCCESS`).", "")


def _taken(choices: Mapping[str, Any]) -> Iterator[str]:
    for role, names in choices["columns"].items():
        shown = ", ".join(map(_code, names)) or "none"
        yield f"| {role} | {shown} | {_cell(choices['taken'][role])} |"


def _counts(summary: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Counts", "", "| | |", "|---|---|")
    yield f"| files | {len(summary['shards']):,} |"
    yield f"| rows | {summary['rows']:,} |"
    yield f"| rows scored | {summary['ok']:,} |"
    if summary["text_only"]:
        yield f"| rows text-only | {summary['text_only']:,} |"
    yield f"| rows failed | {summary['failed']:,} |"
    yield f"| tokens scored | {summary['tokens']:,} |"
    yield ""
    if summary["text_only"]:
        yield from ("Text-only rows (`status` is `text_only`) have no image: they train with weights of 1.", "")
    if summary["failures"]:
        yield from ("Failed rows by `status`:", "", "| status | rows |", "|---|---|")
        yield from (f"| {_code(code)} | {failure['count']:,} |" for code, failure in summary["failures"].items())
        yield ""


def _patterns(names: Sequence[str]) -> list[str]:
    """Return globs that match the published files only; unit files are in deeper folders."""
    found = {posixpath.join(posixpath.dirname(name), f"*{posixpath.splitext(name)[1]}") for name in names}
    return sorted(found)


def _model(model: Any) -> str:
    """Return a hub id unchanged; shorten a directory to its last three parts, to keep the full path private."""
    return "/".join(str(model).replace("\\", "/").rstrip("/").split("/")[-3:])


def _revision(record: RunRecord) -> str:
    revision = record.fingerprint.get("revision")
    return f" at {_code(str(revision))}" if revision else ""


def _cell(text: str) -> str:
    """Format words for a table cell, replacing characters that would end it or be taken for markup."""
    return text.replace("|", "¦").replace("\n", " ").replace("<", "&lt;")


def _code(text: str) -> str:
    """Format a value as code in a table cell, replacing characters that would end either."""
    return "`" + text.replace("`", "'").replace("|", "¦").replace("\n", " ") + "`"
