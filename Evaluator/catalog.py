"""A tool catalog: which tools there are, what they take, and the context that every call carries.

A catalog file is one JSON object: `name`, `server_version`, `tools` {NAME: {`parameters`, ...}} and, where every call
carries one, `context`: the JSON Schema (draft 2020-12) of the `context` argument. Nothing else in the code knows any
particular tool, so `--catalog FILE` is how another MCP server's tools come in.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Evaluator.judging.schemas import SchemaFault, check_schema, closed, compile_schema, ecma_pattern

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

DEFAULT_CATALOG = Path(__file__).parent / "catalogs" / "claudesidian.json"
CONTEXT = "context"
"""The argument that holds the context."""


class CatalogError(UsageError):
    """A catalog file that cannot be used; the sentence names the file, the place and the fault."""


@dataclass(frozen=True)
class Tool:
    """One tool. `parameters` is its JSON Schema without the context."""

    name: str
    parameters: Mapping[str, Any]
    manager: str | None = None
    summary: str = ""
    result_data: Mapping[str, Any] | None = None

    @cached_property
    def validator(self) -> "Draft202012Validator":
        return compile_schema(self.parameters)

    @cached_property
    def fixed_words(self) -> frozenset[str]:
        """Strings that the schema itself names as values: members of an enum, constants, defaults."""
        return frozenset(_fixed_words(self.parameters))


def _fixed_words(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _fixed_words(one)
    elif isinstance(schema, dict):
        named = [*_list(schema.get("enum")), *_list(schema.get("default")), schema.get("const")]
        yield from (value for value in named if isinstance(value, str))
        for one in schema.values():
            yield from _fixed_words(one)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Catalog:
    """All tools of one server version. `sha256` is that of the file, to tell one state of it from another."""

    name: str
    server_version: str
    tools: Mapping[str, Tool]
    context: Mapping[str, Any] | None
    sha256: str = field(repr=False)

    @property
    def label(self) -> str:
        return f"{self.name}@{self.server_version}"

    @cached_property
    def context_validator(self) -> "Draft202012Validator":
        """Compiled schema of the context. Only for a catalog that has one."""
        return compile_schema(self.context or {})

    def compile(self) -> None:
        """Make all validators now, for instance while the first answers are under way."""
        if self.context:
            _ = self.context_validator
        for tool in self.tools.values():
            _ = tool.validator

    @cached_property
    def id_patterns(self) -> tuple[tuple[str, re.Pattern[str]], ...]:
        """(name, form) of the context fields whose value has a fixed form: the ids a system prompt hands out."""
        return tuple(
            (n, ecma_pattern(schema["pattern"])) for n, schema in self._context_fields() if "pattern" in schema
        )

    @cached_property
    def fields_that_may_be_empty(self) -> frozenset[str]:
        """Context fields that the schema allows to be an empty string."""
        return frozenset(name for name, schema in self._context_fields() if not schema.get("minLength"))

    def _context_fields(self) -> list[tuple[str, Mapping[str, Any]]]:
        """(name, schema) of each context field; the schema `true` is one that asks nothing."""
        properties = (self.context or {}).get("properties", {})
        return [(name, schema if isinstance(schema, dict) else {}) for name, schema in properties.items()]

    def nearest_tool(self, name: str) -> str:
        """The known tool whose name is most alike."""
        return _nearest(name[:100].lower(), tuple(self.tools))


@lru_cache(maxsize=4096)  # models repeat their mistakes
def _nearest(name: str, known_names: tuple[str, ...]) -> str:
    return max(known_names, key=lambda known: difflib.SequenceMatcher(None, known.lower(), name).quick_ratio())


def load_catalog(path: Path = DEFAULT_CATALOG) -> Catalog:
    """Read a catalog and check every schema in it. Raises CatalogError.

    The schemas of the bundled catalog are checked by the tests instead, which saves 0.2 s at every start.
    """
    try:
        raw = path.read_bytes()
        data = json.loads(raw)
    except OSError as error:
        raise CatalogError(f"cannot read the catalog {path}: {error.strerror}") from error
    except ValueError as error:
        raise CatalogError(f"the catalog {path} is no JSON: {error}") from error
    try:
        if path != DEFAULT_CATALOG:
            check_schemas(data)
        return _catalog_from(data, hashlib.sha256(raw).hexdigest())
    except _Fault as fault:
        raise CatalogError(f"the catalog {path} cannot be used: {fault}") from fault


class _Fault(Exception):
    """What is wrong in a catalog, without the name of its file."""


def _catalog_from(data: Any, sha256: str) -> Catalog:
    tools = _entry(data, "tools", dict)
    if not tools:
        raise _Fault("it has no tools")
    context = data.get("context")
    everywhere = data.get("optional_for_every_tool") or {}
    if not isinstance(context, dict | None):
        raise _Fault('its "context" is no object, as the JSON Schema of a context has to be')
    return Catalog(
        name=_entry(data, "name", str),
        server_version=_entry(data, "server_version", str),
        tools={name: _tool_from(name, tool, everywhere) for name, tool in tools.items()},
        context=closed(context) if context else None,
        sha256=sha256,
    )


def _entry(data: Any, key: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(key), kind):
        raise _Fault(f'it needs "{key}", {"an object" if kind is dict else "a string"}')
    return data[key]


def _tool_from(name: str, tool: Any, everywhere: Mapping[str, Any]) -> Tool:
    own = _entry_of_tool(name, tool)
    parameters = {**own, "properties": {**own.get("properties", {}), **everywhere}} if everywhere else own
    return Tool(
        name=name,
        parameters=closed(parameters),
        manager=tool.get("manager"),
        summary=tool.get("summary", ""),
        result_data=tool.get("result_data"),
    )


def check_schemas(data: Mapping[str, Any]) -> None:
    """Check each schema of a catalog file's data against draft 2020-12. Raises an error that names the place."""
    tools = _entry(data, "tools", dict)
    everywhere = data.get("optional_for_every_tool") or {}
    schemas = {"the context": data.get("context"), "optional_for_every_tool": {"properties": everywhere}}
    for name, tool in tools.items():
        schemas[f"the parameters of {name}"] = _entry_of_tool(name, tool)
        schemas[f"the result_data of {name}"] = tool.get("result_data")
    for where, schema in schemas.items():
        try:
            check_schema({} if schema is None else schema)
        except SchemaFault as fault:
            raise _Fault(f"{where}: {fault}") from fault


def _entry_of_tool(name: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("parameters"), dict):
        raise _Fault(f'the tool {name} needs "parameters", a JSON Schema')
    return tool["parameters"]
