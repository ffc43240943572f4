"""To the Hugging Face hub, on request only: one directory into one repository, of a model or of a dataset, private unless said
otherwise.
"""

from typing import Literal

import huggingface_hub
from huggingface_hub.errors import HTTPError

from alif_jax import UsageError, files
from alif_jax.load import Run

RepoType = Literal["model", "dataset"]
ERRORS = (HTTPError, OSError, ValueError)  # refusals and broken connections, files and tokens, names that cannot be


def check_push(name: str, output: str, flag: str = "output") -> None:
    """Raises UsageError, before anything is written, where the name, the output (given by --flag) or the login cannot work."""
    if not files.is_local(output):
        raise UsageError(f"--push_to_hub sends a local directory, and --{flag}={output} is none; give a local one")
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


def push(directory: str, name: str, *, public: bool, repo_type: RepoType = "model") -> str:
    """Makes the repository where it is not there yet and sends the directory in one commit; says where it is.

    Raises UsageError where the hub refuses, and where the repository is public already and `public` was not asked for.
    """
    api = huggingface_hub.HfApi()
    made, again = ("export", "") if repo_type == "model" else ("dataset", " --repo-type=dataset")
    try:
        api.create_repo(name, repo_type=repo_type, private=not public, exist_ok=True)
        if not public and not api.repo_info(name, repo_type=repo_type).private:
            raise UsageError(
                f"--push_to_hub={name}: it is there and public; give --public or another name. The {made} is in {directory}"
            )
        said = f"{made.capitalize()} by alif_jax"
        commit = api.upload_folder(repo_id=name, repo_type=repo_type, folder_path=directory, commit_message=said)
        return f"sent to {commit.commit_url}"
    except UsageError:
        raise
    except ERRORS as error:
        raise UsageError(
            f"--push_to_hub={name}: {error}. The {made} is in {directory}; `hf upload {name} {directory}{again}` tries again"
        ) from None
