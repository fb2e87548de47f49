"""Two reports on the same prompts: did it get better, and is the difference more than chance?"""

import math
from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.intervals import Z95, mcnemar_p, paired_difference_interval
from Evaluator.reports.summary import rate

_SETTINGS = ("tools_told", "temperature", "top_p", "max_tokens", "seed")
"""What may differ between reports and has to be told."""
_MUST_AGREE = {
    "prompt_set": "prompt sets",
    "catalog": "catalogs",
    "validator": "validators",
    "execute": "ways to judge, one without --execute,",
    "num_samples_per_prompt": "numbers of samples a prompt",
}


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The paired comparison of two complete reports, second minus first.

    With one sample a prompt: Newcombe's interval and McNemar's exact test. With several: the mean of the prompts'
    differences with the interval of paired_difference(), and the exact sign test over the prompts. Raises UsageError
    where they were not made with the same prompts, catalog, validator and number of samples.
    """
    for key, name in _MUST_AGREE.items():
        if first.get(key) != second.get(key):
            raise UsageError(f"the reports are of different {name} and cannot be compared")
    before, after = _shares(first), _shares(second)
    if before.keys() != after.keys() or not (first["is_complete"] and second["is_complete"]):
        raise UsageError("one of the reports is not complete: run its evaluation again to go on with it")
    found = paired_difference(before, after)
    return {
        "first": _about(first),
        "second": _about(second),
        "settings": {key: [first.get(key), second.get(key)] for key in _SETTINGS if first.get(key) != second.get(key)},
        "num_prompts": len(before),
        "num_samples_per_prompt": first["num_samples_per_prompt"],
        **found,
        "p": mcnemar_p(len(found["lost"]), len(found["gained"])),
        "tools": _by_tool(first, second),
    }


def _shares(report: Mapping[str, Any]) -> dict[str, float]:
    """Prompt -> share of its samples that passed."""
    return {
        outcome["id"]: sum(one["label"] for one in outcome["samples"]) / len(outcome["samples"])
        for outcome in report["prompts"]
    }


def paired_difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """The mean difference of two shares of each prompt, with its 95 % interval and the pairs of prompts behind it.

    Newcombe's interval where all shares are 0 or 1, else the normal one of the mean of the differences. Where these
    are all the same, which does not mean that any other prompt's is, the share q of others that n prompts can have
    missed, (1 - q)^n = 0.025 (Clopper-Pearson), is counted as if it were at the ends, -1 and 1.
    """
    gained = [key for key in before if after[key] > before[key]]
    lost = [key for key in before if before[key] > after[key]]
    both = sum(before[key] == after[key] == 1 for key in before)
    neither = sum(before[key] == after[key] == 0 for key in before)
    differences = [after[key] - before[key] for key in before]
    mean = sum(differences) / len(differences)
    if {*before.values(), *after.values()} <= {0, 1}:
        low, high = paired_difference_interval(both, len(lost), len(gained), neither)
    else:
        low, high = _mean_interval(differences)
    same = len(before) - both - neither - len(lost) - len(gained)
    pairs = {"both": both, "only_first": len(lost), "only_second": len(gained), "neither": neither, "same": same}
    return {"pairs": pairs, "difference": mean, "low": low, "high": high, "gained": gained, "lost": lost}


def _mean_interval(differences: Sequence[float]) -> tuple[float, float]:
    mean, n = sum(differences) / len(differences), len(differences)
    deviation = stdev(differences) if n > 1 else 0.0
    if deviation > 1e-9:  # thirds are not exact
        half = Z95 * deviation / math.sqrt(n)
        return max(-1.0, mean - half), min(1.0, mean + half)
    missed = 1 - 0.025 ** (1 / n)
    return mean - missed * (mean + 1), mean + missed * (1 - mean)


def _about(report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file": report.get("file"),
        "model": report["model"],
        "adapter": report["adapter"],
        **rate(report["prompts"]),
    }


def _by_tool(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    before, after = first["summary"]["tools"], second["summary"]["tools"]
    return {
        name: {"first": before[name]["rate"], "second": after[name]["rate"], "total": before[name]["total"]}
        for name in before
    }
