"""What the documentation site has beyond docs/*.md, made while it is built.

The README in both languages, the course with its outputs where build/course has them, the reference
of every package, the sources that pages link to, and two pages of `jaxlm inspect` that compute.
"""

import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

SITE = Path(__file__).parent
ROOT = SITE.parents[1]
PACKAGE = ROOT / "jaxlm"
sys.path[:0] = [str(ROOT), str(SITE)]

from course import WIDE, course_page, notebooks  # noqa: E402  (beside this file, which is no package)

READMES = {"index.md": "README.md", "index.zh.md": "README.zh.md"}
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(#[^)\s]*)?(?=\))")
LANGUAGES = {".md": "markdown", ".js": "javascript", ".py": "python", ".yaml": "yaml"}
LIVE = {
    "en": ("A model, live", "gpt_tiny", "ROMEO: O, she doth", "live.md"),
    "zh": ("一个会计算的模型", "mini_transformer_zh", "写代码", "live.zh.md"),
}
LIVE_TEXT = {
    "en": "Two blocks, trained on Shakespeare while this site was built. Type another text, change "
    "the temperature, switch a head off: everything is computed here, in your browser. "
    "`jaxlm inspect RUN --text TEXT` writes such a page for your own model "
    "([guide](inspection.md)). [The page alone](report.en.html).",
    "zh": "两层的模型，背下了“写代码的中年人天天写代码”。"
    "改文本，调温度，关掉一个头：一切都在你的浏览器里重算。"
    "`jaxlm inspect RUN --text TEXT` 为你自己的模型写出这样的页面（[指南](inspection.zh.md)）。"
    "[单独打开](report.zh.html)。",
}
SMALL = ["--model.num_layers", "2", "--model.d_model", "64", "--train.steps", "400"]
SMALL += ["--train.eval_every", "200", "--train.checkpoint_every", "200"]


def packages() -> dict[str, list[str]]:
    """The modules of each package; those that stand beside the packages under "modules"."""
    found: dict[str, list[str]] = {"modules": []}
    for path in sorted(PACKAGE.iterdir()):
        if (path / "__init__.py").exists():
            names = sorted(p.stem for p in path.glob("*.py"))
            found[path.name] = [f"jaxlm.{path.name}.{n}" for n in names if n != "__init__"]
        elif path.suffix == ".py" and path.stem != "__init__":
            found["modules"].append(f"jaxlm.{path.stem}")
    return found


def reference_page(name: str, modules: list[str]) -> str:
    title = "Modules" if name == "modules" else f"jaxlm.{name}"
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)]) + "\n"


def public_page() -> str:
    """The names of `import jaxlm`, each with its first sentence and a link."""
    import jaxlm

    lines = ["# jaxlm", "", (jaxlm.__doc__ or "").split("\n\n")[0], "", "| name | |", "|---|---|"]
    for name, home in sorted(jaxlm._HOMES.items()):
        value = getattr(jaxlm, name)
        target = f"{getattr(value, '__module__', f'jaxlm.{home}')}.{name}"
        first = (value.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        lines.append(f"| [`jaxlm.{name}`][{target}] | {first} |")
    return "\n".join(lines) + "\n"


def source_page(path: Path) -> str:
    """A file of the repository, or all files of a folder, as they stand."""
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    parts = [f"# {path.relative_to(ROOT).as_posix()}"]
    for file in files:
        text = file.read_text(encoding="utf-8").rstrip()
        if file.name == "README.md":
            parts.append(re.sub(r"^# .*\n", "", text))
            continue
        parts += [f"## {file.name}"] if len(files) > 1 else []
        parts.append(f"````{LANGUAGES.get(file.suffix, 'text')}\n{text}\n````")
    return "\n\n".join(parts) + "\n"


def page_of(target: Path) -> str:
    """The page that shows a file or folder of the repository."""
    if target.is_relative_to(ROOT / "docs") and target.suffix == ".md":
        return target.relative_to(ROOT / "docs").as_posix()
    if target == ROOT / "docs" / "course":
        return next(notebooks())[1]
    if target.parent == ROOT and target.name in READMES.values():
        return next(page for page, name in READMES.items() if name == target.name)
    if target.parent == PACKAGE and (target / "__init__.py").exists():
        return f"reference/{target.name}.md"
    return f"sources/{target.relative_to(ROOT).as_posix()}.md"


def linked(markdown: str, folder: Path) -> Iterator[Path]:
    """What of the repository a text in a folder links to."""
    for link in LINK.finditer(markdown):
        target = (folder / link[1]).resolve()
        if target.is_relative_to(ROOT) and target.exists():
            yield target


def relinked(markdown: str, folder: Path, page: str) -> str:
    """A text whose links lead to pages of the site."""

    def replace(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if not target.is_relative_to(ROOT) or not target.exists():
            return link[0]
        path = posixpath.relpath(page_of(target), posixpath.dirname(page) or ".")
        return path + (link[2] or "")

    return LINK.sub(replace, markdown)


def on_config(config: Any) -> Any:
    course = [{title: page} for title, page, _ in notebooks()]
    reference = [{"jaxlm": "reference/index.md"}]
    reference += [
        {f"jaxlm.{name}": f"reference/{name}.md"} for name in packages() if name != "modules"
    ]
    reference.append({"Modules": "reference/modules.md"})
    for entry in config.nav:
        for name, value in entry.items():
            entry[name] = {"COURSE": course, "REFERENCE": reference}.get(str(value), value)
    return config


def on_files(files: Files, config: Any) -> Files:
    pages = {page: ROOT / name for page, name in READMES.items()}
    texts = {page: path.read_text(encoding="utf-8") for page, path in pages.items()}
    guides = (ROOT / "docs").glob("*.md")
    wanted = {source for _, _, source in notebooks()}
    for path in [*pages.values(), *guides]:
        wanted |= {*linked(path.read_text(encoding="utf-8"), path.parent)}
    for target in sorted(wanted):
        page = page_of(target)
        if page.startswith("sources/"):
            texts[page] = source_page(target)
    texts |= {f"reference/{name}.md": reference_page(name, of) for name, of in packages().items()}
    texts["reference/index.md"] = public_page()
    texts |= {page: course_page(source) for _, page, source in notebooks()}
    for language, (title, _, _, page) in LIVE.items():
        frame = f'<iframe class="live" src="report.{language}.html" title="{title}"></iframe>'
        texts[page] = f"{WIDE}\n\n# {title}\n\n{LIVE_TEXT[language]}\n\n{frame}\n"
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    for name, content in {
        "assets/site.css": (SITE / "site.css").read_text("utf-8"),
        **reports(),
    }.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    source = page.file.src_uri
    if source in READMES:
        return relinked(markdown, ROOT, source)
    return relinked(markdown, ROOT / "docs", source) if "/" not in source else markdown


def reports() -> dict[str, str]:
    """The pages of `jaxlm inspect`, of models that are trained once and kept in build/live."""
    import jaxlm
    from jaxlm.inspection import report
    from jaxlm.training import fit

    found = {}
    for language, (_, recipe, text, _) in LIVE.items():
        run = ["--run.dir", str(ROOT / "build" / "live" / recipe), "--sample.every", "0"]
        options = run + (SMALL if recipe == "gpt_tiny" else [])
        loaded = fit(jaxlm.load_config(f"{recipe}.yaml", options))
        found[f"report.{language}.html"] = report(loaded, text, recipe, language)
    return found
