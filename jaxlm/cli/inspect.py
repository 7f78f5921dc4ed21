"""`jaxlm inspect`: a text's way through a model, as a page that computes."""

import argparse
from pathlib import Path

from jaxlm.cli.output import Verb
from jaxlm.config import JaxlmError
from jaxlm.files import WriteError, check_parent

MARK = "jaxlm inspect</title>"  # in every page that this wrote


def declare_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory, a checkpoint or a Hugging Face model")
    add("--text", required=True, metavar="TEXT", help="the text to follow, with [MASK] for BERT")
    help_output = "the page to write, .html; default: report.html"
    add("--output", default="report.html", metavar="FILE", help=help_output)
    add("--figures", metavar="DIR", help="a folder for the figures as PNG and JSON, too")
    add("--language", choices=("en", "zh"), help="of the page at first; default: the text's")
    add("--overwrite", action="store_true", help="replace what --output and --figures name")


def run_inspect(args: argparse.Namespace) -> None:
    output = Path(args.output)
    if output.suffix.lower() not in (".html", ".htm"):
        raise JaxlmError(f"--output must end in .html, got {args.output}")
    check_page(output, args.overwrite)
    if args.figures:
        check_figures(Path(args.figures), args.overwrite)
    from jaxlm.inspection.pages import unknown_token, write_report
    from jaxlm.loading import load
    from jaxlm.runtime import keep_compiled_programs

    keep_compiled_programs()
    loaded = load(args.source)
    title = Path(args.source).resolve().name
    write_report(loaded, args.text, output, title, args.language)
    if unknown := unknown_token(loaded, args.text):
        print(f"the vocabulary lacks part of the text; the model reads {unknown} there")
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB, open it in a browser")
    if args.figures:
        from jaxlm.inspection.figures import write_figures
        from jaxlm.inspection.fonts import advice_on, fonts_for

        names = write_figures(loaded, args.text, args.figures)
        print(f"{args.figures}: {len(names)} figures as PNG and JSON")
        if advice := advice_on(fonts_for(args.text)[1]):
            print(advice)


def check_page(path: Path, overwrite: bool) -> None:
    """Raise WriteError where a file is there that this verb did not write."""
    check_parent(path)
    if not path.exists():
        return
    if path.is_dir():
        raise WriteError(f"cannot write {path}: it is a folder")
    ours = MARK in path.read_text(encoding="utf-8", errors="replace")[:2000]
    if not ours and not overwrite:
        raise WriteError(f"{path} is there already; --overwrite replaces it")


def check_figures(folder: Path, overwrite: bool) -> None:
    """Raise WriteError where figures could replace files of a user."""
    check_parent(folder)
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder} is a file; --figures takes a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise WriteError(f"{folder} is not empty; --overwrite replaces figures in it")


INSPECT = Verb("a page that follows a text through a model", declare_inspect, run_inspect)
