"""data_gen: makes instruction data with a teacher model, and clean documents of web text. It writes TFRecord shards and knows
nothing of training.

One seed on its way to a shard, file by file:
  languages/<code>/pack.toml, <task>/seeds.jsonl;  tasks/<task>/prompt.txt, task.toml;  seeds.py reads them
  planner.py     which request is asked next, from which seeds and earlier items;  prompt.py writes its text
  engine.py      keeps requests on their way;  journal.py writes each down before it is sent
  teacher.py     sends it (endpoint.py: one call; account.py, limits.py: what may be spent and sent);  batch.py: in batches
  prompt.py      the reply into items;  acceptance.py keeps or rejects each one, with the reason:
                 filters.py, checks.py, language_id.py, contamination.py, dedup.py say no;  judging.py has a model asked
  record.py      the kept item with its provenance;  dataset.py, tfrecord.py the shard, its manifest and its card
self_instruct.py is the recipe that calls them, config.py its values, text/ the functions on text. Beside it: import_data.py takes
the data of others, review.py what people say of a sample.

One web page on its way to a document: ingest.py plans the tasks, ingest_readers.py reads the page, ingest_blocks.py leads it
through the rules (documents.py; web_text.py changes it, language_id.py names its language), near_documents.py chooses among all.
"""


class UsageError(ValueError):
    """An error of use: the message says what came, what was expected and what to do. Shown as one line, no trace."""
