"""Run the calls of an answer on a copy of a vault."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.records import ToolCall
from Evaluator.vault.changes import Changes, changes_between
from Evaluator.vault.replies import Reply
from Evaluator.vault.server import TOOLS, begin_session, run_call
from Evaluator.vault.state import Vault


@dataclass(frozen=True)
class Execution:
    """Calls in order, what each gave back, how the vault differs afterwards, and the ids of sessions that were begun
    for them, which lists of sessions have too."""

    calls: Sequence[ToolCall]
    replies: Sequence[Reply]
    changes: Changes
    begun: frozenset[str] = frozenset()

    @property
    def results(self) -> list[dict[str, Any]]:
        return [reply.to_dict() for reply in self.replies]


NOTHING = Execution((), (), {})
"""What an answer without calls does."""


def can_run(calls: Sequence[ToolCall], catalog: Catalog) -> bool:
    """Whether the vault knows what each of these tools of the catalog does."""
    return all(call.name in TOOLS or call.name not in catalog.tools for call in calls)


def execute(calls: Sequence[ToolCall], vault: Vault, catalog: Catalog, *, is_checked: bool = False) -> Execution:
    """Run calls in order on a copy of `vault`. `is_checked`: their arguments are known to fit the schemas."""
    before = vault.copy()
    begun = frozenset(filter(None, [begin_session(call, before, catalog) for call in calls]))
    after = before.copy()
    replies = [run_call(call, after, catalog, is_checked=is_checked) for call in calls]
    return Execution(calls, replies, changes_between(before, after), begun)
