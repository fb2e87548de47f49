"""The commands of a round, each a public one of this project, and the files that they make."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from Evaluator.backends.default_weights import EMBEDDED
from Evaluator.model_flags import is_embedded
from Evaluator.prompt_sets import EVALUATION_SETS
from Evaluator.runs.serving import MERGED, server_from
from Evaluator.runs.steps import Step

PLAY, MISSING_TOOLS, COVERAGE, JUDGED, TRAIN = (
    "play.jsonl", "missing_tools.json", "coverage.jsonl", "judged.jsonl", "train.jsonl",
)  # fmt: skip
DATA_NUMBERS, ADAPTER, SERVED, COMPARISON = "data_numbers.json", "adapter", "served", "comparison"
HELDOUT, BEHAVIOR = "heldout", "behavior"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
KTO = "KTO"
"""How the names of the steps end that train."""
MERGED_TYPE = "q8_0"
"""How a base that is no GGUF file is served without a server: merged with the adapter, in 8 bits."""
TRAINING_FLAGS = (
    "--learning-rate", "--num-epochs", "--max-steps", "--batch-size", "--gradient-accumulation-steps", "--beta",
    "--max-length", "--device", "--quantization", "--mask",
)  # fmt: skip
"""Flags that train_kto.py is given where the loop is."""
_SIZE = re.compile(r"\d+(\.\d+)?[mb]")


class Commands:
    """The steps of a loop, in the order of a round. Paths are absolute."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._server = server_from(args)

    def folder(self, number: int) -> Path:
        return self._args.workdir / f"round_{number}"

    def path(self, number: int, name: str) -> Path:
        return self.folder(number) / name

    def adapter(self, number: int) -> Path:
        """What a round has trained; that of round 0 is where all begin."""
        return self.path(number, ADAPTER) if number else self._args.adapter

    def report(self, number: int, name: str, validator: str | None = None) -> Path:
        """The report on HELDOUT or BEHAVIOR; that of a later `validator` stands beside the one of the round."""
        return self.path(number, f"{name}-{validator}.json" if validator else f"{name}.json")

    # -- the data of a round

    def play(self, number: int) -> Step:
        flags = (*self._prompt_method(), "--num-examples", str(self._args.examples_per_round))
        output = self.path(number, PLAY)
        return self._generation(f"round {number}: self-play", number, flags, self._generated(number - 1), output)

    def coverage(self, number: int, num_examples: int) -> Step:
        flags = ("--prompt-method", "template", "--coverage", str(self.path(number, MISSING_TOOLS)))
        flags += ("--behavior-share", "0", "--num-examples", str(num_examples))
        earlier = [*self._generated(number - 1), self.path(number, PLAY)]
        return self._generation(f"round {number}: missing tools", number, flags, earlier, self.path(number, COVERAGE))

    def _prompt_method(self) -> Sequence[str]:
        """Who writes requests; where the bundled model is on a server, that is still the embedded one, as a teacher."""
        method = self._args.prompt_method
        if not (self._server and self._args.base == EMBEDDED and "self" in method):
            return ("--prompt-method", method)
        teacher = ("--prompt-generator-model", EMBEDDED, "--prompts-per-call", "1")
        return ("--prompt-method", method.replace("self", "teacher"), *teacher)

    def _generation(self, name: str, number: int, flags: Sequence[str], earlier: Sequence[Path], output: Path) -> Step:
        args = self._args
        command = [*self._asking(number - 1, "Tools/selfplay_generator_v2.py"), *flags]
        command += ["--num-samples-per-prompt", str(args.num_samples_per_prompt)]
        command += ["--round", str(number), "--seed", str(args.seed + number)]
        command += ["--avoid", *map(str, earlier)] if earlier else []
        own_sets = [one for one in (args.heldout_prompts, args.behavior_prompts) if one not in EVALUATION_SETS]
        command += ["--avoid-prompt-set", *map(str, (*EVALUATION_SETS, *own_sets))] if own_sets else []
        return Step(name, (*command, "--output", str(output)), output, how=self._concurrency())

    def _generated(self, number: int) -> list[Path]:
        """The files of self-play of the rounds up to this one; not every round has asked for missing tools."""
        paths = [self.path(one, name) for one in range(1, number + 1) for name in (PLAY, COVERAGE)]
        return [path for path in paths if path.exists()]

    def judging(self, number: int) -> Step:
        """All rows of all rounds, judged by the validator as it is now."""
        command = ("Tools/validate_dataset.py", "--relabel", *map(str, self._generated(number)))
        return Step(f"round {number}: judging", command, self.path(number, JUDGED), saves_stdout=True)

    def data_numbers(self, number: int) -> Step:
        command = ("Tools/dataset_report.py", "--json", str(self.path(number, JUDGED)))
        return Step(f"round {number}: numbers of the data", command, self.path(number, DATA_NUMBERS), saves_stdout=True)

    # -- training

    def mixing(self, number: int) -> Step:
        args = self._args
        command = ["Tools/mix_datasets.py", str(self.path(number, JUDGED))]
        command += ["--curated", *map(str, args.curated)] if args.curated_share else []
        command += ["--curated-share", f"{args.curated_share:g}", "--seed", str(args.seed)]
        return Step(f"round {number}: mixing", tuple(command), self.path(number, TRAIN), saves_stdout=True)

    def training(self, number: int) -> Step:
        """KTO, always from the adapter that the loop began with, on all data so far."""
        args, output = self._args, self.adapter(number)
        base = ("--model-size" if _SIZE.fullmatch(args.base) else "--model-name", args.base)
        command = ["Trainers/rtx3090_kto/train_kto.py", *base, "--adapter", str(args.adapter)]
        command += ["--local-file", str(self.path(number, TRAIN)), "--output", str(output), "--seed", str(args.seed)]
        for flag in TRAINING_FLAGS:
            value = getattr(args, flag[2:].replace("-", "_"))
            values = value if isinstance(value, list) else [value]
            command += [flag, *map(str, values)] if value is not None else []
        how = ("--save-steps", str(args.save_steps)) if args.save_steps is not None else ()
        makes = output / ADAPTER_WEIGHTS
        return Step(
            f"round {number}: {KTO}", tuple(command), makes, how=how, goes_on=("--resume",), anew=("--overwrite",)
        )

    # -- serving and measuring

    def export(self, number: int) -> Step:
        served = self.path(number, SERVED)
        command = ["-m", "Trainers.export", str(self.adapter(number)), "--output", str(served), "--overwrite"]
        if self._server:
            command += ["--format", "safetensors", *(["lora"] if is_embedded(self._args.base) else [])]
        elif not is_embedded(self._args.base):
            command += ["--format", "gguf", "--gguf-type", MERGED_TYPE]
        return Step(f"round {number}: export", tuple(command), served / "Modelfile")

    def evaluation(self, number: int, name: str, validator: str | None) -> Step:
        """`name` and `validator` as for report()."""
        prompts = {HELDOUT: self._args.heldout_prompts, BEHAVIOR: self._args.behavior_prompts}[name]
        report = self.report(number, name, validator)
        command = (*self._asking(number, "-m", "Evaluator"), "--prompt-set", str(prompts), "--output", str(report))
        command = (*command, "--html", str(report.with_suffix(".html")))
        name = f"round {number}: {report.stem} prompts"
        return Step(name, command, report, how=self._concurrency(), anew=("--overwrite",))

    def answer_numbers(self, number: int, report: Path) -> Step:
        """The numbers of the answers that a report is about."""
        command = ("Tools/dataset_report.py", "--json", str(report.with_suffix(".jsonl")))
        path = report.with_suffix(".numbers.json")
        return Step(f"round {number}: numbers of {report.stem}", command, path, saves_stdout=True)

    def comparison(self, number: int, before: Path, after: Path) -> Step:
        path = self.path(number, after.name.replace(HELDOUT, COMPARISON))
        command = ("-m", "Evaluator", "compare", str(before), str(after), "--json")
        command += ("--html", str(path.with_suffix(".html")))
        return Step(f"round {number}: {path.stem}", command, path, saves_stdout=True)

    def _asking(self, number: int, *script: str) -> Sequence[str]:
        """A command that asks the model of a round: on a server that is started for it, or in the embedded engine."""
        args, served = self._args, self.path(number, SERVED)
        limits = ("--max-tokens", str(args.max_tokens), "--context-length", str(args.context_length))
        if self._server:
            return (*self._server.command(served / MERGED, args.workdir / "server.log", *script), *limits)
        if is_embedded(args.base):
            return (*script, "--model", args.base, "--adapter", str(served / "adapter.gguf"), *limits)
        return (*script, "--model", str(served / f"model-{MERGED_TYPE}.gguf"), *limits)

    def _concurrency(self) -> tuple[str, str]:
        return "--concurrency", str(self._server.concurrency if self._server else self._args.concurrency)
