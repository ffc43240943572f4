"""Words that are remembered give the tokens of the tokenizer itself, on text that is made to break them."""

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from alif_jax.data import words
from alif_jax.data.words import PATTERNS, Words, may_cut
from tests import tiny

# Letters with and without marks, digits of two scripts, numbers that are no digits, every kind of space, quotes, line breaks.
PIECES = (
    [*tiny.WORDS[:12], "کِتاب", "اُردُو", "۔", "؟", "،", "it's", "WE'LL", "'s", "abc", "é", "e\u0301", "ﷺ", "½", "Ⅷ", "²"]
    + ["۱۲۳۴", "12345", "7", "(", "…", "--", "\u200c", "\u200d", "\u064e", "😀", "👩\u200d👧", "हिन्दी", "中文"]
    + [" "] * 30 + ["  ", "   ", "\n", "\n\n", "\r\n", "\t", " \n", "\n ", "\u00a0", "\u2003", "\u0085", "\x1c", "\u180e", "\u3000"]
    + ["<|user|>", "<|end_of_turn|>", "<|begin_of_text|>", "<|", "|>"]
)  # fmt: skip


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def trained(pre_tokenizer: pre_tokenizers.PreTokenizer, normalizer: normalizers.Normalizer | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=list(tiny.SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*tiny.sentences(200), *texts(300, seed=9)], trainer)
    return tokenizer


def texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["", " ", "  ", *("".join(rng.choice(np.asarray(PIECES, object), rng.integers(1, 40))) for _ in range(count))]


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama3": lambda: trained(split_by(PATTERNS[0])),
    "qwen": lambda: trained(split_by(PATTERNS[1]), normalizers.NFC()),
}


def agree(core: Tokenizer, remembering: Words, seed: int) -> None:
    given = texts(400, seed)
    for offsets in (True, False):
        for text, tokens, whole in zip(
            given, remembering.encode(given, offsets=offsets), core.encode_batch(given, add_special_tokens=False), strict=True
        ):
            assert tokens.ids.tolist() == whole.ids, text
            assert tokens.offsets.tolist() == (list(map(list, whole.offsets)) if offsets else []), text
            assert tokens.ids.dtype == np.int32


@pytest.mark.parametrize("joined", [1, 3, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_tokens_and_offsets(kind: str, joined: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "JOINED", joined)
    core = KINDS[kind]()
    remembering = Words(core)
    assert remembering.separable
    for seed in range(3):  # the later ones from memory
        agree(core, remembering, seed)
    known = len(remembering.ids)
    assert 100 < known and max(map(len, remembering.ids)) <= words.LONG
    monkeypatch.setattr(words, "LIMIT", known // 2)
    agree(core, remembering, 0)


def test_remembered_words_are_not_encoded_again() -> None:
    core = KINDS["llama3"]()
    remembering = Words(core)
    seen: list[str] = []

    class Counting:
        def encode_batch(self, given: list[str], **options: bool) -> object:
            seen.extend(given)
            return core.encode_batch(given, **options)

    assert remembering.separable
    remembering.core = Counting()  # type: ignore[assignment]
    remembering.encode(["پانی اور پانی", "اور پانی"], offsets=True)
    assert seen[0] in (". پانی اور", ". اور پانی") and seen[1:] == ["پانی", "اور"]
    remembering.encode(["پانی اور نیا"], offsets=True)
    assert seen[3:] == [". نیا", "پانی"]


def other(change: Callable[[Tokenizer], object]) -> Tokenizer:
    core = KINDS["llama3"]()
    change(core)
    return core


def set_part(name: str, part: object) -> Callable[[Tokenizer], object]:
    return lambda core: setattr(core, name, part)


UNKNOWN: dict[str, Callable[[], Tokenizer]] = {
    "prefix space": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": lambda: trained(pre_tokenizers.Metaspace()),
    "another pattern": lambda: trained(split_by(r"\S+ \S+|\s+")),
    "no splitting": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
    "two patterns": lambda: trained(pre_tokenizers.Sequence([split_by(PATTERNS[0]), split_by(r" \S")])),
    "a normalizer": lambda: trained(split_by(PATTERNS[0]), normalizers.Replace(" ", "x")),
    "trimmed offsets": lambda: other(set_part("post_processor", processors.ByteLevel(trim_offsets=True, add_prefix_space=True))),
    "a token of two words": lambda: other(lambda core: core.add_tokens(["پانی اور"])),
    "a token that takes spaces": lambda: other(lambda core: core.add_special_tokens([AddedToken("<mask>", rstrip=True)])),
    "a token that is a word": lambda: other(lambda core: core.add_tokens([AddedToken("پانی", single_word=True)])),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNKNOWN)
def test_other_tokenizers_encode_whole_texts(kind: str) -> None:
    core = UNKNOWN[kind]()
    assert not may_cut(core)
    agree(core, Words(core), 0)


def test_what_changes_nothing_is_cut() -> None:
    assert may_cut(other(lambda core: core.add_tokens(["پانی", " اور"])))
    assert may_cut(other(set_part("post_processor", processors.ByteLevel(trim_offsets=True, add_prefix_space=False))))
    for change in (lambda core: core.add_tokens(["پانی", " اور"]),
                   set_part("post_processor", processors.ByteLevel(trim_offsets=True, add_prefix_space=False))):  # fmt: skip
        core = other(change)
        agree(core, Words(core), 1)
