"""JSON Schemas (draft 2020-12) as labels need them: checked, closed against what they do not list, compiled."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
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
    if "$dynamicRef" in schema:
        raise SchemaFault("$dynamicRef is not understood here, $ref is")
    reference = schema.get("$ref")
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

_ALTERNATIVES = {"anyOf", "oneOf"}
_REFINEMENTS = {"then", "else"}
_DEFINITIONS = ("$defs", "definitions")
_OF_OTHER_VALUES = ("items", "additionalProperties", "unevaluatedItems", "unevaluatedProperties")
_SAYS_ITSELF = {"additionalProperties", "unevaluatedProperties"}
_DESCRIBING = {"properties", "allOf", "$ref"} | _ALTERNATIVES | _REFINEMENTS | _SAYS_ITSELF


def closed(schema: Any) -> Any:
    """The same schema, but refusing properties that it does not list.

    Servers ignore unknown parameters, so their schemas leave objects open; a label must not. An object that some schema
    for it lists properties of is closed unless one says something about additional ones itself. So a definition is
    closed where it is used: beside other descriptions of a value it may not refuse theirs. What is under `if` only
    asks, and stays as it is. Where `allOf`/`then` describe a nested object again, it is closed there and open in the
    base.
    """
    return _closed(schema, schema)


def _closed(schema: Any, root: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    result = _closed_inside(schema, root)
    describing = _DESCRIBING & schema.keys()
    if len(describing) == 1 and describing <= _ALTERNATIVES:  # each of them describes the value alone
        key = describing.pop()
        return {**result, key: [_closed(branch, root) for branch in schema[key]]}
    if any(_SAYS_ITSELF & one.keys() for one in _descriptions(schema, root, at_times=False)):
        return result
    if any("properties" in one for one in _descriptions(schema, root)):
        every_name_is_in_base = _listed(schema, root).keys() <= schema.get("properties", {}).keys()
        result["additionalProperties" if every_name_is_in_base else "unevaluatedProperties"] = False
    return result


def _closed_inside(schema: Any, root: Any) -> Any:
    """The schema with everything in it closed, but not the object itself."""
    if not isinstance(schema, dict):
        return schema
    result = dict(schema)
    others = [one for one in _descriptions(schema, root) if one is not schema]
    described_again = {name for one in others for name, is_object in _own_names(one, root).items() if is_object}
    if "properties" in schema:
        result["properties"] = {
            name: value if name in described_again else _closed(value, root)
            for name, value in schema["properties"].items()
        }
    for key in _OF_OTHER_VALUES:
        if key in schema:
            result[key] = _closed(schema[key], root)
    if "prefixItems" in schema:
        result["prefixItems"] = [_closed(item, root) for item in schema["prefixItems"]]
    if "patternProperties" in schema:
        result["patternProperties"] = {name: _closed(one, root) for name, one in schema["patternProperties"].items()}
    for key in _DEFINITIONS:
        if isinstance(schema.get(key), dict):
            result[key] = {name: _closed_inside(definition, root) for name, definition in schema[key].items()}
    if "allOf" in schema:
        result["allOf"] = [_closed_inside(branch, root) for branch in schema["allOf"]]
    for key in _REFINEMENTS:
        if key in schema:
            result[key] = _closed_inside(schema[key], root)
    is_listed = any("properties" in one for one in _descriptions(schema, root, at_times=False))
    for key in _ALTERNATIVES:
        if key in schema:
            branches = [_closed_inside(branch, root) for branch in schema[key]]
            result[key] = branches if is_listed else [_open_if_any(branch, root) for branch in branches]
    return result


def _open_if_any(branch: Any, root: Any) -> Any:
    """An alternative that is any object says so: the names that another one lists are not all there may be."""
    some = list(_descriptions(branch, root))
    is_object = any("object" in (one.get("type"), *_list_of_types(one)) for one in some)
    is_any = is_object and not any({"properties", *_SAYS_ITSELF} & one.keys() for one in some)
    return {**branch, "additionalProperties": True} if is_any else branch


def _list_of_types(schema: Mapping[str, Any]) -> Sequence[str]:
    return schema["type"] if isinstance(schema.get("type"), list) else ()


def _descriptions(schema: Any, root: Any, *, at_times: bool = True) -> Iterator[Mapping[str, Any]]:
    """The schema and all others, inside and behind `$ref`, that describe the same value: always, or `at_times`."""
    left, followed = [schema], set()
    while left:
        one = left.pop()
        if not isinstance(one, dict):
            continue
        yield one
        left += one.get("allOf", ())
        if at_times:
            left += [branch for key in _ALTERNATIVES for branch in one.get(key, ())]
            left += [one[key] for key in _REFINEMENTS if key in one]
        reference = one.get("$ref")
        if reference and reference not in followed:
            followed.add(reference)
            left.append(_target(reference, root))


def _listed(schema: Any, root: Any) -> dict[str, bool]:
    """All property names that are listed for a value, with whether properties of that property are listed too."""
    listed: dict[str, bool] = {}
    for one in _descriptions(schema, root):
        for name, is_object in _own_names(one, root).items():
            listed[name] = listed.get(name, False) or is_object
    return listed


def _own_names(schema: Mapping[str, Any], root: Any) -> dict[str, bool]:
    return {
        name: any("properties" in one for one in _descriptions(value, root, at_times=False))
        for name, value in schema.get("properties", {}).items()
    }


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
