"""Record what tiny reference models generate, for tests without torch.

python -m scripts.make_generation_fixtures    (needs the parity extra; writes tests/fixtures/)
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from scripts.reference_models import MODELS

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures"
FAMILIES = ("gpt2", "llama", "qwen2")
LIMIT, NEW = 256, 200
CLEAR = 1e-3  # the two best logits differ by more, or another order of summation may swap them
VARIETY = 20  # different tokens in a text
PROMPT_LENGTHS = (5, 11, 2)
RULES = {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 9}
LENGTH_PENALTIES = (1.0, 0.5, 1.8)


def record(family: str) -> dict[str, np.ndarray]:
    """Weights and prompts, greedy tokens, greedy tokens under rules, and beams with their scores.

    The first seed whose greedy tokens are clear and varied is taken.
    """
    for seed in range(1000):
        model, prompts = make(family, seed)
        greedy = []
        while len(greedy) < len(prompts):
            greedy.append(generate(model, prompts[len(greedy)], max_new_tokens=NEW))
            varied = len(set(greedy[-1][0].tolist())) >= VARIETY
            if not varied or margin(model, greedy[-1]) < CLEAR:
                break
        else:
            break
    else:
        raise SystemExit(f"no seed makes a clear {family}")
    eos = int(greedy[0][0, -NEW + 9])  # a token that beams and rules meet
    arrays: dict[str, Any] = {"config": json.dumps(model.config.to_dict()), "eos": eos}
    print(family, "seed", seed)
    arrays |= {f"weights/{name}": x.detach().numpy() for name, x in model.state_dict().items()}
    for i, prompt in enumerate(prompts):
        arrays[f"prompt/{i}"] = prompt[0].numpy()
        arrays[f"greedy/{i}"] = greedy[i][0, prompt.shape[1] :].numpy()
        ruled = generate(model, prompt, max_new_tokens=60, eos_token_id=eos, **RULES)
        arrays[f"ruled/{i}"] = ruled[0, prompt.shape[1] :].numpy()
        for j, penalty in enumerate(LENGTH_PENALTIES):
            found = generate(
                model,
                prompt,
                max_new_tokens=24,
                num_beams=4,
                num_return_sequences=4,
                eos_token_id=eos,
                length_penalty=penalty,
                return_dict_in_generate=True,
                output_scores=True,
            )
            arrays[f"beams/{i}/{j}"] = found.sequences[:, prompt.shape[1] :].numpy()
            arrays[f"scores/{i}/{j}"] = found.sequences_scores.numpy()
    return {name: np.asarray(x) for name, x in arrays.items()}


def make(family: str, seed: int) -> tuple[Any, list[torch.Tensor]]:
    """A random model whose greedy text does not soon go in circles, and prompts."""
    torch.manual_seed(seed)
    kind, config = MODELS[family]
    size = {"n_positions": LIMIT} if family == "gpt2" else {"max_position_embeddings": LIMIT}
    config = getattr(transformers, kind).config_class(**config | size)
    model = getattr(transformers, kind)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if parameter.ndim < 2:
                value = 0.2 * noise + (not name.endswith("bias"))
            else:  # small token vectors: a tied head would repeat the token it has read
                value = noise * (0.15 if "wte" in name or "embed_tokens" in name else 0.5)
            parameter.copy_(value.half().float())  # half precision halves the file
    prompts = [torch.randint(0, config.vocab_size, (1, n)) for n in PROMPT_LENGTHS]
    return model, prompts


def generate(model: Any, prompt: torch.Tensor, **options: Any) -> Any:
    return model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        pad_token_id=0,
        **options,
    )


def margin(model: Any, row: torch.Tensor) -> float:
    """By how much the likeliest token leads the second, at the closest place."""
    with torch.no_grad():
        best = model(row).logits[0, -NEW - 1 : -1].topk(2).values
    return float((best[:, 0] - best[:, 1]).min())


def main() -> None:
    for family in FAMILIES:
        arrays = record(family)
        small = {
            name: x.astype(np.float16) if name.startswith("weights/") else x
            for name, x in arrays.items()
        }
        path = FOLDER / f"generation_{family}.npz"
        np.savez_compressed(path, allow_pickle=False, **small)
        print(path, path.stat().st_size, arrays["greedy/0"][:40], arrays["beams/0/0"][:, :8])


if __name__ == "__main__":
    main()
