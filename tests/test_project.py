"""The promises that no single module keeps: README tells the truth, imports point one way, the start is fast."""

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from Evaluator import __main__ as evaluator
from Evaluator.reports.report import judging_files
from Tools import (
    dataset_report,
    make_starter_data,
    measure_validator,
    mix_datasets,
    selfplay_generator,
    selfplay_generator_v2,
    selfplay_loop,
    validate_dataset,
    with_server,
)
from Trainers.benchmark_gpu import __main__ as benchmark_gpu
from Trainers.experiments import __main__ as experiments
from Trainers.export import __main__ as export
from Trainers.rtx3090_kto import train_kto
from Trainers.rtx3090_sft import train_sft

ROOT = Path(__file__).resolve().parents[1]
READMES = {
    folder: (ROOT / folder / "README.md").read_text(encoding="utf-8")
    for folder in ("", "Trainers/rtx3090_sft", "Trainers/rtx3090_kto", "Trainers/export", "Trainers/experiments")
}
README = READMES[""]
PARSERS = {
    "selfplay_generator.py": selfplay_generator.build_parser(),
    "selfplay_generator_v2.py": selfplay_generator_v2.build_parser(),
    "make_starter_data.py": make_starter_data.build_parser(),
    "selfplay_loop.py": selfplay_loop.build_parser(),
    "mix_datasets.py": mix_datasets.build_parser(),
    "validate_dataset.py": validate_dataset.build_parser(),
    "dataset_report.py": dataset_report.build_parser(),
    "measure_validator.py": measure_validator.build_parser(),
    "with_server.py": with_server.build_parser(),
    "Evaluator": evaluator.build_parser(),
    "Evaluator compare": evaluator.build_compare_parser(),
    "train_sft.py": train_sft.build_parser(),
    "train_kto.py": train_kto.build_parser(),
    "Trainers.export": export.build_parser(),
    "Trainers.benchmark_gpu": benchmark_gpu.build_parser(),
    **{f"Trainers.experiments {name}": parser for name, parser in experiments.command_parsers().items()},
}
MODULES = {
    "Evaluator": "Evaluator.__main__",
    "Evaluator compare": "Evaluator.__main__",
    "train_sft.py": "Trainers.rtx3090_sft.train_sft",
    "train_kto.py": "Trainers.rtx3090_kto.train_kto",
    "Trainers.export": "Trainers.export.__main__",
    "Trainers.benchmark_gpu": "Trainers.benchmark_gpu.__main__",
    **{f"Trainers.experiments {name}": "Trainers.experiments.__main__" for name in experiments.command_parsers()},
}
README_OF = {
    "train_sft.py": "Trainers/rtx3090_sft",
    "train_kto.py": "Trainers/rtx3090_kto",
    "Trainers.export": "Trainers/export",
    "Trainers.benchmark_gpu": "Trainers/rtx3090_sft",
    **{f"Trainers.experiments {name}": "Trainers/experiments" for name in experiments.command_parsers()},
}
MAY_IMPORT = {
    "Evaluator": {"Evaluator"},
    "Tools": {"Evaluator", "Tools"},
    "Trainers": {"Evaluator", "Trainers"},
}
TRAINERS_KNOW = {
    "Evaluator",
    "Evaluator.backends.default_weights",
    "Evaluator.console",
    "Evaluator.errors",
    "Evaluator.flag_types",
    "Evaluator.label_balance",
    "Evaluator.records",
    "Evaluator.rows",
    "Evaluator.runs.atomic_files",
    "Evaluator.runs.file_lock",
    "Evaluator.runs.signals",
    "Evaluator.tool_calls",
}
"""What a row is and what labels weigh, how a program ends and keeps others out, how a file appears whole, which weights
the embedded engine has: no more of it."""
EXPERIMENTS_KNOW = TRAINERS_KNOW | {
    "Evaluator.catalog",
    "Evaluator.decontamination",
    "Evaluator.intervals",
    "Evaluator.prompt_sets",
    "Evaluator.reports.compare",
    "Evaluator.reports.report",
    "Evaluator.runs.kept_settings",
    "Evaluator.runs.serving",
    "Evaluator.runs.steps",
}
"""They run both sides' commands and say what came of it: reports, statistics, steps."""
OURS = {"Evaluator", "Tools", "Trainers", "tests"}
HEAVY = ("requests", "jsonschema", "anthropic", "xllamacpp", "tqdm", "torch", "transformers", "gguf", "jinja2", "rensa")


def modules():
    return [path for top in MAY_IMPORT for path in sorted((ROOT / top).rglob("*.py"))]


def imported_by(path):
    """Full names of the modules that a file imports when it runs, wherever in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    top = path.relative_to(ROOT).parts[0]
    names = set(imported_by(path))
    assert {name.split(".")[0] for name in names} & OURS <= MAY_IMPORT[top]
    scripts = {module_of(script) for script in PARSERS}
    assert not names & scripts, "nothing stands on a script"
    if top == "Trainers":
        known = EXPERIMENTS_KNOW if path.parent.name == "experiments" else TRAINERS_KNOW
        assert {name for name in names if name.split(".")[0] == "Evaluator"} <= known
        assert path.parent.name == "experiments" or not any(name.startswith("Trainers.experiments") for name in names)


def test_what_judges_stands_on_nothing_that_its_fingerprint_leaves_out():
    needs_not_be_in = {"Evaluator", "Evaluator.errors", "Evaluator.model_client", "Evaluator.trials.goal_checks"}
    paths = [path.relative_to(ROOT) for path in judging_files() if path.suffix == ".py"]
    judging = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths}
    for path in paths:
        ours = {name for name in imported_by(ROOT / path) if name.split(".")[0] in OURS}
        assert ours <= judging | needs_not_be_in, path


def test_sft_and_kto_do_not_know_each_other():
    for own, other in (("sft", "kto"), ("kto", "sft")):
        for path in (ROOT / "Trainers" / f"rtx3090_{own}" / f"train_{own}.py", ROOT / f"Trainers/common/{own}.py"):
            assert not [name for name in imported_by(path) if f".{other}" in name or f"_{other}" in name]


def test_records_needs_the_standard_library_only():
    names = {name.split(".")[0] for name in imported_by(ROOT / "Evaluator" / "records.py")}
    assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_its_idea_and_stands_in_the_file_map(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    name = path.relative_to(ROOT)
    if name.name != "__init__.py":
        assert f"`{name}`" in README or f"`{name.parent}/`" in README


@pytest.mark.parametrize("script", PARSERS)
def test_every_flag_stands_in_readme_with_its_help(script):
    for action in PARSERS[script]._actions:
        if not action.option_strings:  # a positional argument
            continue
        long_name = action.option_strings[-1] if action.option_strings[0] != "-h" else "--help"
        if action.help != argparse.SUPPRESS:
            assert f"`{long_name}`" in READMES[README_OF.get(script, "")]
        assert action.help


def readme_commands():
    """(script, flags) of each generator command in README and in the epilogs of --help."""
    text = "\n".join([*READMES.values(), *(parser.epilog for parser in PARSERS.values())])
    text = re.sub(r"\$\([^)]*\)", "x", text)
    name = r"(\w+\.py|Evaluator compare|Evaluator|Trainers\.experiments \w+|Trainers\.\w+)"
    command = rf"python (?:(?:Tools|Trainers/\w+)/|-m ){name} ?([^`\n]*?)(?:`.*| \| .*| 2?>>? .*| && .*)?$"
    return [(script, flags) for script, flags in re.findall(command, text, re.MULTILINE) if flags]


def test_every_command_in_readme_parses():
    commands = list(readme_commands())
    assert len(commands) > 15
    for script, flags in commands:
        assert PARSERS[script].parse_args(shlex.split(flags, comments=True))


def test_readme_mentions_no_flag_that_does_not_exist():
    known = {name for parser in PARSERS.values() for action in parser._actions for name in action.option_strings}
    mentioned = {flag for text in READMES.values() for flag in re.findall(r"`(--[a-z-]+)", text)}
    assert mentioned <= known


def test_the_count_of_templates_in_readme_is_right():
    templates = json.loads((ROOT / "Tools" / "prompts" / "templates.json").read_text(encoding="utf-8"))["templates"]
    assert f"one of {len(templates)} templates" in README


def module_of(script):
    return MODULES.get(script) or f"Tools.{script[:-3]}"


@pytest.mark.parametrize("script", PARSERS)
def test_help_loads_nothing_heavy(script):
    code = (
        f"import sys; sys.argv = ['x', *{script.split(' ')[1:]}, '--help']; from {module_of(script)} import main\n"
        f"try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
