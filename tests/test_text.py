"""Text in order: equal words become equal strings, nothing else changes; words and script share of mixed text."""

import unicodedata

import pytest

from data_gen.languages import load_pack
from data_gen.text import fold_digits, normaliser, script_share, tokens

normalise = load_pack("ur").normalise


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        ("\u064a\u0647 \u0643\u062a\u0627\u0628", "یہ کتاب"),  # Arabic yeh, heh, kaf
        ("\u0649\u06d5\u06aa", "یہک"),
        ("٤٥٦ ۴۵۶ 456", "۴۵۶ ۴۵۶ 456"),
        ("\ufb8e\ufefb\ufbfd", "کلای"),  # presentation forms of keheh, lam-alef, yeh
        ("ﷺ ﷲ", "ﷺ ﷲ"),  # word signs stay
        ("\u0627\u0653", "آ"),
        ("\u06cc\u0654 \u064a\u0654", "ئ ئ"),
        ("\u0647\u0654 \u06c0", "ۂ ۂ"),
        ("\ufeffایک\u200f\u00a0دو\u200b ", "ایک دو"),
        ("می\u200cروم", "می\u200cروم"),  # ZWNJ is spelling
        ("ایک \r\nدو\r\n", "ایک\nدو"),
        ("½ ﬁ ①", "½ ﬁ ①"),  # NFKC would change these
        ("بھائی ھ", "بھائی ھ"),  # do-chashmi he is a letter of its own
    ],
)
def test_normalise(came: str, wanted: str) -> None:
    assert normalise(came) == wanted
    assert normalise(wanted) == wanted


def test_normalise_is_idempotent_on_every_character() -> None:
    for code in [*range(0x20, 0x3000), *range(0xFB00, 0xFFFE)]:
        once = normalise(f"ا{chr(code)}ب")
        assert normalise(once) == once, hex(code)
        assert unicodedata.is_normalized("NFC", once), hex(code)


def test_tokens_ignore_what_readers_ignore() -> None:
    assert tokens("اُردُو، Python ۳!") == ["اردو", "python", "3"]
    assert tokens("خوش\u200cآمدید") == tokens("خوشآمدید") == tokens("خوشـــآمدید")
    assert tokens("٣ ۳ 3") == ["3", "3", "3"]
    assert tokens("مُجھے۔آپ؟کی،ضرورت") == ["مجھے", "آپ", "کی", "ضرورت"]
    assert tokens("अनुवाद") == ["अनुवाद"]  # one word: \w+ makes three
    assert tokens("۔ ! ") == []


def test_a_language_keeps_the_letters_that_it_has() -> None:
    plain = normaliser({})
    assert plain("\u064a\u0643\u0647\u06aa \u0663") == "\u064a\u0643\u0647\u06aa \u0663"
    assert plain("\ufeff\ufb8e\u00a0ab \r\n") == "\u06a9 ab"  # what no language writes goes all the same
    assert normaliser({"ك": "ک", "اا": "آ"})("\ufed9\u0627\u0627") == "کآ"


def test_digits_of_any_script() -> None:
    assert fold_digits("۱۲ ٣४ 5½") == "12 34 5½"


def test_script_share() -> None:
    assert script_share("میں نے کتاب پڑھی۔") == 1
    assert script_share("میں Python") == pytest.approx(3 / 9)
    assert script_share("اُردُو") == 1  # vowel signs are no letters
    assert script_share("हिंदी") == 0 == script_share("اردو", "Latin")
    assert script_share("I read.", "Latin") == 1
    assert script_share("۲۴ + ۱۸ = ۴۲") == 1 == script_share("")
