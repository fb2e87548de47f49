"""Two reports on the same prompts: did it get better, and is the difference more than chance?"""

from collections.abc import Mapping
from typing import Any

from Evaluator.errors import UsageError
from Evaluator.intervals import mcnemar_p, paired_difference_interval
from Evaluator.reports.summary import rate

_SETTINGS = ("tools_told", "num_samples_per_prompt", "temperature", "top_p", "max_tokens", "seed")
"""What may differ between reports and has to be told."""
_MUST_AGREE = {
    "prompt_set": "prompt sets",
    "catalog": "catalogs",
    "validator": "validators",
}


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The paired comparison of two complete reports, second minus first, by the first sample of each prompt.

    Raises UsageError where they were not made with the same prompts, catalog and validator.
    """
    for key, name in _MUST_AGREE.items():
        if first[key] != second[key]:
            raise UsageError(
                f"the reports are of different {name} and cannot be compared ({first[key]}, {second[key]})"
            )
    before, after = _passed(first), _passed(second)
    if before.keys() != after.keys() or not (first["is_complete"] and second["is_complete"]):
        raise UsageError("one of the reports is not complete: run its evaluation again to go on with it")
    gained = [key for key in before if after[key] and not before[key]]
    lost = [key for key in before if before[key] and not after[key]]
    both = sum(before[key] and after[key] for key in before)
    neither = len(before) - both - len(gained) - len(lost)
    low, high = paired_difference_interval(both, len(lost), len(gained), neither)
    return {
        "first": _about(first),
        "second": _about(second),
        "settings": {key: [first.get(key), second.get(key)] for key in _SETTINGS if first.get(key) != second.get(key)},
        "num_prompts": len(before),
        "pairs": {"both": both, "only_first": len(lost), "only_second": len(gained), "neither": neither},
        "difference": round((len(gained) - len(lost)) / len(before), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "p": mcnemar_p(len(lost), len(gained)),
        "gained": gained,
        "lost": lost,
        "tools": _by_tool(first, second),
    }


def _passed(report: Mapping[str, Any]) -> dict[str, bool]:
    return {outcome["id"]: outcome["samples"][0]["label"] for outcome in report["prompts"]}


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
