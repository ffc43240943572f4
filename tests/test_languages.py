"""Language packs: the shipped ones load, and every mistake in a pack.toml is named with its key and table."""

import re
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.languages import load_label, load_pack, packs
from data_gen.seeds import load_task

SHIPPED = Path(__file__).parent.parent / "data_gen" / "languages"
# A language that nobody speaks, with no key that may be left out.
TOKI = """
name = "Toki"
native_name = "toki"
script = "Latin"
direction = "ltr"
lingua = ""
glotlid = ""
sentence_ends = ".?!"
list_comma = ","
answer_mark = "sona:"
choice_letters = ["A", "B"]
[prompt]
standard = "plain Toki"
[patterns]
into = "Toki"
into_english = "English"
boiler_plate = "ilo"
refusal = "^ala"
"""


def pack_of(root: Path, text: str) -> Path:
    (root / "tok").mkdir(exist_ok=True)
    (root / "tok" / "pack.toml").write_text(text, encoding="utf-8")
    load_pack.cache_clear()
    return root


def test_a_pack_with_only_what_it_must_have(tmp_path: Path) -> None:
    pack = load_pack("tok", pack_of(tmp_path, TOKI))
    assert (pack.name, pack.choice_letters, pack.verbs, pack.foreign_letters) == ("Toki", ("A", "B"), (), "")
    assert {code: variety.min_share for code, variety in pack.varieties.items()} == {"tok": 0.7, "en": 0.7}
    more = TOKI + '[varieties.tok-Arab]\nname = "x"\nscript = "Arabic"\nwritten = "y"\nmin_share = 1\n[letters]\n"a" = "b"\n'
    pack = load_pack("tok", pack_of(tmp_path, more))
    assert pack.varieties["tok-Arab"].min_share == 1 and pack.normalise("aa") == "bb"
    assert packs(tmp_path) == ["tok"]


def test_a_pack_for_web_text_only_says_what_instructions_lack(tmp_path: Path) -> None:
    text = TOKI[: TOKI.index("list_comma")].replace('glotlid = ""', 'glotlid = "tok_Latn"')
    pack = load_pack("tok", pack_of(tmp_path, text))
    assert (pack.pieces_a_word, pack.common_words, pack.varieties["tok"].written) == (1, {}, "Toki")
    assert not pack.web.news.search("news") and not pack.patterns.refusal.search("ala")
    with pytest.raises(UsageError, match="tok.*Toki.* lacks list_comma, answer_mark, choice_letters, prompt, patterns"):
        load_task("generation", pack, heldout_share=0, seed=0)
    more = f"{text}pieces_a_word = 3\n[common_words]\ntok_Latn = 'mi li'\nx = 'la'\n[web]\nnews = 'sin'\n"
    pack = load_pack("tok", pack_of(tmp_path, more))
    assert (pack.pieces_a_word, pack.common_words) == (3, {"tok_Latn": ("mi", "li"), "x": ("la",)})
    assert pack.web.news.search("sin") and not pack.web.damage.search("sin")


def test_languages_by_their_names_with_script() -> None:
    assert (load_label("urd_Arab").code, load_label("snd_Arab").code) == ("ur", "sd")
    with pytest.raises(UsageError, match="no language pack for 'urd'; there are .*snd_Arab.*urd_Arab"):
        load_label("urd")


def test_the_shipped_packs_load() -> None:
    shipped = {code: load_pack(code) for code in packs()}
    ten = {"hi": "Hindi", "bn": "Bengali", "ta": "Tamil", "th": "Thai", "sw": "Swahili", "tr": "Turkish", "vi": "Vietnamese"}
    ten |= {"id": "Indonesian", "fi": "Finnish", "ur": "Urdu"}
    assert {code: pack.name for code, pack in shipped.items()} == ten | {"sd": "Sindhi"}
    for code in ("sd", "ur"):
        shipped[code].check_instructions()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "Toki"', "name = 5", "name = 5 is not a text"),
        ('name = "Toki"', 'name = ""', "name is empty"),
        ('name = "Toki"\n', "", "the key 'name' is missing"),
        ('lingua = ""', 'lingua = ""\nneighbours = "ar"', "neighbours = 'ar' is not a list of texts"),
        ('lingua = ""', 'lingua = ""\nverbs = [1]', r"verbs = \[1\] is not a list of texts"),
        ('lingua = ""', 'lingua = ""\nletters = "x"', "letters = 'x' is not a table of texts"),
        ('lingua = ""', "lingua = false", "lingua = False is not a text"),
        ('lingua = ""', 'lingua = ""\npieces_a_word = 1.5', "pieces_a_word = 1.5 is no whole number from 1 on"),
        ("[prompt]", "[common_words]\nx = 'la'\n[prompt]", r"\[common_words\]: the language's own words, , are missing"),
        ("[prompt]", "[common_words]\n'' = 'la'\nx = 'la'\n[prompt]", r"\[common_words\]: 'la' is in  and in x; a word must tell"),
        ("[prompt]", "[web]\nnews = '('\n[prompt]", r"\[web\]: news = '\(' is no regular expression"),
        ("[prompt]", "[web]\nnew = 'x'\n[prompt]", r"\[web\]: unknown key 'new'; there are boiler_plate, damage, news"),
        ('lingua = ""', 'lingua = ""\ncolour = 3', "unknown key 'colour'; there are answer_mark, choice_letters"),
        ('["A", "B"]', "[]", "choice_letters is empty"),
        ('answer_mark = "sona:"', 'answer_mark = ""', "answer_mark is empty"),
        ('"ltr"', '"right"', "direction = 'right'; there are rtl, ltr"),
        ('script = "Latin"', 'script = "Latein"', "script = 'Latein' is no script of Unicode, such as Arabic or Latin"),
        ('standard = "plain Toki"', "", r"\[prompt\]: the key 'standard' is missing"),
        ('standard = "plain Toki"', 'standard = "x"\nsetting = 3', "prompt = .* is not a table of texts"),
        ('[prompt]\nstandard = "plain Toki"', "prompt = 3", "prompt = 3 is not a table of texts"),
        ("refusal", "refusals", r"\[patterns\]: unknown key 'refusals'; there are boiler_plate, into, into_english, refusal"),
        ('into = "Toki"', "", r"\[patterns\]: the key 'into' is missing"),
        ('into = "Toki"', 'into = "(Toki"', r"\[patterns\]: into = '\(Toki' is no regular expression: missing \)"),
        ('into = "Toki"', "into = 1", r"\[patterns\]: into = 1 is not a text"),
        ('refusal = "^ala"', 'refusal = ""', r"\[patterns\]: refusal is empty"),
        ("[patterns]", '[varieties]\ntok-Arab = "x"\n[patterns]', r"\[varieties.tok-Arab\]: 'x' is no table; it has max_share"),
        (
            "[patterns]",
            '[varieties.tok-Arab]\nname = "x"\nscript = "Arabic"\n[patterns]',
            r"\[varieties.tok-Arab\]: the key 'written' is missing",
        ),
        (
            "[patterns]",
            '[varieties.tok-Arab]\nname = "x"\nscript = "Arabic"\nwritten = "y"\nmin_share = "0.5"\n[patterns]',
            r"\[varieties.tok-Arab\]: min_share = '0.5' is not a number",
        ),
        (
            "[patterns]",
            '[varieties.tok-Arab]\nname = "x"\nscript = "Arabian"\nwritten = "y"\n[patterns]',
            r"\[varieties.tok-Arab\]: script = 'Arabian' is no script",
        ),
        ("[patterns]", "[patterns", "Expected"),
    ],
)
def test_a_mistake_in_a_pack_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TOKI
    with pytest.raises(UsageError, match=f"tok/pack.toml: {words}") as error:
        load_pack("tok", pack_of(tmp_path, TOKI.replace(old, new, 1)))
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    pack_of(tmp_path, TOKI)
    (tmp_path / "tok" / "pack.toml").write_bytes(b"\xd8")
    with pytest.raises(UsageError, match="tok/pack.toml: 'utf-8' codec"):
        load_pack("tok", tmp_path)


def test_a_language_without_a_pack_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no language pack for 'fr'; there are tok. To write one"):
        load_pack("fr", pack_of(tmp_path, TOKI))


def test_no_task_says_what_is_so_without_it() -> None:
    """A default spelt out in a task.toml would have to be kept equal to the code."""
    for file in sorted((SHIPPED.parent / "tasks").glob("*/task.toml")):
        assert not re.findall(r'(?m)^(?:\w+ = (?:""|false|0|\[\])|form = "single"|source = "seeds")$', file.read_text()), file
    assert load_task("roman", load_pack("ur"), heldout_share=0, seed=0).rules.form == "single"
