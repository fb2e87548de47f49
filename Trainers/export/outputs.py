"""Files and folders that appear whole or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from Evaluator.errors import UsageError
from Evaluator.runs.atomic_files import move_into_place


def refuse_existing(paths: Sequence[Path]) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing:
        raise UsageError(f"there is already {', '.join(existing)}: give --overwrite, or another --output")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place beside `path` to write a file or folder to; it takes its name at the end, if nothing went wrong."""
    folder = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir()
    try:
        made = folder / path.name
        yield made
        if path.is_dir():
            path.rename(folder / f"{path.name}.old")
        move_into_place(made, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
