"""Train a model: python train.py --config gpt_tiny.yaml [--section.field value ...]

The same as `jaxlm train`; `--help` lists every field of a config. Recipes are in configs/.
"""

import sys

from jaxlm.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
