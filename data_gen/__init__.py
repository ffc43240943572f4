"""data_gen: makes instruction data with a teacher model. It writes TFRecord shards and knows nothing of training.

One seed on its way to a shard, file by file:
  tasks/<task>/seeds.jsonl, prompt.txt
  planner.py     which request is asked next, from which seeds and earlier items;  prompt.py writes its text
  engine.py      keeps requests on their way;  journal.py writes each down before it is sent
  teacher.py     sends it (endpoint.py: one call; account.py, limits.py: what may be spent and sent);  batch.py: in batches
  prompt.py      the reply into items;  filters.py and dedup.py keep or reject each one, with the reason
  record.py      the kept item with its provenance;  tfrecord.py the shard and its manifest
self_instruct.py is the recipe that calls them, config.py its values, urdu.py the text functions.
"""


class UsageError(ValueError):
    """An error of use: the message says what came, what was expected and what to do. Shown as one line, no trace."""
