"""From TFRecord shards to batches: tfrecord (bytes → records) → template (records → tokens) → pack (tokens → rows → batches)."""
