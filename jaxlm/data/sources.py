"""Files by path, folder, glob or sample name, and what kind each is."""

import difflib
import glob
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jaxlm.data.contents import COMPRESSED, DataError

HTML = (".html", ".htm")
DOCUMENTS = (".txt", ".md", ".markdown", *HTML)  # a file is one text
TAGGED = (".conll", ".bio", ".iob", ".iob2")  # one word with its tag per line
TREEBANK = ".conllu"  # one word with its ten columns per line
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", *TAGGED, TREEBANK)  # rows by column
KINDS_OF_FILES = DOCUMENTS + TABLES
WITHOUT_FILES = ("hf:", "toy:")  # beginnings of sources that are no files
BRACES = re.compile(r"\{([^{}/\\]*,[^{}/\\]*)\}")
SAMPLES = {
    "chat_en": "chat_en.jsonl",
    "chat_zh": "chat_zh.jsonl",
    "mini_zh": "mini_zh.txt",
    "ner_zh": "ner_zh.jsonl.xz",
    "reviews_en": "reviews_en.tsv",
    "reviews_zh": "reviews_zh.tsv.xz",
    "songci": "songci.jsonl.xz",
    "tinyshakespeare": "tinyshakespeare.txt",
    "verses_en_es": "verses_en_es.tsv.xz",
}


def find_files(source: str) -> list[Path]:
    """The files of a sample, path, folder or glob, sorted by path; several are joined by " + ".

    Parallel text files, as in `text.{en,zh}`, come in the order of their names in the braces.
    """
    return [file for part in parts_of(source) for file in find_part(part)]


def parts_of(source: str) -> list[str]:
    """The parts joined by " + ", which may also be part of an existing path."""
    words, parts = source.split(" + "), []
    while words:
        joined = {n: " + ".join(words[:n]).strip() for n in range(len(words), 0, -1)}
        # The longest prefix that exists, else the first word.
        n = next((n for n, part in joined.items() if exists(part) or glob.glob(home(part))), 1)
        parts.append(joined[n])
        words = words[n:]
    return parts


def home(path: str) -> str:
    return str(Path(path).expanduser())


def exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError):  # too long for a path, or a null character in it
        return False


def find_part(source: str) -> list[Path]:
    if source.startswith("sample:"):
        name = source.removeprefix("sample:")
        if name not in SAMPLES:
            near = difflib.get_close_matches(name, SAMPLES, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SAMPLES)}"
            raise DataError(f"no bundled sample is called {name!r}: {hint}")
        return [Path(__file__).parent / "samples" / SAMPLES[name]]
    if (side_by_side := parallel_files(source)) is not None:
        return list(side_by_side.values())
    found, path = list_part(source), Path(source).expanduser()
    if path.is_dir():
        found = [file for file in found if kind_of(file) in KINDS_OF_FILES]
    if not found:
        raise DataError(
            f"data.source {source!r} is no file, and no folder or glob with files in it"
        )
    for file in found:
        if kind_of(file) not in KINDS_OF_FILES:
            kinds = ", ".join(KINDS_OF_FILES)
            raise DataError(f"{file} is none of the kinds that can be read: {kinds}")
    return found


def list_part(source: str) -> list[Path]:
    """All files of a path, folder or glob, except hidden ones in a folder."""
    if not exists(source):
        found = [Path(match) for match in glob.glob(home(source), recursive=True)]
        return sorted(file for file in found if file.is_file())
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def parallel_files(source: str) -> dict[str, Path] | None:
    """The parallel text files that a name such as `text.{en,zh}` stands for, by name in the braces.

    None for a source without braces.

    Raises: DataError where one of the files is missing.
    """
    braces = BRACES.search(source)
    if braces is None or exists(source) or glob.has_magic(source):
        return None
    names = [name.strip() for name in braces[1].split(",")]
    ends = source[: braces.start()], source[braces.end() :]
    files = {name: Path(name.join(ends)).expanduser() for name in names}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise DataError(
            f"data.source {source!r} needs the file {missing[0]!r}, which does not exist"
        )
    if len(files) < len(names):
        raise DataError(f"data.source {source!r} repeats a name in its braces")
    return files


def joined_texts(source: str) -> dict[str, Path] | None:
    """Text files that " + " joins where rows are needed: side by side, by what their names differ
    in, so that `text.en + text.zh` has the columns en and zh.
    """
    parts = parts_of(source)
    paths = [Path(part).expanduser() for part in parts]
    if len(parts) < 2 or any(not p.is_file() or kind_of(p) in TABLES for p in paths):
        return None
    words = [re.split(r"[/.]", str(path)) for path in paths]
    while all(len(w) > 1 and w[0] == words[0][0] for w in words):
        words = [w[1:] for w in words]
    while all(len(w) > 1 and w[-1] == words[0][-1] for w in words):
        words = [w[:-1] for w in words]
    files = {".".join(w): path for w, path in zip(words, paths, strict=True)}
    return files if len(files) == len(paths) else None


def is_side_by_side(source: str) -> bool:
    """Whether rows are lines of text files side by side, however they are named."""
    return joined_texts(source) is not None or any(map(parallel_files, parts_of(source)))


def kinds_read(source: str, kinds: Sequence[str] = KINDS_OF_FILES) -> str:
    """The files of a folder read and skipped, by kind; empty if all are of one kind."""
    folders = [part for part in parts_of(source) if Path(part).expanduser().is_dir()]
    counts = Counter(kind_of(file) for folder in folders for file in list_part(folder))
    read = [f"{count} {kind}" for kind, count in sorted(counts.items()) if kind in kinds]
    skipped = [
        f"{count} {kind or 'without a suffix'}"
        for kind, count in sorted(counts.items())
        if kind not in kinds
    ]
    if not skipped:
        return f"read {', '.join(read)} files" if len(read) > 1 else ""
    needed = "text" if kinds == KINDS_OF_FILES else "rows with named columns"
    shown = ", ".join(skipped[:9]) + (", ..." if len(skipped) > 9 else "")
    return f"read {', '.join(read)} files, skipped {shown}, which hold no {needed}"


def kind_of(file: Path) -> str:
    """The suffix in lower case, without that of a compression."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSED), "")
