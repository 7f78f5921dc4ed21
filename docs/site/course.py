"""The notebooks of docs/course as pages: both languages side by side, code, what it put out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[2]
COURSE, BUILD = ROOT / "docs" / "course", ROOT / "build" / "course"
CHINESE, LATIN = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[A-Za-z]+")
WIDE = "---\nhide: [toc]\n---"  # no table of contents beside the page
FORMULA = re.compile(r"\$([^$\n]+)\$")


def notebooks() -> Iterator[tuple[str, str, Path]]:
    """Title, page and source of each notebook."""
    for path in sorted(COURSE.glob("[0-9]*.py")):
        title = re.search(r"^# # (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert title, f"{path} has no title"
        yield title[1], f"course/{path.stem}.md", path


def course_page(path: Path) -> str:
    """A notebook as Markdown: as executed where that is known and no older than the text."""
    executed = BUILD / f"{path.stem}.ipynb"
    notebook: Any = jupytext.read(path)
    if executed.exists():
        done: Any = nbformat.read(executed, as_version=4)
        if [c.source for c in done.cells] == [c.source for c in notebook.cells]:
            notebook = done
    parts = [WIDE]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(side_by_side(cell.source))
        else:
            parts.append(f"```python\n{cell.source}\n```")
            parts += [shown(output) for output in cell.get("outputs", [])]
    place = path.relative_to(ROOT).as_posix()
    parts.append(f"[Open it with Jupyter](../sources/{place}.md): `{place}`, by jupytext.")
    return "\n\n".join(filter(None, parts)) + "\n"


def side_by_side(text: str) -> str:
    """A text cell with its English paragraphs on the left and the Chinese on the right."""
    text = FORMULA.sub(lambda found: convert(found[1]), text)
    sides: tuple[list[str], list[str]] = [], []
    for paragraph in text.split("\n\n"):
        words = re.sub(r"`[^`]*`|<math.*?</math>", "", paragraph)
        sides[len(CHINESE.findall(words)) > len(LATIN.findall(words))].append(paragraph)
    halves = ["\n\n".join(["<div markdown>", *side, "</div>"]) for side in sides]
    return "\n\n".join(['<div class="pair" markdown>', *halves, "</div>"])


def shown(output: Any) -> str:
    """What a cell put out: text, or a picture."""
    if output.output_type == "stream":
        return f"```{{.text .output}}\n{''.join(output.text).rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="figure" src="data:image/png;base64,{data["image/png"].strip()}">'
    text = "".join(data.get("text/plain", "")).rstrip()
    return f"```{{.text .output}}\n{text}\n```" if text else ""
