"""Quotas of tools and behaviours, kept by every beginning of a run."""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from Evaluator.errors import UsageError
from tests.vaults import CATALOG
from Tools.prompts.coverage import NATURAL_COVERAGE, Turns, shares_of

TOOLS, BEHAVIORS = list(CATALOG.tools), ["ask", "refuse", "confirm", "call"]


@pytest.mark.parametrize("coverage", ["balanced", "natural"])
@pytest.mark.parametrize("behavior_share", [0.0, 0.2, 1.0])
def test_shares_add_up_and_behaviors_get_theirs(coverage, behavior_share):
    shares = shares_of(coverage, TOOLS, BEHAVIORS, behavior_share)
    assert sum(shares.values()) == pytest.approx(1)
    of_behaviors = sum(share for name, share in shares.items() if name.startswith("behavior:"))
    assert of_behaviors == pytest.approx(behavior_share)
    if coverage == "balanced" and behavior_share < 1:
        assert len({round(shares[tool], 9) for tool in TOOLS}) == 1


def test_natural_knows_every_tool_and_prefers_what_people_ask_for():
    assert json.loads(NATURAL_COVERAGE.read_text())["tools"].keys() == set(TOOLS)
    shares = shares_of("natural", TOOLS, BEHAVIORS, 0.2)
    assert shares["vaultLibrarian_searchContent"] > 5 * shares["agentManager_getAgent"]


@pytest.mark.parametrize("coverage", ["balanced", "natural"])
def test_every_beginning_of_a_run_keeps_the_quotas(coverage):
    shares = shares_of(coverage, TOOLS, BEHAVIORS, 0.2)
    turns, counts = Turns(shares, seed=3), Counter()
    for slot in range(3000):
        counts[turns.group_of(slot)] += 1
        if slot % 97 == 0:
            assert all(abs(counts[name] - share * (slot + 1)) < 3 for name, share in shares.items())
    assert set(counts) == set(shares)


def test_turns_depend_on_seed_and_slot_alone():
    shares = shares_of("balanced", TOOLS, BEHAVIORS, 0.2)
    forwards, backwards, other = Turns(shares, 1), Turns(shares, 1), Turns(shares, 2)
    assert [forwards.group_of(slot) for slot in range(200)] == [
        backwards.group_of(slot) for slot in reversed(range(200))
    ][::-1]
    assert [forwards.group_of(slot) for slot in range(200)] != [other.group_of(slot) for slot in range(200)]


def test_turns_are_the_same_when_many_threads_ask():
    shares = shares_of("balanced", TOOLS, BEHAVIORS, 0.2)
    alone, turns, interval = Turns(shares, 1), Turns(shares, 1), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(turns.group_of, range(3000)))
    finally:
        sys.setswitchinterval(interval)
    assert found == [alone.group_of(slot) for slot in range(3000)]


def test_a_file_gives_the_weights(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"tools": {TOOLS[0]: 3, TOOLS[1]: 1, TOOLS[2]: 0}, "behaviors": {"ask": 1}}))
    assert shares_of(str(path), TOOLS, BEHAVIORS, 0.2) == pytest.approx(
        {TOOLS[0]: 0.6, TOOLS[1]: 0.2, "behavior:ask": 0.2}
    )
    path.write_text(json.dumps({"tools": {TOOLS[0]: 1}}))
    assert len(shares_of(str(path), TOOLS, BEHAVIORS, 0.2)) == 5
    path.write_text(json.dumps({"behaviors": {"ask": 1}}))
    assert len(shares_of(str(path), TOOLS, BEHAVIORS, 0.2)) == len(TOOLS) + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ("{}", "no object"),
        ('{"tools": {}}', "weight 0"),
        ('{"tools": {"get_tool": 1}}', "get_tool, .*nearest: get_tools"),
        ('{"tools": {"get_tools": -1}}', "0 or more"),
        ('{"tools": {"get_tools": true}}', "0 or more"),
        ('{"tools": {"get_tools": 0}}', "weight 0"),
        ('{"tools": {"get_tools": 1}, "behaviors": {"sing": 1}}', "sing"),
        ('{"tools": {"get_tools": 1}, "others": {}}', "no object"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path, text, words):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        shares_of(str(path), TOOLS, BEHAVIORS, 0.2)


def test_a_file_that_is_not_there_names_the_other_ways():
    with pytest.raises(UsageError, match="balanced or natural"):
        shares_of("evenly", TOOLS, BEHAVIORS, 0.2)
