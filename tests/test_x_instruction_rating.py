"""X-Instruction's rating: a rater's answer, the synthetic set, and a stage's directory."""

import gzip
import hashlib
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.languages import load_pack
from data_gen.x_instruction import measures, rating, seed
from data_gen.x_instruction.stage import Stage
from tests.toy_models import answer
from tests.x_instruction_material import PARTS, TEXT, UR

# --- rating: a rater's answer --------------------------------------------------------------------------------------------


def said(*tokens: tuple[str, dict[str, float]]) -> str:
    """A reply with these first tokens and the probabilities of their alternatives."""
    content = [
        {"token": token, "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in top.items()]}
        for token, top in tokens
    ]
    return json.dumps(answer("A", logprobs={"content": content}))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (said(("A", {"A": 0.8, "B": 0.15, "C": 0.05})), (0.05, 0.15, 0.8)),
        (said(("A", {"A": 0.6, "B": 0.2, "x": 0.2})), (0, 0.25, 0.75)),  # of what is on the letters
        (said(("A", {"A": 0.4, " A": 0.2, "B": 0.3, "\nC": 0.1})), (0.1, 0.3, 0.6)),
        (said(("\n", {"\n": 0.9, "B": 0.1}), (" B", {" B": 0.9, "A": 0.1})), (0, 0.9, 0.1)),  # a blank comes first
        (said(("A", {"A": 0.5, "x": 0.5})), (0, 0, 1)),
        (said(("The", {"The": 0.6, "A": 0.3, "B": 0.1})), None),  # most is elsewhere
        (said(("a", {"a": 0.9})), None),
        (said((" ", {" ": 1.0})), None),
        (said(), None),
        (json.dumps(answer("A")), None),
        (json.dumps(answer("A", logprobs=None)), None),
        (json.dumps(answer("A", logprobs={"content": None})), None),
        (json.dumps(answer("A", logprobs={"tokens": ["A"], "token_logprobs": [-0.1]})), None),  # the old completions' form
    ],
)
def test_probabilities_of_the_first_token(raw: str, expected: tuple[float, float, float] | None) -> None:
    found = rating.probabilities(raw)
    assert found == (pytest.approx(expected, abs=1e-5) if expected else None)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["A", "B.", "A"], (0, 1 / 3, 2 / 3)),
        (["C", " c", "**B**", "C: no answer"], (2 / 3, 1 / 3, 0)),
        (["A", None, "?"], None),
        (["A", "A", "hm", None], None),  # half is too little
        (["A", "A", "hm"], (0, 0, 1)),
        (["Because", "Bad", "Apple"], None),
        ([], None),
        # An article is no vote.
        (["A better answer would name the city.", "B", "B"], (0, 1, 0)),
    ],
)
def test_vote(texts: list[str | None], expected: tuple[float, float, float] | None) -> None:
    assert rating.vote(texts) == (pytest.approx(expected, abs=1e-5) if expected else None)


def test_the_question_to_a_rater_holds_both_texts_once_and_as_they_are() -> None:
    [asked] = rating.question("Explain {response} and {instruction}.", "لاہور {language} شہر ہے۔", UR)
    assert asked["role"] == "user"
    assert (
        asked["content"].count("Explain {response} and {instruction}.") == 1 == asked["content"].count("لاہور {language} شہر ہے۔")
    )
    assert "a text in Urdu" in asked["content"]


# --- rating: the synthetic set -------------------------------------------------------------------------------------------

FOREIGN = ["लाहौर एक पुराना शहर है और वहाँ बहुत से बाग़ हैं। " * many for many in (1, 2, 3, 4)]


def pairs_of(count: int, side: str = "train", code: str = "ur") -> list[dict[str, Any]]:
    rng = random.Random(f"{side} {count}")
    made = []
    for number in range(count):
        response = " ".join(rng.sample(PARTS, rng.randint(2, 9))) + f" یہ بات نمبر {number} {side} ہے۔"
        made.append(
            {
                "id": f"{side}{number:03}",
                "lang": code,
                "instruction": f"Tell me {side} thing {number}.",
                "response": response,
                "side": side,
            }
        )
    return made


def made_rows(
    pairs: list[dict[str, Any]], answers: dict[str, Any] | None = None, others: Sequence[str] = FOREIGN
) -> list[dict[str, Any]]:
    return list(rating.rating_rows(pairs, answers or {}, others, UR, seed=0))


def test_every_level_once_a_pair_and_the_best_is_its_own() -> None:
    pairs = pairs_of(40)
    answers = {row["id"]: "یہ ماڈل کا اپنا جواب ہے جو کچھ لمبا ہے۔ " * 9 for row in pairs[::2]}
    rows = made_rows(pairs, answers)
    levels = Counter((row["instruction"], row["rating"]) for row in rows)
    assert set(levels.values()) == {1} and len({row["id"] for row in rows}) == len(rows)
    assert {row["instruction"]: row["response"] for row in rows if row["rating"] == 2} == {
        p["instruction"]: p["response"] for p in pairs
    }
    assert Counter(row["rating"] for row in rows) == {0: 40, 1: 40, 2: 40}
    kinds = {level: {row["kind"] for row in rows if row["rating"] == level} for level in range(3)}
    assert kinds == {0: set(rating.LOW), 1: set(rating.MID), 2: {"seed"}}
    assert {row["side"] for row in rows} == {"train"} and {row["lang"] for row in rows} == {"ur"}


def test_the_same_pairs_give_the_same_rows_and_another_seed_others() -> None:
    pairs = pairs_of(20)
    assert made_rows(pairs) == made_rows(pairs)
    assert made_rows(pairs) != list(rating.rating_rows(pairs, {}, FOREIGN, UR, seed=1))


def test_no_text_of_the_other_side_is_in_a_row() -> None:
    """Each side's rows are made of its own pairs alone: half of the texts say which side they are of."""
    for side, other in (("train", "heldout"), ("heldout", "train")):
        rows = made_rows(pairs_of(30, side))
        assert not any(other in word for row in rows for word in row["response"].split())
        assert any(side in row["response"] for row in rows if row["rating"] == 0)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(pairs_of(40), id="plain"),
        pytest.param([{**row, "response": f"لفظ{number}"} for number, row in enumerate(pairs_of(24))], id="one_word"),
        pytest.param([{**row, "response": f"ہاں {number}"} for number, row in enumerate(pairs_of(24))], id="two_words"),
        pytest.param(pairs_of(1), id="one_pair"),
        pytest.param(
            [{**row, "response": "پہلا جملہ یہ ہے۔ دوسرا جملہ یہ ہے۔"} for row in pairs_of(1)], id="one_pair_of_two_sentences"
        ),
        pytest.param(
            [{**row, "response": pairs_of(24)[number // 2]["response"]} for number, row in enumerate(pairs_of(24))],
            id="two_instructions_with_one_answer",
        ),
        pytest.param(
            [{**row, "instruction": pairs_of(24)[number // 2]["instruction"]} for number, row in enumerate(pairs_of(24))],
            id="two_answers_to_one_instruction",
        ),
        pytest.param([{**row, "instruction": "Say something."} for row in pairs_of(2)], id="one_instruction"),
    ],
)
def test_no_row_is_the_best_answer_under_another_level(pairs: list[dict[str, Any]]) -> None:
    """What answers an instruction well is nowhere said to answer it badly."""
    good = {(row["instruction"], " ".join(row["response"].split())) for row in pairs}
    wrong = [
        row for row in made_rows(pairs) if row["rating"] < 2 and (row["instruction"], " ".join(row["response"].split())) in good
    ]
    assert [(row["kind"], row["response"]) for row in wrong] == []


def test_each_kind_is_what_its_name_says() -> None:
    pairs = pairs_of(60)
    answers = {row["id"]: "یہ ماڈل کا اپنا جواب ہے جو کچھ لمبا ہے۔ " * 9 for row in pairs}
    by_id = {row["instruction"]: row["response"] for row in pairs}
    median = sorted(map(len, by_id.values()))[len(pairs) // 2]
    for row in made_rows(pairs, answers):
        own, text = by_id[row["instruction"]], row["response"]
        match row["kind"]:
            case "truncated":
                assert own.startswith(text) and 0.6 * len(own) < len(text) <= 0.9 * len(own) and len(own) > median
                assert own[len(text)] == " ", "it breaks off between words"
            case "off_topic":
                half = own[: len(text)]
                assert text != own and not own.startswith(text) and text.split()[0] == half.split()[0]
            case "forward":
                assert text == answers[next(p["id"] for p in pairs if p["instruction"] == row["instruction"])]
            case "mismatch":
                assert text in by_id.values() and text != own
            case "shuffled":
                assert Counter(text.split()) == Counter(own.split()) and text != own
            case "wrong_language":
                assert any(foreign.startswith(text) for foreign in FOREIGN) and len(text) <= max(len(own), 1)
            case "boiler_plate":
                lines = text.split("\n")
                assert len(lines) > 3 and max(len(line.split()) for line in lines) <= 3


def test_a_short_answer_of_the_forward_model_is_not_used() -> None:
    pairs = pairs_of(12)
    assert "forward" not in {row["kind"] for row in made_rows(pairs, {row["id"]: "جی ہاں" for row in pairs})}


@pytest.mark.parametrize("sizes", [(10, 30, 20), (7, 7, 7), (40, 13, 39), (5, 0, 5)])
def test_as_many_of_each_level_and_of_all_lengths(sizes: tuple[int, int, int]) -> None:
    rng = random.Random(6)
    rows = [
        {"id": f"{level}-{k}", "rating": level, "response": "ک" * rng.randint(1, 1000)}
        for level, many in enumerate(sizes)
        for k in range(many)
    ]
    kept = rating.level_by_level(rows)
    assert Counter(row["rating"] for row in kept) == Counter({level: min(sizes) for level in range(3) if min(sizes)})
    assert len({row["id"] for row in kept}) == len(kept) and all(row in rows for row in kept)
    assert kept == rating.level_by_level(list(reversed(rows))), "their order does not matter"


@pytest.mark.parametrize("forward", ["good", "none", "short"])
@pytest.mark.parametrize("code", ["ur", "hi"])
def test_length_does_not_tell_the_level_in_the_shipped_seed(code: str, forward: str) -> None:
    """Under the gate, whatever the forward model writes."""
    pack, rng = load_pack(code), random.Random(7)
    texts = [
        {"id": f"{n:03}", "lang": code, "side": "train", **row}
        for n, row in enumerate(seed.read_pairs(["sample"], "seed", [code])[code])
    ]
    others = [row["response"] for row in seed.read_pairs(["sample"], "seed", ["hi" if code == "ur" else "ur"]).popitem()[1]]
    answers = {}
    for row in texts:
        whole = f"{row['response']} {rng.choice(texts)['response']}"
        said = {"good": whole[: round(len(row["response"]) * rng.uniform(0.7, 1.3))], "none": "", "short": "ہاں"}
        answers[row["id"]] = said[forward]
    rows = rating.level_by_level(list(rating.rating_rows(texts, answers, others, pack, 0)))
    assert len(rows) >= 3 * 60
    assert measures.length_accuracy([len(row["response"]) for row in rows], [row["rating"] for row in rows]) < 0.45


@pytest.mark.parametrize(("level", "letter"), [(0, "C"), (1, "B"), (2, "A")])
def test_a_rating_row_to_train_on(level: int, letter: str) -> None:
    row = {"instruction": "Tell me about Lahore.", "response": TEXT, "rating": level}
    messages = rating.training_messages(row, UR)
    assert messages[:1] == list(rating.question(row["instruction"], row["response"], UR))  # type: ignore[arg-type]
    assert messages[1:] == [{"role": "assistant", "content": letter}]


def test_what_a_rating_request_asks_for() -> None:
    assert rating.score_fields(logprobs=True) == {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": 10}
    votes = [rating.score_fields(logprobs=False, sample=k, seed=3) for k in range(5)]
    assert len({vote["seed"] for vote in votes}) == 5 and votes[0] == rating.score_fields(logprobs=False, sample=0, seed=3)


# --- a stage's directory -------------------------------------------------------------------------------------------------

ROWS = [{"id": "1", "response": "پانی ابالیں۔"}, {"id": "2", "response": "पानी उबालें।"}]


def finished(workdir: Path, rows: Sequence[dict[str, Any]] = ROWS, **more: Any) -> Stage:
    stage = Stage(str(workdir), "seed")
    stage.begin()
    stage.write("ur", rows)
    stage.reject("ur", "too_long", "9", "ا" * 1000)
    stage.finish({"seed": 0, "languages": ("ur",)}, found={"ur": 2}, **more)
    return stage


def test_what_a_stage_wrote_is_read_again(tmp_path: Path) -> None:
    finished(tmp_path)
    again = Stage(str(tmp_path), "seed")
    assert list(again.rows("ur")) == ROWS and list(again.rows("hi")) == []
    assert (again.counts(), again.found(), again.rejected()) == ({"ur": 2}, {"ur": 2}, {"ur": {"too_long": 1}})
    with gzip.open(tmp_path / "seed/rejected.jsonl.gz", "rt", encoding="utf-8") as file:
        [row] = map(json.loads, file)
    assert row == {"id": "9", "lang": "ur", "reason": "too_long", "text": "ا" * 300}
    manifest = json.loads((tmp_path / "seed/manifest.json").read_text())
    assert manifest["files"]["ur.jsonl.gz"]["sha256"] == hashlib.sha256((tmp_path / "seed/ur.jsonl.gz").read_bytes()).hexdigest()


def test_equal_rows_are_equal_bytes_and_their_digest_tells_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At another time too, and with their fields in another order."""
    one = finished(tmp_path / "one")
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: 2_000_000_000.0)
        other = finished(tmp_path / "two", [dict(reversed(row.items())) for row in ROWS])
    assert (tmp_path / "one/seed/ur.jsonl.gz").read_bytes() == (tmp_path / "two/seed/ur.jsonl.gz").read_bytes()
    assert (tmp_path / "one/seed/rejected.jsonl.gz").read_bytes() == (tmp_path / "two/seed/rejected.jsonl.gz").read_bytes()
    digests = [
        one.digest(),
        finished(tmp_path / "3", ROWS[:1]).digest(),
        finished(tmp_path / "4", passed_on={"model": "x"}).digest(),
    ]
    assert one.digest() == other.digest() and len(set(digests)) == 3


@pytest.mark.parametrize("place", [12, -9, -1])
def test_a_changed_byte_is_refused(tmp_path: Path, place: int) -> None:
    finished(tmp_path)
    path = tmp_path / "seed/ur.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"seed/ur.jsonl.gz is not what stage seed wrote.*--from=seed"):
        list(Stage(str(tmp_path), "seed").rows("ur"))


def test_a_file_or_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "seed/ur.jsonl.gz").unlink()
    with pytest.raises(UsageError, match="ur.jsonl.gz is not what stage seed wrote.*--from=seed"):
        list(Stage(str(tmp_path), "seed").rows("ur"))
    (tmp_path / "seed/manifest.json").write_text('{"stage": ')
    with pytest.raises(UsageError, match=r"manifest.json cannot be read.*--from=seed"):
        Stage(str(tmp_path), "seed").counts()


def test_the_input_that_changed_is_named(tmp_path: Path) -> None:
    stage = finished(tmp_path)
    assert stage.changed({"seed": 0, "languages": ("ur",)}) == ""
    assert stage.changed({"seed": 1, "languages": ("ur",)}) == "seed was 0 and is 1"
    assert stage.changed({"seed": 0, "languages": ("ur", "hi")}) == 'languages was ["ur"] and is ["ur", "hi"]'
    assert stage.changed({"seed": 0, "languages": ("ur",), "new": 2}) == "new was null and is 2"
    assert stage.changed({"seed": 0}) == 'languages was ["ur"] and is null'
    assert len(stage.changed({"seed": "x" * 1000, "languages": ("ur",)})) < 300
    assert Stage(str(tmp_path), "generate").changed({"seed": 0}) == "", "one that is not finished has no inputs"


def test_before_finish_it_is_unfinished(tmp_path: Path) -> None:
    """A stage begun again too: nothing of the earlier one is taken for its work."""
    finished(tmp_path)
    stage = Stage(str(tmp_path), "seed")
    stage.begin()
    stage.write("ur", ROWS)
    for broken_off in (Stage(str(tmp_path), "seed"), Stage(str(tmp_path), "other")):
        assert broken_off.manifest() is None
        for read in (broken_off.digest, broken_off.counts, broken_off.found, lambda one=broken_off: list(one.rows("ur"))):
            with pytest.raises(
                UsageError, match=rf"stage {broken_off.name} of .* is not finished: run it first, --from={broken_off.name}"
            ):
                read()


def test_a_stage_begun_twice_keeps_what_the_second_rejected(tmp_path: Path) -> None:
    stage = Stage(str(tmp_path), "seed")
    stage.begin()
    stage.reject("ur", "too_long", "1", "پہلا")
    stage.begin()
    stage.reject("ur", "too_long", "2", "دوسرا")
    stage.finish({}, found={})
    with gzip.open(tmp_path / "seed/rejected.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line)["id"] for line in file] == ["2"]
    assert stage.rejected() == {"ur": {"too_long": 1}}


def test_a_stage_that_stops_leaves_its_rejects_readable(tmp_path: Path) -> None:
    """The error that stops it sends people to look at them."""
    program = (
        "import sys; from data_gen.x_instruction.stage import Stage; stage = Stage(sys.argv[1], 'seed'); stage.begin()\n"
        "for k in range(5): stage.reject('ur', 'too_long', str(k), 'x')\nraise SystemExit('look at rejected.jsonl.gz')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    with gzip.open(tmp_path / "seed/rejected.jsonl.gz", "rt") as file:
        assert len(file.readlines()) == 5


def test_a_full_disk_is_an_error_of_use(tmp_path: Path) -> None:
    stage = Stage(str(tmp_path), "seed")
    stage.begin()
    (tmp_path / "seed/ur.jsonl.gz").symlink_to("/dev/full")
    with pytest.raises(UsageError, match=r"ur.jsonl.gz cannot be written: No space left.*make room"):
        stage.write("ur", ({"id": str(k), "response": random.Random(k).randbytes(2000).hex()} for k in range(200)))
