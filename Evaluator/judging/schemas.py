"""JSON Schemas (draft 2020-12) as labels need them: checked, closed against what they do not list, compiled."""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

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
    """Every reference must be a path into the schema itself: nothing is fetched while answers are judged."""
    if isinstance(schema, list):
        for item in schema:
            _check_references(item, root)
    if not isinstance(schema, dict):
        return
    for key in ("$ref", "$dynamicRef"):
        reference = schema.get(key)
        if isinstance(reference, str) and not isinstance(_target(reference, root), dict | bool):
            raise SchemaFault(f"there is no {reference} in it")
    for value in schema.values():
        _check_references(value, root)


def _target(reference: str, root: Any) -> Any:
    """What a reference such as `#/$defs/A` leads to, None for nothing: a JSON pointer as a fragment (RFC 6901)."""
    fragment = unquote(reference.removeprefix("#"))
    if not reference.startswith("#") or (fragment and not fragment.startswith("/")):
        return None
    target = root
    for part in fragment.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(target, list):
            target = target[int(key)] if key.isdecimal() and int(key) < len(target) else None
        else:
            target = target.get(key) if isinstance(target, dict) else None
    return target


# -- closed schemas ---------------------------------------------------------------------------------------------

_ALTERNATIVES = ("anyOf", "oneOf")
_REFINEMENTS = ("then", "else")
_DEFINITIONS = ("$defs", "definitions")
_DESCRIBING = {"$ref", "allOf", *_ALTERNATIVES}
_SAYS_ITSELF = {"additionalProperties", "unevaluatedProperties"}


def closed(schema: Any) -> Any:
    """The same schema, but refusing properties that it does not list.

    Servers ignore unknown parameters, so their schemas leave objects open; a label must not. An object schema that
    lists properties is closed unless it says something about additional ones itself. What is under `if` only asks,
    and stays as it is. Where `allOf`/`then` describe a nested object again, it is closed there and open in the base.
    A definition is closed where it is used, since beside other descriptions of a value it may not refuse theirs.
    """
    return _closed(schema, schema)


def _closed(schema: Any, root: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = _closed_inside(schema, root)
    if _lists_properties(schema, root) and not any(_SAYS_ITSELF & part.keys() for part in _parts(schema, root)):
        every_name_is_in_base = _listed(schema, root).keys() <= schema.get("properties", {}).keys()
        result["additionalProperties" if every_name_is_in_base else "unevaluatedProperties"] = False
    return result


def _closed_inside(schema: Any, root: Any, *, is_alone: bool = True) -> Any:
    """The schema with everything in it closed, but not the object itself.

    `is_alone` says whether no other schema describes the same value: then alternatives can be closed one by one.
    """
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    is_alone = is_alone and not _lists_properties(schema, root) and len(_DESCRIBING & schema.keys()) < 2
    described_again = {
        name for branch in _branches(schema, root) for name, is_object in _listed(branch, root).items() if is_object
    }
    if "properties" in schema:
        result["properties"] = {
            name: value if name in described_again else _closed(value, root)
            for name, value in schema["properties"].items()
        }
    for key in ("items", "additionalProperties"):
        if key in schema:
            result[key] = _closed(schema[key], root)
    if "prefixItems" in schema:
        result["prefixItems"] = [_closed(item, root) for item in schema["prefixItems"]]
    for key in _DEFINITIONS:
        if isinstance(schema.get(key), dict):
            result[key] = {name: _closed_inside(definition, root) for name, definition in schema[key].items()}
    for key in _ALTERNATIVES:
        if key in schema:
            close = _closed if is_alone else partial(_closed_inside, is_alone=False)
            result[key] = [close(branch, root) for branch in schema[key]]
    if "allOf" in schema:
        is_alone = is_alone and len(schema["allOf"]) == 1
        result["allOf"] = [_closed_inside(branch, root, is_alone=is_alone) for branch in schema["allOf"]]
    for key in _REFINEMENTS:
        if isinstance(schema.get(key), dict):
            result[key] = _closed_inside(schema[key], root, is_alone=False)
    return result


def _lists_properties(schema: Mapping[str, Any], root: Any) -> bool:
    """Whether a value that fits has its properties listed, whichever alternative it fits."""
    return any("properties" in part for part in _parts(schema, root))


def _parts(schema: Any, root: Any, inside: tuple[str, ...] = ()) -> Iterator[Mapping[str, Any]]:
    """The schema, and those in `allOf` and behind `$ref`, which hold for the same value always."""
    if not isinstance(schema, dict):
        return
    yield schema
    for branch in schema.get("allOf", ()):
        yield from _parts(branch, root, inside)
    reference = schema.get("$ref")
    if reference and reference not in inside:
        yield from _parts(_target(reference, root), root, (*inside, reference))


def _branches(schema: Mapping[str, Any], root: Any) -> Iterator[Mapping[str, Any]]:
    """The schemas inside this one, or behind its `$ref`, that describe the same value, always or at times."""
    for key in ("allOf", *_ALTERNATIVES):
        yield from (branch for branch in schema.get(key, ()) if isinstance(branch, dict))
    yield from (schema[key] for key in _REFINEMENTS if isinstance(schema.get(key), dict))
    target = _target(schema["$ref"], root) if "$ref" in schema else None
    if isinstance(target, dict):
        yield target


def _listed(schema: Mapping[str, Any], root: Any, inside: tuple[str, ...] = ()) -> dict[str, bool]:
    """Property names that a schema and its branches list, with whether they list properties of that property too."""
    listed = {
        name: isinstance(value, dict) and _lists_properties(value, root)
        for name, value in schema.get("properties", {}).items()
    }
    reference = schema.get("$ref")
    if reference in inside:
        return listed
    for branch in _branches(schema, root):
        for name, is_object in _listed(branch, root, (*inside, reference) if reference else inside).items():
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
