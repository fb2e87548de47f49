"""The protocol as values: arms, which seeds each has, the order of the work, and what is compared with what.

README.md beside this file says the same in words, with the reasons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from Evaluator.errors import UsageError
from Trainers.common.answer_parts import PARTS, SESSION_IDS

SFT, KTO = "sft", "kto"

HELDOUT, BEHAVIORS = "heldout", "behaviors"
SETS = (HELDOUT, BEHAVIORS)
"""Prompt sets that arms are asked."""

STARTER = "starter"
"""Rows that the SFT adapter was trained on."""
ROUND_1 = "round-1"
ROUND_2 = "round-2"

TRUE, SHUFFLED, FIELDS, CONTESTED = "true", "shuffled", "fields", "contested"
"""What is made of the rows of a round before they are trained on (see rows)."""

CURATED_SHARE = 0.3
"""Of the text that an arm trains on rows of the starter have this share, as in the loop."""


@dataclass(frozen=True)
class Arm:
    """`method` is None where nothing is trained after SFT; `data` names what is trained on, `change` what is made of
    it before it `is_mixed` with rows of the starter; the factors are on the scale's own values;
    `flags` are the trainer's, beside those that all arms have."""

    name: str
    what: str
    method: str | None = None
    data: tuple[str, ...] = ()
    change: str | None = None
    is_mixed: bool = True
    learning_rate_factor: float = 1.0
    beta_factor: float = 1.0
    flags: tuple[str, ...] = ()


ARMS = {
    arm.name: arm
    for arm in (
        Arm("A1", "SFT only"),
        Arm("A2", "more SFT", SFT, (STARTER,), is_mixed=False),
        Arm("A3", "SFT on the true rows of round 1", SFT, (ROUND_1,), TRUE),
        Arm("A4", "KTO on round 1", KTO, (ROUND_1,)),
        Arm("A5", "KTO, labels shuffled", KTO, (ROUND_1,), SHUFFLED),
        Arm("A6", "KTO, labels by fields only", KTO, (ROUND_1,), FIELDS),
        Arm("A7", "KTO on rounds 1 and 2", KTO, (ROUND_1, ROUND_2)),
        Arm("A8", "KTO on round 2 alone", KTO, (ROUND_2,)),
        Arm("F1", "A4, learning rate x 0.25", KTO, (ROUND_1,), learning_rate_factor=0.25),
        Arm("F2", "A4, beta x 3", KTO, (ROUND_1,), beta_factor=3.0),
        Arm("F3", "A4, prompts with both labels", KTO, (ROUND_1,), CONTESTED),
        Arm("F4", "A4 without rows of the starter", KTO, (ROUND_1,), is_mixed=False),
        Arm(
            "F5",
            "A4, wrong rows weigh half",
            KTO,
            (ROUND_1,),
            flags=("--desirable-weight", "1", "--undesirable-weight", "0.5"),
        ),
        Arm("F6", "A4, made-up ids not scored", KTO, (ROUND_1,), flags=("--mask", SESSION_IDS)),
        Arm("F7", "A4, only what labels are about scored", KTO, (ROUND_1,), flags=("--mask", *PARTS)),
    )
}
BASELINE, PRIMARY, CONTROL = "A1", "A4", "A5"
ASKED_BEHAVIORS = (BASELINE, PRIMARY, CONTROL, "A7")
"""Arms that are asked BEHAVIORS as well; all are asked HELDOUT."""
FOLLOW_UPS = ("F1", "F2", "F3", "F4", "F5", "F6", "F7")
"""Looked at only where round 1 does not help; in no test of the protocol."""

ORDER = (
    *((name, 0) for name in ("A1", "A4", "A5", "A3")),
    *((name, seed) for seed in (1, 2) for name in ("A1", "A4", "A3")),
    *((name, 0) for name in ("A6", "A2", "A7", "A8")),
)
"""(arm, seed) of the protocol, what tells most first, so that a run that ends early has not been in vain."""


def sets_of(arm: Arm) -> tuple[str, ...]:
    """The prompt sets that an arm is asked."""
    return SETS if arm.name in ASKED_BEHAVIORS else (HELDOUT,)


@dataclass(frozen=True)
class Hypothesis:
    """That `second` has a higher rate of `measure` ("strict" or "well_formed") than `first`."""

    name: str
    first: str
    second: str
    claim: str
    measure: str = "strict"


HYPOTHESES = (
    Hypothesis("H1", "A1", "A4", "a round of self-play and KTO helps"),
    Hypothesis("H2", "A5", "A4", "because of what the labels say"),
    Hypothesis("H3", "A2", "A4", "more than as many steps of SFT"),
    Hypothesis("H4", "A3", "A4", "wrong rows teach beyond right ones"),
    Hypothesis("H5", "A4", "A7", "a second round helps"),
    Hypothesis("H6", "A8", "A7", "rows are better kept than replaced"),
    Hypothesis("H7", "A1", "A6", "fields-only labels make answers well-formed", "well_formed"),
)
"""One family: their p-values are adjusted together, by all of them, also while some have not been run."""


def wanted(arms: Sequence[str] | None, seeds: Sequence[int] | None) -> list[tuple[str, int]]:
    """The (arm, seed) that somebody asked for, in the protocol's order, what it does not have last.

    None: all that the protocol has; an arm that it does not have gets seed 0. Raises UsageError where nothing is left.
    """
    if arms is None:
        found = {one for one in ORDER if seeds is None or one[1] in seeds}
    else:
        found = {(name, seed) for name in arms for seed in seeds or _seeds_of(name)}
    if not found:
        raise UsageError("the protocol has none of these --seeds: say which --arms shall have them")
    return sorted(found, key=lambda one: (ORDER.index(one) if one in ORDER else len(ORDER), one[1], one[0]))


def _seeds_of(name: str) -> list[int]:
    return [seed for arm, seed in ORDER if arm == name] or [0]
