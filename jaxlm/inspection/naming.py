"""Which activations a pattern means: globs, regular expressions, and help for a wrong name."""

import difflib
import re
from collections.abc import Iterable

from jaxlm.config import JaxlmError

Patterns = str | Iterable[str]


class InspectionError(JaxlmError):
    """A model cannot be taken apart as was asked."""


def listed_patterns(patterns: Patterns) -> tuple[str, ...]:
    """Patterns, or one of them, as a tuple. Raises: InspectionError for what is no text."""
    found = (patterns,) if isinstance(patterns, str) else patterns
    found = tuple(found) if isinstance(found, Iterable) else (found,)
    wrong = [pattern for pattern in found if not isinstance(pattern, str)]
    if wrong:
        raise InspectionError(f'a pattern is a text such as "**/weights", got {wrong[0]!r:.60}')
    return found


def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The regex of a pattern: `re:` and a regex, or a glob.

    In a glob `*` and `?` stand for characters of one part of a path, `**` for anything.

    Raises: InspectionError for what is no regex.
    """
    if pattern.startswith("re:"):
        try:
            return re.compile(pattern.removeprefix("re:"))
        except re.error as error:
            raise InspectionError(f"{pattern!r} is no regular expression: {error}") from None
    glob = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("".join(glob.get(part, re.escape(part)) for part in parts))


def refuse_unmatched(patterns: Iterable[str], names: Iterable[str]) -> None:
    """Raise InspectionError for a pattern that no name matches, with the nearest name."""
    names = list(names)
    for pattern in patterns:
        if any(compiled_pattern(pattern).fullmatch(name) for name in names):
            continue
        if not names:
            raise InspectionError("the model shows no activations: its call takes no `tap`")
        near = difflib.get_close_matches(pattern.removeprefix("re:"), names, n=1, cutoff=0)
        raise InspectionError(
            f"the model shows no activation {pattern!r}; the nearest is {near[0]!r}, and "
            "`jaxlm.inspection.activation_shapes(loaded)` lists them all"
        )
