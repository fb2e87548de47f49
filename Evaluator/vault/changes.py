"""What is different between two vaults: for each table what was added, removed, changed and moved."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from Evaluator.vault.state import TABLES, Note, Record, Vault

VOLATILE = {"lastAccessed"}
"""Fields of records that any use may change; they count as no change."""


@dataclass(frozen=True)
class TableChanges:
    """Changes of one table: values by key; `changed` holds (old, new), `moved` old path -> new path."""

    added: Mapping[Any, Any] = field(default_factory=dict)
    removed: Mapping[Any, Any] = field(default_factory=dict)
    changed: Mapping[Any, tuple[Any, Any]] = field(default_factory=dict)
    moved: Mapping[str, str] = field(default_factory=dict)


Changes = Mapping[str, TableChanges]
"""The tables that differ."""


def changes_between(before: Vault, after: Vault) -> Changes:
    found = {}
    for table in TABLES:
        old, new = getattr(before, table), getattr(after, table)
        changes = None if old == new else _table_changes(old, new)  # what is shared is compared by identity: fast
        if changes:
            found[table] = changes
    return found


def _table_changes(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> TableChanges | None:
    added = {key: value for key, value in new.items() if key not in old}
    changed = {
        key: (old[key], value)
        for key, value in new.items()
        if key in old and old[key] is not value and _differ(old[key], value)
    }
    removed = {key: old[key] for key in old if key not in new} if len(old) + len(added) != len(new) else {}
    if not (added or changed or removed):
        return None
    moved = _moved(added, removed)
    return TableChanges(
        {key: value for key, value in added.items() if key not in moved.values()},
        {key: value for key, value in removed.items() if key not in moved},
        changed,
        moved,
    )


def _differ(old: Any, new: Any) -> bool:
    if isinstance(old, Note):
        return old.text != new.text
    return _lasting(old) != _lasting(new)


def _lasting(record: Record | bool) -> Any:
    if isinstance(record, bool):
        return record
    return {key: value for key, value in record.items() if key not in VOLATILE}


def _moved(added: Mapping[Any, Any], removed: Mapping[Any, Any]) -> dict[str, str]:
    """Notes that are gone and stand elsewhere: the vault moves a note's value as it is."""
    places = {id(value): key for key, value in added.items() if isinstance(value, Note)}
    return {key: places[id(value)] for key, value in removed.items() if id(value) in places}


def to_dict(changes: Changes) -> dict[str, Any]:
    """For JSON: notes as their text, changed values as {"old", "new"}."""
    return {
        table: {
            kind: {str(key): _plain(value) for key, value in getattr(one, kind).items()}
            for kind in ("added", "removed", "changed", "moved")
            if getattr(one, kind)
        }
        for table, one in changes.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"old": _plain(value[0]), "new": _plain(value[1])}
    return value.text if isinstance(value, Note) else value
