"""The memoryManager tools: workspaces, sessions and states."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from Evaluator.vault.paths import folder_path
from Evaluator.vault.replies import Caller, Data, Handler, ToolError
from Evaluator.vault.state import DEFAULT_WORKSPACE, Record, Vault, base_name, parent

KEY_FILES = ("index.md", "readme.md", "summary.md", "moc.md", "overview.md")
"""Names (in any case) that a new workspace takes over from its root folder as key files."""
CHANGEABLE = (
    "name", "description", "rootFolder", "relatedFolders", "relatedFiles", "associatedNotes", "keyFileInstructions",
    "preferences", "projectPlan", "context", "activityHistory", "checkpoints", "completionStatus",
)  # fmt: skip
"""First parts of the field paths that updateWorkspace accepts."""
_MAX_PATH_PARTS = 20


# -- workspaces ---------------------------------------------------------------------------------------------------


def create_workspace(vault: Vault, arguments: Data, caller: Caller) -> Data:
    empty = [key for key in ("name", "rootFolder", "purpose", "currentGoal") if not arguments[key].strip()]
    if empty:
        raise ToolError("Validation error - " + ", ".join(f"{key}: is required" for key in empty))
    root = folder_path(arguments["rootFolder"], "Failed to create workspace: ")
    _make_root(vault, root)
    found = [path for path in vault.notes if parent(path) == root and base_name(path).lower() in KEY_FILES]
    key = vault.new_id("ws")
    record = {
        "id": key,
        "name": arguments["name"],
        "description": arguments.get("description", ""),
        "rootFolder": root,
        "purpose": arguments["purpose"],
        "currentGoal": arguments["currentGoal"],
        "workflows": arguments["workflows"],
        "keyFiles": [*arguments.get("keyFiles", ()), *found],
        "preferences": arguments.get("preferences", ""),
        "relatedFolders": arguments.get("relatedFolders", []),
        "relatedFiles": arguments.get("relatedFiles", []),
        "keyFileInstructions": arguments.get("keyFileInstructions", ""),
        "dedicatedAgentId": arguments.get("dedicatedAgentId"),
        "created": vault.now_ms,
        "lastAccessed": vault.now_ms,
    }
    vault.workspaces[key] = record
    return {"workspaceId": key, "workspace": record, "validationPrompt": "Check the workspace with the user."}


def _make_root(vault: Vault, root: str) -> None:
    if root in vault.notes or vault.is_under_a_note(root):
        raise ToolError(f"Failed to create workspace: Path exists but is not a folder: {root}")
    vault.make_folder(root)


def list_workspaces(vault: Vault, arguments: Data, caller: Caller) -> Data:
    key = arguments.get("sortBy", "name")
    default_order = "asc" if key == "name" else "desc"
    records = sorted(
        vault.workspaces.values(), key=lambda one: str(one.get(key) or "") if key == "name" else one.get(key) or 0
    )
    if arguments.get("order", default_order) == "desc":
        records.reverse()
    shown = [
        {key: one.get(key, "") for key in ("id", "name", "description", "rootFolder", "lastAccessed")}
        | {"status": "active"}
        for one in _limited(records, arguments)
    ]
    return {"workspaces": shown}


def load_workspace(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """A briefing; it also notes the time of access. Found by id only."""
    key, limit = arguments["id"], int(arguments.get("limit", 3))
    if key not in vault.workspaces:
        raise ToolError(f"Workspace with ID '{key}' not found")
    record = vault.workspaces[key] = {**vault.workspaces[key], "lastAccessed": vault.now_ms}
    inside = sorted(path for path in vault.inside(record.get("rootFolder", "")) if path in vault.notes)
    recent = sorted(inside, key=lambda path: -vault.notes[path].modified)[:5]
    traces = [one["content"] for one in vault.traces.values() if one["workspaceId"] == key]
    data: dict[str, Any] = {
        "context": {
            **{field: record.get(field, "") for field in ("name", "description", "purpose", "rootFolder")},
            "recentActivity": traces[:limit],
        },
        "workflows": [f"**{one['name']}** ({one['when']}):\n{one['steps']}" for one in record.get("workflows", ())],
        "workspaceStructure": inside,
        "recentFiles": [{"path": path, "modified": vault.notes[path].modified} for path in recent],
        "keyFiles": {base_name(path): path for path in record.get("keyFiles", ())},
        "preferences": str(record.get("preferences", "")),
        "sessions": [_brief(one, ("description",)) for one in _of_workspace(vault.sessions, key)[:limit]],
        "states": [
            _brief(one, ("description", "sessionId", "tags")) for one in _of_workspace(vault.states, key)[:limit]
        ],
    }
    agent = vault.agents.get(record.get("dedicatedAgentId") or "")
    if agent:
        data["agent"] = {"id": agent["id"], "name": agent["name"], "systemPrompt": agent["prompt"]}
    return data


def _brief(record: Record, more: Sequence[str]) -> dict[str, Any]:
    return {key: record[key] for key in ("id", "name", "created", *more) if record.get(key) is not None}


def update_workspace(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Set one field by its path, such as `context.goals[0]`. The same value again is a success without effect."""
    key, path, value = arguments["workspaceId"], arguments["fieldPath"], arguments["newValue"]
    if key not in vault.workspaces:
        raise ToolError(f"Workspace with ID {key} not found")
    parts = re.findall(r"\w+", path)
    if not parts or parts[0] not in CHANGEABLE or len(parts) > _MAX_PATH_PARTS:
        raise ToolError(f"Invalid field path: {path}. Allowed: {', '.join(CHANGEABLE)}")
    old = vault.workspaces[key]
    record = _with_value(old, parts, value, path)
    if parts == ["rootFolder"]:
        if not isinstance(value, str):
            raise ToolError("Invalid field path: rootFolder takes a path")
        record = {**record, "rootFolder": folder_path(value, "Failed to update workspace: ")}
        _make_root(vault, record["rootFolder"])
    updated = record != old
    if updated:
        vault.workspaces[key] = record
    answer = {"workspaceId": key, "updated": updated, "fieldPath": path, "newValue": value, "workspace": record}
    return {**answer, "oldValue": old.get(parts[0]) if len(parts) == 1 else None}


def _with_value(holder: Any, parts: Sequence[str], value: Any, path: str) -> Any:
    """A copy of `holder` with the value at `parts`; missing objects on the way are made."""
    if not parts:
        return value
    if isinstance(holder, list):
        if not parts[0].isdecimal() or int(parts[0]) > len(holder):
            raise ToolError(f"Invalid field path: {path}")
        index = int(parts[0])
        inner = holder[index] if index < len(holder) else {}
        return [*holder[:index], _with_value(inner, parts[1:], value, path), *holder[index + 1 :]]
    fields = dict(holder) if isinstance(holder, Mapping) else {}
    return {**fields, parts[0]: _with_value(fields.get(parts[0], {}), parts[1:], value, path)}


# -- sessions -----------------------------------------------------------------------------------------------------


def create_session(vault: Vault, arguments: Data, caller: Caller) -> Data:
    workspace = _workspace_of_call(vault, arguments, caller)
    record = _new_session(
        vault,
        arguments.get("name") or f"Session {_date(vault.now_ms)}",
        workspace,
        key=arguments.get("newSessionId"),
        description=arguments.get("description", ""),
        sessionGoal=arguments.get("sessionGoal", ""),
        previousSessionId=arguments.get("previousSessionId"),
        tags=arguments.get("tags", []),
        contextDepth=arguments.get("contextDepth", "standard"),
    )
    shown = {"summary": record["description"], "associatedNotes": [], "sessionCreatedAt": _date(vault.now_ms)}
    return {"sessionId": record["id"], **_named(record), "sessionContext": shown}


def _new_session(vault: Vault, name: str, workspace: str, key: str | None = None, **more: Any) -> Record:
    key = key if key and key not in vault.sessions else vault.new_id("session")
    record = {"id": key, "name": name, "workspaceId": workspace, "created": vault.now_ms, **more}
    vault.sessions[key] = record
    return record


def list_sessions(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Sorted by name, z to a unless order says asc."""
    workspace = _workspace_of_call(vault, arguments, caller)
    records = _of_workspace(vault.sessions, workspace)
    records.sort(key=lambda one: one["name"], reverse=arguments.get("order", "desc") == "desc")
    shown = [
        {"id": one["id"], **_named(one), "workspaceName": _workspace_name(vault, workspace)}
        for one in _limited(records, arguments)
    ]
    return _listing("sessions", shown, len(records), workspace, arguments)


def load_session(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Load a session and, unless told not to, begin one that continues it."""
    key = arguments.get("targetSessionId") or arguments.get("sessionId")
    if not key:
        raise ToolError("No session ID provided to load")
    if key not in vault.sessions:
        raise ToolError(f"Session not found: {key}")
    record = vault.sessions[key]
    summary = record.get("description") or record["name"]
    data: dict[str, Any] = {
        "sessionId": key,
        "name": record["name"],
        "workspaceId": record["workspaceId"],
        "startTime": record["created"],
        "isActive": True,
        "sessionContext": {"summary": summary, "associatedNotes": []},
    }
    if arguments.get("createContinuationSession", True):
        name = arguments.get("sessionName") or f'Continuation of "{record["name"]}"'
        text = arguments.get("sessionDescription", "")
        new = _new_session(vault, name, record["workspaceId"], description=text, continues=key)
        data["newSessionId"] = new["id"]
    return data


def update_session(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Only name, description and sessionGoal are changed; without an id it is the running session."""
    key = arguments.get("targetSessionId") or arguments.get("sessionId") or caller.session_id
    if key not in vault.sessions:
        raise ToolError(f"Session not found: {key}")
    changes = {field: arguments[field] for field in ("name", "description", "sessionGoal") if arguments.get(field)}
    if not changes:
        raise ToolError("No updates provided for session")
    vault.sessions[key] = {**vault.sessions[key], **changes}
    return {"sessionId": key, **_named(vault.sessions[key])}


# -- states -------------------------------------------------------------------------------------------------------

_STATE_TEXTS = ("name", "conversationContext", "activeTask", "reasoning")


def create_state(vault: Vault, arguments: Data, caller: Caller) -> Data:
    empty = [key for key in (*_STATE_TEXTS, "activeFiles", "nextSteps") if not arguments[key]]
    if empty:
        raise ToolError(f"Validation failed: {', '.join(empty)} - must not be empty")
    workspace = _workspace_of_call(vault, arguments, caller)
    key = vault.new_id("state")
    record = {
        "id": key,
        **{field: arguments[field] for field in (*_STATE_TEXTS, "activeFiles", "nextSteps")},
        "description": arguments.get("description", ""),
        "tags": arguments.get("tags", []),
        "workspaceId": workspace,
        "sessionId": arguments.get("targetSessionId") or caller.session_id,
        "created": vault.now_ms,
    }
    vault.states[key] = record
    return {
        "stateId": key,
        "name": record["name"],
        "workspaceId": workspace,
        "sessionId": record["sessionId"],
        "timestamp": vault.now_ms,
        "created": vault.now_ms,
        "summary": record["activeTask"],
        "metadata": {
            "persistenceVerified": True,
            "workspaceName": _workspace_name(vault, workspace),
            "totalActiveFiles": len(record["activeFiles"]),
            "nextStepsCount": len(record["nextSteps"]),
        },
        "capturedContext": {field: record[field] for field in ("conversationContext", "activeFiles", "nextSteps")},
    }


def list_states(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """States of the running session in its workspace, the newest first; with tags those that have any of them."""
    workspace = _workspace_of_call(vault, arguments, caller)
    wanted = set(arguments.get("tags", ()))
    session = arguments.get("targetSessionId") or arguments.get("sessionId") or caller.session_id
    records = [
        one
        for one in _of_workspace(vault.states, workspace)
        if one["sessionId"] == session and (not wanted or wanted & set(one.get("tags", ())))
    ]
    records.sort(key=lambda one: (one["created"], one["id"]), reverse=arguments.get("order", "desc") == "desc")
    shown = [_listed_state(vault, one, arguments.get("includeContext", False)) for one in _limited(records, arguments)]
    return _listing("states", shown, len(records), workspace, arguments)


def _listed_state(vault: Vault, record: Record, with_context: bool) -> dict[str, Any]:
    shown = {key: record[key] for key in ("id", "name", "workspaceId", "sessionId", "created")}
    days = (vault.now_ms - record["created"]) // 86_400_000
    shown |= {"workspaceName": _workspace_name(vault, record["workspaceId"]), "age": f"{days} days ago"}
    if with_context:
        context = {"files": list(record.get("activeFiles", ())), "tags": list(record.get("tags", ())), "traceCount": 0}
        shown["context"] = {**context, "summary": record.get("activeTask", "")}
    return shown


def load_state(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Restore a state and, unless the running session goes on, begin one from it."""
    key = arguments["stateId"]
    if key not in vault.states:
        raise ToolError(f"State not found: {key}")
    record = vault.states[key]
    data: dict[str, Any] = {
        "stateId": key,
        "name": record["name"],
        "workspaceId": record["workspaceId"],
        "sessionId": record["sessionId"],
        "created": record["created"],
        "restoredContext": {
            "summary": record.get("conversationContext", ""),
            "associatedNotes": list(record.get("activeFiles", ())),
            "stateCreatedAt": _date(record["created"]),
            "originalSessionId": record["sessionId"],
            "continuationHistory": [],
            **{field: record.get(field, "") for field in ("activeTask", "reasoning")},
            **{field: list(record.get(field, ())) for field in ("activeFiles", "nextSteps")},
            "restorationGoal": arguments.get("restorationGoal", ""),
        },
    }
    if not arguments.get("continueExistingSession"):
        name = arguments.get("sessionName") or f'Restored from "{record["name"]}"'
        text = arguments.get("sessionDescription", "")
        new = _new_session(vault, name, record["workspaceId"], description=text, restoredFrom=key)
        data["newSessionId"] = new["id"]
    return data


def update_state(vault: Vault, arguments: Data, caller: Caller) -> Data:
    key = arguments["stateId"]
    if key not in vault.states:
        raise ToolError(f"State not found: {key}")
    old = vault.states[key]
    changes: dict[str, Any] = {field: arguments[field] for field in ("name", "description") if arguments.get(field)}
    tags = [tag for tag in old.get("tags", ()) if tag not in arguments.get("removeTags", ())]
    tags = list(dict.fromkeys([*tags, *arguments.get("addTags", ())]))
    if not changes and not arguments.get("addTags") and not arguments.get("removeTags"):
        raise ToolError("No updates provided for state")
    record = vault.states[key] = {**old, **changes, "tags": tags}
    return {"stateId": key, **_named(record), "timestamp": vault.now_ms, "tags": tags}


# -- what they share ----------------------------------------------------------------------------------------------


def _workspace_of_call(vault: Vault, arguments: Data, caller: Caller) -> str:
    """The workspace that the argument workspaceContext (an object, or one as JSON) names, else that of the session."""
    scope = arguments.get("workspaceContext")
    if isinstance(scope, str):
        try:
            scope = json.loads(scope)
        except (ValueError, RecursionError):
            scope = None
    key = scope.get("workspaceId") if isinstance(scope, Mapping) else None
    key = key if key and isinstance(key, str) else caller.workspace_id
    if key != DEFAULT_WORKSPACE and key not in vault.workspaces:
        raise ToolError(f"Workspace not found: {key}")
    return key


def _of_workspace(table: Mapping[str, Record], workspace: str) -> list[Record]:
    return [one for one in table.values() if one["workspaceId"] == workspace]


def _workspace_name(vault: Vault, key: str) -> str:
    return str(vault.workspaces[key]["name"]) if key in vault.workspaces else "Default Workspace"


def _limited(records: Sequence[Record], arguments: Data) -> Sequence[Record]:
    limit = int(arguments.get("limit") or 0)
    return records[:limit] if limit > 0 else records


def _listing(name: str, shown: list[Any], total: int, workspace: str, arguments: Data) -> Data:
    filters = {key: arguments[key] for key in ("limit", "order", "tags") if key in arguments}
    return {name: shown, "total": total, "filtered": len(shown), "workspaceId": workspace, "filters": filters}


def _named(record: Record) -> dict[str, Any]:
    return {key: record.get(key) or "" for key in ("name", "description", "workspaceId")}


def _date(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


TOOLS: dict[str, Handler] = {
    "memoryManager_createSession": create_session,
    "memoryManager_listSessions": list_sessions,
    "memoryManager_loadSession": load_session,
    "memoryManager_updateSession": update_session,
    "memoryManager_createState": create_state,
    "memoryManager_listStates": list_states,
    "memoryManager_loadState": load_state,
    "memoryManager_updateState": update_state,
    "memoryManager_createWorkspace": create_workspace,
    "memoryManager_listWorkspaces": list_workspaces,
    "memoryManager_loadWorkspace": load_workspace,
    "memoryManager_updateWorkspace": update_workspace,
}
ANSWERS = {
    "memoryManager_listSessions": ("sessions[].id",),
    "memoryManager_loadSession": ("sessionId",),
    "memoryManager_listStates": ("states[].id", "states[].context.files[]"),
    "memoryManager_loadState": ("stateId", "restoredContext.restorationGoal"),
    "memoryManager_listWorkspaces": ("workspaces[].id",),
    "memoryManager_loadWorkspace": ("context.name", "sessions[].id"),
}
