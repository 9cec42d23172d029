"""What the fields of the C interface are called in Python, for the library's sentences."""

from __future__ import annotations

import re

# A field that is not here has the same name in both.
PYTHON_NAMES = {
    "problem.n": "q.shape[0]",
    "problem.k": "negatives.shape[0]",
    "problem.d": "q.shape[1]",
    "problem.column_offset": "first_row",
    "problem.device": "the device of q",
    "problem.device_index": "the index of q's device",
    "problem.feature_type": "the type of q",
    "problem.queue_type": "the type of negatives",
    "problem.lambda_pos": "positive.per",
    "problem.lambda_neg": "negative.per",
    "problem.renormalize_pos": "positive.renormalize",
    "problem.renormalize_neg": "negative.renormalize",
    "problem.scores": "return_scores",
    "problem.id_mask": "ids",
    "problem.column_bias": "bias",
    "problem.margin_mask": "margin",
    "problem.batch_columns": "batch.shape[0]",
    "args.x_q": "q",
    "args.x_k": "k",
    "args.queue": "negatives",
    "args.x_c": "batch",
    "args.query_ids": "ids",
    "args.column_ids": "negative_ids",
    "args.column_bias": "bias",
    "args.alpha_pos": "positive.alpha",
    "args.shift_pos": "positive.shift",
    "args.alpha_neg": "negative.alpha",
    "args.shift_neg": "negative.shift",
    "args.temperature_pointer": "temperature",
    "args.seed_pointer": "seed",
    "args.offset_pointer": "offset",
    "pairs.x_a": "a",
    "pairs.x_b": "b",
    "pairs.a_ids": "ids",
    "pairs.temperature_pointer": "temperature",
    "push.n": "keys.shape[0]",
    "push.k": "queue.shape[0]",
    "push.d": "queue.shape[1]",
    "push.key_type": "the type of keys",
    "push.queue_type": "the type of the queue",
    "push.device": "the device of keys",
    "push.position_in": "position",
    "push.position_out": "position",
}

# What they are called where a plan is of pairs: there is no q.
PAIR_NAMES = {
    "problem.n": "a.shape[0]",
    "problem.d": "a.shape[1]",
    "problem.device": "the device of a",
    "problem.device_index": "the index of a's device",
    "problem.feature_type": "the type of a",
    "problem.queue_type": "the type of a",
}


def in_python(sentence: str, names: dict[str, str] | None = None) -> str:
    """A sentence of the library with Python's names in it; `names` win over the usual ones."""
    names = PYTHON_NAMES if names is None else PYTHON_NAMES | names

    def name_of_field(match: re.Match) -> str:
        return names.get(f"{match[1]}.{match[2]}", match[2])

    # A star is what a pointer points at.
    return re.sub(r"\b(problem|args|push|pairs|anchors)\.\*?(\w+)", name_of_field, sentence)
