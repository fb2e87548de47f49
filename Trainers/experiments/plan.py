"""The plan: which public commands, in which order, make and measure the arms. Values only; nothing is run here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from Evaluator.backends.default_weights import EMBEDDED
from Evaluator.runs.serving import MERGED, Server
from Evaluator.runs.steps import ROOT, Step
from Trainers.common.run_folder import ADAPTER_WEIGHTS
from Trainers.experiments.arms import (
    ARMS,
    BASELINE,
    CURATED_SHARE,
    KTO,
    PRIMARY,
    ROUND_1,
    ROUND_2,
    STARTER,
    Arm,
    sets_of,
)
from Trainers.experiments.scales import PROMPT_METHOD, Scale

_SCRIPTS = {"sft": "Trainers/rtx3090_sft/train_sft.py", "kto": "Trainers/rtx3090_kto/train_kto.py"}


@dataclass(frozen=True)
class Inputs:
    """What an experiment starts from. `sft_adapters` are trained already, by seed; rounds in the folder `played` have
    been played; `prompt_sets` by their name in arms.SETS, `processes` train together, on a row each. Without a
    `server` the embedded engine answers. Paths are absolute."""

    workdir: Path
    scale: Scale
    model: str
    sft_data: Path
    prompt_sets: dict[str, Path]
    sft_adapters: dict[int, Path] = field(default_factory=dict)
    prompt_method: str = PROMPT_METHOD
    processes: int = 1
    server: Server | None = None
    played: Path | None = None


def report_path(workdir: Path, arm: str, seed: int, name: str) -> Path:
    """The report of an arm on a prompt set."""
    return workdir / f"seed-{seed}" / arm / f"{name}.json"


@dataclass(frozen=True)
class MeasuredArm:
    """An arm with one seed, and all steps that it takes, those that others take as well included."""

    name: str
    seed: int
    steps: Sequence[Step]


def plan_of(inputs: Inputs, wanted: Iterable[tuple[str, int]]) -> list[MeasuredArm]:
    """What some (arm, seed) take, in that order."""
    return [
        MeasuredArm(name, seed, _distinct(_Replication(inputs, seed).measured(ARMS[name]))) for name, seed in wanted
    ]


def steps_of(plan: Iterable[MeasuredArm]) -> list[Step]:
    """The steps of all, each once."""
    return _distinct(step for arm in plan for step in arm.steps)


def _distinct(steps: Iterable[Step]) -> list[Step]:
    return list({step.name: step for step in steps}.values())


@dataclass(frozen=True)
class _Replication:
    """All that hangs on one seed: its SFT adapter, its rounds of self-play, its arms."""

    inputs: Inputs
    seed: int

    @property
    def folder(self) -> Path:
        return self.inputs.workdir / f"seed-{self.seed}"

    def measured(self, arm: Arm) -> Iterator[Step]:
        """An arm, trained, exported and asked every prompt."""
        yield from self.served(arm)
        for name in sets_of(arm):
            report = report_path(self.inputs.workdir, arm.name, self.seed, name)
            yield self._asking(
                f"{arm.name} {name}",
                report,
                arm,
                ("-m", "Evaluator"),
                *("--prompt-set", self.inputs.prompt_sets[name], "--output", report),
                *("--max-tokens", self.inputs.scale.answer_max_tokens),
                embedded_concurrency=1,
            )

    def served(self, arm: Arm) -> Iterator[Step]:
        """An arm as what plays and is measured: a GGUF adapter for the embedded engine, merged weights for a server."""
        yield from self.trained(arm)
        served = self._served(arm)
        yield self._step(
            f"{arm.name} export",
            served / "config.json" if self.inputs.server else served,
            *("-m", "Trainers.export", self._adapter(arm), "--model-name", self.inputs.model),
            *(("--format", "safetensors") if self.inputs.server else ()),
            *("--output", served.parent, "--overwrite"),
        )

    def trained(self, arm: Arm) -> Iterator[Step]:
        """An arm as the trainers leave it; SFT only is the adapter that the others begin with."""
        if arm.method is None:
            if self.seed not in self.inputs.sft_adapters:
                yield self._training("sft", "sft", [self.inputs.sft_data], self._sft_flags())
            return
        yield from self.trained(ARMS[BASELINE])
        files: list[Path] = []
        for name in arm.data:
            yield from self.played(name)
            files += self._files(name)
        if arm.change:
            yield self._changed(arm.change, files)
            files = [self._changed_file(arm.change)]
        if arm.is_mixed:
            mixing = self._mixed(files)
            yield mixing
            files = [mixing.makes]
        yield self._training(arm.name, arm.method, files, self._arm_flags(arm))

    def played(self, name: str) -> Iterator[Step]:
        """The rows of a round, self-play and guided: the first by SFT only, the second by the primary arm."""
        if name == STARTER or all(map(self._was_played, self._files(name))):
            return
        number = 1 if name == ROUND_1 else 2
        player = ARMS[BASELINE if number == 1 else PRIMARY]
        yield from self.served(player)
        scale, seed = self.inputs.scale, 100 * self.seed + number
        selfplay, guided = self._files(name)
        limits = ("--temperature", scale.temperature, "--max-tokens", scale.play_max_tokens, "--seed", seed)
        avoided = [self.inputs.sft_data, *(self._files(ROUND_1)[:1] if name == ROUND_2 else ())]
        if not self._was_played(selfplay):
            yield self._asking(
                f"play {name}",
                selfplay,
                player,
                ("Tools/selfplay_generator_v2.py",),
                *("--prompt-method", self.inputs.prompt_method, *self._writer()),
                *("--num-samples-per-prompt", scale.samples_per_prompt, "--num-examples", scale.round_rows),
                *("--behavior-share", scale.behavior_share, *limits),
                *("--avoid", *avoided, "--round", number, "--output", selfplay),
                embedded_concurrency=scale.play_concurrency,
            )
        if not self._was_played(guided):
            measured = self.inputs.prompt_sets.values()
            asked = self.folder / "guided-prompts.json"
            command = ("-m", "Trainers.experiments", "guided", *measured)
            yield self._step("guided prompts", asked, *command, saves_stdout=True)
            yield self._asking(
                f"guided {name}",
                guided,
                player,
                ("Tools/selfplay_generator.py",),
                *("--prompt-set", asked, "--num-variations", scale.guided_variations, *limits),
                *("--round", number, "--output", guided),
                embedded_concurrency=scale.play_concurrency,
            )

    def _writer(self) -> Sequence[object]:
        """The flags for who writes requests where the arm is on a server: the bundled writer, as without one."""
        has_teacher = any(part.startswith("teacher") for part in self.inputs.prompt_method.split(","))
        return ("--prompt-generator-model", EMBEDDED, "--prompts-per-call", 1) if has_teacher else ()

    # -- commands and files ---------------------------------------------------------------------------------------

    def _asking(
        self, name: str, makes: Path, arm: Arm, script: Sequence[str], *flags: object, embedded_concurrency: int
    ) -> Step:
        """A command that asks an arm: in the embedded engine, or on a server that is started for it."""
        server, served = self.inputs.server, self._served(arm)
        if not server:
            model = ("--model", self.inputs.model, "--adapter", served)
            return self._step(name, makes, *script, *model, *flags, "--concurrency", embedded_concurrency)
        asking = (*script, *flags, "--concurrency", server.concurrency)
        return self._step(name, makes, *server.command(served, self.folder / "server.log", *map(_shown, asking)))

    def _training(self, name: str, method: str, files: Sequence[Path], flags: Sequence[object]) -> Step:
        output = self.folder / name / "adapter" if name in ARMS else self.folder / name
        scale, processes = self.inputs.scale, self.inputs.processes
        batch_size = scale.kto_batch_size if method == KTO else 1
        launcher = ("-m", "torch.distributed.run", "--nproc-per-node", processes) if processes > 1 else ()
        return self._step(
            f"{name} train",
            output / ADAPTER_WEIGHTS,
            *(*launcher, _SCRIPTS[method], "--model-name", self.inputs.model, "--local-file", *files, *flags),
            *("--batch-size", batch_size, "--seed", self.seed),
            *("--gradient-accumulation-steps", scale.rows_a_step // (batch_size * processes)),
            *("--save-steps", self.inputs.scale.save_steps, "--resume", "--output", output),
        )

    def _sft_flags(self) -> Sequence[object]:
        scale = self.inputs.scale
        rate = ("--learning-rate", scale.sft_learning_rate)
        return (*scale.sft_length, "--lora-rank", scale.lora_rank, *rate, "--max-length", scale.max_length)

    def _arm_flags(self, arm: Arm) -> Sequence[object]:
        scale = self.inputs.scale
        rate = scale.kto_learning_rate if arm.method == KTO else scale.more_sft_learning_rate
        beta = ("--beta", f"{scale.beta * arm.beta_factor:g}") if arm.method == KTO else ()
        return (
            *("--adapter", self._adapter(ARMS[BASELINE]), "--max-steps", scale.steps),
            *("--learning-rate", f"{rate * arm.learning_rate_factor:g}", *beta, *arm.flags),
            *("--max-length", scale.max_length, *(("--allow-eval-prompts",) if arm.data != (STARTER,) else ())),
        )

    def _changed(self, change: str, files: Sequence[Path]) -> Step:
        command = ("-m", "Trainers.experiments", "rows", change, *files)
        return self._step(
            f"{change} rows", self._changed_file(change), *command, "--seed", self.seed, saves_stdout=True
        )

    def _mixed(self, files: Sequence[Path]) -> Step:
        """The files with rows of the starter beside them, as every round of the loop trains."""
        name = "-".join([*(path.stem.removeprefix(f"seed-{self.seed}-") for path in files), "mixed"])
        return self._step(
            f"{name} rows",
            self.folder / f"{name}.jsonl",
            *("Tools/mix_datasets.py", *files, "--curated", self.inputs.sft_data),
            *("--curated-share", CURATED_SHARE, "--seed", self.seed),
            saves_stdout=True,
        )

    def _adapter(self, arm: Arm) -> Path:
        if arm.method is None:
            return self.inputs.sft_adapters.get(self.seed, self.folder / "sft")
        return self.folder / arm.name / "adapter"

    def _served(self, arm: Arm) -> Path:
        return self.folder / arm.name / "served" / (MERGED if self.inputs.server else "adapter.gguf")

    def _files(self, name: str) -> list[Path]:
        """The files of the rows that an arm's `data` names; of a round its self-play first."""
        if name == STARTER:
            return [self.inputs.sft_data]
        names = (name, name.replace("round", "guided"))
        played = [self.inputs.played / f"seed-{self.seed}-{one}.jsonl" if self.inputs.played else None for one in names]
        return [
            path if path and path.exists() else self.folder / f"{one}.jsonl"
            for one, path in zip(names, played, strict=True)
        ]

    def _was_played(self, path: Path) -> bool:
        return path.parent == self.inputs.played

    def _changed_file(self, change: str) -> Path:
        return self.folder / f"round-1-{change}.jsonl"

    def _step(self, name: str, makes: Path, *command: object, saves_stdout: bool = False) -> Step:
        return Step(f"seed {self.seed}: {name}", tuple(map(_shown, command)), makes, saves_stdout)


def _shown(part: object) -> str:
    """A part of a command; files of the repository are named from its root, where steps are run."""
    return str(part.relative_to(ROOT) if isinstance(part, Path) and part.is_relative_to(ROOT) else part)
