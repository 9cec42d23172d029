#!/usr/bin/env python3
"""MoCo on Fashion-MNIST through FlashNCE: `python train.py --help`.

The training step is Trainer.step; the rest of this file is what every trainer has around it.
"""

import copy
import dataclasses
import math
import os
import signal
import sys
import time

# Without this, PyTorch's idle threads spin, and a step takes ten times as long while another program wants their cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch
    from flashnce.scores import ScoreMeter
    from flashnce.torch import InfoNCE, Queue
except ImportError as error:
    sys.exit(f"train.py: {error}: PyTorch and the Python package flashnce are needed (pip install .)")

import checkpoint
import data
import options
import report
from augment import random_view
from evaluate import knn_accuracy
from model import EMBEDDING, Encoder, momentum_copy, update_momentum
from plot import NAMES
from progress import Progress
from scores import measure

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
WARMUP_STEPS = 50
DISTRIBUTIONS = 16


class Trainer:
    """One run: its networks, queue, optimiser, random states and history, and the meter that looks at its scores."""

    def __init__(self, config, images, meter=None):
        self.config, self.images = config, images
        self.meter = meter or ScoreMeter(raw_every=1)
        torch.manual_seed(config.seed)
        self.query_encoder = Encoder()
        self.key_encoder = momentum_copy(self.query_encoder)
        self.queue = Queue(config.queue_size, EMBEDDING)
        self.plain = InfoNCE(temperature=config.temperature)
        self.transformed = InfoNCE(temperature=config.temperature, preset=config.preset)
        self.optimizer = torch.optim.AdamW(
            self.query_encoder.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        self.augment_rng = torch.Generator().manual_seed(config.seed + 1)
        self.order = (None, None)  # epoch, its order of the images
        self.steps_done = 0
        self.history = []  # one dict per measured step
        self.seconds = []  # of this process: (whole step, loss) of the steps without measurement

    def preset(self):
        return self.config.preset if self.steps_done >= self.config.ft_start else "moco"

    def step(self):
        """One training step."""
        began = time.perf_counter()
        measured = self.steps_done % self.config.log_every == 0
        criterion = self.plain if self.preset() == "moco" else self.transformed
        images = self.next_images()

        q = self.query_encoder(random_view(images, self.augment_rng))
        with torch.no_grad():
            update_momentum(self.key_encoder, self.query_encoder, self.config.momentum)
            k = self.key_encoder(random_view(images, self.augment_rng))

        loss_began = time.perf_counter()
        result = criterion(q, k, self.queue, return_scores=measured)
        loss, scores = result if measured else (result, None)
        loss_seconds = time.perf_counter() - loss_began  # the gradients are made here too

        self.set_learning_rate()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if measured:
            self.meter.update(
                loss, scores, step=self.steps_done, q=q, k=k, negatives=self.queue, criterion=criterion
            )
            row = measure(self.meter.recent[-1], scores, self.preset())
            self.history.append({"step": self.steps_done, "loss": loss.item(), **row})
        else:
            self.seconds.append((time.perf_counter() - began, loss_seconds))
        self.queue.push(k)
        self.steps_done += 1

    def next_images(self):
        """The step's batch: the order of an epoch depends on the seed and the epoch alone."""
        per_epoch = len(self.images) // self.config.batch_size
        epoch, batch = divmod(self.steps_done, per_epoch)
        if self.order[0] != epoch:
            rng = torch.Generator().manual_seed((self.config.seed << 20) + epoch)
            self.order = (epoch, torch.randperm(len(self.images), generator=rng))
        first = batch * self.config.batch_size
        return self.images[self.order[1][first : first + self.config.batch_size]]

    def set_learning_rate(self):
        """Linear warm-up, then half a cosine down to 0."""
        warm = min(1, (self.steps_done + 1) / WARMUP_STEPS)
        cosine = 0.5 * (1 + math.cos(math.pi * self.steps_done / self.config.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = LEARNING_RATE * warm * cosine

    def state_dict(self):
        """All that the steps to come depend on, as tensors and plain values."""
        return copy.deepcopy({
            "config": dataclasses.asdict(self.config),
            "images": len(self.images),
            "threads": torch.get_num_threads(),
            "steps_done": self.steps_done,
            "query_encoder": self.query_encoder.state_dict(),
            "key_encoder": self.key_encoder.state_dict(),
            "queue": self.queue.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "augment_rng": self.augment_rng.get_state(),
            "history": self.history,
        })

    def load_state_dict(self, state):
        state = copy.deepcopy(state)
        if state["images"] != len(self.images):
            raise checkpoint.CheckpointError(
                f"the checkpoint's run has {state['images']} training images, the data has {len(self.images)}"
            )
        self.query_encoder.load_state_dict(state["query_encoder"])
        self.key_encoder.load_state_dict(state["key_encoder"])
        self.queue.load_state_dict(state["queue"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["torch_rng"])
        self.augment_rng.set_state(state["augment_rng"])
        self.history = state["history"]
        self.steps_done = state["steps_done"]
        self.meter.load_state_dict({"next_step": self.steps_done})


class Interrupt:
    """Ctrl-C ends the run after the step in progress, so that its checkpoint is whole."""

    def __init__(self):
        self.requested = False
        signal.signal(signal.SIGINT, self._request)

    def _request(self, *_):
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Stopped(Exception):
    """The run ended early; the message says how to go on."""


def train(trainer, until, path, args, interrupt):
    """Steps up to `until` of the run, with checkpoints in `path`."""
    config = trainer.config
    last = min(until, args.stop_at or until)
    progress = Progress(path.stem, trainer.steps_done, last, quiet=args.no_progress)
    while trainer.steps_done < last and not interrupt.requested:
        trainer.step()
        progress.show(trainer.steps_done, report.progress_text(trainer.history[-1]))
        if trainer.steps_done % args.checkpoint_every == 0:
            checkpoint.save(path, trainer.state_dict())
    progress.end()
    if trainer.steps_done in (config.steps, args.stop_at) or interrupt.requested:
        checkpoint.save(path, trainer.state_dict())
    if trainer.steps_done < until:
        raise Stopped(f"stopped after step {trainer.steps_done} of {config.steps}; continue with --resume {path}")


def meter_of(config, folder, mode):
    """Looks at the scores of every measured step, and at their distribution every so many of these."""
    details_every = config.log_every * max(1, config.steps // (DISTRIBUTIONS * config.log_every))
    about = {name: getattr(config, name) for name in ("temperature", "momentum", "seed")} | {"k": config.queue_size}
    return ScoreMeter(folder / "runs" / config.preset, name=NAMES[config.preset], raw_every=1,
                      details_every=details_every, mode=mode, **about)


def train_compared(trainer, args, interrupt):
    """Plain MoCo and `trainer`'s FT run. Until FT starts they are the same run, so that part is computed once."""
    config = trainer.config
    moco = dataclasses.replace(config, preset="moco", ft_start=config.steps)
    plain = Trainer(moco, trainer.images, meter_of(moco, args.out, "replace"))
    train(plain, config.ft_start, args.out / "moco.pt", args, interrupt)
    shared = plain.state_dict()
    train(plain, config.steps, args.out / "moco.pt", args, interrupt)
    trainer.load_state_dict(shared)
    train(trainer, config.steps, args.out / f"{config.preset}.pt", args, interrupt)
    return {"moco": plain, config.preset: trainer}


def run(args):
    state = checkpoint.load(args.resume) if args.resume else None
    config = options.Config(**state["config"]) if state else options.new_config(args)
    if state and (differs := options.difference(args, config)):
        raise checkpoint.CheckpointError(differs)
    compare = options.compares(args, config)
    if threads := args.threads or (state and state["threads"]):
        torch.set_num_threads(threads)
    training, test = data.load(args.data, config.limit or None)
    if len(training.images) < config.batch_size:
        raise options.OptionError(f"--batch-size {config.batch_size} is more than the {len(training.images)} images")
    args.out.mkdir(parents=True, exist_ok=True)

    began = time.perf_counter()
    interrupt = Interrupt()
    trainer = Trainer(config, training.images, meter_of(config, args.out, "resume" if state else "replace"))
    untrained = copy.deepcopy(trainer.query_encoder)
    if state:
        trainer.load_state_dict(state)
    if compare:
        runs = train_compared(trainer, args, interrupt)
    else:
        train(trainer, config.steps, args.out / f"{config.preset}.pt", args, interrupt)
        runs = {config.preset: trainer}
    trained = time.perf_counter()
    encoders = {"pixels": None, "random encoder": untrained}
    encoders |= {name: done.query_encoder for name, done in runs.items()}
    accuracy = {name: knn_accuracy(encoder, training, test) for name, encoder in encoders.items()}
    seconds = {"training": trained - began, "evaluation": time.perf_counter() - trained}
    return report.write(args.out, config, runs, accuracy, seconds)


def main():
    args = options.parser().parse_args()
    try:
        return run(args)
    except Stopped as stopped:
        print(f"train.py: {stopped}", file=sys.stderr)
        return 0 if args.stop_at else 130
    except (options.OptionError, data.DataError, checkpoint.CheckpointError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
