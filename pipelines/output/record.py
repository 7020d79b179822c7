"""``_run.json``: what an output is made of, written once. A run that asks for something else is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipelines.output.documents import as_json
from pipelines.output.store import Store
from scorer.errors import OtherRunError

KEY: Final = "_run.json"
CONFIG: Final = "_config.yaml"
"""The options that would repeat the run, for people; nothing reads it unasked."""
FORMAT: Final = 1

_INFORMATIVE: Final = ("fingerprint.model", "fingerprint.revision")
"""Where a model was found says nothing that its weights', tokenizer's and processor's digests do not say better."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The run that an output belongs to.

    Attributes:
        started_at: ISO 8601, UTC.
        input: the input as the first process named it; informative.
        fingerprint: the engine's.
        source: which columns are read.
        method, layout, rows_per_unit: the options that decide what is written.
    """

    started_at: str
    input: str
    fingerprint: Mapping[str, Any]
    source: Mapping[str, Any]
    method: Mapping[str, Any]
    layout: str
    rows_per_unit: int

    def to_bytes(self) -> bytes:
        return as_json({"format": FORMAT, **{name: getattr(self, name) for name in self.__slots__}})

    @classmethod
    def from_bytes(cls, data: bytes) -> RunRecord:
        """Raises OtherRunError for a document of another format."""
        try:
            document = json.loads(data)
            return cls(**{name: document[name] for name in cls.__slots__})
        except (ValueError, KeyError, TypeError) as error:
            raise OtherRunError(f"{KEY} is not one of this version's ({error!r}); choose another --output") from error

    def metadata(self) -> dict[str, Any]:
        """What every written table says of its making."""
        return {"fingerprint": dict(self.fingerprint), "source": dict(self.source), "layout": self.layout}

    def compared(self) -> dict[str, Any]:
        """What must not change, as flat keys."""
        found = dict(
            _flatten(
                {
                    "fingerprint": self.fingerprint,
                    "source": self.source,
                    "method": self.method,
                    "layout": self.layout,
                    "rows_per_unit": self.rows_per_unit,
                }
            )
        )
        if "fingerprint.weights_sha256" in found:
            for key in _INFORMATIVE:
                found.pop(key, None)
        return found


def read_record(store: Store) -> RunRecord | None:
    """The record of an output; None for a new one."""
    try:
        return RunRecord.from_bytes(store.get(KEY))
    except FileNotFoundError:
        return None


def claim(store: Store, record: RunRecord) -> RunRecord:
    """Write ``record``, or find that the output belongs to an equal run. Returns the one that is stored.

    Raises:
        OtherRunError: it belongs to another run; the message lists what differs.
    """
    found = compare(store, record)
    if found is not None:
        return found
    record = _as_stored(record)
    if store.create(KEY, record.to_bytes()):
        return record
    return compare(store, record) or record  # another process came first


def compare(store: Store, record: RunRecord) -> RunRecord | None:
    """The record that is stored, if it is of an equal run; None for a new output. Nothing is written.

    Raises:
        OtherRunError: it is of another run; the message lists what differs.
    """
    stored = read_record(store)
    if stored is not None:
        refuse_difference(store, stored.compared(), _as_stored(record).compared())
    return stored


def _as_stored(record: RunRecord) -> RunRecord:
    """As JSON has it, so that both sides compare."""
    return RunRecord.from_bytes(record.to_bytes())


def confirm_writable(store: Store, record: RunRecord) -> None:
    """Raise StoreError unless the store would take an object: ask it to create one that is there already."""
    store.create(KEY, record.to_bytes())


def refuse_difference(store: Store, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise OtherRunError unless both say the same."""
    keys = sorted(key for key in {*stored, *asked} if stored.get(key) != asked.get(key))
    if not keys:
        return
    width = max(len(key) for key in keys)
    lines = "\n".join(f"  {key:<{width}}  {_show(stored.get(key))} → {_show(asked.get(key))}" for key in keys)
    raise OtherRunError(
        f"output {store.root} was begun by a run that differs (its value → the value asked for now):\n{lines}\n"
        f"Scores of both must not mix. Repeat the run with the first values, choose another --output, or "
        "give --force-new-run to begin in a new folder beside it."
    )


def _flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _show(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
