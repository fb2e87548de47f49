"""The promises that no single module keeps: README tells the truth, imports point one way, the start is fast."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from Evaluator import __main__ as evaluator
from Tools import measure_validator, selfplay_generator, selfplay_generator_v2, validate_dataset

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "selfplay_generator.py": selfplay_generator.build_parser(),
    "selfplay_generator_v2.py": selfplay_generator_v2.build_parser(),
    "validate_dataset.py": validate_dataset.build_parser(),
    "measure_validator.py": measure_validator.build_parser(),
    "Evaluator": evaluator.build_parser(),
    "Evaluator compare": evaluator.build_compare_parser(),
}
MAY_IMPORT = {
    "Evaluator": {"Evaluator"},
    "Tools": {"Evaluator", "Tools"},
    "Trainers": {"Evaluator", "Trainers"},
}
OURS = {"Evaluator", "Tools", "Trainers", "tests"}
HEAVY = ("requests", "jsonschema", "anthropic", "xllamacpp", "tqdm", "torch", "jinja2")


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
        assert f"`{long_name}`" in README
        assert action.help


def readme_commands():
    """(script, flags) of each generator command in README and in the epilogs of --help."""
    text = README + "\n" + "\n".join(parser.epilog for parser in PARSERS.values())
    command = r"python (?:Tools/|-m )(\w+\.py|Evaluator compare|Evaluator) ?([^`\n]*?)(?:`.*| \| .*| 2?>>? .*)?$"
    return [(script, flags) for script, flags in re.findall(command, text, re.MULTILINE) if flags]


def test_every_command_in_readme_parses():
    commands = list(readme_commands())
    assert len(commands) > 15
    for script, flags in commands:
        assert PARSERS[script].parse_args(shlex.split(flags))


def test_readme_mentions_no_flag_that_does_not_exist():
    known = {name for parser in PARSERS.values() for action in parser._actions for name in action.option_strings}
    mentioned = set(re.findall(r"`(--[a-z-]+)", README))
    assert mentioned <= known


def test_the_count_of_templates_in_readme_is_right():
    templates = json.loads((ROOT / "Tools" / "templates.json").read_text(encoding="utf-8"))["templates"]
    assert f"one of {len(templates)} templates" in README


def module_of(script):
    return f"Tools.{script[:-3]}" if script.endswith(".py") else "Evaluator.__main__"


@pytest.mark.parametrize("script", PARSERS)
def test_help_loads_nothing_heavy(script):
    code = (
        f"import sys; sys.argv = ['x', *{script.split()[1:]}, '--help']; from {module_of(script)} import main\n"
        f"try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
