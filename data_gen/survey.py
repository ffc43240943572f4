"""What a dataset looks like: one pass over its records gives the counts that its card and report show. Nothing is written here.

Memory does not grow with the data: word counts, scores and pairs are histograms, and of the records themselves only a sample is
kept, those whose id has the smallest hash (so it depends on the seed alone, and not on the order of the records).
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from data_gen.record import Record
from data_gen.text import tokens

SAMPLES = 4  # records of a task that are kept to be shown
MAX_PAIRS = 200_000  # distinct (verb, object) pairs that are told apart; the rest is counted together
Verbs = dict[tuple[str, ...], str]  # the words of a form, folded for comparison → the form as the pack has it


@dataclass
class TaskSurvey:
    """One task. Lengths are counts of words: of the first instruction with its input, and of each answer."""

    sides: Counter[str] = field(default_factory=Counter)
    instruction_words: Counter[int] = field(default_factory=Counter)
    answer_words: Counter[int] = field(default_factory=Counter)
    sample: list[tuple[int, str, Record]] = field(default_factory=list)  # a heap, the largest hash (negative) on top

    def samples(self) -> list[Record]:
        """The records to show, in an order that the seed decides."""
        return [record for _, _, record in sorted(self.sample, reverse=True, key=lambda kept: kept[:2])]


@dataclass
class Survey:
    """All tasks. `rouge` counts the nearest neighbour's ROUGE-L, at n what is in (n, n + 1] hundredths; `scores[check]` its values,
    two digits kept.
    """

    tasks: dict[str, TaskSurvey] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    features: set[str] = field(default_factory=set)  # text, messages
    turns: Counter[int] = field(default_factory=Counter)  # answers of a conversation
    rouge: Counter[int] = field(default_factory=Counter)
    scores: dict[str, Counter[float]] = field(default_factory=dict)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    pairs_untold: int = 0  # instructions with a pair beyond MAX_PAIRS
    verbless: int = 0  # instructions without a known verb

    def sides(self) -> Counter[str]:
        """Records by side: Counter(train=90, heldout=10)."""
        return sum((task.sides for task in self.tasks.values()), Counter())

    def top_verbs(self, verbs: int, objects: int) -> list[tuple[str, int, list[tuple[str, int]]]]:
        """The most frequent verbs with their count and their most frequent objects: [("لکھیں", 9, [("کہانی", 5), …]), …]."""
        by_verb: dict[str, Counter[str]] = {}
        for (verb, thing), count in self.pairs.items():
            by_verb.setdefault(verb, Counter())[thing] += count
        ranked = sorted(by_verb.items(), key=lambda found: (-found[1].total(), found[0]))
        return [(verb, things.total(), _ranked(things)[:objects]) for verb, things in ranked[:verbs]]


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda found: (-found[1], found[0]))


def survey(records: Iterable[Record], verbs: Sequence[str], seed: int = 0, particles: Sequence[str] = ()) -> Survey:
    """Goes through the records once. `verbs` are a language's imperative forms ("لکھیں", "لکھ دیں"), `particles` words that are no
    verb's object ("میں", "بھی").
    """
    found = Survey()
    forms = {tuple(tokens(verb)): verb for verb in verbs}
    for record in records:
        task = found.tasks.setdefault(record.task, TaskSurvey())
        task.sides[side_of(record)] += 1
        found.languages[record.language] += 1
        _measure(found, task, record, forms, frozenset(particles))
        _score(found, record)
        _keep_sample(task, record, seed)
    return found


def side_of(record: Record) -> str:
    """Train or heldout; what says nothing of it is there to train on."""
    return str(record.meta.get("side", "train"))


def said_by(record: Record, role: str) -> list[str]:
    """What one role says in a conversation, turn by turn."""
    return [message["content"] for message in record.messages or () if message["role"] == role]


def _measure(found: Survey, task: TaskSurvey, record: Record, forms: Verbs, particles: frozenset[str]) -> None:
    if record.text is not None:
        found.features.add("text")
        task.answer_words[len(tokens(record.text))] += 1
        return
    found.features.add("messages")
    questions, answers = said_by(record, "user"), said_by(record, "assistant")
    found.turns[len(answers)] += 1
    task.answer_words.update(len(tokens(answer)) for answer in answers)
    if questions:
        task.instruction_words[len(tokens(questions[0]))] += 1
        asked = [word for word in tokens(questions[0].partition("\n\n")[0]) if word not in particles]
        _count_pair(found, verb_object(asked, forms))


def verb_object(words: Sequence[str], forms: Verbs) -> tuple[str, str] | None:
    """The last known imperative and the word before it, for languages whose verb ends the sentence.

    ["ایک", "کہانی", "لکھیں"] → ("لکھیں", "کہانی"); the object is "" at the start, and without a known verb it is None.
    """
    longest = max(map(len, forms), default=0)
    for end in range(len(words), 0, -1):
        for size in range(min(longest, end), 0, -1):
            verb = forms.get(tuple(words[end - size : end]))
            if verb:
                return verb, words[end - size - 1] if end > size else ""
    return None


def _count_pair(found: Survey, pair: tuple[str, str] | None) -> None:
    if pair is None:
        found.verbless += 1
    elif pair in found.pairs or len(found.pairs) < MAX_PAIRS:
        found.pairs[pair] += 1
    else:
        found.pairs_untold += 1


def _score(found: Survey, record: Record) -> None:
    if isinstance(rouge := record.meta.get("rouge"), (int, float)):
        found.rouge[min(99, max(0, math.ceil(round(100 * rouge, 2)) - 1))] += 1
    for check, value in dict(record.meta.get("scores") or {}).items():
        if isinstance(value, (int, float)):
            found.scores.setdefault(check, Counter())[round(float(value), 2)] += 1


def _keep_sample(task: TaskSurvey, record: Record, seed: int) -> None:
    """A heap of the SAMPLES smallest hashes, negative so that the largest of them is the one to leave. An id is kept once."""
    drawn = -int.from_bytes(blake2b(f"{seed} {record.id}".encode(), digest_size=8).digest())
    if any(drawn == kept for kept, _, _ in task.sample):
        return
    if len(task.sample) < SAMPLES:
        heapq.heappush(task.sample, (drawn, record.id, record))
    elif (drawn, record.id) > task.sample[0][:2]:
        heapq.heapreplace(task.sample, (drawn, record.id, record))


# --- reading a histogram


def quantile(counts: Counter[int], share: float) -> int:
    """The smallest value that `share` of all do not exceed; 0 of nothing. quantile(Counter([1, 2, 9]), 0.5) == 2."""
    wanted, seen = share * counts.total(), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return 0


def binned(counts: Counter[int], most: int = 30) -> list[tuple[int, int, int]]:
    """(from, below, count) of at most `most` equal bins that begin at 0; what lies beyond the 99th percentile is in the last.

    binned(Counter([1, 2, 2, 7]), most=4) == [(0, 2, 1), (2, 4, 2), (4, 6, 0), (6, 8, 1)].
    """
    if not counts:
        return []
    top = quantile(counts, 0.99)
    width = next(step * 10**power for power in range(9) for step in (1, 2, 5) if (top // (step * 10**power)) < most)
    bins = [0] * (top // width + 1)
    for value, count in counts.items():
        bins[min(value // width, len(bins) - 1)] += count
    return [(place * width, (place + 1) * width, count) for place, count in enumerate(bins)]
