"""All rounds of a loop as one self-contained HTML file: no network, plots as inline SVG."""

from collections.abc import Sequence
from pathlib import Path

from Evaluator.reports.page import environment
from Tools.loop.results import RoundResult
from Tools.report.page import FOLDER as DATASET_PAGES
from Tools.report.page import add_filters

FOLDER = Path(__file__).parent / "pages"


def loop_page(rounds: Sequence[RoundResult], base: str, end: str | None) -> str:
    """`end` says why the loop is over, None while it goes on."""
    templates = environment(FOLDER, DATASET_PAGES)
    add_filters(templates)
    kept = [one for one in rounds if not one.reasons][-1]
    latest = next((one.data for one in reversed(rounds) if one.data), None)
    return templates.get_template("loop.html.j2").render(
        rounds=rounds,
        best=kept,
        base=base,
        end=end,
        data=latest,
        pass_rates={f"round {one.number}": one.measured.pass_rate for one in rounds},
        no_call={f"round {one.number}": one.measured.no_call for one in rounds},
        labels_by_round={f"round {name}": one for name, one in (latest["rounds"] if latest else {}).items()},
    )
