#!/usr/bin/env python3
"""SimCLR on Fashion-MNIST through FlashNCE: `python train.py --help`.

Two views of each image contrast with all other views of the batch; there is no queue and no second encoder. The loss is
`simclr` below. Data, views, encoder and evaluation are those of ../moco_fashion_mnist.
"""

import argparse
import os
import sys
import time
from pathlib import Path

# Without this, PyTorch's idle threads spin, and a step takes ten times as long while another program wants their cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "moco_fashion_mnist"))

try:
    import torch
    from flashnce.torch import info_nce
except ImportError as error:
    sys.exit(f"train.py: {error}: PyTorch and the Python package flashnce are needed (pip install .)")

import data  # noqa: E402
from augment import random_view  # noqa: E402
from evaluate import knn_accuracy  # noqa: E402
from model import Encoder  # noqa: E402

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4


def simclr(first, second, *, temperature, form="info_nce"):
    """The loss of both views of N images [N,D] each, with the gradients of both: NT-Xent, or DCL as "decoupled".

    The columns of a view are all views of the batch. One id per image leaves out the view itself and the other view of
    its image, which is its positive.
    """
    views, image = torch.cat([first, second]), torch.arange(len(first)).repeat(2)
    keys = torch.cat([second, first])
    return info_nce(
        views, keys, batch=views, ids=image, batch_ids=image, temperature=temperature, form=form, detach_key=False
    )


def train(images, args):
    """The encoder after args.steps steps, and the loss of each."""
    torch.manual_seed(args.seed)
    encoder, views = Encoder(), torch.Generator().manual_seed(args.seed + 1)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for _ in range(args.steps):
        batch = images[torch.randint(len(images), (args.batch_size,), generator=views)]
        first, second = encoder(torch.cat([random_view(batch, views) for _ in range(2)])).chunk(2)
        loss = simclr(first, second, temperature=args.temperature, form=args.form)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return encoder, losses


def parser():
    options = argparse.ArgumentParser(prog="train.py", description="SimCLR on Fashion-MNIST through FlashNCE.")
    options.add_argument("--data", help="folder of the four IDX files; default: Debian's dataset-fashion-mnist")
    options.add_argument("--limit", type=int, help="only the first so many images of each split")
    options.add_argument("--steps", type=int, default=400)
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--temperature", type=float, default=0.2)
    options.add_argument("--form", choices=("info_nce", "decoupled"), default="info_nce")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--threads", type=int, help="PyTorch's, and so the library's")
    return options


def main():
    args = parser().parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        training, test = data.load(args.data, args.limit)
    except data.DataError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    began = time.perf_counter()
    torch.manual_seed(args.seed)
    untrained = Encoder()
    encoder, losses = train(training.images, args)
    seconds = time.perf_counter() - began
    print(f"{args.steps} steps in {seconds:.1f} s, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    for name, model in (("pixels", None), ("random encoder", untrained), ("SimCLR", encoder)):
        accuracy = knn_accuracy(model, training, test)
        print(f"{name:15} kNN {accuracy['knn']:5.1f} %   on images that moved {accuracy['knn_moved']:5.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
