"""Language identification: what it rejects of text in other languages, and that it rejects nothing that is right."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.language_id import (
    EACH,
    LABELS,
    SHARED,
    UNKNOWN,
    UNSURE,
    Identifier,
    common_word_counts,
    foreign_share,
    language_of,
    load_identifier,
    load_labeller,
    wrong_language,
)
from data_gen.languages import Pack, load_label, load_pack, packs
from tests.web_pages import NEAR, TEXTS

ROOT = Path(__file__).resolve().parents[1]
UR = "میں روز صبح اپنے بچوں کو اسکول چھوڑنے جاتا ہوں۔"
FA = "متاسفانه اطلاعات کافی در این باره ندارم و باید بیشتر بپرسم."
AR = "ذهبت إلى السوق لشراء الخبز والحليب مع أختي الصغيرة."
HI = "इस सवाल का सही जवाब किताब में लिखा है।"
EN = "I have read this book twice and liked it."
SHAHMUKHI = "ایہہ کتاب میری اے تے میں اوہنوں روز پڑھدا ہاں۔"  # Punjabi in Urdu's letters
ROMAN = "Mera naam Ali hai aur main Lahore mein rehta hoon."


@pytest.fixture(scope="module")
def pack() -> Pack:
    return load_pack("ur")


@pytest.fixture(scope="module")
def identifier(pack: Pack) -> Identifier:
    found = load_identifier(pack)
    assert found is not None
    return found


def test_each_language_is_named(identifier: Identifier) -> None:
    texts = {"ur": UR, "fa": FA, "ar": AR, "hi": HI, "en": EN}
    for code, text in texts.items():
        name, confidence = identifier.top(text)
        assert (name, 0.9 < confidence <= 1) == (code, True)
        assert wrong_language(text, "ur", identifier) == (code != "ur")
        assert wrong_language(text, "en", identifier) == (code != "en")


def test_only_what_is_sure_and_long_enough_is_rejected(identifier: Identifier) -> None:
    unsure = "این کتاب من است و من آن را دوست دارم"
    name, confidence = identifier.top(unsure)
    assert name == "fa" and 0.6 < confidence < 0.9
    assert not wrong_language(unsure, "ur", identifier)
    assert wrong_language(unsure, "ur", identifier, min_confidence=0.6)
    assert identifier.top("پاسخ درست") == identifier.top("") == identifier.top("12345 " * 9) == ("", 0.0)
    assert not wrong_language("پاسخ درست", "ur", identifier)
    assert wrong_language("\n".join(FA.split()), "ur", identifier)


def test_what_it_cannot_tell(identifier: Identifier) -> None:
    """Shahmukhi Punjabi passes as Urdu and Roman Urdu as English: lingua has no word for them. Varieties are not judged."""
    assert identifier.top(SHAHMUKHI)[0] == "ur" and identifier.top(SHAHMUKHI)[1] > 0.99
    assert not wrong_language(SHAHMUKHI, "ur", identifier)
    assert identifier.top(ROMAN)[0] == "en"
    assert not wrong_language(ROMAN, "ur-Latn", identifier)
    assert not wrong_language("میں نے assignment submit کر دیا ہے اور اب free ہوں۔", "ur-x-mixed", identifier)
    assert not wrong_language(FA, "fa", identifier)  # not offered as a language of items
    assert not wrong_language(FA, "ur", None)


def test_no_shipped_seed_is_rejected(identifier: Identifier) -> None:
    judged, rejected = 0, []
    for path in sorted((ROOT / "data_gen" / "languages" / "ur").glob("*/seeds.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            seed = json.loads(line)
            judged += bool(identifier.top(seed["output"])[0])
            if wrong_language(seed["output"], seed["language"], identifier):
                rejected.append((path.parent.name, seed["output"]))
    assert rejected == []
    assert judged > 80


def test_languages_lingua_does_not_know(pack: Pack) -> None:
    assert load_identifier(replace(pack, lingua="")) is None
    with pytest.raises(UsageError, match="lingua has no language 'zz'"):
        load_identifier(replace(pack, neighbours=("zz",)))


def test_a_code_of_the_pack_is_not_linguas(pack: Pack) -> None:
    """A pack named by another code than lingua's has its own back."""
    other = load_identifier(replace(pack, code="urd"))
    assert other is not None
    assert other.top(UR)[0] == "urd" and other.top(FA)[0] == "fa"
    assert wrong_language(FA, "urd", other) and not wrong_language(UR, "urd", other)


# --- documents, by labels

WORDS = {
    "urd_Arab": ("ہے", "ہیں", "میں", "کے", "جاتا", "جاتے"), "pnb_Arab": ("اے", "نیں", "وچ", "نوں", "دے", "تے"),
    "pes_Arab": ("است", "می\u200cخواند", "را", "برای", "آن", "این"), "arb_Arab": ("في", "إن", "الذي", "إلى"),
}  # fmt: skip


@pytest.fixture(scope="module")
def urdu(pack: Pack) -> Pack:
    return replace(pack, common_words=WORDS)


def test_documents_are_named_by_labels_with_script() -> None:
    for label, text in TEXTS.items():
        pack = load_label(label)
        named, confidence = language_of(text, pack, load_labeller(pack))
        assert (named, confidence > 0.99) == (label, True)
        assert language_of(text[:15], pack, load_labeller(pack)) == ("", 0.0)
    assert load_labeller(replace(load_label("urd_Arab"), glotlid="own_Arab")).top(UR)[0] == "own_Arab"
    known = {pack.lingua: pack.glotlid for pack in map(load_pack, packs()) if pack.lingua}
    assert known.items() <= LABELS.items()


def test_common_words_name_what_lingua_mistakes(urdu: Pack) -> None:
    identifier = load_labeller(urdu)
    assert identifier.top(NEAR["pnb_Arab"]) == ("urd_Arab", pytest.approx(1, abs=1e-3))
    for label in ("pnb_Arab", "pes_Arab", "arb_Arab"):
        assert language_of(urdu.normalise(NEAR[label]), urdu, identifier)[0] == label
    assert language_of(EN * 9, urdu, identifier)[0] == "eng_Latn"
    assert language_of(EN * 9 + "ہے " * 9, urdu, identifier)[0] == "eng_Latn"  # of which the pack lists no words
    unlisted = replace(urdu, common_words={})
    assert language_of(NEAR["pnb_Arab"], unlisted, identifier)[0] == "urd_Arab"
    mute = Identifier(lambda text: ("", 0.0), frozenset())  # a pack for which lingua has nothing
    assert language_of(TEXTS["urd_Arab"], urdu, mute)[0] == "urd_Arab" and language_of(EN * 9, urdu, mute) == ("", 0.0)


def test_how_sure_a_language_is(urdu: Pack) -> None:
    def sure(lingua: float, text: str, near: bool = False) -> tuple[str, float]:
        return language_of(text, urdu, Identifier(lambda text: ("urd_Arab", lingua), frozenset(), near))

    none, own = "ایک دو تین چار پانچ چھ سات", "ہے ہیں میں ایک دو تین چار پانچ"
    assert sure(0.7, none) == ("urd_Arab", 0.7)
    assert sure(0.7, own) == ("urd_Arab", pytest.approx(1 - 0.3 / 8))
    assert sure(0.7, own, near=True) == ("urd_Arab", 0.7)
    assert sure(1.0, own + " اے وچ نوں") == sure(1.0, "اے وچ نوں " + own) == ("urd_Arab", 0.5)  # mixed, whatever lingua says
    assert sure(1.0, own + " اے وچ نوں دے") == ("pnb_Arab", pytest.approx(4.5 / 8))
    assert sure(1.0, own + " اے وچ") == ("urd_Arab", pytest.approx(3.5 / 6)) and sure(1.0, own + " اے") == ("urd_Arab", 1.0)
    assert sure(1.0, none + " اے") == sure(1.0, none + " ہے اے وچ") == ("urd_Arab", 1.0)  # not enough against lingua
    assert sure(1.0, none + " اے وچ") == ("pnb_Arab", pytest.approx(2.5 / 3))
    assert common_word_counts(own + " اے۔ (وچ)", urdu) == {"urd_Arab": 3, "pnb_Arab": 2}
    alike = replace(urdu, common_words={"urd_Arab": ("ہم", "ہے"), "pes_Arab": ("هم", "است")})  # one spelling when compared
    assert common_word_counts("ہم ہے هم است", alike) == {"urd_Arab": 1, "pes_Arab": 1}


def test_more_is_read_of_a_text_that_is_not_sure(urdu: Pack) -> None:
    read = list[int]()

    def classify(text: str) -> tuple[str, float]:
        read.append(len(text))
        return "eng_Latn", 0.9 if len(read) == 1 else 0.99

    text = "ایک" * 1000
    assert language_of(text, urdu, Identifier(classify, frozenset())) == ("eng_Latn", 0.99) and read == [300, 1200]
    assert language_of(text, urdu, Identifier(classify, frozenset())) == ("eng_Latn", 0.99) and read == [300, 1200, 300]


# In languages that lingua does not know, and in Vietnamese as it is typed without its marks.
STRANGE = {
    "urd_Arab": {
        "ckb": "زمانی کوردی یەکێکە لە زمانە کۆنەکان و خەڵکێکی زۆر قسەی پێ دەکەن. هەولێر و سلێمانی دوو شاری گەورەن.",
        "uig": "ئۇيغۇر تىلى تۈركىي تىللار ئائىلىسىگە كىرىدۇ. بۇ تىلدا نۇرغۇن كىتابلار يېزىلغان. كىشىلەر مېھماندوست.",
        "kas": "کٲشِر زَبان چھِ جۆم تہٕ کٔشیٖرِ مَنٛز بولنہٕ یِوان۔ لَل دید چھِ اَمِچ مَشہور شٲعِر۔ سِری نَگَر چھُ کٔشیٖرِ ہُنٛد بۆڈ شہر۔",
    },
    "tur_Latn": {
        "kmr": "Zimanê kurdî zimanekî kevn e û gelek kes pê diaxivin. Kurd li çend welatan dijîn. Edebiyata wan pir kevn e.",
        "zza": "Zazaki zıwanê do Hindo-Ewropayiyo. Zazay zafane Tırkiya de cıwiyenê. Kıtabê verêni serranê verênan de nusiyê.",
    },
    "fin_Latn": {
        "sme": "Sámegiella lea uralalaš giella. Olbmot barget boazodoaluin ja guolástemiin. Dálvet lea hui seavdnjat ja buolaš.",
        "olo": "Karjalan kieli on suomelas-ugrilaine kieli, kudamal paistah Karjalas da Suomes. Nygöi nuoret ei malteta sidä.",
    },
    "swh_Latn": {
        "kin": "Kigali ni umurwa mukuru w'u Rwanda. Abantu benshi baza gusura uyu mujyi buri mwaka. Hari n'amaduka menshi.",
        "lin": "Kinshasa ezali engumba monene ya Kongo. Bato ebele bafandaka kuna mpe basalaka misala ndenge na ndenge.",
    },
    "hin_Deva": {"mai": "मैथिली बिहार आ नेपालमे बाजल जाइत अछि। एहि भाषाक साहित्य बहुत पुरान अछि। विद्यापति पैघ कवि मानल जाइत छथि।"},
    "vie_Latn": {
        "vie": "Hom nay toi di choi voi ban be o cong vien. Troi rat dep va co nhieu nguoi. Chung toi an kem va noi chuyen ca buoi "
        "chieu. Sau do toi ve nha nau com cho gia dinh. Me toi rat thich mon ca kho va canh chua."
    },
}  # fmt: skip
CITY = (
    "The committee met on Tuesday to discuss the new budget for the coming year. Several members argued that the price of "
    "electricity had risen too quickly. Local farmers asked for better roads and a larger storage hall. The mayor promised to "
    "answer every question in writing. The museum shows tools that people used a century ago."
)


@pytest.mark.parametrize("label", sorted(STRANGE))
def test_languages_that_lingua_takes_for_another(label: str) -> None:
    pack = load_label(label)
    for text in STRANGE[label].values():
        named, confidence = language_of(pack.normalise(text), pack, load_labeller(pack))
        assert named != label or confidence <= UNSURE, (text, named, confidence)


def test_a_long_text_without_the_languages_words_is_unsure(urdu: Pack) -> None:
    def sure(text: str, pack: Pack) -> float:
        return language_of(text, pack, Identifier(lambda text: ("urd_Arab", 0.99), frozenset()))[1]

    assert sure("ایک " * (EACH - 1), urdu) == 0.99 and sure("ایک " * EACH, urdu) == UNSURE
    assert sure("ایک " * EACH + "ہے", urdu) > 0.99 and sure("ایک " * EACH * 2 + "ہے", urdu) == UNSURE
    assert sure("ایک " * EACH, replace(urdu, common_words=WORDS | {SHARED: ("ایک",)})) == 0.99
    assert sure("ایک " * EACH, replace(urdu, common_words={"urd_Arab": WORDS["urd_Arab"]})) == 0.99  # nothing to tell it from


@pytest.mark.parametrize("label", ["tur_Latn", "vie_Latn", "ind_Latn", "fin_Latn", "swh_Latn"])
def test_a_text_that_ends_in_english_is_unsure(label: str) -> None:
    pack = load_label(label)
    identifier = load_labeller(pack)
    assert language_of(f"{TEXTS[label]}\n\n{CITY}", pack, identifier) == (label, UNSURE)
    assert language_of(f"{TEXTS[label]}\n{TEXTS[label]}", pack, identifier) == (label, pytest.approx(1, abs=0.02))
    assert language_of(f"{TEXTS[label]} {EN}", pack, identifier)[1] > 0.9  # a sentence is quoted


def test_letters_of_a_neighbour(urdu: Pack) -> None:
    assert foreign_share("ڪتاب اور قلم", "ڪ") == pytest.approx(1 / 3) and foreign_share("", "ڪ") == 0
    text = TEXTS["urd_Arab"]
    words = text.split()
    several = " ".join(word + "ڻ" if k % 5 == 0 else word for k, word in enumerate(words))
    identifier = load_labeller(urdu)
    assert language_of(several, urdu, identifier) == (UNKNOWN, 0.0)
    assert language_of(text + " ڄام شورو", urdu, identifier)[0] == "urd_Arab"


def test_thai_words_are_counted_without_blanks() -> None:
    thai = replace(load_label("tha_Thai"), common_words={"tha_Thai": ("และ", "ใน"), "lao_Laoo": ("ແລະ",)})
    assert common_word_counts("ฤดูฝนและฤดูหนาวในปี", thai) == {"tha_Thai": 2, "lao_Laoo": 0}


def test_glotlid_names_documents_itself(urdu: Pack, tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    words = {"میں": "urd_Arab", "ہے": "urd_Arab", "اے": "pnb_Arab", "نیں": "pnb_Arab", "book": "eng_Latn"}
    identifier = load_labeller(urdu, tiny_fasttext(tmp_path / "model.bin", words))
    assert [language_of(text, urdu, identifier)[0] for text in (UR, NEAR["pnb_Arab"], EN)] == ["urd_Arab", "pnb_Arab", "eng_Latn"]


# --- GlotLID


def tiny_fasttext(path: Path, words: dict[str, str]) -> str:
    """A supervised fastText model (format 12) in which each word speaks for its label with all its weight."""
    labels = sorted(set(words.values()))
    size = len(labels)
    data = struct.pack("<2i", 793712314, 12)
    # dim, ws, epoch, minCount, neg, wordNgrams, softmax, supervised, bucket, minn, maxn, lrUpdateRate, t
    data += struct.pack("<12id", size, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100, 1e-4)
    data += struct.pack("<3i2q", len(words) + size, len(words), size, 1, -1)
    for kind, names in enumerate((words, [f"__label__{label}" for label in labels])):
        data += b"".join(name.encode() + b"\0" + struct.pack("<qb", 1, kind) for name in names)
    weights = [10.0 if label == words[word] else 0.0 for word in words for label in labels]
    data += struct.pack(f"<?2q{len(weights)}f", False, len(words), size, *weights)
    unit = [float(row == column) for row in range(size) for column in range(size)]
    data += struct.pack(f"<?2q{len(unit)}f", False, size, size, *unit)
    path.write_bytes(data)
    return str(path)


def test_glotlid_file(pack: Pack, tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    words = {"میں": "urd_Arab", "ہے": "urd_Arab", "اے": "pnb_Arab", "پڑھدا": "pnb_Arab", "book": "eng_Latn", "naam": "urd_Latn"}
    identifier = load_identifier(pack, tiny_fasttext(tmp_path / "model.bin", words))
    assert identifier is not None
    assert [identifier.top(text)[0] for text in (UR, SHAHMUKHI, EN, ROMAN)] == ["ur", "pnb_Arab", "en", "urd_Latn"]
    assert wrong_language(f"{SHAHMUKHI}\n{SHAHMUKHI}", "ur", identifier)  # what lingua lets pass
    assert not wrong_language(UR, "ur", identifier)
    assert wrong_language(EN, "ur", identifier) and not wrong_language(EN, "en", identifier)
    assert not wrong_language(ROMAN, "ur-Latn", identifier)


def test_bad_glotlid_files_are_named(pack: Pack, tmp_path: Path) -> None:
    pytest.importorskip("fasttext")
    with pytest.raises(UsageError, match=r"glotlid_model=.*none\.bin: there is no such file"):
        load_identifier(pack, str(tmp_path / "none.bin"))
    (tmp_path / "bad.bin").write_text("no model")
    with pytest.raises(UsageError, match=r"bad\.bin is no fastText model"):
        load_identifier(pack, str(tmp_path / "bad.bin"))
    with pytest.raises(UsageError, match="no GlotLID label"):
        load_identifier(replace(pack, glotlid=""), str(tmp_path / "bad.bin"))
