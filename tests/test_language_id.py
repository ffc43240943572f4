"""Language identification: what it rejects of text in other languages, and that it rejects nothing that is right."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.language_id import Identifier, load_identifier, wrong_language
from data_gen.languages import Pack, load_pack

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
