"""The flags of v2 that say who writes requests, about what, and which are not wanted."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Evaluator.backends.default_weights import EMBEDDED, STARTER_ADAPTER, STARTER_WRITER
from Evaluator.errors import UsageError
from Evaluator.flag_types import number, span
from Evaluator.judging_flags import vault_folder
from Evaluator.model_flags import base_url, is_claude, is_embedded, is_none, is_scripted
from Evaluator.prompt_sets import EVALUATION_SETS
from Evaluator.runs.output_files import OutputFiles
from Tools.prompts.coverage import BALANCED
from Tools.prompts.methods import FREE, parse_methods
from Tools.prompts.templates import DEFAULT_TEMPLATES

DEFAULT_BEHAVIOR_SHARE = 0.2
_TEMPERATURE, _MAX_TOKENS, _PER_CALL, _ATTEMPTS = (0.7, 1.0), 192, 8, 8
_WITH_CELLS = {"self", "template", "teacher"}
_WRITTEN = {"self", "free", "teacher"}
_METHODS_OF_FLAGS: Mapping[str, tuple[set[str], Any]] = {
    **dict.fromkeys(("coverage", "behavior_share", "vault_path"), (_WITH_CELLS, None)),
    "tools_in_prompt": (_WITH_CELLS, False),
    "templates": (_WITH_CELLS, DEFAULT_TEMPLATES),
    "attempts_per_cell": (_WITH_CELLS, _ATTEMPTS),
    "prompt_temperature": (_WRITTEN, _TEMPERATURE),
    "prompt_max_tokens": (_WRITTEN, _MAX_TOKENS),
    "prompts_per_call": ({"teacher"}, _PER_CALL),
}
"""For which methods a flag does something, and its default."""


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    _add_method_arguments(parser.add_argument_group("prompts"))
    _add_subject_arguments(parser.add_argument_group("what prompts are about"))
    _add_teacher_arguments(parser.add_argument_group("a teacher that writes the prompts"))


def _add_method_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt-method",
        type=parse_methods,
        metavar="METHODS",
        help="who writes the requests: self, template, teacher, free (the model, from one fixed text), or a mix such "
        "as self:3,template:1 (default: self; template for the bundled model with --adapter none; teacher with "
        "--prompt-generator-model)",
    )
    group.add_argument(
        "--num-samples-per-prompt",
        type=number(int, 1),
        default=1,
        metavar="K",
        help="answer each request K times; --num-examples counts the answers (default: %(default)s)",
    )
    group.add_argument(
        "--writer-adapter",
        type=Path,
        metavar="FILE.gguf|none",
        help="LoRA adapter with which an embedded model writes requests (default: for 'embedded' the one that comes "
        "with it, but none where it answers with --adapter none and is no teacher; none: it writes as it answers)",
    )
    group.add_argument(
        "--prompt-temperature",
        type=span(0, 5),
        default=_TEMPERATURE,
        metavar="T|LOW-HIGH",
        help="temperature for writing requests, a value or a range; Claude takes none (default: 0.7-1.0)",
    )
    group.add_argument(
        "--prompt-max-tokens",
        type=number(int, 1),
        default=_MAX_TOKENS,
        metavar="N",
        help="longest written request in tokens; one that is cut off is rejected (default: %(default)s)",
    )
    group.add_argument(
        "--attempts-per-cell",
        type=number(int, 1),
        default=_ATTEMPTS,
        metavar="K",
        help="after so many unusable requests or cut off answers a sample is given up and reported as a hole; another, "
        "easier one does not take its place (default: %(default)s)",
    )
    group.add_argument(
        "--distinct",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="reject requests that are the same as an earlier one, or nearly so (default: %(default)s)",
    )
    group.add_argument(
        "--avoid",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.jsonl",
        help="also reject what repeats a request of these datasets",
    )
    group.add_argument(
        "--avoid-prompt-set",
        type=Path,
        nargs="*",
        default=EVALUATION_SETS,
        metavar="FILE.json",
        help="reject requests that overlap a prompt of these sets; none given: reject none (default: the bundled sets)",
    )
    group.add_argument(
        "--tools-in-prompt",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="tell the answering model the tool that is asked for and one worked example; the rows are written without "
        "that, and say so (default: %(default)s)",
    )


def _add_subject_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--coverage",
        metavar="HOW|FILE.json",
        help="how often each tool is asked for: balanced, natural (as people do), or weights from a file "
        f"(default: {BALANCED})",
    )
    group.add_argument(
        "--behavior-share",
        type=number(float, 0, 1),
        metavar="SHARE",
        help="share of requests to which calling a tool at once is wrong: a value is missing, no tool can do it, much "
        f"would be lost, another workspace comes first (default: {DEFAULT_BEHAVIOR_SHARE})",
    )
    group.add_argument(
        "--templates",
        type=Path,
        default=DEFAULT_TEMPLATES,
        metavar="FILE.json",
        help="templates with their slots; what they ask for is what all methods but free ask for "
        "(default: Tools/prompts/templates.json)",
    )
    group.add_argument(
        "--vault-path",
        type=vault_folder,
        metavar="DIR",
        help="ask about the Markdown notes in this folder, which is only read (default: two bundled vaults)",
    )


def _add_teacher_arguments(group: argparse._ArgumentGroup) -> None:
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
        "--prompts-per-call",
        type=number(int, 1, 50),
        default=_PER_CALL,
        metavar="N",
        help="requests that the teacher writes in one answer, as JSON; 1: plain text (default: %(default)s)",
    )
    group.add_argument(
        "--prompt-generator-batch",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let Claude write the requests as Message Batches, which cost half and take up to a day; the command can "
        "be stopped and run again meanwhile (default: %(default)s)",
    )
    group.add_argument(
        "--prompts-file",
        type=Path,
        metavar="FILE.jsonl",
        help="keep what the teacher writes here, and take from here what it has written before "
        "(default: beside the output, .prompts.jsonl)",
    )
    group.add_argument(
        "--max-teacher-tokens",
        type=number(int, 1),
        metavar="N",
        help="stop, with status 3, before the teacher has used more tokens than this, those of its --prompts-file "
        "included (default: no limit)",
    )


def check_prompt_arguments(args: argparse.Namespace) -> None:
    """Fill in what depends on other flags. Raises UsageError where a flag could do nothing."""
    can_write = args.writer_adapter and not is_none(args.writer_adapter)
    default = "teacher" if args.prompt_generator_model else "template" if _is_raw(args) and not can_write else "self"
    args.prompt_method = args.prompt_method or {default: 1.0}
    args.writer_adapters = _writer_adapters(args)
    has_teacher = "teacher" in args.prompt_method
    if has_teacher != bool(args.prompt_generator_model):
        raise UsageError("the method teacher needs --prompt-generator-model, and that flag needs the method teacher")
    if args.prompt_generator_api_key_env and not args.prompt_generator_base_url:
        raise UsageError("--prompt-generator-api-key-env is for --prompt-generator-base-url, which is not given")
    has_no_url = is_embedded(args.prompt_generator_model or "") or is_scripted(args.prompt_generator_model or "")
    if args.prompt_generator_base_url and has_no_url:
        raise UsageError(f"--prompt-generator-model {args.prompt_generator_model} uses no --prompt-generator-base-url")
    for name in ("prompt_generator_base_url", "prompt_generator_batch", "prompts_file", "max_teacher_tokens"):
        if getattr(args, name) and not has_teacher:
            raise UsageError(f"--{name.replace('_', '-')} is for a teacher: it needs --prompt-generator-model")
    if args.prompt_generator_batch and (not is_claude(args.prompt_generator_model) or args.prompt_generator_base_url):
        raise UsageError("--prompt-generator-batch is for claude-... through the anthropic SDK")
    if args.prompt_generator_batch and args.output == "-" and not args.prompts_file:
        raise UsageError("--prompt-generator-batch needs --prompts-file where the output is -: it keeps the batches")
    for name, (methods, default) in _METHODS_OF_FLAGS.items():
        if getattr(args, name) != default and not methods & args.prompt_method.keys():
            raise UsageError(
                f"--{name.replace('_', '-')} does nothing with --prompt-method {','.join(args.prompt_method)}"
            )
    args.avoid = [path for path in args.avoid if path.resolve() != Path(args.output).resolve()]
    for path in args.avoid:
        if not path.is_file():
            raise UsageError(f"--avoid {path}: there is no such file")
    files = OutputFiles(Path(args.output))
    for path in (args.prompts_file, None if args.output == "-" else files.samples):
        if args.vault_path and path and path.resolve().is_relative_to(args.vault_path.resolve()):
            raise UsageError(f"{path} would change the vault {args.vault_path}: write to a place outside of it")
    others = [files.samples, files.journal, files.rejects, files.run]
    if args.prompts_file and args.prompts_file.resolve() in {path.resolve() for path in others}:
        raise UsageError(f"--prompts-file {args.prompts_file} is another file of this run: give it a name of its own")
    args.coverage = args.coverage or BALANCED


def _writer_adapters(args: argparse.Namespace) -> dict[str, Path]:
    """The adapter of each embedded model that writes requests, if it has one of its own for that.

    Raises UsageError where --writer-adapter could do nothing.
    """
    writers = {args.model} if {"self", FREE} & args.prompt_method.keys() else set()
    writers |= {args.prompt_generator_model} if "teacher" in args.prompt_method else set()
    embedded = sorted(filter(is_embedded, writers))
    if is_none(args.writer_adapter) and (embedded or _is_raw(args)):
        return {}
    if args.writer_adapter and not embedded:
        methods = ",".join(args.prompt_method)
        raise UsageError(f"--writer-adapter is for an embedded model that writes requests: {methods} has none")
    if args.writer_adapter and len(embedded) > 1:
        raise UsageError(f"--writer-adapter fits one model, and {' and '.join(embedded)} write requests")
    if args.writer_adapter:
        return {embedded[0]: args.writer_adapter}
    knows_how = args.adapter or args.prompt_generator_model == EMBEDDED  # --adapter none asks for the raw model
    return {EMBEDDED: STARTER_WRITER} if EMBEDDED in embedded and knows_how else {}


def _is_raw(args: argparse.Namespace) -> bool:
    """Whether answers come from the bundled weights as they are."""
    return args.model == EMBEDDED and not args.adapter


def cannot_write(args: argparse.Namespace) -> bool:
    """Whether requests are to come from the bundled weights without any adapter that has learnt to write them."""
    writes = {"self", FREE} & args.prompt_method.keys() and args.model == EMBEDDED
    adapter = args.adapter if args.model == EMBEDDED else None
    is_untaught = EMBEDDED not in args.writer_adapters and adapter in (None, STARTER_ADAPTER)
    return bool((writes or args.prompt_generator_model == EMBEDDED) and is_untaught)


def model_writes(args: argparse.Namespace) -> bool:
    """Whether any request is written by a model."""
    return bool(_WRITTEN & args.prompt_method.keys())


def prompts_file_of(args: argparse.Namespace) -> Path | None:
    """Where the teacher's requests are kept; None for nowhere."""
    if args.prompts_file or args.output == "-":
        return args.prompts_file
    return Path(args.output).with_suffix(".prompts.jsonl")
