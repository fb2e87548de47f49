"""The loop: self-play, KTO, evaluation, and again while that helps. For cron: a killed loop goes on where it was.

    python Tools/selfplay_loop.py --workdir loop --rounds 3 --examples-per-round 400

Each step is another command of this project, shown before it runs. stdout has one line, the folder of the best adapter.
"""

import argparse
import json
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import load_catalog
from Evaluator.console import run_main
from Evaluator.errors import FAILED, OK
from Evaluator.reports.report import load_report, validator_fingerprint
from Evaluator.rows import BadLine, read_rows
from Evaluator.runs.atomic_files import move_into_place, write_atomically, write_json
from Evaluator.runs.kept_settings import file_fingerprint, keep_settings
from Evaluator.runs.serving import add_server_arguments
from Evaluator.runs.steps import StepFailed, Steps
from Tools.loop.commands import (
    ADAPTER_WEIGHTS,
    BEHAVIOR,
    DATA_NUMBERS,
    HELDOUT,
    JUDGED,
    KTO,
    MISSING_TOOLS,
    PLAY,
    SERVED,
    Commands,
)
from Tools.loop.flags import (
    add_data_arguments,
    add_loop_arguments,
    add_model_arguments,
    add_training_arguments,
    check_arguments,
    settings_of,
    training_settings_of,
)
from Tools.loop.results import RoundResult, read_result
from Tools.prompts.prompt_flags import DEFAULT_BEHAVIOR_SHARE

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Let a model play, train it on what it played, measure it, and again while that helps.",
        epilog="examples:\n"
        "  python Tools/selfplay_loop.py --workdir loop --learning-rate 2.5e-5\n"
        "  python Tools/selfplay_loop.py --base 7b --adapter sft-7b --workdir loop-7b --examples-per-round 4000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_loop_arguments(parser)
    add_model_arguments(parser)
    add_server_arguments(parser)
    add_data_arguments(parser)
    add_training_arguments(parser)
    return parser


class Loop:
    """The rounds of a loop in its folder. What is done already is passed over."""

    def __init__(self, args: argparse.Namespace, steps: Steps) -> None:
        self._args = args
        self._steps = steps
        self._commands = Commands(args)

    def run(self) -> Path:
        """Go on until a round is not kept, or the last one is done; give the folder of the best adapter."""
        rounds: list[RoundResult] = []
        for number in range(self._args.rounds + 1):
            num_before = self._steps.num_run
            self._commands.folder(number).mkdir(exist_ok=True)
            if number:
                self._play(number)
                self._train(number)
            rounds.append(self._measured(number, rounds[:1]))
            is_over = bool(rounds[-1].reasons) or number == self._args.rounds
            if is_over or self._steps.num_run > num_before or not self._is_shown(number):
                self._show(rounds, is_over)
            if is_over:
                break
        return self._args.workdir / "best"

    # -- a round

    def _play(self, number: int) -> None:
        """Rows of the model as it is, more of them for tools without a right answer, and all judged again."""
        commands, steps = self._commands, self._steps
        steps.run(commands.play(number))
        missing = commands.path(number, MISSING_TOOLS)
        if self._args.ask_missing_tools and not missing.exists():
            played = [commands.path(number, PLAY), *([commands.path(number - 1, JUDGED)] if number > 1 else [])]
            tools = tools_without_right_answer(played)
            write_json(missing, {"tools": dict.fromkeys(tools, 1)})
        if self._args.ask_missing_tools:
            self._ask_missing_tools(number, len(json.loads(missing.read_bytes())["tools"]))
        steps.run(commands.judging(number))
        steps.run(commands.data_numbers(number))

    def _ask_missing_tools(self, number: int, num_tools: int) -> None:
        """About as many requests for these tools as they had in the round's self-play, with as many answers each."""
        if not num_tools:
            return
        samples = self._args.num_samples_per_prompt
        about_tools = (1 - DEFAULT_BEHAVIOR_SHARE) * self._args.examples_per_round / samples
        share = about_tools * num_tools / len(load_catalog().tools)
        step = self._commands.coverage(number, max(round(share), 1) * samples)
        try:
            self._steps.run(step)
        except StepFailed as error:
            if error.status != FAILED or not step.makes.exists() or step.makes.stat().st_size:
                raise
            log.warning("warning: round %d goes on without an answer about missing tools: all were given up", number)

    def _train(self, number: int) -> None:
        self._steps.run(self._commands.mixing(number))
        self._steps.run(self._commands.training(number))

    # -- measuring

    def _measured(self, number: int, first: Sequence[RoundResult]) -> RoundResult:
        """What a round's model came to; but for round 0 against the `first` round and the one before."""
        reports = self._evaluate(number)
        numbers = self._commands.answer_numbers(number, reports[HELDOUT])
        self._steps.run(numbers)
        if not number:
            return read_result(number, reports, numbers.makes)
        compared = self._commands.comparison(number, self._evaluate(number - 1)[HELDOUT], reports[HELDOUT])
        self._steps.run(compared)
        return read_result(
            number,
            reports,
            numbers.makes,
            first=first[0].measured,
            comparison=compared.makes,
            data=self._commands.path(number, DATA_NUMBERS),
            max_p=self._args.max_p,
        )

    def _evaluate(self, number: int) -> dict[str, Path]:
        """The reports of a round by the validator as it is now: reports of two validators cannot be compared."""
        self._steps.run(self._commands.export(number))
        self._forget_older_answers(number)
        reports = {}
        for name in (HELDOUT, BEHAVIOR):
            report, validator = self._commands.report(number, name), None
            if report.exists() and load_report(report)["validator"]["fingerprint"] != validator_fingerprint():
                validator = validator_fingerprint()
            self._steps.run(self._commands.evaluation(number, name, validator))
            reports[name] = self._commands.report(number, name, validator)
        return reports

    def _forget_older_answers(self, number: int) -> None:
        """Remove what an adapter has answered that this round had before it was trained again: a server that serves
        the new one has the same name."""
        if not number:
            return
        trained = (self._commands.adapter(number) / ADAPTER_WEIGHTS).stat().st_mtime
        for name in (HELDOUT, BEHAVIOR):
            for path in self._commands.folder(number).glob(f"{name}*"):
                if path.stat().st_mtime < trained:
                    path.unlink()

    # -- what people see

    def _is_shown(self, number: int) -> bool:
        try:
            shown = json.loads((self._args.workdir / "rounds.json").read_bytes())["rounds"]
        except (OSError, ValueError, KeyError):
            return False
        return (self._args.workdir / "best").is_dir() and any(one["number"] == number for one in shown)

    def _show(self, rounds: Sequence[RoundResult], is_over: bool) -> None:
        """Say how the last round ended; write the page, the numbers, and the best adapter."""
        from Tools.loop.page import loop_page

        last, workdir = rounds[-1], self._args.workdir
        found = last.measured.pass_rate
        log.info("round %d: %g of %d held-out prompts passed", last.number, found["passed"], found["total"])
        for reason in last.reasons:
            log.info("round %d is not kept: %s", last.number, reason)
        how = "the last round is not kept" if last.reasons else "all rounds are done"
        end = f"The loop is over: {how}." if is_over else None
        data = {"base": self._args.base, "rounds": [one.to_dict() for one in rounds]}
        write_json(workdir / "rounds.json", data)
        write_atomically(workdir / "index.html", [loop_page(rounds, self._args.base, end).encode()])
        best = [one.number for one in rounds if not one.reasons][-1]
        keep_best(workdir / "best", best, self._commands.adapter(best), self._commands.path(best, SERVED))


def tools_without_right_answer(files: Sequence[Path]) -> list[str]:
    """The tools of the catalog that no true row of the files calls."""
    called: Counter[str] = Counter()
    for row in read_rows([str(path) for path in files]):
        if not isinstance(row, BadLine) and row.label:
            called.update(row.metadata.get("called_tools") or ())
    return [tool for tool in load_catalog().tools if not called[tool]]


def keep_best(folder: Path, number: int, adapter: Path, served: Path) -> None:
    """Copy an adapter, and what serves it on a GGUF base, into `folder`, in place of what was there."""
    note, best = folder / "round.json", {"round": number, "weights": file_fingerprint(adapter / ADAPTER_WEIGHTS)}
    if note.is_file() and json.loads(note.read_bytes()) == best:
        return
    unfinished = folder.with_name(".best.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(adapter, unfinished, ignore=shutil.ignore_patterns("checkpoints"))
    if (served / "adapter.gguf").is_file():
        shutil.copy2(served / "adapter.gguf", unfinished)
    (unfinished / "round.json").write_text(json.dumps(best) + "\n", encoding="utf-8")
    old = folder.with_name(".best.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        move_into_place(folder, old)
    move_into_place(unfinished, folder)
    shutil.rmtree(old, ignore_errors=True)


def keep_what_was_begun_with(args: argparse.Namespace, steps: Steps) -> None:
    """Keep a loop's settings from the first step that is done on, how it trains from the first training on: what made
    a step fail may be changed. Raises UsageError where they are others."""
    for name, settings, ending in (
        ("loop.json", settings_of(args), ""),
        ("training.json", training_settings_of(args), KTO),
    ):
        if not steps.has_done(ending):
            (args.workdir / name).unlink(missing_ok=True)
        keep_settings(args.workdir / name, settings, "a loop")


def loop(args: argparse.Namespace) -> int:
    check_arguments(args)
    args.workdir.mkdir(parents=True, exist_ok=True)
    with Steps(args.workdir / "state.json") as steps:
        keep_what_was_begun_with(args, steps)
        best = Loop(args, steps).run()
    print(best)
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: loop(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
