"""The flags of the loop, and the settings that one loop keeps from beginning to end."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from Evaluator.backends.default_weights import EMBEDDED, STARTER_ADAPTER
from Evaluator.errors import UsageError
from Evaluator.flag_types import number
from Evaluator.model_flags import is_embedded
from Evaluator.prompt_sets import BEHAVIOR_PROMPTS, HELDOUT_PROMPTS
from Evaluator.runs.kept_settings import file_fingerprint
from Evaluator.runs.steps import ROOT
from Tools.loop.commands import ADAPTER_WEIGHTS, TRAINING_FLAGS
from Tools.prompts.methods import parse_methods

STARTER_ROWS = ROOT / "Datasets" / "starter_sft.jsonl"
STARTER_REQUESTS = STARTER_ROWS.with_name("starter_writer_sft.jsonl")
ADAPTER_FILES = ("adapter_config.json", ADAPTER_WEIGHTS)
MASKS = ("session-ids", "context-texts", "wrong-ends", "wrong-texts")
"""Parts of answers that train_kto.py can leave out of its rewards."""
PACKAGES = ("xllamacpp", "torch", "trl", "peft", "gguf", "jinja2")
_NEED_NOT_AGREE = ("workdir", "rounds", "concurrency", "server_concurrency", "save_steps", "max_p", "verbose")
"""Flags that may change while a loop goes on."""
_TRAINING = tuple(flag[2:].replace("-", "_") for flag in TRAINING_FLAGS)


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loop")
    group.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="folder of the loop; made if needed")
    group.add_argument(
        "--rounds", type=number(int, 0), default=3, metavar="R", help="rounds at most (default: %(default)s)"
    )
    group.add_argument(
        "--max-p",
        type=number(float, 0, 1),
        default=0.05,
        metavar="P",
        help="a gain over the round before counts with a p of at most this (default: %(default)s)",
    )
    group.add_argument("--seed", type=number(int, 0), default=0, help="of all that is drawn (default: %(default)s)")
    group.add_argument("--verbose", action="store_true", help="show tracebacks and steps that are done already")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--base",
        default=EMBEDDED,
        help="the model under the adapter: 'embedded', a FILE.gguf, a size that the trainers know such as 7b, a name "
        "on the hub, or a folder (default: %(default)s)",
    )
    group.add_argument(
        "--adapter",
        type=Path,
        metavar="DIR",
        help="folder of the SFT adapter that every round begins at (default: for embedded the one that comes with it)",
    )
    group.add_argument(
        "--max-tokens", type=number(int, 1), default=512, metavar="N", help="longest answer (default: %(default)s)"
    )
    group.add_argument(
        "--context-length",
        type=number(int, 256),
        default=2048,
        metavar="N",
        help="tokens of prompt and answer together (default: %(default)s)",
    )
    group.add_argument(
        "--concurrency", type=number(int, 1), default=4, metavar="N", help="answers at once (default: %(default)s)"
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--examples-per-round",
        type=number(int, 2),
        default=400,
        metavar="N",
        help="rows of self-play in a round (default: %(default)s)",
    )
    group.add_argument(
        "--num-samples-per-prompt",
        type=number(int, 1),
        default=4,
        metavar="K",
        help="answers to each request; the rows are N, the requests N/K (default: %(default)s)",
    )
    group.add_argument(
        "--prompt-method",
        type=_methods,
        default="template",
        metavar="METHODS",
        help="who writes the requests: template, self, or a mix such as self:3,template:1 (default: %(default)s)",
    )
    group.add_argument(
        "--ask-missing-tools",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask once more for tools that no right answer has called so far (default: %(default)s)",
    )
    group.add_argument(
        "--curated",
        type=Path,
        nargs="+",
        metavar="FILE.jsonl",
        help="rows known to be right, of which each round learns too (default: Datasets/starter_sft.jsonl, and where "
        "the model itself writes the requests also starter_writer_sft.jsonl)",
    )
    group.add_argument(
        "--curated-share",
        type=number(float, 0, 0.95),
        default=0.3,
        metavar="SHARE",
        help="their share of the text to train on (default: %(default)s)",
    )
    group.add_argument(
        "--heldout-prompts",
        type=Path,
        default=HELDOUT_PROMPTS,
        metavar="FILE.json",
        help="prompts whose pass rate is to rise (default: Evaluator/prompts/heldout_prompts.json)",
    )
    group.add_argument(
        "--behavior-prompts",
        type=Path,
        default=BEHAVIOR_PROMPTS,
        metavar="FILE.json",
        help="prompts to which no call may be right (default: Evaluator/prompts/behavior_prompts.json)",
    )


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training, as for train_kto.py (default: its own)")
    group.add_argument("--learning-rate", type=number(float, 0, 1), metavar="X", help="highest learning rate")
    group.add_argument("--num-epochs", type=number(float, 0.01), metavar="X", help="passes over the rows")
    group.add_argument("--max-steps", type=number(int, 1), metavar="N", help="end after N steps instead")
    group.add_argument("--batch-size", type=number(int, 2), metavar="N", help="rows on the device at once")
    group.add_argument("--gradient-accumulation-steps", type=number(int, 1), metavar="N", help="batches in a step")
    group.add_argument("--beta", type=number(float, 0.001), metavar="X", help="how close to the SFT adapter to stay")
    group.add_argument("--max-length", type=number(int, 64), metavar="N", help="longest row in tokens")
    group.add_argument("--save-steps", type=number(int, 1), metavar="N", help="steps to a checkpoint")
    group.add_argument("--device", choices=("auto", "cuda", "cpu"), help="where to train")
    group.add_argument("--quantization", choices=("nf4", "none"), help="whether to train on 4-bit weights")
    group.add_argument("--mask", nargs="+", choices=MASKS, metavar="PART", help=f"not scored: {', '.join(MASKS)}")


def _methods(text: str) -> str:
    """An argparse type: methods of v2 that need no other model and know the right answer."""
    if not parse_methods(text).keys() <= {"self", "template"}:
        raise argparse.ArgumentTypeError(f"{text!r} is no mix of self and template")
    return text


def starter_rows(args: argparse.Namespace) -> list[Path]:
    """The bundled rows for what is trained: writing too, but for the bundled model, which has an adapter for that."""
    writes = args.base != EMBEDDED and "self" in parse_methods(args.prompt_method)
    return [STARTER_ROWS, STARTER_REQUESTS] if writes else [STARTER_ROWS]


def check_arguments(args: argparse.Namespace) -> None:
    """Make paths absolute. Raises UsageError for what is not there, ModuleNotFoundError for a package, before work."""
    if not args.adapter and args.base != EMBEDDED:
        raise UsageError(f"which SFT adapter on {args.base} shall the loop begin at? Give --adapter DIR")
    args.adapter = args.adapter or STARTER_ADAPTER.parent
    for name in ("workdir", "adapter", "heldout_prompts", "behavior_prompts"):
        setattr(args, name, getattr(args, name).resolve())
    args.curated = [path.resolve() for path in args.curated or starter_rows(args)] if args.curated_share else []
    if args.base != EMBEDDED and (is_embedded(args.base) or Path(args.base).is_dir()):
        args.base = str(Path(args.base).resolve())
    for name in ADAPTER_FILES:
        if not (args.adapter / name).is_file():
            raise UsageError(f"there is no adapter in {args.adapter} (no {name}): train_sft.py makes one")
    for path in args.curated:
        if not path.is_file():
            raise UsageError(f"there are no curated rows in {path}: give --curated FILE, or --curated-share 0")
    for path in (args.heldout_prompts, args.behavior_prompts):
        if not path.is_file():
            raise UsageError(f"there is no prompt set {path}")
    is_engine_needed = not args.server or (args.base == EMBEDDED and "self" in args.prompt_method)
    for package in PACKAGES if is_engine_needed else PACKAGES[1:]:
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What shapes the rounds of a loop, with the state of the files: the same from beginning to end."""
    flags = {name: value for name, value in vars(args).items() if name not in (*_NEED_NOT_AGREE, *_TRAINING)}
    flags["adapter_file"] = file_fingerprint(args.adapter / ADAPTER_FILES[1])
    flags["curated_files"] = [file_fingerprint(path) for path in args.curated]
    flags["prompt_files"] = [file_fingerprint(path) for path in (args.heldout_prompts, args.behavior_prompts)]
    return flags


def training_settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What KTO is told: the same in all rounds, once one has been trained."""
    return {name: getattr(args, name) for name in _TRAINING}
