"""The commandManager tools: Obsidian's commands, of which the stand-in has a fixed list."""

from Evaluator.vault.replies import Caller, Data, Handler, ToolError
from Evaluator.vault.state import Vault

COMMANDS = {
    "app:open-settings": "Open settings",
    "app:reload": "Reload app without saving",
    "app:toggle-left-sidebar": "Toggle left sidebar",
    "app:toggle-right-sidebar": "Toggle right sidebar",
    "backlink:open": "Show backlinks",
    "command-palette:open": "Open command palette",
    "daily-notes": "Open today's daily note",
    "daily-notes:goto-next": "Open next daily note",
    "daily-notes:goto-prev": "Open previous daily note",
    "editor:export-pdf": "Export to PDF",
    "editor:fold-all": "Fold all headings and lists",
    "editor:insert-table": "Insert table",
    "editor:save-file": "Save current file",
    "editor:toggle-bold": "Toggle bold",
    "editor:toggle-source": "Toggle source mode",
    "editor:unfold-all": "Unfold all headings and lists",
    "file-explorer:new-file": "Create new note",
    "file-explorer:new-folder": "Create new folder",
    "global-search:open": "Search in all files",
    "graph:open": "Open graph view",
    "graph:open-local": "Open local graph",
    "outline:open": "Show outline",
    "random-note": "Open random note",
    "templates:insert-template": "Insert template",
    "word-count:show": "Show word count",
    "workspace:close": "Close current tab",
    "workspace:export-layout": "Export workspace layout",
    "workspace:new-tab": "New tab",
    "workspace:split-horizontal": "Split down",
    "workspace:split-vertical": "Split right",
}


def list_commands(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """The filter is a substring of the name or the id, in any case."""
    wanted = arguments.get("filter", "").lower()
    found = [{"id": key, "name": name} for key, name in COMMANDS.items() if wanted in key or wanted in name.lower()]
    return {"commands": found, "total": len(found)}


def execute_command(vault: Vault, arguments: Data, caller: Caller) -> Data:
    key = arguments["commandId"]
    if not key:
        raise ToolError("Command ID is required")
    if key not in COMMANDS:
        raise ToolError(f"Command with ID {key} not found")
    vault.requests[len(vault.requests)] = {"kind": "command", "commandId": key}
    return {"commandId": key}


TOOLS: dict[str, Handler] = {
    "commandManager_listCommands": list_commands,
    "commandManager_executeCommand": execute_command,
}
ANSWERS = {"commandManager_listCommands": ("commands[].id",)}
