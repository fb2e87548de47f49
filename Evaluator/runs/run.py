"""A run from its plan to its files. v1, v2 and the evaluation differ by the prompt source and by what counts.

flags -> Plan -> workers: prompt -> completion -> verdict -> journal -> output, rejects, run.json
"""

import argparse
import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator import __version__
from Evaluator.catalog import Catalog
from Evaluator.errors import OK, ReportedError, UsageError
from Evaluator.model_flags import SCRIPTED_PREFIX, adapter_name
from Evaluator.runs.attempts import Generation, Judging, PromptSource, Sampling
from Evaluator.runs.clients import Clients
from Evaluator.runs.journal import Journal
from Evaluator.runs.kept_settings import file_fingerprint
from Evaluator.runs.output_files import OutputFiles
from Evaluator.runs.progress import Progress
from Evaluator.runs.signals import Signals
from Evaluator.runs.sinks import Sink, StdoutSink
from Evaluator.runs.workers import Workers, work_until_done

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What a program wants: `settings` are those that shape samples, beyond the common ones.

    `prompt_source(clients, earlier)` makes the source when work starts, with the clients it needs; `earlier` are slot
    and request of the samples that are there already.
    `prompts_in_turn` is the number of prompts asked before the first comes again with the next variation.
    """

    source: str
    settings: Mapping[str, Any]
    num_examples: int
    prompt_source: Callable[[Clients, Iterable[tuple[int, str]]], PromptSource]
    prompts_in_turn: int = 1
    num_variations: int = 1
    functions: Sequence[Mapping[str, Any]] = ()  # tools that are sent along, in OpenAI's form
    is_for_training: bool = True  # whether the rows want both labels
    counts_cut_off_answers: bool = False  # whether an answer that is cut off is a wrong one, or none
    attempts_per_cell: int = 0  # so many rejects and a slot is given up (0: never)
    round: int | None = None  # which turn of a loop this is
    avoided: Sequence[tuple[str, str | None]] = ()  # names and states of files whose requests are not repeated


def run_plan(plan: Plan, args: argparse.Namespace, catalog: Catalog) -> int:
    """Generate what `plan` asks for and return the exit status."""
    if args.include_results and not args.execute:
        raise UsageError("--include-results needs the calls to be run: leave --no-execute out")
    if args.output == "-" and args.overwrite:
        raise UsageError("--overwrite is for files; --output - overwrites nothing")
    return Run(plan, settings_of(plan, args, catalog), args, catalog).run()


def settings_of(plan: Plan, args: argparse.Namespace, catalog: Catalog) -> dict[str, Any]:
    """All that shapes the samples of a run: a journal with other settings is not continued."""
    model_file = args.model.removeprefix(SCRIPTED_PREFIX)
    return {
        "source": plan.source,
        "model": args.model,
        "model_file": file_fingerprint(Path(model_file)),
        "adapter": adapter_name(args.adapter),
        "adapter_file": file_fingerprint(args.adapter) if args.adapter else None,
        "catalog": catalog.sha256,
        "execute": args.execute,
        "include_results": args.include_results,
        "seed": args.seed,
        "temperature": list(args.temperature),
        "top_p": list(args.top_p) if args.top_p else None,
        "max_tokens": args.max_tokens,
        **plan.settings,
    }


class Run:
    """One run of a plan, to files or to stdout."""

    def __init__(self, plan: Plan, settings: Mapping[str, Any], args: argparse.Namespace, catalog: Catalog) -> None:
        self._plan = plan
        self._settings = settings
        self._args = args
        self._catalog = catalog
        self._clients = Clients(args)
        self._signals = Signals()
        self._started: float | None = None

    def run(self) -> int:
        with self._signals:
            try:
                return self._to_stdout() if self._args.output == "-" else self._to_files()
            except KeyboardInterrupt:  # a signal before the work began
                return self._signals.status
            finally:
                self._clients.close()

    def _to_stdout(self) -> int:
        """Rows as they come; nothing is kept, so nothing can be continued."""
        slots = ((slot, 0) for slot in range(self._plan.num_examples))
        sink = StdoutSink(self._plan.attempts_per_cell)
        try:
            return self._generate(sink, slots, ())
        finally:
            sink.seal()

    def _to_files(self) -> int:
        """The journal while it runs, the other files at the end, whatever the end was."""
        files = OutputFiles(Path(self._args.output))
        files.check(overwrite=self._args.overwrite)
        journal = Journal(
            files.journal,
            self._settings,
            overwrite=self._args.overwrite,
            attempts_per_cell=self._plan.attempts_per_cell,
        )
        try:
            if self._is_complete(journal) and files.are_made_from(journal):
                log.info("%s holds %d samples already: nothing to do", files.samples, journal.tally.samples)
                self._warn_of_holes(journal)
                return self._status_when_done(journal)
            try:
                if self._is_complete(journal):
                    return self._status_when_done(journal)
                return self._generate(journal, journal.missing_slots(self._plan.num_examples), journal.requests())
            finally:
                journal.seal()
                if journal.has_entries:
                    self._write(files, journal)
        finally:
            journal.close()

    def _is_complete(self, sink: Sink) -> bool:
        """Whether nothing is left to do: every slot is filled or given up."""
        return sink.tally.samples + sink.tally.holes.total() >= self._plan.num_examples

    def _generate(self, sink: Sink, slots: Iterator[tuple[int, int]], earlier: Iterable[tuple[int, str]]) -> int:
        """Fill `slots` and return the status; raises what made the workers fail."""
        workers = Workers(self._generation(earlier), slots, sink, self._args.concurrency, self._clients.stop)
        self._signals.interrupt = False
        self._started = time.monotonic()
        with Progress(sink.tally, self._plan.num_examples, self._clients.meter) as progress:
            workers.start()
            self._catalog.compile()  # while the first answers are under way
            work_until_done(workers, self._signals, progress)
        if (sink.tally.samples or sink.tally.rejects) and not isinstance(workers.failure, BrokenPipeError):
            log.info("%s", progress.summary(self._args.concurrency, len(self._catalog.tools)))
            self._warn_of_holes(sink)
            self._warn_of_labels(sink)
        if workers.failure and not self._signals.received:
            raise workers.failure
        if self._is_complete(sink):
            return self._status_when_done(sink)
        if self._args.output != "-":
            log.info("stopped: run the same command again to go on")
        return self._signals.status

    def _status_when_done(self, sink: Sink) -> int:
        """OK for samples, with holes or without; raises ReportedError where there are only holes."""
        if sink.tally.samples or not sink.tally.holes:
            return OK
        where = "" if self._args.output == "-" else ": the rejects file tells why, and --overwrite begins anew"
        raise ReportedError(f"not one sample could be made{where}")

    def _warn_of_holes(self, sink: Sink) -> None:
        if holes := sink.tally.holes:
            log.warning(
                "warning: %d of %d samples are missing, nothing usable came in %d attempts each "
                "(--attempts-per-cell): %s",
                holes.total(),
                self._plan.num_examples,
                self._plan.attempts_per_cell,
                ", ".join(f"{cell} {count}" for cell, count in holes.most_common(8)),
            )

    def _warn_of_labels(self, sink: Sink) -> None:
        labels = sink.tally.labels
        if self._plan.is_for_training and sink.tally.samples and not (labels[True] and labels[False]):
            log.warning("warning: all samples are labelled %s; KTO needs both", str(bool(labels[True])).lower())

    def _generation(self, earlier: Iterable[tuple[int, str]]) -> Generation:
        plan, args = self._plan, self._args
        return Generation(
            plan.prompt_source(self._clients, earlier),
            self._clients.answering(),
            Sampling(args.temperature, args.top_p, args.max_tokens, plan.num_variations, plan.functions),
            Judging(
                source=plan.source,
                model=args.model,
                catalog=self._catalog,
                seed=args.seed,
                run_id=hashlib.sha256(json.dumps([self._settings, plan.avoided]).encode()).hexdigest()[:8],
                runs_calls=args.execute,
                includes_results=args.include_results,
                round=plan.round,
            ),
            prompts_in_turn=plan.prompts_in_turn,
            counts_cut_off_answers=plan.counts_cut_off_answers,
        )

    def _write(self, files: OutputFiles, journal: Journal) -> None:
        about = {
            "num_examples": self._plan.num_examples,
            "attempts_per_cell": self._plan.attempts_per_cell,
            "avoided": self._plan.avoided,
            "is_complete": self._is_complete(journal),
            "elapsed_s": round(time.monotonic() - self._started, 3) if self._started else None,
            "generator": __version__,
            "python": platform.python_version(),
            "catalog": self._catalog.label,
        }
        files.write(journal, self._settings, about)
