"""To the Hugging Face hub, on request only: one directory into one repository, private unless said otherwise."""

import huggingface_hub
from huggingface_hub.errors import HTTPError

from alif_jax import UsageError, files
from alif_jax.load import Run

ERRORS = (HTTPError, OSError, ValueError)  # refusals and broken connections, files and tokens, names that cannot be


def check_push(name: str, output: str) -> None:
    """Raises UsageError, before anything is written, where the name, the output or the login cannot work."""
    if not files.is_local(output):
        raise UsageError(f"--push_to_hub sends a local directory, and --output={output} is none; export to a local one")
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except ValueError as error:
        raise UsageError(f"--push_to_hub={name}: {error}") from None
    if name.count("/") != 1:
        raise UsageError(f"--push_to_hub={name}: expected owner/name")
    if huggingface_hub.get_token() is None:
        raise UsageError("--push_to_hub: nobody is logged in; run `hf auth login`, or set HF_TOKEN to a token that may write")


def check_shareable(run: Run) -> None:
    """Raises UsageError for a run whose adapter would be of use on this machine only."""
    if run.is_local:
        raise UsageError(
            f"--push_to_hub with --format=peft: the adapter's base is a directory of this machine ({run.base_name}), which nobody "
            "else has; send the merged model (--format=merged)"
        )


def push(directory: str, name: str, *, public: bool) -> str:
    """Makes the repository where it is not there yet and sends the directory in one commit; says where it is.

    Raises UsageError where the hub refuses, and where the repository is public already and `public` was not asked for.
    """
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(name, private=not public, exist_ok=True)
        if not public and not api.model_info(name).private:
            raise UsageError(
                f"--push_to_hub={name}: it is there and public; give --public or another name. The export is in {directory}"
            )
        commit = api.upload_folder(repo_id=name, folder_path=directory, commit_message="Export by alif_jax")
        return f"sent to {commit.commit_url}"
    except UsageError:
        raise
    except ERRORS as error:
        raise UsageError(
            f"--push_to_hub={name}: {error}. The export is in {directory}; `hf upload {name} {directory}` tries again"
        ) from None
