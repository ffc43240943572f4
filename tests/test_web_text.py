"""What is done to a page's text: only what should go goes, nothing is cut inside a word, and twice is the same as once."""

import random
from dataclasses import replace

import pytest
import regex

from data_gen.documents import DocumentRules
from data_gen.languages import Pack, Web, load_label
from data_gen.web_text import cut, domain_of, is_news, mask_personal, strip_boiler_plate
from tests.web_pages import TEXTS

RULES = DocumentRules()
LABELS = sorted(TEXTS)
URDU = load_label("urd_Arab")
UR = TEXTS["urd_Arab"]


def page(label: str) -> tuple[str, Pack]:
    pack = load_label(label)
    return pack.normalise(TEXTS[label]), pack


# --- boiler plate


@pytest.mark.parametrize("label", LABELS)
def test_menus_go_and_text_stays(label: str) -> None:
    text, pack = page(label)
    assert strip_boiler_plate(text, pack) == text
    above = "Home\nLogin | Sign up\n© 2024 Khabar\nA › B › C › D\n\nhttps://khabar.example/a\n*****\n"
    below = "\n\nShare on Facebook\nFacebook Twitter WhatsApp\nRead more\nWe use cookies to make this site better.\n"
    assert strip_boiler_plate(above + text + below, pack) == text
    words = [word[:8] for word in regex.findall(r"\p{L}[\p{L}\p{M}]*", text)][:5]
    menu = "\n".join(words)
    assert strip_boiler_plate(f"{menu}\n\n{text}\n{menu}", pack) == text
    assert strip_boiler_plate(f"{menu}\n\n{menu}\nLogin", pack) == ""


def test_short_lines_that_are_no_menu_stay() -> None:
    three = "نمک\nمرچ\nہلدی"
    for text in (f"{three}\n{UR}", f"{UR}\n{three}\n{UR}", "نمک،\nمرچ،\nہلدی،\nپیاز۔\n" + UR, "Home is where the heart is.\n" + UR):
        assert strip_boiler_plate(text, URDU) == text
    paragraph = "Copyright © " + UR
    assert len(paragraph) > 200 and strip_boiler_plate(paragraph, URDU) == paragraph
    assert strip_boiler_plate("a b c d e\n" * 4 + UR, URDU) == "a b c d e\n" * 4 + UR  # short, but of many words
    own = replace(URDU, web=replace(URDU.web, boiler_plate=regex.compile("^بالائی سطر")))
    assert strip_boiler_plate(f"بالائی سطر یہ ہے\n{UR}", own) == UR


def test_lists_and_choices_are_no_menus() -> None:
    listed = "(a) warga negara;\n(b) memiliki kartu;\n(c) tidak pernah dihukum;\n(d) bersedia."
    recipe = "Taikina\n5 dl maitoa\n50 g hiivaa\n2 dl sokeria\n1 kananmuna\n150 g voita\nÄyriäiset: 2\nsuola\nOhje\n"
    for text in (listed, "سائز: S | M | L | XL", "الف | ب | ج | د", recipe + UR, "नमक - स्वादानुसार\n" * 5 + TEXTS["hin_Deva"]):
        assert strip_boiler_plate(f"{UR}\n{text}\n{UR}", URDU).split("\n")[1:-1] == text.split("\n")
        assert strip_boiler_plate(text, URDU) == text.strip()
    assert strip_boiler_plate(f"{UR}\n(c) 2024 Khabar\n(C) all rights reserved\nکھیل | موسم | شہر | دنیا", URDU) == UR
    thai, pack = page("tha_Thai")
    lines = "\n".join(["แม่อยู่ไกลแสนไกลมากนัก"] * 4)  # five words and more, without a blank
    assert strip_boiler_plate(f"{lines}\n{thai}", pack) == f"{lines}\n{thai}"


def test_marks_left_as_html_writes_them_are_mended() -> None:
    assert strip_boiler_plate("بارش&nbsp; ہوئی۔ &quot;سب&quot; خوش &amp;amp; تھے۔&#8217;", URDU) == "بارش ہوئی۔ \"سب\" خوش & تھے۔’"


def test_stripping_twice_is_stripping_once() -> None:
    chance = random.Random(1)
    lines = ["Home", "نمک", "مرچ", "", "© 2024", UR, "***", "Read more", "پانچ سے زیادہ لفظوں کی ایک سطر", "a | b | c | d | e"]
    for _ in range(300):
        text = "\n".join(chance.choices(lines, k=chance.randrange(12)))
        once = strip_boiler_plate(text, URDU)
        assert strip_boiler_plate(once, URDU) == once


# --- cuts


@pytest.mark.parametrize("label", LABELS)
def test_cuts_are_at_ends_of_sentences_only(label: str) -> None:
    text, pack = page(label)
    blanks = pack.pieces_a_word > 1
    assert cut(text, pack, RULES) == text
    for at in range(1, len(text) + 2):
        rules = replace(RULES, cut_at=at)
        short = cut(text, pack, rules)
        assert text.startswith(short) and len(short) <= at
        assert not short or regex.search(r"[\p{Thai}]$" if blanks and at < len(text) else r"[.।۔]$|\p{Thai}$", short)
        assert not text[len(short) :] or not short or text[len(short)].isspace()  # never inside a word
        assert cut(short, pack, rules) == short
    ends = [found.end() for found in regex.finditer(r"[.।۔](?=\s|$)", text)]
    if not blanks:
        assert {len(cut(text, pack, replace(RULES, cut_at=at))) for at in range(1, len(text) + 1)} == {0, *ends}


def test_an_unfinished_end_goes() -> None:
    whole = "بارش ہوئی۔ سب خوش تھے۔"
    for tail in (" پھر شام", "\nمتعلقہ خبریں\nموسم", " اس نے کہا کہ...", " اس نے کہا…", " 3۔5 فی صد", "\n12."):
        assert cut(whole + tail, URDU, RULES) == whole
        assert cut(whole + tail, URDU, replace(RULES, whole_sentences=False)) == whole + tail
    for end in ("؟", "!", "۔“", "۔)", "۔\"", "۔»", "؟!"):
        assert cut(f"یہ کیا ہے{end} اور", URDU, RULES) == f"یہ کیا ہے{end}"
    assert cut("Luku on 3.5 ja 4. Se", load_label("fin_Latn"), replace(RULES, cut_at=10)) == ""  # not in "3.5"
    assert cut("بارش ہوئی۔ سب خوش تھے۔ پھر شام ہوئی۔", URDU, replace(RULES, cut_at=25)) == whole


GHAZAL = "دل ناداں تجھے ہوا کیا ہے\nآخر اس درد کی دوا کیا ہے\n\nہم ہیں مشتاق اور وہ بیزار\nیا الٰہی یہ ماجرا کیا ہے"


def test_what_has_no_full_stops_is_no_unfinished_end() -> None:
    for text in (GHAZAL, f"{UR}\n\n{GHAZAL}", "کوئی جملہ ختم نہیں ہوتا", "سلام! " + "یہ میرا سوال ہے اور " * 30):
        assert cut(text, URDU, RULES) == text
    at = replace(RULES, cut_at=70)
    assert cut(GHAZAL, URDU, at) == GHAZAL[: GHAZAL.index("\n\n")] == cut(cut(GHAZAL, URDU, at), URDU, at)
    assert cut("بارش " * 100, URDU, at) == ""


def test_a_bar_or_hyphen_typed_for_a_full_stop() -> None:
    hindi = load_label("hin_Deva")
    assert cut("राम घर गया | सीता आई | फिर वे", hindi, RULES) == "राम घर गया | सीता आई |"
    assert cut("बारिश हुई। क|ख", hindi, RULES) == "बारिश हुई।"
    assert cut("بارش ہوئی-\nسب خوش تھے-\nپھر شام", URDU, RULES) == "بارش ہوئی-\nسب خوش تھے-"
    assert cut("بارش ہوئی۔ لاہور- کراچی", URDU, RULES) == "بارش ہوئی۔"


LATIN = [
    ("tur_Latn", "Saat 3.5 oldu. Bay Dr. Ahmet gel", "Saat 3.5 oldu."),
    ("fin_Latn", "Se on hyvä. Esim. kissa ja koira", "Se on hyvä."),
    ("fin_Latn", "Hän asuu täällä. Katso www.talo.example/x", "Hän asuu täällä."),
    ("vie_Latn", "Tôi ở đó. Anh ấy", "Tôi ở đó."),
    ("ind_Latn", 'Ia berkata, "Baik." Lalu ia', 'Ia berkata, "Baik."'),
    ("swh_Latn", "Karibu! Habari yako", "Karibu!"),
]


@pytest.mark.parametrize(("label", "text", "whole"), LATIN)
def test_a_full_stop_is_not_always_an_end(label: str, text: str, whole: str) -> None:
    assert cut(text, load_label(label), RULES) == whole


# --- data of persons

MASKED = [
    ("لکھیں: ali.khan@mail.pk پر", "لکھیں: [e-mail] پر"),
    ("ali [at] mail.pk", "[e-mail]"),
    ("فون 0300-1234567 پر", "فون [telephone] پر"),
    ("فون ۰۳۰۰ ۱۲۳۴۵۶۷ پر", "فون [telephone] پر"),
    ("+92 300 1234567", "[telephone]"),
    ("0092-300-1234567", "[telephone]"),
    ("(021) 35678901", "[telephone]"),
    ("फ़ोन 98765 43210 या 9876543210", "फ़ोन [telephone] या [telephone]"),
    ("call +91-98765-43210", "call [telephone]"),
    ("ফোন ০১৭১২-৩৪৫৬৭৮", "ফোন [telephone]"),
    ("โทร 081-234-5678", "โทร [telephone]"),
    ("Simu 0712 345 678", "Simu [telephone]"),
    ("Tel: (0212) 555 12 34, 0532 123 45 67", "Tel: [telephone], [telephone]"),
    ("điện thoại 0912 345 678", "điện thoại [telephone]"),
    ("telepon 0812-3456-7890", "telepon [telephone]"),
    ("puh. 040 123 4567 tai +358 40 123 4567", "puh. [telephone] tai [telephone]"),
    ("شناختی کارڈ 35202-1234567-1", "شناختی کارڈ [identity card]"),
    ("شناختی کارڈ ۳۵۲۰۲۱۲۳۴۵۶۷۱", "شناختی کارڈ [identity card]"),
    ("आधार 2345 6789 0124", "आधार [identity card]"),
    ("PAN ABCPE1234F", "PAN [identity card]"),
    ("บัตร 1-1020-12345-67-8", "บัตร [identity card]"),
    ("TC 10000000146", "TC [identity card]"),
    ("hetu 131052-308T", "hetu [identity card]"),
    ("NIK 3171234567890123", "NIK [identity card]"),
    ("PK36 SCBL 0000 0011 2345 6702", "[IBAN]"),
    ("FI2112345600000785", "[IBAN]"),
    ("کارڈ 4111 1111 1111 1111", "کارڈ [card number]"),
    ("5500-0000-0000-0004", "[card number]"),
    ("IP 203.0.114.77", "IP [IP address]"),
    ("2a00:1450:4001:81b::200e", "[IP address]"),
    ("Tel: 0 (212) 555 12 34, 0 532 123 45 67, 0(533)1234567", "Tel: [telephone], [telephone], [telephone]"),
    ("โทร 0-2123-4567", "โทร [telephone]"),
    ("0300–1234567 0301 - 1234567", "[telephone] [telephone]"),
    ("ali(at)gmail(dot)com", "[e-mail]"),
    ("9876501234 4111 1111 1111 1111", "[telephone] [card number]"),
    ("https://wa.me/923001234567", "https://wa.me/[telephone]"),
]  # fmt: skip
KEPT = [
    "سن 1947 اور 2024-25 میں 300000 روپے تھے۔", "تاریخ 05-06-2023 اور 03/04/2023 12:30", "01.02.2024 15.30",
    "1122 یا 15 پر فون کریں",
    "دنیا کی آبادی 8000000000 ہے", "ISBN 978-0-306-40615-7", "9780306406157", "ISBN 0306406152",
    "name@example.com", "1,234,567,890", "3.14159265358979", "4111 1111 1111 1112", "131052-308U", "192.168.10.12", "127.0.0.1",
    "10000000145", "0311-7786264", "2 + 3 = 5, 10:20:30",
    "1.2.3.4", "20:00 15.06.2023", "14:00 2023-06-15", "klo 18.00 12.03.2024", "سال 2021 2022 2023 میں", "01.01-31.12.2023",
    "07/2023-08/2024", "klo 09.00 12.30 15.45", "06 12 18 24 30 36", "2010 2011 2012 2013", "ISBN 8172234988",
    "ISBN-10: 0306406152", "https://x.example/news/1234567890123", "2345 6789 0123",
]  # fmt: skip


@pytest.mark.parametrize(("text", "masked"), MASKED)
def test_data_of_persons_is_masked(text: str, masked: str) -> None:
    found, count = mask_personal(text, URDU)
    assert (found, count) == (masked, 1 if "9876543210" in text or "358" in text else masked.count("["))
    assert mask_personal(masked, URDU) == (masked, 0)


@pytest.mark.parametrize("text", KEPT)
def test_other_numbers_stay(text: str) -> None:
    assert mask_personal(text, URDU) == (text, 0)


def test_masking_twice_is_masking_once() -> None:
    chance = random.Random(2)
    parts = ["0300-1234567", "+92 300 1234567", "a@b.co", "2021 2022", "4111 1111 1111 1111", "35202-1234567-1", "12", "20:00 "]
    for _ in range(1000):
        once, _count = mask_personal("".join(chance.choice(parts) + chance.choice(["", " "]) for _ in range(6)), URDU)
        assert mask_personal(once, URDU) == (once, 0)


def test_each_is_counted_once() -> None:
    text = "0300-1234567 +92 300 1234567 ali@mail.pk ALI@mail.pk 0301-7654321"
    assert mask_personal(text, URDU) == ("[telephone] [telephone] [e-mail] [e-mail] [telephone]", 3)


@pytest.mark.parametrize("label", LABELS)
def test_nothing_is_masked_in_prose(label: str) -> None:
    text, pack = page(label)
    assert mask_personal(text, pack) == (text, 0)


# --- addresses

DOMAINS = {
    "https://www.khabar.com.pk:443/x": "khabar.com.pk", "http://urdu.news.example/a?b=c": "news.example",
    "https://a.b.sch.id/": "b.sch.id", "https://x.go.th": "x.go.th", "HTTPS://WWW.Dawn.COM/y": "dawn.com", "dawn.com/x": "dawn.com",
    "https://ali.blogspot.com/": "ali.blogspot.com", "https://ali.blogspot.pk/": "ali.blogspot.pk",
    "https://ali.blogspot.com.tr/": "ali.blogspot.com.tr",
    "https://x.github.io/y": "x.github.io",
    "https://user:word@a.uni.fi/": "uni.fi", "http://203.0.113.7/x": "203.0.113.7", "http://[2001:db8::1]/": "2001:db8::1",
    "https://co.uk": "co.uk", "http://[broken": "", "": "", "localhost": "localhost", "https://khabar.example./": "khabar.example",
}  # fmt: skip


@pytest.mark.parametrize("url", DOMAINS)
def test_domains(url: str) -> None:
    assert domain_of(url) == DOMAINS[url]


def test_news_by_address_or_opening() -> None:
    quiet = replace(URDU, web=Web())
    assert is_news("https://taza.example/news/a", UR, quiet) and is_news("https://news.example/a", UR, quiet)
    assert is_news("https://taza.example/2024/01/15/a", UR, URDU) and not is_news("https://taza.example/2024/01/a", UR, URDU)
    assert not is_news("https://mypoems.wordpress.com/2024/01/15/ghazal/", UR, quiet)
    assert not is_news("https://blog.taza.example/2024/01/15/a", UR, quiet)
    assert not is_news("https://taza.example/recipes/newspaper-hat", UR, URDU) and not is_news("", UR, URDU)
    pack = replace(URDU, web=replace(URDU.web, news=regex.compile(r"\Aلاہور \(")))
    assert is_news("", "لاہور (نمائندہ خصوصی) " + UR, pack) and not is_news("", UR, pack)
