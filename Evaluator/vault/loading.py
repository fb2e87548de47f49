"""Where vaults come from: the bundled fixtures, or a real folder of Markdown, which is only read.

A fixture is a JSON file {"name", "now", "notes": {PATH: TEXT}, "folders": [EMPTY FOLDER], "workspaces", "sessions",
"states", "agents", "traces": [RECORD]}. Notes are taken as changed, workspaces as used a day apart, the first in the
file last; records are as old as the milliseconds in their ids say.
"""

import json
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.vault.state import RECORD_TABLES, Note, Record, Vault, parents
from Evaluator.vault.workspace_files import add_workspaces

log = logging.getLogger(__name__)
FIXTURES = Path(__file__).parent / "fixtures"
DAY_MS = 86_400_000


def fixture_names() -> list[str]:
    return sorted(path.stem for path in FIXTURES.glob("*.json"))


@lru_cache(maxsize=32)
def load_fixture(name: str) -> Vault:
    """A bundled vault, shared by all who ask: copy it before a call runs on it. Raises UsageError for unknown names."""
    if name not in fixture_names():
        raise UsageError(f"there is no vault {name!r}; known are {', '.join(fixture_names())}")
    data = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    now_ms = int(datetime.fromisoformat(data["now"].replace("Z", "+00:00")).timestamp() * 1000)
    vault = Vault(name, now_ms)
    for age, (path, text) in enumerate(data["notes"].items(), start=1):
        changed = now_ms - age * DAY_MS
        vault.notes[path] = Note(text, changed - 7 * DAY_MS, changed)
    for table in RECORD_TABLES:
        for record in data.get(table, ()):
            getattr(vault, table)[record["id"]] = _dated(table, record)
    for age, (key, record) in enumerate(vault.workspaces.items(), start=1):
        vault.workspaces[key] = {"lastAccessed": now_ms - age * DAY_MS, **record}
    _make_folders(vault, data.get("folders", ()))
    return vault


def _dated(table: str, record: Mapping[str, Any]) -> Record:
    if table == "agents":
        return record
    time_ms = int(re.search(r"\d{13}", record["id"]).group())  # type: ignore[union-attr]
    if table == "traces":
        return {"timestamp": time_ms, **record}
    return {"created": time_ms, **record}


def _make_folders(vault: Vault, empty: Iterable[str]) -> None:
    for path in [*(f"{folder}/" for folder in empty), *vault.notes]:
        vault.folders.update(dict.fromkeys(parents(path), True))


def load_folder(folder: Path) -> Vault:
    """A vault from a folder on disk; nothing there is written. Raises UsageError where it cannot be read.

    Hidden files and folders (.obsidian, .trash, .git) and links are left out, the latter with a warning; files other
    than Markdown are known by name only. Names are in NFC, as Obsidian has them, whatever form the disk keeps. The
    clock stands a day after the newest change.
    """
    if not folder.is_dir():
        raise UsageError(f"the vault {folder} is no folder")
    vault = Vault(_in_utf8(folder.name), 0)
    left_out: list[str] = []
    links: list[str] = []
    try:
        for where, names, files in os.walk(folder, onerror=_raise):
            names[:] = sorted(name for name in names if not name.startswith("."))  # where the walk goes on
            for path in (Path(where, name) for name in sorted([*names, *files]) if not name.startswith(".")):
                name = path.relative_to(folder).as_posix()
                if path.is_symlink():
                    links.append(_in_utf8(name))
                elif name == _in_utf8(name):
                    _add(vault, path, unicodedata.normalize("NFC", name))
                else:
                    left_out.append(_in_utf8(name))
        add_workspaces(vault, folder)
    except OSError as error:
        raise UsageError(f"cannot read the vault {folder}: {error}") from error
    _make_folders(vault, ())
    odd = [path for path, note in vault.notes.items() if "\ufffd" in note.text]
    for names, what in (
        (left_out, "names are not UTF-8 and are left out"),
        (links, "links are left out"),
        (odd, "notes are not UTF-8 in full"),
    ):
        if names:
            log.warning("warning: the vault %s: %d %s, the first is %s", vault.name, len(names), what, names[0])
    vault.now_ms = max((note.modified for note in vault.notes.values()), default=0) + DAY_MS
    return vault


def _in_utf8(name: str) -> str:
    """A name without the characters that stand for bytes that are no UTF-8."""
    return name.encode("utf-8", errors="replace").decode()


def _raise(error: OSError) -> None:
    raise error


def _add(vault: Vault, path: Path, name: str) -> None:
    if path.is_dir():
        vault.folders[name] = True
    elif path.is_file():
        changed = int(path.stat().st_mtime * 1000)
        text = path.read_bytes().decode("utf-8", errors="replace") if name.lower().endswith(".md") else ""
        vault.notes[name] = Note(text, changed, changed)
