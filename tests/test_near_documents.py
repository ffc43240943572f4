"""Choosing among documents, against plain loops over all pairs: exact Jaccard similarity, sets of words, nothing hashed."""

import itertools
import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from data_gen.near_documents import BANDS, CHOICES, DOMAIN, DUPLICATE, FACTS, NEAR, NEWS, VALUES, WORDS, choose, document_facts
from data_gen.text import tokens


def page(rng: random.Random, words: int = 120) -> list[str]:
    return [f"لفظ{rng.randrange(3000)}" for _ in range(words)]


def item_id(number: int) -> str:
    return f"{random.Random(number).getrandbits(64):016x}"


def runs(text: str, size: int = WORDS) -> set[tuple[str, ...]]:
    words = tokens(text)
    return {tuple(words[k : k + size]) for k in range(len(words) - size + 1)}


def jaccard(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> float:
    return len(left & right) / len(left | right)


def chosen(*rows: np.ndarray, domain_cap: int = 0, max_news_share: float = 1.0) -> list[str]:
    (made,) = choose([np.array(list(rows), FACTS)], domain_cap=domain_cap, max_news_share=max_news_share)
    return [CHOICES[row["reason"]] for row in made]


def plain_rows(count: int, *, domain: str = "", news: bool = False, start: int = 0) -> list[np.ndarray]:
    """Facts of texts that have nothing in common."""
    return [
        document_facts(item_id(start + k), " ".join(f"ا{start + k}ب{n}" for n in range(20)), domain=domain, news=news)
        for k in range(count)
    ]


# --- near documents


def edited(rng: random.Random, words: list[str], similarity: float) -> list[str]:
    """A text whose runs of 5 words have about this Jaccard similarity with those of `words`: its end is another one's."""
    shared = int(2 * similarity / (1 + similarity) * len(words))
    return [*words[:shared], *page(rng, len(words) - shared)]


@pytest.mark.parametrize(("similarity", "low", "high"), [(0.9, 0.985, 1.0), (0.8, 0.84, 0.97), (0.5, 0.01, 0.12), (0.3, 0.0, 0.01)])
def test_pairs_are_near_as_often_as_the_bands_say(similarity: float, low: float, high: float) -> None:
    rng, found, expected = random.Random(0), 0, 0.0
    for k in range(400):
        one = page(rng)
        other = edited(rng, one, similarity)
        exact = jaccard(runs(" ".join(one)), runs(" ".join(other)))
        assert exact == pytest.approx(similarity, abs=0.06)
        expected += 1 - (1 - exact**VALUES) ** BANDS
        found += NEAR in choose_pair(" ".join(one), " ".join(other), k)
    assert low <= found / 400 <= high
    assert found / 400 == pytest.approx(expected / 400, abs=0.04)


def choose_pair(one: str, other: str, k: int) -> list[int]:
    rows = np.array([document_facts(item_id(2 * k), one), document_facts(item_id(2 * k + 1), other)], FACTS)
    return list(choose([rows])[0]["reason"])


def corpus(count: int) -> list[str]:
    """Texts of which every third is an earlier one with a few words changed, or with words before it or after it."""
    rng, texts = random.Random(1), list[list[str]]()
    for k in range(count):
        words = page(rng)
        if k % 3 == 2:
            words = list(rng.choice(texts))
            for _ in range(rng.choice([0, 1, 1, 2, 40])):
                words[rng.randrange(len(words))] = "نیا"
            words = [*words, *page(rng, rng.randrange(4))]
        texts.append(words)
    return [" ".join(words) for words in texts]


def test_components_are_those_of_equal_bands_and_surely_near_texts_are_in_one() -> None:
    texts = corpus(300)
    ids = [item_id(k) for k in range(len(texts))]
    rows = [document_facts(ids[k], text) for k, text in enumerate(texts)]
    # By hand: a graph of all pairs with an equal band, walked through.
    near = {k: [j for j in range(len(rows)) if (rows[k]["bands"] == rows[j]["bands"]).any()] for k in range(len(rows))}
    kept, of = set[int](), dict[int, int]()
    seen = set[int]()
    for k in range(len(rows)):
        if k in seen:
            continue
        group, todo = {k}, [k]
        while todo:
            new = [j for j in near[todo.pop()] if j not in group]
            group.update(new)
            todo += new
        seen |= group
        best = min(group, key=lambda j: (-len(texts[j]), int(ids[j], 16)))
        kept.add(best)
        of |= dict.fromkeys(group - {best}, best)
    (made,) = choose([np.array(rows, FACTS)])
    assert {k for k in range(len(rows)) if not made["reason"][k]} == kept
    assert {k: int(made["of"][k]) for k in of} == {k: int(ids[best], 16) for k, best in of.items()}
    assert 200 <= len(kept) <= 230
    # What is far above the threshold is always found.
    sets = [runs(text) for text in texts]
    pairs = [(a, b) for a, b in itertools.combinations(range(len(texts)), 2) if jaccard(sets[a], sets[b]) >= 0.95]
    assert len(pairs) >= 20
    assert all(of.get(a, a) == of.get(b, b) for a, b in pairs)


def test_a_long_chain_is_one_component() -> None:
    """Each has a band in common with the next one only, in an order that is no order of rows."""
    rows = np.zeros(500, FACTS)
    rng = random.Random(3)
    order = rng.sample(range(500), 500)
    rows["id"] = [rng.getrandbits(64) for _ in range(500)]
    rows["bands"] = np.arange(500 * BANDS).reshape(500, BANDS) + 1
    for k, (one, other) in enumerate(itertools.pairwise(order)):
        rows["bands"][one, k % BANDS] = rows["bands"][other, k % BANDS]
    (made,) = choose([rows])
    assert (made["reason"] == 0).sum() == 1
    assert rows["id"][made["reason"] == 0] == rows["id"].min()  # all have the same length


def test_spelling_makes_no_difference_and_short_texts_have_one_run() -> None:
    text = "یہ باغ شہر کے بیچ میں ہے اور بہت پرانا ہے۔"
    same = "یہ باغ ، شہر کے بیچ ميں ہے اور بہت پُرانا ہے"
    assert chosen(document_facts(item_id(0), text), document_facts(item_id(1), same)) == ["near_duplicate", ""]  # the longer stays
    assert chosen(document_facts(item_id(0), "ایک دو"), document_facts(item_id(1), "ایک، دو۔")) == ["near_duplicate", ""]
    assert chosen(document_facts(item_id(0), "ایک دو"), document_facts(item_id(1), "ایک تین")) == ["", ""]
    assert chosen(document_facts(item_id(0), "۔۔"), document_facts(item_id(1), "؟!")) == ["", ""]  # no word: near to nothing


def test_runs_are_words_where_a_word_has_several_tokens() -> None:
    """The first 24 of 40 letters with their marks, of 40 and 24: near by runs of 5 tokens, not by those of 20."""
    text = "กขคฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหฬ"
    long, short = " ".join(text), " ".join(text[:30])
    single = [document_facts(item_id(k), t, pieces=1)["bands"] for k, t in enumerate((long, short))]
    words = [document_facts(item_id(k), t, pieces=4)["bands"] for k, t in enumerate((long, short))]
    shared = [len(runs(long, size) & runs(short, size)) / len(runs(long, size)) for size in (5, 20)]
    assert shared == [26 / 36, 11 / 21]
    assert (single[0] == single[1]).sum() > (words[0] == words[1]).sum()


# --- duplicates, domains, news


def test_of_the_same_id_the_lowest_tie_stays_whatever_the_order() -> None:
    text = " ".join(page(random.Random(5)))
    rows = [document_facts(item_id(0), text, tie=f"https://{name}.example/") for name in "abcde"]
    stays = min(range(5), key=lambda k: rows[k]["tie"])
    for order in itertools.permutations(range(5)):
        reasons = chosen(*(rows[k] for k in order))
        assert [order[k] for k in range(5) if not reasons[k]] == [stays]
        assert Counter(reasons) == {"": 1, "duplicate": 4}
    assert Counter(chosen(rows[0], rows[0], rows[0])) == {"": 1, "duplicate": 2}  # alike in everything


def test_each_domain_keeps_its_cap_of_the_lowest_ids() -> None:
    rows = [*plain_rows(7, domain="a.example"), *plain_rows(3, domain="b.example", start=7), *plain_rows(9, start=10)]
    reasons = chosen(*rows, domain_cap=4)
    assert reasons[7:] == [""] * 12  # few enough, or of no domain
    lowest = sorted(range(7), key=lambda k: rows[k]["id"])
    assert [k for k in lowest if not reasons[k]] == lowest[:4]
    assert reasons.count("domain_cap") == 3
    assert chosen(*rows) == [""] * 19


@pytest.mark.parametrize(("share", "news", "others", "kept"), [
    (0.3, 10, 7, 3), (0.5, 10, 6, 6), (0.1, 10, 18, 2), (0.1, 1, 18, 1), (0.0, 4, 5, 0), (1.0, 9, 0, 9), (0.5, 4, 0, 0),
    (0.3, 2, 70, 2), (0.7, 9, 3, 7),
])  # fmt: skip
def test_the_news_are_at_most_their_share_of_what_stays(share: float, news: int, others: int, kept: int) -> None:
    rows = [*plain_rows(news, news=True), *plain_rows(others, start=news)]
    reasons = chosen(*rows, max_news_share=share)
    lowest = sorted(range(news), key=lambda k: rows[k]["id"])
    assert [k for k in lowest if not reasons[k]] == lowest[:kept]
    assert reasons.count("news_share") == news - kept
    assert reasons[news:] == [""] * others


def test_what_goes_for_one_reason_does_not_count_for_the_next() -> None:
    """A duplicate takes no place in its domain, and news beyond the cap make no share."""
    (same,) = plain_rows(1, domain="a.example")
    rows = [same, same, *plain_rows(2, domain="a.example", start=1), *plain_rows(4, domain="n.example", news=True, start=3)]
    reasons = chosen(*rows, domain_cap=3, max_news_share=0.4)
    assert reasons[:4] == ["", "duplicate", "", ""]
    assert sorted(reasons[4:]) == ["", "", "domain_cap", "news_share"]


# --- a function of the set


def some_rows(count: int) -> list[np.ndarray]:
    rng, rows = random.Random(7), list[np.ndarray]()
    for k, text in enumerate(corpus(count)):
        same = rng.random() < 0.1 and bool(rows)
        said = {"domain": f"{rng.randrange(6)}.example", "news": rng.random() < 0.5, "tie": f"https://{rng.random()}"}
        row = document_facts(item_id(k), text, **said)  # type: ignore[arg-type]
        if same:
            row = rng.choice(rows).copy()
            row["tie"] = rng.getrandbits(64)
        rows.append(row)
    return rows


def test_order_and_division_make_no_difference() -> None:
    rows, rng = some_rows(200), random.Random(8)
    reference: set[bytes] | None = None
    for parts in (1, 1, 4, 7, 200):
        rng.shuffle(rows)
        divided: list[np.ndarray] = [np.array(rows[k::parts], FACTS) for k in range(parts)] + [np.zeros(0, FACTS)]
        made = choose(divided, domain_cap=15, max_news_share=0.3)
        assert list(map(len, made)) == list(map(len, divided))
        kept = {row.tobytes() for part, said in zip(divided, made, strict=True) for row in part[said["reason"] == 0]}
        reasons = Counter(int(reason) for said in made for reason in said["reason"])
        assert all(reasons[reason] for reason in (DUPLICATE, NEAR, DOMAIN, NEWS))
        reference = kept if reference is None else reference
        assert kept == reference


def test_nothing_gives_nothing() -> None:
    assert [len(part) for part in choose([np.zeros(0, FACTS), np.zeros(0, FACTS)], domain_cap=1, max_news_share=0.1)] == [0, 0]


def test_memory_of_a_document_is_what_is_said() -> None:
    assert FACTS.itemsize == 141
    rows = np.zeros(200_000, FACTS)
    rng = np.random.default_rng(0)
    rows["id"], rows["tie"] = rng.integers(1, 1 << 63, (2, len(rows)))
    rows["domain"] = rng.integers(1, 1000, len(rows))
    rows["bands"] = rng.integers(1, 1 << 63, (len(rows), BANDS))
    tracemalloc.start()
    choose([rows], domain_cap=100, max_news_share=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / len(rows) <= 85
