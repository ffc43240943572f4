"""Scores of generated answers: by hand, and against sacrebleu."""

import random

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from data_gen import UsageError
from data_gen.evaluation.results import HIGHER, LOWER, NEITHER
from data_gen.evaluation.scores import (
    CORPUS_SCORES,
    METRICS,
    SCORES,
    corpus_difference,
    corpus_scores,
    normalised,
    repetition,
    score_answer,
    signature,
)
from data_gen.language_id import Identifier
from data_gen.text import script_share

UR = "میں روز صبح اپنے بچوں کو اسکول چھوڑنے جاتا ہوں۔"
FA = "متاسفانه اطلاعات کافی در این باره ندارم و باید بیشتر بپرسم."
EN = "I have read this book twice and liked it very much."
TARGETS = [
    "علی نے بازار سے تین کلو سیب اور ۲ درجن کیلے خریدے۔", "کیا آپ نے یہ کتاب پڑھی ہے؟ جی ہاں، پچھلے سال پڑھی تھی۔",
    "لاہور پاکستان کا دوسرا بڑا شہر ہے (اور پنجاب کا دارالحکومت)۔", "بچے باغ میں کرکٹ کھیل رہے تھے؛ بارش شروع ہو گئی!",
    "کمپیوٹر کے ذریعے کام جلدی ہوتا ہے، مگر بجلی کا ہونا ضروری ہے۔",
]  # fmt: skip
ANSWERS = [
    "علی نے بازار سے ۳ کلو سیب اور دو درجن کیلے لیے۔", "کیا آپ نے یہ کتاب پڑھی؟ ہاں، پچھلے برس پڑھی تھی۔",
    "لاہور پنجاب کا دارالحکومت ہے اور پاکستان کا دوسرا بڑا شہر۔", "بچے باغ میں کھیل رہے تھے کہ بارش شروع ہو گئی۔",
    "کمپیوٹر سے کام جلدی ہوتا ہے لیکن بجلی ضروری ہے۔",
]  # fmt: skip
WORSE = ["سیب اچھے ہیں۔", "کتاب میز پر ہے۔", "کراچی ایک شہر ہے۔", "بارش ہوئی۔", "بجلی نہیں ہے۔"]
ARABIC_LETTERS = str.maketrans("یک", "يك")


def value(name: str, answer: str, target: str = "", language: str = "ur", **more: bool | None) -> float | None:
    found = score_answer([name], answer, target, language=language, **more)  # type: ignore[arg-type]
    assert all(below == 1.0 for _, below in found.values())
    return next((above for above, _ in found.values()), None)


# --- of one answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("كتاب", "کتاب"), ("گاڑي", "گاڑی"), ("علـــى", "علی"), ("۱۲۳ ١٢٣ 123", "123 123 123"), ("اُردُو", "اردو"),
        ("خوب\u200cصورت\u200b", "خوبصورت"), ("\u0622م", "آم"), ("\u0627\u0653م", "آم"), ("گھر", "گھر"), ("گہر", "گہر"),
        ("نماز جمعة", "نماز جمعۃ"), ("ابتدا\u06cc\u0654", "ابتدائ"), ("محمد ﷺ", "محمد ﷺ"),
    ],
)  # fmt: skip
def test_texts_are_normalised(text: str, wanted: str) -> None:
    assert normalised(text, "ur") == wanted


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("لاہور", "لاہور", 1), (" لاہور۔\n", "لاہور", 1), ("لاہور", "لاہور۔", 1), ("لاہور؟", "لاہور.", 1),
        ("**لاہور**۔", "لاہور", 1),
        ("اسلام  آباد", "اسلام آباد", 1), ("كراچي", "کراچی", 1), ("۱۲۳", "123", 1), ("١٢٣", "123", 1), ("123", "۱۲۳۔", 1),
        ("Lahore", "lahore", 1), ("لاہور شہر", "لاہور", 0), ("", "لاہور", 0), ("۱۲۴", "123", 0), ("50%", "50", 0),
        ("گھر", "گہر", 0), ("", "؟", 0), ("؟", "؟", 1), ("۔", "؟", 0), ("“لاہور”۔", "لاہور", 1), ('"**لاہور۔**"', "لاہور", 1),
        ("۳۳٬۰۰۰", "33000", 1), ("1،50،000", "150000", 1), ("33,00", "3300", 0), ("1, 250", "1250", 0), ("25 فیصد", "25", 0),
    ],
)  # fmt: skip
def test_exact_match(answer: str, target: str, right: int) -> None:
    assert value("exact", answer, target) == right


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("5 + 13 = 18، اس لیے جواب ۱۸ ہے۔", "18", 1), ("١٨ روپے", "۱۸", 1), ("جواب: 1,234", "1234", 1), ("۱٬۲۳۴ لوگ", "1,234", 1),
        ("کل 1،50،000 نہیں بلکہ 1,50,000 روپے", "150000", 1), ("۳٫۵ کلو", "3.5", 1), ("1/2", "0.5", 1), ("-4", "-4", 1),
        ("-4", "4", 0),
        ("18 سے پہلے 17", "18", 0), ("کوئی عدد نہیں", "18", 0), ("", "18", 0), ("18", "3 × 6 = 18\n#### 18", 1), ("18۔", "18", 1),
    ],
)  # fmt: skip
def test_the_last_number_counts(answer: str, target: str, right: int) -> None:
    assert value("number", answer, target) == right


def test_without_a_number_to_find_there_is_no_value() -> None:
    assert score_answer(["number"], "18", "اٹھارہ", language="ur") == {}


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a b c d e a b c d", 4 / 9),  # the last four
        ("a b c d e f g h", 0), ("a b c a b c", 0),  # runs of three
        ("a a a a a", 4 / 5),  # the run from the second word on
        ("a b c d x a b c d y a b c d", 8 / 14), ("ہاں۔ " * 50, 49 / 50), ("a b c", 0), ("۔۔۔", None), ("", None),
    ],
)  # fmt: skip
def test_repetition_by_hand(text: str, share: float | None) -> None:
    assert repetition(text) == (None if share is None else pytest.approx(share))
    assert value("repetition", text) == (None if share is None else pytest.approx(share))


def test_a_thai_word_is_several_tokens() -> None:
    letters = "กขคงจฉชซฌญ"
    assert repetition(letters[:5] + letters[:5]) == 0.5
    assert value("repetition", letters[:5] + letters[:5], language="th") == 0  # five letters are no run of four words


def test_ends_blanks_and_scripts() -> None:
    assert [value("stop", "", ended=ended) for ended in (True, False, None)] == [1, 0, None]
    assert [value("empty", text) for text in ("", " \n\u200b\u200c", "۔", "ہاں")] == [1, 1, 0, 0]
    mixed = "میں Python"
    assert value("script", mixed) == pytest.approx(1 / 3) == script_share(mixed, "Arabic")
    assert value("script", mixed, language="en") == pytest.approx(2 / 3) == value("script", mixed, language="ur-Latn")
    assert value("script", "۲۴ 24 ۔") is None


def test_persian_and_english_are_the_wrong_language() -> None:
    assert [value("language", text) for text in (UR, FA, EN, "", "ہاں، ٹھیک ہے۔")] == [0, 1, 1, None, None]
    assert [value("language", text, language="en") for text in (UR, EN)] == [1, 0]
    assert value("language", EN, language="ur-Latn") is None  # Urdu in Latin letters has no name
    assert score_answer(["language"], FA, "", language="ur") == {"wrong_language": (1.0, 1.0)}


def test_an_identifier_of_ones_own_is_asked() -> None:
    says = Identifier(lambda text: ("pes_Arab", 1.0), frozenset({"pes_Arab"}), near=True)
    assert score_answer(["language"], UR, "", language="ur", identifier=says) == {"wrong_language": (1.0, 1.0)}


@pytest.mark.parametrize(
    ("category", "metric"),
    [("harmful", "refusal_harmful"), ("harmless", "refusal_harmless"), ("", "refusal"), ("violence", "refusal")],
)
def test_refusing_counts_by_what_was_asked(category: str, metric: str) -> None:
    for answer, refused in [("معذرت، میں اس میں مدد نہیں کر سکتا۔", 1.0), ("پہلے زخم کو صاف پانی سے دھوئیں۔", 0.0)]:
        assert score_answer(["refusal"], answer, "", language="ur", category=category) == {metric: (refused, 1.0)}


def test_names_and_languages_are_checked() -> None:
    assert score_answer(["chrf", "empty"], "ہاں", "ہاں", language="ur") == {"empty": (0.0, 1.0)}
    with pytest.raises(UsageError, match="no score 'rouge'; there are exact, "):
        score_answer(["rouge"], "", "", language="ur")
    with pytest.raises(UsageError, match="no language pack for 'xx'"):
        score_answer(["exact"], "", "", language="xx")
    with pytest.raises(UsageError, match="no variety 'ur-Cyrl'"):
        score_answer(["script"], UR, "", language="ur-Cyrl")
    given = [metric for metrics in (SCORES | CORPUS_SCORES).values() for metric in metrics]
    assert sorted(given) == sorted(METRICS)
    better = {metric: about.better for metric, about in METRICS.items() if about.better != HIGHER}
    assert better == {"repetition": LOWER, "wrong_language": LOWER, "empty": LOWER, "refusal": NEITHER, "refusal_harmless": LOWER}


# --- of all answers together --------------------------------------------------------------------------------------------


def test_corpus_scores_are_sacrebleus() -> None:
    found = {score.metric: score for score in corpus_scores(["exact", "chrf", "bleu"], ANSWERS, TARGETS, language="ur", task="t")}
    assert list(found) == ["chrf", "chrf_raw", "bleu", "bleu_raw"]
    plain = [[normalised(text, "ur") for text in texts] for texts in (ANSWERS, TARGETS)]
    chrf, bleu = CHRF(word_order=2), BLEU(tokenize="intl")
    wanted = {
        "chrf": chrf.corpus_score(plain[0], [plain[1]]), "chrf_raw": chrf.corpus_score(ANSWERS, [TARGETS]),
        "bleu": bleu.corpus_score(plain[0], [plain[1]]), "bleu_raw": bleu.corpus_score(ANSWERS, [TARGETS]),
    }  # fmt: skip
    for metric, score in found.items():
        assert score.value == pytest.approx(wanted[metric].score, rel=1e-12)
        assert score.low < score.value < score.high
        assert (score.task, score.documents, score.corpus, score.better) == ("t", 5, True, HIGHER)
        assert score.signature == str((chrf if "chrf" in metric else bleu).get_signature()) == signature(metric)
    assert "|nw:2|" in found["chrf"].signature and "version:2." in found["chrf"].signature
    assert "|tok:intl|" in found["bleu"].signature


def test_bleu_is_sacrebleus_where_no_four_words_are_alike() -> None:
    for answers, targets in [(WORSE, TARGETS), *(([answer], [target]) for answer, target in zip(ANSWERS, TARGETS, strict=True))]:
        (_, raw) = corpus_scores(["bleu"], answers, targets, language="ur", samples=2)
        assert raw.value == pytest.approx(BLEU(tokenize="intl").corpus_score(answers, [targets]).score, rel=1e-12)
        assert raw.value > 0


def test_chrf_is_sacrebleus_on_any_text() -> None:
    """Of odd texts, too: empty ones, marks before, behind and alone, orders that one side does not have."""
    generator = random.Random(0)
    letters = ["ا", "ب", "کتاب", "(", ")", "۔", "،", ".", "-", "5", "%", " ", "  ", "\n", "و", "a’b", "ُ"]
    texts = ["".join(generator.choices(letters, k=generator.randrange(12))) for _ in range(600)]
    for answers, targets in [(texts[:300], texts[300:]), *(([texts[k]], [texts[-k]]) for k in range(1, 200))]:
        (score, raw) = corpus_scores(["chrf"], answers, targets, language="ur", samples=2)
        assert raw.value == pytest.approx(CHRF(word_order=2).corpus_score(answers, [targets]).score, rel=1e-12, abs=1e-12)


def test_the_interval_is_that_of_resampled_documents() -> None:
    """Against sacrebleu's score of 400 resamples, each written out."""
    generator = random.Random(1)
    scores: dict[str, list[float]] = {"chrf_raw": [], "bleu_raw": []}
    for _ in range(400):
        drawn = generator.choices(range(5), k=5)
        answers, targets = [ANSWERS[k] for k in drawn], [TARGETS[k] for k in drawn]
        scores["chrf_raw"].append(CHRF(word_order=2).corpus_score(answers, [targets]).score)
        scores["bleu_raw"].append(BLEU(tokenize="intl").corpus_score(answers, [targets]).score)
    for score in corpus_scores(["chrf", "bleu"], ANSWERS, TARGETS, language="ur"):
        if score.metric in scores:
            ranked = sorted(scores[score.metric])
            width = ranked[389] - ranked[10]
            assert score.low == pytest.approx(ranked[10], abs=0.15 * width)
            assert score.high == pytest.approx(ranked[389], abs=0.15 * width)


def test_arabic_letters_cost_only_the_raw_score() -> None:
    typed = [text.translate(ARABIC_LETTERS).replace("۲", "٢") for text in TARGETS]
    found = {score.metric: score.value for score in corpus_scores(["chrf", "bleu"], typed, TARGETS, language="ur")}
    assert found["chrf"] == pytest.approx(100) and found["bleu"] == pytest.approx(100)
    assert found["chrf_raw"] < 90 and found["bleu_raw"] < 70


def test_urdu_punctuation_is_parted_from_its_word() -> None:
    scores = corpus_scores(["bleu"], ["یہ کتاب میری ہے ؟"], ["یہ کتاب میری ہے؟"], language="ur")
    assert [score.value for score in scores] == [pytest.approx(100)] * 2


@pytest.mark.parametrize("metric", ["chrf", "chrf_raw", "bleu", "bleu_raw"])
def test_differences_are_of_the_same_documents(metric: str) -> None:
    assert corpus_difference(metric, ANSWERS, list(ANSWERS), TARGETS, "ur") == (0, 0, 0)
    value, low, high = corpus_difference(metric, ANSWERS, WORSE, TARGETS, "ur")
    one, other = (
        next(score.value for score in corpus_scores(["chrf", "bleu"], answers, TARGETS, language="ur") if score.metric == metric)
        for answers in (ANSWERS, WORSE)
    )
    assert value == pytest.approx(one - other) and 0 < low < value < high
    assert corpus_difference(metric, WORSE, ANSWERS, TARGETS, "ur") == pytest.approx((-value, -high, -low))


def test_answers_need_targets() -> None:
    with pytest.raises(UsageError, match="2 answers and 1 targets"):
        corpus_scores(["chrf"], ["a", "b"], ["a"], language="ur")
    with pytest.raises(UsageError, match="no documents"):
        corpus_scores(["bleu"], [], [], language="ur")
    with pytest.raises(UsageError, match="no metric 'exact' of all answers"):
        corpus_difference("exact", ["a"], ["a"], ["a"], "ur")
    with pytest.raises(UsageError, match="no score 'rouge'"):
        corpus_scores(["rouge"], ["a"], ["a"], language="ur")
