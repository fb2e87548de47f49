"""What the arms make of a round's rows: the true ones, other labels, the prompts with both labels."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.rows import BadLine, Row, read_rows
from Trainers.experiments.arms import CONTESTED, FIELDS, SHUFFLED, TRUE

FIELD_CHECKS = ("parse", "tool", "context", "parameters")
"""What a validator of fields alone sees: a call that can be read, of a known tool, with fields as its schema says."""


def read_labelled(files: Sequence[str]) -> list[Row]:
    """All rows of the files. Raises UsageError where a line holds none, or one without a label."""
    rows = []
    for row in read_rows(files):
        if isinstance(row, BadLine):
            raise UsageError(f"{row.where}: {row.why}")
        if row.label is None:
            raise UsageError(f"{row.where}: a row without a label")
        rows.append(row)
    return rows


def true_rows(rows: Sequence[Row], seed: int) -> Iterable[dict[str, Any]]:
    """Rejection sampling: the right ones."""
    return [dict(row.data) for row in rows if row.label]


def with_shuffled_labels(rows: Sequence[Row], seed: int) -> Iterable[dict[str, Any]]:
    """The same rows and the same labels, each on a row drawn by chance."""
    labels = [row.label for row in rows]
    random.Random(f"{seed}:labels").shuffle(labels)
    return [{**row.data, "label": label} for row, label in zip(rows, labels, strict=True)]


def with_field_labels(rows: Sequence[Row], seed: int) -> Iterable[dict[str, Any]]:
    """The same rows, true where none of FIELD_CHECKS failed: whatever the call is about, and whether it works.

    Raises UsageError for a row whose metadata has no checks.
    """
    return [{**row.data, "label": is_well_formed(row)} for row in rows]


def is_well_formed(row: Row) -> bool:
    checks = row.metadata.get("checks")
    if not isinstance(checks, dict) or checks.get("parse") is None:
        raise UsageError(f"{row.where}: the metadata says nothing of checks")
    return not any(checks.get(name) is False for name in FIELD_CHECKS)


def contested(rows: Sequence[Row], seed: int) -> Iterable[dict[str, Any]]:
    """Rows of the prompts that have right and wrong answers."""
    labels: dict[str, set[bool | None]] = {}
    for row in rows:
        labels.setdefault(_prompt_of(row), set()).add(row.label)
    return [dict(row.data) for row in rows if len(labels[_prompt_of(row)]) == 2]


def _prompt_of(row: Row) -> str:
    return repr([message.to_dict() for message in row.messages[:-1]])


CHANGES: dict[str, Callable[[Sequence[Row], int], Iterable[dict[str, Any]]]] = {
    TRUE: true_rows,
    SHUFFLED: with_shuffled_labels,
    FIELDS: with_field_labels,
    CONTESTED: contested,
}
