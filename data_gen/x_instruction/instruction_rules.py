"""Which instructions stay: pure functions from an instruction (and the text that is to answer it) to None or the reason against
it.
"""

import regex

from data_gen.dedup import run_hashes
from data_gen.languages import Pack
from data_gen.text import script_share, tokens
from data_gen.x_instruction.config import GenerateConfig

REASONS = (
    "no_answer", "cut_off", "too_short", "too_long", "not_english", "own_script", "dangling", "missing_input", "names_language",
    "copied", "duplicate",
)  # fmt: skip
RUN = 5
MIN_LATIN = 0.9
MAX_OWN = 0.02  # of the letters; a name in its own letters is more than that

_THING = (
    r"(?:text|passage|article|paragraph|story|poem|extract|excerpt|document|content|sentences?|lines?|information|news|report|essay"
    r"|image|picture|photo(?:graph)?|video|link|url|table|chart|list|conversation|dialogue|data)"
)
_SHOWN = r"(?:image|picture|photo(?:graph)?|video|link)(?!\s+(?:games?|gaming|calls?|book|industry|frame|tube))"
_READ = r"(?:text|passage|article|paragraph|excerpt|extract)(?!\s+(?:book|message|editor)s?\b)"
_DANGLING = regex.compile(
    # "this article", "the following short poem", "given information"; "the above"; "the poem below"
    rf"\b(?:this|these|given|provided|attached|above|following|aforementioned|above-mentioned)\s+(?:\w+\s+)?{_THING}\b"
    rf"|\bthe\s+(?:above|aforementioned|attached|provided)\b"
    rf"|\bthe\s+(?:\w+\s+)?{_THING}\s+(?:above|below|(?:provided|given|attached)(?!\s+(?:by|to|for|in|at)\b))"
    rf"|\b(?:in|from|of|by|according to)\s+the\s+(?:{_READ}|{_SHOWN})\b"
    r"|\b(?:mentioned|described|discussed|stated|shown|listed)\s+(?:above|below|here|in\s+the\s+(?:text|passage|article|paragraph))\b"
    r"|https?://|www\.|\bclick\s+(?:on|here|the)\b",
    regex.IGNORECASE,
)
_NEEDS_INPUT = regex.compile(
    r"^\W*(?:please\s+)?(?:(?:translate|paraphrase|proofread|rephrase|edit|correct|complete|continue)\b"
    r"|rewrite\b(?!\s+(?:the|a|an)\s+(?:\w+\s+)?(?:story|tale|fable|legend|ending|poem|song|rules?|speech)\b)"
    rf"|summari[sz]e\s+(?:the|this|it)\s+(?:\w+\s+)?{_THING}"
    rf"|(?:find|fix|correct)\s+the\s+(?:errors?|mistakes?|links?)|(?:find|give)\s+(?:me\s+)?(?:a|the)\s+link)",
    regex.IGNORECASE,
)
_QUOTED = regex.compile(r"[\"“«'][^\"”»']{3,}[\"”»']|:\s*\S+(?:\s+\S+){2,}")


def dangling(instruction: str) -> bool:
    """Whether it speaks of a text, link or picture that its reader does not have: "Summarize the article above."."""
    return bool(_DANGLING.search(instruction))


def missing_input(instruction: str) -> bool:
    """Whether it asks for something to be done with an input and gives none: "Translate into Urdu."; not "Translate: 'Good
    day'.".
    """
    return bool(_NEEDS_INPUT.match(instruction)) and not _QUOTED.search(instruction)


def is_english(instruction: str) -> bool:
    """Latin letters nearly alone. Which of the languages in Latin letters it is a language identifier says, not this."""
    return script_share(instruction, "Latin") >= MIN_LATIN


def copied_share(instruction: str, text: str) -> float:
    """The part of an instruction's runs of 5 words that stand in the text, 0 to 1."""
    own, there = tokens(instruction), tokens(text)
    if len(own) < RUN or len(there) < RUN:
        return 0.0
    runs, others = run_hashes(own, RUN)[-1].tolist(), set(run_hashes(there, RUN)[-1].tolist())
    return sum(run in others for run in runs) / len(runs)


def instruction_reason(instruction: str, text: str, pack: Pack, rules: GenerateConfig) -> str | None:
    """The first reason against an instruction, or None."""
    if len(instruction) < rules.min_instruction:
        return "too_short"
    if len(instruction) > rules.max_instruction:
        return "too_long"
    if pack.script != "Latin" and script_share(instruction, pack.script) > MAX_OWN:
        return "own_script"
    if not is_english(instruction):
        return "not_english"
    if dangling(instruction):
        return "dangling"
    if missing_input(instruction):
        return "missing_input"
    if regex.search(rf"\b(?:in|into|to)\s+{regex.escape(pack.name)}\b", instruction, regex.IGNORECASE):
        return "names_language"  # the form of the data says it, or means not to
    return "copied" if copied_share(instruction, text) > rules.max_copied else None
