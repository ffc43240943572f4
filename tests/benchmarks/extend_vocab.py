"""Time of launch/extend_vocab.py's learning: `python tests/benchmarks/extend_vocab.py [--megabytes=10] [--new_tokens=8000]`.

Text: pretended words of Urdu letters, drawn by Zipf's law (the i-th with weight 1 / (i + 3)) from 200,000 forms. Base: bytes
without a merge, so that every word is as long as it can be: the most work. Prints a line of JSON.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tokenizers
from absl import app, flags
from tokenizers import Regex, decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from alif_jax import bpe, vocab

MEGABYTES = flags.DEFINE_float("megabytes", 10.0, "of text")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 8000, "to learn")

LETTERS = "ابپتٹثجچحخدڈذرڑزژسشصضطظعغفقکگلمنںوہھءیےئؤ"
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def make_text(path: Path, megabytes: float) -> None:
    rng = np.random.default_rng(0)
    letters, weights = list(LETTERS), 1 / np.arange(3.0, 3 + len(LETTERS))
    lengths = rng.integers(2, 9, 200_000)
    stream = iter(rng.choice(letters, int(lengths.sum()), p=weights / weights.sum()))
    forms = ["".join(next(stream) for _ in range(length)) for length in lengths]
    odds = np.cumsum(1 / np.arange(3.0, 3 + len(forms)))
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < megabytes * 1e6:
            line = " ".join(forms[i] for i in np.searchsorted(odds, rng.random(400) * odds[-1])) + "۔\n"
            written += len(line.encode())
            file.write(line)


def make_base(directory: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(models.BPE({letter: id for id, letter in enumerate(alphabet)}, []))
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    core.save(str(directory / "tokenizer.json"))


def main(argv: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        path, base_directory = Path(place) / "urdu.txt", Path(place)
        make_text(path, MEGABYTES.value)
        make_base(base_directory)
        times = [time.perf_counter()]
        base = bpe.read_base(str(base_directory))
        counts = bpe.count_words(base, (text for _, text, held_out in vocab.read_texts([str(path)]) if not held_out))
        times.append(time.perf_counter())
        extension = bpe.learn(base, counts, new_tokens=NEW_TOKENS.value, min_frequency=2)
        times.append(time.perf_counter())
        core = tokenizers.Tokenizer.from_str(bpe.extended(base, extension))
        bpe.check(base, extension, core)
        times.append(time.perf_counter())
        found = vocab.measure(base, core, [str(path)])["urdu.txt"]
        times.append(time.perf_counter())
    seconds = dict(zip(("count", "learn", "check", "measure"), np.diff(times).round(1).tolist(), strict=True))
    sizes = {"words": counts.total(), "distinct_words": len(counts), "tokens": len(extension.tokens)}
    fertility = {"tokens_a_word": [round(n / found.words, 2) for n in (found.before, found.after)]}
    print(json.dumps({**sizes, "seconds": seconds, "total_seconds": round(times[-1] - times[0], 1), **fertility}))


if __name__ == "__main__":
    app.run(main)
