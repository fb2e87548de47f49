"""What a tool gives back: data, or an error in the server's words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from Evaluator.catalog import Catalog
    from Evaluator.vault.state import Vault

Data = Mapping[str, Any]


class ToolError(Exception):
    """A tool refused or failed. The text is what the caller reads."""


@dataclass(frozen=True)
class Caller:
    """Who calls: the running session and workspace, and the catalog that the server advertises."""

    session_id: str
    workspace_id: str
    catalog: "Catalog"


Handler = Callable[["Vault", Data, Caller], Data]
"""What a tool does: it changes the vault and returns its data, or raises ToolError."""


@dataclass(frozen=True)
class Reply:
    """The reply to one call: `data` when it went well, else `error`. `is_flat`: the fields stand at the top level."""

    tool: str
    data: Data | None
    error: str | None = None
    is_flat: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The result object as the server sends it, less its hints and its echo of session and context."""
        if self.error is not None and self.is_flat:
            return {"success": False, "error": self.error}
        if self.error is not None:
            return {"success": False, "error": self.error, "data": self.data}
        if self.is_flat:
            return {"success": True, **(self.data or {})}
        return {"success": True, "data": self.data}
