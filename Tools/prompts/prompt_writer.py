"""Where the prompts of self-play come from: the model itself, templates, or a teacher model.

slot -> method and cell -> written text -> usable? -> overlap with evaluation prompts, duplicates -> WrittenPrompt
"""

import hashlib
import random
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from Evaluator.catalog import Catalog
from Evaluator.catalog_prompt import few_tools_as_text
from Evaluator.model_client import ModelClient, SamplingOptions
from Evaluator.records import Message, Prompt
from Evaluator.runs.attempts import UnusablePrompt, WrittenPrompt
from Tools.prompts.cells import Cell, Cells
from Tools.prompts.known_requests import Known
from Tools.prompts.methods import FREE, SEED_TEXT, MethodOfSlot
from Tools.prompts.orders import Order
from Tools.prompts.slots import CannotFill
from Tools.prompts.teacher import Teacher
from Tools.prompts.templates import prompt_id
from Tools.prompts.usable_requests import check_names, clean_request

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


class FilledTemplates:
    """The prompts of the slots that templates fill, in the order of the slots, whichever is asked for first.

    So what counts as a duplicate depends on the slots before it alone, at any concurrency.
    """

    def __init__(self, cells: Cells, known: Known, slots: MethodOfSlot, earlier: Mapping[int, str]) -> None:
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


def order_of(cell: Cell, attempt: int) -> Order:
    """The order for a cell; each attempt is another one."""
    digest = hashlib.sha256(f"{attempt}:{cell.order}".encode()).hexdigest()
    return Order(digest[:24], cell.order)
