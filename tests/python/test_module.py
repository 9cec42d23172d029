"""InfoNCE as a module, the command line, the library's search path, and the example of the README."""

from __future__ import annotations

import copy
import pickle
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support import batch, generator, gradients, rng_state

import flashnce
from flashnce import _library, _options
from flashnce.torch import PRESETS, InfoNCE, Mix, Queue, ShardedQueue, info_nce, scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_two_mixes(preset):
    q, k, negatives = batch()
    positive, negative = PRESETS[preset]
    expected = info_nce(q, k, negatives, temperature=0.2, positive=positive, negative=negative, seed=1)
    assert InfoNCE(0.2, preset)(q, k, negatives, seed=1).item() == expected.item()


def test_an_explicit_mix_wins_over_the_preset():
    q, k, negatives = batch()
    mix = Mix(0.5, per="row")
    criterion = InfoNCE(0.2, "ft", negative=mix)
    assert criterion.positive == PRESETS["ft"][0] and criterion.negative == mix
    expected = info_nce(q, k, negatives, temperature=0.2, positive=PRESETS["ft"][0], negative=mix, seed=1)
    assert criterion(q, k, negatives, seed=1).item() == expected.item()


def test_options_of_one_call_win_over_those_of_the_module():
    q, k, negatives = batch()
    criterion = InfoNCE(0.2)
    assert criterion(q, k, negatives, temperature=0.5).item() == InfoNCE(0.5)(q, k, negatives).item()
    assert criterion(q, k, negatives, reduction="none").shape == (len(q),)


@pytest.mark.parametrize("options", [{"preset": "ft"}, {"preset": "ft-elementwise", "columns": "union"}])
def test_evaluation_mixes_nothing_unless_asked_to(options):
    q, k, negatives = batch()
    criterion, state = InfoNCE(0.2, **options), rng_state()
    mixed = criterion(q, k, negatives, seed=1).item()
    plain = InfoNCE(0.2)(q, k, negatives).item()
    assert criterion.eval()(q, k, negatives).item() == plain != mixed
    assert torch.equal(rng_state(), state), "a validation loss draws nothing"
    assert InfoNCE(0.2, mix_in_eval=True, **options).eval()(q, k, negatives, seed=1).item() == mixed
    assert criterion.train()(q, k, negatives, seed=1).item() == mixed


def test_what_a_call_is_given_is_used_in_evaluation_too():
    q, k, negatives = batch()
    given = {"positive": Mix(2.0, shift=1.0), "negative": Mix(1.6), "columns": "union", "seed": 1}
    expected = info_nce(q, k, negatives, temperature=0.2, **given).item()
    assert InfoNCE(0.2).eval()(q, k, negatives, **given).item() == expected
    lambdas = {"lambda_pos": torch.tensor(1.5), "lambda_neg": torch.tensor(0.3), "permutation": torch.randperm(80)}
    expected = info_nce(q, k, negatives, temperature=0.2, **lambdas).item()
    assert InfoNCE(0.2, "ft").eval()(q, k, negatives, **lambdas).item() == expected


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_modules_can_be_copied_and_pickled(twin):
    q, k, negatives = batch()
    criterion = InfoNCE(torch.nn.Parameter(torch.tensor(0.2)), "ft-elementwise", anchor="query", reduction="sum")
    assert twin(criterion)(q, k, negatives, seed=1).item() == criterion(q, k, negatives, seed=1).item()


def test_a_mix_in_a_checkpoint_loads_with_weights_only(tmp_path):
    saved = {"mix": Mix(2.0, shift=1.0, per="row", renormalize=True), "preset": PRESETS["ft"]}
    torch.save(saved, tmp_path / "checkpoint.pt")
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == saved


@pytest.mark.parametrize("default", [torch.float64, torch.float16])
def test_nothing_depends_on_the_default_type(default):
    q, k, negatives = batch()

    def results():
        queues = Queue(9, 4, generator=generator(1)), ShardedQueue(40, 4, perm_block=16, generator=generator(1))
        options = {"lambda_pos": 1.5, "return_scores": True, "temperature": torch.tensor(0.25), "seed": 1}
        loss, found = info_nce(q, k, negatives, negative=Mix(1.6), **options)
        return [*(x.queue for x in queues), loss, *gradients(loss, q), *found.mixed]

    expected, before = results(), torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        found = results()
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(found, expected))


def test_the_temperature_can_be_learned_or_kept_as_a_buffer():
    q, k, negatives = batch()
    learned = InfoNCE(torch.nn.Parameter(torch.tensor(0.2)))
    learned(q, k, negatives).backward()
    assert [name for name, _ in learned.named_parameters()] == ["temperature"] and learned.temperature.grad != 0
    kept = InfoNCE(torch.tensor(0.2))
    assert list(kept.state_dict()) == ["temperature"] and not list(kept.parameters())
    assert kept(q, k, negatives).item() == learned(q, k, negatives).item() == InfoNCE(0.2)(q, k, negatives).item()
    assert "0.2" in repr(InfoNCE(0.2)) and "Mix(alpha=2.0" in repr(InfoNCE(0.2, "ft"))


def test_numbers_of_numpy_are_numbers():
    q, k, negatives = batch()
    mix = Mix(2.0, shift=1.0)
    expected = info_nce(q, k, negatives, temperature=0.25, lambda_pos=1.5, positive=mix, seed=3, offset=4)
    found = info_nce(
        q, k, negatives, temperature=np.float32(0.25), lambda_pos=np.float64(1.5), seed=np.uint64(3),
        offset=np.int32(4), positive=Mix(np.float32(2.0), shift=np.int64(1)),
    )  # fmt: skip
    assert found.item() == expected.item()
    assert InfoNCE(np.float32(0.25))(q, k, negatives).item() == InfoNCE(0.25)(q, k, negatives).item()
    drawn = [info_nce(q, k, negatives, negative=Mix(kind(2)), seed=int(kind(3))).item() for kind in (int, np.int16)]
    assert drawn[0] == drawn[1]
    for queue in (Queue(np.int64(9), np.int32(4)), ShardedQueue(np.int64(9), np.int32(4), perm_block=np.uint8(16))):
        assert queue.queue.shape == (9, 4)
    draws = flashnce.permutation(np.int64(9), seed=np.uint64(2**64 - 1))
    assert (draws == flashnce.permutation(9, seed=2**64 - 1)).all()
    for wrong in (np.bool_(True), np.complex64(1), np.array([1.0, 2.0])):
        with pytest.raises(TypeError, match="temperature"):
            info_nce(q, k, negatives, temperature=wrong)


def test_threads_of_a_program_share_plans():
    q, k, negatives = batch(16, 300, 24)
    q = q.detach()
    expected = info_nce(q, k, negatives, negative=Mix(1.6), seed=1).item()
    results: list[float] = []

    def work() -> None:
        results.extend(info_nce(q, k, negatives, negative=Mix(1.6), seed=1).item() for _ in range(20))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [expected] * 80


def test_plans_are_kept_and_the_oldest_go():
    q, k, negatives = batch(4, 8, 4)
    info_nce(q, k, negatives)
    before = dict(_options._plans)
    info_nce(q, k, negatives)
    assert _options._plans == before
    for d in range(1, _options._MOST_PLANS + 10):
        info_nce(torch.ones(1, d), torch.ones(1, d), torch.ones(1, d))
    assert len(_options._plans) == _options._MOST_PLANS


def test_a_plan_says_what_would_run():
    q, k, negatives = batch(4, 8, 4)
    info_nce(q, k, negatives)
    assert next(reversed(_options._plans.values())).describe()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env)


def test_the_command_line_names_the_library():
    output = run("-m", "flashnce", "info")
    assert output.returncode == 0, output.stderr
    assert flashnce.__version__ in output.stdout and str(_library.PATH) in output.stdout
    assert run("-m", "flashnce", "nothing").returncode == 2


def test_a_library_that_is_not_there_or_none_is_an_import_error(tmp_path):
    nowhere = run("-c", "import flashnce", FLASHNCE_LIBRARY=str(tmp_path / "libflashnce.so"))
    assert "ImportError: FLASHNCE_LIBRARY is" in nowhere.stderr
    (tmp_path / "libflashnce.so").write_text("no library")
    text = run("-c", "import flashnce", FLASHNCE_LIBRARY=str(tmp_path / "libflashnce.so"))
    assert "ImportError" in text.stderr and "cannot be loaded" in text.stderr


def test_the_library_is_found_next_to_the_package(tmp_path):
    package = tmp_path / "flashnce"
    shutil.copytree(Path(flashnce.__file__).parent, package, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    missing = run("-c", "import flashnce", PYTHONPATH=str(tmp_path), FLASHNCE_LIBRARY="")
    assert "ImportError: libflashnce.so is not in" in missing.stderr
    (package / "lib").mkdir()
    shutil.copy(_library.PATH, package / "lib" / "libflashnce.so")
    found = run("-c", "import flashnce._library as l; print(l.PATH)", PYTHONPATH=str(tmp_path), FLASHNCE_LIBRARY="")
    assert found.stdout.strip() == str((package / "lib" / "libflashnce.so").resolve())


def test_the_python_example_of_the_readme_runs(tmp_path):
    readme = (ROOT / "README.md").read_text()
    example = re.search(r"<!-- example: python -->\s*```python\n(.*?)```", readme, re.S)
    assert example, "README.md has no ```python block after a line <!-- example: python -->"
    (tmp_path / "example.py").write_text(example.group(1))
    output = run(str(tmp_path / "example.py"))
    assert output.returncode == 0, output.stderr


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_nothing_depends_on_the_default_type(dtype):
    q, k, _ = batch(8, 1, 12)
    before = torch.get_default_dtype()

    def results() -> list[torch.Tensor]:
        queues = [Queue(32, 12, generator=generator(1)), ShardedQueue(32, 12, perm_block=16, generator=generator(1))]
        found = []
        for queue in queues:
            criterion = InfoNCE(0.2, "ft-elementwise")
            loss, statistics = criterion(q, k, queue, seed=3, lambda_pos=1.5, positive=Mix(2.0), return_scores=True)
            (dq,) = torch.autograd.grad(loss, q)
            queue.push(k)
            found += [loss, dq, *statistics.mixed, *statistics.unmixed[:9], *scores(q, k, queue)[:9]]
            found.append(queue.queue.clone())
            learned = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float32))
            found += torch.autograd.grad(InfoNCE(learned)(q, k, queue), learned)
        return found

    expected = results()
    torch.set_default_dtype(dtype)
    try:
        found = results()
    finally:
        torch.set_default_dtype(before)
    assert all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(found, expected, strict=True))
