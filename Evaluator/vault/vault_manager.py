"""The vaultManager tools: folders and whole files."""

from typing import Any

from Evaluator.vault.matching import name_filter
from Evaluator.vault.paths import file_path, folder_path
from Evaluator.vault.replies import Caller, Data, ToolError
from Evaluator.vault.state import Vault, base_name, parent


def create_folder(vault: Vault, arguments: Data, caller: Caller) -> Data:
    failure = "Failed to create folder: "
    path = folder_path(arguments["path"], failure)
    if not path:
        raise ToolError("Path is required")
    if path in vault.notes or vault.is_under_a_note(path):
        raise ToolError(f"{failure}Path exists but is not a folder: {path}")
    existed = vault.has_folder(path)
    vault.make_folder(path)
    return {"path": path, "existed": existed}


def delete_folder(vault: Vault, arguments: Data, caller: Caller) -> Data:
    failure = "Failed to delete folder: "
    path = _existing_folder(vault, arguments["path"], failure)
    if not arguments.get("recursive") and any(True for _ in vault.inside(path)):
        raise ToolError(f"{failure}Folder is not empty: {path}")
    vault.remove_tree(path)
    return {"path": path}


def delete_note(vault: Vault, arguments: Data, caller: Caller) -> Data:
    path = _existing_file(
        vault, file_path(arguments["path"], "Failed to delete note: ", markdown=True), "Failed to delete note: "
    )
    del vault.notes[path]
    return {"path": path}


def duplicate_note(vault: Vault, arguments: Data, caller: Caller) -> Data:
    failure = "Failed to duplicate note: "
    source, target = file_path(arguments["sourcePath"], failure), file_path(arguments["targetPath"], failure)
    for path, name in ((source, "Source"), (target, "Target")):
        if not path:
            raise ToolError(f"{name} path is required")
    _existing_file(vault, source, f"{failure}Source ", "file not found", "path is not a file")
    was_there, was_incremented = vault.has(target), False
    if was_there and arguments.get("autoIncrement"):
        target, was_incremented = _free_name(vault, target), True
    elif was_there and (not arguments.get("overwrite") or vault.has_folder(target)):
        raise ToolError(f"{failure}Target file already exists: {target}")
    _refuse_file_as_parent(vault, target, failure)
    vault.write(target, vault.notes[source].text)
    return {
        "sourcePath": source,
        "targetPath": target,
        "wasAutoIncremented": was_incremented,
        "wasOverwritten": was_there and not was_incremented,
    }


def _free_name(vault: Vault, path: str) -> str:
    stem, dot, extension = path.rpartition(".")
    if not dot or "/" in extension:
        stem, dot, extension = path, "", ""
    count = 1
    while vault.has(candidate := f"{stem} copy{f' {count}' if count > 1 else ''}{dot}{extension}"):
        count += 1
    return candidate


def edit_folder(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """A plain rename on disk: it makes no parents and asks nothing; what the system refuses is the error."""
    failure = "Failed to rename folder: "
    path, new_path = folder_path(arguments["path"], failure), folder_path(arguments["newPath"], failure)
    for given, name in ((path, "Path"), (new_path, "New path")):
        if not given:
            raise ToolError(f"{name} is required")
    why = _why_not_renamed(vault, path, new_path)
    if why:
        raise ToolError(f"{failure}{why}, rename '{path}' -> '{new_path}'")
    if new_path != path:
        vault.folders.pop(new_path, None)
        vault.move_tree(path, new_path)
    return {"path": path, "newPath": new_path}


def _why_not_renamed(vault: Vault, path: str, new_path: str) -> str | None:
    if not vault.has(path) or not vault.has_folder(parent(new_path)):
        return "ENOENT: no such file or directory"
    if new_path.startswith(f"{path}/"):
        return "EINVAL: invalid argument"
    if new_path != path and vault.has_folder(new_path):
        if path in vault.notes:
            return "EISDIR: illegal operation on a directory"
        if any(True for _ in vault.inside(new_path)):
            return "ENOTEMPTY: directory not empty"
    if new_path in vault.notes and path in vault.folders:
        return "ENOTDIR: not a directory"
    return None


def move_folder(vault: Vault, arguments: Data, caller: Caller) -> Data:
    failure = "Failed to move folder: "
    path = _existing_folder(vault, arguments["path"], failure)
    new_path = folder_path(arguments["newPath"], failure)
    if new_path.startswith(f"{path}/"):
        raise ToolError(f"{failure}EINVAL: invalid argument, rename '{path}' -> '{new_path}'")
    _move(vault, path, new_path, arguments, failure)
    return {"path": path, "newPath": new_path}


def move_note(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Links in other notes stay as they are."""
    failure = "Failed to move note: "
    path = _existing_file(vault, file_path(arguments["path"], failure), failure)
    new_path = file_path(arguments["newPath"], failure)
    _move(vault, path, new_path, arguments, failure)
    return {"path": path, "newPath": new_path}


def _move(vault: Vault, path: str, new_path: str, arguments: Data, failure: str) -> None:
    is_kept = new_path == path or path.startswith(f"{new_path}/")  # overwriting it would delete what is moved
    if vault.has(new_path) and (is_kept or not arguments.get("overwrite")):
        raise ToolError(f"{failure}Destination already exists: {new_path}")
    _refuse_file_as_parent(vault, new_path, failure)
    if vault.has(new_path):
        vault.remove_tree(new_path)
    vault.make_folder(parent(new_path))
    vault.move_tree(path, new_path)


def open_note(vault: Vault, arguments: Data, caller: Caller) -> Data:
    path = file_path(arguments["path"], markdown=True)
    if not path:
        raise ToolError("Path is required")
    if path not in vault.notes:
        raise ToolError(f"Note not found at path: {path}")
    mode = arguments.get("mode", "current")
    vault.opened[len(vault.opened)] = {"path": path, "mode": mode, "focus": arguments.get("focus", True)}
    return {"path": path, "opened": True, "mode": mode}


def list_directory(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """`depth` 0 lists the direct children, n those n levels further down; filesOnly wins over foldersOnly."""
    failure = "Failed to list directory contents: "
    path = folder_path(arguments["path"], failure)
    if not vault.has_folder(path):
        raise ToolError(f"{failure}Folder not found at path: {path}")
    files_only, folders_only = arguments.get("filesOnly", False), arguments.get("foldersOnly", False)
    with_files = files_only or (not folders_only and arguments.get("includeFiles", True))
    with_folders = not files_only and (folders_only or arguments.get("includeFolders", True))
    slashes = path.count("/") + 1 + arguments.get("depth", 0) if path else arguments.get("depth", 0)
    fits = name_filter(arguments.get("filter"))
    listed = [one for one in vault.inside(path) if one.count("/") <= slashes and fits(base_name(one))]
    files = sorted((one for one in listed if one in vault.notes), key=lambda one: (-vault.notes[one].modified, one))
    folders = sorted((one for one in listed if one in vault.folders), key=lambda one: (base_name(one), one))
    data: dict[str, Any] = {}
    if with_files:
        data["files"] = [file_entry(vault, one) for one in files]
    if with_folders:
        data["folders"] = [{"name": base_name(one), "path": one} for one in folders]
    counts = [len(data.get("files", ())), len(data.get("folders", ()))]
    data["summary"] = {"fileCount": counts[0], "folderCount": counts[1], "totalItems": sum(counts)}
    return data


def file_entry(vault: Vault, path: str) -> dict[str, Any]:
    note = vault.notes[path]
    size = len(note.text.encode("utf-8", errors="replace"))
    return {"name": base_name(path), "path": path, "size": size, "created": note.created, "modified": note.modified}


def _existing_folder(vault: Vault, given: str, failure: str) -> str:
    path = folder_path(given, failure)
    if path in vault.notes:
        raise ToolError(f"{failure}Path is not a folder: {path}")
    if path not in vault.folders:
        raise ToolError(f"{failure}Folder not found: {path}")
    return path


def _existing_file(
    vault: Vault, path: str, failure: str, not_found: str = "File not found", no_file: str = "Path is not a file"
) -> str:
    if path in vault.folders:
        raise ToolError(f"{failure}{no_file}: {path}")
    if path not in vault.notes:
        raise ToolError(f"{failure}{not_found}: {path}")
    return path


def _refuse_file_as_parent(vault: Vault, path: str, failure: str) -> None:
    if not path or vault.is_under_a_note(path):
        raise ToolError(f"{failure}ENOTDIR: not a directory, '{path}'")


TOOLS = {
    "vaultManager_createFolder": create_folder,
    "vaultManager_deleteFolder": delete_folder,
    "vaultManager_deleteNote": delete_note,
    "vaultManager_duplicateNote": duplicate_note,
    "vaultManager_editFolder": edit_folder,
    "vaultManager_listDirectory": list_directory,
    "vaultManager_moveFolder": move_folder,
    "vaultManager_moveNote": move_note,
    "vaultManager_openNote": open_note,
}
ANSWERS = {"vaultManager_listDirectory": ("files[].path", "folders[].path", "summary.totalItems")}
