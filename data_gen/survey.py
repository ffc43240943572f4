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

from data_gen.record import Message, Record
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
        return _drawn(self.sample)


@dataclass
class Lengths:
    """Count, mean and standard deviation of lengths, without keeping them."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def add(self, length: int) -> None:
        self.count, self.total, self.squares = self.count + 1, self.total + length, self.squares + length * length

    def mean(self) -> float:
        """0 of nothing, as the deviation."""
        return self.total / self.count if self.count else 0.0

    def deviation(self) -> float:
        """Of these lengths themselves, not estimated for more of the kind: of 1 and 3 it is 1."""
        return math.sqrt(self.count * self.squares - self.total**2) / self.count if self.count else 0.0


@dataclass
class LanguageSurvey:
    """One language of the answers. Lengths are counts of characters: of the plain instruction, and of each answer."""

    sides: Counter[str] = field(default_factory=Counter)
    asked: Lengths = field(default_factory=Lengths)
    answered: Lengths = field(default_factory=Lengths)
    news: int = 0  # records whose answer was found to be news
    sample: list[tuple[int, str, Record]] = field(default_factory=list)

    def samples(self) -> list[Record]:
        """As TaskSurvey.samples."""
        return _drawn(self.sample)


@dataclass
class Survey:
    """All tasks and languages. `licences` are those that the records name, "" where one names none. `rouge` counts the nearest
    neighbour's ROUGE-L, at n what is in (n, n + 1] hundredths; `scores[check]` its values, two digits kept.
    """

    tasks: dict[str, TaskSurvey] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    by_language: dict[str, LanguageSurvey] = field(default_factory=dict)
    licences: Counter[str] = field(default_factory=Counter)
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


def survey(
    records: Iterable[Record], verbs: Sequence[str], seed: int = 0, particles: Sequence[str] = (), *, verb_first: bool = False
) -> Survey:
    """Goes through the records once. `verbs` are the imperative forms ("لکھیں", "لکھ دیں") of the language of the instructions,
    `particles` words that are no verb's object ("میں", "بھی"); `verb_first`: its verb opens the sentence, as in English.
    """
    found = Survey()
    forms = {tuple(tokens(verb)): verb for verb in verbs}
    for record in records:
        task = found.tasks.setdefault(record.task, TaskSurvey())
        task.sides[side_of(record)] += 1
        found.languages[record.language] += 1
        language = found.by_language.setdefault(record.language, LanguageSurvey())
        language.sides[side_of(record)] += 1
        language.news += record.meta.get("news") is True
        found.licences[str(record.meta.get("licence") or "")] += 1
        _measure(found, task, record, forms, frozenset(particles), verb_first)
        _measure_characters(language, record)
        _score(found, record)
        _keep_sample(task.sample, record, seed)
        _keep_sample(language.sample, record, seed)
    return found


def side_of(record: Record) -> str:
    """Train or heldout; what says nothing of it is there to train on."""
    return str(record.meta.get("side", "train"))


def said_by(record: Record, role: str) -> list[str]:
    """What one role says in a conversation, turn by turn."""
    return [message["content"] for message in record.messages or () if message["role"] == role]


def plain_instruction(record: Record) -> str:
    """The instruction by itself: as the record's meta has it (without "Answer in Urdu.", in English where a translation is asked),
    or else the first paragraph of what the user says. "" where nothing is asked.
    """
    plain = record.meta.get("instruction")
    return plain if isinstance(plain, str) else next(iter(said_by(record, "user")), "").partition("\n\n")[0]


def in_english(record: Record, message: Message) -> bool:
    """Whether a message is English by the recipe's word, where letters do not tell: of a record whose meta has the English
    instruction that instruction, and what the system says.
    """
    plain = record.meta.get("instruction")
    return isinstance(plain, str) and (message["role"] == "system" or (message["role"] == "user" and plain in message["content"]))


def _measure_characters(language: LanguageSurvey, record: Record) -> None:
    if plain := plain_instruction(record):
        language.asked.add(len(plain))
    for answer in [record.text] if record.text is not None else said_by(record, "assistant"):
        language.answered.add(len(answer))


def _measure(
    found: Survey, task: TaskSurvey, record: Record, forms: Verbs, particles: frozenset[str], verb_first: bool
) -> None:
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
        asked = [word for word in tokens(plain_instruction(record)) if word not in particles]
        _count_pair(found, verb_object(asked, forms, verb_first=verb_first))


def verb_object(words: Sequence[str], forms: Verbs, *, verb_first: bool = False) -> tuple[str, str] | None:
    """The last known imperative and the word before it, for languages whose verb ends the sentence; `verb_first`: the imperative
    that the words open with and the word after it.

    ["ایک", "کہانی", "لکھیں"] → ("لکھیں", "کہانی"); ["write", "story"] → ("write", "story"). The object is "" where the verb stands
    alone, and without a known verb it is None.
    """
    longest = max(map(len, forms), default=0)
    if verb_first:
        sizes = (size for size in range(min(longest, len(words)), 0, -1) if tuple(words[:size]) in forms)
        size = next(sizes, 0)
        return (forms[tuple(words[:size])], words[size] if size < len(words) else "") if size else None
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


def _drawn(sample: list[tuple[int, str, Record]]) -> list[Record]:
    return [record for _, _, record in sorted(sample, reverse=True, key=lambda kept: kept[:2])]


def _keep_sample(sample: list[tuple[int, str, Record]], record: Record, seed: int) -> None:
    """A heap of the SAMPLES smallest hashes, negative so that the largest of them is the one to leave. An id is kept once."""
    drawn = -int.from_bytes(blake2b(f"{seed} {record.id}".encode(), digest_size=8).digest())
    if any(drawn == kept for kept, _, _ in sample):
        return
    if len(sample) < SAMPLES:
        heapq.heappush(sample, (drawn, record.id, record))
    elif (drawn, record.id) > sample[0][:2]:
        heapq.heapreplace(sample, (drawn, record.id, record))


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
