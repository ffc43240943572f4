"""The recipe of launch/ingest.py where none is named: the shipped pages in Urdu, with the rules' defaults.

    python launch/ingest.py
    python launch/ingest.py --config.input='gs://BUCKET/web/*.parquet' --config.language=hin_Deva --config.licence=ODC-BY \\
        --config.tasks=64 --workdir=runs/hindi

Documents to write instructions for (`configs/ingest.py:responses`): an answer's length, cut at the end of a sentence, and at most
three in ten of them news.
"""

from data_gen import UsageError
from data_gen.ingest_config import IngestConfig


def get_config(arg: str = "") -> IngestConfig:
    if arg not in ("", "responses"):
        raise UsageError(f"configs/ingest.py:{arg}: expected responses, or nothing")
    config = IngestConfig()
    if arg == "responses":
        config.rules.cut_at = 2500
        config.rules.max_news_share = 0.3
    return config
