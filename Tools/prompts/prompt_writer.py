"""Where the prompts of self-play come from: the model itself, templates, or a teacher model.

slot -> method and cell -> written text -> usable? -> overlap with evaluation prompts, duplicates -> WrittenPrompt
"""

import argparse
import hashlib
import random
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from Evaluator.catalog import Catalog
from Evaluator.decontamination import EvaluationPrompts, Request
from Evaluator.model_client import ModelClient, SamplingOptions
from Evaluator.records import Message, Prompt
from Evaluator.runs.attempts import GIVEN_UP, PromptSource, UnusablePrompt, WrittenPrompt
from Evaluator.tool_prompts import few_tools_as_text
from Tools.duplicates import SeenRequests
from Tools.prompts.cells import Cell, Cells
from Tools.prompts.orders import Order
from Tools.prompts.slots import CannotFill
from Tools.prompts.teacher import Teacher
from Tools.prompts.templates import prompt_id
from Tools.prompts.usable_requests import check_names, clean_request

SEED_TEXT = (
    "Generate a realistic user request for an Obsidian vault assistant. "
    "Make it specific, actionable, and varied in complexity."
)
METHODS = ("self", "free", "template", "teacher")
FREE = "free"
"""The method without cells: one fixed text asks for any request."""
_DRAWS = 48
"""So many cells of a group are tried until a template gives a request that was not there before."""
_KEPT_FILLED = 8192
"""Filled templates that wait for the worker that asks for them; many more than there are workers."""


@dataclass(frozen=True)
class Writing:
    """How a model writes requests: its name, its client, and the sampling."""

    name: str
    client: ModelClient
    max_tokens: int
    temperature: tuple[float, float]

    def text(self, asked: str, rng: random.Random) -> str:
        """What the model writes. Raises UnusablePrompt where it is cut off, and the client's errors."""
        options = SamplingOptions(
            max_tokens=self.max_tokens,
            temperature=round(rng.uniform(*self.temperature), 3),
            seed=rng.getrandbits(31),
        )
        completion = self.client.complete([Message("user", asked)], options)
        if completion.is_truncated:
            raise UnusablePrompt("prompt.truncated", "cut off at --prompt-max-tokens", completion.message.content)
        return completion.message.content or ""


class Known:
    """Requests that a new one must not repeat: those of this run, of other files, and of evaluation sets."""

    def __init__(self, avoided: EvaluationPrompts, *, is_distinct: bool) -> None:
        self._avoided = avoided
        self._seen = SeenRequests() if is_distinct else None
        self._taken: dict[int, str] = {}  # slot -> its request
        self._lock = threading.Lock()

    def add(self, request: str, slot: int | None = None) -> None:
        """Add a request that was there before, that of a `slot` if it is one of this run."""
        if self._seen is not None:
            with self._lock:
                self._seen.add(Request(request))
                if slot is not None:
                    self._taken[slot] = request

    def take(self, slot: int, request: str, plain: str | None = None) -> None:
        """Add the request of a slot, `plain` without its phrasing, which would hide how near it is to an evaluation
        prompt.

        Raises UnusablePrompt where it overlaps one, or repeats the request of another slot.
        """
        words = Request(request)
        overlap = self._avoided.overlap_of(words)
        if not overlap and plain not in (None, request):
            overlap = self._avoided.overlap(plain)
        if overlap:
            why = f"it overlaps an evaluation prompt ({overlap.sign}): {overlap.prompt}"
            raise UnusablePrompt("prompt.evaluation", why, request)
        if self._seen is None:
            return
        with self._lock:
            twin = self._seen.twin(request)
            if twin and twin.text != self._taken.get(slot):  # its own, which may have had no answer
                why = f"it is {'nearly ' if twin.kind == 'near' else ''}the same as: {twin.text}"
                raise UnusablePrompt(f"prompt.{twin.kind}_duplicate", why, request)
            if twin:
                return
            if self._seen.is_worn(words):
                raise UnusablePrompt("prompt.worn_skeleton", "a sentence that came often, with other names", request)
            self._seen.add(words)
            self._taken[slot] = request


class FilledTemplates:
    """The prompts of the slots that templates fill, in the order of the slots, whichever is asked for first.

    So what counts as a duplicate depends on the slots before it alone, at any concurrency.
    """

    def __init__(self, cells: Cells, known: Known, slots: "MethodOfSlot", earlier: Mapping[int, str]) -> None:
        self._cells = cells
        self._known = known
        self._slots = slots
        self._earlier = dict(earlier)
        self._next = 0
        self._filled: OrderedDict[int, Cell | UnusablePrompt] = OrderedDict()
        self._lock = threading.Lock()

    def fill_to(self, slot: int) -> None:
        """Fill the slots up to this one, so that its request, whoever writes it, is compared with theirs."""
        with self._lock:
            while self._next <= slot:
                self._fill_next()

    def cell(self, slot: int) -> Cell:
        self.fill_to(slot)
        with self._lock:
            found = self._filled[slot] if slot in self._filled else self._fill(slot)
        if isinstance(found, UnusablePrompt):
            raise found
        return found

    def _fill_next(self) -> None:
        slot, self._next = self._next, self._next + 1
        if self._slots.method_of(slot) != "template":
            return
        if slot in self._earlier:
            self._known.add(self._earlier.pop(slot), slot)
            return
        self._filled[slot] = self._fill(slot)
        if len(self._filled) > _KEPT_FILLED:
            self._filled.popitem(last=False)

    def _fill(self, slot: int) -> Cell | UnusablePrompt:
        for number in range(_DRAWS):
            try:
                cell = self._cells.draw(slot, number)
                self._known.take(slot, cell.prompt.question, cell.plain)
                return cell
            except UnusablePrompt as unusable:
                found = unusable
        return found


class MethodOfSlot:
    """Which method writes the prompt of a slot, drawn with the methods' weights; no other one steps in for it."""

    def __init__(self, methods: Mapping[str, float], seed: int) -> None:
        self._methods = methods
        self._seed = seed

    def method_of(self, slot: int) -> str:
        if len(self._methods) == 1:
            return next(iter(self._methods))
        rng = random.Random(f"{self._seed}:{slot}:method")
        return rng.choices(list(self._methods), weights=list(self._methods.values()))[0]


class PromptWriter:
    """A prompt source: writes one prompt for each attempt."""

    def __init__(
        self,
        methods: MethodOfSlot,
        cells: Cells | None,
        known: Known,
        *,
        writing: Writing | None = None,
        teacher: Teacher | None = None,
        per_call: int = 1,
        catalog: Catalog | None = None,
        earlier: Iterable[tuple[int, str]] = (),
    ) -> None:
        """`cells` for every method but free, `writing` for self and free, `teacher` for its own.

        With a `catalog` the answering model is told the tool of each request and an example. `earlier` are slots that
        have a request already; it is theirs again. A teacher writes the requests of `per_call` slots at a time.
        """
        self._methods = methods
        self._cells = cells
        self._known = known
        self._writing = writing
        self._teacher = teacher
        self._per_call = per_call
        self._catalog = catalog
        self._earlier = dict(earlier)
        for slot, request in self._earlier.items():
            if methods.method_of(slot) != "template":
                known.add(request)
        self._templates = FilledTemplates(cells, known, methods, self._earlier) if cells else None

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        """Write a prompt. Raises UnusablePrompt, and whatever the writing model's client raises."""
        method = self._methods.method_of(slot)
        if self._templates:
            self._templates.fill_to(slot)
        if method == FREE:
            return self._free(slot, rng)
        group = self._cells.group_of(slot)
        try:
            written = self._written(method, slot, attempt, rng)
        except UnusablePrompt as unusable:
            writer = {"self": self._writing, "teacher": self._teacher}.get(method)
            raise UnusablePrompt(
                unusable.reason, str(unusable), unusable.text, group, writer.name if writer else None
            ) from unusable
        return replace(written, told=self._told(group, written.prompt, slot)) if self._catalog else written

    def orders(self, slots: Iterable[int]) -> list[Order]:
        """What the teacher is told for the first attempt of those of the `slots` that are its own and still empty."""
        wanted = []
        for slot in slots:
            if slot not in self._earlier and self._methods.method_of(slot) == "teacher":
                try:
                    wanted.append(order_of(self._cells.draw(slot, by_model=True), 0))
                except UnusablePrompt:
                    continue
        return wanted

    def _free(self, slot: int, rng: random.Random) -> WrittenPrompt:
        name = self._writing.name
        if slot in self._earlier:
            request = self._earlier[slot]
            return WrittenPrompt(Prompt(prompt_id(request), request), FREE, name)
        try:
            request = clean_request(self._writing.text(SEED_TEXT, rng))
            self._known.take(slot, request)
        except UnusablePrompt as unusable:
            raise UnusablePrompt(unusable.reason, str(unusable), unusable.text, written_by=name) from unusable
        return WrittenPrompt(Prompt(prompt_id(request), request), FREE, name)

    def _written(self, method: str, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        if method == "template":
            cell = self._templates.cell(slot)
            return WrittenPrompt(cell.prompt, method, origin=cell.origin)
        cell = self._cells.draw(slot, by_model=True)
        if slot in self._earlier:
            writer = self._writing if method == "self" else self._teacher
            return WrittenPrompt(cell.worded_as(self._earlier[slot]), method, writer.name, origin=cell.origin)
        if method == "self":
            text, name = self._writing.text(cell.order, rng), self._writing.name
        else:
            first = slot - slot % self._per_call
            neighbours = range(first, first + self._per_call)
            kept = self._teacher.text(order_of(cell, attempt), lambda: self.orders(neighbours), rng)
            text, name = kept.text, kept.model
        request = clean_request(text, cell.names)
        check_names(request, cell.names, leaves_out_a_value=cell.leaves_out_a_value)
        self._known.take(slot, request)
        return WrittenPrompt(cell.worded_as(request), method, name, origin=cell.origin)

    def _told(self, group: str, prompt: Prompt, slot: int) -> str | None:
        """What the answering model is told beside the request: the tools to call, and another request answered."""
        try:
            question, answer = self._cells.example(group, prompt, random.Random(f"{prompt.id}:{slot}:example"))
        except CannotFill:
            return None
        return few_tools_as_text(self._catalog, sorted(set(prompt.expected_tools)), question, answer)


class SeveralSamples:
    """A prompt source that gives each prompt of another one to `num_samples` slots that follow each other.

    The first of them that comes writes it, in `most_attempts` attempts that they share; the others wait for that.
    """

    def __init__(self, prompts: PromptSource, num_samples: int, seed: int, most_attempts: int) -> None:
        self._prompts = prompts
        self._num_samples = num_samples
        self._seed = seed
        self._most_attempts = most_attempts
        self._shared: OrderedDict[int, _SharedPrompt] = OrderedDict()
        self._lock = threading.Lock()

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        """As PromptWriter's; takes nothing from `rng`, whichever slot comes first."""
        number = slot // self._num_samples
        with self._lock:
            shared = self._shared.setdefault(number, _SharedPrompt())
            if len(self._shared) > _KEPT_FILLED:
                self._shared.popitem(last=False)
        with shared.lock:
            if shared.written is None:
                shared.written = self._write(number, shared)
            return shared.written

    def _write(self, number: int, shared: "_SharedPrompt") -> WrittenPrompt:
        last = shared.failures[-1] if shared.failures else None
        if len(shared.failures) >= self._most_attempts and last.cell is not None:  # without a cell no slot is given up
            why = f"the {self._most_attempts} attempts at the request that these answers share have failed: {last}"
            raise UnusablePrompt(GIVEN_UP, why, None, last.cell)
        attempt = len(shared.failures)
        try:
            return self._prompts.prompt_for(number, attempt, random.Random(f"{self._seed}:{number}:{attempt}:prompt"))
        except UnusablePrompt as unusable:
            shared.failures.append(unusable)
            raise


@dataclass
class _SharedPrompt:
    """The prompt of several slots, and the attempts at it that failed."""

    written: WrittenPrompt | None = None
    failures: list[UnusablePrompt] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock)


def order_of(cell: Cell, attempt: int) -> Order:
    """The order for a cell; each attempt is another one."""
    digest = hashlib.sha256(f"{attempt}:{cell.order}".encode()).hexdigest()
    return Order(digest[:24], cell.order)


def parse_methods(text: str) -> dict[str, float]:
    """An argparse type: `self`, `self,template`, or with weights `self:3,template:1`."""
    methods: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.partition(":")
        if name not in METHODS or name in methods:
            raise argparse.ArgumentTypeError(f"{part!r} is none of {', '.join(METHODS)}, each once, with :WEIGHT")
        try:
            methods[name] = float(weight or 1)
        except ValueError:
            methods[name] = 0
        if not 0 < methods[name] < float("inf"):
            raise argparse.ArgumentTypeError(f"the weight in {part!r} is not a number above 0")
    return {name: methods[name] for name in METHODS if name in methods}  # the order they are drawn in


def describe_methods(methods: Mapping[str, float]) -> dict[str, Any]:
    """The methods with their shares, for the settings of a run."""
    total = sum(methods.values())
    return {name: round(weight / total, 4) for name, weight in methods.items()}
