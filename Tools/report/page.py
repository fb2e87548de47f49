"""The report as one self-contained HTML file with plots as inline SVG: no network, every text of a row escaped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Evaluator.records import CHECKS
from Evaluator.reports.page import environment
from Tools.report.limits import Broken, NotChecked
from Tools.report.text import named_counts, percent, plain

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "pages"


def dataset_page(
    numbers: Mapping[str, Any], broken: Sequence[Broken], not_checked: Sequence[NotChecked], files: Sequence[str]
) -> str:
    templates = environment(FOLDER)
    add_filters(templates)
    tools = {name: one for name, one in numbers["labels"]["by_tool"].items() if _total(one)}
    return templates.get_template("dataset.html.j2").render(
        data=numbers,
        broken=broken,
        not_checked=not_checked,
        title=", ".join("stdin" if name == "-" else Path(name).name for name in files),
        checks={name: numbers["funnel"][name] for name in CHECKS},
        tools=dict(sorted(tools.items(), key=lambda item: (-_total(item[1]), item[0]))),
        silent=[name for name, one in numbers["labels"]["by_tool"].items() if not _total(one)],
    )


def add_filters(templates: "Environment") -> None:
    """What the templates in FOLDER use beside the Evaluator's."""
    templates.filters.update(share=percent, plain=plain, counts=named_counts, sum_labels=_total)


def _total(balance: Mapping[str, int]) -> int:
    return balance["true"] + balance["false"] + balance["none"]
