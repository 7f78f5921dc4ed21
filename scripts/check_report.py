"""Open reports in headless Chromium: how long they take, what they ask for, how they look.

python -m scripts.check_report runs/gpt_tiny --text "ROMEO: O, she doth teach" --pictures pictures
"""

import argparse
import tempfile
import time
from pathlib import Path

import jaxlm
from jaxlm.inspection import write_report
from tests.inspection.browser import Browser

WIDTHS = (1280, 400)
TYPED = 32  # tokens of the text whose time is taken
TIMED = """
const ids = Array.from({ length: Math.min(N, T_MAX) }, (_, t) => state.ids[t % state.ids.length]);
const times = [];
for (let i = 0; i < 5; i++) {
  const start = performance.now();
  retoken(ids);
  times.push([performance.now() - start, state.ms]);
}
return times.sort((a, b) => a[0] - b[0])[2];
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--text", required=True)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(jaxlm.load(args.run), args.text, page, Path(args.run).name)
        print(f"size {page.stat().st_size / 1e6:.3f} MB")
        for width in WIDTHS:
            profile = Path(folder) / f"profile_{width}"
            with Browser(page, profile, width) as browser:
                ready = browser.run("return readyAt")
                print(f"width {width}: ready {ready:.0f} ms after opening began", end="; ")
                print(f"overflow {browser.run('return document.documentElement.scrollWidth')} px")
                difference = browser.run("return state.difference")
                print(f"largest difference from jaxlm {difference}, asked {browser.requests}")
                if args.pictures:
                    args.pictures.mkdir(exist_ok=True)
                    time.sleep(0.2)
                    (args.pictures / f"report_{width}.png").write_bytes(browser.picture())
                if browser.run("return state.model !== null"):
                    whole, computed = browser.run(TIMED.replace("N,", f"{TYPED},"))
                    print(f"a text of {TYPED} tokens computed in {computed:.0f} ms", end="; ")
                    print(f"computed and drawn in {whole:.0f} ms")


if __name__ == "__main__":
    main()
