"""Templates are filled from a vault and know the right call and its goal."""

import json
import random
from pathlib import Path

import pytest

from Evaluator.errors import UsageError
from Evaluator.judging.validator import validate
from Evaluator.tool_calls import render_turn
from Evaluator.vault.loading import load_fixture
from tests.vaults import CATALOG, NOTES, small_vault
from Tools.prompts.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, load_templates, says_all
from Tools.prompts.usable_requests import clean_request
from Tools.selfplay_generator_v2 import build_parser
from Tools.selfplay_generator_v2 import main as v2

TEMPLATES = load_templates(DEFAULT_TEMPLATES, CATALOG)


@pytest.mark.parametrize("name", TRAINING_VAULTS)
def test_every_template_is_met_by_its_own_call(name):
    vault = load_fixture(name)
    for template in TEMPLATES.templates:
        prompt = TEMPLATES.fill(template, random.Random(f"{name}:{template['id']}"), vault, CATALOG)
        assert "{" not in prompt.question
        assert clean_request(prompt.question) == prompt.question
        verdict = validate(render_turn([prompt.expected_call]), prompt, CATALOG)
        assert verdict.label and all(verdict.checks.values()), (prompt.question, verdict.findings)


def test_templates_cover_every_tool():
    assert {one["tool"] for one in TEMPLATES.templates} == set(CATALOG.tools)


def test_models_can_word_a_request_for_every_tool():
    saying = [one for one in TEMPLATES.templates if says_all(one)]
    assert {one["tool"] for one in saying} == set(CATALOG.tools)
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"the {len(saying)} templates whose request names every value" in readme


def test_the_same_random_numbers_give_the_same_prompt():
    vault = load_fixture("farm")
    first, second = (TEMPLATES.fill(TEMPLATES.templates[5], random.Random(5), vault, CATALOG) for _ in range(2))
    assert first == second


def test_a_vault_without_records_serves_the_templates_that_need_none():
    vault = small_vault()
    for table in (vault.states, vault.sessions, vault.agents, vault.traces, vault.workspaces):
        table.clear()
    tools = {one["tool"] for one in TEMPLATES.that_fit([vault], CATALOG).templates}
    assert {"vaultManager_moveNote", "contentManager_appendContent", "memoryManager_createSession"} <= tools
    assert not {"memoryManager_loadState", "agentManager_deleteAgent", "memoryManager_listSessions"} & tools


def test_v2_fills_templates_from_a_folder_and_leaves_it_alone(tmp_path, capsys):
    folder = tmp_path / "vault"
    for path, text in NOTES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (tmp_path / "replies.jsonl").write_text('{"content": "No."}\n')
    out = tmp_path / "out.jsonl"
    flags = ["--prompt-method", "template", "--vault-path", str(folder), "--num-examples", "30"]
    assert v2(["--model", f"scripted:{tmp_path / 'replies.jsonl'}", "--output", str(out), *flags]) == 0
    assert "tools for: " in capsys.readouterr().err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["metadata"]["vault"].partition(":")[0] for row in rows} == {"vault"}
    assert any("Garden" in row["conversations"][0]["content"] for row in rows)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == set(NOTES)
    (folder / "Garden/Beds.md").write_text("# Beds\n\nNothing but leeks now\n")
    assert v2(["--model", f"scripted:{tmp_path / 'replies.jsonl'}", "--output", str(out), *flags]) == 2
    assert "vaults was" in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "words"), [("gone", "is no folder"), ("empty", "holds no Markdown notes")])
def test_a_folder_that_is_no_vault_is_status_2(tmp_path, capsys, folder, words):
    (tmp_path / "empty").mkdir()
    flags = ["--prompt-method", "template", "--vault-path", str(tmp_path / folder), "--model", "scripted:x"]
    assert v2([*flags, "--output", str(tmp_path / "o.jsonl")]) == 2
    assert words in capsys.readouterr().err


GOOD = {"id": "a", "tool": "get_tools", "text": "Show {tool_name}", "arguments": {}, "context": {}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"words": {}}, "templates"),
        ({"words": {}, "templates": []}, "empty"),
        ({"words": {}, "templates": [{**GOOD, "text": "{gone}"}]}, "gone"),
        ({"words": {}, "templates": [GOOD, {**GOOD, "text": 5}]}, "entry 2"),
        ({"words": {}, "templates": [{**GOOD, "arguments": ["x"]}]}, "entry 1"),
        ({"words": {}, "templates": [{"text": "Open it"}]}, "entry 1"),
        ({"words": {}, "templates": [7]}, "entry 1"),
        ({"words": {"thing": "Lorem"}, "templates": [GOOD]}, "thing"),
        ({"words": {}, "templates": [GOOD, GOOD]}, "a twice"),
        ({"words": {}, "templates": [{**GOOD, "arguments": {"x": ["{gone}"]}}]}, "gone"),
        ({"words": {}, "templates": [{**GOOD, "tool": "nothing"}]}, "nothing"),
        ({"words": {}, "templates": [{"id": "a", "tool": "get_tools", "text": "x"}]}, "a"),
        ({"words": {}, "templates": [{**GOOD, "tool": None}]}, "None"),
        ({"words": {}, "templates": [{**GOOD, "text": "Create {new_note}"}]}, "title"),
        ({"words": {}, "templates": [GOOD], "behaviors": [{**GOOD, "behavior": "sing"}]}, "sing"),
        ({"words": {}, "templates": [GOOD], "behaviors": [{"id": "b", "behavior": "ask", "tool": None}]}, "b"),
    ],
)
def test_faulty_templates_are_refused(tmp_path, data, words):
    path = tmp_path / "templates.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        load_templates(path, CATALOG)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="no JSON object"):
        load_templates(path, CATALOG)


def test_a_template_has_to_fit_its_tool(tmp_path):
    listing = {**GOOD, "tool": "vaultManager_listDirectory", "text": "List only the folders in {folder}"}
    listing["arguments"] = {"path": "{folder}", "folders_only": True}
    path = tmp_path / "templates.json"
    path.write_text(json.dumps({"words": {}, "templates": [listing]}), encoding="utf-8")
    templates = load_templates(path, CATALOG)
    with pytest.raises(UsageError, match="folders_only"):
        templates.fill(templates.templates[0], random.Random(0), small_vault(), CATALOG)


def test_no_template_is_about_a_workspace_that_no_call_may_name():
    vault = load_fixture("farm").copy()
    vault.workspaces.update({key: {**one, "id": "my-project"} for key, one in vault.workspaces.items()})
    vault.states.update({key: {**one, "workspaceId": "my-project"} for key, one in vault.states.items()})
    about_one = [one for one in TEMPLATES.templates if "workspace" in one]
    fitting = TEMPLATES.that_fit([vault], CATALOG).templates
    assert about_one and not [one["id"] for one in about_one if one in fitting]


@pytest.mark.parametrize("inside", [["--output", "vault/rows.jsonl"], ["--prompts-file", "vault/prompts.jsonl"]])
def test_nothing_is_written_into_a_vault(tmp_path, capsys, monkeypatch, inside):
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "Beds.md").write_text("# Beds")
    (tmp_path / "replies.jsonl").write_text('{"content": "No."}\n')
    monkeypatch.chdir(tmp_path)
    model = "scripted:replies.jsonl"
    flags = ["--model", model, "--prompt-generator-model", model, "--output", "rows.jsonl", "--vault-path", "vault"]
    assert v2([*flags, *inside]) == 2
    assert "would change the vault" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "vault").iterdir()] == ["Beds.md"]


def test_a_vault_has_the_name_of_its_folder_however_it_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "Notes"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for told in (".", "../Notes", str(folder)):
        assert build_parser().parse_args(["--output", "-", "--vault-path", told]).vault_path == folder


def test_a_vault_that_no_template_fits_is_a_sentence(tmp_path, capsys):
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "Beds.md").write_text("# Beds")
    path = tmp_path / "templates.json"
    loads = next(one for one in TEMPLATES.templates if "state" in json.dumps(one))
    words = json.loads(DEFAULT_TEMPLATES.read_text("utf-8"))["words"]
    path.write_text(json.dumps({"words": words, "templates": [loads]}), encoding="utf-8")
    flags = ["--prompt-method", "template", "--behavior-share", "0", "--templates", str(path)]
    flags += ["--vault-path", str(tmp_path / "vault"), "--model", "scripted:x", "--output", str(tmp_path / "o.jsonl")]
    assert v2(flags) == 2
    assert "has nothing for any of the templates" in capsys.readouterr().err
