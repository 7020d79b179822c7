"""Read and write ``_run.json``: how an output is computed. It is written once, and any run that differs is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipelines.output.documents import as_json
from pipelines.output.store import Store
from scorer.documents import parse_object
from scorer.errors import OtherRunError
from scorer.weights import METHODS

KEY: Final = "_run.json"
CONFIG: Final = "_config.yaml"
"""The options that would repeat the run; the program reads it only on request."""
FORMAT: Final = 1

_KINDS: Final = {
    "started_at": str,
    "input": str,
    "fingerprint": dict,
    "source": dict,
    "method": dict,
    "layout": str,
    "rows_per_unit": int,
    "choices": dict,
}
"""The JSON type of every field of a record."""

_INFORMATIVE: Final = ("fingerprint.model", "fingerprint.revision")
"""Not compared: the digests of weights, tokenizer and processor identify a model better than where it was found."""

_LATER: Final = {
    "fingerprint.stop_token": "Its stop tokens were not scored: it is from a release that did not, or was begun with "
    "--no-stop-token; give --no-stop-token to go on with it.",
}
"""How to go on with an output whose fingerprint lacks a key, since its value then has no name there."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The run that an output belongs to.

    Attributes:
        started_at: ISO 8601, UTC.
        input: the input as the first process named it; for information only.
        fingerprint: the engine's fingerprint.
        source: the source's fingerprint: which columns are read.
        method, layout, rows_per_unit: the options that determine what is written.
        choices: why each column is read, and which known ones are not; for information only.
    """

    started_at: str
    input: str
    fingerprint: Mapping[str, Any]
    source: Mapping[str, Any]
    method: Mapping[str, Any]
    layout: str
    rows_per_unit: int
    choices: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return as_json({"format": FORMAT, **{name: getattr(self, name) for name in self.__slots__}})

    @classmethod
    def from_bytes(cls, data: bytes) -> RunRecord:
        """Parse a document. Raise ValueError if it is damaged or has another format."""
        document = {"choices": {}, **parse_object(data)}  # outputs of earlier releases lack them
        if document.get("format") != FORMAT:
            raise ValueError(f"its format is {document.get('format')!r:.40}, but this release reads {FORMAT}")
        for name, kind in _KINDS.items():
            if type(document.get(name)) is not kind:
                raise ValueError(f"its {name} is {document.get(name)!r:.40}, not of type {kind.__name__}")
        return cls(**{name: document[name] for name in cls.__slots__})

    def metadata(self) -> dict[str, Any]:
        """Return the part that is stored in the schema metadata of every table."""
        return {"fingerprint": dict(self.fingerprint), "source": dict(self.source), "layout": self.layout}

    def compared(self) -> dict[str, Any]:
        """Return everything that must not change, with nested keys flattened."""
        found = dict(
            _flatten(
                {
                    "fingerprint": self.fingerprint,
                    "source": self.source,
                    "method": _with_defaults(self.method),
                    "layout": self.layout,
                    "rows_per_unit": self.rows_per_unit,
                }
            )
        )
        if "fingerprint.weights_sha256" in found:
            for key in _INFORMATIVE:
                found.pop(key, None)
        return found


def _with_defaults(method: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a recorded method with the parameters that its release did not have: their defaults are what it did."""
    known = METHODS.get(method.get("name", ""))
    if known is None:
        return method
    defaults = {parameter.name: parameter.default for parameter in known.parameters}
    return {**method, "params": {**defaults, **method.get("params", {})}}


def read_record(store: Store) -> RunRecord | None:
    """Read the record of an output; None for a new output.

    Raises:
        OtherRunError: it is damaged or has another format.
    """
    try:
        return RunRecord.from_bytes(store.get(KEY))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OtherRunError(
            f"{store.root}/{KEY}, which says how the scores were computed, cannot be read: {error}; restore it from a "
            "copy, choose another --output, or give --force-new-run to start in a new folder beside it"
        ) from error


def claim(store: Store, record: RunRecord) -> RunRecord:
    """Write ``record`` unless the output already belongs to an equal run. Return the stored record.

    Raises:
        OtherRunError: the output belongs to another run; the message lists the differences.
    """
    found = compare(store, record)
    if found is not None:
        return found
    record = _as_stored(record)
    if store.create(KEY, record.to_bytes()):
        return record
    return compare(store, record) or record  # another process came first


def compare(store: Store, record: RunRecord) -> RunRecord | None:
    """Return the stored record of an equal run; None for a new output. Nothing is written.

    Raises:
        OtherRunError: the output belongs to another run; the message lists the differences.
    """
    stored = read_record(store)
    if stored is not None:
        refuse_difference(store, stored.compared(), _as_stored(record).compared())
    return stored


def _as_stored(record: RunRecord) -> RunRecord:
    """Pass a record through JSON, so that it compares equal to a stored one."""
    return RunRecord.from_bytes(record.to_bytes())


def confirm_writable(store: Store, record: RunRecord) -> None:
    """Raise StoreError unless the store accepts writes: ask it to create an object that exists already."""
    store.create(KEY, record.to_bytes())


def refuse_difference(store: Store, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise OtherRunError unless both are equal."""
    keys = sorted(key for key in {*stored, *asked} if stored.get(key) != asked.get(key))
    if not keys:
        return
    width = max(len(key) for key in keys)
    hints = "".join(f" {_LATER[key]}" for key in keys if key in _LATER and stored.get(key) is None)
    lines = "\n".join(f"  {key:<{width}}  {_show(stored.get(key))} → {_show(asked.get(key))}" for key in keys)
    raise OtherRunError(
        f"output {store.root} was begun by a different run (its value → the value asked for now):\n{lines}\n"
        "Scores of the two must not be mixed. Repeat the run with the first values, choose another --output, or "
        f"give --force-new-run to start in a new folder beside it.{hints}"
    )


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
