"""The pools that keep what is new, measured: `python tests/benchmarks/dedup.py [--candidates=50000] [--pairs=20000]`.

Prints a Markdown table: seconds for the candidates through RougePool, decisions that differ from rouge_score's on random pairs, and
NearPool's speed with its recall and precision against the exact Jaccard similarity of all pairs. One core, however many there are;
times are of that core (CPU time), and by the clock.
Two kinds of text: instructions and answers of the offline teacher's seven grammars, and sequences of made-up words of Urdu letters
whose frequencies follow Zipf's law (8,000 words, 15 to 35 a text), a tenth of them earlier ones with up to half of the words
changed. Recall is measured on Zipf texts too of which every second is an earlier one with a run of its words changed.
"""

import itertools
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from absl import app, flags
from rouge_score.rouge_scorer import RougeScorer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data_gen.dedup import NearPool, RougePool
from data_gen.offline.grammar import MAKERS, make_item
from data_gen.text import tokens

CANDIDATES = flags.DEFINE_integer("candidates", 50_000, "texts sent through RougePool, of each kind")
PAIRS = flags.DEFINE_integer("pairs", 20_000, "compared with rouge_score, half of them of each kind")
ANSWERS = flags.DEFINE_integer("answers", 10_000, "texts sent through NearPool, of each kind")

LETTERS = "ابپتٹجچحخدڈرڑزسشصطظعغفقکگلمنوہیے"
VOCABULARY = 8_000
WRITTEN = ("generation", "ethics")  # tasks with answers of several sentences


class Whitespace:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


def grammar_instructions(count: int) -> list[str]:
    rng, names = random.Random(0), sorted(MAKERS)
    return [make_item(names[k % len(names)], rng).instruction for k in range(count)]


def grammar_answers(count: int) -> list[str]:
    rng = random.Random(1)
    return [make_item(WRITTEN[k % len(WRITTEN)], rng).output for k in range(count)]


def zipf_texts(count: int, shortest: int = 15, longest: int = 35) -> list[str]:
    rng, texts = random.Random(2), list[str]()
    words = ["".join(rng.choices(LETTERS, k=rng.randint(2, 7))) for _ in range(VOCABULARY)]
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(VOCABULARY)))
    for _ in range(count):
        if texts and rng.random() < 0.1:
            text = rng.choice(texts[-2000:]).split()
            for _ in range(max(1, int(len(text) * rng.random() * 0.5))):
                text[rng.randrange(len(text))] = rng.choice(words)
        else:
            text = rng.choices(words, cum_weights=weights, k=rng.randint(shortest, longest))
        texts.append(" ".join(text))
    return texts


def edited(texts: list[str]) -> list[str]:
    """Every second one is an earlier one of them with a run of up to half of its words changed: any similarity from 0.2 on."""
    rng, made = random.Random(4), list[str]()
    for number, text in enumerate(texts):
        if number % 2:
            words, old = text.split(), rng.choice(made).split()
            size = rng.randint(0, len(old) // 2)
            start = rng.randint(0, len(old) - size)
            text = " ".join([*old[:start], *words[:size], *old[start + size :]])
        made.append(text)
    return made


def through(pool: RougePool | NearPool, texts: list[str]) -> tuple[float, float]:
    """Seconds (of the core, by the clock) for matching all and adding those accepted."""
    begin, core = time.perf_counter(), time.process_time()
    for number, text in enumerate(texts):
        if pool.match(text).accepted:
            pool.add(str(number), text)
    return time.process_time() - core, time.perf_counter() - begin


def differing(texts: list[str], count: int) -> tuple[int, int]:
    """(decisions that differ from rouge_score's, pairs it scores above 0.7) of random pairs; half of them are a text and the same
    with up to half of its words changed, so that scores near 0.7 are frequent.
    """
    scorer, rng = RougeScorer(["rougeL"], tokenizer=Whitespace()), random.Random(3)
    wrong, above = 0, 0
    for number in range(count):
        left = tokens(rng.choice(texts))
        right = tokens(rng.choice(texts))
        if number % 2:
            changed = rng.sample(range(len(left)), rng.randint(0, len(left) // 2))
            right = [rng.choice(right) if place in changed else word for place, word in enumerate(left)]
        pool = RougePool(0.7)
        pool.add("left", " ".join(left))
        score = float(scorer.score(" ".join(left), " ".join(right))["rougeL"].fmeasure)
        refused = round(score, 12) > 0.7  # at 0.7 exactly its last bit is either way
        wrong += pool.match(" ".join(right)).accepted == refused
        above += refused
    return wrong, above


def nearest_by_counting(texts: list[str]) -> list[float]:
    """Of each text the highest Jaccard similarity with an earlier one, over runs of 3 words: counted, nothing hashed."""
    having: dict[tuple[str, ...], list[int]] = {}
    sizes, best = list[int](), list[float]()
    for number, text in enumerate(texts):
        words = tokens(text)
        runs = set(zip(words, words[1:], words[2:], strict=False))
        shared = Counter(itertools.chain.from_iterable(having.get(run, ()) for run in runs))
        best.append(max((n / (len(runs) + sizes[other] - n) for other, n in shared.items()), default=0.0))
        sizes.append(len(runs))
        for run in runs:
            having.setdefault(run, []).append(number)
    return best


def quality(texts: list[str], threshold: float) -> str:
    """Recall and precision when every text is added, refused or not."""
    pool, refused = NearPool(threshold), list[bool]()
    for number, text in enumerate(texts):
        refused.append(not pool.match(text).accepted)
        pool.add(str(number), text)
    near = [best >= threshold for best in nearest_by_counting(texts)]
    both = sum(found and right for found, right in zip(refused, near, strict=True))
    return f"recall {both}/{sum(near)} = {both / sum(near):.4f}, precision {both}/{sum(refused)} = {both / sum(refused):.4f}"


def main(argv: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print("| what | text | result |\n|---|---|---|")
    kinds = {"grammars": grammar_instructions(CANDIDATES.value), "Zipf": zipf_texts(CANDIDATES.value)}
    for name, texts in kinds.items():
        pool = RougePool(0.7)
        core, clock = through(pool, texts)
        print(f"| RougePool, {len(texts):,} candidates | {name} | {core:.1f} s ({clock:.1f} s), {len(pool):,} kept |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| peak memory so far | both, and one pool | {peak:.0f} MiB |")
    for name, texts in kinds.items():
        wrong, above = differing(texts, PAIRS.value // 2)
        print(f"| against rouge_score, {PAIRS.value // 2:,} pairs | {name} | {wrong} differ ({above:,} above 0.7) |", flush=True)
    answers = {
        "grammars": grammar_answers(ANSWERS.value),
        "Zipf, 20 to 60 words": zipf_texts(ANSWERS.value, 20, 60),
        "Zipf, 250 to 350 words": zipf_texts(ANSWERS.value // 3, 250, 350),
    }
    for (name, texts), threshold in itertools.product(answers.items(), (0.5, 0.8)):
        near = NearPool(threshold)
        core, clock = (len(texts) / seconds for seconds in through(near, texts))
        rates = f"{core:,.0f} texts/s ({clock:,.0f}), {len(near):,} kept"
        print(f"| NearPool({threshold}), {len(texts):,} texts | {name} | {rates} |", flush=True)
    compared = {"grammars": answers["grammars"][:5000], "Zipf, half of them edited": edited(zipf_texts(10_000, 20, 60))}
    for (name, texts), threshold in itertools.product(compared.items(), (0.5, 0.8)):
        print(f"| NearPool({threshold}) against all pairs | {name} | {quality(texts, threshold)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
