"""JSON Schemas (draft 2020-12) as labels need them: checked, closed against what they do not list, compiled."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker, ValidationError


class SchemaFault(Exception):
    """Why something is no usable schema; the sentence does not know where it stands."""


def check_schema(schema: Any) -> None:
    """Raise SchemaFault unless `schema` is a valid schema of draft 2020-12 that needs no other document."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise SchemaFault(f"no JSON Schema 2020-12 at {error.json_path}: {error.message}") from error
    _check_references(schema, schema)


def _check_references(schema: Any, root: Any) -> None:
    """Every `$ref` must point into the schema itself: nothing is fetched while answers are judged."""
    if isinstance(schema, list):
        for item in schema:
            _check_references(item, root)
    if not isinstance(schema, dict):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = root
        for part in reference.removeprefix("#").split("/")[1:]:
            target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, dict) else None
        if not reference.startswith("#") or target is None:
            raise SchemaFault(f"there is no {reference} in it")
    for value in schema.values():
        _check_references(value, root)


# -- closed schemas ---------------------------------------------------------------------------------------------

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


# -- compiled schemas ---------------------------------------------------------------------------------------------


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


def compile_schema(schema: Mapping[str, Any]) -> "Draft202012Validator":
    """A validator of draft 2020-12, with patterns as ECMA-262 means them and `format: date` enforced."""
    validator_class, formats = _validator_class()
    return validator_class(schema, format_checker=formats)
