"""What the client costs: both generators against a server that answers after 100 ms with 64 slots.

    python -m tests.benchmark

Prints, for each, the wall time of the run, from before the first request to the end of the last sample, against the
ideal (requests / slots x latency); the wall time of the whole process with start and end; the CPU time a sample, all
in, of the whole process; the largest memory; then how many answers are judged in a second. Medians of several runs.
Exit status 1 when a bound is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from Evaluator.catalog import load_catalog
from Evaluator.judging.validator import validate
from Evaluator.prompt_sets import TOOL_PROMPTS, load_prompt_sets
from Evaluator.tool_calls import SYNTAXES, render_turn

ROOT = Path(__file__).resolve().parents[1]
MOST_RUN, MOST_CPU_MS, MOST_MIB, LEAST_VALIDATIONS_PER_S = 1.08, 1.5, 80, 3000


@dataclass(frozen=True)
class Measurement:
    """One run of a generator: seconds of its work, seconds of wall and CPU time of the process, MiB at its peak."""

    run_s: float
    process_s: float
    cpu_s: float
    peak_mib: float


@contextmanager
def server(latency_s: float, slots: int, faults: Sequence[str] = (), port: int = 0) -> Iterator[str]:
    """A fake model server in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tests.fakes.model_server", "--latency", str(latency_s), "--slots", str(slots)]
    command += ["--port", str(port)]
    for fault in faults:
        command += ["--fault", fault]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def measure(script: str, url: str, num_examples: int, concurrency: int) -> Measurement:
    """Run a generator once, from the start of its process to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "Tools" / script), "--model", "fake", "--base-url", url]
        command += ["--num-examples", str(num_examples), "--concurrency", str(concurrency)]
        command += ["--output", str(Path(folder) / "out.jsonl")]
        started = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process_s = time.perf_counter() - started
        rows = (Path(folder) / "out.jsonl").read_bytes().count(b"\n")
        run_s = json.loads((Path(folder) / "out.run.json").read_bytes())["elapsed_s"]
    if status or rows != num_examples:
        raise SystemExit(f"{script} ended with {status} and {rows} rows")
    return Measurement(run_s, process_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def validations_per_s(seconds: float = 1.0) -> float:
    """How many answers one core judges in a second: the expected calls of all tools, in all four syntaxes."""
    catalog, prompts = load_catalog(), load_prompt_sets([TOOL_PROMPTS]).prompts
    answers = [(render_turn([one.expected_call], syntax), one) for one in prompts for syntax in SYNTAXES]
    catalog.compile()
    done, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        for answer, prompt in answers:
            validate(answer, prompt, catalog)
        done += len(answers)
    return done / (time.process_time() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-examples", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    is_good = True
    print("generator                 ideal s  run s  run/ideal  process s  CPU ms/sample  peak MiB")
    with server(args.latency, args.concurrency) as url:
        for script, requests in (("selfplay_generator.py", 1), ("selfplay_generator_v2.py", 2)):
            runs = [measure(script, url, args.num_examples, args.concurrency) for _ in range(args.runs)]
            ideal_s = requests * args.num_examples / args.concurrency * args.latency
            run_s, process_s = median(one.run_s for one in runs), median(one.process_s for one in runs)
            cpu_ms = 1000 * median(one.cpu_s for one in runs) / args.num_examples
            peak_mib = max(one.peak_mib for one in runs)
            print(
                f"{script:25} {ideal_s:7.3f} {run_s:6.3f} {run_s / ideal_s:10.3f} {process_s:10.3f} "
                f"{cpu_ms:14.3f} {peak_mib:9.1f}"
            )
            is_good &= run_s <= MOST_RUN * ideal_s and cpu_ms <= requests * MOST_CPU_MS and peak_mib < MOST_MIB
    rate = validations_per_s()
    print(f"validations/s on one core: {rate:.0f}")
    return 0 if is_good and rate >= LEAST_VALIDATIONS_PER_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
