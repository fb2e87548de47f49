"""v2, true self-play: the model writes the requests and answers them, without a system prompt; write labelled JSONL.

    python Tools/selfplay_generator_v2.py --prompt-method template --output selfplay.jsonl --num-examples 100

Requests come from the model itself, from templates, from a teacher model, or from a mix of these.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import Catalog, load_catalog
from Evaluator.console import run_main
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.errors import UsageError
from Evaluator.judging_flags import add_judging_arguments
from Evaluator.model_flags import adapter_name, add_model_arguments, is_claude, resolve_model_arguments
from Evaluator.prompt_sets import PromptSet, load_prompt_sets
from Evaluator.rows import BadLine, read_rows
from Evaluator.runs.attempts import PromptSource
from Evaluator.runs.clients import Clients
from Evaluator.runs.kept_settings import file_fingerprint
from Evaluator.runs.run import Plan, run_plan
from Evaluator.vault.loading import load_fixture, load_folder
from Evaluator.vault.state import Vault
from Tools.generator_flags import add_output_arguments, add_sampling_arguments
from Tools.prompts.cells import Cells
from Tools.prompts.coverage import Turns, shares_of
from Tools.prompts.known_requests import Known
from Tools.prompts.methods import FREE, MethodOfSlot, describe_methods
from Tools.prompts.phrasing import load_manners
from Tools.prompts.prompt_flags import (
    DEFAULT_BEHAVIOR_SHARE,
    add_prompt_arguments,
    cannot_write,
    check_prompt_arguments,
    model_writes,
    prompts_file_of,
)
from Tools.prompts.prompt_writer import PromptWriter, Writing
from Tools.prompts.prompts_file import PromptsFile
from Tools.prompts.several_samples import SeveralSamples
from Tools.prompts.teacher import Teacher
from Tools.prompts.teacher_batches import write_in_batches
from Tools.prompts.templates import TRAINING_VAULTS, Templates, load_templates

log = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Let a model write requests and answer them; write the labelled answers as JSONL (v2, self-play).",
        epilog="examples:\n"
        "  python Tools/selfplay_generator_v2.py --prompt-method template --output selfplay.jsonl --num-examples 100\n"
        "  python Tools/selfplay_generator_v2.py --model my-sft-7b --prompt-method self:3,template:1 "
        "--concurrency 16 --output selfplay.jsonl --num-examples 2000\n"
        "  python Tools/selfplay_generator_v2.py --prompt-method template --output - --num-examples 5 | head -1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_prompt_arguments(parser)
    add_model_arguments(parser)
    add_sampling_arguments(parser)
    add_judging_arguments(parser)
    add_output_arguments(parser, num_examples_default="100")
    return parser


# -- what prompts are about ---------------------------------------------------------------------------------------


def vaults_for(args: argparse.Namespace) -> list[Vault]:
    return [load_folder(args.vault_path)] if args.vault_path else [load_fixture(name) for name in TRAINING_VAULTS]


def templates_for_folder(templates: Templates, vaults: Sequence[Vault], catalog: Catalog) -> Templates:
    """The templates that a user's own vault has something for. Raises UsageError where it has no notes."""
    if not any(path.endswith(".md") for path in vaults[0].notes):
        raise UsageError(f"the vault {vaults[0].name} holds no Markdown notes")
    fitting = templates.that_fit(vaults, catalog)
    if not fitting.templates:
        raise UsageError(f"the vault {vaults[0].name} has nothing for any of the templates")
    covered = {one["tool"] for one in fitting.templates}
    missing = sorted({one["tool"] for one in templates.templates} - covered)
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        log.warning("warning: the vault %s has nothing to ask %d tools for: %s", vaults[0].name, len(missing), shown)
    return fitting


def shares_for(args: argparse.Namespace, templates: Templates) -> dict[str, float]:
    """The share of each tool and behaviour. Raises UsageError."""
    behaviors = list(dict.fromkeys(one["behavior"] for one in templates.behaviors))
    if args.behavior_share and not behaviors:
        raise UsageError(f"the templates {args.templates} have no behaviors: --behavior-share can only be 0")
    share = DEFAULT_BEHAVIOR_SHARE if args.behavior_share is None else args.behavior_share
    tools = dict.fromkeys(one["tool"] for one in templates.templates)
    return shares_of(args.coverage, tools, behaviors, share)


# -- the writer ---------------------------------------------------------------------------------------------------


def make_prompt_source(
    args: argparse.Namespace,
    cells: Cells | None,
    catalog: Catalog,
    evaluation_sets: PromptSet | None,
    clients: Clients,
    earlier: Iterable[tuple[int, str]],
    closing: ExitStack,
) -> PromptSource:
    """The writer that the flags ask for, each of its prompts to be answered --num-samples-per-prompt times."""
    num_samples = args.num_samples_per_prompt
    requests = {slot // num_samples: request for slot, request in earlier}
    writer = make_prompt_writer(args, cells, catalog, evaluation_sets, clients, requests.items(), closing)
    if num_samples == 1:
        return writer
    return SeveralSamples(writer, num_samples, args.seed, args.attempts_per_cell)


def make_prompt_writer(
    args: argparse.Namespace,
    cells: Cells | None,
    catalog: Catalog,
    evaluation_sets: PromptSet | None,
    clients: Clients,
    earlier: Iterable[tuple[int, str]],
    closing: ExitStack,
) -> PromptWriter:
    """The writer that the flags ask for, with the clients it needs. `closing` closes what it opens."""
    prompts = evaluation_sets.prompts if evaluation_sets else ()
    known = Known(EvaluationPrompts(one.question for one in prompts), is_distinct=args.distinct)
    for request in requests_in(args.avoid):
        known.add(request)
    methods = args.prompt_method
    teacher = kept = None
    if "teacher" in methods:
        kept = closing.enter_context(PromptsFile(prompts_file_of(args)))
        teacher = make_teacher(args, clients, kept)
        if kept.num_texts:
            log.info("%s holds %d requests that the teacher has written before", kept.path, kept.num_texts)
        closing.callback(lambda: log.info("the teacher has used %d tokens in and %d out so far", *kept.tokens))
    writer = PromptWriter(
        MethodOfSlot(methods, args.seed),
        cells,
        known,
        writing=Writing(args.model, clients.writing(), args.prompt_max_tokens, args.prompt_temperature)
        if {"self", FREE} & methods.keys()
        else None,
        teacher=teacher,
        per_call=args.prompts_per_call,
        catalog=catalog if args.tools_in_prompt else None,
        earlier=earlier,
    )
    collects = kept and kept.open_batches() and is_claude(args.prompt_generator_model)  # of a run that was broken off
    if args.prompt_generator_batch or collects:
        write_in_batches(
            writer.orders(range(-(-args.num_examples // args.num_samples_per_prompt)))
            if args.prompt_generator_batch
            else [],
            args.prompt_generator_model,
            clients.batches(args.prompt_generator_model),
            kept,
            per_call=args.prompts_per_call,
            max_tokens=args.prompt_max_tokens,
            max_teacher_tokens=args.max_teacher_tokens,
        )
    return writer


def make_teacher(args: argparse.Namespace, clients: Clients, kept: PromptsFile) -> Teacher:
    urls = args.prompt_generator_base_url or ()
    key_env = (args.prompt_generator_api_key_env or "") if urls else None
    return Teacher(
        args.prompt_generator_model,
        clients.teacher(args.prompt_generator_model, urls, key_env),
        kept,
        per_call=args.prompts_per_call,
        max_tokens=args.prompt_max_tokens,
        temperature=args.prompt_temperature,
        max_teacher_tokens=args.max_teacher_tokens,
    )


def requests_in(files: Sequence[Path]) -> Iterator[str]:
    """The requests of datasets. Raises UsageError where one cannot be read."""
    for path in files:
        num_rows = num_bad = 0
        for row in read_rows([str(path)]):
            if isinstance(row, BadLine):
                num_bad += 1
                continue
            num_rows += 1
            asked = [message.content for message in row.messages if message.role == "user" and message.content]
            yield from asked[-1:]
        if num_bad and not num_rows:
            raise UsageError(f"--avoid {path}: no line of it holds a row")
        if num_bad:
            log.warning("warning: %d lines of --avoid %s hold no row", num_bad, path)


def generate(args: argparse.Namespace) -> int:
    catalog = load_catalog(args.catalog)
    resolve_model_arguments(args)
    check_prompt_arguments(args)
    args.num_examples = args.num_examples or 100
    evaluation_sets = load_prompt_sets(args.avoid_prompt_set) if args.avoid_prompt_set else None
    settings = {
        "prompt_methods": describe_methods(args.prompt_method),
        "prompt_generator_model": args.prompt_generator_model,
        "prompt_temperature": list(args.prompt_temperature) if model_writes(args) else None,
        "prompt_max_tokens": args.prompt_max_tokens if model_writes(args) else None,
        "distinct": args.distinct,
        "tools_in_prompt": args.tools_in_prompt,
        "avoided": evaluation_sets.sha256 if evaluation_sets else None,
        "round": args.round,
    }
    if args.writer_adapters:
        settings["writer_adapters"] = {
            model: [adapter_name(adapter), file_fingerprint(adapter)] for model, adapter in args.writer_adapters.items()
        }
    if args.num_samples_per_prompt > 1:
        settings["num_samples_per_prompt"] = args.num_samples_per_prompt
    cells = None
    if set(args.prompt_method) != {FREE}:
        templates, vaults = load_templates(args.templates, catalog), vaults_for(args)
        if args.vault_path:
            templates = templates_for_folder(templates, vaults, catalog)
        manners, shares = load_manners(), shares_for(args, templates)
        cells = Cells(templates, manners, vaults, catalog, Turns(shares, args.seed), args.seed)
        settings |= {
            "shares": shares,
            "templates": templates.sha256,
            "phrasings": manners.sha256,
            "vaults": [vault.fingerprint for vault in vaults],
        }
    if cannot_write(args):
        log.warning("warning: without its adapter for that the bundled model cannot write requests; templates can")
    with ExitStack() as closing:
        plan = Plan(
            source="self_play",
            settings=settings,
            num_examples=args.num_examples,
            prompt_source=lambda clients, earlier: make_prompt_source(
                args, cells, catalog, evaluation_sets, clients, earlier, closing
            ),
            attempts_per_cell=args.attempts_per_cell,
            round=args.round,
            avoided=[(path.name, file_fingerprint(path)) for path in args.avoid],
        )
        return run_plan(plan, args, catalog)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: generate(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
