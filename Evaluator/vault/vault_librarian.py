"""The vaultLibrarian tools: searching names, texts and records."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from Evaluator.vault.matching import name_filter, name_score, search_score, text_score
from Evaluator.vault.paths import folder_path
from Evaluator.vault.replies import Caller, Data, Handler, ToolError
from Evaluator.vault.state import Vault, base_name

NO_QUERY = "Query parameter is required and cannot be empty"


def search_content(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Markdown files only, one result a file, best first; `totalResults` is counted after the limit."""
    query = arguments["query"]
    if not query.strip():
        raise ToolError(NO_QUERY)
    found = _scored_notes(vault, query, arguments.get("paths"))[: int(arguments.get("limit", 10))]
    length = int(arguments.get("snippetLength", 200))
    results = []
    for score, path, method in found:
        entry: dict[str, Any] = {"filePath": path, "title": base_name(path).removesuffix(".md")}
        if arguments.get("includeContent", True):
            entry["content"] = _snippet(vault.notes[path].text, query, length)
        results.append({**entry, "score": score, "searchMethod": method, "metadata": {}})
    return {"query": query, "results": results, "totalResults": len(results), "executionTime": 1}


def _scored_notes(vault: Vault, query: str, paths: Iterable[str] | None) -> list[tuple[float, str, str]]:
    """(score, path, method) of the Markdown files under `paths` (none given: all) that match, best first."""
    starts = None if not paths else tuple(folder_path(path) for path in paths)
    found = []
    for path, note in vault.notes.items():
        if path.endswith(".md") and (starts is None or path.startswith(starts)):
            score, method = search_score(query, note.folded, base_name(path).removesuffix(".md"))
            if score:
                found.append((round(score, 3), path, method))
    return sorted(found, key=lambda one: (-one[0], one[1]))


def _snippet(text: str, query: str, length: int) -> str:
    """`length` characters around the first match, or the beginning."""
    position = max(0, text.lower().find(query.lower()) - length // 4)
    return text[position : position + length]


def search_directory(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Names and (x 0.8) paths of what lies under the given folders; `totalResults` is counted before the limit."""
    query, kind = arguments["query"], arguments.get("searchType", "both")
    roots = [folder_path(path) for path in arguments["paths"]]
    fits, days = name_filter(arguments.get("pattern")), _days(arguments.get("dateRange", {}))
    endings = tuple(f".{ending.lstrip('.').lower()}" for ending in arguments.get("fileTypes", ()))
    found = []
    for path in dict.fromkeys(path for root in roots for path in _below(vault, root, arguments.get("depth"))):
        note = vault.notes.get(path)
        name = base_name(path)
        if kind == ("folders" if note else "files") or not fits(name):
            continue
        if note and ((endings and not name.lower().endswith(endings)) or not days[0] <= note.modified <= days[1]):
            continue
        score = max(name_score(query, name), 0.8 * name_score(query, path))
        if score:
            found.append((round(score, 3), path, "file" if note else "folder"))
    found.sort(key=lambda one: (-one[0], one[1]))
    results = [
        {"path": path, "name": base_name(path), "type": type_, "score": score, "searchMethod": "fuzzy", "metadata": {}}
        for score, path, type_ in found[: int(arguments.get("limit", 20))]
    ]
    return {
        "query": query,
        "searchedPaths": list(arguments["paths"]),
        "results": results,
        "totalResults": len(found),
        "executionTime": 1,
    }


def _below(vault: Vault, root: str, depth: float | None) -> list[str]:
    deepest = float("inf") if depth is None else depth + (root.count("/") + 1 if root else 0)
    return [path for path in vault.inside(root) if path.count("/") < deepest]


def _days(span: Mapping[str, str]) -> tuple[float, float]:
    """A dateRange as ms from the start of its first day to the end of its last."""
    limits = [-float("inf"), float("inf")]
    for index, key in enumerate(("start", "end")):
        try:
            day = datetime.strptime(span[key], "%Y-%m-%d").replace(tzinfo=timezone.utc)
        except (KeyError, ValueError):
            continue
        limits[index] = (day.timestamp() + index * 86_400) * 1000 - index
    return limits[0], limits[1]


def search_memory(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Traces of one workspace that hold the query or words of it, best first."""
    query, kinds = arguments["query"], arguments.get("memoryTypes", ["traces"])
    if not query.strip():
        raise ToolError(NO_QUERY)
    first, last = _days(arguments.get("dateRange", {}))
    results = [
        result
        for result in _traces(vault, query, arguments["workspaceId"])
        if first <= result["timestamp"] <= last
        and {"traces", "toolCalls"} & set(kinds)
        and (arguments.get("searchMethod") != "exact" or query.lower() in result["content"].lower())
        and (not arguments.get("filterBySession") or result["context"]["sessionId"] == caller.session_id)
        and _fits_tool(result["tool"], arguments.get("toolCallFilters", {}))
    ][: int(arguments.get("limit", 20))]
    return {"query": query, "results": results, "totalResults": len(results), "executionTime": 1}


def _traces(vault: Vault, query: str, workspace_id: str | None) -> list[dict[str, Any]]:
    found = []
    for key, trace in vault.traces.items():
        score = text_score(query, trace["content"].lower())
        if score and workspace_id in (None, trace["workspaceId"]):
            context = {"workspaceId": trace["workspaceId"], "sessionId": trace["sessionId"]}
            shown = {"content": trace["content"], "tool": trace["tool"], "context": context, "score": round(score, 3)}
            found.append({**shown, "id": key, "timestamp": trace["timestamp"]})
    return sorted(found, key=lambda one: (-one["score"], one["id"]))


def _fits_tool(tool: str, wanted: Mapping[str, Any]) -> bool:
    agent, _, mode = tool.partition("_")
    return wanted.get("agent", agent) == agent and wanted.get("mode", mode) == mode and wanted.get("success", True)


def batch(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Universal searches: each looks through all categories and gives up to `limit` hits of each."""
    searches = arguments["searches"]
    allowed = int(arguments.get("maxConcurrency", 10))
    if len(searches) > allowed:
        raise ToolError(f"Too many searches requested. Maximum allowed: {allowed}")
    found = [{"query": one["query"], "categories": _universal(vault, one)} for one in searches]
    totals = [sum(map(len, one["categories"].values())) for one in found]
    stats = {"totalSearches": len(found), "totalResults": sum(totals), "executionTime": 1}
    if not arguments.get("mergeResults"):
        return {"searches": [{**one, "totalResults": total} for one, total in zip(found, totals, strict=True)], **stats}
    merged: dict[str, list[Any]] = {}
    for one in found:
        for category, hits in one["categories"].items():
            known = merged.setdefault(category, [])
            known += [hit for hit in hits if hit["id"] not in {other["id"] for other in known}][: 10 - len(known)]
    return {"merged": {"totalQueries": len(found), "totalResults": sum(totals), "combinedCategories": merged}, **stats}


def _universal(vault: Vault, search: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    query, limit, excluded = search["query"], int(search.get("limit", 5)), set(search.get("excludeCategories", ()))
    if not query.strip():
        raise ToolError(NO_QUERY)
    starts = tuple(folder_path(path) for path in search["paths"]) if search.get("paths") else ("",)
    notes = [path for path in vault.notes if path.startswith(starts)]
    hits: dict[str, list[tuple[float, str]]] = {
        "files": [(name_score(query, base_name(path)), path) for path in notes],
        "folders": [(name_score(query, base_name(path)), path) for path in vault.folders if path.startswith(starts)],
        "content": [(text_score(query, vault.notes[path].folded), path) for path in notes],
        "memory_traces": [(one["score"], one["id"]) for one in _traces(vault, query, None)],
        "tags": [
            (name_score(query, tag), tag) for tag in sorted({tag for path in notes for tag in vault.notes[path].tags})
        ],
        "properties": [(text_score(query, vault.notes[path].frontmatter.lower()), path) for path in notes],
    }
    for category, table in (("workspaces", "workspaces"), ("sessions", "sessions"), ("snapshots", "states")):
        records = getattr(vault, table)
        hits[category] = [(text_score(query, _about(record)), key) for key, record in records.items()]
    ranked = {
        category: sorted((hit for hit in found if hit[0]), key=lambda hit: (-hit[0], hit[1]))
        for category, found in hits.items()
    }
    return {
        category: [{"id": key, "score": round(score, 3)} for score, key in found[:limit]]
        for category, found in ranked.items()
        if found and category not in excluded
    }


def _about(record: Mapping[str, Any]) -> str:
    return f"{record.get('name', '')} {record.get('description') or ''}".lower()


TOOLS: dict[str, Handler] = {
    "vaultLibrarian_searchContent": search_content,
    "vaultLibrarian_searchDirectory": search_directory,
    "vaultLibrarian_searchMemory": search_memory,
    "vaultLibrarian_batch": batch,
}
ANSWERS = {
    "vaultLibrarian_searchContent": ("query", "results[].filePath"),
    "vaultLibrarian_searchDirectory": ("query", "searchedPaths[]", "results[].path"),
    "vaultLibrarian_searchMemory": ("query", "results[].id"),
    "vaultLibrarian_batch": (
        "searches[].query",
        *(
            f"{start}.{category}[].id"
            for start in ("searches[].categories", "merged.combinedCategories")
            for category in ("files", "content", "workspaces", "sessions", "snapshots", "memory_traces")
        ),
    ),
}
