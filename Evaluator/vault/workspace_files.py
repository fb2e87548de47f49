"""The server's workspace files in a vault on disk: `.workspaces/<id>.json` with sessions, states and traces in each.

They come from outside, so every field that a tool reads is brought to its type; what has no id and name is left out.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from Evaluator.vault.state import Vault

FOLDER = ".workspaces"

_WORKSPACE = {
    "name": "", "description": "", "rootFolder": "", "purpose": "", "currentGoal": "", "keyFiles": [""],
    "preferences": "", "created": 0, "lastAccessed": 0,
}  # fmt: skip
_SESSION = {"name": "", "description": "", "sessionGoal": "", "created": 0}
_STATE = {
    "name": "", "description": "", "sessionId": "", "tags": [""], "conversationContext": "", "activeTask": "",
    "activeFiles": [""], "nextSteps": [""], "reasoning": "", "created": 0,
}  # fmt: skip
_TRACE = {"sessionId": "", "tool": "", "content": "", "timestamp": 0}
_YEAR_3000_MS = 32_503_680_000_000
_WORKFLOW = {"name": "", "when": "", "steps": ""}


def add_workspaces(vault: Vault, folder: Path) -> None:
    """Add the records of all workspace files below `folder`. Raises OSError."""
    for path in sorted((folder / FOLDER).glob("*.json")):
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict) and isinstance(data.get("id"), str) and isinstance(data.get("name"), str):
            _add(vault, data)


def _add(vault: Vault, data: Mapping[str, Any]) -> None:
    key = data["id"]
    workflows = [_typed(one, _WORKFLOW) for one in _list(data.get("workflows")) if isinstance(one, dict)]
    agent = data.get("dedicatedAgentId")
    extra = {"workflows": workflows, "dedicatedAgentId": agent if isinstance(agent, str) else None}
    vault.workspaces[key] = {"id": key, **_typed(data, _WORKSPACE), **extra}
    for table, fields in (("sessions", _SESSION), ("states", _STATE), ("traces", _TRACE)):
        for record in _records(data.get(table)):
            getattr(vault, table)[record["id"]] = {"id": record["id"], "workspaceId": key, **_typed(record, fields)}


def _records(value: Any) -> Iterator[Mapping[str, Any]]:
    """The records of a list, or of an object by id."""
    for one in value.values() if isinstance(value, dict) else _list(value):
        if isinstance(one, dict) and isinstance(one.get("id"), str):
            yield one


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _typed(record: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The named fields with values of the type of their default; a default [""] stands for a list of strings.

    Whole numbers are times in ms since 1970. What is no such time, microseconds for instance, gives way to the default
    too; after the year 3000 Windows knows none.
    """
    typed = {}
    for name, default in fields.items():
        value = record.get(name)
        if default == [""]:
            typed[name] = [one for one in _list(value) if isinstance(one, str)]
        elif type(value) is type(default) and (not isinstance(value, int) or 0 <= value < _YEAR_3000_MS):
            typed[name] = value
        else:
            typed[name] = default
    return typed
