"""Answers that are right in another way: each operator changes what must not matter to a label."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from Evaluator.catalog import CONTEXT
from Evaluator.goal_writing import strings_to_word_freely
from Evaluator.judging.arguments import kind_of
from Evaluator.records import Message, ToolCall
from Evaluator.tool_calls import render_turn
from Evaluator.trials.mutants import Case, Operator


def as_expected(case: Case) -> Iterator[Message]:
    yield render_turn([case.call])


def other_syntax(case: Case) -> Iterator[Message]:
    for syntax in ("openai", "mistral", "qwen"):
        yield render_turn([case.call], syntax)


def reordered_keys(case: Case) -> Iterator[Message]:
    yield case.answer(_shuffled(case, case.call.arguments))


def _shuffled(case: Case, value: Any) -> Any:
    if isinstance(value, Mapping):
        keys = case.rng.sample(list(value), len(value))
        return {key: _shuffled(case, value[key]) for key in keys}
    return [_shuffled(case, one) for one in value] if isinstance(value, list) else value


def other_json_style(case: Case) -> Iterator[Message]:
    """Indented, compact, and with every letter beyond ASCII escaped."""
    for style in ({"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": True}):
        yield Message(
            "assistant", f"tool_call: {case.call.name}\narguments: {json.dumps(case.call.arguments, **style)}"
        )


def text_around(case: Case) -> Iterator[Message]:
    call = render_turn([case.call]).content
    yield Message("assistant", f"I will do that right away.\n\n{call}")
    yield Message("assistant", f"{call}\n\nThat should be it.")


def other_context_wording(case: Case) -> Iterator[Message]:
    words = re.findall(r"[^\W\d_]{4,}", case.prompt.question) or ["request"]
    topic = " ".join(words[:5])
    yield case.with_context(
        {
            **case.context,
            "sessionDescription": f"The user wants help: {topic}",
            "sessionMemory": "Nothing else was done before this.",
            "toolContext": f"This tool is the one for: {topic}",
            "primaryGoal": f"Get it done ({' '.join(words[-4:])})",
            "subgoal": "One call",
        }
    )


def other_memory(case: Case) -> Iterator[Message]:
    memory = "" if case.context.get("sessionMemory") else "Earlier the user asked about something similar."
    yield case.with_context({**case.context, "sessionMemory": memory})


def other_made_up_session(case: Case) -> Iterator[Message]:
    """Another session id of the right form, where nothing tells one."""
    if case.context["sessionId"] not in f"{case.prompt.system}\n{case.prompt.question}":
        yield case.with_context({**case.context, "sessionId": "session_1751352637339_xk07867vb"})


def defaults_spelt_out(case: Case) -> Iterator[Message]:
    """Every optional parameter whose default the schema gives, except where another parameter decides about it."""
    defaults = {
        name: schema["default"]
        for name, schema in case.schema.get("properties", {}).items()
        if isinstance(schema, Mapping) and "default" in schema and name not in case.parameters
    }
    if defaults:
        yield case.with_parameters({**case.parameters, **defaults})


def leading_slash(case: Case) -> Iterator[Message]:
    """A leading slash, which the server drops from every path it cleans."""
    for name in ("path", "filePath", "sourcePath", "targetPath", "newPath"):
        if case.parameters.get(name) not in (None, "", "/"):
            yield case.with_parameter(name, f"/{case.parameters[name]}")


_ADDS_MARKDOWN = ("readContent", "createContent", "appendContent", "prependContent", "replaceContent", "deleteContent")
_ADDS_MARKDOWN_TO_PATH = ("deleteNote", "openNote")


def without_extension(case: Case) -> Iterator[Message]:
    """Without `.md`, which these tools add where a name has no extension."""
    mode = case.call.name.rpartition("_")[2]
    name = {**dict.fromkeys(_ADDS_MARKDOWN, "filePath"), **dict.fromkeys(_ADDS_MARKDOWN_TO_PATH, "path")}.get(mode)
    path = case.parameters.get(name, "") if name else ""
    bare = path.removesuffix(".md")
    if bare != path and "." not in bare.rpartition("/")[2]:
        yield case.with_parameter(str(name), bare)


def trailing_slash(case: Case) -> Iterator[Message]:
    for tool, names in (("Folder", ("path", "newPath")), ("listDirectory", ("path",))):
        if tool in case.call.name:
            for name in names:
                if case.parameters.get(name):
                    yield case.with_parameter(name, f"{case.parameters[name]}/")


def other_line_break(case: Case) -> Iterator[Message]:
    """A line break more or less at the end of text that is added or stands alone."""
    if case.call.name in ("contentManager_appendContent", "contentManager_createContent"):
        content = case.parameters["content"]
        yield case.with_parameter("content", content.rstrip("\n") if content.endswith("\n") else f"{content}\n")
    if case.call.name == "contentManager_appendContent":
        yield case.with_parameter("content", "\n" + case.parameters["content"])
    if case.call.name == "contentManager_prependContent":
        yield case.with_parameter("content", case.parameters["content"].rstrip("\n") + "\n\n")


def number_as_float(case: Case) -> Iterator[Message]:
    """5.0 for 5: JSON has one kind of number."""
    for name, value in case.parameters.items():
        if isinstance(value, int) and not isinstance(value, bool):
            yield case.with_parameter(name, float(value))


def other_wording(case: Case) -> Iterator[Message]:
    """Free text said a little differently: words before it, or without its last word."""
    free = strings_to_word_freely(case.call, case.prompt.question)
    for parameter, name, text in case.strings:
        if text in free and kind_of(name, text) == "free":
            yield case.with_text(parameter, text, f"In short: {text[0].lower()}{text[1:]}")
            line = text.rstrip("\n")
            if len(line.split()) > 3 and "\n" not in line:
                yield case.with_text(parameter, text, line.rsplit(" ", 1)[0] + text[len(line) :])


def agent_by_id_or_name(case: Case) -> Iterator[Message]:
    if case.call.name == "agentManager_getAgent":
        for agent in case.vault.agents.values():
            if case.parameters == {"name": agent["name"]}:
                yield case.with_parameters({"id": agent["id"]})
            if case.parameters == {"id": agent["id"]}:
                yield case.with_parameters({"name": agent["name"]})


def result_after_call(case: Case) -> Iterator[Message]:
    """A result after the call, as rows made with --include-results have it."""
    call = render_turn([ToolCall(case.call.name, {CONTEXT: case.context, **case.parameters})]).content
    yield Message("assistant", f'{call}\n\nResult: {{"success": true}}')


OPERATORS: tuple[Operator, ...] = (
    as_expected, other_syntax, reordered_keys, other_json_style, text_around, result_after_call,
    other_context_wording, other_memory, other_made_up_session, defaults_spelt_out, leading_slash, without_extension,
    trailing_slash, other_line_break, number_as_float, other_wording, agent_by_id_or_name,
)  # fmt: skip
