"""A dataset card for a model hub: YAML front matter that `datasets` reads, then the main figures.

The form is that of huggingface.co/docs/hub/datasets-cards. JSON is YAML, so strings are written as JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.records import CHECKS
from Tools.report.limits import Broken
from Tools.report.text import named_counts, percent, plain

_SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"),
)  # fmt: skip
"""The hub's size categories, up to 100 million rows."""
TAGS = ("tool-calling", "function-calling", "synthetic", "kto", "sft")


def check_card(card: Path | None, license_id: str | None, files: Sequence[str]) -> None:
    """Raise UsageError where the licence is no identifier, or there is no card to name it, or two of the files are one
    on the hub."""
    if license_id and not card:
        raise UsageError("--license is for the card: give --card too")
    if license_id and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license_id):
        raise UsageError(f"--license {license_id!r} is no identifier of a licence such as cc-by-4.0, mit or other")
    paths = _data_paths(card, {Path(name).resolve() for name in files}) if card else []
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise UsageError(f"two files would both be {twice} beside the card: rename one, or put the card above both")


def make_card(
    numbers: Mapping[str, Any], broken: Sequence[Broken], files: Sequence[str], card: Path, license_id: str | None
) -> str:
    name = _name(card)
    front = ["---", *_front_matter(numbers, files, card, license_id), "---"]
    return "\n".join([*front, "", f"# {name}", "", *_body(numbers, broken), ""])


def _name(card: Path) -> str:
    """The name of the card's folder, as a hub names a dataset; that of the file where it is no README."""
    stem = card.stem if card.stem.lower() != "readme" else card.resolve().parent.name
    return re.sub(r"[^\w .-]", "", stem) or "Dataset"


def _front_matter(
    numbers: Mapping[str, Any], files: Sequence[str], card: Path, license_id: str | None
) -> Iterator[str]:
    if license_id:
        yield f"license: {json.dumps(license_id)}"
    yield from ("language:", '- "en"', "task_categories:", '- "text-generation"')
    yield from ("size_categories:", f"- {json.dumps(size_category(numbers['rows']))}")
    yield from ("tags:", *(f"- {json.dumps(tag)}" for tag in TAGS))
    paths = _data_paths(card, map(Path, files))
    if paths:
        yield from ("configs:", '- config_name: "default"', "  data_files:", '  - split: "train"', "    path:")
        yield from (f"    - {json.dumps(path)}" for path in dict.fromkeys(paths))


def _data_paths(card: Path, files: Iterable[Path]) -> list[str]:
    return [_path_beside(card, file) for file in files if file.suffix in (".jsonl", ".json")]


def _path_beside(card: Path, file: Path) -> str:
    """The file's path as the hub sees it: from the card's folder down, else its name."""
    folder, path = card.resolve().parent, file.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else file.name


def size_category(rows: int) -> str:
    return next((name for limit, name in _SIZES if rows < limit), "100M<n<1B")


def _body(numbers: Mapping[str, Any], broken: Sequence[Broken]) -> Iterator[str]:
    labels, tools, behavior = numbers["labels"], numbers["tools"], numbers["behavior"]
    duplicates, overlap = numbers["duplicates"], numbers["evaluation_overlap"]
    yield (
        f"{numbers['rows']} conversations with tool calls, {labels['true']} labelled true (right), {labels['false']} "
        f"false (wrong). A row has `conversations`, `label` and `metadata`."
    )
    yield from ("", "| figure | value |", "|---|---|")
    yield f"| tools called in right rows | {tools['covered']} of {tools['in_catalog']} |"
    yield f"| effective number of tools | {plain(tools['effective'])} |"
    yield f"| the tool that was asked for is called | {percent(tools['agreement'])} |"
    yield f"| rows about asking, refusing, confirming | {percent(behavior['share'])} |"
    yield f"| requests repeated, or nearly so | {percent(duplicates['exact'])}, {percent(duplicates['near'])} |"
    yield f"| like an evaluation prompt | {overlap['rows']} rows |"
    yield f"| label told from the length alone | AUC {plain(numbers['length']['auc'])} |"
    weights = ", ".join(plain(labels["kto"][f"{kind}_weight"]) for kind in ("desirable", "undesirable"))
    yield f"| KTO weights, desirable and undesirable | {weights} |"
    for name in ("source", "prompt_method", "model", "prompt_model", "catalog", "generator"):
        if sum(numbers["provenance"][name].values()):
            yield f"| {name.replace('_', ' ')} | {_cell(named_counts(numbers['provenance'][name]))} |"
    if numbers["funnel"]["judged"]:
        yield from ("", "| check | made | passed |", "|---|---|---|")
    for check in CHECKS if numbers["funnel"]["judged"] else ():
        one = numbers["funnel"][check]
        yield f"| {check} | {one['made']} | {one['passed']} ({percent(one['rate'])}) |"
    if broken:
        yield from ("", "Limits that this data breaks:", "", *(f"- {one.sentence}" for one in broken))


def _cell(text: str) -> str:
    """A text that cannot leave its cell of a table, nor be read as Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
