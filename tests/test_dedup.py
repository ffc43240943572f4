"""The ROUGE-L pool against the rouge_score package (with a whitespace tokenizer) and against a plain loop."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from data_gen.dedup import RougePool
from data_gen.urdu import tokens


class Whitespace:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


SCORER = RougeScorer(["rougeL"], tokenizer=Whitespace())


def oracle(left: str, right: str) -> float:
    return float(SCORER.score(left, right)["rougeL"].fmeasure)


def random_text(rng: random.Random, words: list[str], old: list[str]) -> str:
    """New words, or an earlier text with some words changed: scores of all sizes, many near the threshold."""
    if old and rng.random() < 0.6:
        text = rng.choice(old).split()
        for _ in range(rng.randrange(0, 1 + len(text) // 2)):
            text[rng.randrange(len(text))] = rng.choice(words)
        return " ".join(text)
    return " ".join(rng.choices(words, k=rng.randint(1, 20)))


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
        [match] = pool.admit([("right", right)], limit=1)
        expected = oracle(left, right)
        assert match.score == pytest.approx(expected, abs=1e-12), (k, left, right)
        assert match.accepted == (round(expected, 12) <= 0.7)


def test_pool_decides_as_a_plain_loop() -> None:
    rng = random.Random(1)
    words = [f"w{k}" for k in range(40)]
    pool, kept = RougePool(0.7), list[tuple[str, str]]()
    texts: list[str] = []
    for reply in range(40):
        candidates = []
        for k in range(8):
            texts.append(random_text(rng, words, texts))
            candidates.append((f"{reply}.{k}", texts[-1]))
        matches = pool.admit(candidates, limit=100)
        assert len(matches) == len(candidates)
        for (item_id, text), match in zip(candidates, matches, strict=True):
            scores = {other: oracle(text, known) for other, known in kept}
            best = max(scores.values(), default=0.0)
            assert match.score == pytest.approx(best)
            assert match.nearest == "" if not best else scores[match.nearest] == pytest.approx(best)
            assert match.accepted == (round(best, 12) <= 0.7)
            if match.accepted:
                kept.append((item_id, text))
    assert 50 < len(kept) < 300
    assert pool.ids == [item_id for item_id, _ in kept]


def test_equal_to_the_threshold_is_kept() -> None:
    for size in (10, 20, 40, 60):
        same, other = [f"s{k}" for k in range(size * 7 // 10)], [f"o{k}" for k in range(size * 3 // 10)]
        pool = RougePool(0.7)
        pool.add("a", " ".join(same + other))
        [match] = pool.admit([("b", " ".join(same + [f"n{k}" for k in range(len(other))]))], limit=1)
        assert (match.score, match.accepted, match.nearest) == (0.7, True, "a")


def test_limit_ends_the_reply() -> None:
    pool = RougePool(0.7)
    candidates = [("a", "ایک دو تین"), ("b", "ایک دو تین"), ("c", "چار پانچ چھ"), ("d", "سات آٹھ نو")]
    assert [match.accepted for match in pool.admit(candidates, limit=2)] == [True, False, True]
    assert pool.ids == ["a", "c"]
    assert pool.admit(candidates, limit=0) == []
    assert [match.accepted for match in pool.admit(candidates[3:], limit=1)] == [True]


def test_spelling_does_not_make_an_item_new() -> None:
    pool = RougePool(0.7)
    pool.add("seed", "اُردُو میں ۳ پھلوں کے نام لکھیں۔")
    [match] = pool.admit([("x", "اردو مي\u06ba 3 پھلوں کے نام لکھیں")], limit=1)
    assert (match.score, match.accepted) == (1.0, False)
    assert tokens("۔") == []
    assert [match.score for match in pool.admit([("y", "۔"), ("z", "؟")], limit=2)] == [0.0, 0.0]
