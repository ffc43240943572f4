"""The model behind the OpenAI-compatible protocol: batched cached decoding that requests join and leave between steps."""
