"""v2, true self-play: the model writes the requests and answers them, without a system prompt; write labelled JSONL.

    python Tools/selfplay_generator_v2.py --prompt-method template --output selfplay.jsonl --num-examples 100

Requests come from the model itself, from templates, from a teacher model, or from a mix of these.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: behave like `python -m` from the repository root
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from Evaluator.catalog import Catalog, load_catalog
from Evaluator.console import run_main
from Evaluator.decontamination import EvaluationPrompts
from Evaluator.errors import UsageError
from Evaluator.flag_types import number, span
from Evaluator.judging_flags import add_judging_arguments
from Evaluator.model_flags import EMBEDDED, add_model_arguments, base_url
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.runs.clients import Clients
from Evaluator.runs.run import Plan, run_plan
from Evaluator.vault.loading import load_fixture, load_folder
from Evaluator.vault.state import Vault
from Tools.generator_flags import add_output_arguments, add_sampling_arguments
from Tools.prompt_writer import PromptWriter, describe_methods, parse_methods
from Tools.templates import DEFAULT_TEMPLATES, TRAINING_VAULTS, Templates, load_templates

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


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("prompts")
    group.add_argument(
        "--prompt-method",
        type=parse_methods,
        metavar="METHODS",
        help="who writes the requests: self, template, teacher, or a mix such as self:3,template:1 "
        "(default: self, or teacher with --prompt-generator-model)",
    )
    group.add_argument(
        "--prompt-generator-model",
        metavar="P",
        help="the teacher: claude-... through the anthropic SDK, or what --model takes",
    )
    group.add_argument(
        "--prompt-generator-base-url",
        type=base_url,
        action="append",
        metavar="URL",
        help="endpoint of the teacher, repeatable; with it a claude-... is asked there too (default: as --base-url)",
    )
    group.add_argument(
        "--prompt-generator-api-key-env",
        metavar="NAME",
        help="environment variable with the key for --prompt-generator-base-url (default: no key is sent there)",
    )
    group.add_argument(
        "--prompt-temperature",
        type=span(0, 5),
        default=(0.7, 1.0),
        metavar="T|LOW-HIGH",
        help="temperature for writing requests, a value or a range; Claude takes none (default: 0.7-1.0)",
    )
    group.add_argument(
        "--prompt-max-tokens",
        type=number(int, 1),
        default=192,
        metavar="N",
        help="longest written request in tokens; one that is cut off is rejected (default: %(default)s)",
    )
    group.add_argument(
        "--templates",
        type=Path,
        default=DEFAULT_TEMPLATES,
        metavar="FILE.json",
        help="templates with their slots, and topics for the teacher (default: Tools/templates.json)",
    )
    group.add_argument(
        "--vault-path",
        type=Path,
        metavar="DIR",
        help="fill templates from the Markdown notes in this folder, which is only read (default: two bundled vaults)",
    )
    group.add_argument(
        "--avoid-prompt-set",
        type=Path,
        nargs="*",
        default=EVALUATION_SETS,
        metavar="FILE.json",
        help="reject requests that overlap a prompt of these sets; none given: reject none (default: the bundled sets)",
    )


def make_prompt_writer(
    args: argparse.Namespace,
    templates: Templates | None,
    vaults: Sequence[Vault],
    catalog: Catalog,
    avoided: EvaluationPrompts,
    clients: Clients,
) -> PromptWriter:
    """The writer that the flags ask for, with the clients it needs."""
    writers = {}
    if "self" in args.prompt_method:
        writers["self"] = (args.model, clients.answering())
    if "teacher" in args.prompt_method:
        teacher, urls = args.prompt_generator_model, args.prompt_generator_base_url or ()
        key_env = (args.prompt_generator_api_key_env or "") if urls else None
        writers["teacher"] = (teacher, clients.teacher(teacher, urls, key_env))
    return PromptWriter(
        args.prompt_method,
        templates,
        vaults=vaults,
        catalog=catalog,
        avoided=avoided,
        writers=writers,
        max_tokens=args.prompt_max_tokens,
        temperature=args.prompt_temperature,
    )


def vaults_for(args: argparse.Namespace) -> list[Vault]:
    return [load_folder(args.vault_path)] if args.vault_path else [load_fixture(name) for name in TRAINING_VAULTS]


def templates_for_folder(templates: Templates, vaults: Sequence[Vault], catalog: Catalog) -> Templates:
    """The templates that a user's own vault has something for. Raises UsageError where it has no notes."""
    if not any(path.endswith(".md") for path in vaults[0].notes):
        raise UsageError(f"the vault {vaults[0].name} holds no Markdown notes")
    fitting = templates.that_fit(vaults, catalog)
    covered = {one["tool"] for one in fitting.templates}
    missing = sorted({one["tool"] for one in templates.templates} - covered)
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        log.warning("warning: the vault %s has nothing to ask %d tools for: %s", vaults[0].name, len(missing), shown)
    return fitting


def generate(args: argparse.Namespace) -> int:
    catalog = load_catalog(args.catalog)
    args.prompt_method = args.prompt_method or {"teacher" if args.prompt_generator_model else "self": 1.0}
    if ("teacher" in args.prompt_method) != bool(args.prompt_generator_model):
        raise UsageError("the method teacher needs --prompt-generator-model, and that flag needs the method teacher")
    if args.vault_path and "template" not in args.prompt_method:
        raise UsageError("--vault-path is for --prompt-method template, whose slots it fills")
    if args.prompt_generator_base_url and not args.prompt_generator_model:
        raise UsageError("--prompt-generator-base-url needs --prompt-generator-model, a model there")
    if args.prompt_generator_api_key_env and not args.prompt_generator_base_url:
        raise UsageError("--prompt-generator-api-key-env is for --prompt-generator-base-url, which is not given")
    templates = load_templates(args.templates, catalog) if {"template", "teacher"} & args.prompt_method.keys() else None
    vaults = vaults_for(args) if "template" in args.prompt_method else []
    if args.vault_path and templates:
        templates = templates_for_folder(templates, vaults, catalog)
    evaluation_sets = load_prompt_sets(args.avoid_prompt_set) if args.avoid_prompt_set else None
    avoided = (
        EvaluationPrompts(one.question for one in evaluation_sets.prompts) if evaluation_sets else EvaluationPrompts(())
    )
    if args.model == EMBEDDED and not args.adapter and "self" in args.prompt_method:
        log.warning("warning: the bundled model is too small to write requests; --prompt-method template is for it")
    settings = {
        "prompt_methods": describe_methods(args.prompt_method),
        "prompt_generator_model": args.prompt_generator_model,
        "prompt_temperature": list(args.prompt_temperature),
        "prompt_max_tokens": args.prompt_max_tokens,
        "templates": templates.sha256 if templates else None,
        "vaults": [vault.fingerprint for vault in vaults],
        "avoided": evaluation_sets.sha256 if evaluation_sets else None,
    }
    plan = Plan(
        source="self_play",
        settings=settings,
        num_examples=args.num_examples or 100,
        prompt_source=lambda clients: make_prompt_writer(args, templates, vaults, catalog, avoided, clients),
    )
    return run_plan(plan, args, catalog)


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    return run_main(lambda: generate(args), verbose=args.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
