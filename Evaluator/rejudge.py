"""Judge rows in files by what their metadata, or the prompt set they came from, says about the right answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.judging.behavior import CALL, WRITING_CELL
from Evaluator.judging.validator import CUT_OFF, NO_ROOM, validate
from Evaluator.prompt_sets import FROM_A_SET
from Evaluator.records import Message, Prompt, Verdict
from Evaluator.rows import Row
from Evaluator.trials.goal_checks import shape_fault
from Evaluator.vault.loading import fixture_names, load_fixture
from Evaluator.vault.state import Vault


class CannotJudge(Exception):
    """A row whose label cannot be judged here; the text says why."""


@dataclass
class Judge:
    """Judges rows one by one. `prompts` by id know more than a row; `vaults` are those beside the bundled ones."""

    catalog: Catalog
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    vaults: Sequence[Vault] = ()
    run_calls: bool = True

    def verdict(self, row: Row) -> Verdict:
        """The verdict over all assistant turns: that of the first bad one, else that of the last that makes a call.

        Raises CannotJudge where what the label stands on is not there.
        """
        known = self._prompt_of(row)
        unanswered = {CUT_OFF.code, NO_ROOM.code} & set(_strings(row.metadata.get("errors")))
        if unanswered:  # which the text does not show
            raise CannotJudge(f"no whole answer came ({unanswered.pop()})")
        verdicts = [
            validate(turn, self._at_turn(known, row.messages[:index]), self.catalog, run_calls=self.run_calls)
            for index, turn in enumerate(row.messages)
            if turn.role == "assistant"
        ]
        if known.expects_call:
            silent = [one for one in verdicts if one.codes == ["parse.no_tool_call"]]
            verdicts = [one for one in verdicts if one not in silent] or silent[-1:]
            if verdicts == silent[-1:] and "checks" not in row.metadata:
                raise CannotJudge("no tool is called, and nothing says whether one should be")
        return next((one for one in verdicts if not one.label), verdicts[-1])

    def _prompt_of(self, row: Row) -> Prompt:
        """What is known about the right answer of a row."""
        metadata = row.metadata
        known = self.prompts.get(str(metadata.get("prompt_id")))
        if known:
            return known
        vault = self._vault(metadata.get("vault"))
        if self.run_calls and metadata.get("vault") and not vault:
            name = str(metadata["vault"])
            raise CannotJudge(f"the vault {name} that it was made with is not here (--vault-path), or has changed")
        tools = _strings(metadata.get("expected_tools")) or _strings([metadata.get("target_tool")])
        behavior = metadata.get("expected_behavior")
        if metadata.get("prompt_method") == FROM_A_SET and not (tools or behavior or metadata.get("goal")):
            raise CannotJudge("only its prompt set says what is right, which is not here (--prompt-set)")
        return Prompt(
            id=str(metadata.get("prompt_id")),
            question="",
            expected_tools=tuple(tools),
            vault=vault,
            goal=_goal(metadata.get("goal")) if vault else None,
            behavior=behavior,
            expects_call=behavior in (None, CALL) and not str(metadata.get("cell")).startswith(WRITING_CELL),
        )

    def _vault(self, fingerprint: Any) -> Vault | None:
        """The vault that a row was judged on, where it is here and still the same."""
        name = str(fingerprint).partition(":")[0]
        bundled = [load_fixture(name)] if name in fixture_names() else []
        return next((vault for vault in (*self.vaults, *bundled) if vault.fingerprint == fingerprint), None)

    def _at_turn(self, prompt: Prompt, before: Sequence[Message]) -> Prompt:
        """The prompt as it stands before one turn of the conversation."""
        asked = [index for index, message in enumerate(before) if message.role == "user"]
        last = asked[-1] if asked else len(before)
        system = "\n".join(message.content or "" for message in before if message.role == "system")
        earlier = [message for index, message in enumerate(before) if message.role != "system" and index != last]
        question = (before[last].content or "") if asked else ""
        return replace(prompt, question=question, system=system, earlier=tuple(earlier))


def _strings(values: Any) -> list[str]:
    """The strings of a list; of anything else, which the rows of others may have, none."""
    return [one for one in values if isinstance(one, str)] if isinstance(values, list) else []


def _goal(text: Any) -> Mapping[str, Any] | None:
    """The goal that a row has as JSON. Raises CannotJudge for one of another form."""
    try:
        goal = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(goal, dict):
        return None
    fault = shape_fault(goal)
    if fault:
        raise CannotJudge(fault)
    return goal


def relabelled(row: Row, verdict: Verdict) -> dict[str, Any]:
    """The row's object with the verdict for a label, and in the metadata, where it has any, its checks and errors."""
    data = {**row.data, "label": verdict.label}
    if row.metadata:
        data["metadata"] = {**row.metadata, "checks": verdict.checks, "errors": verdict.codes}
    return data
