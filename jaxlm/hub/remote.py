"""Models by their hub id, through huggingface_hub and its cache."""

from pathlib import Path

from jaxlm.config import JaxlmError

# What a directory needs to be read; the rest of a repository is left where it is.
PATTERNS = ["*.json", "*.txt", "*.jinja", "*.safetensors"]


class DownloadError(JaxlmError):
    """A hub id that cannot be fetched."""


def download(name: str, revision: str | None = None) -> Path:
    """The local copy of a model of the hub, fetched where the cache lacks it.

    The token is huggingface_hub's own: $HF_TOKEN, or what `hf auth login` keeps. Raises
    DownloadError when offline, or where there is no such model.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def fetch(patterns: list[str]) -> Path:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
        )

    at = "" if revision is None else f" at revision {revision}"
    try:
        folder = fetch(PATTERNS)
        if not any(folder.glob("*.safetensors")):
            folder = fetch([*PATTERNS, "*.bin"])
        return folder
    except LocalEntryNotFoundError:
        raise DownloadError(
            f"there is no directory {name}, and the model {name}{at} is neither in the cache nor "
            "can the Hugging Face hub be reached"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DownloadError(f"the hub gives no model {name}{at}: {reason}") from None
