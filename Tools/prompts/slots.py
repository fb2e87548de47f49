"""The slots of request templates: values drawn from a vault, from word lists and from the catalog.

A slot is drawn when it is first asked for; those that belong together (a state, its session, its workspace) together.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.judging.words import stems
from Evaluator.vault.command_manager import COMMANDS
from Evaluator.vault.paths import file_path
from Evaluator.vault.state import Vault, base_name, parent

SLOT = re.compile(r"\{(\w+)\}")
"""A slot in a text, as in "Open {note}"; the group is its name."""


class CannotFill(Exception):
    """The vault has nothing for a slot: no state is saved there, no folder is empty."""


def _nameable_notes(vault: Vault) -> list[str]:
    return [path for path in vault.notes if _is_nameable(path)]


@lru_cache(maxsize=65536)
def _is_nameable(path: str) -> bool:
    """Whether this is a Markdown note whose path can stand in a request as it is, and reaches the tool as it is."""
    return path.endswith(".md") and file_path(path) == path and '"' not in path


def _body(text: str) -> str:
    """A note's text without its frontmatter."""
    return re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL)


class Slots:
    """The values of one request, drawn when first asked for; those that belong together are drawn together."""

    def __init__(self, rng: random.Random, vault: Vault, words: Mapping[str, Sequence[Any]], catalog: Catalog) -> None:
        self._rng = rng
        self._vault = vault
        self._words = words
        self._catalog = catalog
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            values = DRAWN_SLOTS[name](self) if name in DRAWN_SLOTS else self._rng.choice(self._words[name])
            self._values.update(values if isinstance(values, dict) else {name: values})
            if name not in self._values:
                raise CannotFill(f"the catalog {self._catalog.label} has no {name}")
        return self._values[name]

    def pick(self, candidates: Sequence[Any], what: str) -> Any:
        if not candidates:
            raise CannotFill(f"the vault {self._vault.name} has no {what}")
        return self._rng.choice(candidates)

    # -- files and folders

    def notes(self) -> dict[str, str]:
        notes = _nameable_notes(self._vault)
        if len(notes) < 2:
            raise CannotFill(f"the vault {self._vault.name} has no two notes")
        first, second = self._rng.sample(notes, 2)
        return {
            "note": first,
            "note_2": second,
            "note_name": base_name(first).removesuffix(".md"),
            "break": self._break_before_line(first),
            "break_2": self._break_before_line(second),
        }

    def _break_before_line(self, note: str) -> str:
        """What has to stand before a line that is appended to a note."""
        text = self._vault.notes[note].text
        return "\n" if text and not text.endswith("\n") else ""

    def folders(self) -> dict[str, str]:
        filled = [path for path in self._vault.folders if path in self._holding]
        first = self.pick(filled, "folder that holds something")
        apart = [path for path in filled if not f"{path}/".startswith(f"{first}/") and not first.startswith(f"{path}/")]
        return {"folder": first, "folder_2": self.pick(apart, "second folder"), "folder_name": base_name(first)}

    def empty_folder(self) -> str:
        return self.pick([path for path in self._vault.folders if path not in self._holding], "empty folder")

    @cached_property
    def _holding(self) -> set[str]:
        """The folders that hold a note or a folder."""
        return {parent(path) for table in (self._vault.folders, self._vault.notes) for path in table}

    def new_path(self, folder: str, name: str) -> str:
        path = f"{folder}/{name}" if folder else name
        if self._vault.has(path):
            raise CannotFill(f"{path} exists")
        return path

    def any_folder(self) -> str:
        """An existing folder, or '' for the root of a vault that has none."""
        return self._rng.choice(list(self._vault.folders) or [""])

    def fresh_title(self) -> str:
        return str(self._rng.choice(self._words["title"]))

    # -- text

    def passage(self) -> str:
        """A line, or the end of it, that stands in the note exactly once."""
        text = self._vault.notes[self["note"]].text
        lines = [
            re.sub(r"^[\s>*+#-]*(?:\[.\] )?", "", line).strip() for line in _body(text).splitlines() if "|" not in line
        ]
        fitting = [one for one in lines if 3 <= len(one.split()) <= 10 and '"' not in one and text.count(one) == 1]
        return str(self.pick(fitting, f"line of its own in {self['note']}"))

    def word(self) -> str:
        """A word that the note has twice or more."""
        words = re.findall(r"\b[A-Za-z]{4,}\b", _body(self._vault.notes[self["note"]].text))
        return str(
            self.pick(sorted({word for word in words if words.count(word) > 1}), f"word twice in {self['note']}")
        )

    def line_range(self) -> dict[str, int]:
        num_lines = self._vault.notes[self["note"]].text.count("\n")
        if num_lines < 2:
            raise CannotFill(f"{self['note']} is too short")
        first = self._rng.randint(1, num_lines - 1)
        last = self._rng.randint(first + 1, min(num_lines, first + 9))
        return {"first_line": first, "last_line": last, "line_count": last - first + 1}

    def search(self) -> str:
        text = _body(self._vault.notes[self.pick(_nameable_notes(self._vault), "notes")].text)
        pairs = re.findall(r"\b[A-Za-z]{4,} [A-Za-z]{4,}\b", text)
        return str(self.pick([pair for pair in pairs if len(stems(pair)) == 2], "two words side by side"))

    def name_word(self) -> str:
        names = [base_name(path) for path in self._vault.notes if parent(path) == self["folder"]]
        return str(self.pick(re.findall(r"[A-Za-z]{4,}", " ".join(n.rpartition(".")[0] for n in names)), "file names"))

    # -- records

    def state(self) -> dict[str, str]:
        states = [one for one in self._vault.states.values() if self._can_run_in(one["workspaceId"])]
        state = self.pick([one for one in states if one.get("tags")], "saved state with tags")
        session = self._vault.sessions.get(state["sessionId"]) or {"id": state["sessionId"], "name": ""}
        workspace = self._vault.workspaces[state["workspaceId"]]
        return {
            "state_id": state["id"],
            "state_name": state["name"],
            "tag": self._rng.choice(state["tags"]),
            "session_id": session["id"],
            "session_name": session["name"],
            "workspace_id": workspace["id"],
            "workspace_name": workspace["name"],
        }

    def other_workspace(self) -> dict[str, str]:
        others = [
            one
            for one in self._vault.workspaces.values()
            if one["id"] != self["workspace_id"] and self._can_run_in(one["id"])
        ]
        other = self.pick(others, "second workspace")
        return {"other_workspace_id": other["id"], "other_workspace_name": other["name"]}

    def _can_run_in(self, workspace_id: str) -> bool:
        """Whether the id has the form that the context of a call asks for; no answer in another one could be right."""
        pattern = dict(self._catalog.id_patterns).get("workspaceId")
        return pattern is None or pattern.search(workspace_id) is not None

    def trace_word(self) -> str:
        workspaces = {one["workspaceId"] for one in self._vault.traces.values()}
        if self["workspace_id"] not in workspaces:
            raise CannotFill(f"nothing is remembered of {self['workspace_name']}")
        traces = [one["content"] for one in self._vault.traces.values() if one["workspaceId"] == self["workspace_id"]]
        words = [word for word in re.findall(r"\b[a-z]{5,}\b", self.pick(traces, "traces")) if stems(word)]
        return str(self.pick(words, "words in its traces"))

    def agent(self, *, is_on: bool) -> dict[str, str]:
        agents = [one for one in self._vault.agents.values() if one["isEnabled"] == is_on]
        agent = self.pick(agents, f"agent that is {'on' if is_on else 'off'}")
        prefix = "" if is_on else "off_"
        return {f"{prefix}agent_id": agent["id"], f"{prefix}agent_name": agent["name"]}

    # -- the rest

    def running_session(self) -> str:
        suffix = "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9))
        return f"session_{self._rng.randrange(1_700_000_000_000, 1_800_000_000_000)}_{suffix}"

    def command_word(self) -> str:
        words = {word.lower() for name in COMMANDS.values() for word in re.findall(r"[A-Za-z]{4,}", name)}
        return self._rng.choice(sorted(words))

    def tools(self) -> dict[str, str]:
        if len(self._catalog.tools) < 2:
            raise CannotFill(f"the catalog {self._catalog.label} has no two tools")
        first, second = self._rng.sample(list(self._catalog.tools), 2)
        managers = sorted({tool.manager for tool in self._catalog.tools.values() if tool.manager})
        manager = {"manager": self._rng.choice(managers)} if managers else {}
        return {"tool_name": first, "tool_name_2": second, **manager}


DRAWN_SLOTS: Mapping[str, Callable[[Slots], Any]] = {
    **dict.fromkeys(("note", "note_2", "note_name", "break", "break_2"), Slots.notes),
    **dict.fromkeys(("folder", "folder_2", "folder_name"), Slots.folders),
    "empty_folder": Slots.empty_folder,
    "new_note": lambda slots: slots.new_path(slots.any_folder(), f"{slots.fresh_title()}.md"),
    "new_folder": lambda slots: slots.new_path(slots.any_folder(), slots.fresh_title()),
    "moved_note": lambda slots: slots.new_path(slots.any_folder(), base_name(slots["note"])),
    "renamed_note": lambda slots: slots.new_path(parent(slots["note"]), f"{slots.fresh_title()}.md"),
    "moved_folder": lambda slots: slots.new_path(slots["folder_2"], base_name(slots["folder"])),
    "renamed_folder": lambda slots: slots.new_path(parent(slots["folder"]), slots.fresh_title()),
    "passage": Slots.passage,
    "word": Slots.word,
    **dict.fromkeys(("first_line", "last_line", "line_count"), Slots.line_range),
    "search": Slots.search,
    "name_word": Slots.name_word,
    **dict.fromkeys(
        ("state_id", "state_name", "tag", "session_id", "session_name", "workspace_id", "workspace_name"), Slots.state
    ),
    **dict.fromkeys(("other_workspace_id", "other_workspace_name"), Slots.other_workspace),
    "trace_word": Slots.trace_word,
    **dict.fromkeys(("agent_id", "agent_name"), lambda slots: slots.agent(is_on=True)),
    **dict.fromkeys(("off_agent_id", "off_agent_name"), lambda slots: slots.agent(is_on=False)),
    "running_session": Slots.running_session,
    "command_id": lambda slots: slots.pick(list(COMMANDS), "command"),
    "command_word": Slots.command_word,
    **dict.fromkeys(("tool_name", "tool_name_2", "manager"), Slots.tools),
}
"""Slots that are drawn from the vault, the catalog and the commands."""
