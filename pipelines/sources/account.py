"""Account for the files of an input: how many were seen, how many are read, and why the others are passed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NotRequired, TypedDict

EXAMPLES: Final = 3
"""Names that are kept for each reason."""

HIDDEN: Final = "hidden"
"""A name that starts with ``.`` or ``_``, as Spark, Hive and Arrow have it; a hidden folder counts once."""
NO_SUFFIX: Final = "without a suffix"


class Reason(TypedDict):
    """How many files were passed over for one reason, and the names of the first."""

    count: int
    examples: list[str]


class FilesAccount(TypedDict):
    """``files`` of ``_SUCCESS``: ``seen`` is the sum of ``read`` and of all counts of ``passed_over``.

    ``members_passed_over`` counts members of tar shards that belong to no sample; ``without_id`` counts files that have
    no id although others do, so that their rows are named ``<shard>#<row>``. Both are absent if there are none.
    """

    seen: int
    read: int
    passed_over: dict[str, Reason]
    members_passed_over: NotRequired[dict[str, Reason]]
    without_id: NotRequired[Reason]


class PassedOver:
    """Counts what is passed over, by reason."""

    def __init__(self) -> None:
        self._reasons: dict[str, Reason] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one name. Bytes of it that are not text are escaped."""
        self._add(reason, 1, [name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")])

    def include(self, other: Mapping[str, Reason]) -> None:
        """Count everything that another one counted."""
        for reason, found in other.items():
            self._add(reason, found["count"], found["examples"])

    def to_dict(self) -> dict[str, Reason]:
        """Return the reasons, the most frequent first."""
        return dict(sorted(self._reasons.items(), key=lambda item: (-item[1]["count"], item[0])))

    def _add(self, reason: str, count: int, names: list[str]) -> None:
        found = self._reasons.setdefault(reason, {"count": 0, "examples": []})
        found["count"] += count
        found["examples"] += names[: EXAMPLES - len(found["examples"])]


def account(read: int, passed_over: PassedOver) -> FilesAccount:
    """Return the account of an input of which ``read`` files are read."""
    reasons = passed_over.to_dict()
    return {"seen": read + sum(one["count"] for one in reasons.values()), "read": read, "passed_over": reasons}


def describe_reasons(reasons: Mapping[str, Reason]) -> str:
    """Format reasons as ``2 hidden (.gitattributes, …), 1 .txt (notes.txt)``."""
    return ", ".join(f"{one['count']:,} {reason} ({_examples(one)})" for reason, one in reasons.items())


def describe_account(files: FilesAccount) -> str:
    """Format an account in one line: ``80 of 83 files read; passed over: 2 hidden (.a, .b), 1 .txt (notes.txt)``."""
    text = f"{files['read']:,} of {files['seen']:,} files read"
    if files["passed_over"]:
        text += f"; passed over: {describe_reasons(files['passed_over'])}"
    if files.get("members_passed_over"):
        text += f"; members passed over: {describe_reasons(files['members_passed_over'])}"
    if "without_id" in files:
        reason = files["without_id"]
        count, named = reason["count"], "their rows are named SHARD#ROW"
        text += f"; {count:,} have no id, although others do: {named} ({_examples(reason)})"
    return text


def _examples(reason: Reason) -> str:
    return ", ".join([*reason["examples"], *(["…"] if reason["count"] > len(reason["examples"]) else [])])
