"""What the paper looks at: statistics of the scores before and after the feature transformation (FT).

"raw" scores are q.k and q.z_j. "sampled" scores are those of the loss, q^.k^ and q^.z^_j: with FT they are of the
extrapolated pair and of the interpolated queue, without FT they are the raw ones. All are inner products, not yet
divided by the temperature.
"""

import math

import flashnce

CURVES = ("pos_mean", "pos_variance", "neg_mean", "neg_variance", "acc1")


def measure(row, scores, preset):
    """One row of the history, from the row that a ScoreMeter made of a step, and the step's Scores."""
    found = {f"raw_{name}": row[f"raw_{name}"] for name in CURVES}
    found |= {f"sampled_{name}": row[f"mixed_{name}"] for name in CURVES}
    if preset == "ft":
        found |= algebra(scores)
    return found


def algebra(scores):
    """What FT with one lambda per call must do to the scores, given the lambdas that this call drew.

    Positives, exact for unit vectors: 1 - s' = (1 - s) * (1 + 2 lambda (lambda - 1)).
    Negatives: a mixed score is lambda A_j + (1 - lambda) A_pi(j), so its variance over the queue is that of A times
    lambda^2 + (1 - lambda)^2, up to 2 lambda (1 - lambda) times the correlation of A with its random permutation.
    """
    lambda_pos, lambda_neg = drawn_lambdas(scores)
    pos_factor = 1 + 2 * lambda_pos * (lambda_pos - 1)
    expected = 1 - (1 - scores.unmixed.pos.double()) * pos_factor
    return {
        "pos_factor_expected": pos_factor,
        "pos_factor": ((1 - scores.mixed.pos).mean() / (1 - scores.unmixed.pos).mean()).item(),
        "pos_error": (scores.mixed.pos - expected).abs().max().item(),
        "neg_factor_expected": lambda_neg**2 + (1 - lambda_neg) ** 2,
        "neg_factor": (scores.mixed.neg_variance.mean() / scores.unmixed.neg_variance.mean()).item(),
        "neg_correlation_weight": 2 * lambda_neg * (1 - lambda_neg),
    }


def drawn_lambdas(scores, preset="ft"):
    """The two lambdas of a call of the preset, from the seed that it reports."""
    positive, negative = flashnce.PRESETS[preset]
    # One lambda per call does not depend on the sizes.
    draw = {"rows": 1, "d": 1, "seed": int(scores.seed), "offset": scores.offset}
    lambda_pos = flashnce.sample_lambda("positive", positive, **draw)
    lambda_neg = flashnce.sample_lambda("negative", negative, **draw)
    return lambda_pos.item(), lambda_neg.item()


def check_algebra(rows, queue_size):
    """[(sentence, holds)] over the rows of a history that have the factors; [] if none has."""
    rows = [row for row in rows if "pos_factor" in row]
    if not rows:
        return []
    pos_error = max(row["pos_error"] for row in rows)
    # The correlation of a row's scores with their permutation has standard deviation 1/sqrt(K); the mean over the batch
    # has at most that. Five of them are allowed.
    neg_error = max(
        abs(row["neg_factor"] - row["neg_factor_expected"]) / row["neg_correlation_weight"] for row in rows
    )
    neg_bound = 5 / math.sqrt(queue_size)
    pos, pos_expected, neg, neg_expected = (
        sum(row[name] for row in rows) / len(rows)
        for name in ("pos_factor", "pos_factor_expected", "neg_factor", "neg_factor_expected")
    )
    return [
        (
            f"FT stretches 1 - positive score by {pos:.3f} on average; the drawn lambdas say {pos_expected:.3f}, "
            f"row by row the score is off by {pos_error:.1e} at most (allowed 1e-4)",
            pos_error <= 1e-4,
        ),
        (
            f"FT scales the variance of the negative scores by {neg:.3f} on average; the drawn lambdas say "
            f"{neg_expected:.3f}, correlation {neg_error:.3f} at most (allowed 5/sqrt(K) = {neg_bound:.3f})",
            neg_error <= neg_bound,
        ),
    ]
