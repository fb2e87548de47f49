"""A dataset in numbers: parts count like the whole, a collapse is told by its own warning, healthy data by none."""

import io
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from Evaluator.label_balance import kto_weights
from Evaluator.prompt_sets import HELDOUT_PROMPTS, load_prompt_sets
from Evaluator.records import Message, ToolCall
from Evaluator.tool_calls import render_turn
from tests.datasets import WORDS, answered, asking, healthy_rows, write_lines
from tests.vaults import call
from Tools.dataset_report import main

ROOT = Path(__file__).resolve().parents[1]


def numbers_of(capsys, *arguments, status=0):
    assert main([*map(str, arguments), "--json"]) == status
    return json.loads(capsys.readouterr().out)


def broken_paths(numbers):
    return {one["path"] for one in numbers["warnings"]}


@pytest.fixture
def healthy(tmp_path):
    return write_lines(tmp_path / "healthy.jsonl", healthy_rows())


def test_the_label_whose_answers_are_longer_is_named(tmp_path, capsys):
    rows = healthy_rows()[:40]
    rows = [answered(row, Message("assistant", "x" * (90 if n % 2 else 9)), bool(n % 2)) for n, row in enumerate(rows)]
    length = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", rows))["length"]
    assert (length["auc"], length["longer"], length["median_true"], length["median_false"]) == (1.0, "true", 90, 9)


# -- healthy, and collapsed ---------------------------------------------------------------------------------------


def test_healthy_data_breaks_no_limit(healthy, capsys):
    numbers = numbers_of(capsys, healthy, "--gate")
    assert numbers["warnings"] == []
    assert numbers["rows"] == 600
    assert numbers["tools"]["covered"] == 47
    assert numbers["behavior"]["share"] == 0.2
    asked = [row for row in healthy_rows() if row["metadata"]["expected_behavior"] == "ask"]
    ask = numbers["behavior"]["kinds"]["ask"]
    assert (ask["expected"], ask["met"]) == (len(asked), sum(row["label"] for row in asked)) and len(asked) == 40
    both = [row["metadata"] for row in healthy_rows()]
    same = [one["target_tool"] == one["called_tools"][0] for one in both if one["target_tool"] and one["called_tools"]]
    assert numbers["tools"]["agreement"] == pytest.approx(sum(same) / len(same))
    labels = numbers["labels"]
    assert (labels["true"] + labels["false"], labels["none"]) == (600, 0)
    weights = kto_weights(labels["true"], labels["false"])
    assert (labels["kto"]["desirable_weight"], labels["kto"]["undesirable_weight"]) == weights
    funnel = numbers["funnel"]
    assert funnel["judged"] == funnel["parse"]["made"] == 600
    assert funnel["execution"]["left"] == labels["true"]
    assert funnel["context"]["low"] < funnel["context"]["rate"] < funnel["context"]["high"]
    assert sum(one["true"] for one in numbers["rounds"].values()) == labels["true"]


def calls_one_tool(rng):
    """Whatever is asked, one tool is called, each time with a context of its own."""
    tool = "contentManager_readContent"
    for row in healthy_rows():
        right = call(tool, filePath=f"{rng.choice(WORDS)}.md")
        context = {name: " ".join(rng.sample(WORDS, 4)) for name in right.arguments["context"]}
        answer = render_turn([ToolCall(tool, {**right.arguments, "context": context})])
        is_right = row["metadata"]["target_tool"] == tool
        yield answered(row, answer, is_right, called_tools=[tool])


def copies_the_request(rng):
    for index, row in enumerate(healthy_rows()):
        request = row["conversations"][0]["content"]
        text = rng.choice([request, request.upper(), f"Sure! {request} Right away."])
        yield answered(row, Message("assistant", text), index % 2 == 0, called_tools=[])


def asks_three_things(rng):
    requests = [f"Please {' '.join(rng.sample(WORDS, 9))}" for _ in range(3)]
    return [asking(row, rng.choice(requests)) for row in healthy_rows()]


COLLAPSES = {
    calls_one_tool: {"tools.nmi", "tools.effective_of_asked"},
    copies_the_request: {"copied_requests.share"},
    asks_three_things: {"duplicates.exact", "duplicates.near", "duplicates.skeletons.commonest"},
}


@pytest.mark.parametrize("collapse", COLLAPSES)
def test_a_collapse_breaks_the_gate_for_its_own_reason(collapse, tmp_path, capsys):
    path = write_lines(tmp_path / "collapsed.jsonl", collapse(random.Random(1)))
    own = COLLAPSES[collapse]
    others = set().union(*COLLAPSES.values()) - own
    assert main([path, "--gate"]) == 1
    said = capsys.readouterr()
    told = {line.split(" is ")[0] for line in said.err.splitlines() if " the limit " in line}
    assert own <= told
    assert not others & told
    for limit in own:
        assert re.search(rf"^warning: {re.escape(limit)} is [\d.e-]+, (over|under) the limit", said.out, re.MULTILINE)
    assert main([path]) == 0, "without --gate a warning is no failure"


def test_a_prompt_of_an_evaluation_set_is_a_leak(tmp_path, capsys):
    leak = load_prompt_sets([HELDOUT_PROMPTS]).prompts[3].question
    rows = [*healthy_rows()[:100], asking(healthy_rows()[100], leak), asking(healthy_rows()[101], leak.upper())]
    numbers = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", rows), "--gate", status=1)
    assert broken_paths(numbers) == {"evaluation_overlap.rows"}
    overlap = numbers["evaluation_overlap"]
    assert (overlap["rows"], overlap["signs"]["words"]) == (2, 2)
    assert {one["request"] for one in overlap["examples"]} == {leak, leak.upper()}
    assert overlap["examples"][0]["prompt"] == leak


def test_rows_of_several_turns_are_about_the_turn_that_calls(tmp_path, capsys):
    leak = load_prompt_sets([HELDOUT_PROMPTS]).prompts[3].question
    last, earlier = {"label": True}, {"label": True}
    greeting = [{"role": "user", "content": "Hello, are you there?"}, {"role": "assistant", "content": "I am."}]
    last["conversations"] = [*greeting, {"role": "user", "content": leak}, right_turn()]
    thanks = [{"role": "user", "content": "Thanks a lot"}, {"role": "assistant", "content": "You are welcome."}]
    earlier["conversations"] = [{"role": "user", "content": leak}, right_turn(), *thanks]
    numbers = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", [last, earlier]))
    assert numbers["tools"]["called_in_true_rows"] == 1 and numbers["context"]["calls"] == 2
    assert numbers["evaluation_overlap"]["rows"] == 2
    assert numbers["duplicates"]["distinct"] == 1, "the request is the one that the call answers"
    earlier["conversations"] = [*greeting, *[{"role": "user", "content": leak}, greeting[1]], ASK, right_turn()]
    numbers = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", [earlier]))
    assert numbers["evaluation_overlap"]["rows"] == 1, "SFT trains all turns"


ASK = {"role": "user", "content": "Open the plan of the beds, would you?"}


def right_turn():
    return render_turn([call("contentManager_readContent", filePath="Plan.md")]).to_dict()


def test_a_value_that_many_contexts_share_is_told_with_its_text(tmp_path, capsys):
    rows = []
    for index, row in enumerate(healthy_rows()):
        context = {name: f"{name} {index}" for name in call("x").arguments["context"]}
        context |= {"workspaceId": "default", "sessionMemory": "", "subgoal": f"Step {index % 10}"}
        turn = render_turn([ToolCall("vaultManager_listFiles", {"context": context})])
        rows.append(answered(row, turn, bool(row["label"])))
    numbers = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", rows))
    fields = numbers["context"]["fields"]
    assert sorted(one["text"] for one in fields["subgoal"]["shared"]) == [f"Step {n}" for n in range(10)]
    assert fields["subgoal"]["shared"][0]["share"] == pytest.approx(0.1)
    assert not any(fields[name]["shared"] for name in fields if name != "subgoal")
    assert fields["sessionMemory"]["values"] == fields["workspaceId"]["values"] == 0
    assert "context.most_shared" in broken_paths(numbers)


REQUEST = "Open the note about the beds"
OPEN = render_turn([call("vaultManager_openNote", path=REQUEST)]).content


@pytest.mark.parametrize(
    ("answer", "errors", "is_copy"),
    [
        (REQUEST, [], True),
        (f"You said: open the note, about the beds? {OPEN}", [], True),
        (f"Open the note, about the BEDS!\n\n{OPEN}", [], True),
        (f"{OPEN}\n\n{REQUEST}", [], True),
        (OPEN, [], False),
        (OPEN, ["grounding.copied_request:path"], True),
        (f'{OPEN}\n\nResult: {{"text": "{REQUEST}"}}', [], False),
        ("Reopen the note about the bedside", [], False),
    ],
)
def test_a_copied_request_is_one_outside_the_calls_or_one_that_the_validator_found(
    answer, errors, is_copy, tmp_path, capsys
):
    row = answered(asking(healthy_rows()[0], REQUEST), Message("assistant", answer), False, errors=errors)
    numbers = numbers_of(capsys, write_lines(tmp_path / "row.jsonl", [row]))
    assert numbers["copied_requests"]["rows"] == is_copy


def test_few_rows_raise_no_warnings(tmp_path, capsys):
    rows = [row for row in healthy_rows() if row["label"]][:10]
    assert numbers_of(capsys, write_lines(tmp_path / "few.jsonl", rows), "--gate")["warnings"] == []


# -- parts and the whole ------------------------------------------------------------------------------------------


def rows_of_many_kinds():
    """Repeated, near, foreign and bad rows among healthy ones."""
    rng = random.Random(5)
    rows = list(healthy_rows()[:260])
    rows += rows[:20] + [asking(row, row["conversations"][0]["content"].upper()) for row in rows[20:40]]
    for row in rows[40:80]:
        words = f"Please have a look: {row['conversations'][0]['content']}".split()
        words[-1] = rng.choice(WORDS)
        rows.append(asking(row, " ".join(words)))
    rows += [{"conversations": row["conversations"]} for row in rows[80:100]]
    rows += [
        asking(row, prompt.question)
        for row, prompt in zip(rows, load_prompt_sets([HELDOUT_PROMPTS]).prompts[:9], strict=False)
    ]
    rows += [asking(rows[0], "Lone \ud800 surrogate in here"), asking(rows[1], "Hi"), asking(rows[2], "")]
    rows += ["{", '{"conversations": []}']
    rng.shuffle(rows)
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_parts_in_any_order_give_the_report_of_the_whole(seed, tmp_path, capsys):
    rows, rng = rows_of_many_kinds(), random.Random(seed)
    whole = numbers_of(capsys, write_lines(tmp_path / "whole.jsonl", rows), status=1)
    assert whole["bad_lines"] == 2
    assert 0 < whole["duplicates"]["exact"] < whole["duplicates"]["near"] < 1
    cuts = [0, *sorted(rng.choices(range(len(rows)), k=3)), len(rows)]
    parts = []
    for number, (start, end) in enumerate(pairwise(cuts)):
        part = write_lines(tmp_path / f"part_{number}.jsonl", rows[start:end])
        if number % 2:
            saved = str(tmp_path / f"part_{number}.counts.json.gz")
            main([part, "--save", saved])
            part = saved
        parts.append(part)
    capsys.readouterr()
    rng.shuffle(parts)
    assert numbers_of(capsys, *parts, status=1) == whole
    saved = str(tmp_path / "two.counts.json.gz")
    main([*parts[:2], "--save", saved])
    capsys.readouterr()
    assert numbers_of(capsys, *parts[2:], saved, status=1) == whole


def test_samples_larger_than_the_sample_are_cut_alike(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("Tools.report.counts.SAMPLE_ROWS", 50)
    monkeypatch.setattr("Tools.report.counts.EXAMPLES", 2)
    test_parts_in_any_order_give_the_report_of_the_whole(7, tmp_path, capsys)


def test_counts_against_other_things_are_not_added(healthy, tmp_path, capsys):
    saved = str(tmp_path / "a.counts.json.gz")
    assert main([healthy, "--save", saved]) == 0
    assert main([saved, "--prompt-set", str(HELDOUT_PROMPTS)]) == 2
    assert "was counted with another prompt sets" in capsys.readouterr().err
    assert main([healthy, "--save", saved]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([healthy, "--save", saved, "--overwrite"]) == 0
    Path(saved).write_bytes(b"no gzip")
    assert main([saved]) == 2
    assert "is no file that --save wrote" in capsys.readouterr().err


# -- what is read -------------------------------------------------------------------------------------------------


def test_rows_without_any_metadata_are_reported(tmp_path, capsys):
    rows = [{"conversations": row["conversations"]} for row in healthy_rows()]
    numbers = numbers_of(capsys, write_lines(tmp_path / "bare.jsonl", rows))
    assert broken_paths(numbers) == {"labels.true", "labels.false"}
    assert numbers["labels"]["none"] == numbers["rows"] == 600
    assert numbers["funnel"]["judged"] == 0
    assert numbers["funnel"]["parse"]["rate"] is None
    assert numbers["tools"]["called"] == 47
    assert numbers["context"]["calls"] == 480
    assert numbers["tools"]["nmi"] is None
    assert main([str(tmp_path / "bare.jsonl")]) == 0


@pytest.mark.parametrize(
    "metadata", [None, 3, {"errors": 7, "checks": [], "called_tools": "x", "round": [], "expected_tools": {"a": 1}}]
)
def test_metadata_of_another_form_is_passed_over(metadata, tmp_path, capsys):
    row = {"conversations": healthy_rows()[0]["conversations"], "label": True, "metadata": metadata}
    assert numbers_of(capsys, write_lines(tmp_path / "odd.jsonl", [row]))["rows"] == 1


def test_bad_lines_are_named_and_status_1(tmp_path, capsys):
    path = write_lines(tmp_path / "rows.jsonl", ["{", "", *healthy_rows()[:3], '{"conversations": []}'])
    assert main([path]) == 1
    said = capsys.readouterr()
    assert "rows.jsonl:1: no JSON" in said.err
    assert "rows.jsonl:6: no object" in said.err
    assert "2 lines hold no row" in said.err
    assert said.out.startswith("3 rows:")
    assert main([str(tmp_path / "gone.jsonl")]) == 2


def test_no_rows_are_a_warning_and_do_not_pass_the_gate(tmp_path, capsys):
    path = write_lines(tmp_path / "empty.jsonl", [])
    assert main([path, "--html", str(tmp_path / "empty.html"), "--card", str(tmp_path / "empty.md")]) == 0
    assert "there are no rows" in capsys.readouterr().err
    assert main([path, "--gate"]) == 1
    assert "rows is 0, under the limit 1" in capsys.readouterr().err


def test_it_reads_stdin_and_ends_quietly_when_the_reader_goes(healthy, capsys, monkeypatch):
    lines = Path(healthy).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    from_stdin = numbers_of(capsys, "-")
    assert from_stdin == numbers_of(capsys, healthy)
    script = [sys.executable, str(ROOT / "Tools" / "dataset_report.py"), "--json"]
    process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    process.stdin.write(lines)
    process.stdin.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""


def test_prompts_that_could_not_be_used_are_counted_where_the_rejects_are_there(healthy, tmp_path, capsys):
    assert numbers_of(capsys, healthy)["prompts"]["usable"] is None
    written, by_nobody = {"reason": "prompt.near_duplicate", "written_by": "m"}, {"reason": "prompt.near_duplicate"}
    answered = {"reason": "answer.truncated", "prompt": "Open it", "written_by": "m"}
    write_lines(tmp_path / "written.rejects.jsonl", [*[written] * 200, *[by_nobody] * 50, answered])
    rows = [json.loads(line) for line in Path(healthy).read_text().splitlines()]
    for row in rows[:300]:  # the others come from templates
        row["metadata"]["prompt_model"] = "m"
    prompts = numbers_of(capsys, write_lines(tmp_path / "written.jsonl", rows))["prompts"]
    assert (prompts["written"], prompts["rejected"]) == (301, 200)
    assert prompts["usable"] == pytest.approx(301 / 501)
    assert prompts["reject_reasons"] == {"prompt.near_duplicate": 200}
    several = write_lines(tmp_path / "written.jsonl", [row for row in rows for _ in range(4)])
    assert numbers_of(capsys, several)["prompts"]["written"] == 301, "a request counts once, with all its answers"


def test_hardly_any_usable_prompts_are_too_few_as_well(healthy, tmp_path, capsys):
    rows = [json.loads(line) for line in Path(healthy).read_text().splitlines()][:29]
    for row in rows:
        row["metadata"]["prompt_model"] = "m"
    write_lines(tmp_path / "few.rejects.jsonl", [{"reason": "prompt.near_duplicate", "written_by": "m"}] * 1000)
    numbers = numbers_of(capsys, write_lines(tmp_path / "few.jsonl", rows), "--gate", status=1)
    assert numbers["prompts"]["tried"] == 1029 and broken_paths(numbers) == {"prompts.usable"}


def test_prompts_with_several_answers_fall_into_bands(tmp_path, capsys):
    def rows(name, *labels):
        return [answered(healthy_rows()[0], Message("assistant", "-"), label, prompt_id=name) for label in labels]

    made = [*rows("a", True, True), *rows("b", True, False), *rows("c", False, False), *rows("d", True)]
    prompts = numbers_of(capsys, write_lines(tmp_path / "rows.jsonl", made))["prompts"]
    assert (prompts["labelled"], prompts["repeated"]) == (4, 3)
    assert prompts["never"] == prompts["sometimes"] == prompts["always"] == pytest.approx(1 / 3)
    assert prompts["mean_rate"] == 0.5


# -- limits -------------------------------------------------------------------------------------------------------


def test_limits_of_ones_own_decide_about_the_gate(healthy, tmp_path, capsys):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"rows": {"min": 1000, "why": "we want more"}, "prompts.usable": {"min": 0.9}}))
    assert main([healthy, "--gate", str(own)]) == 1
    said = capsys.readouterr().err
    assert "rows is 600, under the limit 1000: we want more" in said
    assert "prompts.usable was not checked: these rows do not tell it" in said
    own.write_text(json.dumps({"labels.by_tool.memoryManager_loadState.true": {"min": 1}, "rounds.1.true": {"min": 1}}))
    assert main([healthy, "--gate", str(own)]) == 0


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"duplicates.exakt": {"max": 1}}, "no number duplicates.exakt; the nearest is duplicates.exact"),
        ({"rows": {"max": 1, "rows_in": "row"}}, "no number row; the nearest is rows"),
        ({"rows": {"least": 1}}, '"min" or "max"'),
        ({"rows": {"min": 1, "most": 1}}, "unknown key most"),
        ({"rows": {"min": "1"}}, "not a number"),
        ([], "no object"),
    ],
)
def test_limits_that_cannot_be_used_are_status_2(limits, said, healthy, tmp_path, capsys):
    own = tmp_path / "own.json"
    own.write_text(json.dumps(limits))
    assert main([healthy, "--gate", str(own)]) == 2
    assert said in capsys.readouterr().err


def test_a_data_file_after_gate_is_no_limits_file(healthy, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--gate", healthy])
    assert end.value.code == 2
    assert "no file name that ends in .json" in capsys.readouterr().err


# -- page and card ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Counts tags, and sees that those that open are closed."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.opened = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("meta", "br", "input", "link"):
            self.opened.append(tag)

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag


def test_the_page_has_its_plots_and_escapes_what_rows_say(tmp_path, capsys):
    rows = list(healthy_rows())
    evil = "<script>alert(1)</script>"
    rows[0] = {**rows[0], "metadata": {**rows[0]["metadata"], "persona": evil, "model": evil, "errors": [evil]}}
    leak = load_prompt_sets([HELDOUT_PROMPTS]).prompts[3].question
    rows[1] = asking(rows[1], f"{leak} {evil}")
    page = tmp_path / "page.html"
    assert main([write_lines(tmp_path / "rows.jsonl", rows), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.opened == []
    assert parsed.seen.count("svg") == 7  # funnel, tools, rounds, lengths, phrasing, persona, template
    assert "script" not in parsed.seen
    assert evil not in text and "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def front_matter(text):
    assert text.startswith("---\n")
    front, _, body = text[4:].partition("\n---\n")
    return front, body


def test_the_card_has_front_matter_and_figures(healthy, tmp_path, capsys):
    card = tmp_path / "README.md"
    assert main([healthy, "--card", str(card), "--license", "cc-by-4.0"]) == 0
    front, body = front_matter(card.read_text(encoding="utf-8"))
    assert 'license: "cc-by-4.0"' in front
    assert '- "n<1K"' in front
    assert '    - "healthy.jsonl"' in front
    assert "| tools called in right rows | 47 of 47 |" in body
    try:
        import yaml
    except ModuleNotFoundError:
        assert all(re.fullmatch(r' *(?:- )?(?:\w+:(?: "[^"]*")?|"[^"]*")', line) for line in front.splitlines())
    else:
        data = yaml.safe_load(front)
        assert data["configs"] == [
            {"config_name": "default", "data_files": [{"split": "train", "path": ["healthy.jsonl"]}]}
        ]
        assert data["size_categories"] == ["n<1K"]
        assert data["license"] == "cc-by-4.0"
    assert main([healthy, "--card", str(card)]) == 2, "a card that exists is not replaced"
    assert main([healthy, "--card", str(card), "--overwrite"]) == 0
    assert "license" not in front_matter(card.read_text(encoding="utf-8"))[0]
    assert main([healthy, "--license", "mit"]) == 2
    again = tmp_path / "elsewhere"
    again.mkdir()
    twin = write_lines(again / "healthy.jsonl", healthy_rows())
    (tmp_path / "hub").mkdir()
    assert main([healthy, twin, "--card", str(tmp_path / "hub" / "README.md")]) == 2
    assert "two files would both be healthy.jsonl" in capsys.readouterr().err
    assert main([healthy, twin, "--card", str(card), "--overwrite"]) == 0


def test_no_output_replaces_an_input(healthy, tmp_path, capsys):
    before = Path(healthy).read_bytes()
    page = tmp_path / "rows.html"
    page.write_bytes(before)
    assert main([str(page), "--html", str(page)]) == 2 and page.read_bytes() == before
    with pytest.raises(SystemExit):
        main([healthy, "--html", str(tmp_path / "README.md")])
    saved = tmp_path / "a.counts.json.gz"
    assert main([healthy, "--save", str(saved)]) == 0
    assert main([str(saved), "--save", str(saved), "--overwrite"]) == 2
    assert Path(healthy).read_bytes() == before
