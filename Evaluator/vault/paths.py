"""Paths as the server cleans them before a tool sees them; nothing leads out of the vault."""

import re

from Evaluator.vault.replies import ToolError
from Evaluator.vault.state import base_name

_FORBIDDEN = re.compile(r'[<>:"\\|?*]')
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def file_path(path: str, failure: str = "", *, markdown: bool = False) -> str:
    """A file's path: forbidden characters become `_`, parts lose dots and spaces at their ends.

    With `markdown` a name without an extension gets `.md`. Raises ToolError, its text led by `failure`.
    """
    _refuse_escape(path, failure)
    parts = [_FORBIDDEN.sub("_", part).strip(". ") for part in path.split("/")]
    clean = "/".join(part for part in parts if part)
    return f"{clean}.md" if markdown and clean and "." not in base_name(clean) else clean


def folder_path(path: str, failure: str = "") -> str:
    """A folder's path without slashes at its ends; the root is ''. Raises ToolError, its text led by `failure`."""
    _refuse_escape(path, failure)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _refuse_escape(path: str, failure: str) -> None:
    if "\0" in path or _DRIVE.match(path) or ".." in re.split(r"[\\/]", path):
        raise ToolError(f"{failure}Invalid path: {path}")
