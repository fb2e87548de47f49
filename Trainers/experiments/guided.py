"""The guided prompts of a round: those of v1's set that are like no prompt that arms are measured with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from Evaluator.decontamination import EvaluationPrompts
from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets


def guided_prompts(measured: Sequence[Path]) -> dict[str, Any]:
    """The bundled guided set as JSON, without prompts that overlap one of the `measured` sets. Raises UsageError."""
    others = EvaluationPrompts(prompt.question for prompt in load_prompt_sets(measured).prompts)
    guided = json.loads(TOOL_PROMPTS.read_bytes())
    return {**guided, "prompts": [one for one in guided["prompts"] if not others.overlap(one["question"])]}
