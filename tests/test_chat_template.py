"""The packaged templates against transformers and against what the published ones print; marks; languages; dates."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import transformers

from alif_jax import UsageError
from alif_jax.chat_template import BEGIN, END, cut_marks, has_marks, packaged_templates, portable, read_template, render_template
from alif_jax.languages import english_name
from alif_jax.tokenizer import Message, load_tokenizer
from tests import tiny

BOS, EOS = tiny.SPECIAL[:2]
# Rendered by transformers 5.23 with the templates of those models. Our own templates are other text and must print the same.
PUBLISHED = json.loads((Path(__file__).parent / "data" / "published_renderings.json").read_text(encoding="utf-8"))
CHATS: list[list[Message]] = PUBLISHED["conversations"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def theirs(directory: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(directory)


# --- rendering


@pytest.mark.parametrize("published", PUBLISHED["published"], ids=lambda published: published["model"].split("/")[1][:24])
def test_ours_print_what_the_published_templates_print(directory: str, published: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(directory, published["template"])
    for chat, expected in zip(CHATS, published["texts"], strict=True):
        prompt = chat[-1]["role"] != "assistant"
        if expected is None:
            with pytest.raises(UsageError, match="roles must alternate"):
                tokenizer.render(chat, add_generation_prompt=prompt)
        else:
            assert tokenizer.render(chat, add_generation_prompt=prompt) == expected


@pytest.mark.parametrize("name", packaged_templates())
def test_ours_render_as_transformers_does(directory: str, theirs: Any, name: str) -> None:
    """With and without `{% generation %}`: the one is exported, the other finds the answers."""
    tokenizer, tagged = load_tokenizer(directory, name), packaged_templates()[name]
    rendered = 0
    for chat in CHATS:
        for prompt in (False, True):
            try:
                ours = tokenizer.render(chat, add_generation_prompt=prompt, language="Urdu")
            except UsageError:
                continue
            for source in (tagged, portable(tagged), read_template(name)):
                kwargs = {"chat_template": source, "add_generation_prompt": prompt, "language": "Urdu"}
                assert theirs.apply_chat_template(chat, tokenize=False, **kwargs) == ours
            rendered += 1
    assert rendered >= 2 and not has_marks(tokenizer.template or "")
    if name != "plain":
        assert tagged in tokenizer.marked_templates()


def test_no_rendering_depends_on_the_day(directory: str, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{{ date_string }}|{{ strftime_now('%Y-%m-%d %A') }}|{{ messages[0]['content'] }}|{{ bos_token }}"
    )
    tokenizer = load_tokenizer(directory, str(tmp_path / "t.jinja"))
    assert tokenizer.render(CHATS[0], add_generation_prompt=False) == f"26 Jul 2024|2024-07-26 Friday|سلام|{BOS}"


def test_a_language_that_is_not_given_is_not_defined(directory: str, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ language if language is defined else '-' }}{{ messages[0]['content'] }}")
    tokenizer = load_tokenizer(directory, str(tmp_path / "t.jinja"))
    assert tokenizer.render(CHATS[0], add_generation_prompt=False) == "-سلام"
    assert tokenizer.render(CHATS[0], add_generation_prompt=False, language="Urdu") == "Urduسلام"


def test_errors_name_the_place(directory: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'alpacca': neither a file nor one of alpaca, .*x_instruction"):
        read_template("alpacca")
    (tmp_path / "t.jinja").write_text("{{ bos_token }}\n{% if %}")
    with pytest.raises(UsageError, match=r"not valid Jinja \(line 2: "):
        load_tokenizer(directory, str(tmp_path / "t.jinja"))
    (tmp_path / "t.jinja").write_text("{{ messages[9]['content'] + '' }}")
    with pytest.raises(UsageError, match="fails on these messages"):
        load_tokenizer(directory, str(tmp_path / "t.jinja"))


# --- X-Instruction

INSTRUCTION, ANSWER = "Give some tips on how to design a trip to New York.", "نیویارک کی سیر کا منصوبہ۔"
# The strings of the authors' utils/inference.py, keys xres_prompt_no_input, xres_aug_prompt_no_input, xins_prompt_no_input.
PROMPTS = {
    "x_instruction": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction} Answer in {output_lang}. \n\n### Response:"
    ),
    "x_instruction_augmented": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction} Answer in {output_lang} and the style of an AI assistant. \n\n### Response:"
    ),
    "x_instruction_generator": (
        "Below is a text that describes a candidate output. "
        "Write an English instruction that can take the given text as an appropriate answer.\n\n"
        "### Text:\n{instruction}\n\n### English Instruction:"
    ),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_x_instruction_is_the_authors_prompt(directory: str, name: str) -> None:
    tokenizer = load_tokenizer(directory, name)
    chat: list[Message] = [{"role": "user", "content": INSTRUCTION}, {"role": "assistant", "content": ANSWER}]
    prompt = BOS + PROMPTS[name].format(instruction=INSTRUCTION, output_lang="Urdu")
    assert tokenizer.render(chat[:1], add_generation_prompt=True, language="Urdu") == prompt
    assert tokenizer.render(chat, add_generation_prompt=False, language="Urdu") == prompt + ANSWER + EOS
    assert tokenizer.uses_language == (name != "x_instruction_generator")
    if tokenizer.uses_language:
        without = tokenizer.render(chat[:1], add_generation_prompt=True)
        assert f"### Instruction:\n{INSTRUCTION}\n\n### Response:" in without
    for refused in ([{"role": "system", "content": "x"}, *chat], [*chat, *chat]):
        with pytest.raises(UsageError, match="refuses these messages: X-Instruction has one"):
            tokenizer.render(refused, add_generation_prompt=False, language="Urdu")


def test_english_names() -> None:
    ten = ["Bengali", "Finnish", "Hindi", "Indonesian", "Swahili", "Tamil", "Thai", "Turkish", "Urdu", "Vietnamese"]
    assert [english_name(code) for code in "bn fi hi id sw ta th tr ur vi".split()] == ten
    assert english_name("ur-Latn") == "Roman Urdu" and english_name("pt-BR") == "Portuguese"
    assert english_name("xx") is None and english_name("") is None


# --- marks


def test_the_docstrings_example() -> None:
    assert cut_marks("a⟦bc⟧d⟦e⟧".replace("⟦", BEGIN).replace("⟧", END)) == ("abcde", [(1, 3), (4, 5)])
    assert cut_marks("") == ("", [])


def test_marks_are_exact_where_transformers_are_not() -> None:
    """In a macro, in a captured block, for repeated and for empty contents."""
    source = (
        "{% macro say(x) %}<a>{% generation %}{{ x }}</a>{% endgeneration %}{% endmacro %}"
        "{% for m in messages %}{{ say(m['content']) }}{% endfor %}"
        "{% set last %}{% generation %}z{% endgeneration %}{% endset %}[{{ last }}]"
    )
    messages = [{"content": "x"}, {"content": ""}, {"content": "x"}]
    text, spans = cut_marks(render_template(source, messages, marked=True))
    assert text == "<a>x</a><a></a><a>x</a>[z]" == render_template(source, messages)
    assert [text[a:b] for a, b in spans] == ["x</a>", "</a>", "x</a>", "z"] and spans[0] != spans[2]


# --- the tokenizer's own knowledge of its template


def test_template_token_ids(directory: str, tmp_path: Path) -> None:
    """What the template writes and no message holds: of embeddings that must have been trained."""
    assert load_tokenizer(directory, "turns").template_token_ids() == (3, 4, 5, 6)
    assert load_tokenizer(directory, "alpaca").template_token_ids() == (1,)
    assert load_tokenizer(directory).template_token_ids() == ()
    core = tiny.train_tokenizer()
    core.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    core.add_tokens(["<think>", "</think>", "<unused>"])
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS).save_pretrained(tmp_path)
    qwen3 = load_tokenizer(str(tmp_path), "qwen3")
    names = [core.id_to_token(i) for i in qwen3.template_token_ids()]
    assert names == ["<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    x_instruction = load_tokenizer(str(tmp_path), "x_instruction")  # one turn only, no system message
    assert x_instruction.template_token_ids() == (1,)


def test_a_tokenizer_travels_to_worker_processes(directory: str) -> None:
    tokenizer = load_tokenizer(directory, "turns")
    tokenizer.marked_templates()
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.render(CHATS[1], add_generation_prompt=True) == tokenizer.render(CHATS[1], add_generation_prompt=True)
    assert again.encode(CHATS[1][0]["content"]) == tokenizer.encode(CHATS[1][0]["content"])
