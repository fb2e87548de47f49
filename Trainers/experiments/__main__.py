"""Does a round of self-play and KTO help? Run the arms of the protocol, and make the table of what came out.

python -m Trainers.experiments run --workdir experiment --until-s 3000
python -m Trainers.experiments table
"""

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from Evaluator.backends.default_weights import EMBEDDED
from Evaluator.console import run_main
from Evaluator.errors import OK, UsageError
from Evaluator.flag_types import number
from Evaluator.records import to_json_line
from Evaluator.runs.serving import add_server_arguments, server_from
from Trainers.common.run_folder import ADAPTER_WEIGHTS
from Trainers.experiments.arms import ARMS, BEHAVIORS, HELDOUT, wanted
from Trainers.experiments.rows import CHANGES, read_labelled
from Trainers.experiments.scales import PROMPT_METHOD, SCALES, SERVED_PROMPT_METHOD

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = Path(__file__).parent / "results" / "outcomes.jsonl"
STARTER_DATA = ROOT / "Datasets" / "starter_sft.jsonl"
PROMPT_SETS = ROOT / "Evaluator" / "prompts"


def build_parser() -> argparse.ArgumentParser:
    return _build_parsers()[0]


def command_parsers() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of each command by its name."""
    return _build_parsers()[1]


def _build_parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog="python -m Trainers.experiments",
        description="Run an experiment with controls: does a round of self-play and KTO help? See README.md there.",
        allow_abbrev=False,
    )
    added = parser.add_subparsers(dest="command", required=True, metavar="run|rows|guided|table|logprobs")
    commands = {}
    for name, add_arguments, about, epilog in (
        ("run", add_run_arguments, "run the arms, or go on with them", RUN_EXAMPLES),
        ("rows", add_rows_arguments, "make an arm's rows of a round's; JSONL on stdout", ROWS_EXAMPLES),
        ("guided", add_guided_arguments, "make a round's guided prompts; a prompt set on stdout", GUIDED_EXAMPLES),
        ("table", add_table_arguments, "print the results as Markdown", TABLE_EXAMPLES),
        ("logprobs", add_logprobs_arguments, "print how likely adapters hold answers, by part", LOGPROBS_EXAMPLES),
    ):
        commands[name] = added.add_parser(
            name,
            description=f"{about[0].upper()}{about[1:]}.",
            help=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_arguments(commands[name])
        commands[name].add_argument("--verbose", action="store_true", help="show tracebacks and debug messages")
    return parser, commands


RUN_EXAMPLES = (
    "examples:\n"
    "  python -m Trainers.experiments run --workdir experiment --dry-run\n"
    "  python -m Trainers.experiments run --workdir experiment --arms A1 A4 --seeds 0 --until-s 3000"
)
ROWS_EXAMPLES = "examples:\n  python -m Trainers.experiments rows shuffled round-1.jsonl --seed 1 > shuffled.jsonl"
GUIDED_EXAMPLES = "examples:\n  python -m Trainers.experiments guided Evaluator/prompts/heldout_prompts.json > g.json"
TABLE_EXAMPLES = (
    "examples:\n"
    "  python -m Trainers.experiments table experiment/results/outcomes.jsonl\n"
    "  cat outcomes.jsonl | python -m Trainers.experiments table - > table.md"
)
LOGPROBS_EXAMPLES = (
    "examples:\n"
    "  python -m Trainers.experiments logprobs round-1.jsonl --adapters Evaluator/starter_adapter seed-0/A4/adapter"
)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is run")
    group.add_argument(
        "--workdir", type=Path, required=True, metavar="DIR", help="where everything is made; run again to go on there"
    )
    group.add_argument(
        "--arms", nargs="+", choices=ARMS, metavar="ARM", help=f"some of {', '.join(ARMS)} (default: the protocol's)"
    )
    group.add_argument(
        "--seeds",
        nargs="+",
        type=number(int, 0),
        metavar="S",
        help="seeds of each arm (default: 0, 1, 2 for A1, A3, A4; 0 for others)",
    )
    group.add_argument(
        "--scale", choices=SCALES, default="small", help="how large: rows, steps, lengths (default: %(default)s)"
    )
    group.add_argument(
        "--until-s",
        type=number(float, 1),
        metavar="SECONDS",
        help="stop cleanly after so long, with status 3; run again to go on (default: no limit)",
    )
    group.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    group.add_argument(
        "--processes",
        type=number(int, 1),
        default=1,
        metavar="N",
        help="processes that train together, one for each core or GPU; steps have as many rows (default: %(default)s)",
    )
    group = parser.add_argument_group("what it starts from")
    group.add_argument(
        "--model",
        default=EMBEDDED,
        metavar="NAME",
        help="'embedded' or a FILE.gguf, which is trained, plays and is measured (default: %(default)s)",
    )
    group.add_argument(
        "--sft-data",
        type=Path,
        default=STARTER_DATA,
        metavar="FILE.jsonl",
        help="rows for SFT (default: the starter)",
    )
    group.add_argument(
        "--sft-adapter",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="SFT adapters trained before, for seeds 0, 1, ... in turn (default: they are trained)",
    )
    group.add_argument(
        "--played",
        type=Path,
        metavar="DIR",
        help="folder with rounds played before: seed-0-round-1.jsonl, seed-0-guided-1.jsonl (default: all are played)",
    )
    group.add_argument(
        "--prompt-method",
        metavar="METHOD",
        help="who writes the requests of self-play, as the generator takes it; with --server 'teacher' is the bundled "
        f"writer (default for embedded: {PROMPT_METHOD}, with --server {SERVED_PROMPT_METHOD}; else template)",
    )
    for name, file, what in (
        ("heldout", "heldout_prompts.json", "tools are asked for"),
        ("behavior", "behavior_prompts.json", "behaviours are right"),
    ):
        group.add_argument(
            f"--{name}-prompts",
            type=Path,
            default=PROMPT_SETS / file,
            metavar="FILE.json",
            help=f"prompts that arms are measured with, where {what} (default: the bundled {file})",
        )
    add_server_arguments(parser)
    group = parser.add_argument_group("output")
    group.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="outcomes.jsonl, steps.json and trainings.json go here (default: WORKDIR/results)",
    )


def add_rows_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("change", choices=CHANGES, help="what to make of them")
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl|-", help="labelled rows; - is stdin")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="of the shuffling (default: %(default)s)")


def add_guided_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE.json", help="prompt sets that models are measured with"
    )


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=OUTCOMES,
        metavar="FILE.jsonl",
        help="raw outcomes (default: those in results/)",
    )


def add_logprobs_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE.jsonl|-", help="labelled rows; - is stdin")
    parser.add_argument("--adapters", nargs="+", type=Path, required=True, metavar="DIR", help="folders of adapters")
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="NAME", help="what they were trained on (default: %(default)s)"
    )
    parser.add_argument(
        "--rows-a-label", type=number(int, 1), default=100, metavar="N", help="at most (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    from Trainers.experiments.plan import Inputs, plan_of, steps_of
    from Trainers.experiments.run import run_arms

    workdir = args.workdir.resolve()
    needed = [
        args.sft_data,
        args.heldout_prompts,
        args.behavior_prompts,
        *(path / ADAPTER_WEIGHTS for path in args.sft_adapter),
    ]
    needed += [args.played] if args.played else []
    needed += [Path(args.model)] if args.model != EMBEDDED else []
    for path in needed:
        if not path.exists():
            raise UsageError(f"there is no {path}")
    scale = SCALES[args.scale]
    if args.processes > 1 and sys.platform == "win32":
        raise UsageError(
            "--processes 1 is the most on Windows, where torch's launcher does not start: take WSL for more"
        )
    if scale.rows_a_step % (scale.kto_batch_size * args.processes):
        most = scale.rows_a_step // scale.kto_batch_size
        raise UsageError(f"--processes {args.processes} do not divide a step: {most}, or a divisor of it")
    server = server_from(args)
    bundled_methods = SERVED_PROMPT_METHOD if server else PROMPT_METHOD
    inputs = Inputs(
        workdir=workdir,
        scale=scale,
        model=args.model if args.model == EMBEDDED else str(Path(args.model).resolve()),
        sft_data=args.sft_data.resolve(),
        prompt_sets={HELDOUT: args.heldout_prompts.resolve(), BEHAVIORS: args.behavior_prompts.resolve()},
        sft_adapters={seed: path.resolve() for seed, path in enumerate(args.sft_adapter)},
        prompt_method=args.prompt_method or (bundled_methods if args.model == EMBEDDED else "template"),
        processes=args.processes,
        server=server,
        played=args.played.resolve() if args.played else None,
    )
    plan = plan_of(inputs, wanted(args.arms, args.seeds))
    if args.dry_run:
        print("\n".join(line for step in steps_of(plan) for line in (f"# {step.name}", step.line())))
        return OK
    results = (args.results or workdir / "results").resolve()
    run_arms(plan, inputs, results, args.until_s)
    log.info("all is run: python -m Trainers.experiments table %s", results / "outcomes.jsonl")
    return OK


def make_rows(args: argparse.Namespace) -> int:
    sys.stdout.buffer.writelines(map(to_json_line, CHANGES[args.change](read_labelled(args.files), args.seed)))
    return OK


def make_guided(args: argparse.Namespace) -> int:
    from Trainers.experiments.guided import guided_prompts

    print(json.dumps(guided_prompts(args.files), indent=1, ensure_ascii=False))
    return OK


def print_table(args: argparse.Namespace) -> int:
    from Trainers.experiments.outcomes import read_outcomes
    from Trainers.experiments.table import Outcomes, table_lines

    print("\n".join(table_lines(Outcomes(read_outcomes(args.file)))))
    return OK


def print_logprobs(args: argparse.Namespace) -> int:
    from Trainers.common.trainer_setup import quiet_libraries
    from Trainers.experiments.logprobs import logprob_table

    quiet_libraries(verbose=args.verbose)
    for line in logprob_table(args.files, args.model, args.adapters, args.rows_a_label):
        print(line, flush=True)
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    work = {
        "run": run,
        "rows": make_rows,
        "guided": make_guided,
        "table": print_table,
        "logprobs": print_logprobs,
    }[args.command]
    return run_main(lambda: work(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
