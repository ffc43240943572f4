"""Trains Llama-family models with LoRA on a TPU or GPU mesh, and exports them to Hugging Face. No data generation here."""

__version__ = "0.1.0"


class UsageError(ValueError):
    """An error of use: says what came, what was expected and what to do. Entry points print it as one line, exit code 2."""
