"""One attempt: from a slot and a seed to a labelled sample, or to a reject."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from Evaluator import __version__
from Evaluator.catalog import Catalog
from Evaluator.judging.execution import can_run, execute
from Evaluator.judging.validator import CUT_OFF, NO_ROOM, unanswered, validate
from Evaluator.model_client import (
    CONTEXT_OVERFLOW,
    EMPTY_ANSWER,
    RESULT_MARK,
    Completion,
    ModelClient,
    SampleFailed,
    SamplingOptions,
)
from Evaluator.records import Message, Prompt, Reject, Sample, SampleMetadata
from Evaluator.tool_calls import with_results, without_results


class UnusablePrompt(Exception):
    """What was written is no request.

    `reason` is a stable code, `text` what was written, `cell` what it was for, `written_by` the model that wrote it.
    """

    def __init__(
        self, reason: str, sentence: str, text: str | None, cell: str | None = None, written_by: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.text = text
        self.cell = cell
        self.written_by = written_by


@dataclass(frozen=True)
class Origin:
    """What a prompt was drawn for: `cell` is a tool or `behavior:ask`; the rest is how it is said."""

    cell: str | None = None
    template: str | None = None
    persona: str | None = None
    phrasing: str | None = None


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True)
class WrittenPrompt:
    """A prompt and how it came about; `written_by` is the model that wrote it, None where none did.

    `told` is said in the system message as well, but is no part of the prompt: neither judged with nor written down.
    """

    prompt: Prompt
    method: str
    written_by: str | None = None
    told: str | None = None
    origin: Origin = UNKNOWN_ORIGIN

    def messages(self) -> list[Message]:
        """What is sent."""
        system = "\n\n".join(text for text in (self.prompt.system, self.told) if text)
        return replace(self.prompt, system=system or None).messages()


class PromptSource(Protocol):
    """Where prompts come from. Shared by all workers."""

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        """The prompt of an attempt, the same whenever it is asked. Raises UnusablePrompt or a client's errors."""
        ...


@dataclass(frozen=True)
class Sampling:
    """Ranges that temperature and top_p are drawn from, (low, high); top_p None leaves it to the endpoint.

    With `num_variations` V above 1 each range is cut into V equal bands: `variation` v draws from band v. `functions`
    are tools that are sent along.
    """

    temperature: tuple[float, float]
    top_p: tuple[float, float] | None
    max_tokens: int
    num_variations: int = 1
    functions: Sequence[Mapping[str, Any]] = ()

    def draw(self, rng: random.Random, variation: int) -> SamplingOptions:
        return SamplingOptions(
            max_tokens=self.max_tokens,
            temperature=self._from_band(self.temperature, rng, variation),
            top_p=self._from_band(self.top_p, rng, variation) if self.top_p else None,
            seed=rng.getrandbits(31),
            stop=(RESULT_MARK,),
            functions=self.functions,
        )

    def _from_band(self, limits: tuple[float, float], rng: random.Random, variation: int) -> float:
        low, high = limits
        return round(low + (high - low) * (variation % self.num_variations + rng.random()) / self.num_variations, 3)


GIVEN_UP = "prompt.given_up"
"""The reason of an UnusablePrompt that took no attempt: those for a request that several answers share have failed."""

NO_ANSWER = Completion(Message("assistant", ""), None, None, 0, 0.0)
"""Stands for the answer to a prompt that does not fit the model's context."""

NO_TEXT = Completion(Message("assistant", ""), "stop", None, None, 0.0)
"""The answer of a model that ends its turn at once."""


@dataclass(frozen=True)
class Answered:
    """An answer that is to be judged, with all that led to it."""

    slot: int
    attempt: int
    written: WrittenPrompt
    options: SamplingOptions
    completion: Completion


@dataclass(frozen=True)
class Judging:
    """What makes a labelled sample of an answer, whoever gave it."""

    source: str
    model: str
    catalog: Catalog
    seed: int
    run_id: str
    runs_calls: bool = True  # whether grounding and execution are judged
    includes_results: bool = False  # whether the vault's results are written after the calls
    round: int | None = None  # which turn of a loop this is

    def judge(self, answered: Answered) -> Sample:
        slot, attempt, written = answered.slot, answered.attempt, answered.written
        prompt, options, completion = written.prompt, answered.options, answered.completion
        message = without_results(completion.message)
        if completion is NO_ANSWER:
            verdict = unanswered(NO_ROOM, prompt)
        elif completion.is_truncated:
            verdict = unanswered(CUT_OFF, prompt)
        else:
            verdict = validate(message, prompt, self.catalog, run_calls=self.runs_calls)
        metadata = SampleMetadata(
            sample_id=f"{self.run_id}-{slot:06d}-{attempt}",
            slot=slot,
            attempt=attempt,
            prompt_id=prompt.id,
            source=self.source,
            prompt_method=written.method,
            prompt_model=written.written_by,
            round=self.round,
            **written.origin.__dict__,
            target_tool=prompt.expected_tools[0] if len(prompt.expected_tools) == 1 else None,
            expected_tools=list(prompt.expected_tools),
            vault=prompt.vault.fingerprint if prompt.vault else None,
            goal=json.dumps(prompt.goal, ensure_ascii=False) if prompt.goal is not None else None,
            expected_behavior=prompt.behavior,
            behavior=verdict.behavior,
            called_tools=[call.name[:80] for call in verdict.calls],
            model=self.model,
            tools_told=written.told is not None or bool(options.functions),
            seed=self.seed,
            sampling_seed=options.seed,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
            checks=verdict.checks,
            errors=verdict.codes,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            latency_s=round(completion.latency_s, 3),
            catalog=self.catalog.label,
            generator=__version__,
        )
        message = Message("assistant", message.content, message.tool_calls)
        can_be_run = prompt.vault is not None and verdict.checks["parse"] and can_run(verdict.calls, self.catalog)
        if self.includes_results and can_be_run:
            results = verdict.results or execute(verdict.calls, prompt.vault, self.catalog).results
            message = with_results(message, results)
        return Sample([*prompt.messages(), message], verdict.label, metadata)


@dataclass(frozen=True)
class Generation:
    """Everything that makes samples: `ask` is one attempt from prompt to answer, `judging` goes on to the label."""

    prompts: PromptSource
    client: ModelClient
    sampling: Sampling
    judging: Judging
    prompts_in_turn: int = 1  # prompts asked before the first comes again with the next variation
    counts_cut_off_answers: bool = False  # whether an answer that is cut off, or empty, is a wrong one, or none

    def ask(self, slot: int, attempt: int) -> Answered | Reject:
        """Attempt number `attempt` for `slot`; depends on these, the seed and the models, and where a model writes the
        prompts also on those written so far."""
        seed = self.judging.seed
        rng = random.Random(f"{seed}:{slot}" if attempt == 0 else f"{seed}:{slot}:{attempt}")
        written = None
        try:
            written = self.prompts.prompt_for(slot, attempt, rng)
            options = self.sampling.draw(rng, slot // self.prompts_in_turn)
            completion = self.client.complete(written.messages(), options)
        except UnusablePrompt as unusable:
            return Reject(
                slot,
                attempt,
                unusable.reason,
                str(unusable),
                text=unusable.text,
                cell=unusable.cell,
                written_by=unusable.written_by,
            )
        except SampleFailed as failed:
            wrong = {CONTEXT_OVERFLOW: NO_ANSWER, EMPTY_ANSWER: NO_TEXT}.get(failed.reason)
            if wrong and self.counts_cut_off_answers:
                return Answered(slot, attempt, written, options, wrong)
            question, is_hopeless = (
                (written.prompt.question, failed.reason == CONTEXT_OVERFLOW) if written else (None, False)
            )
            cell = written.origin.cell if is_hopeless else None  # the server is to blame for all else
            return Reject(slot, attempt, failed.reason, str(failed), prompt=question, cell=cell)
        if completion.is_truncated and not self.counts_cut_off_answers:
            text, question = completion.message.content, written.prompt.question
            return Reject(
                slot,
                attempt,
                "answer.truncated",
                "cut off at --max-tokens",
                text=text,
                prompt=question,
                cell=written.origin.cell,
                written_by=written.written_by,
            )
        return Answered(slot, attempt, written, options, completion)
