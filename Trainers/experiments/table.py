"""The results as Markdown, from the raw outcomes alone: the arms, the hypotheses, and where answers fail."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from Evaluator.catalog import load_catalog
from Evaluator.errors import UsageError
from Evaluator.intervals import holm, sign_flip_p, wilson_interval
from Evaluator.records import CHECKS
from Evaluator.reports.compare import paired_difference
from Trainers.experiments.arms import (
    ARMS,
    BASELINE,
    BEHAVIORS,
    CONTROL,
    FOLLOW_UPS,
    HELDOUT,
    HYPOTHESES,
    PRIMARY,
    Hypothesis,
)
from Trainers.experiments.outcomes import Outcome
from Trainers.experiments.rows import FIELD_CHECKS

_NO_CALL = ("ask", "refuse", "confirm")
_KINDS = {"no call": _NO_CALL, **{kind: (kind,) for kind in (*_NO_CALL, "call")}}
"""Columns of the behaviours: which right ones each counts."""

Score = Callable[[Outcome], int]
Asked = Mapping[int, Mapping[str, Outcome]]
"""What an arm answered: seed -> prompt -> outcome."""


def is_strict(outcome: Outcome) -> int:
    """Whether every check passed."""
    return int(outcome["strict"])


def is_well_formed(outcome: Outcome) -> int:
    """Whether the answer is a call that can be read, of a known tool, with a full context and fitting parameters."""
    return int(outcome["failed"] not in FIELD_CHECKS)


MEASURES: Mapping[str, Score] = {"strict": is_strict, "well_formed": is_well_formed}


class Outcomes:
    """Outcomes by set, arm and seed. Raises UsageError for an arm that is not known, or that was not asked what the
    others were."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._by: dict[tuple[str, str], dict[int, dict[str, Outcome]]] = {}
        for one in outcomes:
            arm = self._by.setdefault((one["set"], one["arm"]), {})
            arm.setdefault(one["seed"], {})[one["prompt"]] = one
        unknown = sorted({arm for _, arm in self._by} - ARMS.keys())
        if unknown:
            raise UsageError(f"there is no arm {unknown[0]} here: {', '.join(ARMS)}")
        prompts: dict[str, frozenset[str]] = {}
        for (set_name, arm_name), seeds in self._by.items():
            for seed, asked in seeds.items():
                if prompts.setdefault(set_name, frozenset(asked)) != asked.keys():
                    raise UsageError(f"{arm_name}, seed {seed}, was not asked the same {set_name} prompts as others")

    def seeds(self, set_name: str, arm: str) -> Asked:
        """What an arm answered to the prompts of a set; empty where it was not asked."""
        return dict(sorted(self._by.get((set_name, arm), {}).items()))


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same prompts, over the seeds that both have. `only_first` and `only_second` count answers,
    `by_seed` has the difference with each seed."""

    by_seed: Mapping[int, float]
    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float


def compared(outcomes: Outcomes, first: str, second: str, score: Score) -> Comparison | None:
    """The paired comparison on the held-out prompts, second minus first; None without a seed in common."""
    return _paired(outcomes.seeds(HELDOUT, first), outcomes.seeds(HELDOUT, second), score)


def _paired(before: Asked, after: Asked, score: Score) -> Comparison | None:
    """After minus before, on the same prompts; None without a seed in common.

    The unit is the prompt: with several seeds its difference is that of the sums over the seeds, since its answers
    under two seeds are no independent ones. With one seed the test is McNemar's.
    """
    seeds = sorted(before.keys() & after.keys())
    if not seeds:
        return None
    pairs = {
        prompt: [(score(before[seed][prompt]), score(after[seed][prompt])) for seed in seeds]
        for prompt in before[seeds[0]]
    }
    found = paired_difference(*({key: _mean([pair[at] for pair in pairs[key]]) for key in pairs} for at in (0, 1)))
    each = Counter(pair for of_prompt in pairs.values() for pair in of_prompt)
    differences = [sum(new - old for old, new in of_prompt) for of_prompt in pairs.values()]
    by_seed = {seed: _rate(after[seed], score) - _rate(before[seed], score) for seed in seeds}
    shown = (found["difference"], found["low"], found["high"])
    return Comparison(by_seed, *shown, each[1, 0], each[0, 1], sign_flip_p(differences))


def adjusted(outcomes: Outcomes) -> Mapping[str, tuple[Comparison | None, float]]:
    """Hypothesis -> its comparison and Holm's p over all of them. One that was not run counts as p = 1."""
    found = {one.name: compared(outcomes, one.first, one.second, MEASURES[one.measure]) for one in HYPOTHESES}
    p_values = holm([one.p if one else 1.0 for one in found.values()])
    return {name: (one, p) for (name, one), p in zip(found.items(), p_values, strict=True)}


def table_lines(outcomes: Outcomes) -> Iterator[str]:
    """All tables, in Markdown."""
    yield from ("**Arms**, on the held-out prompts; in points of 100", "")
    yield from _arm_lines(outcomes)
    yield from ("", "**Hypotheses**", "")
    yield from _hypothesis_lines(outcomes)
    yield from _follow_up_lines(outcomes)
    yield from ("", "**Where answers fail**: share of the held-out prompts still in after each check", "")
    yield from _funnel_lines(outcomes)
    yield from ("", "**Behaviours**: share of right answers by what is right", "")
    yield from _behavior_lines(outcomes)


# -- the parts ----------------------------------------------------------------------------------------------------


def _arm_lines(outcomes: Outcomes) -> Iterator[str]:
    yield "| arm | strict (95 %) | by seed | minus A1 (95 %) | A1 only : arm only | p | well-formed | tools called |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, arm in ARMS.items():
        seeds = outcomes.seeds(HELDOUT, name)
        if not seeds:
            continue
        rates = {seed: _rate(asked, is_strict) for seed, asked in seeds.items()}
        mean, total = _mean(list(rates.values())), len(next(iter(seeds.values())))
        low, high = wilson_interval(mean * total, total)
        by_seed = ", ".join(f"{seed}: {_points(rate)}" for seed, rate in rates.items())
        well_formed = _mean([_rate(asked, is_well_formed) for asked in seeds.values()])
        tools = _mean([effective_tools(asked) for asked in seeds.values()])
        yield (
            f"| {name} {arm.what} | {_points(mean)} ({_points(low)} to {_points(high)}) | {by_seed} "
            f"| {_against(BASELINE, name, outcomes)} | {_points(well_formed)} | {tools:.1f} |"
        )


def _against(first: str, name: str, outcomes: Outcomes) -> str:
    found = compared(outcomes, first, name, is_strict) if name != first else None
    if found is None:
        return " | | "
    return f"{_difference(found)} | {found.only_first} : {found.only_second} | {_p(found.p)}"


def _follow_up_lines(outcomes: Outcomes) -> Iterator[str]:
    rows = [f"| {name} | {_against(PRIMARY, name, outcomes)} |" for name in FOLLOW_UPS if outcomes.seeds(HELDOUT, name)]
    if rows:
        yield from ("", f"**Follow-ups** against {PRIMARY}, in no test above", "")
        yield f"| arm | minus {PRIMARY} (95 %) | {PRIMARY} only : arm only | p |"
        yield "|---|---|---|---|"
        yield from rows


def _hypothesis_lines(outcomes: Outcomes) -> Iterator[str]:
    yield "| | claim | arms, measure | difference (95 %) | by seed | p | p, Holm |"
    yield "|---|---|---|---|---|---|---|"
    for one in HYPOTHESES:
        found, p = adjusted(outcomes)[one.name]
        shown = f"{_difference(found)} | {_by_seed(found)} | {_p(found.p)} | {_p(p)}" if found else "not run | | | "
        yield f"| {one.name} | {one.claim} | {_arms_of(one)} | {shown} |"
    control = compared(outcomes, BASELINE, CONTROL, is_strict)
    if control:
        yield (
            f"| control | {CONTROL} must not gain | {CONTROL} - {BASELINE}, strict "
            f"| {_difference(control)} | {_by_seed(control)} | {_p(control.p)} | |"
        )


def _arms_of(one: Hypothesis) -> str:
    return f"{one.second} - {one.first}, {one.measure.replace('_', '-')}"


def _funnel_lines(outcomes: Outcomes) -> Iterator[str]:
    yield f"| arm | {' | '.join(CHECKS)} |"
    yield "|---" * (len(CHECKS) + 1) + "|"
    for name in ARMS:
        seeds = outcomes.seeds(HELDOUT, name)
        if not seeds:
            continue
        left = [[_left_after(number, asked) for asked in seeds.values()] for number in range(len(CHECKS))]
        cells = [_points(_mean(shares)) for shares in left]
        yield f"| {name} | {' | '.join(cells)} |"


def _behavior_lines(outcomes: Outcomes) -> Iterator[str]:
    yield f"| arm | all | {' | '.join(_KINDS)} | no call, minus A1 (95 %) | p |"
    yield "|---" * (len(_KINDS) + 4) + "|"
    baseline = _of_kinds(_NO_CALL, outcomes.seeds(BEHAVIORS, BASELINE))
    for name in ARMS:
        seeds = outcomes.seeds(BEHAVIORS, name)
        if not seeds:
            continue
        cells = [_points(_mean([_rate(asked, is_strict) for asked in seeds.values()]))]
        for kinds in _KINDS.values():
            of_kind = _of_kinds(kinds, seeds).values()
            cells.append(_points(_mean([_rate(asked, is_strict) for asked in of_kind])) if all(of_kind) else "")
        found = _paired(baseline, _of_kinds(_NO_CALL, seeds), is_strict) if name != BASELINE else None
        cells += [_difference(found), _p(found.p)] if found else ["", ""]
        yield f"| {name} | {' | '.join(cells)} |"


def _of_kinds(kinds: Sequence[str], seeds: Asked) -> Asked:
    """The outcomes of prompts to which one of these behaviours is right."""
    return {seed: {key: one for key, one in asked.items() if one["behavior"] in kinds} for seed, asked in seeds.items()}


# -- numbers ------------------------------------------------------------------------------------------------------


def effective_tools(asked: Mapping[str, Outcome]) -> float:
    """How many equally common tools the first calls are as varied as: exp of their entropy. 0 without a call.

    Calls of a tool that does not exist are left out: invented names would count as variety.
    """
    tools = load_catalog().tools
    counts = Counter(one["called"] for one in asked.values() if one["called"] in tools)
    total = counts.total()
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values())) if total else 0.0


def _left_after(number: int, asked: Mapping[str, Outcome]) -> float:
    """The share of answers that failed none of the checks up to this one."""
    return _rate(asked, lambda outcome: outcome["failed"] not in CHECKS[: number + 1])


def _rate(asked: Mapping[str, Outcome], score: Callable[[Outcome], Any]) -> float:
    return _mean([score(one) for one in asked.values()])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _difference(found: Comparison) -> str:
    return f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _by_seed(found: Comparison) -> str:
    return ", ".join(f"{seed}: {100 * difference:+.1f}" for seed, difference in found.by_seed.items())
