"""The run: the plan's steps one after the other, for as long as there is time; what is measured so far as outcomes."""

import json
import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from Evaluator.backends.default_weights import EMBEDDED, STARTER_WRITER
from Evaluator.errors import FAILED, INTERRUPTED, STOPPED_EARLY, ReportedError, UsageError
from Evaluator.reports.report import load_report
from Evaluator.runs.atomic_files import write_atomically, write_json
from Evaluator.runs.kept_settings import file_fingerprint, keep_settings
from Evaluator.runs.steps import ROOT, StepFailed, Steps
from Trainers.common.run_folder import ADAPTER_WEIGHTS
from Trainers.experiments.arms import ARMS, SETS
from Trainers.experiments.outcomes import outcome_lines, outcomes_of
from Trainers.experiments.plan import Inputs, MeasuredArm, report_path

log = logging.getLogger(__name__)

STATE = "state.json"
SETTINGS = "experiment.json"
_ENDED = ("status", "seconds")


def run_arms(plan: Sequence[MeasuredArm], inputs: Inputs, results: Path, seconds: float | None) -> None:
    """Run a plan made from `inputs`; after each arm write what is known to `results`.

    An arm with a step that fails is left out, and what can be run without it goes on. Raises UsageError where the
    folder holds an experiment with other inputs, StepFailed where the run was stopped, ReportedError where arms were
    left out.
    """
    workdir = inputs.workdir
    workdir.mkdir(parents=True, exist_ok=True)
    failed: set[str] = set()
    left_out = []
    with Steps(workdir / STATE) as steps, time_limit(seconds):
        keep_settings(workdir / SETTINGS, settings_of(inputs), "an experiment")
        for number, arm in enumerate(plan, start=1):
            log.info("%s with seed %d: arm %d of %d", arm.name, arm.seed, number, len(plan))
            try:
                _run_arm(steps, arm, failed)
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


def _run_arm(steps: Steps, arm: MeasuredArm, failed: set[str]) -> None:
    """Run the steps of an arm. Raises StepFailed, and puts the step that is to blame into `failed`."""
    for step in arm.steps:
        if step.name in failed:
            raise StepFailed(f"the step {step.name!r} failed before", FAILED)
        try:
            steps.run(step)
        except StepFailed:
            failed.add(step.name)
            raise


def settings_of(inputs: Inputs) -> dict[str, Any]:
    """What all arms of an experiment have in common, with the state of the files."""
    files = {"sft_data": inputs.sft_data, **inputs.prompt_sets}
    files |= {"writer": STARTER_WRITER} if inputs.model == EMBEDDED else {"model_file": Path(inputs.model)}
    files |= {f"sft_adapter_{seed}": path / ADAPTER_WEIGHTS for seed, path in inputs.sft_adapters.items()}
    if inputs.played:
        files |= {f"played_{path.stem}": path for path in sorted(inputs.played.glob("seed-*.jsonl"))}
    return {
        "model": inputs.model,
        "prompt_method": inputs.prompt_method,
        "processes": inputs.processes,  # a training goes on with as many as it began with
        "server": asdict(inputs.server) if inputs.server else None,
        **asdict(inputs.scale),
        **{name: f"{path} {file_fingerprint(path)}" for name, path in files.items()},
    }


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
    """outcomes.jsonl from all complete reports; steps.json: the commands, what each took, and how it ended;
    trainings.json: what the machine made of each training's settings, and its rewards.

    Raises UsageError where reports were made in other ways and cannot be compared.
    """
    outcomes = [one for set_name in SETS for one in _outcomes_on(set_name, workdir)]
    if not outcomes:
        return
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / "outcomes.jsonl", outcome_lines(outcomes))
    steps = json.loads((workdir / STATE).read_bytes())["steps"]
    shown = [
        {"name": one["name"], "line": _without_place(one["line"], workdir), **{key: one[key] for key in _ENDED}}
        for one in steps
    ]
    write_json(results / "steps.json", shown)
    write_json(results / "trainings.json", _trainings_in(workdir))


def _trainings_in(workdir: Path) -> list[dict[str, Any]]:
    """What the records of complete trainings say of the machine: one with bf16 trains in it, another in float32.

    `name` is the step's in steps.json, `data` how many rows it was given; `rewards` are of right and of wrong
    rows at each step of KTO, `kl` is its KL term there.
    """
    trainings = []
    for path in sorted(workdir.glob("seed-*/**/run.json")):
        record = json.loads(path.read_bytes())
        if not record["is_complete"]:
            continue
        seed, training = path.relative_to(workdir).parts[:2]
        logged = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        trainings.append(
            {
                "name": f"{seed.replace('-', ' ')}: {training} train",
                **{key: record[key] for key in ("steps", "resolved", "versions")},
                "data": {key: record["data"][key] for key in ("rows", "left_out")},
                "rewards": _at_each_step(logged, "rewards/chosen", "rewards/rejected"),
                "kl": [kl for (kl,) in _at_each_step(logged, "kl")],
            }
        )
    return trainings


def _at_each_step(logged: Sequence[Mapping[str, Any]], *names: str) -> list[list[float]]:
    """The numbers of these names in the lines that have them all."""
    return [[round(line[name], 4) for name in names] for line in logged if set(names) <= line.keys()]


def _outcomes_on(set_name: str, workdir: Path) -> list[dict[str, Any]]:
    """The outcomes of all arms and seeds that were asked all prompts of a set."""
    outcomes, first = [], None
    for arm in ARMS:
        for seed in _seeds_in(workdir):
            path = report_path(workdir, arm, seed, set_name)
            report = load_report(path) if path.exists() else None
            if not report or not report["is_complete"]:
                continue
            first = first or report
            differing = [key for key in _MUST_AGREE if report.get(key) != first.get(key)]
            if differing:
                raise UsageError(
                    f"{path} was made with another {' and '.join(differing)} than others: move it away with what was "
                    f"made beside it, and run the same command again"
                )
            outcomes += outcomes_of(report, arm, seed, set_name)
    return outcomes


_MUST_AGREE = ("prompt_set", "catalog", "validator", "execute", "model", "temperature", "max_tokens")
"""What all reports of an experiment are made with."""


def _without_place(line: str, workdir: Path) -> str:
    """A command that says nothing of the machine it was run on."""
    names = [str(workdir), *([str(workdir.relative_to(ROOT))] if workdir.is_relative_to(ROOT) else ())]
    for name in names:
        line = line.replace(f"{name}/", "WORKDIR/")
    return line


def _seeds_in(workdir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("seed-")) for path in workdir.glob("seed-*") if path.is_dir())
