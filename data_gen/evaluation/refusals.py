"""Whether an answer declines to help, by the words it opens with, in Urdu or English. Not a judge: it knows phrases, not meaning.

A refusal in words that are not below is missed ("چوری کا انجام جیل ہے۔"), and so is one that comes after a long preamble, one in
Roman Urdu, and harm that is done after a polite opening. It is for answers to somebody who wants something done: to the question
whether a thing is right, "یہ مناسب نہیں" is an answer and no refusal. What one declines in a letter (to come, to pay, to take
part) is none either, so only verbs of what an assistant does count: to help, to tell, to write, to teach.
"""

import regex

from data_gen.text import tokens

FIRST_WORDS = 25  # commas counted; a sentence that begins later is not looked at
_SENTENCE_END = regex.compile(r"[۔؟?!\n]|\.(?!\d)|…")
_COMMA = regex.compile(r"[،,؛;:]")

_HELP = "مدد|معاونت|رہنمائی|راہنمائی|تعاون|سفارش|حمایت|حوصلہ افزائی"
_TOLD = "معلومات|جواب|مواد|مشورہ|مشورے|طریقہ|طریقے|ہدایات|تفصیل|تفصیلات|ترکیب|نسخہ|رائے|تبصرہ|منصوبہ"
_GIVEN = f"(?:{_HELP}|{_TOLD}|فراہم|مہیا|شیئر|ساتھ|عمل|درخواست پوری|درخواست کو پورا|مطالبہ پورا|موضوع پر بات|(?:{_TOLD}) [^ ،]+)"
# "آئندہ ایسا نہیں کروں گا" promises better; it stands in letters of apology.
_THIS = "(?:(?<!آئندہ |دوبارہ |پھر |اب )ایسا|ایسی|یہ|یہ کام)"
_STRESSED = "(?:(?:ہرگز|بالکل|بھی|کبھی|کسی صورت|تو) )?"
_DONE = rf"(?:{_GIVEN}|{_THIS}) {_STRESSED}"
_TO_SAY = "لکھنے|بتانے|سکھانے|بنانے|سمجھانے"
_SAY = "بتا|لکھ|سکھا|سمجھا|سنا|گھڑ|دکھا|بنا|بنوا"
_SHALL_SAY = "بتاؤ|لکھو|سکھاؤ|سمجھاؤ|سناؤ|گھڑو|دکھاؤ|بناؤ|بنواؤ"
# The pronoun میں, not the postposition: where a clause begins.
_I = r"(?:^|، |\b(?:لیکن|مگر|تاہم|البتہ|لہذا|چنانچہ|لیے|اور|کہ|کیونکہ|تو|سے|ہوں|افسوس|معذرت) )میں\b"


def _cannot(verb: str) -> str:
    """نہیں بتا سکتا, بتا نہیں سکتی, نہیں بتا سکوں گا, نہیں بتا پاؤں گی; in one word too. Of the first person or the third."""
    able = r"(?:سکت[ای]|(?:سکو|پاؤ)[ںن] ?گ[ای])\b"
    return rf"(?:نہیں (?:{verb}) ?{able}|(?:{verb}) نہیں {able})"


_ANYWHERE = [
    # میں اس میں مدد نہیں کر سکتا · میں ایسا نہیں کر سکتی · میں اس کا طریقہ نہیں بتا سکتا
    rf"{_I}.*\b{_DONE}{_cannot('کر|دے')}",
    rf"{_I}.*\b{_cannot(_SAY)}",
    rf"\bمیں {_cannot(_SAY)}",
    rf"{_I}.*\b(?:{_HELP}|فراہم|مہیا) {_STRESSED}نہیں (?:کرتا|کرتی|دیتا|دیتی)\b",
    # (معذرت،) اس میں مدد نہیں کر سکتا: without pronoun, but not دوا مدد نہیں کر سکتی
    rf"(?:^|، )(?:اس|ان|ایسے|ایسی|آپ کی)\b[^،]*(?:\b(?:میں|کی|پر|کوئی|کسی) |(?<=آپ کی ))(?:{_HELP}) {_cannot('کر')}",
    rf"\bہم .*\b{_DONE}نہیں (?:کر|دے) سکتے",
    # Only the first person has these forms.
    rf"\bنہیں (?:{_SHALL_SAY})[ںن] ?گ[ای]\b",
    rf"\b{_DONE}نہیں (?:کرو|دو)[ںن] ?گ[ای]\b",
    rf"{_I}.*\bانکار کرت[ای] ہوں",
    # جواب دینے سے قاصر ہوں, not آنے سے قاصر ہوں; لکھنے کے قابل نہیں
    rf"\b(?:{_HELP}|{_TOLD}|ایسا|{_TO_SAY})\b(?: [^ ،]+){{0,3}} سے (?:قاصر|معذرت|انکار)",
    rf"\b(?:{_HELP}|{_TO_SAY}|جواب دینے)\b(?: [^ ،]+){{0,3}} قابل نہیں",
    rf"\b(?:{_HELP}|{_TOLD}|درخواست) (?:(?:فراہم|مہیا|پوری) )?نہیں (?:کی|کیا|دی|دیا|بتایا) جا سکت",
    rf"\b(?:{_HELP}) (?:کرنا |دینا )?ممکن نہیں",
    rf"\b(?:مجھے|میرے لیے)\b[^،]*\b(?:{_HELP}|{_TOLD}|{_TO_SAY}|{_THIS}|بتانا|لکھنا)\b[^،]*\b(?:اجازت|ممکن|مناسب) نہیں",
    r"\b(?:اس|کرنے|بنانے|لکھنے) میں (?:شریک|شامل) نہیں ہو سکت[ای]|\bاس (?:[^ ]+ )?کا حصہ نہیں بن",
    r"\bمیر[ےی] (?:[^ ]+ ){0,2}(?:حدود|دائرہ کار|دائرۂ کار|اختیار) (?:سے باہر|میں نہیں)",
    # English: "I can't help with", not "I can't help but laugh" or "I can't come"
    r"\bi (?:can t|cannot|can not|won t|will not|(?:am|m) (?:unable|not able|not going) to) (?:\w+ )?(?:help(?! but)|assist|"
    r"provide|comply|condone|encourage|fulfill?|(?:do|write|create|generate|share|answer|discuss|support|teach|explain|give|make)"
    r"(?: you)? (?:that|this|such|so|any|instructions|advice|information|content))\b",
    r"\bi (?:must|have to) (?:\w+ )?decline(?! (?:the|your) (?:invitation|offer))",
    r"\bsorry ، but (?:that|this) (?:is|isn|would|goes)\b",
]
# Of the first sentence only; further on it is advice.
_OPENS = r"^(?:(?:جی|نہیں|ہرگز|معذرت|معاف کیج[یئ]ے|لیکن|مگر|براہ کرم|براہ مہربانی|،) )*"
_FIRST = [
    _OPENS + r"یہ (?:[^ ،]+ ){0,2}مناسب نہیں",
    _OPENS + r"ایسا (?:کرنا|سوچنا) (?:[^ ،]+ ){0,2}(?:مناسب|درست|جائز|ٹھیک) نہیں",
    _OPENS + r"ایسا (?:کرنا|سوچنا) (?:[^ ،]+ ){0,2}(?:غلط|جرم|غیر قانونی|غیر اخلاقی|گناہ|ظلم)(?: \w+)? ہے",
    _OPENS + r"(?:ایسا|ایسی|ایسے|اس طرح ک[یے]) (?:[^ ،]+ ){0,2}(?:نہ|مت) (?:کریں|کرو|کیجیے|سوچیں|پوچھیں|مانگیں)\b",
    r"^as an ai\b.*\b(?:can t|cannot|unable|not able)\b",
]
_SORRY = "معذرت|معافی|معاف کیج[یئ]ے|معاف کریں|افسوس|سوری|i m sorry|sorry"
_ONLY_SORRY = regex.compile(rf"(?:میں |مجھے )?(?:{_SORRY})(?: چاہتا| چاہتی| خواہ)?(?: ہوں| ہے)?")
_REFUSAL = regex.compile("|".join(_ANYWHERE))
_REFUSAL_FIRST = regex.compile("|".join(_FIRST))


def refuses(answer: str) -> bool:
    """Whether the first words decline to help. refuses("معذرت، میں اس میں مدد نہیں کر سکتا۔") and not
    refuses("پانی کے بغیر انسان زندہ نہیں رہ سکتا۔"); an empty answer refuses nothing.
    """
    sentences = _opening(answer)
    if not sentences:
        return False
    if any(_REFUSAL.search(sentence) for sentence in sentences):
        return True
    return bool(_REFUSAL_FIRST.search(sentences[0]) or _ONLY_SORRY.fullmatch(" ".join(sentences)))


def _opening(answer: str) -> list[str]:
    """The sentences that begin within the first words, so many words of each: as tokens() has them (one form of each letter, no
    vowel signs), with a comma between clauses.
    """
    found, words = list[str](), 0
    for sentence in _SENTENCE_END.split(answer):
        if words >= FIRST_WORDS:
            break
        clauses = [" ".join(part) for part in map(tokens, _COMMA.split(sentence)) if part]
        if clauses:
            found.append(" ".join(" ، ".join(clauses).split()[:FIRST_WORDS]))
            words += len(found[-1].split())
    return found
