"""data_gen: makes instruction data with a teacher model. It writes TFRecord shards and knows nothing of training.

One seed on its way to a shard, file by file: `tasks/<task>/seeds.jsonl` → prompt.py (seeds and prompt into a request) →
journal.py (written down before it is sent) → teacher.py (asked) → prompt.py (the reply into items) → filters.py,
dedup.py (kept or rejected, with the reason) → record.py → tfrecord.py. self_instruct.py holds the recipe that calls
them in this order; urdu.py has the text functions.
"""


class UsageError(ValueError):
    """An error of use: the message says what came, what was expected and what to do. Shown as one line, without a
    trace.
    """
