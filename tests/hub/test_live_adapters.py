"""Live: adapters that we write compute the same in PEFT, and those of PEFT here."""

import json

import pytest

import jaxlm
from tests.fixtures.reference import logits_difference
from tests.hub.adapted import TARGETS, adapt

pytestmark = pytest.mark.parity

LLAMA, BERT = ["q_proj", "v_proj", "down_proj"], ["query", "output.dense"]
# Targets of theirs, and what is saved whole where PEFT does not know it by the task.
MODULES = {
    "gpt2": (["c_attn", "mlp.c_proj"], None),
    "llama": (LLAMA, ["embed_tokens", "lm_head"]),
    "mistral": (LLAMA, None),
    "qwen2": (LLAMA, None),
    "qwen3": (LLAMA, None),
    "bert": (BERT, None),
    "GPT2ForSequenceClassification": (["c_attn", "c_fc"], None),
    "LlamaForSequenceClassification": (LLAMA, None),
    "LlamaForTokenClassification": (LLAMA, None),
    "BertForSequenceClassification": (BERT, ["pooler"]),
    "BertForQuestionAnswering": (BERT, None),
    "BertModel": (BERT, None),
    "RobertaForSequenceClassification": (BERT, None),
    "RobertaForTokenClassification": (["query", "key"], None),
    "DistilBertForSequenceClassification": (["q_lin", "lin2"], ["pre_classifier"]),
    "XLMRobertaForSequenceClassification": (BERT, None),
}


def their_model(name, folder):
    """A model of theirs in eval mode, saved."""
    from scripts.reference_models import reference_model

    model = reference_model(name).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", MODULES)
def test_ours_compute_the_same_in_peft(name, tmp_path):
    import peft

    model = their_model(name, tmp_path / "base")
    base = jaxlm.load(tmp_path / "base")
    adapt(base, tmp_path / "adapters", tmp_path / "base", TARGETS, rank=3, alpha=4.0)
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "adapters").merge_and_unload()
    theirs.save_pretrained(tmp_path / "merged")
    plain = logits_difference(base, tmp_path / "merged")
    assert plain > 1e-2, "the adapters change nothing"
    assert logits_difference(jaxlm.load(tmp_path / "adapters"), tmp_path / "merged") < 1e-4


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_theirs_compute_the_same_here(name, rslora, tmp_path):
    import peft
    import torch

    targets, saved = MODULES[name]
    kinds = {"ForSequence": "SEQ_CLS", "ForToken": "TOKEN_CLS", "ForQuestion": "QUESTION_ANS"}
    kinds |= {"Model": "FEATURE_EXTRACTION", "bert": None}
    task = next((kind for part, kind in kinds.items() if part in name), "CAUSAL_LM")
    model = their_model(name, tmp_path / "base")
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=targets, modules_to_save=saved, task_type=task,
        use_rslora=rslora, rank_pattern={targets[0]: 2}, alpha_pattern={targets[1]: 7},
    )  # fmt: skip
    torch.manual_seed(1)
    model = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) / 4)
    model.save_pretrained(tmp_path / "adapters")
    told = json.loads((tmp_path / "adapters" / "adapter_config.json").read_text())
    assert told["r"] == 3
    loaded = jaxlm.load(tmp_path / "adapters", base=tmp_path / "base")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert logits_difference(jaxlm.load(tmp_path / "base"), tmp_path / "merged") > 1e-2
    assert logits_difference(loaded, tmp_path / "merged") < 1e-4
