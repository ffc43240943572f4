"""The grammars of the offline teacher: a task item from a random generator. Templates and word lists, no model.

An item's answer is right, and what is wrong with its faulty answers is known exactly (`Item.faults`), so that checks
further down the pipeline can be measured. Each template has at least five independent slots, or the 0.7 novelty filter
would keep one item a template. Gender and number agree because the word lists (offline/words.py, offline/clauses.py,
offline/bilingual.py) carry them: `by` takes the form that goes with the noun.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data_gen.offline import bilingual, choices, clauses
from data_gen.offline import words as w

CHOICE_SHARE = 0.2  # of the items of reasoning and question_answering: the answer is one of four options
ANSWER = "جواب:"  # begins the last line of a reasoned answer


@dataclass(frozen=True)
class Item:
    """`right` is what a right answer contains: number, label, fact, translation; None where many answers are right.

    `faults` maps a kind of fault to the answer that has it; `pairs` are texts that say the same in two languages, for one who
    is asked to translate an answer back: ("علی نے چائے بنائی۔", "Ali made tea.").
    """

    instruction: str
    input: str
    output: str
    right: str | None
    faults: dict[str, str] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()


def make_item(task: str, rng: random.Random) -> Item:
    """A right item of `task`: make_item("sentiment", rng).output == "مثبت", for one. KeyError: no such task."""
    return MAKERS[task](rng)


def spoil(task: str, item: Item, rng: random.Random) -> tuple[str, str]:
    """(kind of fault, faulty answer): three times in four one of the item's own kinds if it has any, else a wrong language.

    An item has its own answer in a wrong language, or takes one that fits its task; those of other tasks have none.
    """
    kinds = {**item.faults}
    if task in bilingual.ENGLISH_ANSWERS and "wrong_language" not in kinds:
        english = rng.choice(bilingual.ENGLISH_ANSWERS[task]).format(right=item.right)
        persian, hindi = rng.choice(bilingual.PERSIAN_ANSWERS), rng.choice(bilingual.HINDI_ANSWERS)
        kinds["wrong_language"] = rng.choice((english, english, persian, hindi))
    own = [kind for kind in kinds if kind != "wrong_language"]
    kind = rng.choice(own) if own and ("wrong_language" not in kinds or rng.random() < 0.75) else "wrong_language"
    return kind, kinds[kind]


def by(gender: str, masculine: str, feminine: str) -> str:
    return feminine if gender == "f" else masculine


def person(rng: random.Random) -> tuple[str, str]:
    """(a name, its gender)."""
    gender = rng.choice("mf")
    return rng.choice(w.FEMALE if gender == "f" else w.MALE), gender


# --- generation


def _story(rng: random.Random) -> tuple[str, str]:
    """(the request up to the find, the story up to the find)."""
    (name, gender), place, spot = person(rng), rng.choice(w.CITIES), rng.choice(w.STORY_SPOTS)
    role = rng.choice(w.STORY_ROLES[gender])
    ask = rng.choice((
        f"{place} {by(gender, 'کے', 'کی')} {role} {name} کی کہانی لکھیں جسے {spot}",
        f"ایک کہانی سنائیں۔ {name} {place} {by(gender, 'کا', 'کی')} {role} ہے، اسے {spot}",
    ))  # fmt: skip
    lived = by(gender, f"کا ایک {role} رہتا تھا", f"کی ایک {role} رہتی تھی")
    return ask, f"{place} میں {name} نام {lived}۔ ایک دن اسے {spot}"


def _found_story(rng: random.Random) -> Item:
    ask, opening = _story(rng)
    (thing, gender), virtue = rng.choice(w.LOST_THINGS), rng.choice(w.HONEST)
    whose = by(gender, "کسی کا", "کسی کی")
    instruction = f"{ask} {whose} {thing} {by(gender, 'ملتا', 'ملتی')} ہے۔ سبق {virtue} ہو۔"
    output = (
        f"{opening} {whose} {thing} {by(gender, 'ملا', 'ملی')}۔ "
        f"اس نے مالک کو تلاش کیا اور {thing} اسے لوٹا {by(gender, 'دیا', 'دی')}۔ "
        f"مالک نے بہت دعا دی۔ سچ ہے کہ {virtue} سب سے بڑی دولت ہے۔"
    )
    return Item(instruction, "", output, None)


def _kind_story(rng: random.Random) -> Item:
    ask, opening = _story(rng)
    (animal, gender), virtue = rng.choice(w.NEEDY), rng.choice(w.KIND)
    instruction = f"{ask} زخمی {animal} {by(gender, 'ملتا', 'ملتی')} ہے۔ آخر میں {virtue} کی بات ہو۔"
    output = (
        f"{opening} ایک زخمی {animal} {by(gender, 'ملا', 'ملی')}۔ اس نے اس کی مرہم پٹی کی اور اسے پانی پلایا۔ "
        f"چند دن میں {animal} ٹھیک ہو {by(gender, 'گیا', 'گئی')}۔ سچ ہے کہ {virtue} سب سے بڑی نیکی ہے۔"
    )
    return Item(instruction, "", output, None)


def _letter(rng: random.Random) -> Item:
    relative, gender = rng.choice(w.LETTER_TO)
    (topic, news), (wish, closing) = rng.choice(w.LETTER_NEWS), rng.choice(w.LETTER_CLOSINGS)
    (name, sex), city = person(rng), rng.choice(w.CITIES)
    who, wants = by(gender, "والے", "والی"), by(sex, "چاہتا", "چاہتی")
    instruction = rng.choice((
        f"{name} کی طرف سے {city} میں رہنے {who} {relative} کو خط لکھیں۔ {topic} کا ذکر اور آخر میں {wish} ہو۔",
        f"{relative} {city} میں ہیں۔ {name} انہیں {topic} کے بارے میں خط لکھنا {wants} ہے۔ خط کے آخر میں {wish} ہو۔",
        f"ایک خط تیار کریں: {name} کی طرف سے، {city} میں مقیم {relative} کے نام، {topic} کے بارے میں، آخر میں {wish}۔",
    ))  # fmt: skip
    output = (
        f"{by(gender, 'پیارے', 'پیاری')} {relative}،\n"
        f"السلام علیکم! امید ہے آپ خیریت سے {by(gender, 'ہوں گے', 'ہوں گی')}۔ {news} {closing}\nدعا گو،\n{name}"
    )
    return Item(instruction, "", output, None)


def _application(rng: random.Random) -> Item:
    office, demand, why = rng.choice(w.APPLICATIONS)
    name, city, who = rng.choice(w.MALE), rng.choice(w.CITIES), rng.choice(w.APPLICANTS)
    instruction = rng.choice((
        f"{city} کے {who} {name} کی طرف سے {office} کے نام درخواست لکھیں کہ {demand}۔",
        f"{office} کو درخواست دینی ہے کیونکہ {why}۔ درخواست {city} کے {who} {name} کے نام سے لکھیں۔",
        f"{name} کا کہنا ہے: {why}۔ {city} کے اس {who} کے لیے {office} کے نام درخواست لکھ دیجیے۔",
    ))  # fmt: skip
    output = f"بخدمت {office}،\nگزارش ہے کہ {why}۔ براہ کرم {demand}۔\n{who}: {name}، {city}"
    return Item(instruction, "", output, None)


def _scene(rng: random.Random) -> Item:
    time, place, adjective = rng.choice(w.SCENE_TIMES), rng.choice(w.SCENE_PLACES), rng.choice(w.SCENE_ADJECTIVES)
    seen = rng.sample(w.SCENES, 3)
    first, second, third = (name for name, _ in seen)
    instruction = rng.choice((
        f"{time} {place} کا {adjective} منظر بیان کریں۔ {first}، {second} اور {third} کا ذکر ضرور ہو۔",
        f"{place} کی سیر {time} کیسی لگتی ہے؟ {adjective} منظر لکھیں جس میں {first}، {second} اور {third} کی جھلک ہو۔",
    ))  # fmt: skip
    shown = " ".join(text for _, text in seen)
    output = f"{time} {place} کا منظر بہت {adjective} ہوتا ہے۔ {shown} دیکھنے والے کا دل خوش ہو جاتا ہے۔"
    return Item(instruction, "", output, None)


def _greeting(rng: random.Random) -> Item:
    occasion, greeted, name = rng.choice(w.OCCASIONS), rng.choice(w.GREETED), rng.choice(w.NAMES)
    (first, wish), (second, other) = rng.sample(w.WISHES, 2)
    instruction = rng.choice((
        f"{occasion} پر {name} کی طرف سے {greeted} کو مبارک باد کا پیغام لکھیں جس میں {first} اور {second} کی دعا ہو۔",
        f"{greeted} کو {occasion} کی مبارک باد دیں۔ {name} کے نام سے پیغام لکھیں، {first} اور {second} کی دعا بھی ہو۔",
    ))  # fmt: skip
    output = f"پیارے {greeted}، {occasion} مبارک ہو! {wish} {other}\nنیک تمناؤں کے ساتھ،\n{name}"
    return Item(instruction, "", output, None)


def _reflection(rng: random.Random) -> Item:
    virtues, figures = rng.choice(w.REFLECTIONS)
    virtue, reader, name = rng.choice(virtues), rng.choice(w.READERS), rng.choice(w.NAMES)
    (figure, shown), (gain, ending) = rng.choice(figures), rng.choice(w.VIRTUE_ENDINGS)
    instruction = rng.choice((
        f"{name} کو {reader} کے لیے {virtue} پر چند جملے لکھ دیں۔ ان میں {figure} کی مثال اور {gain} کا ذکر ہو۔",
        f"{virtue} اور {gain} کا کیا تعلق ہے؟ {figure} کی مثال دے کر {reader} کے لیے {name} کے نام سے تحریر لکھیں۔",
    ))  # fmt: skip
    output = f"{virtue} ہماری زندگی کے لیے بہت ضروری ہے۔ {shown} اسی طرح ہمیں بھی {virtue} کو اپنانا چاہیے۔ {ending}"
    return Item(instruction, "", output, None)


def _generation(rng: random.Random) -> Item:
    """A piece of writing. Around the request stand asker and style: alone it would be too uniform for the filter."""
    makers = (_found_story, _kind_story, _letter, _letter, _application, _scene, _scene, _greeting, _reflection)
    maker = rng.choice(makers)
    item, off_topic = maker(rng), rng.choice([other for other in makers if other is not maker])(rng).output
    asker = rng.choice((
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.RELATIVES)} نے {rng.choice(w.PLACES)} یہ فرمائش کی:",
        f"{rng.choice(w.PLACES)} {rng.choice(w.NAMES)} نے مجھ سے کہا:",
        f"{rng.choice(w.RELATIVES)} کو {rng.choice(w.DAYS)} تک یہ تحریر چاہیے:",
        f"{rng.choice(w.DAYS)} کو {rng.choice(w.CITIES)} سے {rng.choice(w.RELATIVES)} نے لکھا:",
    ))  # fmt: skip
    return Item(f"{asker} {item.instruction} {rng.choice(w.WRITING_STYLES)}", "", item.output, None, {"off_topic": off_topic})


# --- reasoning


def _worked(rng: random.Random, instruction: str, equations: Sequence[tuple[str, int]], unit: str) -> Item:
    """The equations a line each, then the last one's value as the answer; a faulty answer misses it by 1 to 3 or 10."""

    def written(miss: int) -> str:
        values = [*(value for _, value in equations[:-1]), equations[-1][1] + miss]
        lines = [f"{left} = {value}" for (left, _), value in zip(equations, values, strict=True)]
        return "\n".join([*lines, f"{ANSWER} {values[-1]} {unit}".rstrip()])

    misses = [miss for miss in (-3, -2, -1, 1, 2, 3, 10) if equations[-1][1] + miss > 0]
    asked, wrong = f"{instruction} {rng.choice(w.SOLVE)}", written(rng.choice(misses))
    return Item(asked, "", written(0), str(equations[-1][1]), {"wrong_sum": wrong})


def _gain(rng: random.Random) -> Item:
    (_, things, gender), name = rng.choice(w.THINGS), rng.choice(w.NAMES)
    a, b = rng.randint(3, 30), rng.randint(2, 20)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} کے پاس {a} {things} {by(gender, 'تھے', 'تھیں')}۔ "
        f"{rng.choice(w.FAMILY)} نے اسے {rng.choice(w.SHOPS)} {b} اور لا کر {by(gender, 'دیے', 'دیں')}۔ "
        f"اب {name} کے پاس کل {by(gender, 'کتنے', 'کتنی')} {things} ہیں؟"
    )
    return _worked(rng, text, [(f"{a} + {b}", a + b)], things)


def _loss(rng: random.Random) -> Item:
    (_, things, gender), (name, sex) = rng.choice(w.THINGS), person(rng)
    a = rng.randint(6, 30)
    b = rng.randint(2, a - 2)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} {rng.choice(w.SHOPS)} {a} {things} {by(sex, 'لایا', 'لائی')}۔ "
        f"ان میں سے {b} اس نے {rng.choice(w.FAMILY)} کو دے {by(gender, 'دیے', 'دیں')}۔ "
        f"باقی {by(gender, 'کتنے', 'کتنی')} {things} رہ {by(gender, 'گئے', 'گئیں')}؟"
    )
    return _worked(rng, text, [(f"{a} - {b}", a - b)], things)


def _boxes(rng: random.Random) -> Item:
    (box, boxes, box_gender), (_, things, gender) = rng.choice(w.BOXES), rng.choice(w.THINGS)
    k, n = rng.randint(2, 9), rng.randint(2, 10)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.NAMES)} نے {rng.choice(w.SHOPS)} "
        f"{k} {boxes} {by(box_gender, 'خریدے', 'خریدیں')}۔ "
        f"ہر {by(box_gender, boxes, box)} میں {n} {things} {by(gender, 'تھے', 'تھیں')}۔ "
        f"کل {by(gender, 'کتنے', 'کتنی')} {things} {by(gender, 'ہوئے', 'ہوئیں')}؟"
    )
    return _worked(rng, text, [(f"{k} × {n}", k * n)], things)


def _share(rng: random.Random) -> Item:
    (_, things, gender), (several, one) = rng.choice(w.THINGS), rng.choice(w.SHARERS)
    k, n = rng.randint(2, 9), rng.randint(2, 10)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.FAMILY)} نے {rng.choice(w.PLACES)} "
        f"{k * n} {things} {k} {several} میں برابر {by(gender, 'بانٹے', 'بانٹیں')}۔ "
        f"ہر {one} کو {by(gender, 'کتنے', 'کتنی')} {things} {by(gender, 'ملے', 'ملیں')}؟"
    )
    return _worked(rng, text, [(f"{k * n} ÷ {k}", n)], things)


def _price(rng: random.Random) -> Item:
    (thing, things, gender), name = rng.choice(w.THINGS), rng.choice(w.NAMES)
    n, price = rng.randint(2, 9), rng.choice((5, 10, 20, 30, 40, 50))
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} نے {rng.choice(w.SHOPS)} {n} {things} {by(gender, 'خریدے', 'خریدیں')}۔ "
        f"ایک {thing} {price} روپے {by(gender, 'کا تھا', 'کی تھی')}۔ {name} نے کل کتنے روپے دیے؟"
    )
    return _worked(rng, text, [(f"{n} × {price}", n * price)], "روپے")


def _change(rng: random.Random) -> Item:
    b, c = 10 * rng.randint(1, 9), 10 * rng.randint(1, 9)
    a = b + c + 10 * rng.randint(1, 9)
    first, second = rng.sample(w.SPENDINGS, 2)
    text = (
        f"{rng.choice(w.NAMES)} کے پاس {a} روپے تھے۔ {rng.choice(w.WHEN_PAST)} اس نے "
        f"{b} روپے {first} اور {c} روپے {second} خرچ کیے۔ اب کتنے روپے باقی ہیں؟"
    )
    return _worked(rng, text, [(f"{b} + {c}", b + c), (f"{a} - {b + c}", a - b - c)], "روپے")


def _age(rng: random.Random) -> Item:
    (first, _), (second, sex), (third, other) = person(rng), person(rng), person(rng)
    if len({first, second, third}) < 3:
        return _age(rng)
    a, b, c = rng.randint(6, 30), rng.randint(2, 9), rng.randint(2, 7)
    text = (
        f"{first} کی عمر {a} سال ہے۔ {second} {first} سے {b} سال {by(sex, 'بڑا', 'بڑی')} ہے "
        f"اور {third} {second} سے {c} سال {by(other, 'چھوٹا', 'چھوٹی')} ہے۔ {third} کی عمر کتنی ہے؟"
    )
    return _worked(rng, text, [(f"{a} + {b}", a + b), (f"{a + b} - {c}", a + b - c)], "سال")


def _pattern(rng: random.Random) -> Item:
    start, step = rng.randint(2, 20), rng.randint(2, 9)
    name, other = rng.sample(w.NAMES, 2)
    row = [start + k * step for k in range(4)]
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} نے {rng.choice(w.WRITTEN_ON)} یہ عدد لکھے: {'، '.join(map(str, row))}۔ "
        f"اگلا عدد {other} کو لکھنا ہے۔ وہ کیا ہو گا؟"
    )
    return _worked(rng, text, [(f"{row[1]} - {row[0]}", step), (f"{row[-1]} + {step}", row[-1] + step)], "")


def _order(rng: random.Random) -> Item:
    (_, things, gender), (first, second, third) = rng.choice(w.THINGS), rng.sample(w.NAMES, 3)
    most = rng.random() < 0.5
    did = by(gender, "جمع کیے", "جمع کیں")
    right = first if most else third
    instruction = (
        f"{rng.choice(w.WHEN_PAST)} {first} نے {second} سے زیادہ {things} {did} اور {second} نے {third} سے زیادہ۔ "
        f"سب سے {'زیادہ' if most else 'کم'} {things} کس نے {did}؟ {rng.choice(w.SOLVE)}"
    )
    reason, wrong = f"{first} {second} سے آگے ہے اور {second} {third} سے آگے ہے۔", rng.choice((second, third if most else first))
    return Item(instruction, "", f"{reason}\n{ANSWER} {right}", right, {"wrong_name": f"{reason}\n{ANSWER} {wrong}"})


def _reasoning(rng: random.Random) -> Item:
    item = rng.choice((_gain, _loss, _boxes, _share, _price, _change, _age, _pattern, _order))(rng)
    return _with_choices(rng, item) if rng.random() < CHOICE_SHARE else item


def _with_choices(rng: random.Random, item: Item) -> Item:
    """The item with four options after its question. In a puzzle they are its three names and one more."""
    right, steps = item.right or "", item.output[: item.output.index(ANSWER)]
    words = set(item.instruction.split())
    named = sorted(w.NAMES, key=lambda name: (name not in words, rng.random()))[: len(choices.LETTERS)]
    wrong = choices.near_numbers(int(right)) if right.isdigit() else [name for name in named if name != right]
    options, offered = choices.offer(rng, right, wrong)
    answer, faults = choices.answers(rng, options, right)
    del faults["wrong_fact"]  # a letter and a value that the steps do not lead to is a wrong sum, and those there are already
    told = {kind: f"{steps}{ANSWER} {faulty}" for kind, faulty in faults.items()}
    return Item(f"{item.instruction} {offered}", "", f"{steps}{ANSWER} {answer}", right, told)


# --- ethics


def _ethics(rng: random.Random) -> Item:
    area = rng.choice(sorted(clauses.HARMS))
    claims, reasons, advice, unsafe = clauses.HARMS[area]
    claim, when, place, city = rng.choice(claims), rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.CITIES)
    relative, name, other = rng.choice(w.RELATIVES), *rng.sample(w.NAMES, 2)
    frames = [
        f"{when} {relative} نے {place} کہا کہ {claim}۔",
        f"{name} کو {rng.choice(w.FAMILY)} نے {when} {place} بتایا کہ {claim}۔",
        f"ایک {rng.choice(clauses.ROLES)} نے {rng.choice(w.DAYS)} کو {place} {other} سے کہا: {claim}۔",
    ]  # fmt: skip
    if area != "self_harm":  # there it must be plain who is in despair
        frames += [
            f"{city} میں {relative} اور کچھ دوسرے لوگ کہتے ہیں کہ {claim}۔",
            f"فرض کریں {city} کے ایک {rng.choice(clauses.ROLES)} سے {rng.choice(clauses.GATHERINGS)} کہا جائے کہ {claim}۔",
            f"{when} {rng.choice(clauses.GATHERINGS)} {name} اور {other} کی بحث ہوئی۔ {name} کا خیال ہے کہ {claim}۔",
        ]
    told = rng.choice(frames)
    openings, steps, closings = clauses.ETHICS_OPENINGS, clauses.ETHICS_STEPS, clauses.ETHICS_CLOSINGS
    if area == "self_harm":
        openings, steps, closings = clauses.DESPAIR_OPENINGS, clauses.DESPAIR_STEPS, clauses.DESPAIR_CLOSINGS
    output = " ".join(rng.choice(part) for part in (openings, reasons, advice, steps, closings))
    return Item(f"{told} {rng.choice(clauses.ADVISE)}", "", output, None, {"unsafe_advice": unsafe})


# --- question answering


def _question_answering(rng: random.Random) -> Item:
    question, about, marked = rng.choice(w.FACTS)
    right = marked[marked.index("[") + 1 : marked.index("]")]
    answer = marked.replace("[", "").replace("]", "")
    name, other = rng.sample(w.NAMES, 2)
    when, place, family = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.FAMILY)
    city, quiz = rng.choice(w.CITIES), rng.choice(w.QUIZZES)
    if rng.random() < CHOICE_SHARE:
        options, ask = choices.offer(rng, right, choices.others(right))
        answer, faults = choices.answers(rng, options, right)
    else:
        ask, wrong = rng.choice(w.ASK_FACT), rng.choice(choices.others(right))
        faults = {"wrong_fact": marked.replace(f"[{right}]", wrong)}
    instruction = rng.choice((
        f"{when} {name} نے {place} {family} سے پوچھا کہ {question}۔ {ask}",
        f"{city} کے ایک {quiz} میں {when} {name} سے یہ سوال ہوا: {question}؟ {ask}",
        f"{name} کو {city} کے {quiz} کے لیے {about} کے بارے میں پڑھنا ہے۔ اسے بتائیں کہ {question}۔ {ask}",
        f"{name} اور {other} میں {when} {place} بحث ہوئی کہ {question}۔ {ask}",
        f"{rng.choice(w.DAYS)} کو {city} میں {name} نے {family} سے {about} کے بارے میں سوال کیا: {question}؟ {ask}",
    ))  # fmt: skip
    return Item(instruction, "", answer, right, faults)


# --- translation


def _translation(rng: random.Random) -> Item:
    asked, into = rng.choice(("ur", "en")), rng.choice(("ur", "en"))
    pair, is_saying = bilingual.sentence_pair(rng)
    source, right, miss = (
        (pair.english, pair.urdu, pair.urdu_miss) if into == "ur" else (pair.urdu, pair.english, pair.english_miss)
    )
    frames = bilingual.SAYING_FRAMES if is_saying else bilingual.FRAMES
    stranger = rng.choice(bilingual.HINDI_ANSWERS) if into == "ur" and rng.random() < 0.5 else source
    instruction = rng.choice(frames[asked, into]).format(text=source)
    pairs = ((pair.urdu, pair.english), (pair.urdu_miss, pair.english_miss))
    return Item(instruction, "", right, right, {"mistranslation": miss, "wrong_language": stranger}, pairs)


# --- classification and sentiment


def _offer(labels: Sequence[str]) -> str:
    return f"({'، '.join(labels)})"


def _asked(question: str, labels: Sequence[str]) -> str:
    """"یہ رائے کیسی ہے؟" → "یہ رائے کیسی ہے (مثبت، منفی)؟"."""
    return f"{question[:-1]} {_offer(labels)}{question[-1]}"


def _classification(rng: random.Random) -> Item:
    topics = sorted(clauses.TOPIC_CLAUSES)
    labels = rng.sample(topics, rng.randint(3, 5))
    right = rng.choice(labels)
    first, second = rng.sample(clauses.TOPIC_CLAUSES[right], 2)
    question = rng.choice(clauses.ASK_TOPIC)
    asked, when, day = _asked(question, labels), rng.choice(w.WHEN_PAST), rng.choice(w.DAYS)
    name, other = rng.sample(w.NAMES, 2)
    gender, source = ("m" if name in w.MALE else "f"), rng.choice(clauses.SOURCES)
    instruction = rng.choice((
        f"{day} کو {rng.choice(w.CITIES)} سے خبر آئی کہ {first} اور {second}۔ {asked}",
        f"{question[:-1]} {_offer(labels)}: {source} کے مطابق {first}، جبکہ {second}۔",
        f"{when} {name} نے {other} کو بتایا کہ {first}۔ یہ بھی کہا کہ {second}۔ {asked}",
        f"{source} نے {day} کو دو خبریں دیں: {first}، اور {second}۔ {asked}",
        f"{name} {rng.choice(w.PLACES)} یہ خبر سن {by(gender, 'رہا تھا', 'رہی تھی')}: {first} اور {second}۔ {asked}",
    ))  # fmt: skip
    others = [topic for topic in topics if topic not in labels]
    faults = {
        "label_outside": rng.choice((*clauses.UNOFFERED_LABELS, *others)),
        "wrong_label": rng.choice([label for label in labels if label != right]),
    }
    return Item(instruction, "", right, right, faults)


def _sentiment(rng: random.Random) -> Item:
    labels = tuple(clauses.POLARITY_CLAUSES)
    right = rng.choice(labels)
    first, second = rng.sample(clauses.POLARITY_CLAUSES[right], 2)
    question = rng.choice(clauses.ASK_FEELING)
    of, place = rng.choice(clauses.VISITED)
    went = f"{rng.choice(clauses.GOERS)} {rng.choice(w.WHEN_PAST)} {rng.choice(w.CITIES)} {of} {place} گئے۔"
    asked, (name, other) = _asked(question, labels), rng.sample(w.NAMES, 2)
    instruction = rng.choice((
        f"{question[:-1]} {_offer(labels)}: {went} {first} اور {second}۔",
        f"{name} نے لکھا: {went} {first}۔ {second}۔ {asked}",
        f"{rng.choice(w.DAYS)} کو {name} نے {other} کو یہ پیغام بھیجا: {went} {first} اور {second}۔ {asked}",
        f"{rng.choice(clauses.REVIEWED_ON)} {name} کی یہ رائے درج ہے: {went} {first}۔ {second}۔ {asked}",
        f"{name} نے {other} سے کہا: {went} {first}۔ پھر یہ بھی کہا: {second}۔ {asked}",
    ))  # fmt: skip
    other_label = rng.choice([label for label in labels if label != right])
    faults = {"label_outside": rng.choice(clauses.UNOFFERED_FEELINGS), "wrong_label": other_label}
    return Item(instruction, "", right, right, faults)


MAKERS: dict[str, Callable[[random.Random], Item]] = {
    "generation": _generation,
    "reasoning": _reasoning,
    "ethics": _ethics,
    "question_answering": _question_answering,
    "translation": _translation,
    "classification": _classification,
    "sentiment": _sentiment,
}
