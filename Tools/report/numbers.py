"""The numbers of a report: a nested dict with stable keys, shares of 1, null where nothing is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from math import fsum
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.decontamination import Request
from Evaluator.intervals import wilson_interval
from Evaluator.judging.behavior import BEHAVIORS
from Evaluator.label_balance import kto_weights
from Evaluator.records import CHECKS
from Evaluator.reports.summary import NO_CALL, NO_SUCH_TOOL
from Tools.duplicates import clusters, folded, hash_of, skeleton_hash
from Tools.report import measures
from Tools.report.counts import Counts, commonest
from Tools.report.measures import share
from Tools.report.row_counter import PROVENANCE, WRITTEN

SELF_BLEU_ROWS = 300
SHARED_BY = 0.05
"""A value of the context that a larger share of the calls has is told."""
_MANY = ("phrasing", "persona", "template")
"""Keys with many values, of which the commonest are listed."""
SOURCES = ("guided", "self_play", "curated")
_LISTED = 30
_LENGTH_BINS = 24
Group = Mapping[Any, Counter[Any]]


def make_numbers(counts: Counts, catalog: Catalog) -> dict[str, Any]:
    """All numbers; those of counts that hold no row have the same keys."""
    group, tally = counts.grouped(), counts.tally
    rows = tally["rows",]
    return {
        "rows": rows,
        "bad_lines": tally["bad_lines",],
        "labels": _labels(group, catalog),
        "funnel": _funnel(group, tally["judged",]),
        "errors": {"rows": group["codes"].total(), "codes": dict(commonest(group["codes"], _LISTED))},
        "tools": _tools(group, catalog),
        "grounding": _passed(group, "grounding"),
        "context": _context(counts, catalog),
        "duplicates": _duplicates(counts),
        "copied_requests": {"rows": tally["copied",], "share": share(tally["copied",], tally["requests",])},
        "diversity": _diversity(counts),
        "evaluation_overlap": _overlap(counts, group),
        "behavior": _behavior(group, tally["behavior_rows",], rows),
        "prompts": _prompts(counts, group),
        "length": _length(group),
        "provenance": _provenance(group, rows),
        "rounds": _rounds(group),
        "tokens": {name: _tokens(group[f"{name}_tokens"]) for name in ("prompt", "completion")},
    }


# -- labels, checks, tools ----------------------------------------------------------------------------------------


def _balance(true: int, false: int, none: int) -> dict[str, Any]:
    return {"true": true, "false": false, "none": none, "true_share": share(true, true + false)}


def _labels(group: Group, catalog: Catalog) -> dict[str, Any]:
    labels, by_tool = group["labels"], group["tool_labels"]
    weights = kto_weights(labels["true"], labels["false"]) if labels["true"] and labels["false"] else (None, None)
    others = sorted({tool for tool, _ in by_tool} - catalog.tools.keys())
    return {
        **_balance(labels["true"], labels["false"], labels["none"]),
        "kto": {"desirable_weight": weights[0], "undesirable_weight": weights[1]},
        "by_tool": {
            tool: _balance(*(by_tool[tool, label] for label in ("true", "false", "none")))
            for tool in (*catalog.tools, *others)
        },
    }


def _passed(group: Group, check: str) -> dict[str, Any]:
    passed = group["passed"][check]
    made = passed + group["failed"][check]
    low, high = wilson_interval(passed, made) if made else (None, None)
    return {"made": made, "passed": passed, "rate": share(passed, made), "low": low, "high": high}


def _funnel(group: Group, judged: int) -> dict[str, Any]:
    """For each check how many rows it was made for, how many passed, how many are still in after it."""
    steps: dict[str, Any] = {"judged": judged}
    left = judged
    for check in CHECKS:
        left -= group["failed"][check]
        low, high = wilson_interval(left, judged) if judged else (None, None)
        interval = {"left_share": share(left, judged), "left_low": low, "left_high": high}
        steps[check] = {**_passed(group, check), "left": left, **interval}
    return steps


def _tools(group: Group, catalog: Catalog) -> dict[str, Any]:
    """Which tools are asked for and called.

    `effective_of_asked` compares the effective number of tools in true rows with that of the tools asked for, or with
    the number of true rows where these are fewer. Agreement and mutual information are over rows in which a tool is
    asked for and one is called.
    """
    asked, known = group["asked"], catalog.tools.keys()
    by_label: Counter[str] = Counter()
    for (tool, label), count in group["called"].items():
        by_label[tool] += count if label == "true" else 0
    in_true = +by_label
    answered = {pair: n for pair, n in group["answered"].items() if pair[1] != NO_CALL}
    total = sum(answered.values())
    effective, of_asked = measures.effective_number(in_true.values()), measures.effective_number(asked.values())
    attainable = min(of_asked, in_true.total()) if of_asked and in_true else None
    return {
        "in_catalog": len(known),
        "asked": len(asked),
        "called": len({tool for tool, _ in group["called"]}),
        "called_in_true_rows": len(in_true),
        "covered": len(in_true.keys() & known),
        "covered_share": share(len(in_true.keys() & known), len(known)),
        "effective": effective,
        "effective_asked": of_asked,
        "effective_cells": measures.effective_number(group["cells"].values()),
        "cells": len(group["cells"]),
        "effective_of_asked": effective / attainable if effective and attainable else None,
        "effective_of_catalog": effective / len(known) if effective else None,
        "asked_and_called": total,
        "agreement": share(sum(n for (one, other), n in answered.items() if one == other), total),
        "nmi": measures.normalized_mutual_information(answered),
        "no_such_tool": sum(n for (_, called), n in answered.items() if called == NO_SUCH_TOOL),
    }


# -- texts --------------------------------------------------------------------------------------------------------


def _context(counts: Counts, catalog: Catalog) -> dict[str, Any]:
    """How honest the contexts of calls are: placeholders, and values that many calls share."""
    calls = counts.tally["calls",]
    texts = {
        name: {hash_of(row["context"][name]): row["context"][name] for row in rows if name in row["context"]}
        for rows in [counts.sample.items()]
        for name in (catalog.context or {}).get("properties", {})
    }
    fields = {
        name: _field(Counter(counts.hashes.get(f"context.{name}", ())), known, calls) for name, known in texts.items()
    }
    largest = [one["most_shared"] for one in fields.values() if one["most_shared"] is not None]
    judged = counts.tally["passed", "context"] + counts.tally["failed", "context"]
    return {
        "calls": calls,
        "judged": judged,
        "placeholder_rows": counts.tally["placeholders",],
        "placeholder_share": share(counts.tally["placeholders",], judged),
        "most_shared": max(largest, default=None),
        "fields": fields,
    }


def _field(values: Counter[int], texts: Mapping[int, str], calls: int) -> dict[str, Any]:
    """One field of the context. A text comes from the sample, so one of a rare value is null."""
    often = [(key, count) for key, count in commonest(values) if count > SHARED_BY * calls and count > 1]
    return {
        "values": values.total(),
        "distinct": len(values),
        "most_shared": share(max(values.values(), default=0), calls),
        "shared": [{"text": texts.get(key), "share": count / calls} for key, count in often],
    }


def _duplicates(counts: Counts) -> dict[str, Any]:
    """Shares of the rows that are not the first with their request, of their cluster, of their skeleton.

    A cluster holds the requests that are the same or near: `near` is `exact` and more.
    """
    requests, skeletons = Counter(counts.hashes.get("requests", ())), Counter(counts.hashes.get("skeletons", ()))
    total = requests.total()
    num_clusters = len(set(clusters([counts.signatures[key] for key in requests])))
    texts = {skeleton_hash(Request(row["request"])): row["request"] for row in reversed(counts.sample.items())}
    (commonest_key, most), *_ = commonest(skeletons, 1) or [(None, 0)]
    return {
        "requests": total,
        "distinct": len(requests),
        "exact": share(total - len(requests), total),
        "clusters": num_clusters,
        "near": share(total - num_clusters, total),
        "most_repeated": share(max(requests.values(), default=0), total),
        "skeletons": {
            "distinct": len(skeletons),
            "not_unique": share(sum(count for count in skeletons.values() if count > 1), total),
            "commonest": share(most, total),
            "commonest_example": texts.get(commonest_key) if most > 1 else None,
        },
    }


def _diversity(counts: Counts) -> dict[str, Any]:
    """Measures that depend on the size are taken over a sample of at most SAMPLE_ROWS rows."""
    texts = [folded(row["request"]) for row in counts.sample.items() if row["request"].strip()]
    words = [text.split() for text in texts]
    return {
        "sample_rows": len(texts),
        "distinct_2": measures.distinct_ngrams(words, 2),
        "compression_ratio": measures.compression_ratio(texts),
        "self_bleu_rows": min(len(texts), SELF_BLEU_ROWS),
        "self_bleu": measures.self_bleu(words[:SELF_BLEU_ROWS]),
    }


def _overlap(counts: Counts, group: Group) -> dict[str, Any]:
    rows, total = group["overlap"].total(), counts.tally["requests",]
    signs = {sign: group["overlap"][sign] for sign in ("words", "skeleton", "containment", "edits")}
    return {"rows": rows, "share": share(rows, total), "signs": signs, "examples": counts.overlaps.items()}


# -- prompts and answers ------------------------------------------------------------------------------------------


def _behavior(group: Group, total: int, rows: int) -> dict[str, Any]:
    """Rows whose right answer may be no call; `met` are those whose answer does what is right."""
    found = group["behaviors"]
    kinds = {}
    for kind in BEHAVIORS:
        met, expected = found[kind, "met"], found[kind, "met"] + found[kind, "missed"]
        kinds[kind] = {"expected": expected, "met": met, "met_share": share(met, expected)}
    return {"rows": total, "share": share(total, rows), "kinds": kinds}


def _prompts(counts: Counts, group: Group) -> dict[str, Any]:
    """Pass rates of the prompts that were answered twice or more, and how many written prompts could be used."""
    rates, num_prompts = [], 0
    for _, found in groupby(sorted(counts.hashes.get("prompts", ())), key=lambda value: value >> 1):
        labels = [value & 1 for value in found]
        num_prompts += 1
        if len(labels) > 1:
            rates.append(sum(labels) / len(labels))
    written, rejected = len(set(counts.hashes.get(WRITTEN, ()))), counts.tally["rejected_prompts",]
    return {
        "labelled": num_prompts,
        "repeated": len(rates),
        "never": share(rates.count(0.0), len(rates)),
        "sometimes": share(sum(0 < rate < 1 for rate in rates), len(rates)),
        "always": share(rates.count(1.0), len(rates)),
        "mean_rate": share(fsum(rates), len(rates)),
        "written": written,
        "rejected": rejected,
        "tried": written + rejected,
        "usable": share(written, written + rejected),
        "reject_reasons": dict(commonest(group["prompt_rejects"])),
    }


def _length(group: Group) -> dict[str, Any]:
    """How well an answer's length alone tells its label: 0.5 not at all, 1 always."""
    by_label: dict[str, Counter[int]] = {"true": Counter(), "false": Counter(), "none": Counter()}
    for (label, length), count in group["lengths"].items():
        by_label[label][length] += count
    found = measures.auc(by_label["true"], by_label["false"])
    longer = None if found in (None, 0.5) else "true" if found > 0.5 else "false"
    medians = {f"median_{label}": measures.median(lengths) for label, lengths in by_label.items()}
    auc = None if found is None else max(found, 1 - found)
    return {"auc": auc, "longer": longer, **medians, "bins": _bins(by_label)}


def _bins(by_label: Mapping[str, Counter[int]]) -> Sequence[Mapping[str, int]]:
    """Histograms with the same edges; the last bin has what is longer than 99 % of the answers."""
    longest = sorted((length, n) for lengths in by_label.values() for length, n in lengths.items())
    total, seen, cut = sum(n for _, n in longest), 0, 0
    for length, n in longest:
        if seen >= 0.99 * total:
            break
        seen, cut = seen + n, length
    width = cut // _LENGTH_BINS + 1
    bins = [{"from": start * width, **dict.fromkeys(by_label, 0)} for start in range(_LENGTH_BINS + 1 if total else 0)]
    for label, lengths in by_label.items():
        for length, n in lengths.items():
            bins[min(length // width, _LENGTH_BINS)][label] += n
    return bins


# -- where rows come from -----------------------------------------------------------------------------------------


def _provenance(group: Group, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {name: dict(commonest(group[name])) for name in PROVENANCE if name not in _MANY}
    found["source"] = {**dict.fromkeys(SOURCES, 0), **found["source"]}
    found["curated_share"] = share(found["source"]["curated"], sum(found["source"].values()))
    for name in _MANY:
        found[name] = _many(group[name])
    return found


def _many(values: Counter[str]) -> dict[str, Any]:
    total = values.total()
    return {
        "rows": total,
        "distinct": len(values),
        "commonest": share(max(values.values(), default=0), total),
        "counts": dict(commonest(values, _LISTED)),
    }


def _rounds(group: Group) -> dict[str, Any]:
    found = group["round_labels"]
    names = sorted({name for name, _ in found}, key=lambda name: (len(name), name))
    return {name: _balance(*(found[name, label] for label in ("true", "false", "none"))) for name in names}


def _tokens(histogram: Counter[int]) -> dict[str, Any]:
    total = sum(value * count for value, count in histogram.items())
    return {"rows": histogram.total(), "sum": total, "median": measures.median(histogram)}
