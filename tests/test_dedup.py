"""The ROUGE-L pool against the rouge_score package (with a whitespace tokenizer), both pools against plain loops over all pairs."""

import random
import subprocess
import sys

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from data_gen.dedup import Match, NearPool, RougePool, bands, run_hashes
from data_gen.text import tokens


class Whitespace:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


SCORER = RougeScorer(["rougeL"], tokenizer=Whitespace())


def oracle(left: str, right: str) -> float:
    return float(SCORER.score(left, right)["rougeL"].fmeasure)


def random_text(rng: random.Random, words: list[str], old: list[str], longest: int = 20) -> str:
    """New words, or an earlier text with some words changed: scores of all sizes, many near the threshold."""
    if old and rng.random() < 0.6:
        text = rng.choice(old).split()
        for _ in range(rng.randrange(0, 1 + len(text) // 2)):
            text[rng.randrange(len(text))] = rng.choice(words)
        return " ".join(text)
    return " ".join(rng.choices(words, k=rng.randint(1, longest)))


def admit(pool: RougePool | NearPool, texts: list[str]) -> list[Match]:
    """Each is matched and, when it is accepted, added under its number."""
    matches = []
    for number, text in enumerate(texts):
        matches.append(pool.match(text))
        if matches[-1].accepted:
            pool.add(str(number), text)
    return matches


# --- ROUGE-L


@pytest.mark.parametrize("pairs", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_scores_are_rouge_scores(pairs: int) -> None:
    rng = random.Random(0)
    words = [f"لفظ{k}" for k in range(30)]
    old: list[str] = []
    for k in range(pairs):
        old.append(random_text(rng, words, old[-50:]))
        left, right = rng.choice(old[-50:]), old[-1]
        pool = RougePool(0.7)
        pool.add("left", left)
        match, expected = pool.match(right), oracle(left, right)
        assert match.score == pytest.approx(expected, abs=1e-12), (k, left, right)
        assert match.accepted == (round(expected, 12) <= 0.7)


@pytest.mark.parametrize(("threshold", "count", "longest"), [(0.7, 250, 20), (0.7, 60, 90), (0.3, 150, 20), (0.95, 150, 20)])
def test_pool_decides_as_a_plain_loop(threshold: float, count: int, longest: int) -> None:
    """The exact highest score and the first text that has it, accepted or not; long texts take another path in rapidfuzz."""
    rng = random.Random(1)
    words = [f"w{k}" for k in range(40)]
    texts: list[str] = []
    for _ in range(count):
        texts.append(random_text(rng, words, texts, longest))
    pool, kept = RougePool(threshold), list[str]()
    matches = admit(pool, texts)
    for number, (text, match) in enumerate(zip(texts, matches, strict=True)):
        scores = [oracle(texts[int(item_id)], text) for item_id in kept]
        best = max(scores, default=0.0)
        assert match.score == pytest.approx(best, abs=1e-12)
        assert match.accepted == (round(best, 12) <= threshold)
        firsts = [item_id for item_id, score in zip(kept, scores, strict=True) if score > best - 1e-12]
        assert match.nearest == (firsts[0] if best else "")
        if match.accepted:
            kept.append(str(number))
    assert 10 < len(kept) < count
    assert pool.ids == kept and len(pool) == len(kept)


def test_equal_to_the_threshold_is_kept() -> None:
    for size in (10, 20, 40, 60, 100):
        for tenths in range(1, 10):
            same, other = [f"s{k}" for k in range(size * tenths // 10)], [f"o{k}" for k in range(size - size * tenths // 10)]
            pool = RougePool(tenths / 10)
            pool.add("a", " ".join(same + other))
            match = pool.match(" ".join(same + [f"n{k}" for k in range(len(other))]))
            assert (match.score, match.accepted, match.nearest) == (tenths / 10, True, "a")


def test_matching_changes_nothing() -> None:
    pool = RougePool(0.7)
    pool.add("a", "ایک دو تین")
    assert [pool.match("ایک دو تین چار").score for _ in range(3)] == [6 / 7] * 3
    assert (pool.match("پانچ چھ"), pool.match(""), len(pool)) == (Match(True, 0.0, ""), Match(True, 0.0, ""), 1)
    assert RougePool(0.7).match("ایک دو تین") == Match(True, 0.0, "")


def test_words_the_pool_does_not_know_are_no_match_for_each_other() -> None:
    """A text of one word said twice against new words: they share nothing, though none of them is in the vocabulary."""
    pool = RougePool(0.7)
    pool.add("a", "سیب سیب آم")
    assert pool.match("کیلا انگور سیب").score == pytest.approx(oracle("سیب سیب آم", "کیلا انگور سیب")) == 1 / 3


def test_repeats_count_as_often_as_both_have_them() -> None:
    pool = RougePool(0.7)
    pool.add("a", "بہت بہت بہت شکریہ")
    for text in ("بہت شکریہ", "بہت بہت شکریہ", "بہت بہت بہت بہت بہت", "شکریہ بہت"):
        assert pool.match(text).score == pytest.approx(oracle("بہت بہت بہت شکریہ", text))


def test_spelling_does_not_make_an_item_new() -> None:
    pool = RougePool(0.7)
    pool.add("seed", "اُردُو میں ۳ پھلوں کے نام لکھیں۔")
    match = pool.match("اردو مي\u06ba 3 پھلوں کے نام لکھیں")
    assert (match.score, match.accepted) == (1.0, False)
    assert tokens("۔") == []
    pool.add("stop", "۔")
    assert [pool.match(text).score for text in "۔؟"] == [0.0, 0.0]


# --- near duplicates


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return set(zip(words, words[1:], words[2:], strict=False))


def variants(rng: random.Random, count: int) -> list[str]:
    """Texts of 12 to 60 words, two thirds of them earlier ones with a run of words changed, so that any similarity comes up."""
    words, texts = [f"w{k}" for k in range(400)], list[str]()
    while len(texts) < count:
        if texts and rng.random() < 0.67:
            text = rng.choice(texts).split()
            size = rng.randrange(0, 1 + rng.randrange(1 + len(text) * 2 // 3))
            start = rng.randrange(len(text) - size + 1)
            text[start : start + size] = rng.choices(words, k=rng.randint(size // 2, size + 1))
        else:
            text = rng.choices(words, k=rng.randint(12, 60))
        if len(text) >= 8:
            texts.append(" ".join(text))
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_near_pool_finds_what_is_near_and_nothing_else(threshold: float) -> None:
    texts = variants(random.Random(2), 600)
    sets = [shingles(text) for text in texts]
    pool, near, found = NearPool(threshold), 0, 0
    for number, text in enumerate(texts):
        scores = {str(k): len(sets[number] & sets[k]) / len(sets[number] | sets[k]) for k in range(number)}
        best, match = max(scores.values(), default=0.0), pool.match(text)
        assert match.score == (scores[match.nearest] if match.nearest else 0.0)  # never an estimate
        assert match.accepted == (match.score < threshold)
        near += best >= threshold
        found += not match.accepted
        pool.add(str(number), text)
    assert near >= 100
    assert found >= 0.99 * near


def test_texts_at_the_threshold_are_refused() -> None:
    pool = NearPool(0.5)
    pool.add("a", "ا ب پ ت ٹ ث ج چ ح خ د ڈ")  # 10 shingles
    match = pool.match("ا ب پ ت ٹ ث ج چ ح خ د ڈ " + " ".join(f"x{k}" for k in range(10)))  # these 10 and 10 more
    assert match == Match(False, 0.5, "a")
    assert pool.match("ا ب پ ت ٹ ث ج چ ح خ د ڈ " + " ".join(f"x{k}" for k in range(11))).accepted


def test_nearly_equal_texts_are_told_apart() -> None:
    """Long texts that differ in the last word have most bands in common; each finds itself."""
    head, pool = " ".join(f"w{k}" for k in range(600)), NearPool(0.5)
    for number in range(8):
        pool.add(str(number), f"{head} end{number}")
    assert [pool.match(f"{head} end{number}") for number in range(8)] == [Match(False, 1.0, str(number)) for number in range(8)]
    assert pool.match(head).nearest == "0"  # as near as all the others


def test_saying_it_twice_makes_no_difference() -> None:
    pool, once = NearPool(0.9), " ".join(f"w{k}" for k in range(40))
    pool.add("once", once)
    match = pool.match(" ".join([once] * 3))  # its 38 shingles, and 2 where one ends and the next begins
    assert match == Match(False, 38 / 40, "once")


def test_short_texts_always_pass() -> None:
    pool = NearPool(0.5)
    pool.add("short", "جی ہاں، بالکل درست بات ہے۔ شکریہ۔")
    assert (len(pool), pool.match("جی ہاں، بالکل درست بات ہے۔ شکریہ۔")) == (0, Match(True, 0.0, ""))
    pool.add("long", "جی ہاں، بالکل درست بات ہے۔ بہت شکریہ۔")
    assert (len(pool), pool.match("جی ہاں! بالکل درست بات ہے، بہت شکریہ")) == (1, Match(False, 1.0, "long"))
    assert NearPool(0.5, min_words=9).match("جی ہاں، بالکل درست بات ہے۔ بہت شکریہ۔").accepted
    with pytest.raises(ValueError, match="min_words 2"):
        NearPool(0.5, min_words=2)
    with pytest.raises(ValueError, match="threshold 0"):
        NearPool(0)


def test_bands_miss_few_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9):
        count, rows = bands(threshold)
        assert (1 - threshold**rows) ** count <= 0.005
        assert count * rows <= 128
        assert bands(threshold + 0.05)[1] >= rows  # the nearer texts must be, the fewer others are proposed


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from data_gen.dedup import run_hashes; print(run_hashes('ایک دو تین'.split(), 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert other.stdout.strip() == str(run_hashes("ایک دو تین".split(), 2))


def test_runs_of_words_differ_by_order_and_length() -> None:
    one, two, three = run_hashes("a b c a b".split(), 3)
    assert list(map(len, (one, two, three))) == [5, 4, 3]
    assert (one[0], two[0]) == (one[3], two[3])  # "a", "a b" come twice
    assert len(np.unique(np.concatenate([one, two, three]))) == 3 + 3 + 3
    assert run_hashes(["b", "a"], 2)[1] != two[0]
    assert list(map(len, run_hashes(["a"], 3))) == [1, 0, 0]
    assert list(map(len, run_hashes([], 2))) == [0, 0]
