"""The report for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from Evaluator.records import CHECKS
from Tools.report.limits import Broken, NotChecked

_LISTED = 10
_SHOWN_TEXT = 100


def as_text(numbers: Mapping[str, Any], broken: Sequence[Broken], not_checked: Sequence[NotChecked]) -> str:
    parts = (_labels, _funnel, _codes, _tools, _context, _requests, _overlap, _behavior, _answers, _provenance)
    lines = [line for part in parts for line in part(numbers)]
    return "\n".join([*lines, *_warnings(broken, not_checked)])


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def named_counts(counts: Mapping[str, int], most: int = _LISTED) -> str:
    """`self 12, template 3`; those beyond the first `most` as a number."""
    shown = [f"{name} {count}" for name, count in list(counts.items())[:most] if count]
    more = len(counts) - most
    return ", ".join(shown + ([f"{more} more"] if more > 0 else [])) or "-"


def _short(text: str | None) -> str:
    """A text on one line, control characters escaped."""
    if text is None:
        return "(not in the sample)"
    shown = text if len(text) <= _SHOWN_TEXT else f"{text[: _SHOWN_TEXT - 3]}..."
    return repr(shown)


def _labels(numbers: Mapping[str, Any]) -> Iterator[str]:
    labels = numbers["labels"]
    yield f"{numbers['rows']} rows: {labels['true']} true, {labels['false']} false, {labels['none']} without a label"
    if labels["kto"]["desirable_weight"]:
        weights = (labels["kto"][f"{kind}_weight"] for kind in ("desirable", "undesirable"))
        yield "KTO weights: desirable {:.3f}, undesirable {:.3f}".format(*weights)
    for name, one in numbers["rounds"].items():
        yield f"round {name}: {one['true']} true, {one['false']} false, {percent(one['true_share'])} true"


def _funnel(numbers: Mapping[str, Any]) -> Iterator[str]:
    funnel = numbers["funnel"]
    if not funnel["judged"]:
        return
    yield from ("", f"{'check':12}{'made':>9}{'passed':>9}{'rate':>8}   {'95 %':16}{'still in':>8}")
    for check in CHECKS:
        one = funnel[check]
        interval = f"{percent(one['low'])} to {percent(one['high'])}" if one["made"] else ""
        yield (
            f"{check:12}{one['made']:>9}{one['passed']:>9}{percent(one['rate']):>8}   {interval:16}"
            f"{percent(one['left_share']):>8}"
        )


def _codes(numbers: Mapping[str, Any]) -> Iterator[str]:
    if numbers["errors"]["rows"]:
        yield from ("", "commonest first codes, in rows:")
    for code, count in list(numbers["errors"]["codes"].items())[:_LISTED]:
        yield f"{count:>8}  {code}"


def _tools(numbers: Mapping[str, Any]) -> Iterator[str]:
    tools = numbers["tools"]
    yield ""
    yield (
        f"tools: {tools['called_in_true_rows']} called in true rows, {percent(tools['covered_share'])} of the "
        f"catalog's {tools['in_catalog']}; as varied as {plain(tools['effective'])} equally common ones, "
        f"asked for {plain(tools['effective_asked'])} of {tools['asked']}"
    )
    yield (
        f"tool called and asked for: the same in {percent(tools['agreement'])} of {tools['asked_and_called']} rows, "
        f"normalised mutual information {plain(tools['nmi'])}"
    )
    few = [(name, one) for name, one in numbers["labels"]["by_tool"].items() if not one["true"]]
    if few and len(few) < len(numbers["labels"]["by_tool"]):
        more = f" and {len(few) - _LISTED} more" if len(few) > _LISTED else ""
        yield f"without a true row: {', '.join(name for name, _ in few[:_LISTED])}{more}"


def _context(numbers: Mapping[str, Any]) -> Iterator[str]:
    context, grounding = numbers["context"], numbers["grounding"]
    yield (
        f"context of {context['calls']} readable calls: placeholders in {percent(context['placeholder_share'])} of "
        f"{context['judged']} judged rows; grounded {percent(grounding['rate'])} of {grounding['made']}"
    )
    for name, field in context["fields"].items():
        for one in field["shared"][:3]:
            yield f"{percent(one['share']):>8}  {name}: {_short(one['text'])}"


def _requests(numbers: Mapping[str, Any]) -> Iterator[str]:
    duplicates, diversity = numbers["duplicates"], numbers["diversity"]
    skeletons = duplicates["skeletons"]
    yield ""
    yield (
        f"requests: {duplicates['distinct']} distinct of {duplicates['requests']}; repeated "
        f"{percent(duplicates['exact'])}, repeated or nearly so {percent(duplicates['near'])}"
    )
    example = f", such as {_short(skeletons['commonest_example'])}" if skeletons["commonest_example"] else ""
    yield f"skeletons: {skeletons['distinct']}, the commonest in {percent(skeletons['commonest'])} of the rows{example}"
    yield (
        f"diversity of {diversity['sample_rows']} rows: distinct-2 {plain(diversity['distinct_2'])}, compression "
        f"ratio {plain(diversity['compression_ratio'])}, Self-BLEU of {diversity['self_bleu_rows']} "
        f"{plain(diversity['self_bleu'])}"
    )
    copied = numbers["copied_requests"]
    yield f"answers that repeat the request: {copied['rows']} ({percent(copied['share'])})"


def _overlap(numbers: Mapping[str, Any]) -> Iterator[str]:
    overlap = numbers["evaluation_overlap"]
    by = f", by {named_counts(overlap['signs'])}" if overlap["rows"] else ""
    yield f"like an evaluation prompt: {overlap['rows']} ({percent(overlap['share'])}){by}"
    for one in overlap["examples"]:
        yield f"          {_short(one['request'])} is like {_short(one['prompt'])} ({one['sign']})"


def _behavior(numbers: Mapping[str, Any]) -> Iterator[str]:
    behavior = numbers["behavior"]
    yield from ("", f"rows about behaviour: {behavior['rows']} ({percent(behavior['share'])})")
    for name, one in behavior["kinds"].items():
        if one["expected"]:
            yield f"{one['expected']:>8}  {name}, done in {percent(one['met_share'])}"


def _answers(numbers: Mapping[str, Any]) -> Iterator[str]:
    prompts, length, tokens = numbers["prompts"], numbers["length"], numbers["tokens"]
    if prompts["repeated"]:
        yield (
            f"prompts with several answers: {prompts['repeated']}; never right {percent(prompts['never'])}, "
            f"sometimes {percent(prompts['sometimes'])}, always {percent(prompts['always'])}, "
            f"mean {percent(prompts['mean_rate'])}"
        )
    if prompts["usable"] is not None:
        total = prompts["written"] + prompts["rejected"]
        yield f"written prompts that could be used: {percent(prompts['usable'])} of {total}"
    longer = f", {length['longer']} ones are longer" if length["longer"] else ""
    yield (
        f"label told from the answer's length alone: AUC {plain(length['auc'])}{longer} (median characters true "
        f"{plain(length['median_true'])}, false {plain(length['median_false'])})"
    )
    if tokens["completion"]["rows"]:
        yield (
            f"tokens: prompts {tokens['prompt']['sum']}, median {plain(tokens['prompt']['median'])}; answers "
            f"{tokens['completion']['sum']}, median {plain(tokens['completion']['median'])}"
        )


def _provenance(numbers: Mapping[str, Any]) -> Iterator[str]:
    provenance = numbers["provenance"]
    yield ""
    for name, found in provenance.items():
        if not isinstance(found, Mapping):
            continue
        if "distinct" not in found:
            yield from [f"{name}: {named_counts(found)}"] if sum(found.values()) else []
        elif found["distinct"]:
            yield f"{name}: {found['distinct']}, the commonest in {percent(found['commonest'])} of {found['rows']} rows"
    if provenance["curated_share"]:
        yield f"curated: {percent(provenance['curated_share'])}"


def _warnings(broken: Sequence[Broken], not_checked: Sequence[NotChecked]) -> Iterator[str]:
    yield ""
    yield from (f"warning: {one.sentence}" for one in broken)
    if not broken:
        yield "no limit is broken"
    if not_checked:
        yield f"not checked: {', '.join(one.limit.path for one in not_checked)}"
