"""Serves a model to OpenAI's clients: `python launch/serve.py --model=DIR/run`, then `curl` what it prints, or base_url=URL/v1.

--model is a Hugging Face directory, a hub id, or a run directory; --adapters=name=DIR,name2=DIR are PEFT directories or runs of
the same base, asked for by their names. One process, one host. SIGTERM finishes what was accepted.
"""

import os
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

MODEL = flags.DEFINE_string("model", None, "Hugging Face directory, hub id, or run directory", required=True)
ADAPTERS = flags.DEFINE_list("adapters", [], "name=DIR,name2=DIR: PEFT directories or runs of the same base")
SERVED_NAME = flags.DEFINE_string("served_name", "", "what clients call the model; empty: the last part of --model")
STEP = flags.DEFINE_string("step", "latest", "of a run, which checkpoint: latest, best, or a step's number")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of weights and computation")
HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0 is every one, for which set a key")
PORT = flags.DEFINE_integer("port", 8000, "0 takes a free one")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "requests that are answered at a time; the same for the whole run")
MAX_LENGTH = flags.DEFINE_integer("max_length", 0, "tokens of prompt and answer; 0: the model's context, at most 4096")
MAX_QUEUE = flags.DEFINE_integer("max_queue", 1024, "requests that wait at most; more are told to come again (429)")
MAX_CONNECTIONS = flags.DEFINE_integer("max_connections", 2048, "open at a time; more are refused (503)")
API_KEY = flags.DEFINE_string("api_key", None, "what clients must send; better in the environment, as ALIF_API_KEY")
LOG_REQUESTS = flags.DEFINE_bool("log_requests", False, "one line a request on stdout")


def main(argv: list[str]) -> None:
    from alif_jax.serve import startup
    from alif_jax.serve.app import make_app
    from alif_jax.serve.connections import bind, fit_connections, serve

    connections = fit_connections(MAX_CONNECTIONS.value, startup.say)
    bound = bind(HOST.value, PORT.value)  # before minutes of loading
    models = startup.load(MODEL.value, ADAPTERS.value, served_name=SERVED_NAME.value, step=STEP.value, dtype=DTYPE.value)
    max_length = startup.context(models, MAX_LENGTH.value)
    engine, tokenizers = startup.start(models, batch_size=BATCH_SIZE.value, max_length=max_length, max_queue=MAX_QUEUE.value)
    key = os.environ.get("ALIF_API_KEY", "") if API_KEY.value is None else API_KEY.value
    served = make_app(engine, tokenizers, max_length=max_length, max_queue=MAX_QUEUE.value, api_key=key)
    serve(served, bound, max_connections=connections, log_requests=LOG_REQUESTS.value,
          ready=lambda: startup.say_how_to_ask(bound, tokenizers, key))  # fmt: skip


if __name__ == "__main__":
    app.run(main)
