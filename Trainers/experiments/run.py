"""The run: the plan's steps one after the other, for as long as there is time; what is measured so far as outcomes."""

import json
import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from Evaluator.errors import FAILED, INTERRUPTED, STOPPED_EARLY, ReportedError
from Evaluator.reports.report import load_report
from Evaluator.runs.output_files import write_atomically
from Evaluator.runs.steps import ROOT, StepFailed, Steps
from Trainers.experiments.arms import ARMS
from Trainers.experiments.outcomes import outcome_lines, outcomes_of
from Trainers.experiments.plan import SETS, MeasuredArm, report_path, steps_of

log = logging.getLogger(__name__)

STATE = "state.json"


def run_arms(plan: Sequence[MeasuredArm], workdir: Path, results: Path, seconds: float | None) -> None:
    """Run a plan; after each arm write what is known to `results`.

    An arm with a step that fails is left out, and what can be run without it goes on. Raises StepFailed where the
    run was stopped, ReportedError where arms were left out.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    numbers = {step.name: number for number, step in enumerate(steps_of(plan), start=1)}
    failed: set[str] = set()
    left_out = []
    with Steps(workdir / STATE) as steps, time_limit(seconds):
        for arm in plan:
            try:
                _run_arm(steps, arm, failed, numbers)
            except StepFailed as error:
                if error.status in (STOPPED_EARLY, INTERRUPTED):
                    raise
                log.error("%s with seed %d is left out: %s", arm.name, arm.seed, error)
                left_out.append(f"{arm.name} with seed {arm.seed}")
            finally:
                write_results(workdir, results)
    if left_out:
        raise ReportedError(
            f"left out: {', '.join(left_out)}; the steps that failed are tried again by the same command"
        )


def _run_arm(steps: Steps, arm: MeasuredArm, failed: set[str], numbers: Mapping[str, int]) -> None:
    """Run the steps of an arm. Raises StepFailed, and puts the step that is to blame into `failed`."""
    for step in arm.steps:
        if step.name in failed:
            raise StepFailed(f"the step {step.name!r} failed before", FAILED)
        log.info("[%d of %d] %s", numbers[step.name], len(numbers), step.name)
        try:
            steps.run(step)
        except StepFailed:
            failed.add(step.name)
            raise


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """After so many seconds this process gets a SIGTERM, as if somebody stopped it; None: no limit."""
    timer = threading.Timer(seconds, signal.raise_signal, [signal.SIGTERM]) if seconds else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()


def write_results(workdir: Path, results: Path) -> None:
    """outcomes.jsonl from all complete reports, and steps.json: the commands, what each took, and how it ended."""
    outcomes = [
        outcome
        for name in ARMS
        for seed in _seeds_in(workdir)
        for set_name in SETS
        for outcome in _outcomes_in(report_path(workdir, name, seed, set_name), name, seed, set_name)
    ]
    if not outcomes:
        return
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "outcomes.jsonl", outcome_lines(outcomes))
    steps = json.loads((workdir / STATE).read_bytes())["steps"]
    shown = [{**one, "line": _without_place(one["line"], workdir)} for one in steps]
    write_atomically(results / "steps.json", [json.dumps(shown, indent=1).encode() + b"\n"])


def _without_place(line: str, workdir: Path) -> str:
    """A command that says nothing of the machine it was run on."""
    names = [str(workdir), *([str(workdir.relative_to(ROOT))] if workdir.is_relative_to(ROOT) else ())]
    for name in names:
        line = line.replace(f"{name}/", "WORKDIR/")
    return line


def _seeds_in(workdir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("seed-")) for path in workdir.glob("seed-*") if path.is_dir())


def _outcomes_in(path: Path, arm: str, seed: int, set_name: str) -> Sequence[dict[str, object]]:
    if not path.exists():
        return []
    report = load_report(path)
    return list(outcomes_of(report, arm, seed, set_name)) if report["is_complete"] else []
