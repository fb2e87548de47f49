"""Counts as a file, so that rows that were counted once need not be read again."""

import base64
import gzip
import json
import sys
import zlib
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Tools.duplicates import PERMUTATIONS
from Tools.report.counts import Counts

SUFFIX = ".counts.json.gz"
FORMAT = 2


def is_counts_file(name: str) -> bool:
    return name.endswith(SUFFIX)


def to_bytes(counts: Counts) -> bytes:
    signed = {key: one for key, one in counts.signatures.items() if one}
    data = {
        "format": FORMAT,
        "made_with": counts.made_with,
        "tally": [[*key, count] for key, count in counts.tally.items()],
        "hashes": {name: _packed(values) for name, values in counts.hashes.items()},
        "signed": _packed(array("Q", signed)),
        "signatures": base64.b64encode(b"".join(signed.values())).decode(),
        "unsigned": _packed(array("Q", counts.signatures.keys() - signed.keys())),
        "sample": counts.sample.pairs(),
        "overlaps": counts.overlaps.pairs(),
    }
    return gzip.compress(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"), 6, mtime=0)


def load_counts(path: Path, made_with: Mapping[str, Any]) -> Counts:
    """Read what to_bytes() wrote. Raises UsageError where it is something else, or was counted against other things."""
    try:
        data = json.loads(gzip.decompress(path.read_bytes()))
        if data["format"] != FORMAT:
            raise ValueError(f"it has format {data['format']}, this program reads {FORMAT}")
        differing = [name for name, value in made_with.items() if data["made_with"].get(name) != value]
        counts = _counts_from(data)
    except FileNotFoundError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file that --save wrote: {error}") from error
    if differing:
        raise UsageError(f"{path} was counted with another {' and '.join(differing)}: count its rows again")
    return counts


def _counts_from(data: Mapping[str, Any]) -> Counts:
    counts = Counts(data["made_with"])
    for *key, count in data["tally"]:
        counts.tally[tuple(key)] = count
    for name, packed in data["hashes"].items():
        counts.hashes[name] = _unpacked(packed)
    signatures = base64.b64decode(data["signatures"])
    for index, key in enumerate(_unpacked(data["signed"])):
        counts.signatures[key] = signatures[index * PERMUTATIONS : (index + 1) * PERMUTATIONS]
    counts.signatures.update(dict.fromkeys(_unpacked(data["unsigned"]), b""))
    for smallest, pairs in ((counts.sample, data["sample"]), (counts.overlaps, data["overlaps"])):
        for key, item in pairs:
            smallest.add(key, item)
    return counts


def _packed(values: array) -> str:
    """64-bit numbers, the least significant byte first."""
    if sys.byteorder == "big":
        values = array("Q", values)
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode()


def _unpacked(text: str) -> array:
    values = array("Q", base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return values
