"""Models that are not this project's, in lm-evaluation-harness: by transformers, and by an address that answers prompts.

Beside the harness's own requests they tell which answers ended by themselves (`ended`, by context) and how many contexts were cut
(`truncated`), as alif_jax/harness.py does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from data_gen import UsageError
from data_gen.ask import Asker, Model, Question
from data_gen.endpoint import TeacherConfig
from data_gen.journal import open_journal
from data_gen.limits import BudgetReached
from data_gen.progress import show

MAX_GEN_TOKS = 256  # where a task does not say, as in the harness


def transformers_lm(path: str, **settings: Any) -> Any:
    """The harness's Hugging Face backend, on a GPU where there is one. settings: of HFLM (dtype, batch_size, device)."""
    import torch
    from lm_eval.models.huggingface import HFLM

    class TransformersLM(HFLM):
        ended: dict[str, bool]
        truncated: int
        language: str | None
        apart: bool

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            """language: for templates that write it."""
            self.chat_template_args = {"language": self.language} if self.language else {}
            return str(super().apply_chat_template(chat_history, add_generation_prompt))

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            if not self.apart:
                return super()._encode_pair(context, continuation)
            return self.tok_encode(context, False), self.tok_encode(continuation, False)

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            self.truncated += sum(len(before) + len(after) > self.max_length + 1 for _, before, after in requests)
            return super()._loglikelihood_tokens(requests, **kwargs)

        def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
            """An answer shorter than it might be has ended."""
            texts: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm)
            for request, text in zip(requests, texts, strict=True):
                longest = int(normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"])
                self.ended[request.args[0]] = len(self.tok_encode(text, add_special_tokens=False)) < longest
                self.truncated += len(self.tok_encode(request.args[0])) > self.max_length - longest
            return texts

    model = TransformersLM(pretrained=path, **{"device": "cuda" if torch.cuda.is_available() else "cpu"} | settings)
    model.ended, model.truncated, model.language, model.apart = {}, 0, None, False
    return model


def set_template(model: Any, template: str, stop_ids: Sequence[int]) -> None:
    """Another chat template for a model of transformers_lm, and the tokens that end an answer in it."""
    model.tokenizer.chat_template = template
    model.model.generation_config.eos_token_id = list(stop_ids)


@contextmanager
def address_lm(url: str, model: str, output: str, max_cost: float | None, prices: Sequence[float] = ()) -> Iterator["AddressLM"]:
    """A model at an address, its replies kept in the directory `output`. max_cost: US dollars, None for no bound; prices: per
    million tokens in and out.
    """
    config = TeacherConfig(base_url=url, model=model)
    if prices:
        config.input_price, config.output_price = prices
    with open_journal(output) as opened, show() as progress:
        named = Model(f"{model} {url}", model, lambda: url, config, own=not prices)
        yield AddressLM(Asker(opened, progress, max_cost), named)


class AddressLM(LM):
    """A model behind an OpenAI-compatible address: prompts only (`kinds`), through its own chat template.

    Asked by the same client as teachers are, with the journal of `asker`: what was answered is not asked again.
    """

    kinds = ("generate_until",)
    tokenizer_name = ""

    def __init__(self, asker: Asker, model: Model) -> None:
        super().__init__()
        self._asker, self._model = asker, model
        self.ended: dict[str, bool] = {}
        self.unanswered: set[str] = set()  # contexts whose request failed for good
        self.truncated = 0

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history, ensure_ascii=False)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Raises UsageError where more than one request in twenty fails for good, and where the budget is reached; what was
        answered is kept. Of fewer that fail the answer is "", and `unanswered` has their contexts.
        """
        asked = [(request.args[0], self._question(request.args[0], request.args[1])) for request in requests]
        try:
            self._asker.ask(
                self._model, (question for _, question in asked), title="answers", wanted=len(asked), max_errors=0.05, patient=True
            )
        except BudgetReached as stop:
            raise UsageError(f"stopped at the budget: {stop}; the same command with a larger --max_cost goes on") from None
        texts = []
        for request, (context, question) in zip(requests, asked, strict=True):
            answer = self._asker.answer(self._model, question)
            until = [stop for stop in request.args[1].get("until") or [] if stop]
            text = answer.text if answer else ""
            if answer is None:
                self.unanswered.add(context)
            cut = postprocess_generated_text(text, until, None)
            self.ended[context] = answer is not None and (not answer.cut or cut != text)
            texts.append(cut)
        return texts

    def _question(self, context: str, wanted: Mapping[str, Any]) -> Question:
        settings = normalize_gen_kwargs(dict(wanted), MAX_GEN_TOKS)
        fields: dict[str, Any] = {"max_tokens": int(settings["max_gen_toks"]), "temperature": settings.get("temperature", 0.0)}
        until = [stop for stop in wanted.get("until") or [] if stop]
        if until:
            fields["stop"] = until[:4]  # more are refused; the rest is cut here
        return Question(context[:80], tuple(_messages(context)), fields)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise UsageError(f"{self._model.name}: this address answers prompts only and gives no log-likelihoods")

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        raise UsageError(f"{self._model.name}: this address answers prompts only and gives no log-likelihoods")


def _messages(context: str) -> list[dict[str, str]]:
    """What apply_chat_template made, or a plain prompt as a user's turn."""
    if context.startswith("[{"):
        try:
            found: list[dict[str, str]] = json.loads(context)
            return found
        except json.JSONDecodeError:
            pass
    return [{"role": "user", "content": context}]
