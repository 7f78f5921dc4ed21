"""Fonts for pictures with Chinese in them, among those that the system has."""

from contextlib import suppress

# Fonts with Chinese that systems come with, the finest first; Matplotlib's own has none.
CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK JP",  # the name of the file that holds all of them
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Heiti SC",
    "STHeiti",
    "SimHei",
    "SimSun",
    "Droid Sans Fallback",
    "AR PL UMing CN",
    "Arial Unicode MS",
)


def fonts_for(text: str) -> tuple[list[str], str]:
    """Names of fonts that have what Matplotlib's own lacks of a text, and what none of them has."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    def lacking(file: str, text: str) -> str:
        known = FT2Font(file).get_charmap()
        return "".join(c for c in text if ord(c) not in known)

    own = font_manager.findfont("DejaVu Sans")
    missing = lacking(own, "".join(dict.fromkeys(c for c in text if not c.isspace())))
    if not missing:
        return [], ""
    # Matplotlib keeps a list of fonts, which does not know of one that was installed since.
    listed = {entry.fname for entry in font_manager.fontManager.ttflist}
    for file in font_manager.findSystemFonts():
        if file not in listed:
            with suppress(OSError, RuntimeError, ValueError):
                font_manager.fontManager.addfont(file)
    rank = {name: i for i, name in enumerate(CHINESE_FONTS)}
    order = sorted(
        font_manager.fontManager.ttflist, key=lambda e: (rank.get(e.name, len(rank)), e.name)
    )
    fonts = []
    for entry in order:
        # Matplotlib's font of last resort has a box for every character.
        if missing and entry.name not in fonts and not entry.name.startswith("Last Resort"):
            with suppress(OSError, RuntimeError, ValueError):
                left = lacking(entry.fname, missing)
                fonts += [entry.name] if left != missing else []
                missing = left
    return fonts, missing


def advice_on(missing: str) -> str:
    """A sentence about characters that no font of the system has; nothing where there are none."""
    if not missing:
        return ""
    return (
        f"no font here has {missing[:9]!r}, drawn as boxes: a font of Chinese comes with "
        "`apt install fonts-noto-cjk` (dnf: google-noto-sans-cjk-fonts)"
    )
