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

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError

DEFAULT_CATALOG = Path(__file__).parent / "catalogs" / "claudesidian.json"
CONTEXT = "context"
"""The argument that holds the context."""


class CatalogError(UsageError):
    """A catalog file that cannot be used; the sentence names the file, the place and the fault."""


@dataclass(frozen=True)
class Tool:
    """One tool. `parameters` is its JSON Schema without the context; `effect` is read, write or external."""

    name: str
    parameters: Mapping[str, Any]
    manager: str | None = None
    summary: str = ""
    effect: str = "write"
    destructive: bool = False
    result_data: Mapping[str, Any] | None = None

    @cached_property
    def validator(self) -> "Draft202012Validator":
        return _compile(self.parameters)


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
        return _compile(self.context or {})

    def compile(self) -> None:
        """Make all validators now, for instance while the first answers are under way."""
        if self.context:
            _ = self.context_validator
        for tool in self.tools.values():
            _ = tool.validator

    @cached_property
    def id_patterns(self) -> dict[str, re.Pattern[str]]:
        """Context fields whose value has a fixed form, with that form: the ids that a system prompt hands out."""
        properties = (self.context or {}).get("properties", {})
        patterned = {name: schema for name, schema in properties.items() if isinstance(schema, dict)}
        return {name: ecma_pattern(schema["pattern"]) for name, schema in patterned.items() if "pattern" in schema}

    @cached_property
    def nearest_tool(self) -> Any:
        """nearest_tool(name) -> the known tool whose name is most alike. Cached: models repeat their mistakes."""
        names = list(self.tools)

        @lru_cache(maxsize=4096)
        def nearest(name: str) -> str:
            likeness = difflib.SequenceMatcher(b=name[:100].lower())
            return max(names, key=lambda known: (likeness.set_seq1(known.lower()), likeness.quick_ratio())[1])

        return nearest


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
    if not isinstance(everywhere, dict):
        raise _Fault('its "optional_for_every_tool" is no object of parameters')
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
        effect=tool.get("effect", "write"),
        destructive=tool.get("destructive", False),
        result_data=tool.get("result_data"),
    )


def check_schemas(data: Mapping[str, Any]) -> None:
    """Check each schema of a catalog file's data against draft 2020-12. Raises an error that names the place."""
    from jsonschema import Draft202012Validator, SchemaError

    tools = _entry(data, "tools", dict)
    schemas = {"the context": data.get("context")}
    for name, tool in tools.items():
        schemas[f"the parameters of {name}"] = _entry_of_tool(name, tool)
        schemas[f"the result_data of {name}"] = tool.get("result_data")
    for where, schema in schemas.items():
        try:
            Draft202012Validator.check_schema({} if schema is None else schema)
            _check_references(where, schema, schema)
        except SchemaError as error:
            raise _Fault(f"{where}: no JSON Schema 2020-12 at {error.json_path}: {error.message}") from error


def _check_references(where: str, schema: Any, root: Any) -> None:
    """Every `$ref` must point into the schema itself: nothing is fetched while answers are judged."""
    if isinstance(schema, list):
        for item in schema:
            _check_references(where, item, root)
    if not isinstance(schema, dict):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = root
        for part in reference.removeprefix("#").split("/")[1:]:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        if not reference.startswith("#") or target is None:
            raise _Fault(f"{where}: there is no {reference} in that schema")
    for value in schema.values():
        _check_references(where, value, root)


def _entry_of_tool(name: str, tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict) or not isinstance(tool.get("parameters"), dict):
        raise _Fault(f'the tool {name} needs "parameters", a JSON Schema')
    return tool["parameters"]


# -- compiled schemas ---------------------------------------------------------------------------------------------

_ALTERNATIVES = ("anyOf", "oneOf")
_REFINEMENTS = ("then", "else")


def closed(schema: Any) -> Any:
    """The same schema, but refusing properties that it does not list.

    Servers ignore unknown parameters, so their schemas leave objects open; a label must not. An object schema that
    lists properties is closed unless it says something about additional ones itself. What is under `if` only asks,
    and stays as it is. Where `allOf`/`then` describe a nested object again, it is closed there and open in the base.
    """
    if not isinstance(schema, dict):
        return schema
    result = _closed_inside(schema)
    says_itself = {"additionalProperties", "unevaluatedProperties", "$ref"} & schema.keys()
    if "properties" in schema and not says_itself:
        listed_by_branches = {name for branch in _branches(schema) for name in _listed(branch)}
        every_name_is_in_base = listed_by_branches <= schema["properties"].keys()
        result["additionalProperties" if every_name_is_in_base else "unevaluatedProperties"] = False
    return result


def _closed_inside(schema: Any) -> Any:
    """The schema with everything in it closed, but not the object itself."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    described_again = {name for branch in _branches(schema) for name, value in _listed(branch).items() if value}
    if "properties" in schema:
        result["properties"] = {
            name: value if name in described_again else closed(value) for name, value in schema["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = closed(schema[key])
    if "prefixItems" in schema:
        result["prefixItems"] = [closed(item) for item in schema["prefixItems"]]
    if "$defs" in schema:
        result["$defs"] = {name: closed(definition) for name, definition in schema["$defs"].items()}
    if "allOf" in schema:
        result["allOf"] = [_closed_inside(branch) for branch in schema["allOf"]]
    for key in _REFINEMENTS:
        if isinstance(schema.get(key), dict):
            result[key] = _closed_inside(schema[key])
    for key in _ALTERNATIVES:
        if key in schema:
            close = _closed_inside if "properties" in schema else closed
            result[key] = [close(branch) for branch in schema[key]]
    return result


def _branches(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas inside this one that describe the same value."""
    for key in ("allOf", *_ALTERNATIVES):
        yield from (branch for branch in schema.get(key, ()) if isinstance(branch, dict))
    yield from (schema[key] for key in _REFINEMENTS if isinstance(schema.get(key), dict))


def _listed(branch: Mapping[str, Any]) -> dict[str, bool]:
    """Property names a branch lists, with whether it lists properties of that property too."""
    listed = {
        name: isinstance(value, dict) and "properties" in value for name, value in branch.get("properties", {}).items()
    }
    for inner in _branches(branch):
        for name, is_object in _listed(inner).items():
            listed[name] = listed.get(name, False) or is_object
    return listed


@lru_cache(maxsize=1024)
def ecma_pattern(pattern: str) -> re.Pattern[str]:
    r"""A pattern as JSON Schema means it (ECMA-262): `\d` is 0-9 and a closing `$` is the very end."""
    if pattern.endswith("$") and not pattern.endswith(r"\$"):
        pattern = pattern[:-1] + r"\Z"
    return re.compile(pattern, re.ASCII)


def _check_pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> "Iterator[ValidationError]":
    if isinstance(value, str) and not ecma_pattern(pattern).search(value):
        from jsonschema import ValidationError

        yield ValidationError(f"{value!r} does not match {pattern!r}")


@lru_cache(maxsize=1)
def _validator_class() -> "tuple[type[Draft202012Validator], FormatChecker]":
    from jsonschema import Draft202012Validator, FormatChecker  # a third of the start: only when it is used
    from jsonschema.validators import extend

    return extend(Draft202012Validator, {"pattern": _check_pattern}), FormatChecker(formats=["date"])


def _compile(schema: Mapping[str, Any]) -> "Draft202012Validator":
    validator_class, formats = _validator_class()
    return validator_class(schema, format_checker=formats)
