"""What came of a round: read from the reports that its commands made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from Evaluator.judging.behavior import CALL
from Evaluator.reports.report import load_report
from Evaluator.reports.summary import rate
from Tools.loop.commands import BEHAVIOR, HELDOUT
from Tools.loop.stopping import Measured, reasons_to_stop


@dataclass(frozen=True)
class RoundResult:
    """Everything that the page shows of a round; `comparison` and `data` are None for round 0, which has no data.

    `reasons` say why the round is not kept. `behaviors` are rates by right behaviour, `funnel` that of the held-out
    prompts, `data` the numbers of dataset_report.py over all rows so far.
    """

    number: int
    measured: Measured
    reasons: Sequence[str]
    funnel: Sequence[Mapping[str, Any]]
    behaviors: Mapping[str, Mapping[str, float]]
    tools_right: int
    comparison: Mapping[str, Any] | None
    data: Mapping[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        """As rounds.json has it; the comparison without its lists of prompts."""
        shown = ("difference", "low", "high", "p", "pairs", "num_prompts")
        comparison = {name: self.comparison[name] for name in shown} if self.comparison else None
        return {**asdict(self), "comparison": comparison, "is_kept": not self.reasons}


def read_result(
    number: int,
    reports: Mapping[str, Path],
    numbers: Path,
    *,
    first: Measured | None = None,
    comparison: Path | None = None,
    data: Path | None = None,
    max_p: float = 0.05,
) -> RoundResult:
    """The result of a round. `reports` by HELDOUT and BEHAVIOR, `numbers` of the held-out answers.

    All but round 0 are judged against `first`, round 0. Raises UsageError where a report cannot be read.
    """
    heldout, behavior = (load_report(reports[name]) for name in (HELDOUT, BEHAVIOR))
    answers = json.loads(numbers.read_bytes())["tools"]
    measured = Measured(
        pass_rate=heldout["summary"]["pass_rate"],
        effective_tools=answers["effective"],
        no_call=rate(one for one in behavior["prompts"] if one["behavior"] not in (None, CALL)),
    )
    compared = json.loads(comparison.read_bytes()) if comparison else None
    kinds = dict.fromkeys(one["behavior"] for one in behavior["prompts"] if one["behavior"])
    return RoundResult(
        number=number,
        measured=measured,
        reasons=reasons_to_stop(first, measured, compared, max_p) if first and compared else (),
        funnel=heldout["summary"]["funnel"],
        behaviors={kind: rate(one for one in behavior["prompts"] if one["behavior"] == kind) for kind in kinds},
        tools_right=answers["covered"],
        comparison=compared,
        data=json.loads(data.read_bytes()) if data else None,
    )
