"""A prompt as it is asked inside Obsidian: below a system prompt that gives the ids of session, workspaces and agents.

Claudesidian sends such a system prompt, and the evaluation prompts have one. Self-play itself goes without, so a model
that is to be used there has to see some in its starter data.
"""

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from Evaluator.catalog import CONTEXT
from Evaluator.records import Prompt, ToolCall
from Evaluator.tool_calls import parse_text, render_turn
from Evaluator.vault.state import DEFAULT_WORKSPACE, Vault
from Tools.prompts.cells import Cell, right_answer

INSTRUCTIONS = """<instructions>
If a value that is needed is missing, ask for it. If no tool can do what is asked, say so.
Before anything is deleted or overwritten, say what would be lost and ask for a go-ahead.
To work in another workspace than the current one, load it first.
</instructions>"""
_SHARE_WITHOUT_WORKSPACE = 0.15
_SHARE_OF_BARE_CONTEXTS = 0.45
"""So many give the ids of session and workspace alone, as long as nothing else is needed."""
_SHARE_OF_LONG_LISTS = 0.2
"""Lists may be as long as the vault has them; else hold two of what is not needed, which takes less time to learn."""
_SHARE_OF_INSTRUCTIONS = 0.25
"""Of the prompts that are to be answered with a call; all others have them. Never where text or notes could be lost:
the instructions say to ask first."""
_DESTRUCTIVE = ("delete", "replace", "overwrite")
_SHARE_OF_NAMES_ALONE = 0.5
"""So many requests say names where the system prompt gives the ids."""


def in_session(cell: Cell, rng: random.Random, *, keeps_workspace: bool = False) -> Prompt:
    """The prompt of a cell below a system prompt; its right answer carries the ids given there.

    Where nothing speaks against it some workspace is the current one; `keeps_workspace`: that of the right answer.
    """
    prompt, vault = cell.prompt, cell.prompt.vault
    calls = parse_text(right_answer(prompt)).calls if prompt.expects_call else ()
    session, workspace = _given_ids(calls, vault, rng, keeps_workspace=keeps_workspace)
    workspaces, agents = _shown(prompt, calls, workspace, rng)
    question = prompt.question
    if rng.random() < _SHARE_OF_NAMES_ALONE:
        question = _with_names(question, vault, [*workspaces, *agents])
    has_instructions = not calls or prompt.behavior or rng.random() < _SHARE_OF_INSTRUCTIONS
    parts = [INSTRUCTIONS] if has_instructions and not any(map(_may_destroy, calls)) else []
    parts += [_session_context(session, workspace), *_lists(vault, workspaces, agents)]
    answer = prompt.expected_answer
    if calls:
        answer = render_turn([_with_ids(call, session, workspace) for call in calls]).content
    return replace(cell.worded_as(question), system="\n".join(parts), expected_call=None, expected_answer=answer)


def _given_ids(
    calls: Sequence[ToolCall], vault: Vault, rng: random.Random, *, keeps_workspace: bool
) -> tuple[str, str]:
    """The session, that of the right answer if it has one, and the current workspace."""
    context = calls[0].arguments[CONTEXT] if calls else {}
    session = context.get("sessionId") or _new_session(vault, rng)
    workspace = context.get("workspaceId", DEFAULT_WORKSPACE)
    may_change = workspace == DEFAULT_WORKSPACE and not keeps_workspace
    if may_change and vault.workspaces and rng.random() > _SHARE_WITHOUT_WORKSPACE:
        workspace = rng.choice(sorted(vault.workspaces))
    return session, workspace


def _shown(
    prompt: Prompt, calls: Sequence[ToolCall], workspace: str, rng: random.Random
) -> tuple[Sequence[str], Sequence[str]]:
    """The ids of the workspaces and agents that the system prompt lists: those that are needed, and some more."""
    vault = prompt.vault
    arguments = [{name: value for name, value in call.arguments.items() if name != CONTEXT} for call in calls]
    needed = f"{prompt.question} {json.dumps(arguments, ensure_ascii=False)}"
    workspaces, agents = (_listed(table, needed, rng) for table in (vault.workspaces, vault.agents))
    if calls and not _names_any(vault, needed) and rng.random() < _SHARE_OF_BARE_CONTEXTS:
        return (), ()
    return [one for one in vault.workspaces if one in workspaces or one == workspace], agents


def _session_context(session: str, workspace: str) -> str:
    note = "no workspace selected" if workspace == DEFAULT_WORKSPACE else "current workspace"
    return (
        '<session_context>\nEvery tool call carries a "context" parameter. Use these values in it:\n\n'
        f'- sessionId: "{session}"\n- workspaceId: "{workspace}" ({note})\n</session_context>'
    )


def _lists(vault: Vault, workspaces: Sequence[str], agents: Sequence[str]) -> Iterator[str]:
    if workspaces:
        lines = []
        for one in workspaces:
            record = vault.workspaces[one]
            lines.append(f'- {record["name"]} (id: "{one}")\n  Description: {record["description"]}')
            lines.append(f"  Root folder: {record['rootFolder']}")
        yield "\n".join(["<available_workspaces>", *lines, "</available_workspaces>"])
    if agents:
        lines = [f'- {vault.agents[one]["name"]} (id: "{one}")\n  {vault.agents[one]["description"]}' for one in agents]
        yield "\n".join(["<available_agents>", *lines, "</available_agents>"])


def _listed(table: Mapping[str, Mapping[str, Any]], needed: str, rng: random.Random) -> list[str]:
    """The ids of what is needed by id or name, and of some more, in the order of the vault."""
    most = len(table) if rng.random() < _SHARE_OF_LONG_LISTS else min(2, len(table))
    more = rng.sample(list(table), rng.randint(0, most))
    return [one for one, record in table.items() if one in more or one in needed or record["name"] in needed]


def _names_any(vault: Vault, needed: str) -> bool:
    tables = (vault.workspaces, vault.agents)
    return any(one in needed or record["name"] in needed for table in tables for one, record in table.items())


def _with_names(question: str, vault: Vault, listed: Sequence[str]) -> str:
    """`Shop (ws_1768...)` becomes `Shop`, and `workspace ws_1768...` becomes `workspace Shop`, where Shop is listed.

    An id that the request calls one, or that stands in another place than its name, stays.
    """
    for one in listed:
        name = {**vault.workspaces, **vault.agents}[one]["name"]
        question = question.replace(f"{name} ({one})", name)
        if name not in question and not re.search(rf"\bid\W+(?:is\W+)?{one}", question, re.IGNORECASE):
            question = question.replace(one, name)
    return question


def _may_destroy(call: ToolCall) -> bool:
    words = f"{call.name} {' '.join(name for name, value in call.arguments.items() if value is True)}".lower()
    return any(word in words for word in _DESTRUCTIVE)


def _with_ids(call: ToolCall, session: str, workspace: str) -> ToolCall:
    context = {**call.arguments[CONTEXT], "sessionId": session, "workspaceId": workspace}
    return ToolCall(call.name, {**call.arguments, CONTEXT: context})


def _new_session(vault: Vault, rng: random.Random) -> str:
    tail = "".join(rng.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=9))
    return f"session_{vault.now_ms - rng.randrange(10**10):013d}_{tail}"
