"""From shards to batches: tfrecord (bytes → records) → template (→ tokens, words) → cache → fit (→ examples) → mixture → pack."""
