"""The contentManager tools: the text of notes.

Each operation is a function of (vault, path, arguments); the single tools and batchContent share them and differ in
how they clean the path.
"""

import re
from collections.abc import Callable
from typing import Any

from Evaluator.vault.matching import fuzzy_match
from Evaluator.vault.paths import file_path
from Evaluator.vault.replies import Caller, Data, Handler, ToolError
from Evaluator.vault.state import Vault

MAX_LENGTH = 10_000_000
"""Characters in a file. A replacement that would make more fails, as it does in the server, only earlier."""


def read(vault: Vault, path: str, arguments: Data) -> Data:
    """A range only where both offset and limit are given: lines offset..offset+limit-1, counted from 1."""
    text = _text(vault, path, "Error reading content: Error reading file: ")
    numbered = arguments.get("includeLineNumbers", False)
    data: dict[str, Any] = {"content": text, "filePath": path, "lineNumbersIncluded": numbered}
    offset, limit = arguments.get("offset"), arguments.get("limit")
    first, lines = 1, text.split("\n")
    if offset is not None and limit is not None:
        first, last = int(offset), int(offset) + int(limit) - 1
        if first > last:
            raise ToolError("Error reading content: Error reading lines: Start line cannot be greater than end line")
        lines = lines[max(0, first - 1) : max(0, last)]
        data.update(content="\n".join(lines), startLine=first, endLine=last)
    if numbered:
        data["content"] = "\n".join(f"{number}: {line}" for number, line in enumerate(lines, start=max(1, first)))
    return data


def create(vault: Vault, path: str, arguments: Data) -> Data:
    failure = "Error creating file: Error creating file: "
    if not path:
        raise ToolError("File path is required")
    if vault.has(path):
        raise ToolError(f"{failure}File already exists: {path}")
    if vault.is_under_a_note(path):
        raise ToolError(f"{failure}ENOTDIR: not a directory, '{path}'")
    vault.write(path, arguments["content"])
    return {"filePath": path, "created": vault.now_ms}


def append(vault: Vault, path: str, arguments: Data) -> Data:
    """Exact concatenation: no line break is added."""
    failure = "Error appending content: Error appending to file: "
    length = _write(vault, path, [_text(vault, path, failure), arguments["content"]], failure)
    return {"filePath": path, "appendedLength": len(arguments["content"]), "totalLength": length}


def prepend(vault: Vault, path: str, arguments: Data) -> Data:
    """Exact concatenation, before any frontmatter."""
    failure = "Error prepending content: Error prepending to file: "
    length = _write(vault, path, [arguments["content"], _text(vault, path, failure)], failure)
    return {"filePath": path, "prependedLength": len(arguments["content"]), "totalLength": length}


def replace(vault: Vault, path: str, arguments: Data) -> Data:
    failure = "Error replacing content: Error replacing content: "
    count = _replace_matches(
        vault, path, arguments["oldContent"], arguments["newContent"], arguments, failure, "replace"
    )
    return {"filePath": path, "replacements": count}


def delete(vault: Vault, path: str, arguments: Data) -> Data:
    failure = "Error deleting content: Error deleting content: "
    count = _replace_matches(vault, path, arguments["content"], "", arguments, failure, "delete")
    return {"filePath": path, "deletions": count}


def _replace_matches(vault: Vault, path: str, old: str, new: str, arguments: Data, failure: str, verb: str) -> int:
    """Every exact match; without one a single fuzzy match, of which as many characters go as `old` has."""
    text = _text(vault, path, failure)
    if not old:
        raise ToolError(f"{failure}Content to {verb} cannot be empty")
    count = text.count(old)
    if count:
        return _substitute(vault, path, re.escape(old), new, failure)
    threshold = arguments.get("similarityThreshold", 0.95)
    position = fuzzy_match(text, old, threshold)
    if position < 0:
        why = f"not found in file, even with fuzzy matching at {threshold:.0%} threshold"
        raise ToolError(f"{failure}Content to {verb} {why}")
    _write(vault, path, [text[:position], new, text[position + len(old) :]], failure)
    return 1


def replace_by_line(vault: Vault, path: str, arguments: Data) -> Data:
    failure = "Error replacing lines: "
    lines = _text(vault, path, failure).split("\n")
    first, last = int(arguments["startLine"]), int(arguments["endLine"])
    if first > last:
        raise ToolError(f"{failure}Start line cannot be greater than end line")
    start, end = min(max(0, first - 1), len(lines)), min(max(0, last), len(lines))
    _write(vault, path, ["\n".join([*lines[:start], *arguments["newContent"].split("\n"), *lines[end:]])], failure)
    return {"filePath": path, "linesReplaced": end - start}


def find_replace(vault: Vault, path: str, arguments: Data) -> Data:
    """Literal text; the first match only unless replaceAll. No match is a success with 0 replacements."""
    failure = "Error in find and replace: "
    _text(vault, path, failure)
    find, new = arguments["findText"], arguments["replaceText"]
    pattern, flags = found_by(find, arguments)
    at_most = 0 if arguments.get("replaceAll") else 1
    count = _substitute(vault, path, pattern, new, failure, flags, at_most) if find else 0
    return {"filePath": path, "replacements": count, "findText": find, "replaceText": new}


def found_by(find: str, options: Data) -> tuple[str, re.RegexFlag]:
    """The pattern and flags that find a literal text with the options wholeWord and caseSensitive.

    Where a word ends is decided by ASCII letters alone, as in JavaScript.
    """
    pattern = rf"(?a:\b){re.escape(find)}(?a:\b)" if options.get("wholeWord") else re.escape(find)
    return pattern, re.NOFLAG if options.get("caseSensitive", True) else re.IGNORECASE


def _substitute(
    vault: Vault, path: str, pattern: str, new: str, failure: str, flags: re.RegexFlag = re.NOFLAG, at_most: int = 0
) -> int:
    """Replace up to `at_most` matches (0: all) and return how many; the replacement as JavaScript reads it."""
    text = vault.notes[path].text
    matches = [
        match for _, match in zip(range(at_most or len(text) + 1), re.finditer(pattern, text, flags), strict=False)
    ]
    pieces, end, length = [], 0, len(text)
    for match in matches:
        made = _expand(new, match)
        length += len(made)
        if length > MAX_LENGTH:
            raise ToolError(f"{failure}Invalid string length")
        pieces += [text[end : match.start()], made]
        end = match.end()
    if matches:
        _write(vault, path, [*pieces, text[end:]], failure)
    return len(matches)


def _expand(new: str, match: re.Match[str]) -> str:
    """A replacement as String.replace reads it: $$, $&, $` and $' are special."""
    if "$" not in new:
        return new
    meanings = {
        "$$": lambda: "$",
        "$&": match.group,
        "$`": lambda: match.string[: match.start()],
        "$'": lambda: match.string[match.end() :],
    }
    return re.sub(r"\$[$&`']", lambda found: meanings[found.group()](), new)


def batch_content(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Operations in order; a failed one does not stop the later ones, and the outer success stays true."""
    results = []
    for step in arguments["operations"]:
        parameters = step["params"]
        entry: dict[str, Any] = {"success": True, "type": step["type"], "filePath": parameters["filePath"]}
        try:
            entry["data"] = _OPERATIONS[step["type"]](vault, file_path(parameters["filePath"]), parameters)
        except ToolError as error:
            entry.update(success=False, error=str(error))
        results.append(entry)
    return {"results": results}


def _text(vault: Vault, path: str, failure: str) -> str:
    if vault.has_folder(path):
        raise ToolError(f"{failure}Not a file: {path}")
    if path not in vault.notes:
        raise ToolError(f"{failure}File not found: {path}")
    return vault.notes[path].text


def _write(vault: Vault, path: str, pieces: list[str], failure: str) -> int:
    """Write a note from its pieces and return its length."""
    length = sum(map(len, pieces))
    if length > MAX_LENGTH:
        raise ToolError(f"{failure}Invalid string length")
    vault.write(path, "".join(pieces))
    return length


_OPERATIONS: dict[str, Callable[[Vault, str, Data], Data]] = {
    "read": read,
    "create": create,
    "append": append,
    "prepend": prepend,
    "replace": replace,
    "replaceByLine": replace_by_line,
    "delete": delete,
    "findReplace": find_replace,
}


def _tool(operation: str, *, markdown: bool) -> Handler:
    """The tool of one operation; with `markdown` a path without an extension gets `.md`."""

    def run(vault: Vault, arguments: Data, caller: Caller) -> Data:
        return _OPERATIONS[operation](vault, file_path(arguments["filePath"], markdown=markdown), arguments)

    return run


TOOLS: dict[str, Handler] = {
    "contentManager_readContent": _tool("read", markdown=True),
    "contentManager_createContent": _tool("create", markdown=True),
    "contentManager_appendContent": _tool("append", markdown=True),
    "contentManager_prependContent": _tool("prepend", markdown=True),
    "contentManager_replaceContent": _tool("replace", markdown=True),
    "contentManager_replaceByLine": _tool("replaceByLine", markdown=False),
    "contentManager_deleteContent": _tool("delete", markdown=True),
    "contentManager_findReplaceContent": _tool("findReplace", markdown=False),
    "contentManager_batchContent": batch_content,
}
ANSWERS = {"contentManager_readContent": ("content",), "contentManager_batchContent": ("results[].data.content",)}
