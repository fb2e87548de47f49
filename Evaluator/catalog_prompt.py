"""A catalog told to a model that was not trained on it: as text for a system prompt, or as OpenAI's `tools`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog, Tool

_HEAD = """You act by calling tools. To call one, answer with nothing but
tool_call: NAME
arguments: {JSON}
with the arguments on one line."""
_CONTEXT_HEAD = """Every call carries "context", an object with these fields, all strings:"""


def as_functions(catalog: Catalog) -> list[dict[str, Any]]:
    """The tools in OpenAI's form, the context among their parameters."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.summary, "parameters": _schema(tool, catalog)},
        }
        for tool in catalog.tools.values()
    ]


def _schema(tool: Tool, catalog: Catalog) -> dict[str, Any]:
    schema = dict(tool.parameters)
    if catalog.context:
        schema["properties"] = {CONTEXT: catalog.context, **schema.get("properties", {})}
        schema["required"] = [CONTEXT, *schema.get("required", ())]
    return schema


def as_text(catalog: Catalog) -> str:
    """How to call, the fields of the context, and one line a tool: `name(required, [optional]): what it does`."""
    tools = [f"- {tool.name}({_signature(tool)}): {tool.summary}" for tool in catalog.tools.values()]
    return "\n".join([_HEAD, *_context_lines(catalog), "Tools:", *tools])


def _context_lines(catalog: Catalog) -> list[str]:
    if not catalog.context:
        return []
    fields = catalog.context.get("properties", {}).items()
    return [_CONTEXT_HEAD, *(f"- {name}: {schema.get('description', '')}" for name, schema in fields)]


_BEHAVIOR_HEAD = """If a value that is needed is missing, ask for it. If no tool can do what is asked, say so.
Before much is deleted or overwritten, say what would be lost and ask for a go-ahead."""


def few_tools_as_text(catalog: Catalog, tools: Sequence[str], question: str, answer: str) -> str:
    """How to call, the schemas of a few tools (none: what to do where none is to be called), and a worked example."""
    lines = [_HEAD, *_context_lines(catalog)]
    for name in tools:
        tool = catalog.tools[name]
        schema = json.dumps(tool.parameters, ensure_ascii=False, separators=(",", ":"))
        lines += [f"The tool {name}: {tool.summary}", f"Its arguments besides the context: {schema}"]
    if not tools:
        lines.append(_BEHAVIOR_HEAD)
    return "\n".join([*lines, "An example of another request and its right answer:", question, answer])


def _signature(tool: Tool) -> str:
    required = tool.parameters.get("required", ())
    properties: Mapping[str, Any] = tool.parameters.get("properties", {})
    shown = [_parameter(name, properties[name]) for name in properties if name in required]
    return ", ".join(
        [*shown, *(f"[{_parameter(name, properties[name])}]" for name in properties if name not in required)]
    )


def _parameter(name: str, schema: Any) -> str:
    return f"{name}: {_kind(schema)}"


def _kind(schema: Any) -> str:
    """What a value is: `string`, `a|b|c`, `[string]`, `{name: string, when: string}`."""
    if not isinstance(schema, Mapping):
        return "any"
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items'))}]"
    if schema.get("properties"):
        return "{" + ", ".join(_parameter(*one) for one in schema["properties"].items()) + "}"
    return str(schema.get("type", "any"))
