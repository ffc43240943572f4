"""The novelty filter of self-instruct: exact ROUGE-L of every new instruction against all earlier ones. Not for long
texts.

ROUGE-L F1 of two token sequences of m and n tokens is 2·LCS/(m+n) (Lin 2004), which is 1 − Indel distance/(m+n):
rapidfuzz's `Indel.normalized_similarity`, some 300 times faster than the rouge_score package, whose own tokenizer finds
no token in Urdu.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from data_gen.urdu import tokens


@dataclass(frozen=True)
class Match:
    """How near a candidate came to what was there before: the highest F1 (0 to 1) and the id that has it, or ""."""

    accepted: bool
    score: float
    nearest: str


class RougePool:
    """All accepted texts so far. A candidate is refused when its F1 with any of them is strictly above `threshold`."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self.ids: list[str] = []
        self._packed: list[str] = []
        self._vocabulary: dict[str, str] = {}

    def _pack(self, text: str) -> str:
        """The tokens as one character each: rapidfuzz compares strings twice as fast as lists. Room for 1.1 million
        words.
        """
        return "".join(self._vocabulary.setdefault(word, chr(len(self._vocabulary) + 1)) for word in tokens(text))

    def add(self, item_id: str, text: str) -> None:
        """Adds a text without asking (seeds)."""
        self.ids.append(item_id)
        self._packed.append(self._pack(text))

    def admit(self, candidates: Sequence[tuple[str, str]], limit: int) -> list[Match]:
        """Judges (id, text) candidates in order and adds the accepted ones; stops after `limit` accepted.

        One matrix for the whole reply, then in order inside it: a candidate is also compared with those accepted just
        before. The list returned is shorter than `candidates` when the limit was reached. No tokens score 0.
        """
        packed = [self._pack(text) for _, text in candidates]
        against_pool, among_themselves = _f1(packed, self._packed), _f1(packed, packed)
        matches: list[Match] = []
        admitted: list[int] = []
        ids = list(self.ids)
        for row in range(len(candidates)):
            if len(admitted) >= limit:
                break
            scores = np.concatenate([against_pool[row], among_themselves[row, admitted]])
            best = int(np.argmax(scores)) if scores.size else -1
            score = float(scores[best]) if scores.size else 0.0
            matches.append(Match(score <= self.threshold, score, ids[best] if score else ""))
            if matches[-1].accepted:
                admitted.append(row)
                ids.append(candidates[row][0])
        self.ids = ids
        self._packed += [packed[row] for row in admitted]
        return matches


def _f1(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """ROUGE-L F1 of every pair of packed texts, [left, right]; 0 where a side is empty."""
    scores = np.asarray(cdist(left, right, scorer=Indel.normalized_similarity, dtype=np.float64))
    scores = scores.reshape(len(left), len(right))
    scores[[not text for text in left]] = 0.0  # two empty sequences are equal for rapidfuzz, unrelated for ROUGE
    return scores
