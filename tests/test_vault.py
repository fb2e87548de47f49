"""Each tool does to the vault what the server does, with its results and its errors."""

import copy
import json
import os
import random
import shutil
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Evaluator.catalog import CONTEXT
from Evaluator.errors import UsageError
from Evaluator.judging.validator import validate
from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets
from Evaluator.records import ToolCall
from Evaluator.tool_calls import render_turn
from Evaluator.trials.random_calls import random_call
from Evaluator.vault.changes import changes_between, to_dict
from Evaluator.vault.loading import fixture_names, load_fixture, load_folder
from Evaluator.vault.server import TOOLS, run_call
from Evaluator.vault.state import RECORD_TABLES, Note
from tests.vaults import AGENT, CALL_CONTEXT, CATALOG, NOTES, SESSION, STATE, WORKSPACE, run, small_vault

BEDS = NOTES["Garden/Beds.md"]


def changes_of(name: str, /, **arguments):
    vault = small_vault()
    before = vault.copy()
    reply = run(vault, name, **arguments)
    assert reply.error is None, reply.error
    return to_dict(changes_between(before, vault))


# -- what the tools change ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        (
            "createFolder",
            {"path": "Garden/2026/May"},
            {"folders": {"added": {"Garden/2026": True, "Garden/2026/May": True}}},
        ),
        ("createFolder", {"path": "/Garden/"}, {}),
        ("deleteFolder", {"path": "Empty"}, {"folders": {"removed": {"Empty": True}}}),
        (
            "deleteNote",
            {"path": "Journal/2026-07-14"},
            {"notes": {"removed": {"Journal/2026-07-14.md": NOTES["Journal/2026-07-14.md"]}}},
        ),
        (
            "duplicateNote",
            {"sourcePath": "Garden/Beds.md", "targetPath": "Copy.md"},
            {"notes": {"added": {"Copy.md": BEDS}}},
        ),
        (
            "duplicateNote",
            {"sourcePath": "Garden/Beds.md", "targetPath": "Garden/Beds.md", "autoIncrement": True, "overwrite": True},
            {"notes": {"added": {"Garden/Beds copy.md": BEDS}}},
        ),
        (
            "moveNote",
            {"path": "Photos/bed.png", "newPath": "Garden/bed.png"},
            {"notes": {"moved": {"Photos/bed.png": "Garden/bed.png"}}},
        ),
        (
            "moveNote",
            {"path": "Photos/bed.png", "newPath": "Journal/2026-07-14.md", "overwrite": True},
            {
                "notes": {
                    "changed": {"Journal/2026-07-14.md": {"old": NOTES["Journal/2026-07-14.md"], "new": ""}},
                    "removed": {"Photos/bed.png": ""},
                }
            },
        ),
        (
            "moveFolder",
            {"path": "Garden/Old", "newPath": "Archive/Garden"},
            {
                "notes": {"moved": {"Garden/Old/Beds.md": "Archive/Garden/Beds.md"}},
                "folders": {"added": {"Archive": True, "Archive/Garden": True}, "removed": {"Garden/Old": True}},
            },
        ),
        (
            "editFolder",
            {"path": "Garden/Old", "newPath": "Garden/Older"},
            {
                "notes": {"moved": {"Garden/Old/Beds.md": "Garden/Older/Beds.md"}},
                "folders": {"added": {"Garden/Older": True}, "removed": {"Garden/Old": True}},
            },
        ),
        (
            "openNote",
            {"path": "Garden/Beds"},
            {"opened": {"added": {"0": {"path": "Garden/Beds.md", "mode": "current", "focus": True}}}},
        ),
        (
            "createContent",
            {"filePath": "New/a: b", "content": ""},
            {"notes": {"added": {"New/a_ b.md": ""}}, "folders": {"added": {"New": True}}},
        ),
        (
            "appendContent",
            {"filePath": "Garden/Beds", "content": "x"},
            {"notes": {"changed": {"Garden/Beds.md": {"old": BEDS, "new": BEDS + "x"}}}},
        ),
        (
            "prependContent",
            {"filePath": "Garden/Beds", "content": "x"},
            {"notes": {"changed": {"Garden/Beds.md": {"old": BEDS, "new": "x" + BEDS}}}},
        ),
    ],
)
def test_a_tool_changes_the_vault_as_it_says(name, arguments, expected):
    assert changes_of(name, **arguments) == expected


@pytest.mark.parametrize(
    "name, arguments, new_text",
    [
        ("replaceContent", {"oldContent": "- beans", "newContent": "- corn"}, "- corn\n- peas\n- Beans again\n"),
        (
            "replaceContent",
            {"oldContent": "- peas", "newContent": "$& and $$5"},
            "- beans\n- peas and $5\n- Beans again\n",
        ),
        (
            "replaceContent",
            {"oldContent": "- Beans agaim", "newContent": "-", "similarityThreshold": 0.8},
            "- beans\n- peas\n-\n",
        ),
        ("deleteContent", {"content": "- "}, "beans\npeas\nBeans again\n"),
        ("replaceByLine", {"startLine": 2, "endLine": 99, "newContent": "x\ny"}, "- beans\nx\ny"),
        ("findReplaceContent", {"findText": "e", "replaceText": "E"}, "- bEans\n- peas\n- Beans again\n"),
        (
            "findReplaceContent",
            {"findText": "BEANS", "replaceText": "x", "replaceAll": True, "caseSensitive": False},
            "- x\n- peas\n- x again\n",
        ),
        (
            "findReplaceContent",
            {"findText": "pea", "replaceText": "x", "wholeWord": True},
            "- beans\n- peas\n- Beans again\n",
        ),
    ],
)
def test_text_is_replaced_as_the_server_does_it(name, arguments, new_text):
    vault = small_vault()
    assert run(vault, name, filePath="Garden/Seeds/List.md", **arguments).error is None
    assert vault.notes["Garden/Seeds/List.md"].text == new_text


def test_a_batch_goes_on_after_a_failed_operation():
    vault = small_vault()
    steps = [
        {"type": "read", "params": {"filePath": "Nowhere.md"}},
        {"type": "append", "params": {"filePath": "Garden/Beds.md", "content": "x"}},
    ]
    results = run(vault, "batchContent", operations=steps).data["results"]
    assert [one["success"] for one in results] == [False, True]
    assert vault.notes["Garden/Beds.md"].text == BEDS + "x"


def test_records_are_made_and_changed():
    vault = small_vault()
    session = run(vault, "createSession", name="May", sessionGoal="Sow").data["sessionId"]
    assert vault.sessions[session]["workspaceId"] == WORKSPACE
    loaded = run(vault, "loadSession", targetSessionId=session).data
    assert vault.sessions[loaded["newSessionId"]]["name"] == 'Continuation of "May"'
    assert run(vault, "updateSession", name="Spring 2026").data["sessionId"] == SESSION
    state = run(
        vault,
        "createState",
        name="S",
        conversationContext="c",
        activeTask="t",
        activeFiles=["a.md"],
        nextSteps=["n"],
        reasoning="r",
    ).data["stateId"]
    assert run(vault, "updateState", stateId=state, addTags=["x", "y"], removeTags=["x"]).data["tags"] == ["x", "y"]
    assert [one["id"] for one in run(vault, "listStates", tags=["sowing"]).data["states"]] == [STATE]
    workspace = run(
        vault,
        "createWorkspace",
        name="W",
        rootFolder="Garden/Old",
        purpose="p",
        currentGoal="g",
        workflows=[{"name": "n", "when": "w", "steps": "s"}],
    ).data["workspaceId"]
    run(vault, "updateWorkspace", workspaceId=workspace, fieldPath="context.goals[0]", newValue="g")
    assert vault.workspaces[workspace]["context"] == {"goals": {"0": "g"}}
    assert run(vault, "loadWorkspace", id=WORKSPACE).data["context"]["recentActivity"] == [
        "Added beans to the seed list"
    ]
    agent = run(vault, "createAgent", name="A", description="d", prompt="p").data["id"]
    assert run(vault, "toggleAgent", id=agent).data["isEnabled"] is False
    assert run(vault, "deleteAgent", id=agent).data == {"deleted": True, "id": agent}
    assert run(vault, "getAgent", name="Plant Doctor").data["id"] == AGENT


def test_what_goes_outside_is_recorded_and_answered_by_a_stand_in():
    vault = small_vault()
    reply = run(
        vault,
        "executePrompt",
        prompt="Why?",
        agent="Plant Doctor",
        filepaths=["Garden/Beds"],
        action={"type": "create", "targetPath": "Answer"},
    )
    assert vault.requests[0]["files"] == ["Garden/Beds.md"]
    assert vault.notes["Answer.md"].text == reply.data["response"]
    run(vault, "generateImage", prompt="a bean", provider="google", savePath="Photos/bean.png")
    run(vault, "executeCommand", commandId="app:reload")
    assert [one["kind"] for one in vault.requests.values()] == ["text", "image", "command"]
    assert "Photos/bean.png" in vault.notes


# -- what the tools answer ----------------------------------------------------------------------------------------


def test_reading_answers_what_the_vault_holds():
    vault = small_vault()
    before = vault.copy()
    listed = run(vault, "listDirectory", path="", depth=1, filter="*.md").data
    assert [one["path"] for one in listed["files"]] == ["Garden/Beds.md", "Journal/2026-07-14.md"]
    assert [one["name"] for one in run(vault, "listDirectory", path="Garden", foldersOnly=True).data["folders"]] == [
        "Old",
        "Seeds",
    ]
    assert (
        run(vault, "readContent", filePath="Garden/Beds", offset=4, limit=3).data["content"]
        == "# Beds\n\nTomatoes in bed one"
    )
    assert run(vault, "readContent", filePath="Garden/Beds", limit=3).data["content"] == BEDS
    assert (
        run(vault, "readContent", filePath="Garden/Old/Beds", includeLineNumbers=True).data["content"]
        == "1: old beds\n2: "
    )
    found = run(vault, "searchContent", query="beans").data["results"]
    assert {one["filePath"] for one in found} == {"Garden/Beds.md", "Garden/Seeds/List.md"}
    assert (
        run(vault, "searchDirectory", query="beds", paths=["Garden"], depth=1).data["results"][0]["path"]
        == "Garden/Beds.md"
    )
    assert run(vault, "searchMemory", query="beans", workspaceId=WORKSPACE).data["totalResults"] == 1
    assert run(vault, "vaultLibrarian_batch", searches=[{"query": "garden"}]).data["searches"][0]["totalResults"] > 2
    assert run(vault, "listCommands", filter="EXPORT").data["total"] == 2
    assert run(vault, "get_tools", tools=["get_tools", "nothing"]).data["toolCount"] == 1
    assert len(run(vault, "get_tools", tools=[]).data["overview"]["vaultManager"]["modes"]) == 9
    assert changes_between(before, vault) == {}


@pytest.mark.parametrize(
    "name, arguments, error",
    [
        ("createFolder", {"path": ""}, "Path is required"),
        (
            "createFolder",
            {"path": "Garden/Beds.md"},
            "Failed to create folder: Path exists but is not a folder: Garden/Beds.md",
        ),
        ("deleteFolder", {"path": "Garden"}, "Failed to delete folder: Folder is not empty: Garden"),
        ("deleteFolder", {"path": "Gone"}, "Failed to delete folder: Folder not found: Gone"),
        ("deleteNote", {"path": "Garden"}, "Failed to delete note: File not found: Garden.md"),
        (
            "duplicateNote",
            {"sourcePath": "x.md", "targetPath": "y.md"},
            "Failed to duplicate note: Source file not found: x.md",
        ),
        (
            "duplicateNote",
            {"sourcePath": "Garden/Beds.md", "targetPath": "Photos/bed.png"},
            "Failed to duplicate note: Target file already exists: Photos/bed.png",
        ),
        (
            "editFolder",
            {"path": "Gone", "newPath": "New"},
            "Failed to rename folder: ENOENT: no such file or directory, rename 'Gone' -> 'New'",
        ),
        (
            "editFolder",
            {"path": "Empty", "newPath": "Garden"},
            "Failed to rename folder: ENOTEMPTY: directory not empty, rename 'Empty' -> 'Garden'",
        ),
        (
            "moveFolder",
            {"path": "Garden", "newPath": "Empty"},
            "Failed to move folder: Destination already exists: Empty",
        ),
        ("moveNote", {"path": "Garden/Beds", "newPath": "x.md"}, "Failed to move note: File not found: Garden/Beds"),
        ("openNote", {"path": "Gone"}, "Note not found at path: Gone.md"),
        ("listDirectory", {"path": "Gone"}, "Failed to list directory contents: Folder not found at path: Gone"),
        ("readContent", {"filePath": "Gone"}, "Error reading content: Error reading file: File not found: Gone.md"),
        (
            "readContent",
            {"filePath": "Garden/Beds", "offset": 5, "limit": 0},
            "Error reading content: Error reading lines: Start line cannot be greater than end line",
        ),
        (
            "createContent",
            {"filePath": "Garden/Beds", "content": "x"},
            "Error creating file: Error creating file: File already exists: Garden/Beds.md",
        ),
        (
            "appendContent",
            {"filePath": "Gone", "content": "x"},
            "Error appending content: Error appending to file: File not found: Gone.md",
        ),
        (
            "replaceContent",
            {"filePath": "Garden/Beds", "oldContent": "zzz", "newContent": "x"},
            "Error replacing content: Error replacing content: Content to replace not found in file, "
            "even with fuzzy matching at 95% threshold",
        ),
        (
            "replaceByLine",
            {"filePath": "Garden/Beds.md", "startLine": 3, "endLine": 2, "newContent": "x"},
            "Error replacing lines: Start line cannot be greater than end line",
        ),
        ("searchContent", {"query": " "}, "Query parameter is required and cannot be empty"),
        (
            "vaultLibrarian_batch",
            {"searches": [{"query": "a"}] * 3, "maxConcurrency": 2},
            "Too many searches requested. Maximum allowed: 2",
        ),
        ("loadWorkspace", {"id": "Garden"}, "Workspace with ID 'Garden' not found"),
        ("loadSession", {"targetSessionId": "s"}, "Session not found: s"),
        ("loadState", {"stateId": "s"}, "State not found: s"),
        ("getAgent", {"name": "Nobody"}, 'Agent with name "Nobody" not found'),
        (
            "createAgent",
            {"name": "Plant Doctor", "description": "d", "prompt": "p"},
            'Failed to create agent: Error: A prompt with the name "Plant Doctor" already exists',
        ),
        ("deleteAgent", {"id": "x"}, 'Prompt with ID "x" not found'),
        ("executePrompt", {"prompt": "x", "agent": "Nobody"}, "Custom prompt agent 'Nobody' not found"),
        ("executeCommand", {"commandId": "x"}, "Command with ID x not found"),
        ("get_tools", {"tools": ["x"]}, "No valid tools found for the requested names: x"),
    ],
)
def test_an_error_reads_as_the_server_words_it_and_changes_nothing(name, arguments, error):
    vault = small_vault()
    before = vault.copy()
    assert run(vault, name, **arguments).error == error
    assert changes_between(before, vault) == {}


def test_arguments_that_do_not_fit_the_schema_are_refused_before_the_tool_runs():
    assert run(small_vault(), "createFolder", path=7).error.startswith("Invalid parameters: $.path")
    assert run(small_vault(), "createFolder", path="A", unknown=1).error is None  # the server passes over these
    assert run_call(ToolCall("nothing", {}), small_vault(), CATALOG).error == "Unknown tool: nothing"


ESCAPES = ("../x.md", "Garden/../../x.md", "..\\x.md", "C:\\x.md", "c:/x.md", "x\0.md")


@pytest.mark.parametrize("path", ESCAPES)
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("createContent", {"filePath": None, "content": "x"}),
        ("createFolder", {"path": None}),
        ("deleteFolder", {"path": None, "recursive": True}),
        ("moveNote", {"path": "Garden/Beds.md", "newPath": None}),
        ("generateImage", {"prompt": "x", "provider": "google", "savePath": None}),
        ("updateWorkspace", {"workspaceId": WORKSPACE, "fieldPath": "rootFolder", "newValue": None}),
    ],
)
def test_no_path_leads_out_of_the_vault(name, arguments, path):
    vault = small_vault()
    before = vault.copy()
    path = path.replace(".md", ".png") if name == "generateImage" else path
    reply = run(vault, name, **{key: path if value is None else value for key, value in arguments.items()})
    assert "Invalid path" in reply.error
    assert changes_between(before, vault) == {}


def test_an_absolute_path_is_one_of_the_vault():
    vault = small_vault()
    run(vault, "createContent", filePath="/etc/passwd.md", content="x")
    assert "etc/passwd.md" in vault.notes


# -- random and hostile calls -------------------------------------------------------------------------------------


def test_every_tool_of_the_catalog_can_be_run():
    assert set(TOOLS) == set(CATALOG.tools)


def test_results_fit_the_schemas_of_the_catalog():
    schemas = {
        name: jsonschema.Draft202012Validator(tool.result_data)
        for name, tool in CATALOG.tools.items()
        if tool.result_data
    }
    succeeded = set()
    for name in fixture_names():
        vault = load_fixture(name)
        for index in range(1500):
            call = random_call(CATALOG, vault, random.Random(f"{name}:{index}"), CALL_CONTEXT)
            reply = run_call(call, vault.copy(), CATALOG)
            json.dumps(reply.to_dict())
            if reply.error is None:
                succeeded.add(call.name)
                if call.name in schemas:
                    schemas[call.name].validate({"success": True, **reply.data} if reply.is_flat else reply.data)
    assert succeeded >= set(schemas) - {"memoryManager_loadSession"}


HOSTILE_TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [*NOTES, *ESCAPES, "", "/", ".", "(a+)+$", "[", "$`", "$'$'", "Garden", SESSION, STATE, AGENT, WORKSPACE]
    ),
)
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(1e308), st.floats(allow_nan=False), HOSTILE_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(HOSTILE_TEXT, inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def hostile_calls(draw):
    name = draw(st.sampled_from(sorted(CATALOG.tools)))
    if draw(st.booleans()):  # arguments that fit the schema, with values from the vault
        fitting = random_call(CATALOG, small_vault(), random.Random(draw(st.integers(0, 10**6))), CALL_CONTEXT, name)
        return ToolCall(name, fitting.arguments)
    known = sorted(CATALOG.tools[name].parameters.get("properties", {})) or ["x"]
    arguments = draw(st.dictionaries(st.sampled_from([*known, "other"]), ANYTHING, max_size=5))
    return ToolCall(name, {CONTEXT: draw(st.one_of(st.just(CALL_CONTEXT), ANYTHING)), **arguments})


MOVE_PROMPT = next(one for one in load_prompt_sets([TOOL_PROMPTS]).prompts if "moveNote" in one.id)


@settings(max_examples=300, deadline=2000)
@given(st.lists(hostile_calls(), max_size=8))
def test_no_sequence_of_calls_raises_or_hangs_or_changes_the_original(calls):
    original = small_vault()
    untouched = copy.deepcopy(original)
    vault = original.copy()
    for call in calls:
        json.dumps(run_call(call, vault, CATALOG).to_dict())
        json.dumps(validate(render_turn([call]), MOVE_PROMPT, CATALOG).codes)
    assert original == untouched
    assert all(not path.startswith("/") and ".." not in path.split("/") for path in (*vault.notes, *vault.folders))
    assert all(parent in vault.folders for path in vault.notes for parent in [path.rpartition("/")[0]] if parent)


def test_a_filter_that_would_take_for_ever_ends():
    vault = small_vault()
    run(vault, "createContent", filePath="a" * 60 + "!", content="x")
    assert run(vault, "listDirectory", path="", filter="^(a+)+$").error is None


def test_huge_numbers_do_no_harm():
    reply = run(small_vault(), "readContent", filePath="Garden/Beds", offset=1e308, limit=1e308)
    assert reply.data["content"] == ""


def test_the_same_calls_give_the_same_ids_and_results():
    replies = [
        [run(vault, "createSession", name="x").to_dict() for _ in range(3)] for vault in (small_vault(), small_vault())
    ]
    assert replies[0] == replies[1]
    assert len({one["data"]["sessionId"] for one in replies[0]}) == 3


# -- where vaults come from ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fixture_names())
def test_a_bundled_vault_is_whole(name):
    vault = load_fixture(name)
    assert 30 <= len(vault.notes) <= 60
    assert all(vault.sessions[one["sessionId"]]["workspaceId"] == one["workspaceId"] for one in vault.states.values())
    assert all(path in vault.notes for one in vault.workspaces.values() for path in one["keyFiles"])
    assert all(key == record["id"] for table in RECORD_TABLES for key, record in getattr(vault, table).items())


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_loaded_and_never_written(tmp_path):
    folder = tmp_path / "My Vault"
    for path, text in NOTES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / ".obsidian").mkdir()
    (folder / ".obsidian" / "app.json").write_text("{}")
    (folder / "Latin.md").write_bytes(b"caf\xe9")
    (folder / "link.md").symlink_to("/etc/hostname")
    (folder / ".workspaces").mkdir()
    record = {"id": WORKSPACE, "name": "Garden", "sessions": {SESSION: {"id": SESSION, "name": "Spring"}}}
    (folder / ".workspaces" / f"{WORKSPACE}.json").write_text(json.dumps(record))
    odd = {
        **record,
        "id": "ws_2",
        "sessions": None,
        "workflows": [{"name": "x"}, 3],
        "keyFiles": None,
        "created": "now",
    }
    odd["states"] = [{"id": "state_2", "tags": None, "created": "x", "activeFiles": [3]}, "x"]
    (folder / ".workspaces" / "odd.json").write_text(json.dumps(odd))
    (folder / ".workspaces" / "broken.json").write_text("{")
    before = snapshot(folder)
    vault = load_folder(folder)
    assert set(vault.notes) == {*NOTES, "Latin.md"}
    assert vault.sessions[SESSION]["workspaceId"] == WORKSPACE
    for index in range(1000):
        run_call(random_call(CATALOG, vault, random.Random(index), CALL_CONTEXT), vault, CATALOG)
    for name, arguments in (("loadWorkspace", {"id": "ws_2"}), ("loadState", {"stateId": "state_2"})):
        assert run(load_folder(folder), name, **arguments).error is None
    assert snapshot(folder) == before


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="is no folder"):
        load_folder(tmp_path / "gone")
    with pytest.raises(UsageError, match="known are clinic"):
        load_fixture("gone")
    shutil.rmtree(tmp_path)


def test_a_name_that_is_not_utf_8_is_left_out_with_a_warning(tmp_path, caplog):
    folder = os.fsencode(tmp_path) + b"/N\xfftes"
    Path(os.fsdecode(folder)).mkdir()
    for name in (b"Plan.md", b"b\xe9.md"):
        Path(os.fsdecode(folder + b"/" + name)).write_text("some words\n")
    vault = load_folder(Path(os.fsdecode(folder)))
    assert list(vault.notes) == ["Plan.md"] and vault.name == "N?tes"
    assert vault.new_id("session") and "1 names" in caplog.text


def test_links_are_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / "vault").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "Plan.md").write_text("some words\n")
    (tmp_path / "vault" / "Projects").symlink_to(tmp_path / "elsewhere")
    assert not load_folder(tmp_path / "vault").notes
    assert "1 links are left out, the first is Projects" in caplog.text


def test_names_are_composed_whatever_the_disk_keeps(tmp_path):
    decomposed, composed = "Cafe\u0301", "Caf\u00e9"
    (tmp_path / decomposed).mkdir()
    (tmp_path / decomposed / f"{decomposed}.md").write_text("some words\n")
    vault = load_folder(tmp_path)
    assert list(vault.notes) == [f"{composed}/{composed}.md"]
    assert run(vault, "vaultManager_openNote", path=f"{composed}/{composed}.md").error is None


def test_a_time_in_microseconds_is_no_time(tmp_path):
    (tmp_path / ".workspaces").mkdir()
    states = [{"id": "state_2", "created": 1_700_000_000_000_000}, {"id": "state_3", "created": 1_700_000_000_000}]
    record = {"id": WORKSPACE, "name": "Garden", "states": states}
    (tmp_path / ".workspaces" / "a.json").write_text(json.dumps(record))
    vault = load_folder(tmp_path)
    assert [one["created"] for one in vault.states.values()] == [0, 1_700_000_000_000]
    assert run(vault, "memoryManager_loadState", stateId="state_2").error is None


@pytest.mark.parametrize(
    "front",
    [
        "tags: [soil, bed-plan] # two",
        "tags: [soil,\n  bed-plan]",
        "tags: soil, bed-plan",
        "tags:\n  - soil\n  - 'bed-plan'\nother: x",
        "tag:\n- soil\n- bed-plan",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tags_are_found_in_every_form_that_obsidian_knows(front, end):
    text = f"---\ntitle: a\n{front}\n---\nText #rain, no#tag".replace("\n", end)
    assert Note(text, 0, 0).tags == ("soil", "bed-plan", "rain")
