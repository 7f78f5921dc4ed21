"""The text of `--help`, made from the options of the sections."""

import dataclasses
import textwrap
import typing

from jaxlm.config.sections import section_kinds


def describe_options(width: int = 100) -> str:
    """Every field with its meaning, choices and default, by section: the body of `--help`."""
    paragraphs = []
    for name, kind in section_kinds().items():
        lines = [f"{name}: {(kind.__doc__ or '').splitlines()[0]}"]
        types = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            owners = field.metadata["tasks"]
            meaning = f"{', '.join(owners)}: " * bool(owners) + field.metadata["meaning"]
            choices = describe_choices(types[field.name])
            lines += textwrap.wrap(
                f"{meaning}{choices} [{describe_default(field.default)}]",
                width,
                initial_indent=f"  --{name}.{field.name}".ljust(30) + " ",
                subsequent_indent=" " * 31,
                break_on_hyphens=False,
            )
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def describe_choices(base: object) -> str:
    kinds = (base, *typing.get_args(base))  # a Literal, or a union of one with None
    choices = [c for kind in kinds for c in typing.get_args(kind) if isinstance(c, str)]
    return f" ({' | '.join(choices)})" if len(choices) > 1 else ""


def describe_default(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
