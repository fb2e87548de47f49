"""The types of a row for the `datasets` package, which otherwise guesses them from the first file's first lines.

    load_dataset("json", data_files=["a.jsonl", "b.jsonl"], features=Features.from_dict(ROW_FEATURES))

A key that is null, or a list that is empty, in all of those lines would get no type, and the next file would not fit.
"""

import typing
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

from Evaluator.records import CHECKS, SampleMetadata

_VALUES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def _value(kind: type) -> dict[str, Any]:
    return {"dtype": _VALUES[kind], "_type": "Value"}


def _list(feature: Mapping[str, Any]) -> dict[str, Any]:
    return {"feature": feature, "_type": "List"}


def _feature(annotation: Any) -> dict[str, Any]:
    """The feature of a field of SampleMetadata: a value, null or not, a list of texts, or the checks."""
    if annotation in _VALUES:
        return _value(annotation)
    if typing.get_origin(annotation) is Sequence:
        return _list(_value(str))
    if typing.get_origin(annotation) is Mapping:
        return {check: _value(bool) for check in CHECKS}
    (kind,) = set(typing.get_args(annotation)) - {NoneType}
    return _value(kind)


_FUNCTION = {"name": _value(str), "arguments": _value(str)}
_TOOL_CALL = {"id": _value(str), "type": _value(str), "function": _FUNCTION}
_MESSAGE = {"role": _value(str), "content": _value(str), "tool_calls": _list(_TOOL_CALL)}
ROW_FEATURES: Mapping[str, Any] = {
    "conversations": _list(_MESSAGE),
    "label": _value(bool),
    "metadata": {name: _feature(kind) for name, kind in typing.get_type_hints(SampleMetadata).items()},
}
"""In the form of `datasets.Features.to_dict()`."""
