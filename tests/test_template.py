"""Records → tokens and flags: masks written out by hand, by transformers' own mask, and by a search in the text."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from alif_jax import UsageError
from alif_jax.chat_template import BEGIN, packaged_templates, portable
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig, Encoded, encode_batch, response_spans
from alif_jax.data.tfrecord import Record
from alif_jax.tokenizer import Message, Tokenizer, load_tokenizer
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

THINKING: list[Message] = [
    *LONG[:2],
    {"role": "assistant", "content": "<think>\nسوچ\n</think>\n\nجواب"},
    LONG[3],
    {"role": "assistant", "content": "<think>بس</think>جواب"},
]
REPEATED: list[Message] = [{"role": role, "content": "سلام"} for role in ("user", "assistant", "user", "assistant")]
CHAT_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")


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


def encode(content: str | list[Message], tokenizer: Tokenizer, language: str = "ur", **config: Any) -> Encoded:
    [encoded] = encode_batch([record(content, language=language)], tokenizer, DataConfig(**config))
    return encoded


def trained(encoded: Encoded) -> np.ndarray:
    return (encoded.flags & FLAG_TRAINED) > 0


def responses(encoded: Encoded) -> np.ndarray:
    return (encoded.flags & FLAG_RESPONSE) > 0


def runs(encoded: Encoded, tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """The tokens as text, cut where the mask changes: [(trained, text), …]."""
    mask = trained(encoded)
    cuts = [0, *np.flatnonzero(np.diff(mask)) + 1, len(mask)]
    return [
        (bool(mask[a]), tokenizer.core.decode(encoded.ids[a:b].tolist(), skip_special_tokens=False))
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]


# --- rendering


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
    encoded = encode(CHAT, turns)
    expected = [
        (bos, False), (user, False), *((t, False) for t in newline + question), (turn, False),
        (assistant, False), *((t, False) for t in newline), *((t, True) for t in answer), (turn, True),
    ]  # fmt: skip
    assert list(zip(encoded.ids.tolist(), trained(encoded).tolist(), strict=True)) == expected
    assert encoded.ids.dtype == np.int32 and encoded.flags.dtype == np.uint8
    assert np.array_equal(trained(encoded), responses(encoded))


def test_the_docstrings_example(turns: Tokenizer) -> None:
    text = turns.render(CHAT, add_generation_prompt=False)
    [(begin, end)] = response_spans(text, CHAT, turns)
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
    everything, answers = encode(LONG, turns, loss_on="all"), encode(LONG, turns)
    assert trained(everything).all() and np.array_equal(everything.ids, answers.ids)
    assert np.array_equal(responses(everything), responses(answers)) and not responses(everything).all()
    assert trained(encode(CHAT, load_tokenizer(plain, "alpaca"), loss_on="all")).all()
    chatml = load_tokenizer(make(tmp_path, CHATML, SPECIAL[CHATML]))
    [(mask, text), rest] = runs(encode(CHAT, chatml, loss_on="all"), chatml)
    assert mask and text.endswith("<|im_end|>") and rest == (False, "\n")


def test_loss_on_all_of_a_template_without_stop_tokens(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    tokenizer = load_tokenizer(make(tmp_path, template))
    encoded = encode(CHAT, tokenizer, loss_on="all")
    assert runs(encoded, tokenizer) == [(True, f"{BOS}user: سلام\nassistant: وعلیکم السلام\n")]
    answer = encoded.ids[responses(encoded)].tolist()
    assert tokenizer.core.decode(answer) == "assistant: وعلیکم السلام\n"


def test_a_template_that_changes_earlier_turns_is_an_error(tmp_path: Path) -> None:
    """As Qwen3's, which drops the reasoning of all answers but the last; but written so that no template of ours helps."""
    template = (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
        "{% if message['role'] == 'assistant' and not loop.last %}{{ message['content'].split('</think>')[-1] }}"
        "{% else %}{{ message['content'] }}{% endif %}{{ '<|end_of_turn|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    tokenizer = load_tokenizer(make(tmp_path, template))
    with pytest.raises(UsageError, match=r"record 1 \(s\): .*changes earlier turns .*\(turn 2\).*data.loss_on=all"):
        encode(THINKING, tokenizer)
    encoded = encode(THINKING, tokenizer, loss_on="all")
    assert trained(encoded).all() and not responses(encoded).any()  # nobody can tell, so it is never truncated
    assert trained(encode(LONG, tokenizer)).any()  # nothing is dropped here


# --- {% generation %}


def marks(directory: str, source: str, messages: Sequence[Message]) -> list[int]:
    """transformers' own mask of the tokens inside `{% generation %}`."""
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    output = theirs.apply_chat_template(messages, chat_template=source, return_dict=True, return_assistant_tokens_mask=True)
    return output["assistant_masks"]


@pytest.mark.parametrize("name", ["llama3", "llama3_1", "chatml", "qwen2", "qwen2_5", "qwen3", "mistral_v02", "mistral_v03"])
@pytest.mark.parametrize("chat", ["CHAT", "LONG", "THINKING", "REPEATED"])
def test_masks_of_a_foreign_template_by_ours(tmp_path: Path, name: str, chat: str) -> None:
    """The tokenizer's template has no `{% generation %}`; ours, which has it, is read by transformers too."""
    messages = globals()[chat]
    tagged = packaged_templates()[name]
    directory = make(tmp_path, portable(tagged), CHAT_TOKENS)
    tokenizer = load_tokenizer(directory)
    encoded = encode(messages, tokenizer)
    assert trained(encoded).astype(int).tolist() == marks(directory, tagged, messages)
    assert tokenizer.template == portable(tagged)  # what is exported stays the tokenizer's own
    stop = tokenizer.core.token_to_id(tokenizer.turn_end_token or "")
    assert (encoded.ids[trained(encoded)] == stop).sum() == sum(message["role"] == "assistant" for message in messages)


def test_qwen3_multi_turn(tmp_path: Path) -> None:
    """Its template drops the thoughts of earlier answers, so that no rendering of a part is a prefix of the whole."""
    original = portable(packaged_templates()["qwen3"])
    tokenizer = load_tokenizer(make(tmp_path, original, CHAT_TOKENS))
    text = tokenizer.render(THINKING, add_generation_prompt=False)
    assert not text.startswith(tokenizer.render(THINKING[:3], add_generation_prompt=False))
    header, stop = "<|im_start|>assistant\n", "<|im_end|>"
    turns = re.findall(f"(?<={re.escape(header)}).*?{re.escape(stop)}", text, re.DOTALL)  # the second way
    assert turns == ["جواب<|im_end|>", "<think>\nبس\n</think>\n\nجواب<|im_end|>"]
    for messages in (THINKING, LONG):
        text = tokenizer.render(messages, add_generation_prompt=False)
        turns = re.findall(f"(?<={re.escape(header)}).*?{re.escape(stop)}", text, re.DOTALL)
        assert [part for mask, part in runs(encode(messages, tokenizer), tokenizer) if mask] == turns
    without_help = load_tokenizer(tokenizer.directory)
    without_help._marked = ()
    with pytest.raises(UsageError, match="changes earlier turns"):
        encode(LONG, without_help)


def test_a_templates_own_generation_blocks(tmp_path: Path) -> None:
    """Even where they say something else than the generation prompt: here only the last answer is marked."""
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
        "{% if loop.last and m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end_of_turn|>{% endgeneration %}"
        "{% else %}{{ m['content'] }}<|end_of_turn|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    directory = make(tmp_path, template)
    tokenizer = load_tokenizer(directory)
    assert tokenizer.template == template
    encoded = encode(REPEATED, tokenizer)
    assert trained(encoded).astype(int).tolist() == marks(directory, template, REPEATED)
    assert [text for mask, text in runs(encoded, tokenizer) if mask] == [f"سلام{TURN}"]


def test_a_template_of_ours_that_differs_on_this_conversation_does_not_count(tmp_path: Path) -> None:
    """Both print the same where no space stands around a question."""
    template = portable(packaged_templates()["chatml"]).replace("{{- message['content'] +", "{{- message['content'] | trim +")
    tokenizer = load_tokenizer(make(tmp_path, template, CHAT_TOKENS))
    assert packaged_templates()["chatml"] in tokenizer.marked_templates()
    chat: list[Message] = [{"role": "user", "content": "   سلام   "}, CHAT[1]]
    assert [text for mask, text in runs(encode(chat, tokenizer), tokenizer) if mask] == ["وعلیکم السلام<|im_end|>"]


GENERATION = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|assistant|>"
    "{% else %}BLOCK{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("after", ["<|end_of_turn|>", "<|end_of_turn|>\n"])
def test_a_stop_token_right_after_the_block_is_trained(tmp_path: Path, after: str) -> None:
    """Such templates are published, and a model that is trained on them by the block alone never stops."""
    block = "{% generation %}{{ m['content'] }}{% endgeneration %}{{ '" + after.replace("\n", "\\n") + "' }}"
    tokenizer = load_tokenizer(make(tmp_path, GENERATION.replace("BLOCK", block)))
    assert [text for mask, text in runs(encode(LONG[1:], tokenizer), tokenizer) if mask] == [
        f"وعلیکم السلام{TURN}",
        f"یہاں\n\nہے۔{TURN}",
    ]


def test_a_block_without_its_stop_token_is_an_error(tmp_path: Path) -> None:
    block = "{% generation %}{{ m['content'] }}{% endgeneration %} <|end_of_turn|>"
    tokenizer = load_tokenizer(make(tmp_path, GENERATION.replace("BLOCK", block)))
    with pytest.raises(UsageError, match=r"record 1 .*leaves out the stop token <\|end_of_turn\|>.*never learns to stop"):
        encode(CHAT, tokenizer)


def test_text_with_our_marks_is_refused(turns: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"record 1 \(s\): the text has U\+FDD0"):
        encode([CHAT[0], {"role": "assistant", "content": f"جی{BEGIN}"}], turns)


# --- X-Instruction


def test_x_instruction_names_the_records_language(plain: str) -> None:
    tokenizer = load_tokenizer(plain, "x_instruction")
    for language, suffix in {"ur": " Answer in Urdu. ", "fi": " Answer in Finnish. ", "": ""}.items():
        encoded = encode(CHAT, tokenizer, language=language)
        assert runs(encoded, tokenizer) == [
            (False, f"{BOS}{HEADER}\n\n### Instruction:\nسلام{suffix}\n\n### Response:"),
            (True, f"وعلیکم السلام{EOS}"),
        ]
    with pytest.raises(UsageError, match=r"record 1 \(s\): the template writes the language, and language='tlh'"):
        encode(CHAT, tokenizer, language="tlh")
    assert trained(encode(CHAT, load_tokenizer(plain, "alpaca"), language="tlh")).any()  # who does not write it needs no name


def test_no_token_reaches_from_the_prompt_into_the_answer(tmp_path: Path) -> None:
    """ ":ا" is a token here. Generation tokenises the prompt alone and never makes it; neither may training."""
    core = tiny.train_tokenizer()
    model = json.loads(core.to_str())
    colon, letter = core.encode(":").tokens[0], core.encode("ا").tokens
    assert len(letter) == 1 and len(core.encode("ا:").tokens) == 2
    model["model"]["vocab"][colon + letter[0]] = len(model["model"]["vocab"])
    model["model"]["merges"].append([colon, letter[0]])
    model["pre_tokenizer"]["use_regex"] = False  # as Llama 3's, which lets a mark before a word be part of it
    core = type(core).from_str(json.dumps(model))
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path), "x_instruction")
    assert tokenizer.core.encode("Response:ا").tokens[-1].startswith(colon)
    chat: list[Message] = [CHAT[0], {"role": "assistant", "content": "ا"}]
    prompt = tokenizer.encode(tokenizer.render(chat[:1], add_generation_prompt=True, language="Urdu"))
    for loss_on in ("responses", "all"):
        encoded = encode(chat, tokenizer, loss_on=loss_on)
        assert encoded.ids[: len(prompt)].tolist() == prompt
        assert np.flatnonzero(responses(encoded))[0] == len(prompt)
    assert encode(chat, tokenizer).text_bytes == len("ا".encode())


# --- the assistant speaks first


def test_a_conversation_that_the_assistant_opens(turns: Tokenizer, tmp_path: Path) -> None:
    chat: list[Message] = [{"role": "assistant", "content": "سلام"}, *CHAT]
    assert [text for mask, text in runs(encode(chat, turns), turns) if mask] == [f"سلام{TURN}", f"وعلیکم السلام{TURN}"]
    llama3 = load_tokenizer(make(tmp_path, LLAMA3, SPECIAL[LLAMA3]))
    assert [text for mask, text in runs(encode(chat, llama3), llama3) if mask] == ["سلام<|eot_id|>", "وعلیکم السلام<|eot_id|>"]
    llama3._marked = ()  # turn by turn, the template is rendered without any message, on which it fails (`messages[0]`)
    with pytest.raises(UsageError, match="record 1 "):
        encode(chat, llama3)


# --- documents


def test_documents_stand_between_bos_and_eos(turns: Tokenizer) -> None:
    encoded = encode("ایک دستاویز۔\n", turns)
    assert runs(encoded, turns) == [(True, f"{BOS}ایک دستاویز۔\n{EOS}")]
    assert encoded.ids[0] == turns.bos_id and encoded.ids[-1] == turns.eos_id
    assert responses(encoded).all()


def test_a_tokenizer_without_bos(tmp_path: Path) -> None:
    core = tiny.train_tokenizer()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.bos_id is None and runs(encode("دستاویز", tokenizer), tokenizer) == [(True, f"دستاویز{EOS}")]
    assert len(encode("", tokenizer).ids) == 1  # EOS alone: nothing comes before it, and fit.py refuses it


def test_title_template(turns: Tokenizer) -> None:
    config = DataConfig(document_template="### عنوان:\n{title}\n\n{text}", loss_on="responses")
    records = [record("متن {text} 1", meta={"title": "پانی {x}"}), record("متن 2")]
    texts = [turns.core.decode(encoded.ids.tolist(), skip_special_tokens=False) for encoded in encode_batch(records, turns, config)]
    assert texts == [f"{BOS}### عنوان:\nپانی {{x}}\n\nمتن {{text}} 1{EOS}", f"{BOS}### عنوان:\n\n\nمتن 2{EOS}"]


def test_a_title_template_with_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="document_template"):
        DataConfig(document_template="{headline}: {text}").validate()


def test_text_bytes_are_those_of_the_trained_text(turns: Tokenizer) -> None:
    """Special tokens are no text: their spelling differs between tokenizers, and bits a byte must not."""
    assert encode("اردو abc", turns).text_bytes == len("اردو abc".encode())
    assert encode(CHAT, turns).text_bytes == len("وعلیکم السلام".encode())
    answers = "".join(message["content"] for message in LONG if message["role"] == "assistant")
    assert encode(LONG, turns).text_bytes == len(answers.encode())
    roles = "\n" * len(CHAT)
    assert encode(CHAT, turns, loss_on="all").text_bytes == len("".join([roles, *(m["content"] for m in CHAT)]).encode())


# --- nothing to train on


@pytest.mark.parametrize("messages", [CHAT[:1], LONG[:2]])
def test_no_trainable_token(turns: Tokenizer, messages: list[Message]) -> None:
    """Encoded without a flag, so that fit.py can count all there are before it refuses them."""
    good, bad = encode_batch([record(CHAT), record(messages)], turns, DataConfig())
    assert trained(good).any() and len(bad.ids) and not trained(bad).any()
    assert trained(encode(messages, turns, loss_on="all")).all()


def test_no_records(turns: Tokenizer) -> None:
    assert encode_batch([], turns, DataConfig()) == []


def test_many_records_keep_their_order(turns: Tokenizer) -> None:
    """Documents and conversations mixed; a record's tokens do not depend on its neighbours."""
    records = [record(f"متن {i}" if i % 3 else CHAT, id=str(i)) for i in range(300)]
    for i, encoded in enumerate(encode_batch(records, turns, DataConfig())):
        [alone] = encode_batch([records[i]], turns, DataConfig())
        assert np.array_equal(alone.ids, encoded.ids) and np.array_equal(alone.flags, encoded.flags)


# --- stopping


@pytest.mark.parametrize("template", ["turns", "alpaca", "plain", "llama3", "chatml", "qwen3", "mistral_v03", "x_instruction"])
def test_every_answer_ends_in_a_trained_stop_token_and_padding_is_none(tmp_path: Path, template: str) -> None:
    """What users meet as a model that never stops: padding equal to EOS and masked, or a stop token left out of the loss."""
    tokenizer = load_tokenizer(make(tmp_path, None, CHAT_TOKENS), template)
    encoded = encode(CHAT, tokenizer)
    last = np.flatnonzero(trained(encoded))[-1]
    assert int(encoded.ids[last]) in tokenizer.stop_ids
    assert tokenizer.pad_id is not None and tokenizer.pad_id not in tokenizer.stop_ids and tokenizer.pad_id != tokenizer.eos_id
    document = encode("متن", tokenizer)
    assert document.ids[-1] == tokenizer.eos_id and trained(document)[-1]


# --- config


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("loss_on", "response"), ("long_documents", "drop"), ("long_conversations", "cut"), ("long_conversations", "split"),
        ("sequence_length", 1), ("workers", -1),
    ],
)  # fmt: skip
def test_config_values(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"data\.{key}={value!r}"):
        DataConfig(**{key: value}).validate()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"weights": (1.0,)}, r"data\.weights=.*1 values for 2 sources"),
        ({"substitute": (0, 1, 2)}, r"data\.substitute=.*3 values for 2 sources"),
        ({"weights": (1.0, 0.0)}, r"data\.weights=.*above 0"),
        ({"weights": (1.0, float("nan"))}, r"data\.weights=.*above 0"),
        ({"weights": (1.0, 1.0), "max_epochs": (1.0, -1.0)}, r"data\.max_epochs=.*above 0"),
        ({"max_epochs": (1.0, 1.0)}, "set data.weights too"),
        ({"weights": (1.0, 2.0), "substitute": (0, 3)}, "exclude each other"),
        ({"substitute": (3, 3)}, r"data\.substitute=.*0 for the first"),
        ({"substitute": (0, -3)}, r"data\.substitute=.*0 for the first"),
        ({"path": ("a", "")}, "empty directory name"),
    ],
)
def test_config_of_several_sources(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        DataConfig(**({"path": ("a", "b")} | fields)).validate()


def test_valid_configs() -> None:
    DataConfig().validate()
    DataConfig(path=("a", "b"), weights=(3, 0.5), max_epochs=(1.5, 4)).validate()
    DataConfig(path=("a", "b"), substitute=(0, 40), long_conversations="truncate_response").validate()
