"""Vocabulary extension against a slow BPE written here, against the trainer of `tokenizers`, NumPy, transformers and PEFT."""

import json
import random
import shutil
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import peft
import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from alif_jax import UsageError, bpe, vocab
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
ENGLISH = "the cat sat on the mat and the dog saw the cat that ate the rat near the old oak tree by the water".split()
URDU = [*tiny.WORDS, "پاکستان", "زبان", "اردو", "لکھنا", "پڑھنا", "بہتر", "حکومت", "تعلیم", "لوگوں", "انہوں", "ہوئے", "گئے"]


def english(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(ENGLISH, k=8)).capitalize() + "." for _ in range(count)]


def urdu(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(URDU, range(len(URDU), 0, -1), k=9)) + f"۔ {rng.randrange(99)}" for _ in range(count)]


# --- bases of the kinds there are, each trained on English

LLAMA3_SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<s>", "</s>", "<pad>"]


def llama3() -> dict[str, Any]:
    """Byte-level, special tokens outside of the model's vocabulary and after it, ignore_merges with a token no merge reaches."""
    core = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(english(200), trainer)
    spec = json.loads(core.to_str())
    spec["model"]["vocab"]["ĠØ²ÙħÛĮÙĨ"] = len(spec["model"]["vocab"])  # " زمین"
    return with_special(spec)


def with_special(spec: dict[str, Any]) -> dict[str, Any]:
    first = len(spec["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] = [{"id": first + i, "content": text, **flags} for i, text in enumerate(SPECIAL)]
    return spec


def sentencepiece(*, as_text: bool, metaspace: bool) -> dict[str, Any]:
    """As Llama 2 and Mistral: ▁ for a space, bytes for characters without a token, special tokens first in the vocabulary.

    metaspace: by a pre-tokenizer; else by a normalizer alone, so that a whole text is one piece. as_text: merges as "a b".
    """
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=tokens, show_progress=False)
    core.train_from_iterator([*english(200), "ا ب پ ر ک ہ ی ن و ت"], trainer)  # some letters have a token, ے and ل have none
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if metaspace:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    spec = json.loads(core.to_str())
    if not metaspace:
        spec["pre_tokenizer"] = None
    spec["added_tokens"] = spec["added_tokens"][:3]
    if as_text:
        spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    return spec


def byte_level() -> dict[str, Any]:
    return json.loads(tiny.train_tokenizer().to_str())


KINDS: dict[str, dict[str, Any]] = {
    "llama3": llama3(),
    "llama2": sentencepiece(as_text=True, metaspace=False),
    "mistral": sentencepiece(as_text=False, metaspace=True),
    "tiny": byte_level(),
}


def base_of(spec: dict[str, Any], directory: Path) -> bpe.Base:
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return bpe.read_base(str(directory))


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> bpe.Base:
    return base_of(KINDS[request.param], tmp_path / "kind")


def learn(base: bpe.Base, texts: list[str], new_tokens: int = 60, min_frequency: int = 2) -> bpe.Extension:
    return bpe.learn(base, bpe.count_words(base, texts), new_tokens=new_tokens, min_frequency=min_frequency)


def core_of(base: bpe.Base, extension: bpe.Extension) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(bpe.extended(base, extension))


# --- a second BPE, slow and plain


class Naive:
    """Text symbols, each word encoded anew after each merge, every pair counted anew."""

    def __init__(self, spec: dict[str, Any]):
        model = spec["model"]
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        self.ids: dict[str, int] = dict(model["vocab"]) | {token["content"]: token["id"] for token in spec["added_tokens"]}
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.bytes = model["byte_fallback"]
        self.ignore_merges = model["ignore_merges"]
        self.new: list[str] = []
        self.learnt: list[tuple[str, str]] = []

    def pieces(self, word: str) -> list[str]:
        if self.ignore_merges and word in self.ids:
            return [word]
        pieces = list(word)
        while pairs := [(self.ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in self.ranks]:
            at = min(pairs)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return pieces

    def encode(self, word: str) -> list[int]:
        ids: list[int] = []
        for piece in self.pieces(word):
            ids += [self.ids[piece]] if piece in self.ids else [self.ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
        return ids

    def order(self, pair: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(self.ids[piece] for piece in pair) if len(pair) == 2 else (-1 - ord(pair[0]),)

    def learn(self, words: dict[str, int], new_tokens: int, min_frequency: int) -> None:
        first = max(self.ids.values()) + 1
        while len(self.new) < new_tokens:
            counts: Counter[tuple[str, ...]] = Counter()
            for word, count in words.items():
                pieces = self.pieces(word)
                for left, right in pairwise(pieces):
                    if left in self.ids and right in self.ids and left + right not in self.ids:
                        counts[left, right] += count
                for piece in pieces:
                    if piece not in self.ids:
                        counts[piece,] += count
            allowed = {pair: n for pair, n in counts.items() if n >= min_frequency}
            if not allowed:
                return
            pair = min(allowed, key=lambda pair: (-allowed[pair], self.order(pair)))
            self.new.append("".join(pair))
            self.ids[self.new[-1]] = first + len(self.new) - 1
            if len(pair) == 2:
                self.ranks[pair] = len(self.ranks)
                self.learnt.append((pair[0], pair[1]))


def test_the_same_merges_as_a_slow_bpe(base: bpe.Base) -> None:
    texts = [*urdu(60), "زمین زمینوں زمینیں ہاہاہاہا ہاہاہا ےےےے لللل"]
    words = bpe.count_words(base, texts)
    extension = bpe.learn(base, words, new_tokens=70, min_frequency=2)
    naive = Naive(base.spec)
    naive.learn(words, 70, 2)
    assert extension.merges == naive.learnt
    assert extension.tokens == {text: base.size + i for i, text in enumerate(naive.new)} and len(naive.new) > 60
    assert extension.words == {word: naive.encode(word) for word in words}
    core = core_of(base, extension)
    bpe.check(base, extension, core)
    for text in [*urdu(30, seed=1), *english(5, seed=1)]:  # by the whole pipeline, on text that was not learnt from
        expected = [id for word in whole_words(core, text) for id in naive.encode(word)]
        assert core.encode(text, add_special_tokens=False).ids == expected
        assert core.decode(expected) == text


def whole_words(core: tokenizers.Tokenizer, text: str) -> list[str]:
    text = core.normalizer.normalize_str(text) if core.normalizer else text
    return [piece for piece, _ in core.pre_tokenizer.pre_tokenize_str(text)] if core.pre_tokenizer else [text]


def test_from_an_alphabet_it_is_the_trainer_of_tokenizers(tmp_path: Path) -> None:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, min_frequency=2, show_progress=False)
    core.train_from_iterator([*urdu(200), *english(50)], trainer)
    trained = json.loads(core.to_str())
    letters = {token: id for token, id in trained["model"]["vocab"].items() if len(token) == 1}
    spec = {**trained, "model": {**trained["model"], "vocab": letters, "merges": []}}
    base = base_of(spec, tmp_path / "letters")
    extension = learn(base, [*urdu(200), *english(50)], new_tokens=500 - len(letters))
    assert [list(pair) for pair in extension.merges] == trained["model"]["merges"]
    assert letters | extension.tokens == trained["model"]["vocab"]


def test_old_text_is_encoded_as_before(base: bpe.Base) -> None:
    core = core_of(base, learn(base, urdu(100)))
    unchanged = 0
    for text in [*english(40, seed=2), "ایک آسمان", "x = [1, 2]\n\n    y", "<s>the cat</s> 100% 🙂"]:
        old, new = (each.encode(text, add_special_tokens=False) for each in (base.core, core))
        if max(new.ids) < base.size:
            assert new.ids == old.ids
            unchanged += 1
        assert core.decode(new.ids, skip_special_tokens=False) == base.core.decode(old.ids, skip_special_tokens=False)
    assert unchanged >= 40
    assert [core.token_to_id(text) for text in base.vocab] == list(base.vocab.values())
    ids = sorted(core.get_vocab().values())
    assert ids == list(range(base.size + 60))  # no id twice, none left out


def test_letters_without_a_token_get_one(tmp_path: Path) -> None:
    base = base_of(KINDS["llama2"], tmp_path / "kind")
    assert "ل" not in base.vocab
    extension = learn(base, ["لال قلعہ\nلال قلعہ", "لال قل\u200cعہ \x02\x02\ue000\ue000"] * 4)
    assert {"ل", "ق", "ع", "لال", "▁لال"} <= extension.tokens.keys()
    assert "\n" not in extension.tokens  # English has line ends too
    assert "\u200c" in extension.tokens and not {"\x02", "\ue000"} & extension.tokens.keys()
    assert not any("\n" in token or token.startswith("<0x") for token in extension.tokens)
    parts = dict(zip(extension.tokens, extension.parts, strict=True))
    assert [base.core.id_to_token(id) for id in parts["ل"]] == ["<0xD9>", "<0x84>"]


@pytest.mark.parametrize("unknown", ["<unk>", None])
def test_without_bytes_a_letter_was_unknown_or_dropped(tmp_path: Path, unknown: str | None) -> None:
    spec = KINDS["llama2"] | {"model": KINDS["llama2"]["model"] | {"byte_fallback": False, "unk_token": unknown}}
    base = base_of(spec, tmp_path / "kind")
    extension = learn(base, ["لال پانی پانی"] * 4)
    bpe.check(base, extension, core_of(base, extension))
    assert ("ل" in extension.tokens) == (unknown is not None) and "▁پانی" in extension.tokens
    if unknown:
        assert extension.parts[extension.tokens["ل"] - base.size] == [base.vocab["<unk>"]]


def test_a_token_that_no_merge_reaches_keeps_its_id(tmp_path: Path) -> None:
    base = base_of(KINDS["llama3"], tmp_path / "kind")
    stem = "ĠØ²ÙħÛĮÙĨ"  # " زمین"
    assert base.encode(stem) == [base.vocab[stem]] and len(base.encode(stem + "ÙĪ")) > 2
    texts = ["ایک زمینوں ایک زمینیں ایک زمیندار"] * 9
    extension = learn(base, texts, new_tokens=1000)
    core = core_of(base, extension)
    bpe.check(base, extension, core)
    assert stem not in extension.tokens and core.token_to_id(stem) == base.vocab[stem]
    assert stem not in {"".join(pair) for pair in extension.merges} and stem + "ÙĪÚº" in extension.tokens


def test_special_tokens_in_a_text_are_no_words(base: bpe.Base) -> None:
    special = base.spec["added_tokens"][1]["content"]
    assert bpe.count_words(base, [f"{special}کتاب{special}"]) == bpe.count_words(base, ["کتاب"])


def test_no_merge_crosses_a_word(base: bpe.Base) -> None:
    extension = learn(base, ["ژالہ زرافہ"] * 50, new_tokens=100)
    texts = [core_of(base, extension).decode([id]).strip() for id in extension.frequent[:2]]
    assert sorted(texts) == sorted(["ژالہ", "زرافہ"]) and len(extension.tokens) < 100


def test_few_and_rare_pairs(tmp_path: Path) -> None:
    base = base_of(KINDS["tiny"], tmp_path / "kind")
    texts = ["زرافہ"] * 3 + ["ژالہ"] * 2
    for min_frequency, words in ((2, {"زرافہ", "ژالہ"}), (3, {"زرافہ"}), (4, set())):
        extension = learn(base, texts, new_tokens=1000, min_frequency=min_frequency)
        core = core_of(base, extension)
        assert {core.decode([id]) for id in extension.tokens.values()} & {"زرافہ", "ژالہ"} == words
    assert len(learn(base, texts, new_tokens=1).tokens) == 1


def test_kinds_that_merges_do_not_extend(tmp_path: Path) -> None:
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    wordpiece = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    for name, core in (("Unigram", unigram), ("WordPiece", wordpiece)):
        with pytest.raises(UsageError, match=f"the model is {name}; only BPE"):
            base_of(json.loads(core.to_str()), tmp_path / name)
    changed = KINDS["tiny"] | {"model": KINDS["tiny"]["model"] | {"end_of_word_suffix": "</w>"}}
    with pytest.raises(UsageError, match="model.end_of_word_suffix='</w>' is not implemented"):
        base_of(changed, tmp_path / "suffix")


def test_a_result_that_encodes_otherwise_is_refused(tmp_path: Path) -> None:
    base = base_of(KINDS["tiny"], tmp_path / "kind")
    extension = learn(base, urdu(50))
    backwards = tokenizers.Tokenizer.from_str(bpe.extended(base, extension.__class__(**{**vars(extension), "merges": []})))
    with pytest.raises(UsageError, match="cannot be extended here"):
        bpe.check(base, extension, backwards)
    moved = json.loads(bpe.extended(base, extension))
    del moved["model"]["vocab"]["<|pad|>"]
    with pytest.raises(UsageError, match="'<|pad|>' as learnt"):
        bpe.check(base, extension, tokenizers.Tokenizer.from_str(json.dumps(moved)))


# --- whole directories


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "urdu.txt"
    path.write_text("\n".join(urdu(300)), encoding="utf-8")
    return str(path)


def tensors_of(directory: Path | str) -> dict[str, torch.Tensor]:
    return {k: v for path in Path(directory).glob("*.safetensors") for k, v in safetensors.torch.load_file(path).items()}


def logits_of(directory: Path | str, ids: torch.Tensor) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with torch.no_grad():
        return model(ids).logits.numpy()


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [
        (torch.float32, {}),
        (torch.bfloat16, {"tie_word_embeddings": True}),
        (torch.float32, {"vocab_size": tiny.VOCAB + 27, "max_shard_size": "50KB"}),  # rows that no token has
        (torch.float16, {"vocab_size": tiny.VOCAB + 90, "tie_word_embeddings": True}),  # more of them than new tokens
    ],
)
def test_the_directory(tmp_path: Path, text: str, dtype: torch.dtype, changes: dict[str, Any]) -> None:
    source, output = tmp_path / "base", tmp_path / "extended"
    tiny.make_base(source, dtype=dtype, chat_template="{{ messages[0].content }}", **changes)
    extension, fertility = vocab.extend_vocab(str(source), [text], str(output), new_tokens=50)
    old, new = tensors_of(source), tensors_of(output)
    assert old.keys() == new.keys()
    for name in old:
        assert new[name].dtype == dtype
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            table = old[name].float().numpy()
            means = [sum(table[part].astype(np.float64) for part in parts) / len(parts) for parts in extension.parts]
            expected = torch.from_numpy(np.stack(means)).float().to(dtype)
            assert torch.equal(new[name][: tiny.VOCAB], old[name][: tiny.VOCAB])
            torch.testing.assert_close(new[name][tiny.VOCAB :], expected, rtol=torch.finfo(dtype).eps, atol=1e-7)
        else:
            assert torch.equal(new[name], old[name]), name
    # what a new token takes the place of is what the base wrote for it
    base, core = bpe.read_base(str(source)), bpe.read_base(str(output)).core
    for token, parts in zip(extension.tokens, extension.parts, strict=True):
        assert base.encode(token) == parts
    config = json.loads((output / "config.json").read_text())
    assert config["vocab_size"] == tiny.VOCAB + 50 and config["original_vocab_size"] == tiny.VOCAB
    assert {k: v for k, v in config.items() if "vocab_size" not in k}.items() <= json.loads(
        (source / "config.json").read_text()
    ).items()
    for name in ("tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (output / name).read_bytes() == (source / name).read_bytes()
    assert not (tmp_path / "extended.tmp").exists()
    # transformers: the same ids as here, rows for exactly its tokens, the old logits for old tokens
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert len(tokenizer) == tiny.VOCAB + 50
    line = urdu(1, seed=9)[0]
    assert tokenizer(line, add_special_tokens=False).input_ids == core.encode(line, add_special_tokens=False).ids
    assert max(tokenizer(line).input_ids) >= tiny.VOCAB and tokenizer.decode(tokenizer(line).input_ids) == line
    ids = torch.randint(0, tiny.VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))
    before, after = logits_of(source, ids)[..., : tiny.VOCAB], logits_of(output, ids)
    assert after.shape[-1] == tiny.VOCAB + 50 and np.abs(before).max() > 3
    np.testing.assert_allclose(after[..., : tiny.VOCAB], before, atol=1e-5 * np.abs(before).max())
    (one,) = fertility.values()
    assert one.after < 0.9 * one.before and one.words > 0


def test_peft_trains_and_reloads_the_new_tables(tmp_path: Path, text: str) -> None:
    tiny.make_base(tmp_path / "base", vocab_size=tiny.VOCAB + 27)
    vocab.extend_vocab(str(tmp_path / "base"), [text], str(tmp_path / "extended"), new_tokens=50)
    load = transformers.AutoModelForCausalLM.from_pretrained
    model = load(tmp_path / "extended")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "extended")
    assert model.get_input_embeddings().weight.shape[0] == model.get_output_embeddings().weight.shape[0] == len(tokenizer)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    adapted = peft.get_peft_model(model, config)
    ids = torch.tensor([tokenizer(urdu(1, seed=3)[0]).input_ids])
    adapted(ids, labels=ids).loss.backward()
    torch.optim.SGD(adapted.parameters(), 0.1).step()
    expected = adapted(ids).logits
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(load(tmp_path / "extended"), tmp_path / "adapter")
    torch.testing.assert_close(again(ids).logits, expected)


def model_directory(directory: Path, kind: str, tokenizer_config: dict[str, Any]) -> Path:
    """A tiny model with one of KINDS as its tokenizer, and the files for slow tokenizers beside it."""
    size = base_of(KINDS[kind], directory).size
    tiny.hf_model(tiny.hf_config(vocab_size=size)).save_pretrained(directory)
    (directory / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    for name in ("vocab.json", "merges.txt", "tokenizer.model", "LICENSE", "training_args.bin"):
        (directory / name).write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("kind", "tokenizer_class"),
    [("llama3", "PreTrainedTokenizerFast"), ("llama2", "LlamaTokenizer"), ("mistral", "LlamaTokenizerFast")],
)
def test_transformers_reads_every_kind(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], kind: str, tokenizer_class: str
) -> None:
    config = {"tokenizer_class": tokenizer_class, "bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False, "legacy": False}
    source = model_directory(tmp_path / "base", kind, config)
    vocab.extend_vocab(str(source), [text], str(tmp_path / "out"), new_tokens=50)
    told = capsys.readouterr().err
    assert all(
        f"{name} is left out: it holds the old vocabulary" in told for name in ("vocab.json", "merges.txt", "tokenizer.model")
    )
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "LICENSE"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    core = bpe.read_base(str(tmp_path / "out")).core
    rows = tensors_of(tmp_path / "out")["lm_head.weight"].shape[0]
    assert rows == len(tokenizer) == bpe.read_base(str(source)).size + 50
    for line in [*urdu(5, seed=4), *english(5, seed=4)]:
        ids = core.encode(line, add_special_tokens=False).ids
        assert tokenizer(line, add_special_tokens=False).input_ids == ids
        assert tokenizer.decode(ids) == line
    assert tokenizer.eos_token_id == bpe.read_base(str(source)).vocab["</s>"]


def test_an_extended_model_is_extended_again(tmp_path: Path, text: str) -> None:
    tiny.make_base(tmp_path / "base")
    vocab.extend_vocab(str(tmp_path / "base"), [text], str(tmp_path / "one"), new_tokens=20)
    vocab.extend_vocab(str(tmp_path / "one"), [text], str(tmp_path / "two"), new_tokens=20)
    at_once, _ = vocab.extend_vocab(str(tmp_path / "base"), [text], str(tmp_path / "at_once"), new_tokens=40)
    specs = [json.loads((tmp_path / name / "tokenizer.json").read_text())["model"] for name in ("two", "at_once")]
    assert specs[0] == specs[1]
    assert json.loads((tmp_path / "two" / "config.json").read_text())["original_vocab_size"] == tiny.VOCAB + 20


def test_through_fsspec(tmp_path: Path, text: str) -> None:
    source = tiny.make_base(tmp_path / "base")
    with fsspec.open("memory://vocab/urdu.txt", "w", encoding="utf-8") as file:
        file.write(Path(text).read_text(encoding="utf-8"))
    there, _ = vocab.extend_vocab(source, ["memory://vocab/urdu.txt"], "memory://vocab/out", new_tokens=20)
    here, _ = vocab.extend_vocab(source, [text], str(tmp_path / "out"), new_tokens=20)
    assert there == here and not fsspec.filesystem("memory").exists("/vocab/out.tmp")
    for path in (tmp_path / "out").iterdir():
        with fsspec.open(f"memory://vocab/out/{path.name}") as file:
            assert file.read() == path.read_bytes()


# --- texts and fertility


def test_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("پانی\n\n دن \r\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "رات\\nدن", "url": "x"}\n\n{"text": ""}\n', encoding="utf-8")
    records = [*tiny.documents(4), *tiny.conversations(2)]
    data = tiny.make_shards(tmp_path / "data", records, heldout=1)
    found = [(source, text) for source, text, _ in vocab.read_texts([str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl"), data])]
    assert found[:3] == [("a.txt", "پانی"), ("a.txt", " دن "), ("b.jsonl", "رات\nدن")]
    assert found[3:7] == [(record.source, record.text) for record in records[:4]]
    assert [text for _, text in found[7:]] == [message["content"] for message in records[4].messages or ()]


def test_a_tenth_is_held_out_whatever_the_order(tmp_path: Path) -> None:
    lines = urdu(2000)
    held = []
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        held.append({text for _, text, held_out in vocab.read_texts([str(tmp_path / name)]) if held_out})
        lines.reverse()
    assert held[0] == held[1] and 150 < len(held[0]) < 250


def test_fertility_by_source(tmp_path: Path, text: str) -> None:
    source, data = tiny.make_base(tmp_path / "base"), tiny.make_shards(tmp_path / "data", tiny.documents(150))
    extension, fertility = vocab.extend_vocab(source, [text, data], str(tmp_path / "out"), new_tokens=40)
    assert fertility.keys() == {"urdu.txt", "web_0", "web_1"}
    held = [one for name, one, held_out in vocab.read_texts([text]) if held_out]
    learnt_from = {text for text, _ in words_of(source, [text, data], held_out=False)}
    assert extension.words.keys() == learnt_from
    assert {text for text, _ in words_of(source, [text, data], held_out=True)} - learnt_from
    counts = fertility["urdu.txt"]
    assert counts.words == sum(len(one.split()) for one in held)
    assert counts.bytes == sum(len(one.encode()) for one in held)
    for directory, tokens in ((source, counts.before), (tmp_path / "out", counts.after)):
        core = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
        assert tokens == sum(len(core.encode(one, add_special_tokens=False).ids) for one in held)
    report = vocab.report(str(tmp_path / "out"), extension, fertility, new_tokens=41)
    lines = report.splitlines()
    assert lines[0] == "40 new tokens of 41 asked for: the text has no more"
    assert [line.split()[0] for line in lines[2:6]] == ["total", "urdu.txt", "web_0", "web_1"]
    assert f"{counts.before / counts.words:.2f} → {counts.after / counts.words:.2f}" in lines[3]
    frequent = lines[6].removeprefix("most frequent new tokens: ").split("  ")
    core = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    standing: Counter[int] = Counter()
    for word, count in words_of(source, [text, data], held_out=False):
        for id in extension.words[word]:
            standing[id] += count * (id >= tiny.VOCAB)
    assert len(frequent) == 10 and frequent[0] == core.decode([standing.most_common(1)[0][0]]).strip()


def words_of(source: str, texts: list[str], *, held_out: bool) -> list[tuple[str, int]]:
    chosen = (one for _, one, held in vocab.read_texts(texts) if held == held_out)
    return list(bpe.count_words(bpe.read_base(source), chosen).items())


# --- errors


def damaged(directory: Path, name: str) -> str:
    tiny.make_base(directory)
    (directory / name).unlink()
    return str(directory)


def test_errors_leave_nothing_behind(tmp_path: Path, text: str) -> None:
    base = tiny.make_base(tmp_path / "base")
    small = tiny.make_base(tmp_path / "small", vocab_size=tiny.VOCAB - 1)
    for name, content in {
        "empty.txt": " \n", "few.txt": "ایک دو", "rare.txt": "a\nb\nc", "a.csv": "a", "list.jsonl": "\n[1]",
        "bad.jsonl": '{"text": 1}', "half.jsonl": '{"text": "\\ud800"}',
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    (tmp_path / "latin.txt").write_bytes(b"ok\n\xff\xfe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("")
    (tmp_path / "exists").mkdir()
    cases: list[tuple[str, list[str], dict[str, Any], str]] = [
        (base, [], {}, "no text: give --text"),
        (base, ["nowhere.txt"], {}, "nowhere.txt: no such file or directory"),
        (base, ["empty.txt"], {}, "no words to learn from"),
        (base, ["rare.txt"], {}, "nothing to learn, no pair of tokens occurs 2 times"),
        (base, ["few.txt"], {"min_frequency": 1}, "too few documents to hold some out"),
        (base, ["bad.jsonl"], {}, 'bad.jsonl, line 1: expected a JSON object with a "text"'),
        (base, ["list.jsonl"], {}, "list.jsonl, line 2: expected"),
        (base, ["half.jsonl"], {}, "half.jsonl: not UTF-8"),
        (base, ["latin.txt"], {}, "latin.txt: not UTF-8 near line"),
        (base, ["a.csv"], {}, "text is read from .txt, .jsonl, or data directories"),
        (base, ["folder"], {}, "no manifest.json"),
        (base, [text], {"new_tokens": 0}, "new_tokens=0: a positive number"),
        (base, [text], {"min_frequency": 0}, "min_frequency=0: a positive number"),
        (small, [text], {}, f"has {tiny.VOCAB - 1} rows, but the tokenizer has ids up to {tiny.VOCAB - 1}"),
        (damaged(tmp_path / "no_weights", "model.safetensors"), [text], {}, "neither model.safetensors nor"),
        (damaged(tmp_path / "no_tokenizer", "tokenizer.json"), [text], {}, "tokenizer.json: no such file"),
        (damaged(tmp_path / "no_config", "config.json"), [text], {}, "config.json: no such file"),
    ]
    before = {path.name for path in tmp_path.iterdir()}
    for model, texts, arguments, message in cases:
        paths = [str(tmp_path / name) for name in texts]
        with pytest.raises(UsageError, match=message.replace("(", r"\(")):
            vocab.extend_vocab(model, paths, str(tmp_path / "out"), **arguments)
    with pytest.raises(UsageError, match="exists already"):
        vocab.extend_vocab(base, [text], str(tmp_path / "exists"))
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path, text: str) -> None:
    source = tiny.make_base(tmp_path / "base")
    tensors = tensors_of(source)
    tensors["model.norm.weight"][3] = float("nan")
    safetensors.torch.save_file(tensors, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="model.norm.weight has values that are not finite"):
        vocab.extend_vocab(source, [text], str(tmp_path / "out"), new_tokens=10)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_head_that_is_missing(tmp_path: Path, text: str) -> None:
    source = tiny.make_base(tmp_path / "base", tie_word_embeddings=True)
    config = json.loads((tmp_path / "base" / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="no tensor lm_head.weight"):
        vocab.extend_vocab(source, [text], str(tmp_path / "out"))


def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "launch/extend_vocab.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command(tmp_path: Path, text: str) -> None:
    source, output = tiny.make_base(tmp_path / "base"), tmp_path / "out"
    given = (f"--model={source}", f"--text={text}", f"--output={output}")
    done = call(*given, "--new_tokens=99999", "--min_frequency=3")
    assert done.returncode == 0, done.stderr
    assert " new tokens of 99,999 asked for: the text has no more" in done.stdout
    assert "most frequent new tokens: " in done.stdout and (output / "config.json").exists()
    done = call(*given)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {output} exists already; give another --output, or remove it\n"
    shutil.rmtree(output)
    done = call(*given, "--new_tokens=few")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1) and "--new_tokens=few" in done.stderr
