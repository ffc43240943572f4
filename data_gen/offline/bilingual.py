"""The offline teacher's bilingual grammar: a sentence in Urdu and in English from the same rows.

The rows carry what Urdu needs: the subject's form before نے, its gender and number, a past that agrees with the object.
Here too are the answers in a wrong language. Not a translator: it knows no sentence but its own.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_gen.offline.words import lines, table

SAYING_SHARE = 0.06  # of the items; there are few sayings, and the novelty filter refuses one that comes again
# Urdu subject | before نے | agreement: m f mp fp | English | s (he/she) or p (they/we)
SUBJECTS = table("""
    میرا بھائی | میرے بھائی | m | my brother | s
    میری بہن | میری بہن | f | my sister | s
    استاد | استاد | m | the teacher | s
    کسان | کسان | m | the farmer | s
    بچے | بچوں | mp | the children | p
    لڑکیاں | لڑکیوں | fp | the girls | p
    ہم | ہم | mp | we | p
    ہمارا پڑوسی | ہمارے پڑوسی | m | our neighbour | s
    علی | علی | m | Ali | s
    سارہ | سارہ | f | Sara | s
    فاطمہ | فاطمہ | f | Fatima | s
    بلال | بلال | m | Bilal | s
    وہ لڑکا | اس لڑکے | m | that boy | s
    وہ لڑکی | اس لڑکی | f | that girl | s
    میرے دوست | میرے دوستوں | mp | my friends | p
    طلبہ | طلبہ | mp | the students | p
    مزدور | مزدوروں | mp | the workers | p
    میری خالہ | میری خالہ | f | my aunt | s
    چھوٹا لڑکا | چھوٹے لڑکے | m | the little boy | s
    عورتیں | عورتوں | fp | the women | p
""")
# Urdu object | stem | subjunctive singular | plural | past | English base | third person | past | object | places
ACTIONS = table("""
    کتاب | پڑھ | پڑھے | پڑھیں | پڑھی | read | reads | read | a book | home school park library
    خط | لکھ | لکھے | لکھیں | لکھا | write | writes | wrote | a letter | home office school library
    چائے | بنا | بنائے | بنائیں | بنائی | make | makes | made | tea | home office kitchen
    کھانا | پکا | پکائے | پکائیں | پکایا | cook | cooks | cooked | food | home kitchen courtyard
    سبزیاں | خرید | خریدے | خریدیں | خریدیں | buy | buys | bought | vegetables | market village city
    دودھ | پی | پیے | پئیں | پیا | drink | drinks | drank | milk | home school kitchen village
    کپڑے | دھو | دھوئے | دھوئیں | دھوئے | wash | washes | washed | clothes | home courtyard river roof
    درخت | لگا | لگائے | لگائیں | لگائے | plant | plants | planted | trees | garden park school village
    اخبار | پڑھ | پڑھے | پڑھیں | پڑھا | read | reads | read | the newspaper | home office library park
    کرکٹ | کھیل | کھیلے | کھیلیں | کھیلی | play | plays | played | cricket | park school village field
    کہانی | سنا | سنائے | سنائیں | سنائی | tell | tells | told | a story | home school tree garden
    ریڈیو | سن | سنے | سنیں | سنا | listen to | listens to | listened to | the radio | home office roof garden
    روٹی | کھا | کھائے | کھائیں | کھائی | eat | eats | ate | bread | home kitchen field courtyard
    قمیص | خرید | خریدے | خریدیں | خریدی | buy | buys | bought | a shirt | market city
    پھل | بیچ | بیچے | بیچیں | بیچے | sell | sells | sold | fruit | market village city school_front
    نیا سبق | سیکھ | سیکھے | سیکھیں | سیکھا | learn | learns | learned | a new lesson | school home library
    ایک سوال | پوچھ | پوچھے | پوچھیں | پوچھا | ask | asks | asked | a question | school office library
    پھول | توڑ | توڑے | توڑیں | توڑے | pick | picks | picked | flowers | garden park village
    گاڑی | چلا | چلائے | چلائیں | چلائی | drive | drives | drove | a car | city village
    نظم | لکھ | لکھے | لکھیں | لکھی | write | writes | wrote | a poem | home school library garden
    مہمانوں کا استقبال | کر | کرے | کریں | کیا | welcome | welcomes | welcomed | the guests | home office school village
    فرش صاف | کر | کرے | کریں | کیا | clean | cleans | cleaned | the floor | home school office kitchen
    میز صاف | کر | کرے | کریں | کی | clean | cleans | cleaned | the table | home school office kitchen
    پتنگ | اڑا | اڑائے | اڑائیں | اڑائی | fly | flies | flew | a kite | roof park field village
    آم | کھا | کھائے | کھائیں | کھائے | eat | eats | ate | mangoes | home garden tree village
    پانی | پی | پیے | پئیں | پیا | drink | drinks | drank | water | home school river field
""")
TRANSLATION_PLACES = {
    "home": ("گھر میں", "at home"),
    "school": ("اسکول میں", "at school"),
    "park": ("پارک میں", "in the park"),
    "library": ("کتب خانے میں", "in the library"),
    "office": ("دفتر میں", "at the office"),
    "kitchen": ("باورچی خانے میں", "in the kitchen"),
    "courtyard": ("صحن میں", "in the courtyard"),
    "market": ("بازار میں", "in the market"),
    "village": ("گاؤں میں", "in the village"),
    "city": ("شہر میں", "in the city"),
    "garden": ("باغ میں", "in the garden"),
    "river": ("دریا کے کنارے", "by the river"),
    "roof": ("چھت پر", "on the roof"),
    "field": ("کھیت میں", "in the field"),
    "tree": ("درخت کے نیچے", "under the tree"),
    "school_front": ("اسکول کے سامنے", "in front of the school"),
}
# Urdu | English, by tense
TIMES = {
    "present": table("""
        ہر صبح | every morning
        ہر شام | every evening
        ہر روز | every day
        ہر جمعے کو | every Friday
        ہر اتوار کو | every Sunday
        ہر رات | every night
        سردیوں میں | in winter
        گرمیوں میں | in summer
        ہر دوپہر | every afternoon
        چھٹیوں میں | in the holidays
    """),
    "past": table("""
        کل شام | yesterday evening
        آج صبح | this morning
        پچھلے ہفتے | last week
        پیر کو | on Monday
        دو دن پہلے | two days ago
        بارش کے بعد | after the rain
        ناشتے سے پہلے | before breakfast
        پچھلے مہینے | last month
        عید پر | on Eid
        کل رات | last night
    """),
    "future": table("""
        کل صبح | tomorrow morning
        اگلے ہفتے | next week
        آج شام | this evening
        اتوار کو | on Sunday
        امتحان کے بعد | after the exam
        اگلے مہینے | next month
        عید سے پہلے | before Eid
        آج رات | tonight
        بدھ کو | on Wednesday
        کھانے کے بعد | after the meal
    """),
}
# Sayings that have a settled counterpart: Urdu | English
SAYINGS = table("""
    جیسا بوؤ گے ویسا کاٹو گے | as you sow, so shall you reap
    قطرہ قطرہ دریا بنتا ہے | many drops make a river
    اتحاد میں برکت ہے | unity is strength
    جہاں چاہ وہاں راہ | where there is a will, there is a way
    دیر آید درست آید | better late than never
    ناچ نہ جانے آنگن ٹیڑھا | a bad workman blames his tools
    ہر چمکتی چیز سونا نہیں ہوتی | all that glitters is not gold
    آنکھ اوجھل پہاڑ اوجھل | out of sight, out of mind
    جو گرجتے ہیں وہ برستے نہیں | barking dogs seldom bite
    جان ہے تو جہان ہے | health is wealth
    ایک پنتھ دو کاج | to kill two birds with one stone
    الٹا چور کوتوال کو ڈانٹے | the pot calling the kettle black
    نیم حکیم خطرہ جان | a little knowledge is a dangerous thing
    جیسا دیس ویسا بھیس | when in Rome, do as the Romans do
    سانچ کو آنچ نہیں | truth fears no test
    جس کی لاٹھی اس کی بھینس | might is right
""")
# Instruction frames: {text} is what is to be translated.
FRAMES = {
    ("ur", "ur"): lines("""
        اس جملے کا اردو میں ترجمہ کریں: {text}
        درج ذیل انگریزی عبارت کو اردو میں لکھیں: {text}
        اردو میں بتائیں کہ اس کا کیا مطلب ہے: {text}
        انگریزی سے اردو ترجمہ مطلوب ہے: {text}
        براہ کرم اسے سلیس اردو میں بدل دیں: {text}
        میرے دوست نے یہ لکھا ہے، اس کا اردو ترجمہ کر دیں: {text}
        استاد نے یہ جملہ اردو میں لکھنے کو کہا ہے: {text}
        یہ بات اردو میں کیسے کہیں گے؟ {text}
    """),
    ("en", "ur"): lines("""
        Translate into Urdu: {text}
        How do you say this in Urdu? {text}
        Please write the following sentence in Urdu: {text}
        Give a natural translation in Urdu of these words: {text}
        I need this line in Urdu for my letter: {text}
        My teacher asked me to put this into Urdu: {text}
        What would an Urdu speaker say in Urdu for this? {text}
        Turn the English below into Urdu: {text}
    """),
    ("ur", "en"): lines("""
        اس جملے کا انگریزی میں ترجمہ کریں: {text}
        درج ذیل بات کو انگریزی میں لکھیں: {text}
        یہ بات انگریزی میں کیسے کہیں گے؟ {text}
        انگریزی ترجمہ مطلوب ہے: {text}
        براہ کرم اسے آسان انگریزی میں بدل دیں: {text}
        میری سہیلی نے یہ لکھا ہے، اس کا انگریزی ترجمہ کر دیں: {text}
        استانی نے یہ جملہ انگریزی میں لکھنے کو کہا ہے: {text}
        ایک غیر ملکی دوست کے لیے انگریزی میں بتائیں: {text}
    """),
    ("en", "en"): lines("""
        Translate into English: {text}
        How do you say this in English? {text}
        Please write the following sentence in English: {text}
        Give a natural translation in English of these words: {text}
        I heard this in Lahore; put it in English: {text}
        What does my neighbour mean, in English? {text}
        Turn the Urdu below into English: {text}
        My class has to put this into English: {text}
    """),
}  # fmt: skip

# Frames for sayings, by (language of the instruction, direction).
SAYING_FRAMES = {
    ("ur", "ur"): lines("""
        اس انگریزی کہاوت کا با محاورہ اردو ترجمہ لکھیں: {text}
        انگریزی کی یہ کہاوت اردو میں کیسے کہتے ہیں؟ {text}
    """),
    ("en", "ur"): lines("""
        Give the Urdu proverb that is used in Urdu for: {text}
        Which saying matches this one in Urdu? {text}
    """),
    ("ur", "en"): lines("""
        اس اردو کہاوت کا با محاورہ انگریزی ترجمہ لکھیں: {text}
        اردو کی یہ کہاوت انگریزی میں کیسے کہتے ہیں؟ {text}
    """),
    ("en", "en"): lines("""
        Give the proverb that is used in English for: {text}
        Which saying matches this one in English? {text}
    """),
}  # fmt: skip

# --- answers in a wrong language: {right} is the right answer's short form where there is one
ENGLISH_ANSWERS = {
    "generation": lines("""
        Dear friend, I hope this letter finds you well. Please write back soon.
        Once upon a time there was a kind man who helped everyone in his village.
        The evening was calm and the birds were returning to their nests.
    """),
    "reasoning": lines("""
        If we do the sum step by step we get the result. Answer: {right}
        The answer is {right}, because we add up everything that is given.
    """),
    "ethics": lines("""
        No, this is wrong, and you should talk to someone you trust about it.
        You should not do this, because it harms other people.
    """),
    "question_answering": lines("""
        This is a well known fact that every pupil learns at school.
        The correct answer can be found in any good encyclopedia.
    """),
}  # fmt: skip
PERSIAN_ANSWERS = lines("""
    بهتر است پیش از هر کاری با یک فرد آگاه مشورت کنید.
    این پرسش را باید با دقت بیشتری بررسی کرد.
    پاسخ درست در کتاب درسی نوشته شده است.
    متاسفانه اطلاعات کافی در این باره ندارم.
""")
HINDI_ANSWERS = lines("""
    इस सवाल का सही जवाब किताब में लिखा है।
    यह बात सोच समझकर ही कहनी चाहिए।
    मुझे इस विषय में पूरी जानकारी नहीं है।
""")


@dataclass(frozen=True)
class _Clause:
    """What a sentence says, apart from any language: rows of offline/words.py."""

    subject: tuple[str, ...]
    action: tuple[str, ...]
    place: str
    time: tuple[str, ...]  # () for none
    tense: str  # present, past, future or wish
    form: str  # statement, negative or question


def _clause(rng: random.Random, tense: str, form: str) -> _Clause:
    action = rng.choice(ACTIONS)
    time = rng.choice(TIMES["future" if tense == "wish" else tense])
    return _Clause(rng.choice(SUBJECTS), action, rng.choice(action[-1].split()), time, tense, form)


def _urdu(clause: _Clause) -> str:
    """Without a full stop: subject, time, place, object, verb."""
    name, before_ne, agreement = clause.subject[:3]
    thing, stem, one, many, past = clause.action[:5]
    feminine, plural = agreement in ("f", "fp"), agreement in ("mp", "fp")
    ending = "تی" if feminine else "تے" if plural else "تا"
    be = " ہیں" if plural else " ہے"
    if clause.form == "negative":  # the habitual loses its auxiliary, and its feminine plural takes the nasal
        ending, be = ("تیں" if agreement == "fp" else ending), ""
    verb = {
        "present": f"{stem}{ending}{be}",
        "past": past,
        "future": f"{many if plural else one} {'گی' if feminine else 'گے' if plural else 'گا'}",
        "wish": f"چاہ{ending}{be}",
    }[clause.tense]
    subject, place = f"{before_ne} نے" if clause.tense == "past" else name, TRANSLATION_PLACES[clause.place][0]
    words = [subject, *clause.time[:1], place, thing]
    words += [f"{stem}نا"] if clause.tense == "wish" else []
    words += ["نہیں", verb] if clause.form == "negative" else [verb]
    return " ".join(["کیا", *words] if clause.form == "question" else words)


def _english(clause: _Clause) -> str:
    """Without a full stop and without a capital."""
    subject, third = clause.subject[3], clause.subject[4] == "s"
    base, adds_s, past, thing = clause.action[5:9]
    if clause.tense == "wish":
        base, adds_s = f"want to {base}", f"wants to {base}"
    do = "does" if third else "do"
    helper = {"present": do, "wish": do, "past": "did", "future": "will"}[clause.tense]
    tail = " ".join([thing, TRANSLATION_PLACES[clause.place][1], *clause.time[1:]])
    if clause.form == "negative":
        return f"{subject} {helper} not {base} {tail}"
    if clause.form == "question":
        return f"{helper} {subject} {base} {tail}"
    verb = {"past": past, "future": f"will {base}"}.get(clause.tense, adds_s if third else base)
    return f"{subject} {verb} {tail}"


def _sentence(parts: Sequence[str], form: str, urdu: bool) -> str:
    mark = ("؟" if urdu else "?") if form == "question" else ("۔" if urdu else ".")
    text = (" اور " if urdu else " and ").join(parts)
    return (text if urdu else text[0].upper() + text[1:]) + mark


def _clauses(rng: random.Random) -> list[_Clause]:
    """One clause, or in a third of the cases two in the past or future, the second without a time."""
    if rng.random() < 1 / 3:
        tense = rng.choice(("past", "future"))
        first, second = _clause(rng, tense, "statement"), _clause(rng, tense, "statement")
        if first.subject != second.subject:
            return [first, _Clause(second.subject, second.action, second.place, (), tense, "statement")]
    tense = rng.choice(("present", "past", "future", "wish"))
    return [_clause(rng, tense, rng.choice(("statement", "statement", "negative", "question")))]


def _other(rng: random.Random, clause: _Clause) -> _Clause:
    """Somebody else doing something else: what a translator who lost the thread might make of it.

    A check by chrF sees no less than that: with only subject or action changed, the sentence translated back has a chrF of 81 in
    the median, an honest rewording 90, and the two overlap.
    """
    while True:
        other = _clause(rng, clause.tense, clause.form)
        if other.subject != clause.subject and other.action[0] != clause.action[0]:
            return other if clause.time else replace(other, time=())


@dataclass(frozen=True)
class Pair:
    """A text in both languages, and in each language a translation that misses its sense."""

    urdu: str
    english: str
    urdu_miss: str
    english_miss: str


def sentence_pair(rng: random.Random) -> tuple[Pair, bool]:
    """(a sentence or a saying in both languages, whether it is a saying): علی نے چائے بنائی۔ and Ali made tea."""
    if rng.random() < SAYING_SHARE:
        (urdu, english), (urdu_miss, english_miss) = rng.sample(SAYINGS, 2)
        return Pair(*(_sentence([text], "", urdu_script) for text, urdu_script in (
            (urdu, True), (english, False), (urdu_miss, True), (english_miss, False)
        ))), True  # fmt: skip
    clauses = _clauses(rng)
    missed, form = [_other(rng, clause) for clause in clauses], clauses[0].form
    urdu, urdu_miss = (_sentence([_urdu(c) for c in row], form, True) for row in (clauses, missed))
    english, english_miss = (_sentence([_english(c) for c in row], form, False) for row in (clauses, missed))
    return Pair(urdu, english, urdu_miss, english_miss), False
