"""Measure a model: ask every prompt of the sets, judge the answers, write the report."""

import argparse
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from Evaluator.catalog import Catalog, load_catalog
from Evaluator.catalog_prompt import as_functions, as_text
from Evaluator.errors import FAILED, OK, ReportedError, UsageError
from Evaluator.flag_types import number, span
from Evaluator.judging_flags import add_judging_arguments
from Evaluator.model_flags import (
    SCRIPTED_PREFIX,
    adapter_name,
    add_model_arguments,
    is_embedded,
    resolve_model_arguments,
)
from Evaluator.prompt_sets import FROM_A_SET, HELDOUT_PROMPTS, PromptSet, load_prompt_sets
from Evaluator.records import Prompt
from Evaluator.reports.page import check_page
from Evaluator.reports.report import make_report, rows_of_run, validator_fingerprint
from Evaluator.reports.text import describe_rate, report_as_markdown
from Evaluator.runs.atomic_files import write_atomically, write_json
from Evaluator.runs.attempts import WrittenPrompt
from Evaluator.runs.output_files import OutputFiles
from Evaluator.runs.run import Plan, run_plan, settings_of

log = logging.getLogger(__name__)


class EveryPrompt:
    """Slot i asks prompt i, modulo their number, however often it has to be asked."""

    def __init__(self, prompts: Sequence[Prompt], told: str | None) -> None:
        self._prompts = prompts
        self._told = told

    def prompt_for(self, slot: int, attempt: int, rng: random.Random) -> WrittenPrompt:
        return WrittenPrompt(self._prompts[slot % len(self._prompts)], FROM_A_SET, told=self._told)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m Evaluator",
        description="Ask a model every prompt of the sets, judge the answers, and report how many are right.",
        epilog="examples:\n"
        "  python -m Evaluator --model my-sft-7b --output after.json --html after.html\n"
        "  python -m Evaluator --adapter lora.gguf --output after.json --min-pass-rate 0.5 --markdown | tee s.md\n"
        "  python -m Evaluator compare before.json after.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_prompt_arguments(parser)
    add_model_arguments(parser)
    _add_answer_arguments(parser)
    add_judging_arguments(parser)
    _add_report_arguments(parser)
    return parser


def _add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts")
    group.add_argument(
        "--prompt-set",
        type=Path,
        nargs="+",
        default=[HELDOUT_PROMPTS],
        metavar="FILE.json",
        help="prompt sets to ask (default: Evaluator/prompts/heldout_prompts.json, five prompts a tool)",
    )
    group.add_argument(
        "--num-samples-per-prompt",
        type=number(int, 1),
        default=1,
        metavar="K",
        help="ask each prompt K times, for pass@k and pass^k (default: %(default)s)",
    )
    tools = group.add_mutually_exclusive_group()
    tools.add_argument(
        "--tools-in-prompt",
        action="store_true",
        help="tell the tools and how to call them in the system prompt, for models that were not trained on them",
    )
    tools.add_argument(
        "--send-tools",
        action="store_true",
        help="send the tools in the API's `tools`, for models with native tool calls",
    )


def _add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--temperature",
        type=span(0, 5),
        metavar="T|LOW-HIGH",
        help="sampling temperature (default: 0, that is greedy; 0.8 with several samples a prompt)",
    )
    group.add_argument(
        "--top-p", type=span(0, 1), metavar="P|LOW-HIGH", help="nucleus sampling (default: what the endpoint does)"
    )
    group.add_argument(
        "--max-tokens",
        type=number(int, 1),
        default=512,
        metavar="N",
        help="longest answer in tokens; one that is cut off there is wrong (default: %(default)s)",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")


def _add_report_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument(
        "--output",
        type=_json_file,
        required=True,
        metavar="FILE.json",
        help="where the report goes; the same command run again goes on where it was",
    )
    group.add_argument("--html", type=Path, metavar="FILE.html", help="write the report as one HTML file as well")
    group.add_argument("--markdown", action="store_true", help="print the report as Markdown to stdout")
    group.add_argument(
        "--min-pass-rate", type=number(float, 0, 1), metavar="X", help="status 1 when the pass rate is lower"
    )
    group.add_argument(
        "--overwrite",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="begin anew over a report that exists (default: %(default)s)",
    )
    group.add_argument("--verbose", action="store_true", help="show tracebacks and debug messages")


def _json_file(text: str) -> Path:
    """An argparse type: a file name that ends in .json."""
    path = Path(text)
    if path.suffix != ".json" or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no file name that ends in .json")
    return path


def measure(args: argparse.Namespace) -> int:
    """Ask, judge, report; what was answered is reported even if the asking fails."""
    resolve_model_arguments(args)
    check_files(args)
    catalog = load_catalog(args.catalog)
    prompt_set = load_prompt_sets(args.prompt_set)
    prompt_set.check_against(catalog)
    num_samples = args.num_samples_per_prompt
    args.temperature = args.temperature or ((0.0, 0.0) if num_samples == 1 else (0.8, 0.8))
    plan = Plan(
        source="evaluation",
        settings={
            "prompt_set": prompt_set.sha256,
            "num_samples_per_prompt": num_samples,
            "validator": validator_fingerprint(),
            "base_url": args.base_url,
            "context_length": args.context_length,
            **_tools_told(args),
        },
        num_examples=len(prompt_set.prompts) * num_samples,
        prompt_source=lambda _clients, _earlier: EveryPrompt(
            prompt_set.prompts, as_text(catalog) if args.tools_in_prompt else None
        ),
        prompts_in_turn=len(prompt_set.prompts),
        is_for_training=False,
        counts_cut_off_answers=True,
        functions=as_functions(catalog) if args.send_tools else (),
    )
    rows_path = args.output.with_suffix(".jsonl")
    run_args = argparse.Namespace(**{**vars(args), "output": str(rows_path), "include_results": False})
    status, failure = OK, None
    files = OutputFiles(rows_path)
    written_before = _written_at(files.run)
    try:
        status = run_plan(plan, run_args, catalog)
    except ReportedError as error:
        if isinstance(error, UsageError) and _written_at(files.run) == written_before:
            raise  # nothing was asked, and what lies there may be another's
        failure = error
    is_replaced = not args.overwrite or _written_at(files.run) != written_before
    rows = rows_of_run(files, settings_of(plan, run_args, catalog)) if is_replaced else []
    report = _write_report(args, rows, prompt_set, catalog)
    shown = _show(report, args) if rows else OK
    if failure:
        raise failure
    return status or shown


def _written_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _write_report(
    args: argparse.Namespace, rows: Sequence[dict[str, Any]], prompt_set: PromptSet, catalog: Catalog
) -> dict[str, Any]:
    """Make the report of what was answered so far and, where that is something, write it."""
    about = {"model": args.model, "adapter": adapter_name(args.adapter), **_settings(args)}
    report = make_report(rows, prompt_set, catalog, about, args.num_samples_per_prompt)
    if rows:
        write_json(args.output, report, ensure_ascii=False)
    return report


def check_files(args: argparse.Namespace) -> None:
    """Raise UsageError before the first request where a file that would be written is an input, or cannot be made."""
    files = OutputFiles(args.output.with_suffix(".jsonl"))
    made = [args.output, files.samples, files.rejects, files.run, files.journal]
    model_file = args.model.removeprefix(SCRIPTED_PREFIX)
    inputs = [*args.prompt_set, args.catalog, Path(model_file), *([args.adapter] if args.adapter else ())]
    check_page(args.html, [*made, *inputs])
    for path in made:
        if path.resolve() in {one.resolve() for one in inputs}:
            raise UsageError(f"{path} would be written and is an input as well: give another --output")
    if args.output.exists() and not files.journal.exists() and not args.overwrite:
        raise UsageError(
            f"{args.output} is there and was not made by such a run: give another --output, or --overwrite"
        )
    if args.send_tools and (is_embedded(args.model) or args.model.startswith(SCRIPTED_PREFIX)):
        raise UsageError(f"--send-tools is for models on an endpoint; tell {args.model} with --tools-in-prompt")


def _tools_told(args: argparse.Namespace) -> dict[str, str]:
    return {"tools_told": "prompt" if args.tools_in_prompt else "api" if args.send_tools else "no"}


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What shaped the answers, for the report."""
    return {
        "prompt_files": [path.name for path in args.prompt_set],
        "num_samples_per_prompt": args.num_samples_per_prompt,
        "temperature": list(args.temperature),
        "top_p": list(args.top_p) if args.top_p else None,
        "max_tokens": args.max_tokens,
        "seed": args.seed,
        "execute": args.execute,
        **_tools_told(args),
    }


def _show(report: dict[str, Any], args: argparse.Namespace) -> int:
    if args.html:
        from Evaluator.reports.page import report_page

        write_atomically(args.html, [report_page(report).encode()])
    if args.markdown:
        print(report_as_markdown(report))
    found = report["summary"]["pass_rate"]
    so_far = "" if report["is_complete"] else " so far, the evaluation is not complete"
    log.info("pass rate %s%s: %s", describe_rate(found), so_far, args.output)
    if args.min_pass_rate is not None and found["rate"] < args.min_pass_rate:
        log.error("the pass rate %.1f %% is under --min-pass-rate %g", 100 * found["rate"], args.min_pass_rate)
        return FAILED
    return OK
