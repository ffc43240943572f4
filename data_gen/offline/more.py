"""More grammars of the offline teacher: beside the seven tasks of offline/grammar.py those that go further.

Templates and word lists, no model. An item's answer is right, and what is wrong with its faulty answers is known. Texts to work on
are in offline/reading.py; TRANSLATIONS has the Urdu of the English items that are shipped as a sample to translate.
"""

import json
import random
from collections.abc import Callable
from importlib import resources

from data_gen.offline import facts, talk
from data_gen.offline import varieties as v
from data_gen.offline import words as w
from data_gen.offline.essays import ESSAYS, LONG_STYLES
from data_gen.offline.grammar import Item, by
from data_gen.offline.reading import near, other, reading_comprehension, summarisation, wrong_language

MIN_LONG_WORDS = 200  # of a long answer
MIN_TALK_WORDS = 48  # of a conversation without its first question; some of them are signs of a sum
FIELDS = ("instruction", "input", "output")

# days left, chapters a day, days to be kept free (half of them at most) such that the chapters still come out even
PLANS = tuple(
    (days, each, kept)
    for days in range(5, 21)
    for each in range(1, 5)
    for kept in range(1, days // 2 + 1)
    if days * each % (days - kept) == 0 and days * each <= 60
)


def _translations() -> dict[str, str]:
    """English text → Urdu text, of every text of the sample to translate: both files have the same items in the same order."""
    folder = resources.files("data_gen") / "text" / "en"
    names = ("instructions.jsonl", "instructions.ur.jsonl")
    english, urdu = ([json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()] for name in names)
    pairs = zip(english, urdu, strict=True)
    return {source[name]: target[name] for source, target in pairs for name in FIELDS if source[name]}


TRANSLATIONS = _translations()


def _slots(rng: random.Random) -> dict[str, str]:
    """People, times and places for the sentences of offline/talk.py."""
    name, second = rng.sample(w.NAMES, 2)
    return {
        "name": name,
        "second": second,
        "who": rng.choice(talk.STRANGERS if rng.random() < 0.3 else w.NAMES),
        "when": rng.choice(w.WHEN_PAST),
        "place": rng.choice(w.PLACES),
        "city": rng.choice(w.CITIES),
        "day": rng.choice(w.DAYS),
        "relative": rng.choice(w.RELATIVES),
        "family": rng.choice(w.FAMILY),
        "role": rng.choice(w.APPLICANTS),
    }


# --- conversation: the first question, then everything after it in the form of an item's output

Turns = list[tuple[str, str]]


def _written(turns: Turns) -> str:
    """Answer, then "User: …" and "Assistant: …" in turn, a line each."""
    later = [f"User: {question}\nAssistant: {answer}" for question, answer in turns[1:]]
    return "\n".join([turns[0][1], *later])


def _bill(rng: random.Random) -> tuple[Turns, str, str]:
    """(turns, what the last answer must contain, a last answer that forgets what was said before)."""
    thing, things, gender = rng.choice(w.THINGS)
    count, price = rng.randint(3, 12), rng.choice((15, 20, 25, 30, 40, 50, 60, 80, 120))
    total = count * price
    less = 5 * rng.randint(1, max(1, total // 25))
    paid, note = total - less, next(note for note in (100, 500, 1000, 5000) if note > total)
    slots = {"shop": rng.choice(w.SHOPS), "count": count, "thing": thing, "things": things, "price": price}
    asked = rng.choice(talk.ASK_BILL).format(**slots, take=by(gender, "لینے", "لینی"), of=by(gender, "کا", "کی"))
    first = rng.choice((
        f"کل خرچ {count} × {price} = {total} روپے آئے گا۔",
        f"ایک کے {price} روپے ہیں، اس لیے {count} کے {count} × {price} = {total} روپے بنتے ہیں۔",
        f"آپ {total} روپے رکھ لیں، کیونکہ {count} × {price} = {total}۔",
    ))  # fmt: skip
    cheaper, change = f"اگر دکان دار {less} روپے کم کر دے تو؟", f"میں {note} روپے کا نوٹ دوں تو کتنے واپس ملیں گے؟"
    told = rng.choice((
        "پھر آپ کو {} = {} روپے دینے ہوں گے، یہ اچھی رعایت ہے۔",
        "اس صورت میں {} = {} روپے لگیں گے اور باقی رقم بچ جائے گی۔",
    ))  # fmt: skip
    turns = [(asked, first), (cheaper, told.format(f"{total} - {less}", paid))]
    back = rng.choice((
        "آپ کو {} - {} = {} روپے واپس ملیں گے، گن کر جیب میں رکھیں۔",
        "حساب یہ ہے: {} - {} = {}، یعنی اتنے روپے واپس لینا نہ بھولیں۔",
    ))  # fmt: skip
    right, forgetful = (back.format(note, cost, note - cost) for cost in (paid, total))
    return [*turns, (change, right)], str(note - paid), forgetful


def _study(rng: random.Random) -> tuple[Turns, str, str]:
    days, each, kept = rng.choice(PLANS)
    chapters = days * each
    more, minutes, subject = chapters // (days - kept), 5 * rng.randint(3, 9), rng.choice(talk.SUBJECTS_STUDIED)
    first = rng.choice((
        f"روز {each} باب پڑھیں، کیونکہ {chapters} ÷ {days} = {each}۔",
        f"{chapters} ÷ {days} = {each}، یعنی روز {each} باب پڑھنے سے {subject} کی کتاب وقت پر ختم ہو جائے گی۔",
    ))  # fmt: skip
    second = rng.choice((
        f"پھر پڑھنے کے لیے {days - kept} دن بچیں گے، اس لیے روز {more} باب پڑھنے ہوں گے۔",
        f"{days} میں سے {kept} دن نکال کر {days - kept} رہ جاتے ہیں، سو روز {chapters} ÷ {days - kept} = {more} باب بنتے ہیں۔",
    ))  # fmt: skip
    right, forgetful = (f"{n} × {minutes} = {n * minutes}، یعنی روز {n * minutes} منٹ۔" for n in (more, each))
    turns = [
        (rng.choice(talk.ASK_STUDY).format(subject=subject, days=days, chapters=chapters), first),
        (f"اگر آخری {kept} دن دہرائی کے لیے رکھوں تو؟", second),
        (f"ایک باب پر {minutes} منٹ لگیں تو روز کتنا وقت چاہیے؟", right),
    ]
    return turns, str(more * minutes), forgetful


def _author(rng: random.Random) -> tuple[Turns, str, str]:
    author, sex, place, book, second = rng.choice(facts.AUTHORS)
    stranger = rng.choice([row for row in facts.AUTHORS if row[2] != place and row[1] == sex])
    born = by(sex, "پیدا ہوئے تھے", "پیدا ہوئی تھیں")
    first, also = rng.sample((book, second), 2)
    asked = rng.choice((f"{first} کس کی تصنیف ہے؟", f"{first} کس نے لکھا ہے، آپ جانتے ہیں؟", f"{first} نام کی کتاب کس کی ہے؟"))
    opening = (asked, f"{first} {author} کی تصنیف ہے۔")
    by_place = {where: f"{author} {where} میں {born}۔ {rng.choice(talk.ABOUT_LIFE)}" for where in (place, stranger[2])}
    by_book = {title: f"ان کی ایک اور کتاب {title} ہے۔ {rng.choice(talk.ABOUT_BOOKS)}" for title in (also, stranger[3])}
    where = (f"وہ کہاں {born}؟", by_place[place])
    work = ("ان کی کسی اور کتاب کا نام بھی بتا دیں۔", by_book[also])
    if rng.random() < 0.5:
        return [opening, where, work], also, by_book[stranger[3]]
    return [opening, work, where], place, by_place[stranger[2]]


def _advice(rng: random.Random) -> tuple[Turns, None, str]:
    asks, (answer, *rows) = rng.choice(talk.CHATS)
    split = [tuple(part.strip() for part in row.split("|")) for row in rng.sample(rows, rng.randint(1, 2))]
    astray = rng.choice([pieces for other_asks, pieces in talk.CHATS if other_asks != asks])
    turns = [(f"{rng.choice(asks)}؟", answer), *((question, reply) for question, reply in split)]
    return turns, None, astray[0]


def _conversation(rng: random.Random) -> Item:
    """Two or three turns of which the later ones lean on the earlier; unfaithful: the last answer forgets them."""
    turns, right, forgetful = rng.choice((_bill, _study, _author, _advice))(rng)
    if len(" ".join(text for turn in turns[1:] for text in turn).split()) + len(turns[0][1].split()) < MIN_TALK_WORDS:
        return _conversation(rng)
    before, after = (rng.choice(way) if rng.random() < 0.9 else "" for way in (talk.CHAT_BEFORE, talk.CHAT_AFTER))
    slots = _slots(rng)
    instruction = f"{before.format(**slots)} {turns[0][0]} {after.format(**slots)}".strip()
    question = turns[-1][0]
    english = rng.sample(talk.TALK_ENGLISH, len(turns))
    faults = {
        "unfaithful": _written([*turns[:-1], (question, forgetful)]),
        "wrong_language": _written([(asked, told) for (asked, _), told in zip(turns, english, strict=True)]),
    }
    return Item(instruction, "", _written(turns), right, faults)


# --- long answers


def _long_answer(rng: random.Random) -> Item:
    """Four or five paragraphs between an opening and a closing; too_short: the opening alone."""
    subject = rng.choice(tuple(ESSAYS))
    openings, pieces, closings = ESSAYS[subject]
    opening, closing = rng.choice(openings), rng.choice(closings)
    numbers = sorted(rng.sample(range(len(pieces)), rng.randint(4, 5)))
    aspects, body = zip(*(map(str.strip, pieces[k].split("|")) for k in numbers), strict=True)
    output = "\n\n".join([opening, *body, closing])
    if len(output.split()) < MIN_LONG_WORDS:
        return _long_answer(rng)
    name, reader, style, day = rng.choice(w.NAMES), rng.choice(w.READERS), rng.choice(LONG_STYLES), rng.choice(w.DAYS)
    first, second, third = rng.sample(aspects, 3)
    when, place, relative = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.RELATIVES)
    instruction = rng.choice((
        f"{name} کو {reader} کے لیے {subject} پر مضمون چاہیے جس میں {first}، {second} اور {third} کا ذکر ہو۔ {style}",
        f"{relative} نے {when} {place} {subject} کی بات چھیڑی۔ {reader} کے لیے {first} اور {second} کی وضاحت کریں۔ {style}",
        f"{day} کو {relative} نے {subject} پر رہنمائی مانگی، خاص طور پر {first} اور {second} کے بارے میں۔ {style}",
        f"{style} موضوع {subject} کا ہے۔ {name} کی فرمائش ہے کہ {first}، {second} اور {third} کی بات ضرور ہو۔",
        f"{when} {place} {name} نے {subject} کا ذکر کیا۔ {first} اور {third} سمیت سب باتیں سمجھائیں۔ {style}",
        f"{reader} میں {day} کو {first} اور {second} پر {name} کی تحریر چھپے گی۔ موضوع {subject} کا ہے۔ {style}",
    ))  # fmt: skip
    return Item(instruction, "", output, None, {"too_short": opening, "wrong_language": wrong_language(rng)})


# --- culture


def _told(marked: str, fact: str = "") -> str:
    """The sentence without its brackets, and with `fact` in them if one is given: _told("یہ [لاہور] ہے۔") == "یہ لاہور ہے۔"."""
    before, rest = marked.split("[")
    inside, after = rest.split("]")
    return f"{before}{fact or inside}{after}"


def _fact(marked: str) -> str:
    return marked[marked.index("[") + 1 : marked.index("]")]


def _culture(rng: random.Random) -> Item:
    """One fact and something more, or two facts of one kind; wrong_fact: the last one's place is taken by another of the kind."""
    group = rng.choices(tuple(facts.CULTURE.values()), [len(rows) for rows in facts.CULTURE.values()])[0]
    row, second = rng.sample(group, 2)
    alone = rng.random() < 0.25
    question, about, marked, more = row
    asked, ask = question, rng.choice(facts.ASK_CULTURE if alone else facts.ASK_BOTH)
    if not alone:
        asked, about, marked = f"{question} اور {second[0]}", f"{about} اور {second[1]}", second[2]
    right = _fact(marked)
    wrong = other(rng, right, sorted({_fact(one[2]) for one in group}))
    told = [f"{_told(marked, fact)} {more}" if alone else f"{_told(row[2])} {_told(marked, fact)}" for fact in ("", wrong)]
    when, place, name, city = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.NAMES), rng.choice(w.CITIES)
    instruction = rng.choice((
        f"{name} کو {rng.choice(facts.CULTURE_USES)} کے لیے {about} پر لکھنا ہے۔ بتائیں کہ {asked}۔ {ask}",
        f"{when} {place} {rng.choice(w.RELATIVES)} نے پوچھا کہ {asked}۔ {ask}",
        f"{city} کے ایک {rng.choice(w.QUIZZES)} میں {name} سے سوال ہوا: {asked}؟ {ask}",
        f"{rng.choice(w.FAMILY)} نے {name} سے {when} پوچھا: {asked}؟ {ask}",
        f"{rng.choice(facts.CULTURE_USES)} کے لیے {city} سے {name} کا سوال ہے: {asked}؟ {ask}",
    ))  # fmt: skip
    return Item(instruction, "", told[0], right, {"wrong_fact": told[1], "wrong_language": wrong_language(rng, 10)})


# --- varieties


def _code_mixed(rng: random.Random) -> Item:
    """A problem and advice in Urdu with English words; wrong_language: English throughout."""
    problems, tips = rng.choice(v.MIXED)
    problem, since, ask, job = rng.choice(problems), rng.choice(v.SINCE), rng.choice(v.MIXED_ASK), rng.choice(v.MIXED_JOBS)
    city, day, due, relative = rng.choice(w.CITIES), rng.choice(w.DAYS), rng.choice(v.MIXED_DUE), rng.choice(w.RELATIVES)
    instruction = rng.choice((
        f"میں {city} میں {job} ہوں۔ {since} {problem}۔ {ask}",
        f"{since} {problem} اور {day} کو {due}۔ {ask}",
        f"{relative} نے {rng.choice(w.WHEN_PAST)} کہا کہ آپ سے help لوں۔ {since} {problem}۔ {ask}",
        f"میں {city} میں {job} ہوں اور {day} کو {due}۔ مسئلہ یہ ہے کہ {since} {problem}۔ {ask}",
        f"{ask} {since} {problem}، اور {relative} کو بھی اس کا solution معلوم نہیں۔",
    ))  # fmt: skip
    told = rng.sample(range(len(tips)), rng.randint(2, 3))
    output = " ".join([rng.choice(v.MIXED_OPENERS), *(tips[k] for k in sorted(told))])
    return Item(instruction, "", output, None, {"wrong_language": rng.choice(v.MIXED_ENGLISH)})


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _roman_advice(rng: random.Random) -> Item:
    problems, tips = rng.choice(v.ROMAN)
    problem, since, ask, city = rng.choice(problems), rng.choice(v.ROMAN_SINCE), rng.choice(v.ROMAN_ASK), rng.choice(v.ROMAN_CITIES)
    relative, when, place = rng.choice(v.ROMAN_RELATIVES), rng.choice(v.ROMAN_WHEN), rng.choice(v.ROMAN_PLACES)
    instruction = rng.choice((
        f"Main {city} mein rehta hoon. {_capital(since)} {problem}. {ask}",
        f"{_capital(when)} {relative} ne {place} kaha ke kisi se mashwara kar lo. {_capital(since)} {problem}. {ask}",
        f"{_capital(relative)} ko bhi yahi masla tha aur ab {since} {problem}. {ask}",
        f"Assalam o alaikum! {city} se {rng.choice(v.ROMAN_MALE)} likh raha hoon. {_capital(since)} {problem}. {ask}",
        f"{ask} {_capital(since)} {problem}. {_capital(when)} {relative} se {place} baat hui magar hal na mila.",
    ))  # fmt: skip
    told = sorted(rng.sample(range(len(tips)), rng.randint(2, 3)))
    return Item(instruction, "", " ".join(tips[k] for k in told), None)


def _roman_sum(rng: random.Random) -> Item:
    (things, gender), name = rng.choice(v.ROMAN_THINGS), rng.choice(v.ROMAN_MALE + v.ROMAN_FEMALE)
    a, b = rng.randint(5, 40), rng.randint(2, 30)
    were, gave, how_many = by(gender, "thay", "thin"), by(gender, "diye", "di"), by(gender, "kitne", "kitni")
    giver, place = rng.choice(v.ROMAN_RELATIVES), rng.choice(v.ROMAN_PLACES)
    instruction = (
        f"{_capital(rng.choice(v.ROMAN_WHEN))} {name} ke paas {a} {things} {were}. {_capital(giver)} ne {place} use {b} aur {gave} "
        f"hain. Ab {name} ke paas kul {how_many} {things} hain? {rng.choice(v.ROMAN_SOLVE)}"
    )
    right, wrong = (f"{a} + {b} = {total}\nJawab: {total} {things}" for total in (a + b, near(rng, a + b)))
    return Item(instruction, "", right, str(a + b), {"wrong_sum": wrong})


def _roman_fact(rng: random.Random) -> Item:
    (kind, question, marked), ask = rng.choice(v.ROMAN_FACTS), rng.choice(v.ROMAN_ASK_FACT)
    name, relative = rng.choice(v.ROMAN_MALE + v.ROMAN_FEMALE), rng.choice(v.ROMAN_RELATIVES)
    when, place, city = rng.choice(v.ROMAN_WHEN), rng.choice(v.ROMAN_PLACES), rng.choice(v.ROMAN_CITIES)
    instruction = rng.choice((
        f"{_capital(when)} {relative} ne {place} poocha ke {question}. {ask}",
        f"{city} ke ek school mein {name} se sawal hua: {question}? {ask}",
        f"{name} aur {relative} mein {when} {place} behes hui ke {question}. {ask}",
    ))  # fmt: skip
    wrong = other(rng, _fact(marked), [_fact(row[2]) for row in v.ROMAN_FACTS if row[0] == kind])
    return Item(instruction, "", _told(marked), _fact(marked), {"wrong_fact": _told(marked, wrong)})


def _roman(rng: random.Random) -> Item:
    """Advice, a sum or a fact in Latin letters; wrong_language: Urdu in its own script, or English."""
    item = rng.choice((_roman_advice, _roman_advice, _roman_advice, _roman_sum, _roman_sum, _roman_fact))(rng)
    stranger = rng.choice(v.ROMAN_IN_SCRIPT if rng.random() < 0.75 else v.ROMAN_ENGLISH)
    return Item(item.instruction, "", item.output, item.right, {**item.faults, "wrong_language": stranger})


# --- refusals that help


def _helpful_refusal(rng: random.Random) -> Item:
    """A harmful request: declined, with the reason and two lawful ways; unsafe_advice: it is granted."""
    why, requests, reasons, help_, unsafe = rng.choice(talk.REFUSED)
    asked = rng.choice(talk.ASK_HARM).format(request=rng.choice(requests))
    tail = rng.choice(talk.HARM_TAILS) if rng.random() < 0.6 else ""
    instruction = f"{rng.choice(talk.WHY_ASKED[why])} {asked} {tail}".format(**_slots(rng)).rstrip()
    ways = sorted(rng.sample(range(len(help_)), 2))
    output = " ".join([rng.choice(talk.DECLINES), rng.choice(reasons), *(help_[k] for k in ways)])
    granted = f"{rng.choice(talk.AGREES)} {unsafe} {rng.choice(talk.PLAYS_DOWN)}"
    return Item(instruction, "", output, None, {"unsafe_advice": granted, "wrong_language": wrong_language(rng, 30)})


MAKERS: dict[str, Callable[[random.Random], Item]] = {
    "reading_comprehension": reading_comprehension,
    "summarisation": summarisation,
    "conversation": _conversation,
    "long_answer": _long_answer,
    "culture": _culture,
    "code_mixed": _code_mixed,
    "roman": _roman,
    "helpful_refusal": _helpful_refusal,
}
