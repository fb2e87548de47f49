"""Reports and comparisons as one self-contained HTML file: no network, every text of a model escaped."""

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.errors import UsageError
from Evaluator.reports.text import describe_rate, model_name, test_name

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "pages"


def check_page(page: Path | None, others: Sequence[Path]) -> None:
    """Raise UsageError where the HTML page cannot be written, or would replace one of the `others`."""
    if page is None:
        return
    if page.is_dir() or not page.parent.is_dir():
        raise UsageError(f"--html {page}: there is no such folder, or it is one")
    if page.resolve() in {one.resolve() for one in others}:
        raise UsageError(f"--html {page} would replace another file of this command")
    if importlib.util.find_spec("jinja2") is None:
        raise UsageError('--html needs jinja2: pip install -e ".[report]"')


def report_page(report: Mapping[str, Any]) -> str:
    return (
        environment()
        .get_template("report.html.j2")
        .render(report=report, outcomes=[_shown(o) for o in report["prompts"]])
    )


def comparison_page(found: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Both reports side by side, prompt by prompt; those that flipped come first."""
    after = {outcome["id"]: _shown(outcome) for outcome in second["prompts"]}
    both = [(_shown(outcome), after[outcome["id"]]) for outcome in first["prompts"]]
    pairs = [(_flip(*pair, found), *pair) for pair in both]
    pairs.sort(key=lambda pair: pair[0] not in ("gained", "lost"))
    return environment().get_template("comparison.html.j2").render(found=found, pairs=pairs)


def _flip(before: Mapping[str, Any], after: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Where a prompt is counted in a comparison: by the shares of its samples that passed."""
    for name in ("gained", "lost"):
        if before["id"] in found[name]:
            return name
    return {0: "neither", len(after["samples"]): "both"}.get(after["num_passed"], "same")


def _shown(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt as the table shows it: its first sample, with the vault's changes as text."""
    sample = outcome["samples"][0]
    changes = json.dumps(sample["changes"], indent=1, ensure_ascii=False) if sample["changes"] else ""
    return {
        **outcome,
        "target": outcome["expected_tools"][0] if outcome["expected_tools"] else outcome["behavior"] or "",
        "passed": sample["label"],
        "num_passed": sum(one["label"] for one in outcome["samples"]),
        "sample": sample,
        "changes": changes,
    }


def environment(*folders: Path) -> "Environment":
    """The templates in `folders` and in FOLDER, with what they may use; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader

    made = Environment(
        loader=FileSystemLoader([*folders, FOLDER]), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(rate=describe_rate, percent=lambda value: f"{value:.1%}", heat=_heat)
    made.globals.update(model_name=model_name, test_name=test_name, columns_of=_columns)
    return made


def _heat(count: int, row: Mapping[str, int]) -> str:
    """The share of a row that a cell has, as an opacity on which its number can be read."""
    return f"{0.7 * count / max(1, sum(row.values())):.2f}"


def _columns(table: Mapping[str, Mapping[str, int]]) -> Sequence[str]:
    """All columns of a confusion table: first what is no row ("no call"), then those that are, in their order."""
    others = dict.fromkeys(name for row in table.values() for name in row if name not in table)
    return [*others, *(name for name in table if any(name in row for row in table.values()))]
