"""Train a model: python train.py --config gpt_tiny.yaml [--section.field value ...]"""

import os
import signal
import sys

from jaxlm.config import ConfigError, JaxlmError, describe_options, load_config

USAGE = """usage: python train.py --config NAME_OR_PATH [--section.field value ...]

Reads a config by path, or by name from the configs folder, and trains in runs/<run.name>.
The same command again continues an unfinished run. Settings, with [defaults]:
"""


def read_arguments(words: list[str]) -> tuple[str, list[str]]:
    """The config's name and the overrides after it."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == "--config":
            rest = words[i + 1 :] if equals else words[i + 2 :]
            value = value if equals else "".join(words[i + 1 : i + 2])
            if value:
                return value, words[:i] + rest
    raise ConfigError("give a config, as in: python train.py --config gpt_tiny.yaml")


def main(words: list[str]) -> int:
    """Exit status 0, 2 after one sentence about a mistake, or 130 when interrupted."""
    if "--help" in words or "-h" in words:
        print(USAGE + describe_options())
        return 0
    # Until training begins there is nothing to save, and an import in C may swallow the interrupt.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        name, overrides = read_arguments(words)
        config = load_config(name, overrides)
        from jaxlm.training import fit

        fit(config)
    except JaxlmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
