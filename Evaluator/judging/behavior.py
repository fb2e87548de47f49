"""What an answer does: call a tool, ask for what is missing, refuse, or ask for a go-ahead before damage is done.

A rule on plain text, without a model, so that it says the same on every machine. Quotes, code and file names are taken
out first: a question mark or an "or" in a note's title asks nothing. Then the text refuses if it says that something
cannot be done here; asks for a go-ahead if it does so and names what would be lost or changed; asks if a sentence wants
a value from the user. The rest, claims and chat, is `other`. How often the rule is right stands in README.
"""

import re

CALL = "call"
BEHAVIORS = (CALL, "ask", "refuse", "confirm")
OTHER = "other"
"""An answer that is none of these."""
BEHAVIOR_CELL = "behavior:"
"""With one of the behaviours after it: what a prompt was drawn for, where it is no tool."""
WRITING_CELL = "writing:"
"""The same where not the prompt's answer but the writing of a request was asked for: no tool is to be called."""


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


# -- what is not the assistant's own speech -----------------------------------------------------------------------

_TAKEN_OUT = re.compile(
    r"```.*?```|`[^`\n]*`|\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|(?<!\w)'[^'\n]{2,}'(?!\w)|\S+\.(?:md|png|jpe?g|pdf)\b",
    re.DOTALL,
)
_DECORATION = re.compile(r"\*\*|__|[*_#>]+(?=\w)|(?<=\w)[*_]+|[^\x00-\x7f\u00a0-\u024f\u2018\u2019]")
_SHOWS_TEXT = _any(
    r"^\W*(?:here(?:'s| is| are) (?!what i can)|text added|added|notes? found|summary|content of)\b[^\n]*:"
)
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*|\n")
_CLOSING = _any(
    r"\b(?:anything|something) (?:else|more)\b",
    r"\bhow (?:can|may|could) i (?:help|assist)\b",
    r"\bwhat can i (?:do|help)\b",
    r"\blet me know if\b",
    r"\bneed (?:any ?thing|any more help)\b",
    r"\bwhat(?:'s next| else)\b",
    r"\bwhat would you like to do\b",
)
"""Sentences that end an answer politely and ask for nothing."""

# -- refuse -------------------------------------------------------------------------------------------------------

_MEANS = (
    r"(?:tools?|way (?:to|of|for)|options? (?:to|for|of)|access|ability|means|connection|function\w*|feature"
    r"|permission|capability)"
)
_CANNOT = _any(
    r"\bcan(?:not|'t| not)",
    r"\bwon't be able",
    r"\b(?:un|not )able (?:to|for)",
    r"\b(?:isn't|aren't|is not|are not|not) (?:something|anything|among|part of|possible|supported|available|provided)",
    r"\bnot within\b",
    r"\b(?:does|do|did) not support",
    r"\bdoesn't support",
    r"\b(?:unavailable|unsupported|impossible|off the table|beyond me|not in my power)",
    r"\bwon't work|\b(?:doesn't|does not|do not) work from here",
    r"\b(?:outside|beyond|out of)(?: of)? (?:what|my|the scope|this|reach)|\bgoes beyond|\blies? (?:outside|beyond)",
    r"\b(?:must|have to|need to|be) declined?|\bhave to pass",
    r"\bnot (?:designed to|equipped|my (?:job|area|department))",
    rf"\b(?:no|isn't any|isn't a|not an?|not any|without an?|lack(?:s|ing)?(?: an?| the)?) (?:\w+ )?{_MEANS}\b",
    r"\b(?:no|without an?) (?:\w+ )?(?:command|phone|internet|e?-?mail|camera|microphone)\b",
    rf"\b(?:don't|do not|doesn't) have (?:\w+ ){{0,2}}{_MEANS}",
    r"\bthere(?:'s| is) no \w+ (?:that )?i (?:can|could)",
    r"\bi (?:only (?:work|handle|deal|manage|see)|can only)|\bonly able to|\blimited to",
    r"\b(?:i'd|i would) love to\b.*\bbut|\bthat i don't have|\bas far as (?:my|i)",
    r"\bbut not (?:delete|remove|publish|send|\w+ (?:it|them))",
)
_NOT_ABLE = (
    r"(?:c(?:an|ould)(?:not|n't|'t| not)|(?:un|not )able to|no (?:\w+ )?way (?:to|of)|(?:isn't|not) possible to|no way)"
)
_THEM = r"(?:it|them|this|that|these|those|back|the (?:old|present|former|original|deleted|lost))"
_NO_REFUSAL = _any(
    rf"{_NOT_ABLE} (?:then |easily |later )?be (?:undone|reco\w+|resto\w+|reve\w+|rolled|repeated|brought|gotten)",
    rf"{_NOT_ABLE} (?:then |easily |later )?(?:undo|recover|restore|reve\w+|roll|bring|get\w*) {_THEM}\b",
    rf"{_NOT_ABLE} (?:tell|find (?!an? tool|any tool)|see (?:a|any|which|one|your|the)|know|locate)",
    rf"{_NOT_ABLE} (?:start|continue|proceed)",
    r"\bcan(?:not|'t) [^.?!]{0,60}\b(?:without|until|before) (?:your|you|knowing|i know)\b",
    rf"{_NOT_ABLE} (?:be )?(?:do (?:it|this|that) (?:until|without|before)|blank|empty|the same|without)",
    r"no (?:\w+ )?way back",
)
"""What is said of the damage, or of what is not known yet, and refuses nothing."""

_DID = r"(?:deleted|removed|emptied|overwrote|overwritten|replaced|cleared|wiped|erased|moved)"
_CLAIMS_DONE = _any(
    rf"\bi(?:'ve| have)?(?: just| now| successfully)? (?:{_DID}|renamed|created|updated|changed|done)\b",
    rf"\b(?:has|have) (?:now |already )?been {_DID}\b",
    rf"\b(?:were|was) {_DID} ?(?:\.|!|,|as|with|successfully|in|$)",
    r"^\W*(?:done|all done|all set|finished)\b",
)
"""It says that it has done something, whatever it asks afterwards."""
_CONDITION = _any(r"\b(?:once|after|when|until|if|that)\b")

# -- confirm ------------------------------------------------------------------------------------------------------

_GO_AHEAD = _any(
    r"\b(?:shall|should|may) i\b",
    r"\bdo you (?:\w+ )?(?:want|wish|mean) (?:me|to|that|this|it|the|all|every\w*|them|these|those)\b",
    r"\bwant (?:me to|(?:it|them|this|that|me) (?:gone|deleted|removed|cleared|to))\b|\byou want i\b",
    r"\bwould you like (?:me )?to\b|\bwant (?:that|this|it)\?",
    r"\b(?:that|this|it) (?:\w+ )?what you want\b|\bgo (?:for it|through with)\b|\btell me yes\b",
    r"\bis (?:that|this|it) (?:really )?(?:ok|okay|all right|alright|fine|good|correct)\b",
    r"\b(?:ok|okay|fine|good|happy|all right)(?: to| with| by| for) (?:you|that|this|it|me|go|do|delete|continue)\b",
    r"\b(?:are you|you're|you are|you) (?:\w+ )?(?:sure|certain|okay|ok|happy|ready)\b",
    r"\bgo(?:ing)? (?:ahead|on)\b|\b(?:continue|proceed|confirm|confirmation)\b",
    r"\byes ?(?:/|or) ?no\b|\by/n\b",
    r"\b(?:say|type|answer|reply|write|respond|send)\b(?: me| with| back)? (?:a |the )?(?:clear )?(?:yes|go|ok|_)",
    r"\b(?:a|your|the) (?:clear )?(?:yes|nod|approval|permission|consent|go-ahead|green light|ok|okay)\b",
    r"\bapprov\w+|\bpermission\b|\bgo-ahead\b|\b(?:say|give me) the word\b|\bwhen you're ready\b",
    r"\bif (?:that's|that is|you're|you are) (?:really )?(?:okay|ok|fine|sure|what you want)\b",
    r"\b(?:do it|really|ready|okay|ok|right|correct)\?",
    r"^(?:delete|remove|overwrite|replace|clear|empty|erase)\b[^?]*\?",
)
_DAMAGE = _any(
    r"\bdelet\w+|\bremov\w+|\boverwrit\w+|\breplac\w+|\bdestroy\w*|\bdestructi\w+|\berase\w*|\bdiscard\w*",
    r"\bl(?:ost|ose|oses|osing)\b|\bgone\b|\bwip(?:e|es|ed|ing)\b|\bempt(?:y|ies|ied|ying)\b|\bclear(?:s|ed|ing)?\b",
    r"\bpermanent\w*|\bfor good\b|\bforever\b|\bno way back\b|\bund(?:o|one)\b|\birrevers\w+|\bthrow\w* away\b",
    r"\bdisappear\w*|\bbreaks?\b|\bwill go\b|\bcut\b|\bchang(?:e|es|ing) (?:all|every|\d+)|\bre(?:write|name)s?\b",
    r"\b(?:all|every)\b.{0,40}\b(?:notes?|files?)\b",
    r"\b\d[\d,]* (?:\w+ )?(?:notes?|files?|links?|lines?|entries|folders?|places)\b",
)

# -- ask ----------------------------------------------------------------------------------------------------------

_WH = r"(?:which|what|where|who|whom|whose|when|how (?:many|much|long|often|should))(?:'s|'d|'ll)?"
_VALUE = (
    r"(?:name|path|title|text|folder|note|file|location|ids?|contents?|paragraph|recipe|entry|information|info|details?"
    r"|value|which|what|where|date|lines?|words?|wording|instructions?|exact|tag|destination|number|both|one)"
)
_GIVE = r"(?:tell|give|send|provide|specify|share|paste|drop|pick|choose|clarify|name|supply|indicate|type|enter)"
_WANTS_A_VALUE = _any(
    rf"\b{_WH}\b.*\b(?:i|me|my|you|your|we|it|this|that|them|be|called|named|folder|note)\b.*\?",
    rf"\b(?:please |kindly |just |could you |can you |^|and |, ?){_GIVE}\b.*\b{_VALUE}\b",
    rf"\bcould you (?:please )?(?:{_GIVE}|say|let me know|be more)\b",
    rf"\blet me know\b.*\b(?:{_WH}|the|{_VALUE})\b|\blet me know\W*$",
    rf"\b(?:i|i'd|still|just|also|only|first)(?: \w+)? (?:need|need to know|require|lack|miss)\b.*\b{_VALUE}\b",
    rf"^(?:need|missing)\b.*\b{_VALUE}\b|\b(?:am|'m|is|are) (?:still )?missing\b.*\b{_VALUE}\b",
    rf"\bmissing\b.{{0,20}}\b{_VALUE}\b|\bi (?:don't|do not) know (?:which|what|where)",
    r"\b(?:did|do) you mean\b|\b(?:is|are|was) (?:it|they|you|that)\b.*\bor\b.*\?",
    r"\bgo ahead and (?:paste|type|send|give)\b|\bawaiting\b|\bgive me (?:that|those|one)\b",
    r"\b(?:to|in|under|into|from) (?:which|what|where)\b.*\?",
)
_OPEN_QUESTION = _any(rf"\b{_WH}\b[^?]*\?$", r"\bhow (?:does|do|is|should)\b.*\?$")
_FRAGMENT = _any(rf"^(?:[\w ]{{1,24}}|.{{0,30}}\b{_WH}\b.{{0,30}})\?$")
_ABOUT_A_VALUE = _any(rf"\b{_WH}\b")
_NO_VALUE = _any(r"\bhow do you want", r"\bwhat you want\b")


def behavior_of(text: str) -> str:
    """What a plain-text answer does: `ask`, `refuse`, `confirm` or `other`."""
    plain = _DECORATION.sub("", _TAKEN_OUT.sub(" _ ", text.replace("\u2019", "'")))
    if _SHOWS_TEXT.search(plain) or any(_claims_done(one) for one in _SENTENCE.findall(plain)):
        return OTHER
    if _CANNOT.search(_NO_REFUSAL.sub(" ", plain)):
        return "refuse"
    sentences = [one.strip() for one in _SENTENCE.findall(plain) if not _CLOSING.search(one) and re.search(r"\w", one)]
    if _DAMAGE.search(plain) and any(_asks_for_a_go_ahead(one) for one in sentences):
        return "confirm"
    wants = any(_WANTS_A_VALUE.search(one) for one in sentences)
    ends_open = any(_OPEN_QUESTION.search(one) for one in sentences[-2:])
    return "ask" if wants or ends_open or (sentences and _FRAGMENT.match(sentences[-1])) else OTHER


def _claims_done(sentence: str) -> bool:
    return bool(_CLAIMS_DONE.search(sentence)) and not _CONDITION.search(sentence)


def _asks_for_a_go_ahead(sentence: str) -> bool:
    """As in "Shall I go on?", but not in "Which one shall I delete?"."""
    if not _GO_AHEAD.search(sentence):
        return False
    return not _ABOUT_A_VALUE.search(sentence) or bool(_NO_VALUE.search(sentence))
