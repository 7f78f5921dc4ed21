"""What a task leaves out or cuts of its rows, counted and told."""

from collections.abc import Mapping

from jaxlm.data.dataset import REPEATS

# Phrases for the counts of what was left out or cut, as printed at the start of a run.
NOTES = {
    "rows_without_text": "rows without text, left out",
    "rows_without_label": "rows without a label, left out",
    "rows_sharing_context": "training rows left out, as their context is in validation or test",
    "rows_sharing_text": "training rows left out, as their text is in validation or test",
    "repeats_group": REPEATS["group"],
    "repeats_drop": REPEATS["drop"],
    "repeats_keep": "rows repeat the text of another, split like any other",
    "repeats_labelled_apart": "rows repeat the text of another with another label",
    "held_out_repeats": "validation or test rows that repeat a training row",
    "pairs_too_long": "pairs of which a text is longer than {limit} tokens, left out",
    "texts_cut": "texts longer than {limit} tokens, cut at their end",
    "texts_in_parts": "texts longer than {limit} tokens, processed in parts",
    "questions_cut": "questions longer than half of {limit} tokens, cut at their end",
    "contexts_in_windows": "contexts longer than {limit} tokens, processed in windows",
    "answers_in_no_window": "answers that no window holds, counted as no answer",
    "dialogues_cut": "dialogues longer than {limit} tokens, cut",
    "dialogues_without_reply": "dialogues whose first turn leaves no room for a reply, left out",
}


def notes_in_words(notes: Mapping[str, int], limit: int) -> list[str]:
    """A phrase for each count above 0; `limit` is the most tokens of an example."""
    phrases = {key: phrase.format(limit=limit) for key, phrase in NOTES.items()}
    return [f"{count:,} {phrases[key]}" for key, count in notes.items() if count]
