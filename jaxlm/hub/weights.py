"""Weight files: safetensors and PyTorch's .bin, whole or in shards, one tensor at a time."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxlm.config import JaxlmError
from jaxlm.files import WriteError, file_in_place

# Looked for in this order; an index names its shards.
NAMES = ("model.safetensors", "model.safetensors.index.json")
NAMES += ("pytorch_model.bin", "pytorch_model.bin.index.json")
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
SHARD_BYTES = 2_000_000_000
# What is fetched of a hub repository; the rest is left where it is.
PATTERNS = ["*.json", "*.txt", "*.jinja", "*.safetensors"]


class WeightsError(JaxlmError):
    """Weight files that are missing, damaged or of an unknown format."""


class DownloadError(JaxlmError):
    """A hub id that cannot be fetched."""


def download(name: str, revision: str | None = None) -> Path:
    """The local copy of a model on the Hugging Face hub, downloaded if the cache lacks it.

    Private models need the usual token: $HF_TOKEN, or `hf auth login`.

    Raises: DownloadError when offline, or where there is no such model.
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


class WeightFiles:
    """The tensors of a directory by name: opening reads shapes only, `read` loads one tensor.

    `dtypes` gives each tensor's type, `dtype` that of most numbers, `metadata` the texts that a
    file of safetensors has beside them. Of `names` the first that is there is opened.

    Raises: WeightsError.
    """

    def __init__(self, folder: Path, names: Sequence[str] = NAMES):
        self._readers: dict[str, Callable[[], np.ndarray]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        sizes: Counter[str] = Counter()
        self.metadata: dict[str, str] = {}
        for path in weight_files(folder, names):
            if path.suffix == ".safetensors":
                with open_safetensors(path) as file:
                    self.metadata |= file.metadata() or {}
            entries = torch_entries(path) if path.suffix == ".bin" else safe_entries(path)
            for name, shape, dtype, reader in entries:
                if name in self._shapes:
                    raise WeightsError(f"{name} is in more than one file of {folder}")
                self._shapes[name], self._readers[name] = shape, reader
                self.dtypes[name] = dtype
                sizes[dtype] += int(np.prod(shape))
        self.dtype = sizes.most_common(1)[0][0] if sizes else "float32"

    def keys(self) -> Iterable[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str) -> np.ndarray:
        if self.dtypes[name] not in DTYPES.values():
            raise WeightsError(
                f"{name} has the type {self.dtypes[name]}, not {', '.join(DTYPES.values())}: "
                "quantized weights are not read"
            )
        return self._readers[name]()


def weight_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The weight files of a directory: one file, or the shards that its index names."""
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        files = [name for name in names if not name.endswith(".json")]
        raise WeightsError(f"{folder} holds no weights: there is no {', '.join(files)}")
    if found.suffix != ".json":
        return [found]
    index = read_json_file(found).get("weight_map")
    shards = list(index.values()) if isinstance(index, dict) else []
    if not shards or not all(isinstance(name, str) for name in shards):
        raise WeightsError(f"{found} is not an index of shards: its weight_map names no files")
    shards = sorted(set(shards))
    for name in shards:
        # Links within the folder may lead out of it, as in the hub's cache; names may not.
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise WeightsError(f"{found} names {name!r}, which is not in its folder")
    missing = [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise WeightsError(f"{folder} lacks the shards {', '.join(missing)} that its index names")
    return [folder / name for name in shards]


def read_json_file(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file.

    Raises: FileNotFoundError, WeightsError where it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        check_pointer(path)
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path} must hold a JSON mapping")
    return content


def check_pointer(path: Path) -> None:
    """Raise WeightsError for what Git LFS leaves where it did not fetch the file itself."""
    with path.open("rb") as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise WeightsError(f"{path} is a pointer of Git LFS: fetch the file with git lfs pull")


Entry = tuple[str, tuple[int, ...], str, Callable[[], np.ndarray]]


def safe_entries(path: Path) -> Iterator[Entry]:
    """Name, shape, type and reader of each tensor in a safetensors file."""

    def reader(name: str) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            # Opened anew for each tensor, or all pages of the file would stay in memory.
            with open_safetensors(path) as file:
                return file.get_tensor(name)

        return read

    with open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118, not a mapping
            part = file.get_slice(name)
            dtype = str(part.get_dtype())
            yield name, tuple(part.get_shape()), DTYPES.get(dtype, dtype), reader(name)


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        check_pointer(path)
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None


def torch_entries(path: Path) -> Iterator[Entry]:
    """The same for PyTorch's .bin; nothing but tensors is unpickled."""
    try:
        check_pointer(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f'reading {path.name} takes torch: pip install "jaxlm[torch]", or save the model as '
            "safetensors"
        ) from None
    import pickle

    try:
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files older than torch 1.6 cannot be mapped
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} holds more than tensors, perhaps code that would run; it is not read"
        ) from None
    except Exception as error:  # a damaged pickle raises anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path} cannot be read: {reason}") from None
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{path} must hold tensors by name, it holds a {type(tensors).__name__}")
    if not any(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        held = ", ".join(map(str, list(tensors)[:4])) or "nothing"
        raise WeightsError(f"{path} holds {held} and no tensors: save the model's state_dict alone")

    def reader(tensor: Any) -> Callable[[], np.ndarray]:
        half = tensor.dtype == torch.bfloat16  # unknown to NumPy
        return lambda: (tensor.float() if half else tensor).detach().numpy()

    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield name, tuple(tensor.shape), dtype, reader(tensor)


def save_tensors(
    tensors: Mapping[str, np.ndarray], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write one safetensors file with text metadata.

    Raises: WriteError.
    """
    try:
        with file_in_place(path) as temporary:
            save_file(dict(tensors), temporary, dict(metadata))
    except SafetensorError as error:
        raise WriteError(f"cannot write {path}: {error}") from None


def write_weights(folder: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> int:
    """Write tensors as model.safetensors, or in shards with an index; returns their bytes.

    Raises: WriteError.
    """
    shards: list[list[str]] = []
    shard: dict[str, np.ndarray] = {}
    total = 0

    def flush() -> None:
        save_tensors(shard, folder / f"part-{len(shards)}", {"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            flush()
        shard[name] = tensor
        total += tensor.nbytes
    flush()
    if len(shards) == 1:
        (folder / "part-0").rename(folder / NAMES[0])
        return total
    weight_map = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        (folder / f"part-{i}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / NAMES[1]).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return total
