"""What the strings in a call's arguments are, told by the names of the fields that hold them, for any catalog."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PATH = re.compile(r"(?<!^field)(?:path|folder|file)s?$", re.IGNORECASE)
_ID = re.compile(r"^ids?$|Ids?$|ID$|_id$")
_NAME = re.compile(
    r"(?:name|\w*Name|agent|provider|model|query|filter|pattern|\w*[tT]ags|tools|managers|findText|oldContent|fieldPath)"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def named_strings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every string in an argument with the name of the field that holds it."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from named_strings(key, one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from named_strings(name, one)


def kind_of(name: str, text: str) -> str:
    """What a string in the field `name` is: a path, an id, a date, a name, or free text."""
    if _DATE.fullmatch(text):
        return "date"
    if _PATH.search(name):
        return "path"
    if _ID.search(name):
        return "id"
    return "name" if _NAME.fullmatch(name) else "free"
