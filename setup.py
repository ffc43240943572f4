"""Build script of both packages: alif_jax (training) and data_gen (data). The core needs neither torch nor TensorFlow.

Upper bounds stand on what moves fast; two pairs of JAX and Flax are tested, one for each side of Python 3.12:
jax 0.11 needs Python 3.12, and flax 0.12.8 (the last for Python 3.11) does not import on it.
"""

from setuptools import find_packages, setup

OLD = 'python_version < "3.12"'
NEW = 'python_version >= "3.12"'


def jax_requirement(extra: str = "") -> list[str]:
    """Both tested JAX ranges, each behind its marker: `jax_requirement("[tpu]")[0]` is `jax[tpu]>=0.10,<0.11; ...`."""
    return [f"jax{extra}>=0.10,<0.11; {OLD}", f"jax{extra}>=0.11,<0.12; {NEW}"]


CORE = [
    *jax_requirement(),
    f"flax==0.12.8; {OLD}",
    f"flax>=0.12.10,<0.13; {NEW}",
    "orbax-checkpoint>=0.12,<0.13",
    "optax>=0.2.6,<0.3",
    "absl-py>=2.1,<3",
    "etils[epath]>=1.12,<2",
    "fsspec>=2025.3",
    "google-crc32c>=1.6,<2",
    "huggingface_hub>=1.31,<3",
    "jaxtyping>=0.3,<0.4",
    "jinja2>=3.1.6,<4",
    "ml_dtypes>=0.5,<0.7",
    "numpy>=2.1,<3",
    "qwix>=0.1.8,<0.2",
    "safetensors>=0.8,<0.9",
    "tensorboardX>=2.6.2,<3",
    "tokenizers>=0.23.1,<0.24",
]
DATA = [
    "httpx2>=2.12,<3",
    "lingua-language-detector>=2.1,<3",
    "openai[aiohttp]>=3.50,<4",
    "orjson>=3.11,<4",
    "rapidfuzz>=3.14,<4",
    "regex>=2025.10.22",
    "rich>=14,<16",
    "sacrebleu>=2.6,<3",
]
# What launch/import_data.py reads beside JSON and text.
IMPORT = [
    "datasets>=4,<6",
    "pyarrow>=20",
]
# launch/ingest.py; of web archives too, where Parquet and the hub need IMPORT.
INGEST = [
    "datatrove>=0.10,<0.11",
    "trafilatura>=2.3,<3",
    "lxml_html_clean>=0.4",  # justext, below trafilatura, asks lxml for html_clean, which lxml calls html-clean: older pips miss it
    "zstandard>=0.25,<0.26",
]
X_INSTRUCTION = ["scikit-learn>=1.7,<2"]  # clusters, gates; launch/x_instruction.py needs DATA, INGEST and SERVE too
EVAL = ["lm-eval>=0.4.13,<0.5"]  # launch/evaluate.py --suite, --tasks; it needs DATA too
RAY = ["ray>=2.60,<3"]
SERVE = [
    "httptools>=0.9,<0.10",
    "prometheus-client>=0.26,<0.27",
    "pydantic>=2.14,<3",
    "starlette>=1.10,<2",
    "uvicorn>=0.54,<0.60",
    'uvloop>=0.22; sys_platform != "win32"',
]
GLOTLID = ["fasttext-predict>=0.9.2.4,<0.10"]
VERIFY = [
    "torch==2.13.0",
    "transformers>=5.20,<6",
    "peft>=0.21,<0.22",
]
# A TPU's compiler, for machines without one. 0.0.51 was measured; jax[tpu] has its own, an older one that does too.
PLAN = ['libtpu>=0.0.42,<0.0.60; sys_platform == "linux" and platform_machine == "x86_64"']
TOOLS = [
    *GLOTLID,
    "beartype>=0.22,<0.24",
    "gguf>=0.19,<0.20",
    "lm-eval[api]>=0.4.13,<0.5",  # its clients ask our server in a test
    "mypy>=2.4,<2.5",
    "pytest>=9,<10",
    "pytest-xdist>=3.8,<4",
    "rouge-score>=0.1.2,<0.2",
    "ruff>=0.17,<0.18",
    "warcio>=1.8,<2",
]

setup(
    name="alif-jax",
    version="0.1.0",
    description="An Urdu language model, from seed tasks to a Hugging Face directory, on JAX",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["alif_jax", "alif_jax.*", "data_gen", "data_gen.*"]),
    package_data={
        "alif_jax": ["templates/*.jinja"],
        "data_gen": ["evaluation/*/**", "languages/**", "tasks/**", "text/**", "x_instruction/shipped/**"],
    },
    install_requires=CORE,
    extras_require={
        "cuda": jax_requirement("[cuda12]"),
        "data": DATA,
        "eval": EVAL,
        "gcs": ["gcsfs>=2025.3"],
        "glotlid": GLOTLID,
        "import": IMPORT,
        "ingest": INGEST,
        "plan": PLAN,
        "ray": RAY,
        "serve": SERVE,
        "tensorflow": ["tensorflow-cpu>=2.19"],  # for tests/test_contract.py and tests/benchmarks/shards.py alone
        "test": [*DATA, *IMPORT, *INGEST, *X_INSTRUCTION, *EVAL, *RAY, *SERVE, *VERIFY, *TOOLS, *PLAN],
        "tools": TOOLS,
        "tpu": jax_requirement("[tpu]"),
        "verify": VERIFY,
        "x_instruction": X_INSTRUCTION,
        "wandb": ["wandb>=0.25,<1"],
    },
)
