"""explain: its numbers against the reference in float64, what alpha does, and the command."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from support import batch, drawn, reference_of

import flashnce
from flashnce import Mix
from flashnce.scores import explain
from flashnce.scores._explain import QUANTILES, _quantiles
from flashnce.torch import InfoNCE, Queue

TAU, DRAWS = 0.2, 5
FT = (Mix(2.0, shift=1.0), Mix(1.6))


def quantiles(values):
    cuts = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    return torch.quantile(values.double().flatten(), cuts).tolist()


@pytest.mark.parametrize(("positive", "negative", "anchor"), [
    (*FT, "mixed"), (*FT, "query"), (FT[0], None, "mixed"), (None, FT[1], "mixed"),
    (Mix(2.0, shift=1.0, per="element"), Mix(1.6, per="row"), "mixed"),
])  # fmt: skip
def test_the_numbers_are_those_of_the_reference(positive, negative, anchor):
    q, k, z = batch()
    found = explain(q, k, z, InfoNCE(TAU, positive=positive, negative=negative, anchor=anchor), draws=DRAWS, seed=7)
    assert (found.n, found.k, found.d, found.draws) == (24, 80, 12, DRAWS)
    names = ["queue", *(["mixed", "union"] if negative else [])]
    assert list(found.effective_negatives) == names
    lambdas = {"lambda_pos": [], "lambda_neg": []}
    seen = {name: {"pos": [], "loss": [], "effective": [], "variance": []} for name in names}
    for seed in range(7, 7 + DRAWS):
        for name, values in drawn(positive, negative, 24, 80, 12, seed).items():
            if name in lambdas:
                lambdas[name].append(values.flatten())
        for name in names:
            options = {"temperature": TAU, "anchor": anchor, "reduction": "none", "return_scores": True}
            mixes = negative if name != "queue" else None
            columns = {"columns": name} if mixes else {}
            loss, mixed, _ = reference_of(q, k, z, positive, mixes, seed=seed, **options, **columns)
            seen[name]["loss"].append(loss)
            seen[name]["pos"].append(mixed["pos"])
            seen[name]["effective"].append(mixed["entropy"].exp().mean())
            seen[name]["variance"].append(mixed["neg_variance"].mean())
    own = seen["mixed" if negative else "queue"]
    assert found.pos_after.quantiles == pytest.approx(quantiles(torch.stack(own["pos"])), abs=1e-5)
    hardness = 1 - torch.exp(-torch.stack(own["loss"]))
    assert found.hardness_after.mean == pytest.approx(hardness.mean().item(), rel=1e-5)
    assert found.hardness_after.quantiles == pytest.approx(quantiles(hardness), abs=1e-5)
    assert found.neg_variance_after == pytest.approx(torch.stack(own["variance"]).mean().item(), rel=1e-4)
    for name in names:
        expected = torch.stack(seen[name]["effective"]).mean().item()
        assert found.effective_negatives[name] == pytest.approx(expected, rel=1e-4), name
    for name, values in lambdas.items():
        spread = getattr(found, name)
        assert (spread is None) == (not values)
        if values:
            assert spread.quantiles == pytest.approx(quantiles(torch.cat(values)))
    plain, _, _ = reference_of(q, k, z, temperature=TAU, reduction="none", return_scores=True)
    assert found.hardness_before.mean == pytest.approx((1 - torch.exp(-plain)).mean().item(), rel=1e-5)


def test_alpha_below_one_draws_extreme_lambdas():
    q, k, z = batch()
    below, uniform, above = explain(q, k, z, draws=64, alphas=(0.2, 1.0, 5.0)).alphas
    # A uniform lambda is within 0.1 of an end one time in five: 1024 draws, five standard deviations.
    assert uniform.extreme == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / 1024) ** 0.5)
    assert below.extreme > 0.5 > uniform.extreme > above.extreme and below.std > uniform.std > above.std
    # The variance of lambda A + (1 - lambda) B is least where lambda is near 1/2.
    assert below.neg_variance > uniform.neg_variance > above.neg_variance
    assert below.effective_negatives < above.effective_negatives


def test_without_mixing_there_is_nothing_to_tell_apart():
    q, k, _ = batch()
    found = explain(q, k, Queue(80, 12), InfoNCE(TAU), draws=3)
    assert found.lambda_pos is None and found.lambda_neg is None and found.pos_before == found.pos_after
    assert list(found.effective_negatives) == ["queue"] and "alpha" not in found.as_text()
    assert json.loads(json.dumps(found.as_dict()))["k"] == 80


def test_nothing_has_a_gradient_and_bad_draws_are_refused():
    q, k, z = batch()
    explain(q, k, z, draws=1)
    assert q.grad is None
    with pytest.raises(ValueError, match="draws is 0; it must be an int of 1 or more"):
        explain(q, k, z, draws=0)


def test_quantiles_are_those_of_torch_and_may_be_many():
    for size in (1, 2, 3, 100, 12345):
        values = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
        expected = torch.quantile(values, torch.tensor(QUANTILES, dtype=torch.float64))
        assert _quantiles(values) == tuple(expected.tolist())
    assert all(math.isnan(x) for x in _quantiles(torch.tensor([0.0, math.nan], dtype=torch.float64)))
    # torch.quantile takes 16 million values.
    assert _quantiles(torch.ones((1 << 24) + 1, dtype=torch.float64)) == (1.0,) * len(QUANTILES)


def command(*arguments):
    program = [sys.executable, "-m", "flashnce", "explain", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120)


def test_the_command_reads_npz_and_tensors(tmp_path):
    numpy = pytest.importorskip("numpy")
    q, k, z = (x.detach().cpu() for x in batch())
    torch.save({"q": q, "k": k, "negatives": z}, tmp_path / "batch.pt")
    numpy.savez(tmp_path / "batch.npz", q=q, k=k, negatives=z)
    outputs = [command(tmp_path / name, "--draws", 3).stdout for name in ("batch.pt", "batch.npz")]
    expected = explain(q, k, z, InfoNCE(TAU, preset="ft"), draws=3)
    assert outputs == [expected.as_text() + "\n"] * 2
    assert "effective negatives of Ẑ ∪ Z" in outputs[0]
    made = json.loads(command("--shape", 4, 16, 8, "--draws", 2, "--json").stdout)
    assert made["n"] == 4 and made["lambda_pos"]["mean"] > 1


def test_json_has_null_for_what_is_no_number(tmp_path):
    q = torch.full((2, 4), math.nan)
    torch.save({"q": q, "k": torch.ones(2, 4), "negatives": torch.ones(8, 4)}, tmp_path / "b")

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(command(tmp_path / "b", "--draws", 1, "--json").stdout, parse_constant=refuse)
    assert found["pos_before"]["mean"] is None and found["lambda_pos"]["mean"] > 1


@pytest.mark.parametrize("kind", ["truncated", "npy", "objects"])
def test_what_is_no_npz_is_one_sentence(tmp_path, kind):
    numpy = pytest.importorskip("numpy")
    path = tmp_path / "batch.npz"
    if kind == "npy":
        numpy.save(tmp_path / "batch.npy", numpy.ones((2, 2)))
        (tmp_path / "batch.npy").rename(path)
    else:
        numpy.savez(path, q=numpy.array(["x"] if kind == "objects" else numpy.ones((9, 9))))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    done = command(path)
    assert done.returncode == 1 and done.stderr == f"flashnce explain: error: {path} is no readable .npz file\n"


@pytest.mark.parametrize(("content", "sentence"), [
    ({"q": 1, "k": torch.ones(2, 2), "negatives": torch.ones(4, 2)}, "has a q that is a int; it must hold q [N,D]"),
    ({"q": torch.ones(2), "k": torch.ones(2, 2), "negatives": torch.ones(4, 2)}, "has a q of shape [2]; it must"),
    ({"q": torch.ones(2, 2)}, "has no k; it must hold q [N,D], k [N,D] and negatives [K,D] by name"),
    ([torch.ones(2, 2)], "holds no dict"),
    (b"nothing", "is no .npz file and holds no tensors that torch.save wrote"),
    ({"q": torch.ones(2, 2), "k": torch.ones(3, 2), "negatives": torch.ones(4, 2)}, "k has shape [3, 2]"),
    (None, "No such file or directory"),
])  # fmt: skip
def test_errors_of_the_command_are_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "batch.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    done = command(path)
    assert done.returncode == 1 and done.stderr.startswith("flashnce explain: error: "), done.stderr
    assert sentence in done.stderr and done.stderr.count("\n") == 1
    assert "one of BATCH and --shape" in command().stderr and flashnce.__version__


def test_a_shape_that_is_none_is_one_sentence():
    done = command("--shape", -1, 4, 8)
    assert done.stderr == "flashnce explain: error: --shape is -1 4 8; N, K and D must be 1 or more\n"
