"""Values come from the conversation, the system prompt or the vault."""

import pytest

from Evaluator.catalog import CONTEXT
from Evaluator.judging.grounding import sources_of, ungrounded
from Evaluator.records import ToolCall
from tests.vaults import AGENT, CALL_CONTEXT, CATALOG, small_vault

CONTEXT_TEXT = "Tidying Inbox and Garden notes, beans, seeds, rain"


def codes(request: str, name: str, *, vault=None, earlier=(), **arguments) -> list[str]:
    context = {**CALL_CONTEXT, "primaryGoal": request}
    call = ToolCall(name, {CONTEXT: context, **arguments})
    return [one.code for one in ungrounded(call, sources_of(request, earlier, vault), CATALOG)]


@pytest.mark.parametrize(
    "request_text, path",
    [
        ("Open Inbox/Q3 & notes!.md please", "Inbox/Q3 & notes!.md"),
        ("open inbox/plan", "Inbox/Plan.md"),
        ("Open the note 'Plan' in Inbox.", "Inbox/Plan.md"),
        ("Open the quarterly plan in my Inbox", "Inbox/quarterly-plan.md"),
        ("Open my bed plan", "Garden/Beds.md"),
        ("Open my bed plan", "/Garden/Old/beds"),
        ("What is at the top level?", "/"),
    ],
)
def test_a_path_that_was_named_is_known(request_text, path):
    assert codes(request_text, "vaultManager_openNote", vault=small_vault(), path=path) == []


@pytest.mark.parametrize(
    "request_text, path",
    [
        ("Open Inbox/Q3 & notes!.md please", "Inbox/Q3 & notes.md"),
        ("Open my plan", "Projects/Plan 2024.md"),
        ("Open the planning note", "plan.md"),
        ("Open Inbox/plan.md", "Archive/plan.md"),
    ],
)
def test_a_path_from_thin_air_is_not(request_text, path):
    assert codes(request_text, "vaultManager_openNote", vault=small_vault(), path=path) == [
        "grounding.unknown_path:path"
    ]


def test_what_is_replaced_by_itself_is_no_change():
    said = codes(
        "Replace beans by beans in Garden/Beds.md",
        "contentManager_replaceContent",
        vault=small_vault(),
        filePath="Garden/Beds.md",
        oldContent="beans",
        newContent="beans",
    )
    assert said == ["grounding.same_value:newContent"]


def test_ids_come_from_the_talk_or_the_vault():
    assert codes("Delete the plant agent", "agentManager_deleteAgent", vault=small_vault(), id=AGENT) == []
    assert (
        codes("Delete the plant agent", "agentManager_deleteAgent", earlier=[f'- Plant (id: "{AGENT}")'], id=AGENT)
        == []
    )
    assert codes("Delete the plant agent", "agentManager_deleteAgent", id=AGENT) == ["grounding.unknown_id:id"]


@pytest.mark.parametrize(
    "request_text, day, is_known",
    [
        ("Files since 2026-09-01 about rain", "2026-09-01", True),
        ("Files of 1 September 2026 about rain", "2026-09-01", True),
        ("Files of last week about rain", "2026-09-07", True),
        ("Files about rain", "2026-09-07", False),
    ],
)
def test_dates_are_told_or_relative(request_text, day, is_known):
    found = codes(request_text, "vaultLibrarian_searchDirectory", query="rain", paths=["/"], dateRange={"start": day})
    assert found == ([] if is_known else ["grounding.unknown_date:dateRange"])


def test_search_words_and_names_come_from_somewhere():
    assert codes("Find what I wrote about tomatoes", "vaultLibrarian_searchContent", query="tomato notes") == []
    assert codes("Find what I wrote about tomatoes", "vaultLibrarian_searchContent", query="quarterly budget") == [
        "grounding.unknown_name:query"
    ]


def test_names_of_tools_that_were_said_are_known():
    ask = "Tell me the schemas of vaultManager_openNote and contentManager_readContent"
    tools = ["vaultManager_openNote", "contentManager_readContent"]
    assert codes(ask, "get_tools", tools=tools) == []
    assert codes(ask, "get_tools", tools=["agentManager_listAgents"]) == ["grounding.unknown_name:tools"]


def test_free_text_has_to_do_with_the_request():
    ask = "Note in Garden/Beds.md that the beans are late"
    assert codes(ask, "contentManager_appendContent", filePath="Garden/Beds.md", content="Beans: behind schedule") == []
    assert codes(ask, "contentManager_appendContent", filePath="Garden/Beds.md", content="Lorem ipsum dolor") == [
        "grounding.unrelated_text:content"
    ]


def test_the_whole_request_is_no_argument():
    ask = "Please search my notes for heat pumps and boilers"
    assert codes(ask, "vaultLibrarian_searchContent", query=ask) == ["grounding.copied_request:query"]
    assert codes("heat pumps", "vaultLibrarian_searchContent", query="heat pumps") == []


def test_a_context_about_something_else_is_refused():
    context = {
        **CALL_CONTEXT,
        "sessionDescription": "x",
        "toolContext": "x",
        "primaryGoal": "Learn chess",
        "subgoal": "x",
    }
    call = ToolCall("vaultManager_deleteNote", {CONTEXT: context, "path": "Inbox/a.md"})
    found = ungrounded(call, sources_of("Delete Inbox/a.md", [], None), CATALOG)
    assert [one.code for one in found] == ["grounding.unrelated_context"]


def test_words_of_the_schema_need_no_source():
    assert codes("Open Inbox/a.md beside this", "vaultManager_openNote", path="Inbox/a.md", mode="split") == []
