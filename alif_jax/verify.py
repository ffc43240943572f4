"""Checks an export by other people's software: transformers and PEFT must answer as the JAX model does. Needs torch."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from alif_jax.generate import Generation


def verify_exports(
    merged: str,
    adapter: str,
    base: str,
    merged_results: Sequence[Generation],
    adapter_results: Sequence[Generation],
    *,
    max_new_tokens: int,
) -> dict[str, list[str]]:
    """Problems found per export, empty lists when it is sound: keys missing or left over on loading, other greedy tokens.

    …_results: what the JAX model (the merged one; the run) made of some prompts, greedily.
    """
    import peft
    import torch
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # their own internals
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    load = transformers.AutoModelForCausalLM.from_pretrained
    model, loading = load(merged, dtype=torch.float32, output_loading_info=True)
    problems: dict[str, list[str]] = {"transformers": _key_problems(loading), "peft": []}
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged)
    stops = transformers.GenerationConfig.from_pretrained(merged).eos_token_id
    problems["transformers"] += _compare(model, tokenizer, merged_results, max_new_tokens, stops)
    base_model = load(base, dtype=torch.float32)
    with_adapter = peft.PeftModel.from_pretrained(base_model, adapter)
    saved = peft.utils.load_peft_weights(adapter, device="cpu")
    wanted = peft.get_peft_model_state_dict(with_adapter)
    problems["peft"] += [f"key {key} is only on one side" for key in sorted(saved.keys() ^ wanted.keys())]
    # The base's own generation_config knows nothing of the turn token; the one beside the adapter does.
    stops = transformers.GenerationConfig.from_pretrained(adapter).eos_token_id
    tokenizer = transformers.AutoTokenizer.from_pretrained(adapter)
    problems["peft"] += _compare(with_adapter, tokenizer, adapter_results, max_new_tokens, stops)
    return problems


def _key_problems(loading: dict[str, Any]) -> list[str]:
    return [f"{kind}: {sorted(keys)}" for kind, keys in loading.items() if keys]


def _compare(model: Any, tokenizer: Any, results: Sequence[Generation], max_new_tokens: int, stops: list[int]) -> list[str]:
    problems = []
    for result in results:
        chat = [{"role": "user", "content": result.prompt}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=False)
        output = model.generate(ids, max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=stops)
        tokens = np.asarray(output[0, ids.shape[1] :]).tolist()
        expected = len(result.token_ids) + (result.finish_reason == "stop")  # transformers keeps the stop token
        if tokens[: len(result.token_ids)] != result.token_ids or len(tokens) != expected:
            problems.append(f"other greedy tokens for {result.prompt[:60]!r}")
    return problems
