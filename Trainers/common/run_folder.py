"""The folder of a training run: what is in it, and whether a run may begin, go on, or has nothing left to do."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from Evaluator.errors import ReportedError, UsageError
from Evaluator.runs.atomic_files import write_json
from Evaluator.runs.file_lock import take_lock

NEED_NOT_AGREE = ("output", "save_steps", "eval_steps", "logging_steps", "report_to", "memory_gb", "model_size")
"""Settings that do not change what is learnt."""
RESOLVED_ALIKE = ("device", "quantization", "packing")
"""What flags leave to the machine, and what has to stay as it was for a run to go on."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's two files of an adapter."""
RUN_RECORD = "run.json"
TRAINER_STATE = "trainer_state.json"
"""The last file of a checkpoint that is written."""


@dataclass(frozen=True)
class RunFolder:
    """`adapter_model.safetensors` and the other files of an adapter, `run.json`, `metrics.jsonl`, `checkpoints/`."""

    path: Path

    @property
    def record_path(self) -> Path:
        return self.path / RUN_RECORD

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder meanwhile; a run that leaves nothing leaves no folder.

        Raises UsageError where another one is at work.
        """
        path = self.path / "run.lock"
        was_here, was_locked_before = self.path.exists(), path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as lock:
            if not take_lock(lock):
                raise UsageError(f"another run is at work in {self.path}: wait for it, or choose another --output")
            is_refused = False
            try:
                yield
            except UsageError:
                is_refused = True
                raise
            finally:
                is_bare = list(self.path.iterdir()) == [path]
                with suppress(OSError):  # Windows removes no open file
                    if is_bare or (is_refused and not was_locked_before):
                        path.unlink()
                    if is_bare and not was_here:
                        self.path.rmdir()

    def record(self) -> dict[str, Any] | None:
        """The run record, None where there is no run yet. Raises UsageError when it cannot be read."""
        if not self.record_path.exists():
            return None
        record = read_json_object(self.record_path)
        if not {"method", "settings", "data", "is_complete"} <= record.keys():
            raise UsageError(f"{self.record_path} is no record of a run: choose another --output")
        return record

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write run.json in one step: it is the old one or the new one, whatever dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.record_path, record, ensure_ascii=False)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end: the trainer's state is its last file."""
        found = self.checkpoints.glob("checkpoint-*")
        return max((path for path in found if _is_json(path / TRAINER_STATE)), key=step_of, default=None)

    def refuse_other_machine(self, resolved: Mapping[str, Any]) -> None:
        """Raise ReportedError where this machine would go on in another way than the run was begun: with other batches,
        or an optimizer that cannot read what the other one wrote. No flag is wrong, and what was learnt is good."""
        begun = (self.record() or {}).get("resolved", {})
        differing = [
            f"{name} was {begun[name]}, is {resolved[name]}"
            for name in RESOLVED_ALIKE
            if name in begun and begun[name] != resolved[name]
        ]
        if differing:
            raise ReportedError(
                f"{self.path} holds a run that was begun in another way ({'; '.join(differing)}): go on where it "
                f"began, or choose another --output, or --overwrite"
            )

    def clear(self) -> None:
        """Remove what a run has written, and nothing else."""
        for path in (self.record_path, self.metrics_path, *self.path.glob("adapter_*")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def is_complete(
        self, method: str, settings: Mapping[str, Any], data: Mapping[str, str], *, resume: bool, overwrite: bool
    ) -> bool:
        """Whether the run of a method with these settings and file digests is done. Otherwise it may begin, or go on.

        Raises UsageError when the folder holds another run, or one that was cut short without --resume.
        """
        record = None if overwrite else self.record()
        if record is None:
            if not overwrite and ((self.path / ADAPTER_CONFIG).exists() or self.last_checkpoint()):
                raise UsageError(
                    f"{self.path} holds an adapter or checkpoints and no {self.record_path.name} that says where they "
                    f"are from: choose another --output"
                )
            return False
        if record["method"] != method:
            raise UsageError(f"{self.path} holds a run of {record['method'].upper()}: choose another --output")
        differing = [
            f"{name} was {record['settings'].get(name)}, is {value}"
            for name, value in settings.items()
            if name not in NEED_NOT_AGREE and record["settings"].get(name) != value
        ]
        if sorted(record["data"]["sha256"].values()) != sorted(data.values()):
            differing.append("the rows are others")
        if differing:
            raise UsageError(
                f"{self.path} holds a run with other settings ({'; '.join(differing)}): choose another --output, or "
                f"--overwrite"
            )
        if record["is_complete"]:
            return True
        if not resume:
            raise UsageError(f"{self.path} holds a run that was cut short: --resume goes on with it, --overwrite not")
        return False


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UsageError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{path} is no JSON object")
    return data


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
