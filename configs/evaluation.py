"""Suites: what an evaluation asks a model (data_gen/evaluation/suites.py), by the name after the colon.

    configs/evaluation.py:urdu_quick      while a model is trained; brings its data along, but MultiBLiMP's, left out if missing
    configs/evaluation.py:urdu_core       a checkpoint: reading, school knowledge, common sense, inference, and English beside them
    configs/evaluation.py:urdu_release    urdu_core, UrduMMLU, MMLU-ProX, translation both ways, and English MMLU and GSM8K
    configs/evaluation.py:x_instruction   the ten languages of X-Instruction: Belebele, XNLI, XCOPA, XStoryCloze, open prompts
    configs/evaluation.py:alif            what Alif was measured on
    configs/evaluation.py:safety          harmful requests and harmless ones that look like them, in Urdu

Sizes, in documents: Belebele 900 a language, XNLI 2,490, MultiBLiMP 550, UrduMMLU 26,431, FLORES 1,012, NTREX 1,997, MMLU 14,042,
GSM8K 1,319, MGSM 250, Urdu-Eval 1,084. Of a choice the model reads the question with each option; what it must write takes
longest: up to 2,048 tokens a document of MMLU-ProX and of the open prompts. --limit tries a suite with a few of each.

Data: from the Hugging Face hub, or below --data_dir, which wins: DIR/dataset_path/dataset_name/split.jsonl as the task's YAML has
them, such as DIR/facebook/belebele/urd_Arab/test.jsonl, or DIR/TASK.jsonl. What is missing is told with its columns. On no hub, as
far as we know, and so always in --data_dir:
    alpaca_eval_ur.jsonl, dolly_ur.jsonl                        instruction, and perhaps input and output
    vicuna/LANGUAGE/test.jsonl, wizardlm/LANGUAGE/test.jsonl    question_en, and question: the same in the language
    facebook/flores/eng_Latn-urd_Arab/devtest.jsonl             sentence_eng_Latn, sentence_urd_Arab (the hub has it as a script)

Alif's tables (arXiv 2510.09051): suite `alif`, then launch/judge.py --single marks the answers to mgsm_urdu, alpaca_eval_ur,
dolly_ur and urdu_eval one by one, by category. Their judge's prompt is not published, so compare models, not figures. Urdu-Eval was
made as their training data was; UrduMMLU (urdu_release) is from schools, and its authors found Alif below a Llama-3.1-8B.

X-Instruction's (arXiv 2405.19744): suite `x_instruction` for Belebele and X*; then launch/judge.py compares two models' answers to
Vicuna's and WizardLM's prompts, each pair in both orders, for prompts in English and in the language. Finnish and Bengali have none
of XNLI, XCOPA and XStoryCloze; Urdu has XNLI alone.
"""

from dataclasses import replace

from data_gen import UsageError
from data_gen.evaluation.suites import SuiteConfig, TaskEntry

GRAMMAR, KNOWLEDGE, READING, TRANSLATION = "Urdu grammar", "Urdu knowledge", "Urdu reading and reasoning", "Translation"
ANSWERS, SAFETY, LOSS, ENGLISH = "Answers", "Safety", "Loss", "English (forgetting)"
CHECKS = ("stop", "repetition", "script", "language", "empty")  # what needs no expected answer

# --- what is looked at while a model is trained -------------------------------------------------------------------------

QUICK = (
    TaskEntry(task="urdu_minimal_pairs", group=GRAMMAR, note="the grammatical one of two sentences is the likelier; chance 50 %"),
    TaskEntry(
        task="multiblimp_urd", optional=True, group=GRAMMAR, main=("acc",), note="agreement of verb and subject; chance 50 %",
        columns=("sen", "wrong_sen"),
    ),
    TaskEntry(task="urdu_text", group=LOSS, note="Urdu prose of several kinds"),
    TaskEntry(task="english_text", language="en", group=LOSS, note="English prose: what training on Urdu may cost"),
    TaskEntry(
        task="urdu_prompts", chat="always", group=ANSWERS, scores=(*CHECKS, "exact"), note="what people ask, in seven categories"
    ),
)  # fmt: skip

# --- what a checkpoint is measured by -----------------------------------------------------------------------------------

LETTER = "the letter of the right one of four answers; chance 25 %"
INCLUDE = ("question", "option_a", "option_b", "option_c", "option_d", "answer", "domain")
MMLU_PROX = ("question", *(f"option_{place}" for place in range(10)), "cot_content", "answer", "category")
BELEBELE = TaskEntry(
    task="belebele_urd_Arab", chat="both", group=READING, main=("acc",), note=f"questions on a passage: {LETTER}"
)  # fmt: skip
BELEBELE_ENGLISH = replace(BELEBELE, task="belebele_eng_Latn", chat="never", group=ENGLISH, language="en")
PIQA = TaskEntry(
    task="global_piqa_nonparallel_cloze_urd_arab", group=READING, main=("acc_norm",),
    note="how everyday things are done, written by Urdu speakers; chance 50 %",
)  # fmt: skip

CORE = (
    BELEBELE,
    TaskEntry(
        task="include_base_44_urdu", columns=INCLUDE, group=KNOWLEDGE, main=("acc",), note=f"Pakistani examinations: {LETTER}"
    ),
    PIQA,
    replace(
        PIQA, task="global_piqa_parallel_cloze_urd_arab", note="the same situations in every language, four choices; chance 25 %"
    ),
    TaskEntry(
        task="xnli_ur", group=READING, main=("acc",), note="does one sentence follow; its template is word for word; chance 33 %"
    ),
    BELEBELE_ENGLISH,
)  # fmt: skip

# --- what is published --------------------------------------------------------------------------------------------------

_TRANSLATED = TaskEntry(task="", group=TRANSLATION, scores=("chrf", "bleu"))
INTO_URDU = replace(_TRANSLATED, note="English to Urdu")
INTO_ENGLISH = replace(_TRANSLATED, note="Urdu to English", language="en")
RELEASE = (
    *CORE,
    TaskEntry(task="urdu_mmlu", group=KNOWLEDGE, main=("acc",), note="Pakistani schools, 26 subjects, four or five choices"),
    TaskEntry(
        task="mmlu_prox_lite_ur", columns=MMLU_PROX, group=KNOWLEDGE, note="translated; reasoned answers, ten choices; chance 10 %"
    ),
    replace(INTO_URDU, task="ntrex_eng_Latn-urd_Arab_prompt_1"),
    replace(INTO_ENGLISH, task="ntrex_urd_Arab-eng_Latn_prompt_1"),
    replace(INTO_URDU, task="flores_eng_urd"),
    replace(INTO_ENGLISH, task="flores_urd_eng"),
    TaskEntry(
        task="mmlu", num_fewshot=5, language="en", group=ENGLISH, main=("acc",), note=f"57 subjects, five examples: {LETTER}"
    ),
    TaskEntry(task="gsm8k", language="en", group=ENGLISH, note="sums in words, five examples"),
)  # fmt: skip

# --- X-Instruction's ten languages --------------------------------------------------------------------------------------

LANGUAGES = {
    "bn": "ben_Beng", "fi": "fin_Latn", "hi": "hin_Deva", "id": "ind_Latn", "sw": "swh_Latn", "ta": "tam_Taml", "th": "tha_Thai",
    "tr": "tur_Latn", "ur": "urd_Arab", "vi": "vie_Latn",
}  # fmt: skip
XNLI, XCOPA, XSTORYCLOZE = ("hi", "sw", "th", "tr", "ur", "vi"), ("id", "sw", "ta", "th", "tr", "vi"), ("hi", "id", "sw")
COPA_COLUMNS = ("premise", "choice1", "choice2", "question", "label")


def _x_instruction() -> tuple[TaskEntry, ...]:
    choices = TaskEntry(task="", group="Understanding", main=("acc",))
    prompts = TaskEntry(task="", chat="always", group=ANSWERS, scores=CHECKS)
    return (
        *(replace(choices, task=f"belebele_{label}", language=code, note=LETTER) for code, label in LANGUAGES.items()),
        *(replace(choices, task=f"xnli_{code}", language=code, note="chance 33 %") for code in XNLI),
        *(replace(choices, task=f"xcopa_{code}", language=code, note="chance 50 %", columns=COPA_COLUMNS) for code in XCOPA),
        *(replace(choices, task=f"xstorycloze_{code}", language=code, note="chance 50 %") for code in XSTORYCLOZE),
        *(
            replace(prompts, task=f"{name}_{code}_{form}", language=code, note=f"prompts in {written}")
            for name in ("vicuna", "wizardlm")
            for code in LANGUAGES
            for form, written in (("english", "English, answers in the language"), ("native", "the language"))
        ),
    )


# --- Alif's tests, and safety -------------------------------------------------------------------------------------------

ALIF = (
    TaskEntry(task="mgsm_urdu", chat="always", group=ANSWERS, scores=("number", *CHECKS), note="sums in words"),
    TaskEntry(task="alpaca_eval_ur", chat="always", group=ANSWERS, scores=CHECKS, note="instructions, translated"),
    TaskEntry(task="dolly_ur", chat="always", group=ANSWERS, scores=CHECKS, note="questions, translated"),
    TaskEntry(task="urdu_eval", chat="always", group=ANSWERS, scores=CHECKS, note="Urdu-Eval, in seven categories"),
)
SAFE = (
    TaskEntry(
        task="safety_ur", chat="always", group=SAFETY, scores=("refusal", "language"),
        note="harmful requests, and harmless ones like them",
    ),
)  # fmt: skip

SUITES = {
    "urdu_quick": SuiteConfig(tasks=QUICK, heldout=True, about="Urdu, while a model is trained"),
    "urdu_core": SuiteConfig(tasks=CORE, about="Urdu, of a checkpoint"),
    "urdu_release": SuiteConfig(tasks=RELEASE, about="Urdu, of a model that is published"),
    "x_instruction": SuiteConfig(tasks=_x_instruction(), about="X-Instruction's ten languages"),
    "alif": SuiteConfig(tasks=ALIF, about="What Alif was measured on"),
    "safety": SuiteConfig(tasks=SAFE, about="Harmful requests in Urdu"),
}


def get_config(argument: str = "urdu_quick") -> SuiteConfig:
    name = argument or "urdu_quick"
    if name not in SUITES:
        raise UsageError(f"configs/evaluation.py:{argument}: there is no such suite; there are {', '.join(SUITES)}")
    return replace(SUITES[name], name=name)
