"""`jaxlm generate`: prompts continued."""

import argparse
import json

from jaxlm.cli.verb import Verb
from jaxlm.config.rules import require


def declare_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="RUN", help="a run directory or a checkpoint")
    add("--prompt", action="append", required=True, metavar="TEXT", help="may be repeated")
    add("--max-new-tokens", type=int, default=64, metavar="N", help="at most; default 64")
    add("--temperature", type=float, default=1.0, metavar="X", help="0 is greedy; default 1")
    add("--top-k", type=int, metavar="N", help="sample among the N likeliest tokens")
    add("--top-p", type=float, metavar="X", help="sample from the likeliest share of probability")
    add("--seed", type=int, default=0, metavar="N", help="default 0")
    add("--num-samples", type=int, default=1, metavar="N", help="of each prompt; default 1")
    add("--json", action="store_true", help="one JSON object a sample: prompt and text")


def run_generate(args: argparse.Namespace) -> None:
    from jaxlm.generation import Settings, generate
    from jaxlm.loading import load
    from jaxlm.training.loop import keep_compiled_programs

    require(args.num_samples >= 1, "num_samples", "at least 1", args.num_samples)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    settings = {name: getattr(args, name) for name in names}
    Settings(**settings)  # complains before a model is loaded
    keep_compiled_programs()
    prompts = [prompt for prompt in args.prompt for _ in range(args.num_samples)]
    texts = generate(load(args.source), prompts, **settings)
    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        if args.json:
            print(json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False))
        else:
            print("---\n" * (i > 0) + prompt + text)


GENERATE = Verb("continue prompts with a trained model", declare_generate, run_generate)
