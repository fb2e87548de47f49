"""How varied are the prompts of the templates, and how fast are they written?

    python -m tests.prompt_figures 10000

One process, one thread; evaluation prompts are avoided and duplicates looked for, as in a run of v2.
"""

import argparse
import random
import time
from collections import Counter

from Evaluator.decontamination import EvaluationPrompts, Request
from Evaluator.prompt_sets import EVALUATION_SETS, load_prompt_sets
from Evaluator.runs.attempts import UnusablePrompt
from tests.vaults import training_cells
from Tools.duplicates import clusters, folded, signature, skeleton_hash
from Tools.prompts.known_requests import Known
from Tools.prompts.methods import MethodOfSlot
from Tools.prompts.prompt_writer import PromptWriter
from Tools.report.measures import effective_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("num_prompts", type=int, nargs="?", default=10_000)
    num_prompts = parser.parse_args().num_prompts
    evaluation = load_prompt_sets(EVALUATION_SETS).prompts
    known = Known(EvaluationPrompts(prompt.question for prompt in evaluation), is_distinct=True)
    writer = PromptWriter(MethodOfSlot({"template": 1.0}, 0), training_cells(), known)
    written, unusable = [], Counter()
    started, cpu_started = time.perf_counter(), time.process_time()
    for slot in range(num_prompts):
        try:
            written.append(writer.prompt_for(slot, 0, random.Random(slot)).prompt)
        except UnusablePrompt as error:
            unusable[error.reason] += 1
    elapsed_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    requests = [prompt.question for prompt in written]
    tools = Counter(prompt.expected_tools[0] for prompt in written if prompt.expected_tools)
    print(f"prompts            {len(written)} of {num_prompts} {dict(unusable) or ''}")
    print(f"a second           {num_prompts / elapsed_s:.0f} ({num_prompts / cpu_s:.0f} in CPU time)")
    print(f"exact duplicates   {len(requests) - len(set(map(folded, requests)))}")
    print(f"near duplicates    {1 - len(set(clusters([signature(one) for one in requests]))) / len(requests):.2%}")
    print(f"tools              {len(tools)}, effective number exp(H) {effective_number(tools.values()):.2f}")
    print(f"skeletons          {len({skeleton_hash(Request(one)) for one in requests})}")


if __name__ == "__main__":
    main()
