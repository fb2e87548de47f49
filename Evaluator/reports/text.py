"""Reports and comparisons as Markdown, for a terminal or a pull request."""

from collections.abc import Iterator, Mapping
from typing import Any

from Evaluator.console import printable

LONGEST_LIST = 20


def report_as_markdown(report: Mapping[str, Any]) -> str:
    return "\n".join(_report_lines(report))


def _report_lines(report: Mapping[str, Any]) -> Iterator[str]:
    summary = report["summary"]
    yield f"**{model_name(report)}**: {describe_rate(summary['pass_rate'])} of {summary['num_prompts']} prompts"
    if not report["is_complete"]:
        yield "\n**Not complete**: run the same command again to go on."
    if summary["num_samples"] > summary["num_prompts"]:
        at_k = ", ".join(f"pass@{k} {value:.1%}" for k, value in summary["pass_at_k"].items())
        hat_k = ", ".join(f"pass^{k} {value:.1%}" for k, value in summary["pass_hat_k"].items())
        yield f"\n{at_k}; {hat_k}"
    yield from ("", "| check | made | passed | still in |", "|---|---|---|---|")
    total = summary["num_samples"]
    for step in summary["funnel"]:
        left = f"{step['left'] / total:.1%}" if total else ""
        yield f"| {step['check']} | {step['made']} | {step['passed']} | {left} |"
    if summary["behaviors"]:
        columns = list(next(iter(summary["behaviors"].values())))
        yield from ("", f"| right | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
        for right, row in summary["behaviors"].items():
            yield f"| {right} | {' | '.join(str(row[column]) for column in columns)} |"
    yield from ("", "| manager | passed | of | rate (95 %) |", "|---|---|---|---|")
    for name, found in summary["managers"].items():
        yield f"| {name} | {found['passed']:.6g} | {found['total']} | {describe_rate(found)} |"
    if summary["errors"]:
        yield from ("", "| error | samples |", "|---|---|")
        for code, count in list(summary["errors"].items())[:10]:
            yield f"| `{_cell(code)}` | {count} |"
    cost = report["cost"]
    tokens = cost["median_completion_tokens"]
    counted = "tokens not told by the endpoint" if tokens is None else f"{tokens:g} tokens"
    yield f"\nMedian answer: {counted}, {cost['median_latency_s']:g} s."


def _cell(code: str) -> str:
    """A code, which may have a name in it that a model made up, as it can stand in a cell of a table."""
    return printable(code).replace("`", "'").replace("|", r"\|")


def comparison_as_markdown(found: Mapping[str, Any]) -> str:
    return "\n".join(_comparison_lines(found))


def _comparison_lines(found: Mapping[str, Any]) -> Iterator[str]:
    pairs = found["pairs"]
    yield from ("| | report | model | pass rate (95 %) |", "|---|---|---|---|")
    for name in ("first", "second"):
        yield f"| {name} | {found[name]['file']} | {model_name(found[name])} | {describe_rate(found[name])} |"
    yield ""
    for name, (first, second) in found["settings"].items():
        yield f"They differ in {name}: {first} and {second}.\n"
    yield (
        f"Difference: **{100 * found['difference']:+.1f} points** (95 % interval {100 * found['low']:+.1f} to "
        f"{100 * found['high']:+.1f}), {test_name(found)} p = {found['p']:.4g}, {found['num_prompts']} prompts: "
        f"{pairs['both']} passed by both, {pairs['only_first']} by the first only, "
        f"{pairs['only_second']} by the second only, {pairs['neither']} by neither"
        + (f", {pairs['same']} by the same share of samples of both." if found["num_samples_per_prompt"] > 1 else ".")
    )
    changed = {name: one for name, one in found["tools"].items() if one["first"] != one["second"]}
    if changed:
        yield from ("", "| tool | first | second |", "|---|---|---|")
        for name, one in sorted(changed.items(), key=lambda item: item[1]["second"] - item[1]["first"]):
            yield f"| {name} | {one['first']:.0%} | {one['second']:.0%} |"
    for name in ("gained", "lost"):
        if found[name]:
            more = f" and {len(found[name]) - LONGEST_LIST} more" if len(found[name]) > LONGEST_LIST else ""
            yield f"\n{name.title()}: {', '.join(found[name][:LONGEST_LIST])}{more}"


def test_name(found: Mapping[str, Any]) -> str:
    return "exact McNemar" if found["num_samples_per_prompt"] == 1 else "exact sign test over prompts,"


def describe_rate(found: Mapping[str, float]) -> str:
    return f"{found['rate']:.1%} ({found['low']:.1%} to {found['high']:.1%})"


def model_name(about: Mapping[str, Any]) -> str:
    return f"{about['model']} with {about['adapter']}" if about["adapter"] else str(about["model"])
