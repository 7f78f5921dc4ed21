"""What a model writes while it trains: prompts continued, or their masks filled."""

from jaxlm.artifact import Loaded
from jaxlm.config import Config
from jaxlm.config.rules import require
from jaxlm.data import Dataset
from jaxlm.generation import fill, generate
from jaxlm.tokenizer import Tokenizer


def write_texts(loaded: Loaded, config: Config, data: Dataset, step: int) -> list[tuple[str, str]]:
    """Each of the config's prompts with its continuation, or with the text of its masks filled."""
    sample = config.sample
    if config.objective.name == "mlm":
        prompts = sample.prompts or (cloze(data, config.data.seq_len // 2),)
        texts = [filled.text for filled in fill(loaded, list(prompts))]
    else:
        prompts = sample.prompts or (opening(data),)
        texts = generate(
            loaded,
            list(prompts),
            max_new_tokens=sample.max_new_tokens,
            temperature=sample.temperature,
            top_k=sample.top_k,
            top_p=sample.top_p,
            seed=config.run.seed + step,
        )
    return list(zip(prompts, texts, strict=True))


def check_prompts(config: Config, tokenizer: Tokenizer) -> None:
    """Raise ConfigError, before training, for a prompt that leaves nothing to fill."""
    if config.objective.name != "mlm" or not config.sample.every:
        return
    for prompt in config.sample.prompts or ():
        mask = tokenizer.special_token("mask_token")
        require(str(mask) in prompt, "each of sample.prompts", f"a text with a {mask}", prompt)


def opening(data: Dataset) -> str:
    """The prompt that stands for none: empty if a special token opens texts, else a newline."""
    tokenizer = data.tokenizer
    if tokenizer.bos_id is not None or tokenizer.eos_id is not None:
        return ""
    first = tokenizer.decode([int(data.train.tokens[0])])
    return "\n" if "\n" in tokenizer.decode(range(tokenizer.vocab_size)) else first


def cloze(data: Dataset, length: int) -> str:
    """The prompt that stands for none: the first tokens of the text, the middle one masked."""
    tokenizer, store = data.tokenizer, data.val or data.train
    ids = store.tokens[:length].tolist()
    middle = len(ids) // 2
    before, after = tokenizer.decode(ids[:middle]), tokenizer.decode(ids[middle + 1 :])
    return f"{before}{tokenizer.special_token('mask_token')}{after}"
