"""Run one tool call on a vault, as the server would: schema first, then the tool."""

from collections.abc import Mapping
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.records import ToolCall
from Evaluator.vault import (
    agent_manager,
    command_manager,
    content_manager,
    memory_manager,
    vault_librarian,
    vault_manager,
)
from Evaluator.vault.replies import Caller, Data, Handler, Reply, ToolError
from Evaluator.vault.state import DEFAULT_WORKSPACE, Vault

GET_TOOLS = "get_tools"


def get_tools(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Schemas of the named tools, of all tools of the named managers, or an overview."""
    catalog, wanted = caller.catalog, arguments.get("tools", ())
    managers = {*arguments.get("managers", ()), *arguments.get("agents", ())}
    if not wanted and not managers:
        overview: dict[str, Any] = {}
        for tool in catalog.tools.values():
            entry = overview.setdefault(tool.manager or tool.name, {"description": "", "modes": []})
            entry["modes"].append(tool.name.rpartition("_")[2])
        return {"overview": overview, "instruction": "Call get_tools with the names of the tools you need."}
    found = [tool for tool in catalog.tools.values() if tool.name in wanted or tool.manager in managers]
    if not found:
        raise ToolError(f"No valid tools found for the requested names: {', '.join([*wanted, *sorted(managers)])}")
    shown = [{"name": one.name, "description": one.summary, "inputSchema": dict(one.parameters)} for one in found]
    return {
        "tools": shown,
        "requestedTools": list(wanted),
        "toolCount": len(shown),
        "instruction": "Call them by name.",
    }


_MANAGERS = (vault_manager, content_manager, vault_librarian, memory_manager, agent_manager, command_manager)
TOOLS: Mapping[str, Handler] = {
    **{name: run for one in _MANAGERS for name, run in one.TOOLS.items()},
    GET_TOOLS: get_tools,
}
"""What each tool does."""
ANSWERS: Mapping[str, tuple[str, ...]] = {
    **{name: fields for one in _MANAGERS for name, fields in one.ANSWERS.items()},
    GET_TOOLS: ("tools[].name", "overview.vaultManager.modes[]"),
}
"""For tools that answer something: where in their data the answer stands (see goals.select)."""
_FLAT = {
    *(
        name
        for name in vault_manager.TOOLS
        if name.rpartition("_")[2] not in ("createFolder", "listDirectory", "openNote")
    ),
    *vault_librarian.TOOLS,
    GET_TOOLS,
}


def run_call(call: ToolCall, vault: Vault, catalog: Catalog, *, is_checked: bool = False) -> Reply:
    """Run a call on `vault`, which it changes, and return the reply; never raises on what a model wrote.

    `is_checked`: the arguments are known to fit the tool's schema.
    """
    arguments = {name: value for name, value in call.arguments.items() if name != CONTEXT}
    tool = catalog.tools.get(call.name)
    run = TOOLS.get(call.name)
    if tool is None or run is None:
        return Reply(call.name, None, f"Unknown tool: {call.name}")
    if not is_checked:
        known = {name: value for name, value in arguments.items() if name in tool.parameters.get("properties", {})}
        fault = next(iter(tool.validator.iter_errors(known)), None)
        if fault is not None:
            return Reply(call.name, None, f"Invalid parameters: {fault.json_path}: {str(fault.message)[:200]}")
        arguments = known
    caller = caller_of(call, catalog)
    if catalog.context and not caller.session_id:
        return Reply(call.name, None, "Session ID required: give context.sessionId")
    vault.now_ms += 1000
    try:
        data = run(vault, arguments, caller)
    except ToolError as error:
        return Reply(call.name, None, str(error), is_flat=call.name in _FLAT)
    return Reply(call.name, data, is_flat=call.name in _FLAT)


def caller_of(call: ToolCall, catalog: Catalog) -> Caller:
    context = call.arguments.get(CONTEXT)
    fields = context if isinstance(context, Mapping) else {}
    session, workspace = (fields.get(name) for name in ("sessionId", "workspaceId"))
    return Caller(
        session if isinstance(session, str) else "",
        workspace if isinstance(workspace, str) else DEFAULT_WORKSPACE,
        catalog,
    )


def begin_session(call: ToolCall, vault: Vault, catalog: Catalog) -> str | None:
    """Make the session that a call runs in, where the vault does not have it yet, as the server does; give its id."""
    caller = caller_of(call, catalog)
    if caller.session_id and caller.session_id not in vault.sessions:
        record = {"id": caller.session_id, "name": "Running session", "description": "", "sessionGoal": ""}
        vault.sessions[caller.session_id] = {**record, "workspaceId": caller.workspace_id, "created": vault.now_ms}
        return caller.session_id
    return None
