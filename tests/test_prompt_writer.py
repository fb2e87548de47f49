import random

import pytest

from Evaluator.decontamination import EvaluationPrompts
from Evaluator.model_client import Completion
from Evaluator.records import Message
from Evaluator.runs.attempts import UnusablePrompt
from tests.vaults import training_cells
from Tools.prompts.known_requests import Known
from Tools.prompts.methods import MethodOfSlot, parse_methods
from Tools.prompts.prompt_writer import PromptWriter, Writing
from Tools.prompts.several_samples import SeveralSamples
from Tools.prompts.usable_requests import check_names, clean_request

REQUEST = "Move Inbox/Plan.md to the folder Garden."


@pytest.mark.parametrize(
    "text",
    [
        REQUEST,
        f'"{REQUEST}"',
        f"\u201c{REQUEST}\u201d",
        f"User request: {REQUEST}",
        f"**User Request:** {REQUEST}",
        f"Here is a realistic request:\n\n{REQUEST}",
        f'Sure! Here\'s one:\n\n**Request:** "{REQUEST}"',
        f'A user: "{REQUEST}"',
        f"1. {REQUEST}",
        f"Certainly!\n{REQUEST}",
        f"  `{REQUEST}`  ",
        f"Message: {REQUEST}",
        f"Here is the message:\n\n{REQUEST}",
        f"Sure! Here's the message:\n\n{REQUEST}",
        f"```\n{REQUEST}\n```",
    ],
)
def test_what_stands_around_a_request_is_taken_off(text):
    assert clean_request(text) == REQUEST


@pytest.mark.parametrize(
    "request_text",
    [
        'In Meetings/Board.md replace "Budget: 40k" with "Budget: 45k".',
        "Could you find my note about 'sourdough' and open it?",
        "Create the note Ideas/Bench.md:\n- larch\n",
        "Here are my two drafts, Toast.md and Eulogy.md: merge them.",
        'Create an agent "Haiku" with the prompt "Write a haiku".',
        "Write the prompt of my agent Haiku into Notes/Haiku.md.",
        "Please search for quarterly numbers, then list the three newest notes.",
        "Admin/Taxes.md is in the wrong place, it belongs at Archive/Taxes.md.",
        "My hands are busy: trigger app:reload.",
        "mkdir Garden/Old pls",
        'full text search: "late work", top 5, no snippets',
        "Write the user guide into Notes/Guide.md.",
        "Open the user stories note please",
        "Write a request letter to the landlord into Home.md",
        "The note Plan.md has been deleted by accident, restore it please",
        "I have moved the shelf, so rename Hall.md to Shelf.md",
    ],
)
def test_a_request_stays_as_it_is(request_text):
    assert clean_request(request_text) == request_text.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (' "" ', "too_short"),
        ("Yes please", "too_short"),
        ("word " * 81, "too_long"),
        ("1. Open my note A.\n2. Open my note B.", "several"),
        ("tool_call: vaultManager_openNote\narguments: {}", "tool_call"),
        ('Call it: {"name": "x", "arguments": {}}', "tool_call"),
        ("Write a prompt that asks the assistant to move a note.", "about_prompts"),
        ("A good user request for the vault would name a note.", "about_prompts"),
        ("Move a.md to b.md\nAssistant: Sure, I moved it.", "answer"),
        ("I am an assistant and cannot do that.", "answer"),
        ("As an AI, I cannot have requests of my own.", "about_prompts"),
        ("The user wants the note Plan.md moved to Garden.", "about_prompts"),
        ("The message names exactly as written here: Plan.md", "about_prompts"),
        ("I have moved the note for you now.", "answer"),
        ("The note Plan.md has been moved to Garden.", "answer"),
        ("The weather is lovely, and my notes are old.", "asks_nothing"),
        ("Bitte verschiebe meine Notiz Plan.md sofort nach Garten, danke sehr", "language"),
        ("Oeffne die Notiz Fields/Cherries.md bitte in einem neuen Tab, ja?", "language"),
        ("Abre la nota Plan.md por favor en una nueva", "language"),
        (f"{REQUEST}\n\n(This is phrased as a command.)", "about_prompts"),
        ("Будь добр, перемести заметку Plan.md", "language"),
    ],
)
def test_what_is_no_request_is_rejected_with_a_reason(text, reason):
    with pytest.raises(UnusablePrompt) as error:
        clean_request(text)
    assert error.value.reason == f"prompt.{reason}"


@pytest.mark.parametrize(
    ("names", "request_text"),
    [
        (["Inbox/Plan.md"], "Please open inbox/plan.md"),
        (["the  blue\nbox"], "Write \u201cThe blue box\u201d into my list"),
        (["5"], "Show the five newest notes"),
        (["O'Dell & Sons"], "Delete the folder O\u2019Dell & Sons, please"),
    ],
)
def test_a_name_counts_in_any_case_quotes_and_spacing(names, request_text):
    check_names(request_text, names)


@pytest.mark.parametrize(
    ("names", "request_text"),
    [
        (["Inbox/Plan.md"], "Please open Inbox/Plans.md"),
        (["Plan"], "Please open Planning"),
        (["5"], "Show the 15 newest notes"),
        (["Garden", "Inbox"], "Move it to Garden"),
        (["Garden/Plan.md", "Garden"], "Delete Garden/Plan.md for me"),
    ],
)
def test_a_missing_name_is_no_usable_request(names, request_text):
    with pytest.raises(UnusablePrompt) as error:
        check_names(request_text, names)
    assert error.value.reason == "prompt.name_missing"


@pytest.mark.parametrize("more", ['"Archive"', "Archive/Old", "Other.md", "the Archive", "Old Plans please"])
def test_what_was_to_stay_open_must_not_be_named(more):
    check_names("Move Inbox/My Plan.md elsewhere, please", ["Inbox/My Plan.md"], leaves_out_a_value=True)
    check_names('Save it as "Inbox/a.png".', ["Inbox", "a.png"], leaves_out_a_value=True)
    with pytest.raises(UnusablePrompt) as error:
        check_names(f"Move Inbox/My Plan.md to {more}", ["Inbox/My Plan.md"], leaves_out_a_value=True)
    assert error.value.reason == "prompt.names_more"


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("self", {"self": 1}),
        ("self,template", {"self": 1, "template": 1}),
        ("template,free", {"free": 1, "template": 1}),
        ("self:3,teacher:0.5", {"self": 3, "teacher": 0.5}),
    ],
)
def test_methods_are_parsed_with_weights(text, methods):
    assert parse_methods(text) == methods


@pytest.mark.parametrize("text", ["", "own", "self:0", "self:-1", "self:x", "self,self", "self:inf", "self:nan"])
def test_faulty_methods_are_refused(text):
    with pytest.raises(Exception, match=r"none of|weight"):
        parse_methods(text)


class _NoRequests:
    """A prompt source whose texts cannot be used."""

    def __init__(self):
        self.asked = []

    def prompt_for(self, slot, attempt, rng):
        self.asked.append((slot, attempt, rng.random()))
        raise UnusablePrompt("prompt.empty", "nothing there", "", "the cell")


def test_the_answers_to_a_request_share_the_attempts_at_it():
    source = _NoRequests()
    shared = SeveralSamples(source, 4, 0, 3)
    reasons = []
    for slot in range(8):
        for attempt in range(3):
            with pytest.raises(UnusablePrompt) as unusable:
                shared.prompt_for(slot, attempt, random.Random())
            reasons.append((unusable.value.reason, unusable.value.text, unusable.value.cell))
    of_a_request = [("prompt.empty", "", "the cell")] * 3 + [("prompt.given_up", None, "the cell")] * 9
    assert reasons == of_a_request * 2, "each text is rejected once, not once for each answer"
    assert [(slot, attempt) for slot, attempt, _ in source.asked] == [(at, n) for at in (0, 1) for n in range(3)]
    assert len({number for _, _, number in source.asked}) == 6, "each attempt is drawn anew"


class _SaysAlways:
    """A client of a model that knows one text."""

    def __init__(self, text):
        self.text = text

    def complete(self, messages, options):
        return Completion(Message("assistant", self.text), "stop", 1, 1, 0.0)


def test_a_written_request_is_compared_with_those_of_the_templates_before_it_after_a_new_start_too():
    cells = training_cells()
    methods = MethodOfSlot({"template": 1.0, "self": 1.0}, 0)
    template = next(slot for slot in range(99) if methods.method_of(slot) == "template")
    written = next(slot for slot in range(template, 99) if methods.method_of(slot) == "self")
    known = Known(EvaluationPrompts([]), is_distinct=True)
    request = cells.draw(written, by_model=True).prompt.question
    writing = Writing("m", _SaysAlways(request), 99, (0.0, 0.0))
    writer = PromptWriter(methods, cells, known, writing=writing, earlier=[(template, request)])
    with pytest.raises(UnusablePrompt) as unusable:
        writer.prompt_for(written, 0, random.Random(0))
    assert unusable.value.reason == "prompt.exact_duplicate"


@pytest.mark.parametrize(
    "name",
    ["Проекты/Заметки.md", "日本語/会議.md", "Die Ideen und das Leben/Notizen.md"],
)
def test_a_name_may_be_in_another_language(name):
    request = f"Please open {name} for me."
    assert clean_request(request, [name]) == request
    with pytest.raises(UnusablePrompt, match="another language"):
        clean_request("Öffne bitte die Notiz und lies sie mir vor, das ist alles")
