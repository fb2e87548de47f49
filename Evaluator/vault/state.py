"""The vault as a value: notes, folders and records in tables, cheap to copy.

Every table is a dict whose values are never changed in place, only replaced. So a copy shares all values, costs a
few microseconds, and two vaults are compared by looking at what is not shared.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

Record = Mapping[str, Any]
DEFAULT_WORKSPACE = "default"
"""The workspace id of a session in which none was chosen; no record stands behind it."""


@dataclass(frozen=True)
class Note:
    """A file. `text` is empty for anything but text; times are in ms since 1970."""

    text: str
    created: int
    modified: int

    @cached_property
    def folded(self) -> str:
        """The text for comparison without regard to case."""
        return self.text.lower()

    @cached_property
    def frontmatter(self) -> str:
        """The YAML between the two `---` at the start, '' where there is none."""
        match = re.match(r"---\r?\n(.*?)\r?\n---(?:\r?\n|\Z)", self.text, re.DOTALL)
        return match.group(1) if match else ""

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The tags of the frontmatter, as `[a, b]`, `a, b` or one a line after a dash, and the #tags of the text."""
        listed = re.search(r"^tags?:([ \t]*\[[^\]]*\]|.*(?:\n[ \t]*- .*)*)", self.frontmatter, re.MULTILINE)
        front = re.sub(r"(?<=\s)#(?=\s).*", "", listed.group(1)) if listed else ""  # comments
        in_front = [tag for tag in re.findall(r"[^\s,\[\]\"'#-][^\s,\[\]\"'#]*", front) if tag not in ("null", "~")]
        return (*in_front, *re.findall(r"(?<!\S)#([\w/-]+)", self.text))


@dataclass
class Vault:
    """All that the tools can see or change. `now_ms` is its clock; ids follow from `name` and a counter.

    `opened` holds what was opened in the window and `requests` what was asked of the world outside (models, image
    makers, Obsidian's commands); both are keyed by a running number.
    """

    name: str
    now_ms: int
    notes: dict[str, Note] = field(default_factory=dict)
    folders: dict[str, bool] = field(default_factory=dict)
    workspaces: dict[str, Record] = field(default_factory=dict)
    sessions: dict[str, Record] = field(default_factory=dict)
    states: dict[str, Record] = field(default_factory=dict)
    agents: dict[str, Record] = field(default_factory=dict)
    traces: dict[str, Record] = field(default_factory=dict)
    opened: dict[int, Record] = field(default_factory=dict)
    requests: dict[int, Record] = field(default_factory=dict)
    ids_made: int = 0

    def copy(self) -> "Vault":
        tables = {name: getattr(self, name).copy() for name in TABLES}
        return Vault(self.name, self.now_ms, **tables, ids_made=self.ids_made)

    def new_id(self, prefix: str) -> str:
        """The next id of the form `prefix_<13 digits of ms>_<9 characters of base 36>`."""
        self.ids_made += 1
        number = int.from_bytes(hashlib.sha256(f"{self.name}:{self.ids_made}".encode()).digest()[:8], "big")
        return f"{prefix}_{self.now_ms + self.ids_made:013d}_{_base36(number)[:9]}"

    # -- files and folders ----------------------------------------------------------------------------------------

    def has_folder(self, path: str) -> bool:
        return not path or path in self.folders

    def has(self, path: str) -> bool:
        return path in self.notes or self.has_folder(path)

    def is_under_a_note(self, path: str) -> bool:
        """Whether a parent of `path` is a file, so that nothing can be put there."""
        return any(parent in self.notes for parent in parents(path))

    def make_folder(self, path: str) -> None:
        """Make a folder with its parents."""
        for folder in (*parents(path), path):
            if folder:
                self.folders[folder] = True

    def write(self, path: str, text: str) -> None:
        """Write a file, new or not, and make its parents."""
        old = self.notes.get(path)
        self.make_folder(parent(path))
        self.notes[path] = Note(text, old.created if old else self.now_ms, self.now_ms)

    def inside(self, folder: str) -> Iterator[str]:
        """All paths of files and folders below a folder."""
        start = f"{folder}/" if folder else ""
        for table in (self.folders, self.notes):
            yield from (path for path in table if path.startswith(start))

    def remove_tree(self, folder: str) -> None:
        for path in [*self.inside(folder), folder]:
            self.notes.pop(path, None)
            self.folders.pop(path, None)

    def move_tree(self, path: str, new_path: str) -> None:
        """Rename a file or a folder with all it holds; parents of the new place must be there."""
        for table in (self.folders, self.notes):
            for old in [old for old in table if old == path or old.startswith(f"{path}/")]:
                table[new_path + old.removeprefix(path)] = table.pop(old)  # type: ignore[assignment]

    # -- what is known about it ---------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """The name, and a hash of all that it holds except the times of files."""
        notes = sorted((path, note.text) for path, note in self.notes.items())
        others = [sorted(getattr(self, table).items()) for table in TABLES if table != "notes"]
        content = repr([notes, others])
        return f"{self.name}:{hashlib.sha256(content.encode('utf-8', errors='replace')).hexdigest()[:16]}"

    @cached_property
    def ids(self) -> frozenset[str]:
        """The ids of all records."""
        return frozenset().union(self.workspaces, self.sessions, self.states, self.agents, self.traces)

    @cached_property
    def folded_paths(self) -> frozenset[str]:
        """Paths of files and folders, each path also without `.md`, and each single part, in lower case."""
        paths = {path.lower() for path in (*self.notes, *self.folders)}
        paths |= {part for path in list(paths) for part in path.split("/")}
        return frozenset(paths | {path.removesuffix(".md") for path in paths})

    @cached_property
    def words(self) -> frozenset[str]:
        """All words of paths, notes and records, in lower case."""
        records = [str(record) for table in RECORD_TABLES for record in getattr(self, table).values()]
        return frozenset(
            re.findall(r"\w+", "\n".join([*self.notes, *(n.text for n in self.notes.values()), *records]).lower())
        )

    @cached_property
    def folded_text(self) -> str:
        """The texts of all notes, in lower case."""
        return "\n".join(note.folded for note in self.notes.values())


TABLES = tuple(one.name for one in fields(Vault) if one.name not in ("name", "now_ms", "ids_made"))
RECORD_TABLES = ("workspaces", "sessions", "states", "agents", "traces")


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def parents(path: str) -> list[str]:
    """The folders above a path, the outermost first, without the root."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def base_name(path: str) -> str:
    return path.rpartition("/")[2]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits.rjust(9, "0")
