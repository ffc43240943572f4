"""Items of the offline teacher with a text to work on: a question about a passage, and a piece of news to sum up.

Templates and word lists, no model; the pieces are in offline/passages.py. Everything in a passage comes from a slot that a question
may ask for, so that the right answer and an unfaithful one are known.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_gen.offline import bilingual
from data_gen.offline import passages as p
from data_gen.offline import words as w
from data_gen.offline.grammar import Item, by, person


@dataclass(frozen=True)
class Asked:
    """A question about a passage: the answer in a sentence, what that must contain, and an answer against the passage."""

    question: str
    answer: str
    right: str
    unfaithful: str


Passage = tuple[str, list[Asked]]


def other(rng: random.Random, value: str, values: Sequence[str]) -> str:
    """One of `values` that is not `value`."""
    return rng.choice([one for one in values if one != value])


def near(rng: random.Random, number: int) -> int:
    """A number from 2 on that is near `number`: near(rng, 4) is one of 2, 3, 5, 6, 7."""
    return rng.choice([number + step for step in (-3, -2, -1, 1, 2, 3) if number + step > 1])


def _asked(question: str, answer: str, right: str | int, wrong: str | int) -> Asked:
    """`answer` has its fact as {}: _asked("کب؟", "وہ {} کو آیا۔", "پیر", "بدھ")."""
    return Asked(question, answer.format(right), str(right), answer.format(wrong))


def _trip(rng: random.Random) -> Passage:
    (name, sex), (companion, with_sex), city = person(rng), rng.choice(p.COMPANIONS), rng.choice(w.CITIES)
    (sight, seen), (present, before_ki, gender) = rng.choice(p.SIGHTS), rng.choice(p.PRESENTS)
    hours, days, price = rng.randint(3, 9), rng.randint(2, 6), 50 * rng.randint(2, 30)
    day, vehicle, receiver = rng.choice(w.DAYS), rng.choice(p.VEHICLES), rng.choice(p.RECEIVERS)
    went, women = by(sex, "گیا", "گئی"), "f" if sex == with_sex == "f" else "m"
    bought = by(gender, "خریدا", "خریدی")
    text = (
        f"{rng.choice(p.LONG_AGO)} {name} {companion} کے ساتھ {vehicle} سے {city} {went}۔ سفر میں {hours} گھنٹے لگے۔ "
        f"وہاں دونوں نے {sight} {by(seen, 'دیکھا', 'دیکھی')} اور شہر کے بازار کی سیر کی۔ "
        f"{name} نے {receiver} کے لیے ایک {present} {bought} جس کی قیمت {price} روپے تھی۔ "
        f"وہ دونوں {days} دن {city} میں {by(women, 'ٹھہرے', 'ٹھہریں')} اور {day} کو واپس {by(women, 'آئے', 'آئیں')}۔ "
        f"{rng.choice(p.TRIP_ENDS)}"
    )
    another, other_seen = rng.choice([row for row in p.SIGHTS if row[0] != sight])
    seen_there = [f"{what} {by(verb, 'دیکھا', 'دیکھی')}" for what, verb in ((sight, seen), (another, other_seen))]
    relative = other(rng, companion, [one for one, _ in p.COMPANIONS])
    thing = rng.choice([one for one, _, verb in p.PRESENTS if verb == gender and one != present])
    return text, [
        _asked(f"{name} کس کے ساتھ {city} {went}؟", f"{name} {{}} کے ساتھ {city} {went}۔", companion, relative),
        _asked(f"{city} پہنچنے میں کتنے گھنٹے لگے؟", f"{city} پہنچنے میں {{}} گھنٹے لگے۔", hours, near(rng, hours)),
        _asked(f"{name} نے {city} میں کیا دیکھا؟", f"{name} نے {city} میں {{}}۔", *seen_there),
        _asked(f"{name} نے {receiver} کے لیے کیا خریدا؟", f"{name} نے {receiver} کے لیے ایک {{}} {bought}۔", present, thing),
        _asked(f"{before_ki} کی قیمت کتنی تھی؟", f"{before_ki} کی قیمت {{}} روپے تھی۔", price, price + 50 * rng.randint(1, 5)),
        _asked(f"{name} کی واپسی کس دن ہوئی؟", f"{name} کی واپسی {{}} کو ہوئی۔", day, other(rng, day, w.DAYS)),
    ]


def _shop(rng: random.Random) -> Passage:
    name, city, goods, founder = rng.choice(w.NAMES), rng.choice(w.CITIES), rng.choice(p.GOODS), rng.choice(p.FOUNDERS)
    year, opens, closes, staff = rng.randint(1965, 2015), rng.randint(7, 10), rng.randint(8, 11), rng.randint(2, 9)
    day = rng.choice(w.DAYS)
    text = (
        f"{name} کی {city} میں {goods} کی دکان ہے۔ یہ دکان اس کے {founder} نے {year} میں کھولی تھی۔ "
        f"دکان صبح {opens} بجے کھلتی ہے اور رات {closes} بجے بند ہوتی ہے، جبکہ {day} کو چھٹی رہتی ہے۔ "
        f"وہاں {staff} ملازم کام کرتے ہیں اور سب ایک دوسرے کا خیال رکھتے ہیں۔ {' '.join(rng.sample(p.SHOP_ENDS, 2))}"
    )
    return text, [
        _asked(f"{name} کی دکان کس چیز کی ہے؟", f"{name} کی دکان {{}} کی ہے۔", goods, other(rng, goods, p.GOODS)),
        _asked(
            f"{name} کی دکان کس نے کھولی تھی؟", f"یہ دکان {name} کے {{}} نے کھولی تھی۔", founder, other(rng, founder, p.FOUNDERS)
        ),
        _asked(f"{name} کی دکان کس سال کھلی تھی؟", f"{name} کی دکان {{}} میں کھلی تھی۔", year, year + rng.randint(1, 9)),
        _asked(f"{name} کی دکان صبح کتنے بجے کھلتی ہے؟", "دکان صبح {} بجے کھلتی ہے۔", opens, near(rng, opens)),
        _asked(f"{name} کی دکان کس دن بند رہتی ہے؟", f"{name} کی دکان {{}} کو بند رہتی ہے۔", day, other(rng, day, w.DAYS)),
        _asked(f"{name} کی دکان پر کتنے ملازم ہیں؟", f"{name} کی دکان پر {{}} ملازم ہیں۔", staff, near(rng, staff)),
    ]


def _contest(rng: random.Random) -> Passage:
    city, day, contest = rng.choice(w.CITIES), rng.choice(w.DAYS), rng.choice(p.CONTESTS)
    first, second, third = rng.sample(w.NAMES, 3)
    (prizes, given), guest, pupils = rng.choice(p.PRIZES), rng.choice(p.GUESTS), rng.randint(8, 60)
    text = (
        f"{city} کے ایک اسکول میں {day} کو {contest} ہوا جس میں {pupils} طلبہ نے حصہ لیا۔ "
        f"پہلا انعام {first} نے جیتا، دوسرا {second} نے اور تیسرا {third} نے۔ جیتنے والوں کو {prizes} {given}۔ "
        f"مہمان خصوصی {guest} تھے جنہوں نے اپنی تقریر میں محنت کی اہمیت بیان کی۔ {' '.join(rng.sample(p.CONTEST_ENDS, 2))}"
    )
    others = [f"{what} {verb}" for what, verb in p.PRIZES]
    return text, [
        _asked(f"{city} کے مقابلے میں پہلا انعام کس نے جیتا؟", "پہلا انعام {} نے جیتا۔", first, rng.choice((second, third))),
        _asked(f"{city} کے اسکول میں دوسرا انعام کسے ملا؟", "دوسرا انعام {} کو ملا۔", second, rng.choice((first, third))),
        _asked(f"{city} کے اسکول کے مقابلے میں کتنے طلبہ تھے؟", "اس میں {} طلبہ تھے۔", pupils, near(rng, pupils)),
        _asked(f"{city} کے اسکول میں مہمان خصوصی کون تھے؟", "مہمان خصوصی {} تھے۔", guest, other(rng, guest, p.GUESTS)),
        _asked(f"{first} اور {second} نے کس دن مقابلے میں حصہ لیا؟", "یہ مقابلہ {} کو ہوا۔", day, other(rng, day, w.DAYS)),
        _asked(
            f"{first} اور دوسرے جیتنے والوں کو کیا دیا گیا؟",
            "جیتنے والوں کو {}۔",
            f"{prizes} {given}",
            other(rng, f"{prizes} {given}", others),
        ),
    ]


def _farm(rng: random.Random) -> Passage:
    name, city, water, helper = rng.choice(w.MALE), rng.choice(w.CITIES), rng.choice(p.WATERS), rng.choice(p.HELPERS)
    (crop, grown), (second, also_grown) = rng.sample(p.CROPS, 2)
    acres = rng.randint(6, 25)
    part = rng.randint(2, acres - 3)
    text = (
        f"{name} {city} کے قریب ایک گاؤں میں رہتا ہے اور کھیتی باڑی کرتا ہے۔ اس کے پاس {acres} ایکڑ زمین ہے۔ "
        f"اس سال اس نے {part} ایکڑ پر {crop} {grown} اور باقی زمین پر {second} {also_grown}۔ "
        f"کھیتوں کو {water} کا پانی ملتا ہے اور کام میں اس کا {helper} ہاتھ بٹاتا ہے۔ {' '.join(rng.sample(p.FARM_ENDS, 2))}"
    )
    wrong_crop = " ".join(rng.choice([row for row in p.CROPS if row[0] not in (crop, second)]))
    return text, [
        _asked(f"{name} کے پاس کتنے ایکڑ زمین ہے؟", f"{name} کے پاس {{}} ایکڑ زمین ہے۔", acres, near(rng, acres)),
        _asked(f"{name} نے باقی زمین پر کیا لگایا؟", f"باقی زمین پر {name} نے {{}}۔", f"{second} {also_grown}", wrong_crop),
        _asked(f"{second} کے لیے {name} کی کتنی زمین بچی؟", f"{second} کے لیے {{}} ایکڑ زمین بچی۔", acres - part, acres),
        _asked(f"{name} کے کھیتوں کو پانی کہاں سے ملتا ہے؟", "کھیتوں کو {} کا پانی ملتا ہے۔", water, other(rng, water, p.WATERS)),
        _asked(f"کام میں {name} کا ہاتھ کون بٹاتا ہے؟", "کام میں اس کا {} ہاتھ بٹاتا ہے۔", helper, other(rng, helper, p.HELPERS)),
    ]


def _library(rng: random.Random) -> Passage:
    (name, sex), city, day = person(rng), rng.choice(w.CITIES), rng.choice(w.DAYS)
    books, lent, days, fee = rng.randint(2, 20), rng.randint(2, 5), rng.choice((7, 10, 14, 15)), 100 * rng.randint(2, 15)
    fine = rng.choice((5, 10, 20))
    text = (
        f"{city} کے ایک محلے کے کتب خانے میں {books} ہزار کتابیں ہیں۔ رکن ایک وقت میں {lent} کتابیں {days} دن کے لیے گھر لے جا "
        f"سکتے ہیں۔ دیر سے لوٹانے پر ہر دن کے {fine} روپے دینے پڑتے ہیں۔ رکنیت کی سالانہ فیس {fee} روپے ہے۔ "
        f"کتب خانہ {day} کو بند رہتا ہے اور اس کی نگرانی {name} {by(sex, 'کرتے', 'کرتی')} ہیں۔ {rng.choice(p.LIBRARY_ENDS)}"
    )
    here = f"{city} کے اس کتب خانے"
    return text, [
        _asked(f"{here} میں کتنی کتابیں ہیں؟", "کتب خانے میں {} ہزار کتابیں ہیں۔", books, near(rng, books)),
        _asked(f"{here} کا رکن ایک وقت میں کتنی کتابیں لے سکتا ہے؟", "رکن ایک وقت میں {} کتابیں لے سکتا ہے۔", lent, lent + 3),
        _asked(f"{here} سے کتاب کتنے دن کے لیے ملتی ہے؟", "کتاب {} دن کے لیے ملتی ہے۔", days, days + 6),
        _asked(f"{here} کی سالانہ فیس کتنی ہے؟", "سالانہ فیس {} روپے ہے۔", fee, fee + 100 * rng.randint(1, 5)),
        _asked(f"{here} میں دیر کا جرمانہ کتنا ہے؟", "دیر پر ہر دن کے {} روپے دینے پڑتے ہیں۔", fine, fine + 15),
        _asked(f"{here} کی نگرانی کون کرتا ہے؟", "کتب خانے کی نگرانی {} کے ذمے ہے۔", name, other(rng, name, w.NAMES)),
    ]


def _pet(rng: random.Random) -> Passage:
    name, giver, (animal, pet, sex, likes, bed) = rng.choice(w.NAMES), rng.choice(w.FAMILY), rng.choice(p.PETS)
    years, when = rng.randint(2, 9), rng.choice(("پچھلے سال", "عید پر", "سالگرہ پر", "گرمیوں کی چھٹیوں میں", "امتحان کے بعد"))
    text = (
        f"{name} کے گھر میں ایک {animal} ہے جس کا نام {pet} ہے۔ اسے {giver} نے {when} تحفے میں دیا تھا۔ "
        f"{pet} کی عمر {years} سال ہے۔ اسے {likes} اور وہ رات کو {bed} {by(sex, 'سوتا', 'سوتی')} ہے۔ "
        f"{name} روز صبح اس کے برتن میں تازہ پانی ڈالنا نہیں {'بھولتا' if name in w.MALE else 'بھولتی'}۔ "
        f"{' '.join(rng.sample(p.PET_ENDS, 2))}"
    )
    names, foods, beds = ([row[k] for row in p.PETS] for k in (1, 3, 4))
    sleeps = by(sex, "سوتا", "سوتی")
    gave = f"{pet} کو {{}} نے تحفے میں دیا تھا۔"
    return text, [
        _asked(f"{name} کے گھر کے جانور کا نام کیا ہے؟", "اس کا نام {} ہے۔", pet, other(rng, pet, names)),
        _asked(f"{name} کو {pet} کا تحفہ کس نے دیا تھا؟", gave, giver, other(rng, giver, w.FAMILY)),
        _asked(f"{name} کے گھر میں {pet} کی عمر کتنی ہے؟", f"{pet} کی عمر {{}} سال ہے۔", years, near(rng, years)),
        _asked(f"{name} {by(sex, 'کے', 'کی')} {pet} کو کیا پسند ہے؟", f"{pet} کو {{}}۔", likes, other(rng, likes, foods)),
        _asked(f"{name} کے گھر میں {pet} رات کو کہاں {sleeps} ہے؟", f"{pet} رات کو {{}} {sleeps} ہے۔", bed, other(rng, bed, beds)),
    ]


def _illness(rng: random.Random) -> Passage:
    (name, sex), city, day = person(rng), rng.choice(w.CITIES), rng.choice(w.DAYS)
    ill, advised, doses, away = rng.choice(p.ILLNESSES), rng.choice(p.ADVISED), rng.randint(3, 10), rng.randint(2, 6)
    text = (
        f"{rng.choice(p.LONG_AGO)} {name} کو {ill} کی شکایت ہوئی۔ گھر والے اسے {city} کے ایک ہسپتال لے گئے۔ "
        f"ڈاکٹر نے معائنہ کر کے {doses} دن کی دوا دی اور {advised} کا مشورہ دیا۔ اسے {away} دن اسکول سے چھٹی کرنی پڑی۔ "
        f"{rng.choice(p.ILLNESS_CARE)} "
        f"{day} کو وہ پھر اسکول {by(sex, 'گیا', 'گئی')} تو سب نے خوشی سے استقبال کیا۔ {rng.choice(p.ILLNESS_ENDS)}"
    )
    return text, [
        _asked(f"{name} کو کیا شکایت تھی؟", f"{name} کو {{}} کی شکایت تھی۔", ill, other(rng, ill, p.ILLNESSES)),
        _asked(f"{name} کو کہاں کے ہسپتال لے جایا گیا؟", "اسے {} کے ہسپتال لے جایا گیا۔", city, other(rng, city, w.CITIES)),
        _asked(f"ڈاکٹر نے {name} کو کتنے دن کی دوا دی؟", "ڈاکٹر نے {} دن کی دوا دی۔", doses, near(rng, doses)),
        _asked(f"ڈاکٹر نے {name} کو کیا مشورہ دیا؟", "ڈاکٹر نے {} کا مشورہ دیا۔", advised, other(rng, advised, p.ADVISED)),
        _asked(f"{name} کو اسکول سے کتنے دن کی چھٹی کرنی پڑی؟", f"{name} کو {{}} دن کی چھٹی کرنی پڑی۔", away, near(rng, away)),
    ]


PASSAGES: tuple[Callable[[random.Random], Passage], ...] = (_trip, _shop, _contest, _farm, _library, _pet, _illness)


def wrong_language(rng: random.Random, words: int = 1) -> str:
    """An answer of `words` words or more (if there are so many) in English, Persian or Hindi, about nothing of the item."""
    english = (*bilingual.ENGLISH_ANSWERS["question_answering"], *bilingual.ENGLISH_ANSWERS["ethics"])
    sentences = list(rng.choice((english, english, bilingual.PERSIAN_ANSWERS, bilingual.HINDI_ANSWERS)))
    rng.shuffle(sentences)
    answer = sentences.pop()
    while sentences and len(answer.split()) < words:
        answer += f" {sentences.pop()}"
    return answer


def reading_comprehension(rng: random.Random) -> Item:
    """A passage of five to eight sentences and a question; unfaithful: the same sentence with something else in it."""
    text, questions = rng.choice(PASSAGES)(rng)
    asked, style, reader, use = rng.choice(questions), rng.choice(p.READ_STYLES), rng.choice(w.NAMES), rng.choice(p.READ_FOR)
    when, place, family, day = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.FAMILY), rng.choice(w.DAYS)
    instruction = rng.choice((
        f"{reader} نے {when} {place} یہ عبارت پڑھی۔ اس کے سوال کا جواب دیں: {asked.question} {style}",
        f"یہ عبارت {use} کے لیے ہے۔ {family} نے {reader} سے پوچھا ہے: {asked.question} {style}",
        f"{when} {family} نے {reader} کو یہ عبارت سنا کر سوال کیا: {asked.question} {style}",
        f"{asked.question} {rng.choice(w.RELATIVES)} نے {place} یہ عبارت دکھا کر یہی پوچھا تھا۔ {style}",
        f"{day} کو {reader} کے سامنے {use} کے لیے یہ عبارت آئی۔ {asked.question} {style}",
        f"عبارت پڑھ کر {reader} کو بتائیں: {asked.question} {day} تک اسے {use} کے لیے جواب چاہیے۔ {style}",
    ))  # fmt: skip
    faults = {"unfaithful": asked.unfaithful, "wrong_language": wrong_language(rng)}
    return Item(instruction, text, asked.answer, asked.right, faults)


def _asker(rng: random.Random) -> str:
    """Who wants a summary, and what for."""
    (name, second), use, day = rng.sample(w.NAMES, 2), rng.choice(p.SUM_FOR), rng.choice(w.DAYS)
    when, place, relative = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.RELATIVES)
    return rng.choice((
        f"{when} {relative} نے {place} مجھے یہ خبر پڑھنے کو دی۔",
        f"{name} کو {day} تک {use} کے لیے ایک مختصر خبر چاہیے۔",
        f"{rng.choice(w.FAMILY)} نے {when} {name} سے کہا کہ یہ خبر {use} کے لیے مختصر کرو۔",
        f"{name} اور {second} کی {when} {place} اسی خبر پر بات ہوئی۔",
        f"{name} کو {when} {place} پوری خبر پڑھنے کا وقت نہ ملا۔",
        f"{relative} نے {day} کو {use} کے لیے یہ خبر بھیجی۔",
    ))  # fmt: skip


def summarisation(rng: random.Random) -> Item:
    """News of five or six sentences; the gist is its first and its last; unfaithful: another town and another number."""
    about = rng.choice(tuple(p.NEWS))
    happened, gist, more, ending, in_short, (low, high) = p.NEWS[about]
    city, day, number = rng.choice(w.CITIES), rng.choice(w.DAYS), rng.randint(low, high)
    details = rng.sample(more, rng.randint(3, 4))
    text = " ".join([happened.format(city=city, day=day, n=number), *details, ending])
    right = f"{gist.format(city=city, day=day, n=number)}۔ {in_short}"
    how = rng.choice(p.SUM_UP)
    elsewhere = gist.format(city=other(rng, city, w.CITIES), day=other(rng, day, w.DAYS), n=number + near(rng, number))
    asked = [_asker(rng), rng.choice((
        f"خبر {city} سے {about} کے بارے میں ہے۔",
        f"خبر {about} کی ہے اور {city} سے آئی ہے۔",
        f"اس خبر میں {city} کے نامہ نگار نے {about} کا حال لکھا ہے۔",
        f"نیچے {about} کے بارے میں {city} کی ایک رپورٹ ہے۔",
    ))]  # fmt: skip
    instruction = " ".join([*(asked if rng.random() < 0.5 else reversed(asked)), how])
    faults = {"unfaithful": f"{elsewhere}۔ {in_short}", "wrong_language": wrong_language(rng)}
    return Item(instruction, text, right, None, faults)
