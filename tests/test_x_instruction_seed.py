"""X-Instruction's seed, documents, clusters and forms of output."""

import csv
import gzip
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_gen import UsageError, web_text
from data_gen.contamination import contaminated, ngrams_of
from data_gen.endpoint import TeacherConfig
from data_gen.text import tokens
from data_gen.x_instruction import config as configs
from data_gen.x_instruction import diversify, generator, measures, output, seed
from data_gen.x_instruction.config import SeedConfig, XInstructionConfig
from data_gen.x_instruction.stage import Stage
from data_gen.x_instruction.work import NotGood, Work
from tests.local_teacher import Answer, LocalTeacher
from tests.toy_models import answer, served
from tests.x_instruction_material import HI, PAIR, PARTS, TERMS, TEXT, UR, Show, asking, jsonl

# --- seed ----------------------------------------------------------------------------------------------------------------


@contextmanager
def working(workdir: Path, config: XInstructionConfig) -> Iterator[Work]:
    """A run's Work without children: what is tested here trains nothing."""
    with asking(workdir) as asker:
        children: Any = SimpleNamespace()
        yield Work(config, str(workdir), config.languages, children, asker, Show(), {})


def begun(work: Work, name: str) -> Stage:
    stage = work.stage(name)
    stage.begin()
    return stage


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"instruction": ', "no JSON"),
        ('["a"]', "no object"),
        ("null", "no object"),
        ({**PAIR, "response": ""}, "lacks response"),
        ({**PAIR, "language": None}, "lacks language"),
        ({"instruction": "x"}, "lacks response, language"),
        ({**PAIR, "response": ["x"]}, r"response is \['x'\]; expected text"),
        ({**PAIR, "language": 5}, "language is 5; expected text"),
    ],
)
def test_a_row_that_is_none_is_named_by_file_and_line(tmp_path: Path, row: object, words: str) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", [PAIR, "", row])
    with pytest.raises(UsageError, match=rf"{re.escape(path)}:3: .*{words}"):
        seed.read_pairs([path], "seed", ["ur"])


def test_files_of_pairs(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "pairs.jsonl", [PAIR, {**PAIR, "language": "hi"}, {**PAIR, "language": "fi"}, {**PAIR, "language": "en"}]
    )
    assert {code: len(rows) for code, rows in seed.read_pairs([path], "seed", ["ur", "hi"]).items()} == {"ur": 1, "hi": 1, "en": 1}
    assert len(seed.read_pairs([path, "sample"], "seed", ["ur"])["ur"]) == 73
    with pytest.raises(UsageError, match="nowhere.jsonl cannot be read"):
        seed.read_pairs([str(tmp_path / "nowhere.jsonl")], "seed", ["ur"])
    with pytest.raises(UsageError, match="no seed is shipped for fi; there are hi, ur"):
        seed.read_pairs(["sample"], "seed", ["fi"])
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b"\xe9\n")
    with pytest.raises(UsageError, match="latin.jsonl cannot be read"):
        seed.read_pairs([str(latin)], "seed", ["ur"])


def test_a_change_in_any_file_changes_the_digest(tmp_path: Path) -> None:
    """Two files with the same name in two directories too."""
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(jsonl(tmp_path / name / "pairs.jsonl", [PAIR]))
    before = seed.files_digest(paths, "seed", ["ur"])
    for path in paths:
        jsonl(Path(path), [{**PAIR, "response": f"{path} میں ہے۔"}])
        after = seed.files_digest(paths, "seed", ["ur"])
        assert after != before, path
        before = after


def seed_config(*inputs: str, **more: Any) -> XInstructionConfig:
    fields = {"heldout_share": 0.2, "heldout_rows": 0, "min_heldout": 1, **more}
    return XInstructionConfig(languages=("ur",), seeds=SeedConfig(input=inputs, **fields))


def test_the_same_instruction_is_on_the_same_side_in_all_languages(tmp_path: Path) -> None:
    shipped = seed.read_pairs(["sample"], "seed", ["ur", "hi"])
    hindi = ["पानी उबालें और चाय बनाएँ।", "बच्चे छत पर पतंग उड़ाते हैं।"]
    rows = shipped["ur"] + [
        {"instruction": row["instruction"].upper() + " ", "response": f"{hindi[k % 2]} {k}", "language": "hi"}
        for k, row in enumerate(shipped["ur"])
    ]
    config = seed_config(jsonl(tmp_path / "pairs.jsonl", rows))
    config.languages = ("ur", "hi")
    with working(tmp_path / "xi", config) as work:
        seed.make_seed(work, stage := begun(work, "seed"))
        sides = {code: {row["instruction"].strip().casefold(): row["side"] for row in stage.rows(code)} for code in ("ur", "hi")}
        assert sides["ur"] == sides["hi"] and len(sides["ur"]) == 72 and set(sides["ur"].values()) == {"train", "heldout"}
        held = sum(side == "heldout" for side in sides["ur"].values())
        assert 5 <= held <= 25, "a fifth of 72, drawn"
        assert stage.found()["ur"] == {"came": 72, "kept": 72, "heldout": held}
        ids = [row["id"] for row in stage.rows("ur")]
        assert ids == sorted(ids)


def test_reasons_against_pairs_as_they_come(tmp_path: Path) -> None:
    odd = [
        {**PAIR, "instruction": "لاہور کہاں ہے؟"},
        {**PAIR, "instruction": "Summarise the article above."},
        {**PAIR, "response": "لاہور " * 400},
        {**PAIR, "response": "Lahore is in the Punjab."},
        PAIR,
        {**PAIR, "response": "لاهور پنجاب ميں هے۔"},  # the same in Arabic letters
    ]
    config = seed_config("sample", jsonl(tmp_path / "odd.jsonl", odd))
    with working(tmp_path / "xi", config) as work:
        seed.make_seed(work, stage := begun(work, "seed"))
        reasons = {"dangling": 1, "duplicate": 1, "not_english": 1, "too_long": 1, "wrong_script": 1}
        assert stage.rejected() == {"ur": reasons} and stage.counts() == {"ur": 73}


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"min_heldout": 60}, UsageError, r"the seed of ur has 72 pairs, \d+ of them held out, and 60 are wanted"),
        ({"heldout_share": 0.0}, UsageError, "72 pairs, 0 of them held out, and 1 are wanted"),
        ({"max_letters": 200}, NotGood, r"of 72 pairs for ur \d+ .*less than seeds.min_yield=0.6: \d+ too_long.*rejected.jsonl.gz"),
    ],
)
def test_a_seed_that_will_not_do(tmp_path: Path, more: dict[str, Any], error: type[UsageError], words: str) -> None:
    with working(tmp_path, seed_config("sample", **more)) as work, pytest.raises(error, match=words):
        seed.make_seed(work, begun(work, "seed"))
    assert not (tmp_path / "seed/manifest.json").exists()


def test_never_more_than_a_third_is_held_out(tmp_path: Path) -> None:
    with working(tmp_path, seed_config("sample", heldout_rows=1000, heldout_share=0.9)) as work:
        seed.make_seed(work, stage := begun(work, "seed"))
        assert 12 <= stage.found()["ur"]["heldout"] <= 36


def test_a_language_without_a_pair(tmp_path: Path) -> None:
    config = seed_config(jsonl(tmp_path / "pairs.jsonl", [{**PAIR, "language": "hi"}]))
    with (
        working(tmp_path / "xi", config) as work,
        pytest.raises(UsageError, match='has no pair for ur: rows need "language": "ur"'),
    ):
        seed.make_seed(work, begun(work, "seed"))


ENGLISH = "Boil two cups of water, add 2 spoons of tea leaves and let it simmer for five minutes. Then add milk and sugar to taste."
URDU = (
    "دو کپ پانی ابالیں، اس میں 2 چمچ چائے کی پتی ڈالیں اور پانچ منٹ تک ہلکی آنچ پر پکنے دیں۔ پھر حسبِ ذائقہ دودھ اور چینی ملا لیں۔"
)
HINDI = "दो कप पानी उबालें, उसमें 2 चम्मच चाय की पत्ती डालें और पाँच मिनट तक धीमी आँच पर पकने दें। फिर स्वाद के अनुसार दूध और चीनी मिला लें।"
PERSIAN = "2 پیمانه آب را بجوشانید و سپس برگ چای را به آن بیفزایید و بگذارید پنج دقیقه روی آتش بماند، آنگاه شیر و شکر بیفزایید."


@pytest.mark.parametrize(
    ("there", "back", "reason"),
    [
        (URDU, ENGLISH, None),
        (URDU.replace("2", "۲"), ENGLISH, None),  # the same number in the language's digits
        (URDU, ENGLISH.replace("spoons", "teaspoons"), None),
        (URDU, "The weather in the hills is often cold, and people wear wool there.", "back_translation_low"),
        (URDU.replace("2", "3"), ENGLISH, "numbers_changed"),
        (PERSIAN, ENGLISH, "wrong_language"),
        (HINDI, ENGLISH, "wrong_script"),
        (ENGLISH, ENGLISH, "wrong_script"),  # it came back untranslated
        (f"{URDU} CUT", ENGLISH, "cut_off"),
    ],
)
def test_english_pairs_are_translated_there_and_back(tmp_path: Path, there: str, back: str, reason: str | None) -> None:
    def teacher(body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        text = asked.partition("\n\n")[2]
        if asked.startswith("Translate the text into Urdu."):
            assert text == ENGLISH
            return answer(there, "length" if there.endswith("CUT") else "stop")
        assert asked.startswith("Translate the text into English.") and text == there
        return answer(back)

    english = {"instruction": "How is tea made at home?", "response": ENGLISH, "language": "en"}
    config = seed_config("sample", jsonl(tmp_path / "english.jsonl", [english]))
    with served(teacher) as url:
        config.teacher = TeacherConfig(base_url=url, model="toy", terms=TERMS)
        with working(tmp_path / "xi", config) as work:
            seed.make_seed(work, stage := begun(work, "seed"))
            assert stage.rejected() == ({"ur": {reason: 1}} if reason else {})
            made = [row for row in stage.rows("ur") if row["instruction"] == english["instruction"]]
            assert [row["response"] for row in made] == ([UR.normalise(there)] if reason is None else [])
            assert stage.found()["ur"]["came"] == 73


def test_english_pairs_without_a_teacher(tmp_path: Path) -> None:
    config = seed_config("sample", jsonl(tmp_path / "english.jsonl", [{**PAIR, "language": "en"}]))
    with (
        working(tmp_path / "xi", config) as work,
        pytest.raises(UsageError, match="1 pairs in English, which the teacher translates.*real teacher"),
    ):
        seed.make_seed(work, begun(work, "seed"))


def test_numbers_of_any_script() -> None:
    assert seed.numbers_in("۲۰ اور 3") == ["20", "3"] == seed.numbers_in("३ और 20") and seed.numbers_in("تین") == []


# --- documents -----------------------------------------------------------------------------------------------------------


def document(number: int, text: str, **more: Any) -> dict[str, Any]:
    return {"id": f"{number:04}", "text": text, "url": f"https://example.com/{number}", "licence": "CC0-1.0", "date": "", **more}


def ingested(directory: Path, rows: Sequence[dict[str, Any]]) -> str:
    (directory / "documents").mkdir(parents=True)
    (directory / "manifest.json").write_text('{"language": "urd_Arab"}')
    with gzip.open(directory / "documents/00000.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return str(directory)


def test_documents_are_cut_and_those_too_short_have_no_text(tmp_path: Path) -> None:
    long, short = " ".join(PARTS * 12), "لاہور ایک شہر ہے۔"
    directory = ingested(tmp_path / "web", [document(1, long, news=True), document(2, short)])
    config = XInstructionConfig(languages=("ur",), documents=(f"ur={directory}",))
    with working(tmp_path / "xi", config) as work:
        one, two = seed.read_documents(work, "ur")
    assert long.startswith(one["response"]) and 200 <= len(one["response"]) <= 2500 and one["response"].endswith("۔")
    assert one["response"] == web_text.cut(long, UR, config.rules())
    assert (one["id"], one["lang"], one["source"]) == (
        "0001",
        "ur",
        {"url": "https://example.com/1", "licence": "CC0-1.0", "news": True},
    )
    assert two["response"] == "" and two["source"]["news"] is False


@pytest.mark.parametrize(
    ("missing", "words"),
    [("manifest.json", "has no manifest.json, so no ingest ended"), ("documents/00000.jsonl.gz", "kept nothing")],
)
def test_directories_that_are_no_ingest(tmp_path: Path, missing: str, words: str) -> None:
    directory = Path(ingested(tmp_path / "web", []))
    (directory / missing).unlink()
    config = XInstructionConfig(languages=("ur",), documents=(f"ur={directory}",))
    with working(tmp_path / "xi", config) as work, pytest.raises(UsageError, match=words):
        list(seed.read_documents(work, "ur"))


def chosen(
    tmp_path: Path, rows: Sequence[dict[str, Any]], apart: Sequence[str] = (), most: int = 10**6, news: float = 1.0
) -> tuple[set[str], dict[str, int]]:
    stage = Stage(str(tmp_path), "generate")
    stage.begin()
    made = generator.choose_documents(rows, ngrams_of(apart), UR, stage, most, news)
    return made, stage.rejected().get("ur", {})


def page(number: int, response: str = TEXT, news: bool = False) -> dict[str, Any]:
    return {"id": f"{number:04}", "lang": "ur", "response": response, "source": {"news": news}}


def test_documents_with_the_lowest_ids_are_chosen(tmp_path: Path) -> None:
    pages = [page(number) for number in random.Random(8).sample(range(100), 50)]
    found, rejected = chosen(tmp_path, pages, most=20)
    assert sorted(found) == sorted(row["id"] for row in pages)[:20] and rejected == {"document_beyond_number": 30}


def test_short_double_and_measured_on(tmp_path: Path) -> None:
    held = " ".join(PARTS[:3])
    assert len(tokens(held)) >= 13
    pages = [page(1), page(2, ""), page(1), page(3, f"{PARTS[5]} {held} {PARTS[6]}"), page(4, f"{PARTS[5]} {PARTS[0]}")]
    found, rejected = chosen(tmp_path, pages, [held])
    assert found == {"0001", "0004"}
    assert rejected == {"document_short": 1, "document_duplicate": 1, "document_measured_on": 1}


@pytest.mark.parametrize(("share", "news"), [(0.3, 30), (0.0, 0), (0.5, 70), (1.0, 200), (0.1, 7)])
def test_news_are_a_share_of_what_is_chosen(tmp_path: Path, share: float, news: int) -> None:
    """Of 70 others: the most for which news / (70 + news) stays at the share."""
    pages = [page(number, news=number >= 70) for number in random.Random(10).sample(range(270), 270)]
    found, rejected = chosen(tmp_path, pages, news=share)
    assert sorted(map(int, found)) == list(range(70 + news)), "the lowest ids of the news"
    assert rejected == ({"document_news": 200 - news} if news < 200 else {})
    assert news / (70 + news) <= share + 1e-9 or share == 1


def words(count: int, seed_: int) -> list[str]:
    rng = random.Random(seed_)
    return ["".join(rng.choices("ابپتجدرسکگلمنوہی", k=5)) for _ in range(count)]


def test_documents_near_what_is_measured_against_a_second_count() -> None:
    """13 words running in common, or the whole of a text of 6 to 12."""
    base = words(40, 1)
    for length, expected in [(12, False), (13, True), (20, True)]:
        text = " ".join([*words(9, 2), *base[5 : 5 + length], *words(9, 3)])
        assert contaminated(text, ngrams_of([" ".join(base)])) is expected
    short = " ".join(base[:6])
    assert contaminated(f"{' '.join(words(9, 2))} {short} ختم", ngrams_of([short, "x"])) and not contaminated(
        short, ngrams_of(["x"])
    )
    assert not contaminated("", ngrams_of([""]))


# --- diversify -----------------------------------------------------------------------------------------------------------


def test_one_after_the_other_from_every_cluster() -> None:
    assert diversify.round_robin(np.array([0, 0, 1]), [(1,), (0,), (5,)]) == [1, 2, 0]
    rng = random.Random(9)
    clusters, keys = [rng.randrange(4) for _ in range(60)], [(rng.random(), str(k)) for k in range(60)]
    queues = [sorted((keys[k], k) for k in range(60) if clusters[k] == own) for own in range(4)]
    expected = []
    while any(queues):
        turn = sorted(queue.pop(0) for queue in queues if queue)
        expected += [place for _, place in turn]
    assert diversify.round_robin(np.array(clusters), keys) == expected


def test_near_ones_are_left_out_up_to_the_target() -> None:
    rng = np.random.default_rng(0)
    vectors = diversify.unit(rng.normal(size=(60, 3)).astype(np.float32))
    order = rng.permutation(60).tolist()
    expected: list[int] = []
    near: list[int] = []
    for place in order:
        (near if any(vectors[place] @ vectors[one] > 0.9 for one in expected) else expected).append(place)
    assert diversify.choose(vectors, order, 60, 0.9) == (expected, near) and near
    some, left = diversify.choose(vectors, order, 5, 0.9)
    assert some == expected[:5] and set(left) < set(near)
    assert diversify.choose(vectors, order, 60, 1.0 + 1e-6) == (order, [])


def test_clusters_are_the_same_for_the_same_vectors() -> None:
    """And they are those that are there: three clouds far from each other."""
    rng = np.random.default_rng(1)
    vectors = diversify.unit(np.concatenate([rng.normal(centre, 0.05, (30, 3)) for centre in np.eye(3)]))
    one, other = (diversify.cluster(vectors, 3, 0) for _ in range(2))
    assert (
        (one == other).all()
        and [len(set(one[k : k + 30].tolist())) for k in (0, 30, 60)] == [1, 1, 1]
        and len(set(one.tolist())) == 3
    )


def embedded(texts: Sequence[str], **more: Any) -> np.ndarray:
    config = XInstructionConfig(diversify=configs.DiversifyConfig(**more))
    return diversify.embed(texts, SimpleNamespace(config=config), "instructions")  # type: ignore[arg-type]


def test_vectors_of_words_have_length_one_and_like_texts_are_near() -> None:
    texts = [row["instruction"] for row in seed.read_pairs(["sample"], "seed", ["ur"])["ur"]]
    vectors = embedded([*texts, texts[0]], dimensions=32)
    assert vectors.shape == (73, 32) and vectors.dtype == np.float32 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float(vectors[0] @ vectors[-1]) == pytest.approx(1, abs=1e-4) and abs(float(vectors[0] @ vectors[1])) < 0.9
    assert np.array_equal(vectors, embedded([*texts, texts[0]], dimensions=32))


@pytest.mark.parametrize("texts", [["Explain rain."], ["Explain rain.", "Explain rain."], ["Explain rain.", "Bake bread."], []])
def test_few_texts(texts: list[str]) -> None:
    assert embedded(texts).shape[0] == len(texts)


def test_vectors_of_an_endpoint_come_in_the_order_of_the_texts() -> None:
    asked: list[int] = []

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        assert body["model"] == "embedder"
        asked.append(len(body["input"]))
        data = [{"index": k, "embedding": [float(len(text)), 1.0, 0.0]} for k, text in enumerate(body["input"])]
        return {"data": data[::-1]}

    texts = ["a" * (1 + k % 7) for k in range(600)]
    with served(reply) as url:
        vectors = embedded(texts, embedder="endpoint", url=url, model="embedder")
    assert asked == [256, 256, 88]
    assert np.allclose(
        vectors, [[len(text) / math.hypot(len(text), 1), 1 / math.hypot(len(text), 1), 0] for text in texts], atol=1e-6
    )


def vectors_reply(*vectors: object) -> str:
    return json.dumps({"data": [{"index": k, "embedding": vector} for k, vector in enumerate(vectors)]})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Answer(404, "no such model"), "404: no such model.*diversify.url, diversify.model"),
        (Answer(400, "too many texts"), "400: too many texts.*diversify.model"),
        (Answer(body="<html>"), "gave no embeddings"),
        (Answer(body='{"data": null}'), "gave no embeddings"),
        (Answer(body='{"data": [{"index": 0}, {"index": 1}]}'), "gave no embeddings"),
        (Answer(body=vectors_reply([1.0, 0.0])), "1 vectors for 2 texts"),
        (Answer(body=vectors_reply([1.0, 0.0], [float("nan"), 1.0])), "no numbers"),
        (Answer(body=vectors_reply([1.0, 0.0], [1.0])), "embeddings|vectors"),  # of different lengths
        (Answer(body=vectors_reply("AAAA", "AAAA")), "embeddings|vectors"),  # as base64
        (Answer(body=vectors_reply([], [])), "embeddings|vectors"),
    ],
)
def test_an_endpoint_that_gives_no_vectors(reply: Answer, words: str) -> None:
    with LocalTeacher([reply]) as server, pytest.raises(UsageError, match=words):
        embedded(["Explain rain.", "Bake bread."], embedder="endpoint", url=server.base_url, model="m")


def test_an_endpoint_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversify, "backoff", lambda *_: 0.0)
    with LocalTeacher([Answer(503), Answer(500, "oops"), Answer(body=vectors_reply([3.0, 4.0]))]) as server:
        assert embedded(["x"], embedder="endpoint", url=server.base_url, model="m").tolist() == [
            [pytest.approx(0.6), pytest.approx(0.8)]
        ]
    with LocalTeacher([Answer(503, "full")] * 9) as server, pytest.raises(UsageError, match="503: full.*diversify.url"):
        embedded(["x"], embedder="endpoint", url=server.base_url, model="m")
    assert server.asked.total() == 6


def refined(work: Work, count: int) -> None:
    stage = begun(work, "refine")
    nouns = "rain bread school river market letter garden winter mango village".split()
    rows = [
        {
            "id": f"{k:03}",
            "instruction": f"Explain how {nouns[k % 10]} and {nouns[k // 10]} go together.",
            "rating": {"scores": [0, 0.1, k / 100]},
        }
        for k in range(count)
    ]
    stage.write("ur", [*rows, {**rows[0], "id": "twin"}])
    stage.finish({}, found={})


def test_a_diverse_choice_of_what_was_kept(tmp_path: Path) -> None:
    config = XInstructionConfig(languages=("ur",), diversify=configs.DiversifyConfig(clusters=5, target=20, dimensions=16))
    with working(tmp_path, config) as work:
        refined(work, 60)
        diversify.make_diverse(work, stage := begun(work, "diversify"))
        rows, found = list(stage.rows("ur")), stage.found()["ur"]
        assert len(rows) == 20 == found["kept"] and found["came"] == 61
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
        spread = Counter(row["cluster"] for row in rows)
        assert set(spread) <= set(range(5)) and found["entropy_after"] == pytest.approx(
            measures.entropy([spread[k] for k in range(5)]), abs=1e-4
        )
        rejected = stage.rejected()["ur"]
        assert 20 + rejected.get("near_instruction", 0) + rejected["beyond_target"] == 61


def test_fewer_left_than_clusters_or_target(tmp_path: Path) -> None:
    config = XInstructionConfig(languages=("ur",), diversify=configs.DiversifyConfig(clusters=100, target=20))
    with working(tmp_path, config) as work:
        refined(work, 60)
        with pytest.raises(UsageError, match="61 samples of ur are left, fewer than the 100 clusters.*diversify.clusters=N"):
            diversify.make_diverse(work, begun(work, "diversify"))
        config.diversify.clusters, config.diversify.target = 4, 1000
        diversify.make_diverse(work, stage := begun(work, "diversify"))
        assert stage.rejected()["ur"]["near_instruction"] >= 1, "of two instructions that are the same one stays"
        assert work.show.said == [f"ur: {stage.counts()['ur']:,} diverse samples, 1,000 were wanted"]  # type: ignore[attr-defined]


# --- output --------------------------------------------------------------------------------------------------------------


def test_forms_by_id_have_the_shares_that_are_asked_for() -> None:
    config = XInstructionConfig(output=configs.OutputConfig(answer_in=0.9, native_share=0.2, system_share=0.1, heldout_share=0.05))
    work: Any = SimpleNamespace(config=config)
    forms = {f"{k:06}": output.form_of(work, {"id": f"{k:06}"}) for k in range(5000)}
    assert {own: output.form_of(work, {"id": own}) for own in reversed(forms)} == forms, "whatever was drawn before"
    counted = Counter(form for form, _, _ in forms.values())
    for form, share in {"english": 0.7, "native": 0.2, "system": 0.1}.items():
        assert counted[form] == pytest.approx(5000 * share, abs=4 * math.sqrt(5000 * share * (1 - share)))
    english = [says for form, says, _ in forms.values() if form == "english"]
    assert sum(english) / len(english) == pytest.approx(0.9, abs=0.02)
    assert all(says for form, says, _ in forms.values() if form == "system")
    assert sum(side == "heldout" for *_, side in forms.values()) == pytest.approx(250, abs=60)
    config.seed = 1
    assert {own: output.form_of(work, {"id": own}) for own in forms} != forms


@pytest.mark.parametrize(
    ("form", "says", "roles", "times"),
    [
        ("english", True, "ua", 1),
        ("english", False, "ua", 0),
        ("system", True, "sua", 1),
        ("native", True, "ua", 0),
        ("native", False, "ua", 0),
    ],
)
def test_messages_of_each_form(form: str, says: bool, roles: str, times: int) -> None:
    asked = "لاہور کے بارے میں بتائیں۔" if form == "native" else "Tell me about Lahore."
    row = {"form": form, "says_language": says, "asked": asked, "response": TEXT, "instruction": "Tell me about Lahore."}
    made = output.messages(row, UR)
    assert "".join(message["role"][0] for message in made) == roles and made[-1]["content"] == TEXT
    assert " ".join(message["content"] for message in made).count("Answer in Urdu.") == times
    assert made[-2]["content"].startswith(asked)
    if form == "english" and says:
        assert made[-2]["content"] == "Tell me about Lahore. Answer in Urdu."
        again = output.messages(row, HI)
        assert again[-2]["content"] == "Tell me about Lahore. Answer in Hindi.", "the row itself is as it was"


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_a_sheet_holds_no_formula(tmp_path: Path, first: str) -> None:
    cell = f"{first}HYPERLINK(1)"
    rows = [
        {"id": f"{k}", "asked": cell, "response": f"{cell}، «ٹھیک»", "rating": {"scores": [0, 0, 0.5]}, "source": {"url": cell}}
        for k in range(150)
    ]
    output.write_sheet(str(tmp_path / "sheet.csv"), rows, seed=0)
    with open(tmp_path / "sheet.csv", encoding="utf-8-sig", newline="") as file:
        head, *lines = csv.reader(file)
    assert len(lines) == 100 and head[:4] == ["id", "instruction", "answer", "score"]
    for line in lines:
        assert line[1:5] == [f"'{cell}", f"'{cell}، «ٹھیک»", "0.500", f"'{cell}"]
    assert len({line[0] for line in lines}) == 100
    output.write_sheet(str(tmp_path / "again.csv"), rows, seed=0)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "sheet.csv").read_bytes()


def test_what_the_report_says_of_samples() -> None:
    shared = {"says_language": True}
    one = {"instruction": "x" * 10, "response": "ا" * 20, "form": "english", "source": {"news": True}, "rating": {"round": 0}}
    two = {"instruction": "x" * 20, "response": "ا" * 40, "form": "system", "rating": {"round": 1}}
    rows = [one | shared, two | shared | {"source": {"news": False, "licence": "CC0"}}]
    found = output.facts_of(rows)
    assert (found["samples"], found["forms"], found["news"]) == (2, {"english": 1, "system": 1}, 1)
    assert found["instruction_letters"] == {"mean": 15.0, "sd": 5.0}
