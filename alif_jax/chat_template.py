"""Chat templates as Jinja: compiled with what transformers gives them, and rendered with or without marks around the answers.

The templates of this package (`templates/NAME.jinja`) carry `{% generation %}` around what the assistant says. A model is trained
and exported with the same text without those tags (`portable`), which every Jinja engine reads; the tagged one finds the answers
in a rendering, also for a foreign template that renders alike. Which spans are trained: data/template.py.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, partial
from importlib import resources
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox

from alif_jax import UsageError
from alif_jax.files import exists, open_file

Span = tuple[int, int]
# Training text must not vary by the day on which it is rendered. This day is what Llama 3.1's template says by itself.
TODAY = datetime(2024, 7, 26)
DATE_STRING = "26 Jul 2024"
BEGIN, END = "\ufdd0", "\ufdd1"  # noncharacters: Unicode keeps them free for use inside a program
TAGS = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}\n?")


def render_template(source: str, messages: Sequence[Mapping[str, str]], *, marked: bool = False, **names: Any) -> str:
    """A conversation as the template writes it; marked: with BEGIN and END around each `{% generation %}` block.

    Raises UsageError where the template is no Jinja, fails, or refuses the messages.
    """
    try:
        return _compile(source, marked).render(messages=list(messages), date_string=DATE_STRING, **names)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the chat template is not valid Jinja (line {error.lineno}: {error.message})") from None
    except jinja2.TemplateError as error:
        raise UsageError(f"the chat template fails on these messages: {error}") from None


def cut_marks(marked: str) -> tuple[str, list[Span]]:
    """The text without marks, and the spans that stood between them; BEGIN written ⟦ and END ⟧:

    "a⟦bc⟧d⟦e⟧"  →  "abcde", [(1, 3), (4, 5)]
    """
    pieces: list[str] = []
    spans: list[Span] = []
    at = begin = 0
    for piece in re.split(f"([{BEGIN}{END}])", marked):
        if piece == BEGIN:
            begin = at
        elif piece == END:
            spans.append((begin, at))
        else:
            pieces.append(piece)
            at += len(piece)
    return "".join(pieces), spans


def has_marks(source: str) -> bool:
    return TAGS.search(source) is not None


def portable(source: str) -> str:
    """One of this package's templates without `{% generation %}`; as their tags all trim on both sides, it prints the same."""
    return TAGS.sub("", source)


def variables(source: str) -> set[str]:
    """Names that a template reads and does not set itself: `messages`, `bos_token`, `language`, …"""
    try:
        return jinja2.meta.find_undeclared_variables(_environment(False).parse(source))
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"the chat template is not valid Jinja (line {error.lineno}: {error.message})") from None


def read_template(name: str) -> str:
    """A template of this package by name, or from a file by path."""
    ours = packaged_templates()
    if name in ours:
        return portable(ours[name])
    if not exists(name):
        raise UsageError(f"data.template={name!r}: neither a file nor one of {', '.join(ours)}")
    with open_file(name, "r") as file:
        return file.read()


@lru_cache
def packaged_templates() -> dict[str, str]:
    """Name → source of `templates/*.jinja`, with their `{% generation %}` tags."""
    files = sorted((resources.files("alif_jax") / "templates").iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".jinja"): file.read_text("utf-8") for file in files if file.name.endswith(".jinja")}


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` prints what is inside."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Marked(_Generation):
    """`{% generation %}` prints what is inside between BEGIN and END; exact for repeated contents, in macros too."""

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        return [_text(BEGIN), *super().parse(parser), _text(END)]


def _text(text: str) -> jinja2.nodes.Node:
    return jinja2.nodes.Output([jinja2.nodes.TemplateData(text)])


@lru_cache(maxsize=64)
def _compile(source: str, marked: bool) -> jinja2.Template:
    return _environment(marked).from_string(source)


@lru_cache
def _environment(marked: bool) -> jinja2.Environment:
    """With the settings and extras that transformers gives to chat templates."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Marked if marked else _Generation]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": TODAY.strftime}
    environment.filters["tojson"] = partial(json.dumps, ensure_ascii=False)
    return environment


def _refuse(message: str) -> None:
    raise UsageError(f"the chat template refuses these messages: {message}")
