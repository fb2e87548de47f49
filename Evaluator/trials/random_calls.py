"""Random calls that fit a catalog: an agent that knows the schemas and nothing else.

It shows what a label is worth: over all prompts it must score nothing (see goal_checks), and its calls are the ones
that the schema check and the vault are tried on.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.judging.arguments import kind_of
from Evaluator.judging.schemas import ecma_pattern
from Evaluator.records import ToolCall
from Evaluator.vault.command_manager import COMMANDS
from Evaluator.vault.state import RECORD_TABLES, Vault

WORDS = ("notes", "plan", "new", "meeting", "list", "draft", "today", "summary", "old", "project", "ideas", "report")
_DATES = ("2026-01-31", "2026-09-01", "2026-12-24")
_SHAPED = ("Images/picture.png", "description", "name", *_DATES)
_OPTIONAL_SHARE = 0.3
_TRIES = 50


def random_call(
    catalog: Catalog, vault: Vault | None, rng: random.Random, context: Mapping[str, Any] | None = None, tool: str = ""
) -> ToolCall:
    """A call of `tool` (default: any) whose arguments fit its schema, with names from the vault and random words.

    `context` is used as it is; without one a context that fits is made. Raises ValueError where no arguments are found.
    """
    name = tool or rng.choice(list(catalog.tools))
    maker = _Maker(rng, _names(vault) if vault else {})
    arguments = maker.fitting(catalog.tools[name].validator, catalog.tools[name].parameters)
    if catalog.context:
        made = context if context is not None else maker.fitting(catalog.context_validator, catalog.context)
        arguments = {CONTEXT: made, **arguments}
    return ToolCall(name, arguments)


def _names(vault: Vault) -> dict[str, list[str]]:
    """What a call may name, by kind (see arguments.kind_of)."""
    records = [record for table in RECORD_TABLES for record in getattr(vault, table).values()]
    return {
        "path": [*vault.notes, *vault.folders],
        "id": [*vault.ids, *COMMANDS],
        "name": [str(record["name"]) for record in records if "name" in record],
    }


class _Maker:
    """Makes values for the keywords that tool schemas use; what does not fit in the end is tried again."""

    def __init__(self, rng: random.Random, names: Mapping[str, Sequence[str]]) -> None:
        self._rng = rng
        self._names = names

    def fitting(self, validator: Any, schema: Mapping[str, Any]) -> Any:
        for _ in range(_TRIES):
            value = self.value(schema)
            if validator.is_valid(value):
                return value
        raise ValueError("no value that fits the schema was found")

    def value(self, schema: Any, name: str = "") -> Any:
        if not isinstance(schema, Mapping) or not schema:
            return self._rng.choice([self._text(name), self._rng.randint(0, 9), True, None])
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._rng.choice(schema["enum"])
        if "oneOf" in schema and "type" not in schema:
            return self.value(self._rng.choice(schema["oneOf"]), name)
        kinds = schema.get("type", "object")
        kind = self._rng.choice(kinds) if isinstance(kinds, list) else kinds
        return _MAKERS[kind](self, schema, name)

    def _object(self, schema: Mapping[str, Any], name: str) -> dict[str, Any]:
        parts = [schema]
        if "anyOf" in schema:
            parts.append(self._rng.choice(schema["anyOf"]))
        made: dict[str, Any] = {}
        for part in parts:
            made = self._filled(made, part, schema.get("properties", {}))
        for branch in schema.get("allOf", ()):
            tested = branch.get("if", {}).get("properties", {})
            if all(made.get(key) == test.get("const", made.get(key)) for key, test in tested.items()):
                then = branch.get("then", branch)
                for key in then.get("properties", {}):
                    made.pop(key, None)
                made = self._filled(
                    made, {"required": list(then.get("properties", ())), **then}, schema.get("properties", {})
                )
        return made

    def _filled(self, made: dict[str, Any], part: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
        properties = {**known, **part.get("properties", {})}
        required = {*part.get("required", ()), *(set(part.get("properties", ())) - set(known))}
        wanted = {
            key
            for key in properties
            if key in required or (key in part.get("properties", ()) and self._rng.random() < _OPTIONAL_SHARE)
        }
        return made | {key: self.value(properties[key], key) for key in properties if key in wanted and key not in made}

    def _array(self, schema: Mapping[str, Any], name: str) -> list[Any]:
        least = schema.get("minItems", 0)
        return [self.value(schema.get("items", {}), name) for _ in range(self._rng.randint(max(1, least), least + 2))]

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        if schema.get("format") == "date":
            return self._rng.choice(_DATES)
        if "pattern" in schema:
            return self._matching(ecma_pattern(schema["pattern"]), name)
        return self._text(name)[: schema.get("maxLength")]

    def _matching(self, pattern: re.Pattern[str], name: str) -> str:
        made = [
            f"{prefix}_{self._rng.randrange(10**12, 10**13)}_{self._letters(9)}"
            for prefix in ("session", "ws", "state")
        ]
        fitting = [text for text in (*_SHAPED, *made, self._text(name)) if pattern.search(text)]
        return self._rng.choice(fitting or [""])

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))

    def _text(self, name: str) -> str:
        named = self._names.get(kind_of(name, ""), ())
        return (
            self._rng.choice(named) if named and self._rng.random() < 0.8 else " ".join(self._rng.choices(WORDS, k=3))
        )

    def _number(self, schema: Mapping[str, Any], name: str) -> float:
        low = schema.get("minimum", 0)
        high = schema.get("maximum", low + 20)
        return self._rng.randint(int(low), int(high)) if high - low >= 1 else self._rng.uniform(low, high)

    def _boolean(self, schema: Mapping[str, Any], name: str) -> bool:
        return self._rng.random() < 0.5

    def _null(self, schema: Mapping[str, Any], name: str) -> None:
        return None


_MAKERS = {
    "object": _Maker._object,
    "array": _Maker._array,
    "string": _Maker._string,
    "number": _Maker._number,
    "integer": _Maker._number,
    "boolean": _Maker._boolean,
    "null": _Maker._null,
}
