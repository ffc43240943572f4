"""A tokenizer with its chat template and special tokens, read from a Hugging Face directory without transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import tokenizers

from alif_jax import UsageError
from alif_jax.chat_template import Span, cut_marks, has_marks, packaged_templates, read_template, render_template, variables
from alif_jax.files import exists, join, open_file, read_json_or

Message = dict[str, str]
PAD_TOKENS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "<unk>")  # taken in this order where a base has no pad token
ANSWER = "و"  # a letter that stands in no template
PROBE: list[Message] = [
    {"role": "system", "content": "0"},
    {"role": "user", "content": "1"},
    {"role": "assistant", "content": ANSWER},
    {"role": "user", "content": "2"},
    {"role": "assistant", "content": ANSWER},
]


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
    _marked: tuple[str, ...] | None = field(default=None, init=False, repr=False)  # what marked_templates found

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

    @property
    def uses_language(self) -> bool:
        """Whether the template writes the language of a record ("Answer in Urdu.")."""
        return self.template is not None and "language" in variables(self.template)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool, language: str | None = None) -> str:
        """The conversation as the model sees it. language: in English ("Urdu"), for templates that write it.

        Raises UsageError where there is no template or it refuses the messages.
        """
        if self.template is None:
            raise UsageError(f"{self.directory}: the tokenizer has no chat template; set config.data.template, or use --raw")
        return self._render(self.template, messages, add_generation_prompt, language)

    def render_marked(self, source: str, messages: Sequence[Message], language: str | None = None) -> tuple[str, list[Span]]:
        """The conversation by a template with `{% generation %}`, and the character spans of what stands in those blocks."""
        return cut_marks(self._render(source, messages, False, language, marked=True))

    def _render(
        self, source: str, messages: Sequence[Message], add_generation_prompt: bool, language: str | None, marked: bool = False
    ) -> str:
        names = {"bos_token": self.bos_token or "", "eos_token": self.eos_token, "tools": None, "documents": None}
        names |= {"language": language} if language else {}
        try:
            return render_template(source, messages, marked=marked, add_generation_prompt=add_generation_prompt, **names)
        except UsageError as error:
            raise UsageError(f"{self.directory}: {error}") from None

    def marked_templates(self) -> tuple[str, ...]:
        """Templates with `{% generation %}` that may tell the answers of this tokenizer's: its own, then those of ours that render
        one question and one answer as it does. On another conversation they may differ: compare the text each time.
        """
        if self._marked is None:
            own = [self.template] if self.template and has_marks(self.template) else []
            ours = [source for source in packaged_templates().values() if has_marks(source) and self._renders_alike(source)]
            self._marked = (*own, *ours)
        return self._marked

    def _renders_alike(self, source: str) -> bool:
        assert self.template is not None
        question = PROBE[1:2], True, "Urdu"
        answer = PROBE[1:3], False, "Urdu"
        try:
            return all(self._render(source, *probe) == self._render(self.template, *probe) for probe in (question, answer))
        except UsageError:
            return False

    def template_token_ids(self) -> tuple[int, ...]:
        """Ids of the added tokens (`<|im_start|>`, `<think>`, …) that the template writes, BOS apart, in order of id."""
        added = self.core.get_added_tokens_decoder().keys() - {self.bos_id}
        return tuple(sorted({id for text in self._probes() for id in self.encode(text) if id in added}))

    def _probes(self) -> Iterator[str]:
        """The renderings that the template allows of PROBE, without its system message, of its first turn; and of their prompts."""
        for messages, prompt in ((m, p) for m in (PROBE, PROBE[1:], PROBE[1:3]) for p in (False, True)):
            try:
                yield self.render(messages[:-1] if prompt else messages, add_generation_prompt=prompt)
            except UsageError:
                continue


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
    text = tokenizer.render(PROBE[1:3], add_generation_prompt=False)
    ids = tokenizer.encode(text[text.rfind(ANSWER) + len(ANSWER) :])
    added = [token for token in map(tokenizer.core.get_added_tokens_decoder().get, ids) if token and token.special]
    return added[-1].content if added else None


def _own_template(directory: str, config: dict[str, Any]) -> str | None:
    path = join(directory, "chat_template.jinja")
    if exists(path):
        with open_file(path, "r") as file:
            return file.read()
    return config.get("chat_template")


def _token_text(value: Any) -> str | None:
    """tokenizer_config.json gives a special token as its text or as {"content": text}."""
    return value["content"] if isinstance(value, dict) else value
