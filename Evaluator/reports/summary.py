"""The numbers of an evaluation: pass rates with intervals, the funnel, tables by tool, confusion, codes, cost."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from Evaluator.intervals import wilson_interval
from Evaluator.judging.behavior import BEHAVIORS, OTHER
from Evaluator.records import CHECKS

NO_CALL, UNREADABLE, NO_SUCH_TOOL = "(no call)", "(unreadable)", "(no such tool)"
Outcome = Mapping[str, Any]
"""One prompt of a report with its samples (see report._outcome)."""


def summarize(outcomes: Sequence[Outcome], tools: Collection[str]) -> dict[str, Any]:
    """All numbers over the outcomes; `tools` are the catalog's. Rates are shares of 1; with several samples a prompt
    counts by its share."""
    samples = [sample for outcome in outcomes for sample in outcome["samples"]]
    return {
        "num_prompts": len(outcomes),
        "num_samples": len(samples),
        "pass_rate": rate(outcomes),
        "pass_at_k": {str(k): pass_at_k(outcomes, k) for k in _ks(outcomes)},
        "pass_hat_k": {str(k): pass_hat_k(outcomes, k) for k in _ks(outcomes)},
        "funnel": funnel(samples),
        "tools": _by(outcomes, _target),
        "managers": _by(outcomes, lambda outcome: outcome["manager"] or _target(outcome)),
        "confusion": tool_confusion(outcomes, tools),
        "behaviors": behavior_confusion(outcomes),
        "errors": dict(Counter(code for sample in samples for code in sample["errors"]).most_common()),
    }


def rate(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """The share of prompts passed with Wilson's 95 % interval: {"rate", "low", "high", "passed", "total"}."""
    shares = [_share(outcome) for outcome in outcomes]
    low, high = wilson_interval(sum(shares), len(shares))
    return {"rate": _mean(shares), "low": low, "high": high, "passed": sum(shares), "total": len(shares)}


def _share(outcome: Outcome) -> float:
    return _mean([sample["label"] for sample in outcome["samples"]])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _ks(outcomes: Sequence[Outcome]) -> list[int]:
    """1, 2, 4 ... up to the number of samples that every prompt has."""
    most = min((len(outcome["samples"]) for outcome in outcomes), default=1)
    return [k for k in (1, 2, 4, 8, 16, 32, 64) if k < most] + [most]


def pass_at_k(outcomes: Iterable[Outcome], k: int) -> float:
    """Mean chance that one of k samples passes: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374)."""
    return _mean([1 - _choose(n - c, k) / _choose(n, k) for n, c in map(_counts, outcomes)])


def pass_hat_k(outcomes: Iterable[Outcome], k: int) -> float:
    """Mean chance that all of k samples pass: C(c, k) / C(n, k) (Yao et al. 2024, arXiv 2406.12045)."""
    return _mean([_choose(c, k) / _choose(n, k) for n, c in map(_counts, outcomes)])


def _counts(outcome: Outcome) -> tuple[int, int]:
    return len(outcome["samples"]), sum(sample["label"] for sample in outcome["samples"])


def _choose(n: int, k: int) -> int:
    return math.comb(n, k) if n >= k else 0


def funnel(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each check: how many samples it was made for, how many passed it, how many are still in at that point."""
    steps, left = [], len(samples)
    for check in CHECKS:
        made = [sample["checks"][check] for sample in samples if sample["checks"][check] is not None]
        left -= made.count(False)
        steps.append({"check": check, "made": len(made), "passed": made.count(True), "left": left})
    return steps


def _with_tool(outcomes: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome["expected_tools"]]


def _target(outcome: Outcome) -> str:
    return str(outcome["expected_tools"][0])


def _by(outcomes: Sequence[Outcome], key: Any) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in _with_tool(outcomes):
        groups.setdefault(key(outcome), []).append(outcome)
    return {name: rate(group) for name, group in groups.items()}


def tool_confusion(outcomes: Sequence[Outcome], tools: Collection[str]) -> dict[str, dict[str, int]]:
    """Asked tool -> called tool -> samples; the first call counts, one of none of the catalog's `tools` as such."""
    table: dict[str, Counter[str]] = {}
    for outcome in _with_tool(outcomes):
        row = table.setdefault(_target(outcome), Counter())
        row.update(_called(sample, tools) for sample in outcome["samples"])
    return {name: dict(row.most_common()) for name, row in table.items()}


def _called(sample: Mapping[str, Any], tools: Collection[str]) -> str:
    if sample["called_tools"]:
        first = str(sample["called_tools"][0])
        return first if first in tools else NO_SUCH_TOOL
    return NO_CALL if sample["checks"]["parse"] or sample["errors"] == ["parse.no_tool_call"] else UNREADABLE


def behavior_confusion(outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]] | None:
    """Right behaviour -> behaviour of the answer -> samples; None where no prompt says what is right."""
    asked = [outcome for outcome in outcomes if outcome["behavior"]]
    if not asked:
        return None
    table = {right: dict.fromkeys((*BEHAVIORS, OTHER), 0) for right in BEHAVIORS}
    for outcome in asked:
        for sample in outcome["samples"]:
            table[outcome["behavior"]][sample["behavior"] or OTHER] += 1
    return table


def cost(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens and seconds of the answers, from the metadata of their rows."""
    latencies = sorted(row["latency_s"] for row in rows)
    tokens = [row["completion_tokens"] for row in rows if row["completion_tokens"] is not None]
    return {
        "prompt_tokens": sum(row["prompt_tokens"] or 0 for row in rows),
        "completion_tokens": sum(tokens),
        "median_completion_tokens": median(tokens) if tokens else None,
        "median_latency_s": round(median(latencies), 3) if latencies else 0.0,
        "p95_latency_s": latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))] if latencies else 0.0,
    }
