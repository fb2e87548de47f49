"""Is a completion right? validate() takes values and returns a Verdict; it never raises on what a model wrote.

The checks run in the order of records.CHECKS and end at the first that fails, so a verdict reads as a funnel:
parse -> tool -> context -> parameters -> relevance -> grounding -> execution. Their codes are stable:
`context.missing_field:sessionMemory`.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from Evaluator.catalog import CONTEXT, Catalog
from Evaluator.judging.behavior import CALL, OTHER, behavior_of
from Evaluator.judging.execution import can_run, execute
from Evaluator.judging.goals import shortcomings
from Evaluator.judging.grounding import sources_of, ungrounded
from Evaluator.records import CHECKS, Finding, Message, Prompt, ToolCall, Verdict
from Evaluator.tool_calls import parse_turn

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, ValidationError


def validate(completion: Message, prompt: Prompt, catalog: Catalog, *, run_calls: bool = True) -> Verdict:
    """Judge one assistant turn that answers `prompt`.

    `label` is True when every check that applies passed. A check is None where it does not apply (no call is made
    and none expected, no expected tools, no vault to run on) or where a former check failed. Without `run_calls`
    neither grounding nor execution is checked.
    """
    turn = parse_turn(completion)
    checks: dict[str, bool | None] = dict.fromkeys(CHECKS)
    behavior = (
        (CALL if turn.calls or turn.findings else behavior_of(completion.content or "")) if prompt.behavior else None
    )
    findings: Sequence[Finding] = turn.findings or _no_answer(completion, turn.calls, prompt)
    checks["parse"] = not findings
    if prompt.behavior and not prompt.expects_call and behavior != CALL:
        findings = _wrong_behavior(behavior, prompt)
        checks["relevance"] = not findings
    for name, check in _CALL_CHECKS:
        if findings or not turn.calls:
            break
        result = check(turn.calls, prompt, catalog)
        if result is not None:
            findings, checks[name] = result, not result
    execution = None
    if run_calls and turn.calls and not findings:
        findings = check_grounding(turn.calls, prompt, catalog)
        checks["grounding"] = not findings
        if not findings and prompt.vault is not None and can_run(turn.calls, catalog):
            execution = execute(turn.calls, prompt.vault, catalog, is_checked=True)
            findings = shortcomings(execution, prompt.goal)
            checks["execution"] = not findings
    return Verdict(
        label=not findings,
        checks=checks,
        findings=tuple(findings),
        calls=turn.calls,
        results=execution.results if execution else (),
        changes=execution.changes if execution else None,
        behavior=behavior,
    )


CUT_OFF = Finding("parse.cut_off", "The answer did not end before the longest allowed length.")
NO_ROOM = Finding("parse.no_room", "The prompt does not fit the model's context: there was no room to answer.")


def unanswered(finding: Finding, prompt: Prompt) -> Verdict:
    """The verdict where no whole answer came: CUT_OFF or NO_ROOM."""
    behavior = OTHER if prompt.behavior else None
    return Verdict(False, {**dict.fromkeys(CHECKS), "parse": False}, (finding,), behavior=behavior)


def _wrong_behavior(behavior: str | None, prompt: Prompt) -> list[Finding]:
    if behavior == prompt.behavior:
        return []
    return [Finding(f"relevance.wrong_behavior:{behavior}", f"It does {behavior}; to {prompt.behavior} is right.")]


def _no_answer(completion: Message, calls: Sequence[ToolCall], prompt: Prompt) -> list[Finding]:
    if not calls and prompt.expects_call:
        return [Finding("parse.no_tool_call", "The answer is plain text; the request needs a tool call.")]
    if not calls and not (completion.content or "").strip():
        return [Finding("parse.empty", "The answer is empty.")]
    return []


# -- the checks of calls: (calls, prompt, catalog) -> findings, or None where the check does not apply ------------


def check_tools(calls: Sequence[ToolCall], prompt: Prompt, catalog: Catalog) -> list[Finding]:
    """Every name is a tool of the catalog."""
    unknown = [call.name for call in calls if call.name not in catalog.tools]
    return [
        Finding(
            f"tool.unknown:{name[:80]}", f"There is no tool {name[:80]}; the nearest is {catalog.nearest_tool(name)}."
        )
        for name in unknown
    ]


def check_context(calls: Sequence[ToolCall], prompt: Prompt, catalog: Catalog) -> list[Finding] | None:
    """Every call carries a full context with real values and the ids that the system prompt gave."""
    if not catalog.context:
        return None
    return [finding for call in calls for finding in _context_findings(call, prompt, catalog)]


def check_parameters(calls: Sequence[ToolCall], prompt: Prompt, catalog: Catalog) -> list[Finding]:
    """The other arguments fit the tool's JSON Schema, and there are no more than it lists."""
    findings: list[Finding] = []
    for call in calls:
        parameters = dict(call.arguments)
        if catalog.context:
            parameters.pop(CONTEXT, None)
        findings += _schema_findings("parameters", catalog.tools[call.name].validator, parameters)
    return findings


def check_relevance(calls: Sequence[ToolCall], prompt: Prompt, catalog: Catalog) -> list[Finding] | None:
    """The expected tools are called, each as often as expected, and nothing else."""
    if not prompt.expects_call:
        return [Finding("relevance.call_not_expected", "A tool is called where none is needed.")]
    twice = [call.name for index, call in enumerate(calls) if call in calls[:index]]
    if not prompt.expected_tools:
        return [
            Finding(f"relevance.repeated_call:{name}", f"{name} is called twice with the same.") for name in twice
        ] or None
    wanted, called = Counter(prompt.expected_tools), Counter(call.name for call in calls)
    missing = [Finding(f"relevance.missing_tool:{name}", f"{name} is not called.") for name in wanted - called]
    surplus = [
        Finding(f"relevance.repeated_call:{name}", f"{name} is called more than once.")
        if name in wanted
        else Finding(f"relevance.unexpected_tool:{name}", f"{name} is called, which was not asked for.")
        for name in called - wanted
    ]
    return missing + surplus


def check_grounding(calls: Sequence[ToolCall], prompt: Prompt, catalog: Catalog) -> list[Finding]:
    """The values come from the conversation, the system prompt or the vault (see `grounding`)."""
    earlier = [message.content or "" for message in prompt.earlier]
    sources = sources_of(prompt.question, earlier, prompt.vault, prompt.system or "")
    return [finding for call in calls for finding in ungrounded(call, sources, catalog)]


_Check = Callable[[Sequence[ToolCall], Prompt, Catalog], "list[Finding] | None"]
_CALL_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("tool", check_tools),
    ("context", check_context),
    ("parameters", check_parameters),
    ("relevance", check_relevance),
)


# -- context ------------------------------------------------------------------------------------------------------

_PLACEHOLDER = re.compile(
    r"(?:\.{2,}|\u2026|-+|_+|x{3,}|<[^<>]*>|\{+[^{}]*\}+|\[[^\[\]]*\]"
    r"|string|text|value|todo|tbd|n/?a|none|null|undefined|placeholder|example|your[_-]\w+)",
    re.IGNORECASE,
)
_ABSENT = {"n/a", "na", "none", "null", "undefined", "-"}  # says "nothing yet", fair where a field may be empty


def _context_findings(call: ToolCall, prompt: Prompt, catalog: Catalog) -> Iterator[Finding]:
    if CONTEXT not in call.arguments:
        yield Finding("context.missing", f"{call.name} carries no context.")
        return
    context = call.arguments[CONTEXT]
    faults = _schema_findings("context", catalog.context_validator, context)
    yield from faults
    if not isinstance(context, dict):
        return
    faulty = {fault.code.partition(":")[2] for fault in faults}
    for name, value in context.items():
        if name not in faulty and _is_placeholder(name, value, name in catalog.fields_that_may_be_empty):
            yield Finding(f"context.placeholder:{name}", f"{name} is the placeholder {value!r}.")
    for name, given in given_ids(prompt.system or "", catalog.id_patterns).items():
        if name not in faulty and not (isinstance(context.get(name), str) and context[name] in given):
            yield Finding(f"context.wrong_id:{name}", f"{name} is not the one that the system prompt gives.")


def _is_placeholder(name: str, value: Any, may_be_empty: bool) -> bool:
    if not isinstance(value, str):
        return False
    text = value.strip()
    if may_be_empty and (not text or text.lower() in _ABSENT):
        return False
    return not text or text.lower() == name.lower() or bool(_PLACEHOLDER.fullmatch(text))


@lru_cache(maxsize=1024)
def given_ids(system: str, id_patterns: tuple[tuple[str, re.Pattern[str]], ...]) -> Mapping[str, frozenset[str]]:
    """The ids a system prompt hands out as `sessionId: "session_..."`: field -> values; absent where it gives none.

    What has not the form of the field is no id: a placeholder in an example, a word of the text.
    """
    given = {}
    for name, pattern in id_patterns:
        found = re.findall(rf'\b{re.escape(name)}["`*]*\s*[:=]\s*["`*]*([\w.-]+)', system)
        given[name] = frozenset(value.rstrip(".") for value in found if pattern.search(value.rstrip(".")))
    return {name: values for name, values in given.items() if values}


# -- JSON Schema errors -> findings -------------------------------------------------------------------------------

_KEYWORD_CODES = {
    "type": "wrong_type",
    "enum": "not_allowed",
    "const": "not_allowed",
    "minimum": "out_of_range",
    "maximum": "out_of_range",
    "exclusiveMinimum": "out_of_range",
    "exclusiveMaximum": "out_of_range",
    "multipleOf": "out_of_range",
    "minLength": "too_short",
    "maxLength": "too_long",
    "minItems": "too_few_items",
    "maxItems": "too_many_items",
    "pattern": "bad_format",
    "format": "bad_format",
    "anyOf": "no_alternative",
    "oneOf": "no_alternative",
}


def _schema_findings(stage: str, validator: "Draft202012Validator", value: Any) -> list[Finding]:
    return [finding for error in validator.iter_errors(value) for finding in _findings_of(stage, error)]


def _findings_of(stage: str, error: "ValidationError") -> Iterator[Finding]:
    path = error.json_path.removeprefix("$").removeprefix(".")
    keyword = str(error.validator)
    if keyword == "required":
        for name in error.validator_value:
            if name not in error.instance and f"{name!r} is" in error.message:
                yield Finding(f"{stage}.missing_field:{_join(path, name)}", f"{_join(path, name)} is missing.")
    elif keyword in ("additionalProperties", "unevaluatedProperties"):
        for name in _unlisted(error):
            where = _join(path, name)
            yield Finding(f"{stage}.unknown_field:{where}", f"{where} is not among the {stage} fields.")
    else:
        code = _KEYWORD_CODES.get(keyword, "invalid")
        if keyword == "minLength" and error.instance == "":
            code = "empty"
        yield Finding(f"{stage}.{code}:{path}" if path else f"{stage}.{code}", _sentence(path or f"the {stage}", error))


def _unlisted(error: "ValidationError") -> list[str]:
    """The names that the error is about; its message has them as Python writes them."""
    said = error.message.partition("regexes: ")[0]
    return [name[:80] for name in error.instance if repr(name) in said]


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _sentence(where: str, error: "ValidationError") -> str:
    value = repr(error.instance)
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    if error.validator in ("anyOf", "oneOf"):
        return f"{where} fits none of the allowed forms."
    return f"{where} is {shown}, against {error.validator} {error.validator_value!r}."
