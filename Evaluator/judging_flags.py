"""The flags that say what answers are judged against."""

import argparse
import os
from pathlib import Path

from Evaluator.catalog import DEFAULT_CATALOG


def vault_folder(text: str) -> Path:
    """An argparse type: a folder by its own name, which becomes the vault's, and which `.` and `..` do not tell.

    `~` is the home folder, where the shell leaves that to programs.
    """
    home = os.path.expanduser(text)  # noqa: PTH111  # where there is no such user, the text is a name
    return Path(os.path.abspath(home))  # noqa: PTH100  # resolve() would take the name of what a link leads to


def add_catalog_argument(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--catalog",
        type=Path,
        default=DEFAULT_CATALOG,
        metavar="FILE.json",
        help="tool catalog to judge against (default: Claudesidian's 47 tools)",
    )


def add_judging_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("labels")
    add_catalog_argument(group)
    group.add_argument(
        "--execute",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="judge whether values are made up, and run each call on a throw-away vault (default: %(default)s)",
    )
    return group
