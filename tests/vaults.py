"""A small vault and short ways to call tools on it, for tests."""

import random
from collections.abc import Iterable
from typing import Any

from Evaluator.catalog import CONTEXT, load_catalog
from Evaluator.records import Prompt, ToolCall
from Evaluator.vault.loading import load_fixture
from Evaluator.vault.replies import Reply
from Evaluator.vault.server import run_call
from Evaluator.vault.state import Note, Vault, parents
from Tools.prompts.cells import Cells
from Tools.prompts.coverage import BALANCED, Turns, shares_of
from Tools.prompts.phrasing import load_manners
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, Templates, load_templates

CATALOG = load_catalog()
SESSION = "session_1767262543096_w42rv31zz"
WORKSPACE = "ws_1766820801798_4e2wb9z8r"
AGENT = "agent_1766321264591_zd9tolxr7"
STATE = "state_1769072750068_alm8alv4t"
CALL_CONTEXT = {
    "sessionId": SESSION,
    "workspaceId": WORKSPACE,
    "sessionDescription": "Working on garden notes",
    "sessionMemory": "",
    "toolContext": "The user asked for it",
    "primaryGoal": "Keep the notes in order",
    "subgoal": "One step",
}
NOTES = {
    "Garden/Beds.md": "---\ntags: [garden]\n---\n# Beds\n\nTomatoes in bed one\nBeans in bed two\n",
    "Garden/Seeds/List.md": "- beans\n- peas\n- Beans again\n",
    "Garden/Old/Beds.md": "old beds\n",
    "Journal/2026-07-14.md": "Rain. No work in the garden.\n",
    "Photos/bed.png": "",
}


def any_request(templates: Templates, rng: random.Random, vault: Vault) -> Prompt:
    """A random template of a tool, filled from a vault."""
    return templates.fill(rng.choice(templates.templates), rng, vault, CATALOG)


TEMPLATES = load_templates(DEFAULT_TEMPLATES, CATALOG)


def training_cells(seed: int = 0, behavior_share: float = 0.2, tools: Iterable[str] = tuple(CATALOG.tools)) -> Cells:
    """The cells that v2 draws without further flags, or those of some tools."""
    behaviors = dict.fromkeys(one["behavior"] for one in TEMPLATES.behaviors)
    turns = Turns(shares_of(BALANCED, tools, behaviors, behavior_share), seed)
    vaults = [load_fixture(name) for name in TRAINING_VAULTS]
    return Cells(TEMPLATES, load_manners(), vaults, CATALOG, turns, seed)


def small_vault() -> Vault:
    vault = Vault("small", 1_780_000_000_000)
    for age, (path, text) in enumerate(NOTES.items()):
        vault.notes[path] = Note(text, 1_770_000_000_000, 1_779_000_000_000 - age)
        vault.folders.update(dict.fromkeys(parents(path), True))
    vault.folders["Empty"] = True
    vault.workspaces[WORKSPACE] = {
        "id": WORKSPACE,
        "name": "Garden",
        "description": "Beds",
        "rootFolder": "Garden",
        "purpose": "Growing food",
        "workflows": [{"name": "Sow", "when": "April", "steps": "Rake\nSow"}],
        "keyFiles": ["Garden/Beds.md"],
        "created": 1,
        "lastAccessed": 1,
    }
    vault.sessions[SESSION] = {
        "id": SESSION,
        "name": "Spring",
        "workspaceId": WORKSPACE,
        "created": 2,
        "description": "",
    }
    vault.states[STATE] = {
        "id": STATE,
        "name": "Half sown",
        "workspaceId": WORKSPACE,
        "sessionId": SESSION,
        "created": 3,
        "tags": ["sowing"],
        "activeTask": "Sowing",
        "activeFiles": ["Garden/Beds.md"],
        "nextSteps": ["Water"],
        "reasoning": "Rain",
        "conversationContext": "Sowing beans",
    }
    vault.agents[AGENT] = {
        "id": AGENT,
        "name": "Plant Doctor",
        "description": "Sick plants",
        "prompt": "Say why.",
        "isEnabled": True,
    }
    vault.traces["trace_1"] = {
        "id": "trace_1",
        "workspaceId": WORKSPACE,
        "sessionId": SESSION,
        "timestamp": 5,
        "tool": "contentManager_appendContent",
        "content": "Added beans to the seed list",
    }
    return vault


def call(name: str, /, **arguments: Any) -> ToolCall:
    return ToolCall(name, {CONTEXT: CALL_CONTEXT, **arguments})


def run(vault: Vault, name: str, /, **arguments: Any) -> Reply:
    """Call a tool by its name without the manager, which is unique."""
    full = next(tool for tool in CATALOG.tools if tool.rpartition("_")[2] == name or tool == name)
    return run_call(call(full, **arguments), vault, CATALOG)
