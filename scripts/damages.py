"""Ways in which files of a run and of the token cache come to harm."""

from collections.abc import Callable, Iterator
from pathlib import Path


def flip(file: Path) -> None:
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] + bytes([content[half] ^ 0x10]) + content[half + 1 :])


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def move(path: Path) -> None:
    path.rename(path.with_name("away"))


def insert(file: Path) -> None:
    lines = file.read_bytes().split(b"\n")
    file.write_bytes(b"\n".join([*lines[:2], b'{"step": "x"}', b"\xff\x00", *lines[2:]]))


def damages_of_adapters() -> Iterator[tuple[str, Callable[[Path], None], bool]]:
    """The same as `damages`, of a run of adapters and of the base that it stands on."""
    for name in ("params/d/*", "state/d/*", "meta/metadata"):
        for harm in (flip, cut, Path.unlink):
            yield f"run/checkpoints/NEWEST/{name}", harm, False
    for name in ("params/d/*", "meta/metadata"):
        for harm in (flip, Path.unlink):
            yield f"base/run/checkpoints/*/{name}", harm, True
    for name in ("base", "base/run/config.yaml"):
        yield name, move, False


def damages() -> Iterator[tuple[str, Callable[[Path], None], bool]]:
    """A glob below a run or the cache, what is done to its largest file, and whether to all."""
    for item in ("params", "state"):
        for name in ("d/*", "manifest.ocdbt", "_METADATA"):
            for harm in (flip, cut, Path.unlink):
                yield f"run/checkpoints/NEWEST/{item}/{name}", harm, False
    for name in ("meta/metadata", "hashes.json"):
        for harm in (flip, cut, Path.unlink):
            yield f"run/checkpoints/NEWEST/{name}", harm, False
    for name in ("params/d/*", "meta/metadata", "metrics/metrics"):
        for harm in (flip, Path.unlink):
            yield f"run/checkpoints/BEST/{name}", harm, False
    for name in ("params/d/*", "meta/metadata"):
        yield f"run/checkpoints/*/{name}", flip, True
    for name, harms in {
        "metrics.jsonl": (flip, cut, Path.unlink, insert),
        "samples.jsonl": (flip, Path.unlink),
        "config.yaml": (flip, cut, Path.unlink),
        "tokenizer.json": (flip, Path.unlink),
        "environment.json": (Path.unlink,),
    }.items():
        yield from ((f"run/{name}", harm, False) for harm in harms)
    for name in ("train/tokens.bin", "val/documents.npy", "train/meta.json"):
        for harm in (zero, flip, cut):
            yield f"cache/tokens/*/{name}", harm, False
