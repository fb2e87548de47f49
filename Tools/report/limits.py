"""What healthy data keeps within: a limits file, and which of its limits some numbers break.

A file is {"path.to.number": {"min": x, "max": y, "rows_at_least": n, "rows_in": "path.to.rows", "why": sentence}} with
`min` or `max` at least. With fewer rows than `rows_at_least` in `rows_in` (default: `rows`) it is not checked.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError

DEFAULT_LIMITS = Path(__file__).parents[1] / "dataset_limits.json"


@dataclass(frozen=True)
class Limit:
    """One limit on the number at `path`."""

    path: str
    min: float | None = None
    max: float | None = None
    rows_at_least: int = 0
    rows_in: str = "rows"
    why: str = ""


@dataclass(frozen=True)
class Broken:
    """A limit and the number that is beyond it."""

    limit: Limit
    value: float

    @property
    def sentence(self) -> str:
        limit = self.limit
        side, bound = ("under", limit.min) if limit.min is not None and self.value < limit.min else ("over", limit.max)
        why = f": {limit.why}" if limit.why else ""
        return f"{limit.path} is {self.value:.4g}, {side} the limit {bound:g}{why}"

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, **asdict(self.limit)}


@dataclass(frozen=True)
class NotChecked:
    """A limit that says nothing about these rows, and why."""

    limit: Limit
    why: str

    @property
    def sentence(self) -> str:
        return f"{self.limit.path} was not checked: {self.why}"


def load_limits(path: Path, of_no_rows: Mapping[str, Any]) -> list[Limit]:
    """Read a limits file; `of_no_rows` are numbers that have every key. Raises UsageError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the limits {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the limits {path} are no JSON: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f'the limits {path} are no object of limits such as {{"rows": {{"min": 1}}}}')
    known, tables = list(flat(of_no_rows)), tuple(open_tables(of_no_rows))
    limits = [_limit_from(f"the limits {path}, {name}", name, entry) for name, entry in data.items()]
    for name in [name for limit in limits for name in (limit.path, limit.rows_in)]:
        if name not in known and not name.startswith(tables):
            nearest = max(known, key=lambda one: difflib.SequenceMatcher(None, one, name).ratio())
            raise UsageError(f"the limits {path}: there is no number {name}; the nearest is {nearest}. See --json")
    return limits


_KINDS = {"min": int | float, "max": int | float, "rows_at_least": int, "rows_in": str, "why": str}


def _limit_from(where: str, path: str, entry: Any) -> Limit:
    if not isinstance(entry, dict) or not entry.keys() & {"min", "max"}:
        raise UsageError(f'{where}: a limit is an object with "min" or "max"')
    for key, value in entry.items():
        if key not in _KINDS:
            raise UsageError(f"{where}: unknown key {key}; known are {', '.join(_KINDS)}")
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise UsageError(f'{where}: "{key}" is {value!r}, not a {"text" if _KINDS[key] is str else "number"}')
    return Limit(path, **entry)


def judge(limits: Sequence[Limit], numbers: Mapping[str, Any]) -> tuple[list[Broken], list[NotChecked]]:
    """The limits that the numbers break, and those that could not be checked."""
    values, broken, not_checked = flat(numbers), [], []
    for limit in limits:
        value, rows = values.get(limit.path), values.get(limit.rows_in) or 0
        if rows < limit.rows_at_least:
            not_checked.append(NotChecked(limit, f"{limit.rows_in} is {rows:g}, fewer than {limit.rows_at_least}"))
        elif value is None:
            not_checked.append(NotChecked(limit, "these rows do not tell it"))
        elif (limit.min is not None and value < limit.min) or (limit.max is not None and value > limit.max):
            broken.append(Broken(limit, value))
    return broken, not_checked


def flat(numbers: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Every number by its path, such as `labels.kto.desirable_weight`; texts and lists are left out."""
    found: dict[str, Any] = {}
    for key, value in numbers.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{before}{key}."))
        elif value is None or isinstance(value, int | float):
            found[f"{before}{key}"] = value
    return found


def open_tables(numbers: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Paths of the tables whose keys depend on the rows, in the numbers of no rows: empty ones."""
    for key, value in numbers.items():
        if isinstance(value, Mapping):
            yield from [f"{before}{key}."] if not value else open_tables(value, f"{before}{key}.")
