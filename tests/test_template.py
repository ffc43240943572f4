"""Rendering against transformers, and the mask of trained tokens, written out by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from alif_jax import UsageError
from alif_jax.data.template import DataConfig, Examples, encode_records, spans_of
from alif_jax.data.tfrecord import Record
from alif_jax.tokenizer import Message, Tokenizer, load_tokenizer, read_template
from tests import tiny

BOS, EOS, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|end_of_turn|>"

LLAMA3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role not in ('user', 'assistant') %}
        {{- raise_exception('roles are user and assistant') }}
    {%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# What other published templates use: blocks on lines of their own, loops that break, JSON, TRL's marks, a look at absent tools.
FEATURES = """{{ bos_token }}
{% if tools is not none %}
    {{ tools | tojson }}
{% endif %}
{% for message in messages %}
    {% if message['role'] == 'stop' %}
        {% break %}
    {% endif %}
    {% if message['role'] == 'assistant' %}
        {% generation %}{{ message['content'] }}<|eot_id|>{% endgeneration %}
    {% else %}
{{ message | tojson }}
    {% endif %}
{% endfor %}"""
SPECIAL = {LLAMA3: ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), CHATML: ("<|im_start|>", "<|im_end|>")}

CHAT: list[Message] = [{"role": "user", "content": "سلام"}, {"role": "assistant", "content": "وعلیکم السلام"}]
LONG: list[Message] = [
    {"role": "system", "content": "آپ ایک مددگار ہیں۔ "},
    *CHAT,
    {"role": "user", "content": "پانی\nکہاں <ہے> & 'کیوں'؟"},
    {"role": "assistant", "content": "یہاں\n\nہے۔"},
]


def make(directory: Path, template: str | None = None, special: Sequence[str] = ()) -> str:
    core = tiny.train_tokenizer()
    core.add_special_tokens(list(special))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token="<|pad|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer directory without a chat template."""
    return make(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def turns(plain: str) -> Tokenizer:
    return load_tokenizer(plain, "turns")


def record(content: str | list[Message], **fields: Any) -> Record:
    values: dict[str, Any] = {"id": "1", "source": "s", "task": "t", "language": "ur", "text": None, "messages": None, "meta": {}}
    values |= {"text": content} if isinstance(content, str) else {"messages": content}
    return Record(**(values | fields))


def encode(content: str | list[Message], tokenizer: Tokenizer, **config: Any) -> Examples:
    return encode_records([record(content)], tokenizer, DataConfig(**config))


def runs(examples: Examples, tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """The tokens as text, cut where the mask changes: [(trained, text), …]."""
    cuts = [0, *np.flatnonzero(np.diff(examples.trained)) + 1, len(examples.trained)]
    return [
        (bool(examples.trained[a]), tokenizer.core.decode(examples.tokens[a:b].tolist(), skip_special_tokens=False))
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]


# --- rendering


def test_packaged_templates_render_as_transformers_does(plain: str) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(plain)
    for name in ("turns", "alpaca", "plain"):
        ours = load_tokenizer(plain, name)
        for messages in (CHAT, CHAT[:1], LONG, LONG[:2], LONG[:4]):
            for prompt in (False, True):
                expected = theirs.apply_chat_template(
                    messages, chat_template=read_template(name), tokenize=False, add_generation_prompt=prompt
                )
                assert ours.render(messages, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("template", [LLAMA3, CHATML], ids=["llama3", "chatml"])
def test_a_tokenizers_own_template_renders_as_transformers_does(tmp_path: Path, template: str) -> None:
    directory = make(tmp_path, template, SPECIAL[template])
    ours, theirs = load_tokenizer(directory), transformers.AutoTokenizer.from_pretrained(directory)
    for messages in (CHAT, CHAT[:1], LONG, LONG[:2], LONG[:4]):
        for prompt in (False, True):
            text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            assert ours.render(messages, add_generation_prompt=prompt) == text
            ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
            assert ours.encode(text) == ids and text.count(BOS) == (template is LLAMA3)


def test_what_else_published_templates_use(tmp_path: Path) -> None:
    directory = make(tmp_path, FEATURES, ["<|eot_id|>"])
    ours, theirs = load_tokenizer(directory), transformers.AutoTokenizer.from_pretrained(directory)
    for messages in (LONG, [*LONG, {"role": "stop", "content": ""}, *CHAT]):
        assert ours.render(messages, add_generation_prompt=False) == theirs.apply_chat_template(messages, tokenize=False)


def test_template_from_tokenizer_config_or_from_a_file(tmp_path: Path) -> None:
    import json

    directory = make(tmp_path, CHATML, SPECIAL[CHATML])
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "chat_template.jinja").rename(tmp_path / "elsewhere.jinja")
    assert load_tokenizer(directory, str(tmp_path / "elsewhere.jinja")).template == CHATML
    assert load_tokenizer(directory).template is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": CHATML}))
    assert load_tokenizer(directory).template == CHATML


def test_template_errors(tmp_path: Path, plain: str) -> None:
    with pytest.raises(UsageError, match="'alpacca': neither a file nor one of alpaca, .*turns"):
        load_tokenizer(plain, "alpacca")
    with pytest.raises(UsageError, match="no chat template; set config.data.template"):
        encode(CHAT, load_tokenizer(plain))
    tokenizer = load_tokenizer(make(tmp_path, LLAMA3, SPECIAL[LLAMA3]))
    with pytest.raises(UsageError, match="refuses these messages: roles are user and assistant"):
        tokenizer.render([*CHAT, *LONG], add_generation_prompt=False)


HEADER = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
PUBLISHED = "{}\n\n### Instruction:\n{}\n\n### Response:\n{}" + EOS  # Alif's training prompt; OpenOrca's rows have their own header


@pytest.mark.parametrize("instruction", ["پانی کے فائدے لکھیں۔", "  فاصلے\n\nاور سطریں \n"])
def test_alpaca_is_the_published_prompt(plain: str, instruction: str) -> None:
    tokenizer = load_tokenizer(plain, "alpaca")
    answer = " جواب۔\n"
    turn: list[Message] = [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]
    assert tokenizer.render(turn, add_generation_prompt=False) == BOS + PUBLISHED.format(HEADER, instruction, answer)
    prompt = tokenizer.render(turn[:1], add_generation_prompt=True)
    assert prompt + answer + EOS == BOS + PUBLISHED.format(HEADER, instruction, answer)
    header = "You are an AI assistant. Think step by step."
    orca: list[Message] = [{"role": "system", "content": header}, *turn]
    assert tokenizer.render(orca, add_generation_prompt=False) == BOS + PUBLISHED.format(header, instruction, answer)
    assert tokenizer.turn_end_token == EOS and tokenizer.stop_ids == (1,)


# --- stop tokens


@pytest.mark.parametrize(("template", "stop"), [(LLAMA3, "<|eot_id|>"), (CHATML, "<|im_end|>")], ids=["llama3", "chatml"])
def test_the_turns_end_is_a_stop_token(tmp_path: Path, template: str, stop: str) -> None:
    tokenizer = load_tokenizer(make(tmp_path, template, SPECIAL[template]))
    assert tokenizer.turn_end_token == stop
    assert set(tokenizer.stop_ids) == {tokenizer.eos_id, tokenizer.core.token_to_id(stop)}
    assert tokenizer.pad_id == 2


def test_a_template_without_a_stop_token_does_not_make_bos_one(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    tokenizer = load_tokenizer(make(tmp_path, template))
    assert tokenizer.turn_end_token is None and tokenizer.stop_ids == (tokenizer.eos_id,)


# --- masks


def test_mask_token_by_token(turns: Tokenizer) -> None:
    bos, user, assistant, turn = (turns.core.token_to_id(t) for t in (BOS, "<|user|>", "<|assistant|>", TURN))
    question, answer, newline = (turns.encode(text) for text in ("سلام", "وعلیکم السلام", "\n"))
    examples = encode(CHAT, turns)
    expected = [
        (bos, False), (user, False), *((t, False) for t in newline + question), (turn, False),
        (assistant, False), *((t, False) for t in newline), *((t, True) for t in answer), (turn, True),
    ]  # fmt: skip
    assert list(zip(examples.tokens.tolist(), examples.trained.tolist(), strict=True)) == expected
    assert examples.tokens.dtype == np.int32 and examples.lengths.tolist() == [len(expected)]
    assert examples.ids == ["1"] and examples.groups == [{"source": "s", "task": "t", "language": "ur"}]


def test_the_docstrings_example(turns: Tokenizer) -> None:
    text, [(begin, end)] = spans_of(CHAT, turns)
    assert text[begin:end] == "وعلیکم السلام<|end_of_turn|>" and text.endswith("<|assistant|>\n" + text[begin:end])


def test_multi_turn(turns: Tokenizer) -> None:
    assert runs(encode(LONG, turns), turns) == [
        (False, f"{BOS}<|system|>\nآپ ایک مددگار ہیں۔ {TURN}<|user|>\nسلام{TURN}<|assistant|>\n"),
        (True, f"وعلیکم السلام{TURN}"),
        (False, f"<|user|>\nپانی\nکہاں <ہے> & 'کیوں'؟{TURN}<|assistant|>\n"),
        (True, f"یہاں\n\nہے۔{TURN}"),
    ]


def test_chatml_newline_after_the_stop_token_is_not_trained(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make(tmp_path, CHATML, SPECIAL[CHATML]))
    assert runs(encode(LONG[1:], tokenizer), tokenizer) == [
        (False, "<|im_start|>user\nسلام<|im_end|>\n<|im_start|>assistant\n"),
        (True, "وعلیکم السلام<|im_end|>"),
        (False, "\n<|im_start|>user\nپانی\nکہاں <ہے> & 'کیوں'؟<|im_end|>\n<|im_start|>assistant\n"),
        (True, "یہاں\n\nہے۔<|im_end|>"),
        (False, "\n"),
    ]


def test_llama3_like(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make(tmp_path, LLAMA3, SPECIAL[LLAMA3]))
    trained = [text for mask, text in runs(encode(LONG, tokenizer), tokenizer) if mask]
    assert trained == ["وعلیکم السلام<|eot_id|>", "یہاں\n\nہے۔<|eot_id|>"]


def test_alpaca_mask(plain: str) -> None:
    tokenizer = load_tokenizer(plain, "alpaca")
    assert runs(encode(CHAT, tokenizer), tokenizer) == [
        (False, f"{BOS}{HEADER}\n\n### Instruction:\nسلام\n\n### Response:\n"),
        (True, f"وعلیکم السلام{EOS}"),
    ]


def test_plain_mask(plain: str) -> None:
    tokenizer = load_tokenizer(plain, "plain")
    assert runs(encode(CHAT, tokenizer), tokenizer) == [(False, f"{BOS}سلام\n"), (True, f"وعلیکم السلام{EOS}")]


def test_loss_on_all(turns: Tokenizer, plain: str, tmp_path: Path) -> None:
    assert encode(LONG, turns, loss_on="all").trained.all()
    assert encode(CHAT, load_tokenizer(plain, "alpaca"), loss_on="all").trained.all()
    chatml = load_tokenizer(make(tmp_path, CHATML, SPECIAL[CHATML]))
    [(mask, text), rest] = runs(encode(CHAT, chatml, loss_on="all"), chatml)
    assert mask and text.endswith("<|im_end|>") and rest == (False, "\n")


def test_loss_on_all_of_a_template_without_stop_tokens(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    tokenizer = load_tokenizer(make(tmp_path, template))
    [(mask, text)] = runs(encode(CHAT, tokenizer, loss_on="all"), tokenizer)
    assert mask and text == f"{BOS}user: سلام\nassistant: وعلیکم السلام\n"


def test_a_template_that_changes_earlier_turns_is_an_error(tmp_path: Path) -> None:
    """As Qwen3's, which drops the reasoning of all answers but the last."""
    template = (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
        "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
        "{% else %}{{ message['content'] }}{% endif %}{{ '<|end_of_turn|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = load_tokenizer(make(tmp_path, template))
    thinking = [*LONG[:2], {"role": "assistant", "content": "<think>سوچ</think>جواب"}, *LONG[3:]]
    with pytest.raises(UsageError, match=r"changes earlier turns .*\(turn 2\).*data.loss_on=all"):
        encode(thinking, tokenizer)
    assert encode(thinking, tokenizer, loss_on="all").trained.all()
    assert encode(LONG, tokenizer).trained.any()  # nothing is dropped here


def test_a_conversation_that_the_assistant_opens(turns: Tokenizer, tmp_path: Path) -> None:
    """Then the template is rendered without any message, on which many fail (`messages[0]`)."""
    chat: list[Message] = [{"role": "assistant", "content": "سلام"}, *CHAT]
    assert [text for mask, text in runs(encode(chat, turns), turns) if mask] == [f"سلام{TURN}", f"وعلیکم السلام{TURN}"]
    llama3 = load_tokenizer(make(tmp_path, LLAMA3, SPECIAL[LLAMA3]))
    with pytest.raises(UsageError):
        encode(chat, llama3)


# --- documents


def test_documents_stand_between_bos_and_eos(turns: Tokenizer) -> None:
    examples = encode("ایک دستاویز۔\n", turns)
    assert runs(examples, turns) == [(True, f"{BOS}ایک دستاویز۔\n{EOS}")]
    assert examples.tokens[0] == turns.bos_id and examples.tokens[-1] == turns.eos_id


def test_a_tokenizer_without_bos(tmp_path: Path) -> None:
    core = tiny.train_tokenizer()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.bos_id is None and runs(encode("دستاویز", tokenizer), tokenizer) == [(True, f"دستاویز{EOS}")]


def test_title_template(turns: Tokenizer) -> None:
    config = DataConfig(document_template="### عنوان:\n{title}\n\n{text}", loss_on="responses")
    records = [record("متن {text} 1", meta={"title": "پانی {x}"}), record("متن 2")]
    examples = encode_records(records, turns, config)
    text = turns.core.decode(examples.tokens.tolist(), skip_special_tokens=False)
    assert text == f"{BOS}### عنوان:\nپانی {{x}}\n\nمتن {{text}} 1{EOS}{BOS}### عنوان:\n\n\nمتن 2{EOS}"
    assert examples.trained.all()


def test_a_title_template_with_an_unknown_name(turns: Tokenizer) -> None:
    with pytest.raises(UsageError, match="document_template"):
        config = DataConfig(document_template="{headline}: {text}")
        config.validate()
        encode_records([record("متن")], turns, config)


# --- too long

DOCUMENT = " ".join(f"{word} {i}" for i, word in enumerate(tiny.WORDS * 3))


def test_split_or_cut_documents(turns: Tokenizer) -> None:
    whole = encode(DOCUMENT, turns, sequence_length=10_000)
    n = len(whole.tokens)
    split = encode(DOCUMENT, turns, sequence_length=50)
    assert np.array_equal(split.tokens, whole.tokens) and split.trained.all()  # consecutive, nothing lost
    assert split.lengths.tolist() == [50] * (n // 50) + ([n % 50] if n % 50 else [])
    assert split.shortened == {"s": 1} and split.ids == ["1"] * len(split.lengths)
    assert abs(int(split.text_bytes.sum()) - int(whole.text_bytes.sum())) <= 20 * len(split.ids)  # a piece's first token

    cut = encode(DOCUMENT, turns, sequence_length=50, long_documents="cut")
    assert np.array_equal(cut.tokens, whole.tokens[:50]) and cut.lengths.tolist() == [50] and cut.shortened == {"s": 1}
    exact = encode(DOCUMENT, turns, sequence_length=n)
    assert exact.lengths.tolist() == [n] and exact.shortened == {}


def test_a_last_piece_of_one_token_is_left_out(turns: Tokenizer) -> None:
    """It has no target of its own: its only token is in no row's `targets`."""
    n = len(encode(DOCUMENT, turns, sequence_length=10_000).tokens)
    assert encode(DOCUMENT, turns, sequence_length=n - 1).lengths.tolist() == [n - 1]


def test_drop_or_cut_conversations(turns: Tokenizer) -> None:
    long: list[Message] = [{"role": "user", "content": "سوال"}, {"role": "assistant", "content": DOCUMENT}]
    records = [record(CHAT, id="short"), record(long, id="long", source="w"), record(DOCUMENT, id="text", source="w")]
    dropped = encode_records(records, turns, DataConfig(sequence_length=64, long_documents="cut"))
    assert dropped.ids == ["short", "text"] and dropped.shortened == {"w": 2}
    cut = encode_records(records, turns, DataConfig(sequence_length=64, long_documents="cut", long_conversations="cut"))
    assert cut.ids == ["short", "long", "text"] and cut.lengths[1] == 64 and cut.shortened == {"w": 2}
    nothing = encode(long, turns, sequence_length=64)
    assert nothing.ids == [] and nothing.shortened == {"s": 1}
    n = len(encode(CHAT, turns).tokens)
    assert encode(CHAT, turns, sequence_length=n).lengths.tolist() == [n]  # just long enough is not too long


def test_a_cut_that_leaves_nothing_trained_drops_the_example(turns: Tokenizer) -> None:
    long: list[Message] = [{"role": "user", "content": DOCUMENT}, {"role": "assistant", "content": "جواب"}]
    records = [record(CHAT, id="short"), record(long, id="long")]
    examples = encode_records(records, turns, DataConfig(sequence_length=64, long_conversations="cut"))
    assert examples.ids == ["short"] and examples.shortened == {"s": 1}


def test_text_bytes_are_those_of_the_trained_text(turns: Tokenizer) -> None:
    """Special tokens are no text: their spelling differs between tokenizers, and bits a byte must not."""
    assert encode("اردو abc", turns).text_bytes.tolist() == [len("اردو abc".encode())]
    assert encode(CHAT, turns).text_bytes.tolist() == [len("وعلیکم السلام".encode())]
    cut: list[Message] = [{"role": "user", "content": DOCUMENT[:100]}, {"role": "assistant", "content": "جواب " * 20}]
    whole = encode(cut, turns, sequence_length=10_000)
    half = len(whole.tokens) - int(whole.trained.sum()) // 2
    examples = encode(cut, turns, sequence_length=half, long_conversations="cut")
    text = turns.decode(examples.tokens[examples.trained].tolist())
    assert abs(int(examples.text_bytes[0]) - len(text.encode())) <= 4  # a letter at the cut; shared out by tokens


# --- nothing to train on


@pytest.mark.parametrize("messages", [CHAT[:1], LONG[:2]])
def test_no_trainable_token(turns: Tokenizer, messages: list[Message]) -> None:
    good = record(CHAT)
    bad = record(messages, id="0123abcd", source="imported", task="qa")
    with pytest.raises(UsageError, match=r"record 0123abcd \(imported, qa\) has no token to train on"):
        encode_records([good, bad], turns, DataConfig())
    assert encode(messages, turns, loss_on="all").trained.all()


def test_no_records(turns: Tokenizer) -> None:
    examples = encode_records([], turns, DataConfig(path="mydata"))
    assert examples.ids == [] and len(examples.tokens) == 0 and examples.lengths.tolist() == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss_on", "response"), ("long_documents", "drop"), ("long_conversations", "split"), ("sequence_length", 1)],
)
def test_config_values(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"data\.{key}={value!r}"):
        DataConfig(**{key: value}).validate()  # type: ignore[arg-type]


def test_many_records_keep_their_order(turns: Tokenizer) -> None:
    """More than one batch of tokenisation, documents and conversations mixed."""
    records = [record(f"متن {i}" if i % 3 else CHAT, id=str(i)) for i in range(2500)]
    examples = encode_records(iter(records), turns, DataConfig())
    assert examples.ids == [str(i) for i in range(2500)]
    one = examples.offsets[1234]
    expected = encode_records([records[1234]], turns, DataConfig())
    assert np.array_equal(examples.tokens[one : examples.offsets[1235]], expected.tokens)
    assert np.array_equal(examples.trained[one : examples.offsets[1235]], expected.trained)
