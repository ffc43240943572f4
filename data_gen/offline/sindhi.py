"""The offline teacher's Sindhi: the grammars of Alif's seven tasks for a second language. Templates and word lists, no model.

As in offline/grammar.py every item is right, what is wrong with its faulty answers is known, and gender and number agree because
the word lists (offline/sindhi_words.py) carry them. Nouns that stand before a postposition are in the oblique case there.
"""

import random
from collections.abc import Callable, Sequence

from data_gen.offline import sindhi_words as w
from data_gen.offline.grammar import Item, by


def _person(rng: random.Random) -> tuple[str, str]:
    gender = rng.choice("mf")
    return rng.choice(w.FEMALE if gender == "f" else w.MALE), gender


# --- generation


def _story(rng: random.Random) -> tuple[str, str]:
    (name, gender), city, spot = _person(rng), rng.choice(w.CITIES), rng.choice(w.SPOTS)
    role, (thing, kind), virtue = rng.choice(w.ROLES[gender]), rng.choice(w.LOST), rng.choice(w.VIRTUES)
    whose, lost = by(kind, "ڪنهن جو", "ڪنهن جي"), f"{spot} {by(kind, 'ڪنهن جو', 'ڪنهن جي')} {thing}"
    ask = rng.choice((
        f"{name} {city} {by(gender, 'جو', 'جي')} {role} آهي. کيس {lost} {by(kind, 'ملي ٿو', 'ملي ٿي')}. ان تي آکاڻي لکو، "
        f"جنهن جو سبق {virtue} هجي.",
        f"{virtue} جي باري ۾ آکاڻي ٻڌايو: {city} ۾ {role} {name} کي {spot} {whose} {thing} هٿ {by(kind, 'اچي ٿو', 'اچي ٿي')}.",
    ))  # fmt: skip
    told = (
        f"{city} ۾ {name} نالي هڪ {role} {by(gender, 'رهندو هو', 'رهندي هئي')}. هڪ ڏينهن کيس {lost} "
        f"{by(kind, 'مليو', 'ملي')}. هن گهڻن ماڻهن کان پڇا ڪئي ۽ نيٺ مالڪ کي ڳولي لڌو. مالڪ ڏاڍو خوش ٿيو ۽ کيس دعائون ڏنائين. "
        f"سچ آهي ته {virtue} سڀ کان وڏي دولت آهي."
    )
    return ask, told


def _letter(rng: random.Random) -> tuple[str, str]:
    (greeting, to), name, city = rng.choice(w.LETTER_TO), rng.choice(w.NAMES), rng.choice(w.CITIES)
    (topic, news), (wish, closing) = rng.choice(w.NEWS), rng.choice(w.CLOSINGS)
    ask = rng.choice((
        f"{name} پاران {city} ۾ رهندڙ {to} ڏانهن خط لکو. خط ۾ {topic} جو ذڪر هجي ۽ آخر ۾ {wish} هجي.",
        f"{to} ڏانهن {topic} بابت خط لکي ڏيو. خط {city} مان {name} جي نالي سان هجي ۽ {wish} تي ختم ٿئي.",
    ))  # fmt: skip
    return ask, f"{greeting}،\nالسلام عليڪم! اميد ته اوهان خيريت سان آهيو. {news} {closing}\nدعاگو،\n{name}"


def _scene(rng: random.Random) -> tuple[str, str]:
    time, place, seen = rng.choice(w.TIMES), rng.choice(w.SCENE_PLACES), rng.sample(w.SCENES, 3)
    first, second, third = (name for name, _ in seen)
    ask = rng.choice((
        f"{time} {place} جو منظر بيان ڪريو، جنهن ۾ {first}، {second} ۽ {third} جو ذڪر هجي.",
        f"{place} جو نظارو {time} ڪيئن لڳندو آهي؟ {first}، {second} ۽ {third} بابت به لکو.",
    ))  # fmt: skip
    return ask, f"{time} {place} جو منظر ڏاڍو سهڻو هوندو آهي. {' '.join(text for _, text in seen)} اهو ڏسي دل خوش ٿي ويندي آهي."


def _generation(rng: random.Random) -> Item:
    """A piece of writing; off the topic is the piece of another request."""
    makers = (_story, _letter, _scene)
    at = rng.randrange(len(makers))
    (ask, output), (_, other) = makers[at](rng), makers[at - 1](rng)
    asker = rng.choice((
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.SPEAKERS)} {rng.choice(w.PLACES)} مون کي چيو:",
        f"{rng.choice(w.NAMES)} کي {rng.choice(w.DAYS)} تائين هيءَ لکت کپي:",
        f"{rng.choice(w.DAYS)} جي ڏينهن {rng.choice(w.CITIES)} مان {rng.choice(w.NAMES)} هيءَ فرمائش موڪلي:",
    ))  # fmt: skip
    return Item(f"{asker} {ask} {rng.choice(w.STYLES)}", "", output, None, {"off_topic": other})


# --- reasoning


def _worked(rng: random.Random, instruction: str, equations: Sequence[tuple[str, int]], unit: str) -> Item:
    """The equations a line each, then the last one's value as the answer; a faulty answer misses it by 1 to 3 or 10."""

    def written(miss: int) -> str:
        values = [*(value for _, value in equations[:-1]), equations[-1][1] + miss]
        lines = [f"{left} = {value}" for (left, _), value in zip(equations, values, strict=True)]
        return "\n".join([*lines, f"جواب: {values[-1]} {unit}".rstrip()])

    misses = [miss for miss in (-3, -2, -1, 1, 2, 3, 10) if equations[-1][1] + miss > 0]
    asked, wrong = f"{instruction} {rng.choice(w.SOLVE)}", written(rng.choice(misses))
    return Item(asked, "", written(0), str(equations[-1][1]), {"wrong_sum": wrong})


def _gain(rng: random.Random) -> Item:
    (_, things, gender), name = rng.choice(w.THINGS), rng.choice(w.NAMES)
    a, b = rng.randint(3, 30), rng.randint(2, 20)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} وٽ {a} {things} {by(gender, 'هئا', 'هيون')}. "
        f"{rng.choice(w.FAMILY)} کيس {rng.choice(w.SHOPS)} {b} {by(gender, 'ٻيا وٺي ڏنا', 'ٻيون وٺي ڏنيون')}. "
        f"هاڻي {name} وٽ ڪل {by(gender, 'ڪيترا', 'ڪيتريون')} {things} آهن؟"
    )
    return _worked(rng, text, [(f"{a} + {b}", a + b)], things)


def _loss(rng: random.Random) -> Item:
    (_, things, gender), name = rng.choice(w.THINGS), rng.choice(w.NAMES)
    a = rng.randint(6, 30)
    b = rng.randint(2, a - 2)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} {rng.choice(w.SHOPS)} {a} {things} {by(gender, 'آندا', 'آنديون')}. "
        f"انهن مان {b} هن {rng.choice(w.RECEIVERS)} کي {by(gender, 'ڏنا', 'ڏنيون')}. "
        f"باقي {by(gender, 'ڪيترا', 'ڪيتريون')} {things} {by(gender, 'بچيا', 'بچيون')}؟"
    )
    return _worked(rng, text, [(f"{a} - {b}", a - b)], things)


def _boxes(rng: random.Random) -> Item:
    (box, boxes, box_gender), (_, things, gender) = rng.choice(w.BOXES), rng.choice(w.THINGS)
    k, n = rng.randint(2, 9), rng.randint(2, 10)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.NAMES)} {rng.choice(w.SHOPS)} {k} {boxes} "
        f"{by(box_gender, 'ورتا', 'ورتيون')}. هر {box} ۾ {n} {things} {by(gender, 'هئا', 'هيون')}. "
        f"ڪل {by(gender, 'ڪيترا', 'ڪيتريون')} {things} {by(gender, 'ٿيا', 'ٿيون')}؟"
    )
    return _worked(rng, text, [(f"{k} × {n}", k * n)], things)


def _share(rng: random.Random) -> Item:
    (_, things, gender), (one, several) = rng.choice(w.THINGS), rng.choice(w.SHARERS)
    k, n = rng.randint(2, 9), rng.randint(2, 10)
    text = (
        f"{rng.choice(w.WHEN_PAST)} {rng.choice(w.SPEAKERS)} {rng.choice(w.PLACES)} {k * n} {things} {k} {several} ۾ برابر "
        f"{by(gender, 'ورهايا', 'ورهايون')}. "
        f"هر {one} کي {by(gender, 'ڪيترا', 'ڪيتريون')} {things} {by(gender, 'مليا', 'مليون')}؟"
    )
    return _worked(rng, text, [(f"{k * n} ÷ {k}", n)], things)


def _price(rng: random.Random) -> Item:
    (thing, things, gender), name = rng.choice(w.THINGS), rng.choice(w.NAMES)
    n, price = rng.randint(2, 9), rng.choice((5, 10, 20, 30, 40, 50))
    text = (
        f"{rng.choice(w.WHEN_PAST)} {name} {rng.choice(w.SHOPS)} {n} {things} {by(gender, 'ورتا', 'ورتيون')}. "
        f"هر {thing} جي قيمت {price} روپيا هئي. {name} ڪل ڪيترا روپيا ڏنا؟"
    )
    return _worked(rng, text, [(f"{n} × {price}", n * price)], "روپيا")


def _change(rng: random.Random) -> Item:
    b, c = 10 * rng.randint(1, 9), 10 * rng.randint(1, 9)
    a = b + c + 10 * rng.randint(1, 9)
    first, second = rng.sample(w.SPENDINGS, 2)
    text = (
        f"{rng.choice(w.NAMES)} وٽ {a} روپيا هئا. {rng.choice(w.WHEN_PAST)} هن {b} روپيا {first} ۽ {c} روپيا {second} خرچ ڪيا. "
        "هاڻي ڪيترا روپيا بچيا آهن؟"
    )
    return _worked(rng, text, [(f"{b} + {c}", b + c), (f"{a} - {b + c}", a - b - c)], "روپيا")


def _age(rng: random.Random) -> Item:
    first, second, third = rng.sample(w.NAMES, 3)
    a, b, c = rng.randint(6, 30), rng.randint(2, 9), rng.randint(2, 7)
    sex, other = ("f" if name in w.FEMALE else "m" for name in (second, third))
    text = (
        f"{first} جي عمر {a} سال آهي. {second} {first} کان {b} سال {by(sex, 'وڏو', 'وڏي')} آهي "
        f"۽ {third} {second} کان {c} سال {by(other, 'ننڍو', 'ننڍي')} آهي. {third} جي عمر ڪيتري آهي؟"
    )
    return _worked(rng, text, [(f"{a} + {b}", a + b), (f"{a + b} - {c}", a + b - c)], "سال")


def _reasoning(rng: random.Random) -> Item:
    return rng.choice((_gain, _loss, _boxes, _share, _price, _change, _age))(rng)


# --- ethics and question answering


def _ethics(rng: random.Random) -> Item:
    claims, reasons, advice, unsafe = rng.choice(w.HARMS)
    claim, when, place, city = rng.choice(claims), rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.CITIES)
    speaker, (name, other) = rng.choice(w.SPEAKERS), rng.sample(w.NAMES, 2)
    told = rng.choice((
        f"{when} {speaker} {place} چيو ته {claim}.",
        f"{name} کي {speaker} {when} {place} ٻڌايو ته {claim}.",
        f"{when} {place} {name} ۽ {other} جو بحث ٿيو. {name} جو خيال آهي ته {claim}.",
        f"{city} ۾ ڪجهه ماڻهو چون ٿا ته {claim}. {name} {rng.choice(w.DAYS)} جي ڏينهن مون کان ان بابت پڇيو.",
        f"{rng.choice(w.DAYS)} جي ڏينهن {city} مان {other} لکيو ته {claim}.",
    ))  # fmt: skip
    answer = f"{rng.choice(w.OPENINGS)} {rng.choice(reasons)} {rng.choice(advice)} {rng.choice(w.ENDINGS)}"
    return Item(f"{told} {rng.choice(w.ADVISE)}", "", answer, None, {"unsafe_advice": unsafe})


def _question_answering(rng: random.Random) -> Item:
    question, answer, right, wrong = rng.choice(w.FACTS)
    (name, sex), other = _person(rng), rng.choice(w.NAMES)
    when, place, city = rng.choice(w.WHEN_PAST), rng.choice(w.PLACES), rng.choice(w.CITIES)
    quiz, ask = rng.choice(w.QUIZZES), rng.choice(w.ASK_FACT)
    instruction = rng.choice((
        f"{when} {name} {place} {rng.choice(w.RECEIVERS)} کان پڇيو ته {question}. {ask}",
        f"{city} جي {quiz} ۾ {when} {name} کان هي سوال پڇيو ويو: {question}؟ {ask}",
        f"{name} {city} جي {quiz} جي تياري ڪري {by(sex, 'رهيو', 'رهي')} آهي. کيس ٻڌايو ته {question}. {ask}",
        f"{rng.choice(w.DAYS)} جي ڏينهن {other} {city} مان لکي پڇيو: {question}؟ {ask}",
    ))  # fmt: skip
    return Item(instruction, "", answer.format(right), right, {"wrong_fact": answer.format(wrong)})


# --- translation


def _translation(rng: random.Random) -> Item:
    """A sentence of subject, time, place, action and clause; the mistranslation has another time and another place."""
    subject, (doing, done), clause = rng.choice(w.SUBJECTS), rng.choice(w.ACTIONS), rng.choice(w.CLAUSES)
    (time, other_time), (place, other_place) = rng.sample(w.HABITS, 2), rng.sample(w.WHERE, 2)

    def sindhi(when: str, where: str) -> str:
        return f"{subject[1]} {when} {where} {by(subject[2], f'{done}و', f'{done}ي')} آهي، {clause[1]}."

    def english(when: str, where: str) -> str:
        return f"{subject[0]} {doing} {where} {when}, {clause[0]}."

    into_sindhi = rng.random() < 0.5
    source, target = (english, sindhi) if into_sindhi else (sindhi, english)
    asked, answered = int(not into_sindhi), int(into_sindhi)
    right = target(time[answered], place[answered])
    miss = target(other_time[answered], other_place[answered])
    both = ((time, place), (other_time, other_place))
    pairs = tuple((sindhi(when[1], where[1]), english(when[0], where[0])) for when, where in both)
    frame = rng.choice(w.INTO_SINDHI if into_sindhi else w.INTO_ENGLISH)
    return Item(frame.format(text=source(time[asked], place[asked])), "", right, right, {"mistranslation": miss}, pairs)


# --- classification and sentiment


def _asked(question: str, labels: Sequence[str]) -> str:
    """"هيءَ راءِ ڪهڙي آهي؟" → "هيءَ راءِ ڪهڙي آهي (مثبت، منفي)؟"."""
    return f"{question[:-1]} ({'، '.join(labels)}){question[-1]}"


def _other(labels: Sequence[str], right: str, rng: random.Random) -> str:
    return rng.choice([label for label in labels if label != right])


def _classification(rng: random.Random) -> Item:
    topics = sorted(w.TOPIC_CLAUSES)
    labels = rng.sample(topics, rng.randint(3, 4))
    right = rng.choice(labels)
    first, second = rng.sample(w.TOPIC_CLAUSES[right], 2)
    asked, when, day = _asked(rng.choice(w.ASK_TOPIC), labels), rng.choice(w.WHEN_PAST), rng.choice(w.DAYS)
    (name, other), city, source = rng.sample(w.NAMES, 2), rng.choice(w.CITIES), rng.choice(w.SOURCES)
    instruction = rng.choice((
        f"{day} جي ڏينهن {city} مان خبر آئي ته {first} ۽ {second}. {asked}",
        f"{source} جي خبر موجب {first}، ۽ {second}. {asked}",
        f"{when} {name} {other} کي ٻڌايو ته {first}. هن اهو به چيو ته {second}. {asked}",
        f"{source} تي {day} جون ٻه خبرون هيون: {first}، ۽ {second}. {asked}",
    ))  # fmt: skip
    outside = rng.choice([*w.UNOFFERED_TOPICS, *(topic for topic in topics if topic not in labels)])
    return Item(instruction, "", right, right, {"label_outside": outside, "wrong_label": _other(labels, right, rng)})


def _sentiment(rng: random.Random) -> Item:
    labels = tuple(w.POLARITY_CLAUSES)
    right = rng.choice(labels)
    first, second = rng.sample(w.POLARITY_CLAUSES[right], 2)
    went = f"{rng.choice(w.GOERS)} {rng.choice(w.WHEN_PAST)} {rng.choice(w.CITIES)} جي {rng.choice(w.VISITED)} وياسين"
    asked, (name, other) = _asked(rng.choice(w.ASK_FEELING), labels), rng.sample(w.NAMES, 2)
    instruction = rng.choice((
        f"{name} جو چوڻ آهي: {went}. {first} ۽ {second}. {asked}",
        f"{rng.choice(w.DAYS)} جي ڏينهن {name} {other} ڏانهن هي پيغام موڪليو: {went}. {first}. {second}. {asked}",
        f"{name} {other} کي ٻڌايو: {went}. {first} ۽ {second}. {asked}",
        f"{rng.choice(w.REVIEWED_IN)} {name} جي هيءَ راءِ ڏنل آهي: {went}. {first}. {second}. {asked}",
    ))  # fmt: skip
    faults = {"label_outside": rng.choice(w.UNOFFERED_FEELINGS), "wrong_label": _other(labels, right, rng)}
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
