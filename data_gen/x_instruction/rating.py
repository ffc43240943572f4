"""Rating: the question to a rater, its answer as probabilities, and the synthetic set it is trained on. No model is called here.

Three levels: A the text answers the instruction, B reasonable but flawed, C it does not answer. What the paper's levels are made of
is not known; here A is the seed's own answer, B what the tuned model itself writes, half an answer or one that goes off the
subject, C another text, another language, sentences in disorder, a page's menu.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex

from data_gen.ask import Message
from data_gen.languages import Pack
from data_gen.x_instruction.stage import Row

LEVELS = ("C", "B", "A")  # by rating: 0, 1, 2
Scores = tuple[float, float, float]  # probabilities of the levels 0, 1, 2
BEST = 2
THINKING = 1024  # tokens of a teacher's vote
TOP = 10  # alternatives that an endpoint is asked for
SHORTEST = 0.6  # of the pair's own answer, that one of the forward model must have: length is to tell nothing
MIN_MASS = 0.5  # of the first token, on the three letters; with less the rater did not understand
_LETTER = regex.compile(r"\W*([ABC])(?:\s*$|\s*[^\w\s]|[ \t]*\n)")  # alone, or before a mark: "A.", "(B)", not "A better one"
MID, LOW = ("forward", "truncated", "off_topic"), ("mismatch", "wrong_language", "shuffled", "boiler_plate")
ASKED = (
    "Below are an instruction in English and a text in {language} that may answer it. How good an answer is the text?\n"
    "A: it answers the instruction, wholly and well.\n"
    "B: it answers in part, breaks off, or leaves the subject.\n"
    "C: it does not answer, is in another language or makes no sense.\n"
    "Say A, B or C and nothing else.\n\n"
    "Instruction: {instruction}\n\nText: {response}"
)


def question(instruction: str, response: str, pack: Pack) -> tuple[Message, ...]:
    """What the rater is asked, trained or not."""
    asked = ASKED.format(language=pack.name, instruction=instruction, response=response)
    return ({"role": "user", "content": asked},)


# --- a rater's answer ---------------------------------------------------------------------------------------------------


def probabilities(raw: str) -> Scores | None:
    """Of the three levels (0, 1, 2), from the logprobs of a reply's first token that is no blank; None where there are none, or
    most of the probability is elsewhere.
    """
    for token in _tokens(raw):
        if not str(token.get("token", "")).strip():
            continue
        found = dict.fromkeys(LEVELS, 0.0)
        for other in token.get("top_logprobs") or []:
            name = str(other["token"]).strip()
            if name in found:
                found[name] += math.exp(min(float(other["logprob"]), 0.0))
        mass = sum(found.values())
        return _of([found[level] / mass for level in LEVELS]) if mass >= MIN_MASS else None
    return None


def gives_logprobs(raw: str) -> bool:
    """Whether a reply has alternatives of its tokens, whatever they say."""
    return any(token.get("top_logprobs") for token in _tokens(raw))


def _tokens(raw: str) -> list[dict[str, Any]]:
    """The tokens of a reply with their logprobs; [] where it has none."""
    logprobs = json.loads(raw)["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else []


def vote(texts: Sequence[str | None]) -> Scores | None:
    """The shares of the levels among answers; None where half or more say none of them. ["A", "B.", "A"] → (0, 1/3, 2/3)."""
    said = [found[1] for text in texts if text and (found := _LETTER.match(text))]
    if 2 * len(said) <= len(texts):
        return None
    return _of([said.count(level) / len(said) for level in LEVELS])


def _of(shares: Sequence[float]) -> Scores:
    low, mid, high = (round(share, 6) for share in shares)
    return low, mid, high


# --- the synthetic set --------------------------------------------------------------------------------------------------


def rating_rows(pairs: Sequence[Row], answers: Mapping[str, str], others: Sequence[str], pack: Pack, seed: int) -> Iterator[Row]:
    """Rows of all three levels for the pairs of one language and one side: {id, lang, instruction, response, rating, kind, side}.

    pairs: of the seed. answers: by pair's id, what the forward model wrote. others: texts in other languages. Each pair gives one
    row a level at most, so that the levels have the same instructions; texts are about as long as the pair's own. What breaks off
    is shorter, so long answers break off, and what leaves the subject goes on a little longer.
    """
    letters = [len(pair["response"]) for pair in pairs]
    median = sorted(letters)[len(letters) // 2] if letters else 0
    for place, pair in enumerate(pairs):
        rng = random.Random(f"{seed} {pair['id']}")
        yield _row(pair, pair["response"], BEST, "seed")
        other = _far(pairs, place, rng)
        longer = round(letters[place] * rng.uniform(1.0, 1.3))
        written = answers.get(pair["id"], "")
        middle = {
            "forward": written if len(written) >= SHORTEST * letters[place] else "",
            "truncated": _broken_off(pair["response"], rng) if letters[place] > median else "",
            "off_topic": "" if other == place else _off_topic(pair["response"], pairs[other]["response"], longer, pack),
        }
        kind = _kind([kind for kind in MID if middle[kind]], place)
        if kind:
            yield _row(pair, middle[kind], 1, kind)
        worst = {
            "mismatch": pairs[other]["response"] if other != place else "",
            "wrong_language": _near(others, letters[place], rng),
            "shuffled": _shuffled(pair["response"], rng),
            "boiler_plate": _menu(pairs, letters[place], rng),
        }
        # Most are mismatches: it is what a wrong instruction looks like.
        kind = "mismatch" if worst["mismatch"] and place % 2 else _kind([kind for kind in LOW if worst[kind]], place // 2)
        if kind:
            yield _row(pair, worst[kind], 0, kind)


def level_by_level(rows: Sequence[Row]) -> list[Row]:
    """As many of each level as the rarest has; of the others, evenly from the short rows to the long ones."""
    by_level = {rating: sorted((row for row in rows if row["rating"] == rating), key=_length) for rating in range(len(LEVELS))}
    rarest = min(by_level.values(), key=len)
    kept: list[Row] = []
    for some in by_level.values():
        kept += _alike(some, rarest)
    return sorted(kept, key=lambda row: row["id"])


def _alike(some: Sequence[Row], wanted: Sequence[Row]) -> list[Row]:
    """As many of `some` as `wanted`, evenly from short to long."""
    if len(some) == len(wanted):
        return list(some)
    return [some[round((place + 0.5) * len(some) / len(wanted) - 0.5)] for place in range(len(wanted))]


def _length(row: Row) -> tuple[int, str]:
    return len(row["response"]), row["id"]


def _row(pair: Row, response: str, rating: int, kind: str) -> Row:
    own = f"{pair['id']}-{rating}"
    return {
        "id": own, "lang": pair["lang"], "instruction": pair["instruction"], "response": response, "rating": rating, "kind": kind,
        "side": pair["side"],
    }  # fmt: skip


def _kind(kinds: Sequence[str], place: int) -> str:
    return kinds[place % len(kinds)] if kinds else ""


def _far(pairs: Sequence[Row], place: int, rng: random.Random) -> int:
    """Another pair whose text is about as long; of eight drawn the nearest. Its own place where there is no other."""
    wanted = len(pairs[place]["response"])
    drawn = {rng.randrange(len(pairs)) for _ in range(8)}
    others = [k for k in drawn if _differ(pairs[k], pairs[place])] or [
        k for k in range(len(pairs)) if _differ(pairs[k], pairs[place])
    ]
    return min(others, key=lambda k: (abs(len(pairs[k]["response"]) - wanted), k), default=place)


def _differ(one: Row, other: Row) -> bool:
    return bool(one["instruction"] != other["instruction"] and one["response"] != other["response"])


def sentences(text: str, pack: Pack) -> list[str]:
    """A text's sentences with their marks, lines apart; words where the language marks no sentence."""
    parts = regex.split(rf"(?<=[{regex.escape(pack.sentence_ends)}.])\s+|\n+", text)
    found = [part.strip() for part in parts if part and part.strip()]
    return found if len(found) > 1 else text.split()


def _half(text: str, pack: Pack) -> str:
    parts = sentences(text, pack)
    return " ".join(parts[: max(1, len(parts) // 2)])


def _off_topic(own: str, other: str, letters: int, pack: Pack) -> str:
    """The first half of an answer, and then sentences of another text until it has so many letters."""
    said = _half(own, pack)
    for sentence in sentences(other, pack)[1:]:
        if len(said) + len(sentence) / 2 > letters:
            break
        said = f"{said} {sentence}"
    return said if len(said) > len(_half(own, pack)) else ""


def _near(texts: Sequence[str], letters: int, rng: random.Random) -> str:
    """Of eight texts drawn the one whose length is nearest, cut to it; "" where there are none."""
    if not texts:
        return ""
    found = min((rng.choice(texts) for _ in range(8)), key=lambda text: abs(len(text) - letters))
    return _as_long(found, letters)


def _broken_off(text: str, rng: random.Random) -> str:
    """Without its last 10 to 30 parts of a hundred, in the middle of a sentence."""
    cut = text[: round(len(text) * rng.uniform(0.7, 0.9))]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut).rstrip()


def _shuffled(own: str, rng: random.Random) -> str:
    """Words of the answer in disorder; "" where the order came out as it was."""
    words = own.split() if " " in own else list(own)
    rng.shuffle(words)
    said = " ".join(words) if " " in own else "".join(words)
    return said if said.split() != own.split() else ""


def _menu(pairs: Sequence[Row], wanted: int, rng: random.Random) -> str:
    """Lines of one to three words, as the menu of a page has them: words of several texts, so that no text answers."""
    words = [word for _ in range(6) for word in pairs[rng.randrange(len(pairs))]["response"].split()]
    lines: list[str] = []
    while words and sum(map(len, lines)) + len(lines) < wanted:
        start, many = rng.randrange(len(words)), rng.randint(1, 3)
        lines.append(" ".join(words[start : start + many]))
    return "\n".join(lines)


def _as_long(text: str, letters: int) -> str:
    """Cut at the end of a word so that it is no longer than the answer; a shorter one stays."""
    if len(text) <= letters:
        return text
    cut = text[:letters]
    return (cut.rsplit(" ", 1)[0] if " " in cut else cut).rstrip() or cut


def training_messages(row: Row, pack: Pack) -> list[Message]:
    """A rating row as the evaluator is trained on it."""
    return [*question(row["instruction"], row["response"], pack), {"role": "assistant", "content": LEVELS[row["rating"]]}]


def score_fields(*, logprobs: bool, sample: int = 0, seed: int = 0, own: bool = True) -> dict[str, Any]:
    """The fields of a rating request: one token with its alternatives, or a vote; a teacher (not one's own model) may think
    first.
    """
    if logprobs:
        return {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": TOP}
    drawn = random.Random(f"{seed} vote {sample}").getrandbits(31)
    return {"max_tokens": 8 if own else THINKING, "temperature": 1.0, "seed": drawn}
