"""Inspection: what happens inside a model, read, edited and explained.

Public names are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlm.inspection.activations import activation_shapes, forward, run, run_generation
    from jaxlm.inspection.attribution import Attribution, direct_attribution
    from jaxlm.inspection.changes import Change, adapter_changes, checkpoint_curve, weight_changes
    from jaxlm.inspection.heads import (
        HeadScores,
        attention_maps,
        attention_rollout,
        duplicate_token_score,
        head_entropy,
        head_scores,
        induction_score,
        previous_token_score,
        repeated_ids,
    )
    from jaxlm.inspection.lenses import (
        TunedLens,
        logit_lens,
        residual_stream,
        train_tuned_lens,
        tuned_lens_loss,
    )
    from jaxlm.inspection.naming import InspectionError
    from jaxlm.inspection.pages import report, write_report
    from jaxlm.inspection.patching import (
        ablated,
        ablation_effects,
        logit_difference,
        patching_effects,
        replaced,
        restored,
    )
    from jaxlm.inspection.predictions import (
        Candidate,
        TokenScores,
        next_token_table,
        token_scores,
        token_texts,
    )
    from jaxlm.inspection.probing import ProbeScores, probe_layers, states_of_texts
    from jaxlm.inspection.saliency import (
        gradient_x_input,
        integrated_gradients,
        label_target,
        occlusion,
        text_target,
        token_target,
        value_zeroing,
    )
    from jaxlm.inspection.vectors import (
        Neighbour,
        PrincipalComponents,
        analogy,
        neighbours,
        principal_components,
        word_in_contexts,
        word_vector,
    )

_HOMES = {
    "Attribution": "attribution",
    "Candidate": "predictions",
    "Change": "changes",
    "HeadScores": "heads",
    "InspectionError": "naming",
    "Neighbour": "vectors",
    "PrincipalComponents": "vectors",
    "ProbeScores": "probing",
    "TokenScores": "predictions",
    "TunedLens": "lenses",
    "ablated": "patching",
    "ablation_effects": "patching",
    "activation_shapes": "activations",
    "adapter_changes": "changes",
    "analogy": "vectors",
    "attention_maps": "heads",
    "attention_rollout": "heads",
    "checkpoint_curve": "changes",
    "direct_attribution": "attribution",
    "duplicate_token_score": "heads",
    "forward": "activations",
    "gradient_x_input": "saliency",
    "head_entropy": "heads",
    "head_scores": "heads",
    "induction_score": "heads",
    "integrated_gradients": "saliency",
    "label_target": "saliency",
    "logit_difference": "patching",
    "logit_lens": "lenses",
    "neighbours": "vectors",
    "next_token_table": "predictions",
    "occlusion": "saliency",
    "patching_effects": "patching",
    "previous_token_score": "heads",
    "principal_components": "vectors",
    "probe_layers": "probing",
    "repeated_ids": "heads",
    "replaced": "patching",
    "report": "pages",
    "residual_stream": "lenses",
    "restored": "patching",
    "run": "activations",
    "run_generation": "activations",
    "states_of_texts": "probing",
    "text_target": "saliency",
    "token_scores": "predictions",
    "token_target": "saliency",
    "token_texts": "predictions",
    "train_tuned_lens": "lenses",
    "tuned_lens_loss": "lenses",
    "value_zeroing": "saliency",
    "weight_changes": "changes",
    "word_in_contexts": "vectors",
    "word_vector": "vectors",
    "write_report": "pages",
}

__all__ = [
    "Attribution",
    "Candidate",
    "Change",
    "HeadScores",
    "InspectionError",
    "Neighbour",
    "PrincipalComponents",
    "ProbeScores",
    "TokenScores",
    "TunedLens",
    "ablated",
    "ablation_effects",
    "activation_shapes",
    "adapter_changes",
    "analogy",
    "attention_maps",
    "attention_rollout",
    "checkpoint_curve",
    "direct_attribution",
    "duplicate_token_score",
    "forward",
    "gradient_x_input",
    "head_entropy",
    "head_scores",
    "induction_score",
    "integrated_gradients",
    "label_target",
    "logit_difference",
    "logit_lens",
    "neighbours",
    "next_token_table",
    "occlusion",
    "patching_effects",
    "previous_token_score",
    "principal_components",
    "probe_layers",
    "repeated_ids",
    "replaced",
    "report",
    "residual_stream",
    "restored",
    "run",
    "run_generation",
    "states_of_texts",
    "text_target",
    "token_scores",
    "token_target",
    "token_texts",
    "train_tuned_lens",
    "tuned_lens_loss",
    "value_zeroing",
    "weight_changes",
    "word_in_contexts",
    "word_vector",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jaxlm.inspection.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jaxlm.inspection' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
