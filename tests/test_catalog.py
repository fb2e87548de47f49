import json

import pytest
from jsonschema import Draft202012Validator

from Evaluator.catalog import DEFAULT_CATALOG, CatalogError, check_schemas, load_catalog
from Evaluator.judging.schemas import closed
from Evaluator.judging.validator import validate
from Evaluator.records import Prompt, ToolCall
from Evaluator.tool_calls import render_turn

SMALL = {
    "name": "lamps",
    "server_version": "1.0",
    "tools": {"lamp_switch": {"parameters": {"type": "object", "properties": {"is_on": {"type": "boolean"}}}}},
}


DEFINED = {
    "A": {"properties": {"b": {}}},
    "B": {"properties": {"d": {}}},
    "N": {"properties": {"n": {"properties": {"b": {}, "m": {}}}}},
    "Either": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]},
    "Open": {"properties": {"o": {}}, "additionalProperties": True},
    "Tree": {"properties": {"in": {"$ref": "#/$defs/Tree"}}},
}


def test_bundled_catalog_has_47_tools_and_7_context_fields(catalog):
    assert len(catalog.tools) == 47
    assert len(catalog.context["required"]) == 7
    assert catalog.label == "claudesidian@3.1.3"


def test_every_bundled_schema_is_valid_draft_2020_12():
    check_schemas(json.loads(DEFAULT_CATALOG.read_text(encoding="utf-8")))


def test_closing_leaves_every_schema_valid(catalog):
    for tool in catalog.tools.values():
        Draft202012Validator.check_schema(tool.parameters)


def test_validators_are_compiled_once(catalog):
    tool = catalog.tools["get_tools"]
    assert tool.validator is tool.validator


def test_nearest_tool_is_found_whatever_the_case(catalog):
    assert catalog.nearest_tool("VaultManager_MoveNotes") == "vaultManager_moveNote"


def write(tmp_path, data):
    path = tmp_path / "catalog.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def test_a_context_field_may_have_the_schema_true(tmp_path):
    catalog = load_catalog(write(tmp_path, {**SMALL, "context": {"type": "object", "properties": {"why": True}}}))
    call = ToolCall("lamp_switch", {"context": {"why": "dark"}, "is_on": True})
    assert validate(render_turn([call]), Prompt("p", "Light, it is dark"), catalog).label


def test_another_catalog_without_context_loads(tmp_path):
    catalog = load_catalog(write(tmp_path, SMALL))
    assert catalog.context is None
    assert list(catalog.tools["lamp_switch"].validator.iter_errors({"is_on": True})) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", ["is no JSON"]),
        ([], ['"tools"']),
        ({"name": "x", "server_version": "1", "tools": {}}, ["no tools"]),
        ({**SMALL, "name": 3}, ['"name"', "a string"]),
        ({**SMALL, "tools": {"a": {}}}, ["the tool a", "parameters"]),
        ({**SMALL, "tools": {"a": {"parameters": {"type": "strnig"}}}}, ["parameters of a", "$.type", "strnig"]),
        ({**SMALL, "tools": {"a": {"parameters": {"$ref": "#/$defs/x"}}}}, ["parameters of a", "#/$defs/x"]),
        ({**SMALL, "tools": {"a": {"parameters": {"$ref": "http://elsewhere/x"}}}}, ["http://elsewhere/x"]),
        ({**SMALL, "tools": {"a": {"parameters": {"items": {"$ref": "#anchor"}}}}}, ["parameters of a", "#anchor"]),
        ({**SMALL, "tools": {"a": {"parameters": {"$dynamicRef": "#x"}}}}, ["parameters of a", "$dynamicRef"]),
        (
            {**SMALL, "tools": {"a": {"parameters": {"prefixItems": [{}], "$ref": "#/prefixItems/1"}}}},
            ["prefixItems/1"],
        ),
        ({**SMALL, "optional_for_every_tool": ["x"]}, ["optional_for_every_tool"]),
        ({**SMALL, "optional_for_every_tool": {"x": 5}}, ["optional_for_every_tool"]),
        ({**SMALL, "context": True}, ['"context"', "object"]),
        ({**SMALL, "context": {"type": 5}}, ["the context", "$.type"]),
    ],
)
def test_a_faulty_catalog_is_refused_with_the_place(tmp_path, data, words):
    with pytest.raises(CatalogError) as error:
        load_catalog(write(tmp_path, data))
    assert all(word in str(error.value) for word in [*words, "catalog.json"])


def test_a_missing_catalog_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"nowhere\.json"):
        load_catalog(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("schema", "value", "is_valid"),
    [
        ({"properties": {"a": {}}}, {"b": 1}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, {"b": 1}, True),
        ({"properties": {"a": {"properties": {"b": {}}}}}, {"a": {"c": 1}}, False),
        ({"items": {"properties": {"a": {}}}}, [{"b": 1}], False),
        ({"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "string"}]}, {"b": 1}, False),
        ({"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1}, True),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]}, {"c": 1}, False),
        ({"type": "object"}, {"anything": 1}, True),
        ({"properties": {"a": {}}, "anyOf": [True]}, {"a": 1}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {}}}}}, {"a": 1}, True),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {}}}}}, {"b": 1}, False),
        ({"additionalProperties": {"properties": {"a": {}}}}, {"x": {"b": 1}}, False),
        ({"prefixItems": [{"properties": {"a": {}}}]}, [{"b": 1}], False),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "b": 2}, True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, {"a": 1, "c": 2}, False),
        ({"properties": {"a": {}}, "allOf": [{"anyOf": [{"properties": {"b": {}}}]}]}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {}}, "$ref": "#/$defs/A", "$defs": DEFINED}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {}}, "$ref": "#/$defs/A", "$defs": DEFINED}, {"a": 1, "c": 2}, False),
        ({"allOf": [{"$ref": "#/definitions/A"}], "default": {}, "definitions": DEFINED}, {"b": 2}, True),
        ({"allOf": [{"$ref": "#/definitions/A"}], "default": {}, "definitions": DEFINED}, {"c": 2}, False),
        ({"items": {"$ref": "#/$defs/Either"}, "$defs": DEFINED}, [{"b": 2}, {"d": 2}], True),
        ({"items": {"$ref": "#/$defs/Either"}, "$defs": DEFINED}, [{"b": 2, "d": 2, "c": 2}], False),
        ({"properties": {"a": {}}, "$ref": "#/$defs/Either", "$defs": DEFINED}, {"a": 1, "b": 2}, True),
        ({"properties": {"a": {}}, "$ref": "#/$defs/Either", "$defs": DEFINED}, {"a": 1, "c": 2}, False),
        ({"anyOf": [{"$ref": "#/$defs/A"}, {"type": "object"}], "$defs": DEFINED}, {"c": 2}, True),
        ({"oneOf": [{"properties": {"a": {}}}], "allOf": [{"required": ["a"]}]}, {"a": 1, "c": 2}, False),
        ({"allOf": [{"anyOf": [{"$ref": "#/$defs/A"}]}, {"anyOf": [{"$ref": "#/$defs/B"}]}], "$defs": DEFINED},
         {"b": 1, "d": 1}, True),
        ({"allOf": [{"anyOf": [{"$ref": "#/$defs/A"}]}, {"anyOf": [{"$ref": "#/$defs/B"}]}], "$defs": DEFINED},
         {"b": 1, "c": 1}, False),
        ({"patternProperties": {"^x": {"$ref": "#/$defs/A"}}, "$defs": DEFINED}, {"x1": {"c": 1}}, False),
        ({"items": {"$ref": "#/$defs/Open"}, "$defs": DEFINED}, [{"o": 1, "c": 2}], True),
        ({"$ref": "#/$defs/Tree", "$defs": DEFINED}, {"in": {"in": {}}}, True),
        ({"$ref": "#/$defs/Tree", "$defs": DEFINED}, {"in": {"in": {"c": 2}}}, False),
        ({"prefixItems": [{"properties": {"a": {}}}, {"$ref": "#/prefixItems/0"}]}, [{}, {"c": 2}], False),
        ({"properties": {"n": {"$ref": "#/$defs/A"}}, "allOf": [{"$ref": "#/$defs/N"}], "$defs": DEFINED},
         {"n": {"b": 1, "m": 2}}, True),
    ],
)  # fmt: skip
def test_closed_refuses_only_what_is_not_listed(schema, value, is_valid):
    assert Draft202012Validator(closed(schema)).is_valid(value) is is_valid


def test_closed_knows_the_refinements_of_batched_operations(catalog):
    validator = catalog.tools["contentManager_batchContent"].validator
    good = {"type": "append", "params": {"filePath": "a.md", "content": "x"}}
    assert validator.is_valid({"operations": [good]})
    assert not validator.is_valid({"operations": [{**good, "params": {**good["params"], "limit": 3}}]})
    assert not validator.is_valid({"operations": [{**good, "note": "x"}]})


def test_an_unlisted_parameter_is_named_and_a_listed_one_beside_it_is_not(tmp_path):
    parameters = {"properties": {"a": {}}, "allOf": [{"$ref": "#/$defs/A"}], "$defs": DEFINED}
    catalog = load_catalog(write(tmp_path, {**SMALL, "tools": {"t": {"parameters": parameters}}}))
    verdict = validate(render_turn([ToolCall("t", {"a": 1, "b": 2, "c": 3})]), Prompt("p", "Do it"), catalog)
    assert [finding.code for finding in verdict.findings] == ["parameters.unknown_field:c"]


def test_an_id_of_a_wrong_type_is_a_wrong_id_where_the_catalog_names_no_type(tmp_path):
    context = {"type": "object", "properties": {"session": {"pattern": "^s_[0-9]+$"}}}
    catalog = load_catalog(write(tmp_path, {**SMALL, "context": context}))
    call = ToolCall("lamp_switch", {"context": {"session": ["s_1"]}, "is_on": True})
    verdict = validate(render_turn([call]), Prompt("p", "Light", system="session: s_1"), catalog)
    assert [finding.code for finding in verdict.findings] == ["context.wrong_id:session"]


def test_closing_takes_no_longer_for_definitions_that_all_lead_to_all():
    names = [f"D{number}" for number in range(12)]
    every = [{"$ref": f"#/$defs/{name}"} for name in names]
    schema = {"$ref": "#/$defs/D0", "$defs": {name: {"properties": {name: {}}, "anyOf": every} for name in names}}
    assert closed(schema)["unevaluatedProperties"] is False
