"""What users of other fine-tuning tools complain of most, and the tests here that would fail if it came true in this one.

From issue threads of Unsloth, LLaMA-Factory, TRL, PEFT, Transformers and vLLM. Checked here is only that each test exists.
"""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

COMPLAINTS: dict[str, tuple[str, ...]] = {
    "the merged model is not the adapter's (unslothai/unsloth#1804)": (
        "test_export.py::test_merged_equals_unmerged_and_transformers_loads_it",
        "test_export.py::test_peft_loads_the_adapter",
    ),
    "embeddings and head silently dropped, or trained otherwise by version (unslothai/unsloth#9331)": (
        "test_train.py::test_the_table_of_what_is_trained",
        "test_train.py::test_the_table_in_the_checkpoint_is_compared",
        "test_lora.py::test_what_is_trained_is_fp32_and_all_else_frozen",
    ),
    "a resume with embeddings and head in the adapter fails or freezes them (unslothai/unsloth#3108)": (
        "test_train.py::test_three_steps_and_a_resume_equal_six",
    ),
    "a resume begins again: loss, learning rate, order of the data (tloen/alpaca-lora#72)": (
        "test_train.py::test_three_steps_and_a_resume_equal_six",
        "test_kill.py::test_ten_kills_change_nothing",
    ),
    "the model never stops (hiyouga/LLaMA-Factory#7943, unslothai/unsloth#416)": (
        "test_stopping.py::test_a_lora_on_a_base_that_never_saw_the_turn_token_stops",
        "test_template.py::test_every_answer_ends_in_a_trained_stop_token_and_padding_is_none",
        "test_export.py::test_padding_is_never_a_stop_token",
        "test_export.py::test_generation_config_stops_on_every_stop_token",
    ),
    "every label is masked and the loss is 0 (unslothai/unsloth#1128)": (
        "test_template.py::test_no_trainable_token",
        "test_fit.py::test_nothing_left_to_train_on_names_the_sources",
    ),
    "packing leaks across examples (huggingface/trl#805)": ("test_pack.py::test_packed_equals_unpacked",),
    "gradient accumulation is not the full batch (huggingface/trl#2604)": (
        "test_pack.py::test_one_times_eight_equals_eight_times_one",
        "test_train.py::test_accumulation_changes_nothing",
    ),
    "a trained head of a tied model is lost in the merge (huggingface/peft#2777)": (
        "test_export.py::test_merged_of_a_tied_model",
        "test_lora.py::test_what_a_model_cannot_train",
    ),
    "a resized vocabulary does not load or merge (huggingface/peft#1396)": (
        "test_vocab.py::test_the_directory",
        "test_vocab.py::test_peft_trains_and_reloads_the_new_tables",
        "test_export.py::test_merged_equals_unmerged_and_transformers_loads_it",
    ),
    "vLLM refuses an adapter with modules_to_save (vllm-project/vllm#9280)": (
        "test_export.py::test_a_run_is_exported_in_both_forms",
    ),
    "loaders ignore the scale of rsLoRA (NVIDIA/TensorRT-LLM#1668)": (
        "test_export.py::test_adapter_config_is_the_portable_form",
        "test_peft.py::test_the_product_is_kept_and_our_scale_restored",
    ),
    "the exported tokenizer has no chat template (hiyouga/LLaMA-Factory#8399)": (
        "test_export.py::test_tokenizer_and_template_go_with_the_model",
    ),
    "reserved tokens that nobody trained give gibberish or NaN (unslothai/unsloth#1072)": (
        "test_hf.py::test_a_turn_token_that_nobody_trained_is_named",
    ),
    "out of memory at evaluation, where whole logits are kept (huggingface/transformers#15466)": (
        "test_loss.py::test_logits_of_one_chunk_exist_at_a_time",
        "test_evaluate.py::test_evaluation_keeps_no_whole_logits",
    ),
    "the first language is forgotten (ymcui/Chinese-LLaMA-Alpaca-2#442)": (
        "test_mixture.py::test_shares_of_tokens_are_the_weights",
        "test_train.py::test_loss_falls_and_metrics_are_complete",
    ),
}


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_the_tests_are_there(complaint: str) -> None:
    for name in COMPLAINTS[complaint]:
        file, function = name.split("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
