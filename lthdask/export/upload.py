"""An exported ticket on the Hugging Face hub, only where it is asked for by name."""

from pathlib import Path

from lthdask.errors import InputError, first_sentence

NEEDED = "an upload needs huggingface_hub; install it with: pip install huggingface_hub"


def require_hub(name: str) -> None:
    """Refuse what cannot be uploaded, before anything is written.

    Raises
    ------
    InputError
        If huggingface_hub is missing, `name` is none of a model there, or nobody is logged in.
    """
    try:
        from huggingface_hub import get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id
    except ImportError:
        raise InputError(NEEDED) from None
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"`upload` must be USER/NAME, as the hub has it; got {name!r}") from None
    if not get_token():
        raise InputError("the hub must know who uploads; log in with: hf auth login")


def upload(folder: Path, name: str, files: tuple[str, ...]) -> str:
    """Upload a folder, which replaces the files of an earlier export there; return the address.

    Parameters
    ----------
    folder : Path
        As :func:`lthdask.export.folder.export` wrote it.
    name : str
        ``USER/NAME`` of a model. Where there is none, a public one is made.
    files : tuple of str
        All files that an export may have.

    Raises
    ------
    InputError
        If the hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi

    gone = [file for file in files if not (folder / file).exists()]
    try:
        hub = HfApi(library_name="lthdask")
        made = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=folder, delete_patterns=gone)
    except Exception as error:  # of any kind that sending may raise
        raise InputError(
            f"{folder} is written, but not uploaded to {name}: {first_sentence(error)}; the same "
            f"command tries it again"
        ) from None
    return str(made)
