"""`jaxlm train`, the same as `python train.py`: train a config in a run directory."""

from jaxlm.config import ConfigError, describe_options, load_config
from jaxlm.runtime import set_up

USAGE = """usage: python train.py --config NAME_OR_PATH [--section.field value ...]
   or: jaxlm train --config NAME_OR_PATH [--section.field value ...]

Reads a config by path, or by name from the configs folder, and trains in runs/<run.name>.
The same command again continues an unfinished run. The fields, with [defaults]:
"""


def run(words: list[str]) -> None:
    """Train the config named on the command line."""
    if "--help" in words or "-h" in words:
        print(USAGE + describe_options())
        return
    name, overrides = read_arguments(words)
    config = load_config(name, overrides)
    set_up(config.train.deterministic)
    from jaxlm.processes import failing_alone, join

    join(config.parallel)
    from jaxlm.training import fit

    with failing_alone():
        fit(config)


def read_arguments(words: list[str]) -> tuple[str, list[str]]:
    """The config's name, and the other words, which override its fields.

    Raises: ConfigError without --config.
    """
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config":
            rest = words[i + 1 :] if equals else words[i + 2 :]
            value = value if equals else "".join(words[i + 1 : i + 2])
            if value:
                return value, words[:i] + rest
    raise ConfigError("give a config, as in: python train.py --config gpt_tiny.yaml")
