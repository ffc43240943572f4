"""A tokenizer with its chat template and special tokens, read from a Hugging Face directory without transformers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib import resources
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

from alif_jax import UsageError
from alif_jax.files import exists, join, open_file, read_json_or

Message = dict[str, str]
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "<unk>")  # taken in this order where a base has no pad token


@dataclass
class Tokenizer:
    """Text ↔ token ids. template: Jinja source of the chat template, None for a plain base.

    turn_end_token: the special token with which the template ends an assistant's turn. stop_ids: all that end a generation.
    """

    core: tokenizers.Tokenizer
    directory: str
    bos_token: str | None
    eos_token: str
    template: str | None
    pad_id: int | None = None
    turn_end_token: str | None = None
    stop_ids: tuple[int, ...] = ()
    _compiled: Any = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Number of rows an embedding needs: the largest id + 1."""
        return max(self.core.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def bos_id(self) -> int | None:
        return self.core.token_to_id(self.bos_token) if self.bos_token else None

    @property
    def eos_id(self) -> int:
        return self.core.get_vocab(with_added_tokens=True)[self.eos_token]

    def encode(self, text: str) -> list[int]:
        """Ids of exactly this text; special tokens written in it are recognised, none are added."""
        return self.core.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self.core.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.core.decode(list(ids), skip_special_tokens=True)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The conversation as the model sees it. Raises UsageError where there is no template or it refuses the messages."""
        if self.template is None:
            raise UsageError(f"{self.directory}: the tokenizer has no chat template; set config.data.template, or use --raw")
        if self._compiled is None:
            self._compiled = _compile(self.template, self.directory)
        names = {"bos_token": self.bos_token or "", "eos_token": self.eos_token, "tools": None, "documents": None}
        try:
            return self._compiled.render(messages=list(messages), add_generation_prompt=add_generation_prompt, **names)
        except jinja2.TemplateError as error:
            raise UsageError(f"{self.directory}: the chat template fails on these messages: {error}") from None


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what the assistant says; it prints what is inside. Our masks come from `spans_of`."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _compile(template: str, directory: str) -> jinja2.Template:
    """With the settings and extras that transformers gives to chat templates."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"{directory}: the chat template is not valid Jinja (line {error.lineno}: {error.message})") from None


def _refuse(message: str) -> None:
    raise UsageError(f"the chat template refuses these messages: {message}")


def load_tokenizer(directory: str, template: str = "") -> Tokenizer:
    """Reads tokenizer.json and what goes with it.

    template: "" is the tokenizer's own; a name is one of this package's `templates/NAME.jinja`; else a path to a Jinja file.
    """
    path = join(directory, "tokenizer.json")
    with open_file(path) as file:
        try:
            core = tokenizers.Tokenizer.from_buffer(file.read())
        except ValueError as error:
            raise UsageError(f"{path}: not a tokenizer ({error})") from None
    core.no_padding()
    core.no_truncation()
    config = read_json_or(join(directory, "tokenizer_config.json"), {})
    generation = read_json_or(join(directory, "generation_config.json"), {})
    eos = _token_text(config.get("eos_token"))
    if eos is None or core.token_to_id(eos) is None:
        raise UsageError(f"{directory}/tokenizer_config.json: eos_token={eos!r} is not a token of tokenizer.json")
    tokenizer = Tokenizer(
        core=core,
        directory=directory,
        bos_token=_token_text(config.get("bos_token")),
        eos_token=eos,
        template=read_template(template) if template else _own_template(directory, config),
    )
    tokenizer.turn_end_token = _turn_end(tokenizer)
    stop = generation.get("eos_token_id") or []
    turn_end = core.token_to_id(tokenizer.turn_end_token) if tokenizer.turn_end_token else None
    stops = {tokenizer.eos_id, turn_end, *(stop if isinstance(stop, list) else [stop])}
    tokenizer.stop_ids = tuple(sorted(stop for stop in stops if stop is not None))
    pads = (core.token_to_id(token) for token in (_token_text(config.get("pad_token")), *PAD_TOKENS) if token)
    tokenizer.pad_id = next((pad for pad in pads if pad is not None and pad not in tokenizer.stop_ids), None)
    return tokenizer


def _turn_end(tokenizer: Tokenizer) -> str | None:
    """The last special token of a rendered assistant turn: what a model trained on this template stops on."""
    if tokenizer.template is None:
        return None
    answer = "و"  # a letter that stands in no template
    turn = [{"role": "user", "content": "1"}, {"role": "assistant", "content": answer}]
    text = tokenizer.render(turn, add_generation_prompt=False)
    ids = tokenizer.encode(text[text.rfind(answer) + len(answer) :])
    added = [token for token in map(tokenizer.core.get_added_tokens_decoder().get, ids) if token and token.special]
    return added[-1].content if added else None


def read_template(name: str) -> str:
    """A template of this package by name, or from a file by path."""
    packaged = resources.files("alif_jax") / "templates" / f"{name}.jinja"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    if not exists(name):
        names = sorted(p.name.removesuffix(".jinja") for p in (resources.files("alif_jax") / "templates").iterdir())
        raise UsageError(f"data.template={name!r}: neither a file nor one of {', '.join(names)}")
    with open_file(name, "r") as file:
        return file.read()


def _own_template(directory: str, config: dict[str, Any]) -> str | None:
    path = join(directory, "chat_template.jinja")
    if exists(path):
        with open_file(path, "r") as file:
            return file.read()
    return config.get("chat_template")


def _token_text(value: Any) -> str | None:
    """tokenizer_config.json gives a special token as its text or as {"content": text}."""
    return value["content"] if isinstance(value, dict) else value
