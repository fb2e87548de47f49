"""A goal is met by what was asked for, and by nothing more or less."""

import random

import pytest

from Evaluator.catalog import CONTEXT
from Evaluator.goal_writing import NoGoal, goal_of
from Evaluator.judging.execution import NOTHING, execute
from Evaluator.judging.goals import is_like, shortcomings
from Evaluator.judging.validator import validate
from Evaluator.prompt_sets import HELDOUT_PROMPTS, TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import Message, Prompt, ToolCall
from Evaluator.tool_calls import render_turn
from Evaluator.trials.goal_checks import goal_fault
from Evaluator.trials.random_calls import random_call
from tests.vaults import AGENT, CALL_CONTEXT, CATALOG, SESSION, WORKSPACE, call, small_vault

ALL_PROMPTS = load_prompt_sets([TOOL_PROMPTS, HELDOUT_PROMPTS]).prompts


def codes(goal, *calls: ToolCall) -> list[str]:
    return [one.code for one in shortcomings(execute(calls, small_vault(), CATALOG), goal)]


MOVE = call("vaultManager_moveNote", path="Garden/Beds.md", newPath="Archive/Beds.md")
MOVED = {"notes": {"moved": {"Garden/Beds.md": "Archive/Beds.md"}}, "folders": {"added": ["Archive"]}}


def test_a_goal_is_what_the_right_call_does():
    assert goal_of(MOVE, "Move it", small_vault(), CATALOG) == MOVED
    assert codes(MOVED, MOVE) == []


@pytest.mark.parametrize(
    "calls, expected",
    [
        ([], ["execution.not_done:notes.moved", "execution.not_done:folders.added"]),
        (
            [call("vaultManager_moveNote", path="Garden/Beds.md", newPath="Archive/beds.md")],
            ["execution.not_done:notes.moved"],
        ),
        (
            [call("vaultManager_moveNote", path="Photos/bed.png", newPath="Archive/bed.png")],
            ["execution.not_done:notes.moved", "execution.collateral:notes.moved"],
        ),
        ([MOVE, call("vaultManager_deleteNote", path="Photos/bed.png")], ["execution.collateral:notes.removed"]),
        ([MOVE, call("vaultManager_createFolder", path="More")], ["execution.collateral:folders.added"]),
        ([MOVE, MOVE], ["execution.error:vaultManager_moveNote"]),
    ],
)
def test_a_goal_is_not_met_by_less_or_by_more(calls, expected):
    assert codes(MOVED, *calls) == expected


@pytest.mark.parametrize(
    "question, right, good, bad",
    [
        (
            'Add "- leeks" to Garden/Seeds/List.md',
            call("contentManager_appendContent", filePath="Garden/Seeds/List.md", content="- leeks"),
            [{"content": "- leeks\n"}, {"content": "\n- leeks"}],
            [{"content": "- Leeks"}, {"content": "leeks"}, {"filePath": "Garden/Beds.md"}],
        ),
        (
            "Write two lines about the rain into a new note Journal/Rain.md",
            call(
                "contentManager_createContent",
                filePath="Journal/Rain.md",
                content="Rain again.\nThe garden has to wait.",
            ),
            [{"content": "The garden waits because of rain."}],
            [{"content": "Buy shoes."}, {"content": ""}, {"filePath": "Journal/Rain2.md"}],
        ),
        (
            'Start a session "May" with the goal of sowing all beans',
            call("memoryManager_createSession", name="May", sessionGoal="Sow all the beans"),
            [{"sessionGoal": "Get the beans into the ground"}, {"description": "Beans"}],
            [{"name": "May 2026"}, {"sessionGoal": "Buy a car"}, {"tags": ["x"]}],
        ),
        (
            "Which files lie in Garden itself?",
            call("vaultManager_listDirectory", path="Garden", filesOnly=True),
            [{"path": "Garden/"}, {"depth": 0}, {"includeFolders": False}],
            [{"path": ""}, {"depth": 1}, {"filesOnly": False}],
        ),
        (
            "Search my notes for 'beans', the best hit is enough",
            call("vaultLibrarian_searchContent", query="beans", limit=1),
            [{"query": "Beans"}, {"includeContent": False}],
            [{"limit": 2}, {"query": "Tomatoes"}],
        ),
    ],
)
def test_what_may_differ_and_what_may_not(question, right, good, bad):
    goal = goal_of(right, question, small_vault(), CATALOG)
    assert codes(goal, right) == []
    for change in good:
        assert codes(goal, ToolCall(right.name, {**right.arguments, **change})) == [], change
    for change in bad:
        assert codes(goal, ToolCall(right.name, {**right.arguments, **change})) != [], change


def test_the_order_of_a_result_counts_where_it_was_asked_for():
    vault = small_vault()
    vault.sessions["session_2"] = {**vault.sessions[SESSION], "id": "session_2", "name": "Winter"}
    goal = goal_of(call("memoryManager_listSessions", order="asc"), "A to Z", vault, CATALOG)
    assert shortcomings(execute([call("memoryManager_listSessions", order="desc")], vault, CATALOG), goal)
    unordered = goal_of(call("memoryManager_listSessions"), "All", vault, CATALOG)
    assert not shortcomings(execute([call("memoryManager_listSessions", order="asc")], vault, CATALOG), unordered)


@pytest.mark.parametrize(
    "useless",
    [
        call("vaultManager_createFolder", path="Garden"),
        call("vaultManager_deleteNote", path="Gone.md"),
        call("vaultLibrarian_searchContent", query="zzzz"),
    ],
)
def test_a_call_that_does_and_finds_nothing_has_no_goal(useless):
    with pytest.raises(NoGoal):
        goal_of(useless, "q", small_vault(), CATALOG)


@pytest.mark.parametrize(
    "prompt, fault",
    [
        (Prompt("p", "q", goal={}, vault=small_vault()), "doing nothing meets its goal"),
        (Prompt("p", "q", goal=MOVED), "it has a goal, but no vault"),
        (
            Prompt(
                "p", "q", goal=MOVED, vault=small_vault(), expected_call=call("vaultManager_createFolder", path="x")
            ),
            "its expected_call",
        ),
        (Prompt("p", "q", goal=MOVED, vault=small_vault(), expected_call=MOVE), None),
        (Prompt("p", "q"), None),
    ],
)
def test_a_worthless_goal_is_a_fault_of_the_prompt(prompt, fault):
    found = goal_fault(prompt, CATALOG)
    assert found == fault if fault is None else str(found).startswith(fault)


def test_a_prompt_set_with_a_worthless_goal_is_refused(tmp_path, capsys):
    from Tools.selfplay_generator import main

    path = tmp_path / "set.json"
    path.write_text('[{"id": "one", "question": "Do it", "vault": "farm", "goal": {}}]')
    assert main(["--prompt-set", str(path), "--model", "scripted:x", "--output", str(tmp_path / "o.jsonl")]) == 2
    assert "the prompt one cannot be used: doing nothing meets its goal" in capsys.readouterr().err


@pytest.mark.parametrize("prompt", ALL_PROMPTS, ids=lambda prompt: prompt.id)
def test_a_bundled_prompt_is_met_by_its_call_alone(prompt):
    assert goal_fault(prompt, CATALOG, num_random_calls=10) is None
    verdict = validate(render_turn([prompt.expected_call]), prompt, CATALOG)
    assert verdict.label, verdict.findings
    assert all(verdict.checks.values())


def test_the_heldout_set_has_five_prompts_a_tool_and_shares_nothing_with_the_other():
    heldout = load_prompt_sets([HELDOUT_PROMPTS]).prompts
    tools = [prompt.expected_tools[0] for prompt in heldout]
    assert {tools.count(name) for name in CATALOG.tools} == {5}
    others = load_prompt_sets([TOOL_PROMPTS]).prompts
    assert not {prompt.question for prompt in heldout} & {prompt.question for prompt in others}
    assert not {prompt.vault.name for prompt in heldout} & {prompt.vault.name for prompt in others}


def test_two_trivial_agents_score_nothing():
    """One says it is done, one makes random calls that fit the schemas."""
    for prompt in ALL_PROMPTS:
        assert not validate(Message("assistant", "Done."), prompt, CATALOG).label
        for index in range(3):
            guess = random_call(CATALOG, prompt.vault, random.Random(f"{prompt.id}:{index}"))
            assert not validate(render_turn([guess]), prompt, CATALOG).label


def test_a_random_agent_that_is_handed_the_right_context_is_right_by_luck_alone():
    """Only on tools that need no arguments or few: to pick `listModels` is all that its prompt asks for."""
    lucky = []
    for prompt in ALL_PROMPTS:
        for index in range(10):
            rng = random.Random(f"{prompt.id}:{index}")
            guess = random_call(CATALOG, prompt.vault, rng, prompt.expected_call.arguments[CONTEXT])
            if validate(render_turn([guess]), prompt, CATALOG).label:
                lucky.append(guess.name)
    assert len(lucky) <= 0.005 * 10 * len(ALL_PROMPTS)
    assert all(len(CATALOG.tools[name].parameters.get("required", ())) <= 1 for name in lucky), lucky


def test_the_session_that_is_running_is_there_before_the_call():
    context = {**CALL_CONTEXT, "sessionId": "session_1999999999999_new000000"}
    rename = ToolCall("memoryManager_updateSession", {CONTEXT: context, "name": "Now"})
    execution = execute([rename], small_vault(), CATALOG)
    assert list(execution.changes["sessions"].changed) == ["session_1999999999999_new000000"]


OTHER = "session_1751352637339_xk07867vb"


def in_session(session: str, one: ToolCall) -> ToolCall:
    return ToolCall(one.name, {**one.arguments, CONTEXT: {**one.arguments[CONTEXT], "sessionId": session}})


def test_which_session_a_listing_runs_in_is_nothing_that_a_goal_asks_for_unless_it_is_told():
    listing = in_session("session_1999999999999_new000000", call("memoryManager_listSessions"))
    goal = goal_of(listing, "List them", small_vault(), CATALOG)
    assert goal["result"] == {"sessions[].id": [SESSION]}
    assert codes(goal, in_session(OTHER, listing)) == codes(goal, listing) == []
    told = goal_of(listing, "List them", small_vault(), CATALOG, "sessionId: session_1999999999999_new000000")
    assert len(told["result"]["sessions[].id"]) == 2
    assert codes(told, listing) == [] and codes(told, in_session(OTHER, listing))
    loading = call("memoryManager_loadWorkspace", id=WORKSPACE)
    assert codes(goal_of(loading, f"Load {WORKSPACE}", small_vault(), CATALOG), in_session(OTHER, loading)) == []


def test_an_option_of_one_element_is_asked_for_as_well():
    searches = [{"query": "beans", "limit": 7}, {"query": "bed", "limit": 7}]
    right = call("vaultLibrarian_batch", searches=searches)
    goal = goal_of(right, 'Find "beans" and "bed", 7 results each', small_vault(), CATALOG)
    assert codes(goal, right) == codes(goal, call("vaultLibrarian_batch", searches=searches[::-1])) == []
    for less in ([searches[0], {"query": "bed"}], [{"query": "beans"}, searches[1]]):
        assert codes(goal, call("vaultLibrarian_batch", searches=less)) == ["execution.option_missing:searches[].limit"]


def test_a_step_that_fails_is_an_error_of_the_call():
    note = {"filePath": "New.md", "content": "x"}
    create, twice = ([{"type": "create", "params": note}] * number for number in (1, 2))
    goal = goal_of(call("contentManager_batchContent", operations=create), "Make it", small_vault(), CATALOG)
    assert codes(goal, call("contentManager_batchContent", operations=create)) == []
    again = call("contentManager_batchContent", operations=twice)
    assert codes(goal, again) == ["execution.error:contentManager_batchContent"]
    with pytest.raises(NoGoal, match="A step of"):
        goal_of(again, "Make it", small_vault(), CATALOG)


@pytest.mark.parametrize(
    "calls",
    [
        [call("vaultManager_listDirectory", path="", filter="*[a[:a:]")],
        [call("vaultManager_listDirectory", path="", filter="(?u)(?a)")],
        [
            call("memoryManager_createWorkspace", name="A", rootFolder="A", purpose="P", currentGoal="G", workflows=[]),
            call("memoryManager_updateWorkspace", workspaceId=WORKSPACE, fieldPath="name", newValue=5),
            call("memoryManager_listWorkspaces"),
        ],
    ],
    ids=["pattern", "flags", "a name that is a number"],
)
def test_odd_values_are_judged_and_no_crash(calls):
    prompt = Prompt("odd", "Do that", vault=small_vault(), goal={"result": {"x": [1]}})
    assert not validate(render_turn(calls), prompt, CATALOG).label


def test_without_calls_nothing_happened():
    assert shortcomings(NOTHING, {"agents": {"removed": [AGENT]}})[0].code == "execution.not_done:agents.removed"
    assert WORKSPACE in small_vault().workspaces


@pytest.mark.parametrize(
    ("text", "model", "fits"),
    [
        ("The beans come late", "The beans are late", True),
        ("The beans are late", "The beans are not late", False),
        ("No beans today", "Beans in bed two", False),
        ("Water 5 beds", "Water 7 beds", False),
        ("beans late " * 40, "Beans are late", False),
    ],
)
def test_a_free_text_has_the_numbers_the_negation_and_the_size_of_its_model(text, model, fits):
    assert is_like(text, model) is fits


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"nots": {"removed": ["a.md"]}}, "unknown part nots"),
        ({"notes": {"moved": "abc"}}, "moved: 'abc'"),
        ({"notes": {"gone": ["abc"]}}, "gone: "),
        ({"notes": []}, '"notes" of its goal is no object'),
        ({"result": "x"}, '"result" of its goal is no object'),
        ({"about": 5}, '"about" of its goal is no text'),
        ({"result": {"files[].path": 5}}, "files[].path: 5"),
        ({"result": {"files[].path": {}}}, "files[].path: {}"),
        ({"result": {"files[].path": {"some": []}}}, "files[].path: {'some'"),
        ({"options": {"tags[]": "x"}}, "tags[]: 'x'"),
        ({"notes": {"changed": {"a.md": {"lik": "x"}}}}, "changed: {'a.md'"),
        ({"notes": {"changed": {"a.md": {"like": 5}}}}, "changed: {'a.md'"),
        ({"notes": {"changed": {"a.md": {"like": "x", "without": "y"}}}}, "changed: {'a.md'"),
        ({"notes": {"added": {"a.md": 5}}}, "added: {'a.md'"),
        ({"notes": {"removed": [{}]}}, "removed: [{}]"),
        ({"sessions": {"added": ["x"]}}, "added: ['x']"),
        ({"sessions": {"added": [{"name": {"like": 5}}]}}, "added: [{'name'"),
        ({"options": {"name": {"like": 5}}}, "name: {'like': 5}"),
        ({"sessions": {"changed": {"s": "x"}}}, "changed: {'s'"),
    ],
)
def test_a_goal_of_another_form_is_refused(goal, said):
    prompt = Prompt("p", "Do it", vault=small_vault(), goal=goal)
    assert said in goal_fault(prompt, CATALOG)
