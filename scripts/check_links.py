"""Check that every link of the built documentation leads somewhere.

python scripts/check_links.py build/site

Pages, pictures, scripts and the places within pages that links name; what lies outside of the
folder is counted, not asked for.
"""

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the names of its places."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" or (tag == "a" and name == "name"):
                self.places.add(value or "")


def broken_links(folder: Path) -> tuple[list[str], int, int]:
    """The links that lead nowhere, and how many were looked at inside and outside of the folder."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    broken, inside, outside = [], 0, 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside += parts.scheme in ("http", "https")
                continue
            inside += 1
            start = folder if parts.path.startswith("/") else path.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            there = target.is_file() and (
                not place or target not in pages or place in pages[target].places
            )
            if not there:
                broken.append(f"{path.relative_to(folder)}: {link}")
    return broken, inside, outside


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.resolve()
    broken, inside, outside = broken_links(folder)
    if not inside:
        sys.exit(f"no page with links is in {folder}")
    print(f"{inside} links inside of {folder}, {outside} that lead out and were not asked for")
    if broken:
        sys.exit("\n".join([f"{len(broken)} of them lead nowhere:", *broken]))


if __name__ == "__main__":
    main()
