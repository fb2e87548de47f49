"""When a loop stops: a round that was no significant gain, or that lost tools or the ability to make no call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_EFFECTIVE_TOOLS = 0.95
"""Share of round 0's effective number of tools that has to be left."""
MOST_NO_CALL_POINTS = 2.0
"""Points that the rate of right answers without a call may be under round 0's."""


@dataclass(frozen=True)
class Measured:
    """What a round's model came to. Rates are {"rate", "low", "high", "passed", "total"}, shares of 1.

    `effective_tools` is the effective number of tools in right answers to the held-out prompts, None without any;
    `no_call` the rate of right answers where no tool is to be called (ask, refuse, confirm).
    """

    pass_rate: Mapping[str, float]
    effective_tools: float | None
    no_call: Mapping[str, float]


def reasons_to_stop(first: Measured, now: Measured, comparison: Mapping[str, Any], max_p: float) -> Sequence[str]:
    """Why a round is not kept and the loop ends, in sentences; none where it goes on.

    `first` is round 0, `comparison` that with the round before (see Evaluator.reports.compare).
    """
    reasons = []
    points, p = 100 * comparison["difference"], comparison["p"]
    if not (points > 0 and p <= max_p):
        reasons.append(f"the pass rate changed by {points:+.1f} points, p = {p:.2g}: no significant gain")
    tools, tools_first = now.effective_tools or 0.0, first.effective_tools or 0.0
    if tools < LEAST_EFFECTIVE_TOOLS * tools_first:
        reasons.append(
            f"right answers are as varied as {tools:.1f} equally common tools, under {LEAST_EFFECTIVE_TOOLS:g} of "
            f"round 0's {tools_first:.1f}"
        )
    lost = 100 * (first.no_call["rate"] - now.no_call["rate"])
    if lost > MOST_NO_CALL_POINTS + 1e-9:
        reasons.append(
            f"right answers without a call are {lost:.1f} points rarer than in round 0, more than "
            f"{MOST_NO_CALL_POINTS:g}"
        )
    return reasons
