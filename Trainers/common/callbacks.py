"""What happens beside the steps of training: a progress bar, a line of metrics, a stop on request, a warning."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from Evaluator.runs.atomic_files import write_atomically
from Evaluator.runs.signals import Signals

log = logging.getLogger(__name__)


class MetricsFile(TrainerCallback):
    """Appends each record of metrics to a JSONL file, with its step and the seconds since the start.

    Lines of steps after the checkpoint that a run goes on from are dropped: they are made again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= state.global_step]
        write_atomically(self._path, [f"{line}\n".encode() for line in kept])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            line = {"step": state.global_step, "elapsed_s": round(time.monotonic() - self._started, 2), **logs}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def _step_of(line: str) -> float:
    """The step of a line of metrics; a line that was cut off by the end of the program has none, as if never made."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


class ProgressBar(TrainerCallback):
    """Optimizer steps and the last loss on stderr: a bar on a terminal, else a line a minute."""

    LINE_EVERY_S = 60.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            log.info("training on the %s: %d steps", args.device.type, state.max_steps)
        self._loss = float("nan")
        self._first_step, self._started = state.global_step, time.monotonic()
        self._last_line = self._started if state.is_world_process_zero and not sys.stderr.isatty() else float("inf")
        self._bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            file=sys.stderr,
            disable=None if state.is_world_process_zero else True,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)
        now = time.monotonic()
        if now - self._last_line >= self.LINE_EVERY_S:
            self._last_line = now
            left_s = (now - self._started) / (state.global_step - self._first_step)
            left_s *= state.max_steps - state.global_step
            log.info(
                "step %d of %d, loss %.4f, %.0f min left", state.global_step, state.max_steps, self._loss, left_s / 60
            )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._loss = float(logs["loss"])
            self._bar.set_postfix(loss=f"{self._loss:.4f}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._bar.close()


class StopOnSignal(TrainerCallback):
    """After a signal (see Signals) the step under way is ended, a checkpoint is written, and training stops."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self.has_stopped = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._signals.interrupt = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if _in_any_process(bool(self._signals.received)) and state.global_step < state.max_steps:
            if state.is_world_process_zero:
                log.warning("stopping after step %d of %d; a checkpoint is written", state.global_step, state.max_steps)
            self.has_stopped = control.should_save = control.should_training_stop = True


class RewardWatch(TrainerCallback):
    """Warns, once, when KTO makes right answers less likely along with the wrong ones.

    Rewards are beta times the log-probability ratio to the reference. Compared are the means of the last two windows.
    """

    WINDOW = 5

    def __init__(self) -> None:
        self._rewards: list[tuple[float, float]] = []
        self.has_warned = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero:  # the others have the same means
            return
        if not logs or "rewards/chosen" not in logs or "rewards/rejected" not in logs:
            return
        self._rewards.append((logs["rewards/chosen"], logs["rewards/rejected"]))
        if self.has_warned or len(self._rewards) < 2 * self.WINDOW:
            return
        before, now = self._rewards[-2 * self.WINDOW : -self.WINDOW], self._rewards[-self.WINDOW :]
        was, is_ = _means(before), _means(now)
        if all(new < min(old, 0) for old, new in zip(was, is_, strict=True)):
            self.has_warned = True
            log.warning(
                "warning: at step %d the rewards of both classes fall (right answers %.3f, wrong ones %.3f): the "
                "model forgets right answers too. Try a lower --learning-rate, a higher --beta, or more right rows",
                state.global_step,
                *is_,
            )


def _in_any_process(flag: bool) -> bool:
    """Whether the flag is set in one of the processes: all have to stop after the same step."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    shared = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return bool(shared.item())


def _means(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(first for first, _ in pairs) / len(pairs), sum(second for _, second in pairs) / len(pairs)
