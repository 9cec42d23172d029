"""Two-tower retrieval on real text: which module of Python's library does a sentence of documentation belong to?

    python examples/two_tower_retrieval/train.py        half a minute on 2 cores

Queries are the first sentences of docstrings of functions and classes, items are modules, each with its own docstring.
Both towers average embeddings of words. The negatives of a query are the other items of its batch, which are there as
often as they have functions: a bias of -log of that share (logQ) makes the softmax over the batch one over all modules,
and ids leave out the copies of a query's own module. Printed is recall: how many sentences that were held out have
their module among the first k of all.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import sysconfig
import zlib
from pathlib import Path

import torch
from flashnce.torch import info_nce
from torch import Tensor, nn
from torch.nn.functional import normalize

WORDS, WIDTH = 1 << 13, 64
LEAST = 5


def words(text: str, most: int = 80) -> list[int]:
    """Words as numbers below WORDS, one of which may stand for several."""
    return [zlib.crc32(word.encode()) % WORDS for word in re.findall(r"[a-z]+", text.lower())[:most]] or [0]


def documented(path: Path) -> tuple[str, list[str]]:
    """The docstring of a module, and the first sentences of what it defines."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return "", []
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    texts = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    sentences = [re.split(r"\.\s|\n\n", text)[0] for text in texts if text]
    return ast.get_docstring(tree) or "", [text for text in sentences if len(text.split()) >= 4]


def library(most: int) -> tuple[list[list[int]], list[tuple[list[int], int]]]:
    """The words of each module, and pairs of a sentence's words and its module's number."""
    items, pairs, root = [], [], Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if len(items) >= most:
            break
        name = path.relative_to(root).with_suffix("")
        if {"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3"} & set(name.parts):
            continue
        text, sentences = documented(path)
        if text and len(set(sentences)) >= LEAST:
            pairs += [(words(sentence), len(items)) for sentence in sorted(set(sentences))]
            items.append(words(" ".join(name.parts).replace("_", " ") + " " + text))
    return items, pairs


class Tower(nn.Module):
    """Words to a vector of WIDTH numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.EmbeddingBag(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, texts: list[list[int]]) -> Tensor:
        ends = torch.tensor([0, *map(len, texts)]).cumsum(0)
        return self.head(torch.relu(self.embedding(torch.tensor(sum(texts, [])), ends[:-1])))


@torch.no_grad()
def recall(query: Tower, item: Tower, items: list[list[int]], pairs: list, ks: tuple[int, ...]) -> list[float]:
    """The share of sentences whose module is among the k with the highest scores."""
    scores = normalize(query([text for text, _ in pairs]), dim=1) @ normalize(item(items), dim=1).T
    own = scores.gather(1, torch.tensor([number for _, number in pairs])[:, None])
    above = (scores > own).sum(1)
    return [(above < k).float().mean().item() for k in ks]


def train(query: Tower, item: Tower, items: list, pairs: list, epochs: int, batch: int, logq: bool) -> None:
    counts = torch.bincount(torch.tensor([number for _, number in pairs]), minlength=len(items))
    log_share = (counts.clamp(min=1) / len(pairs)).log()
    optimizer = torch.optim.Adam([*query.parameters(), *item.parameters()], lr=3e-3)
    order = list(pairs)
    for _ in range(epochs):
        random.shuffle(order)
        for start in range(0, len(order), batch):
            texts, numbers = zip(*order[start : start + batch])
            ids = torch.tensor(numbers)
            loss = info_nce(
                query(list(texts)), item([items[number] for number in numbers]), batch=True, ids=ids,
                batch_bias=-log_share[ids] if logq else None, temperature=0.07,
            )  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def main(arguments: list[str] | None = None) -> dict[str, list[float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--modules", type=int, default=10**6, help="at most so many; default: all")
    options = parser.parse_args(arguments)
    random.seed(0)
    items, pairs = library(options.modules)
    random.shuffle(pairs)
    held_out, pairs = pairs[: len(pairs) // 10], pairs[len(pairs) // 10 :]
    print(f"{len(items)} modules, {len(pairs)} sentences to learn from and {len(held_out)} held out")
    ks, found = (1, 10), {}
    for name, epochs, logq in (("untrained", 0, False), ("trained", options.epochs, False),
                               ("trained with logQ", options.epochs, True)):  # fmt: skip
        torch.manual_seed(0)
        random.seed(1)
        towers = Tower(), Tower()
        train(*towers, items, pairs, epochs, options.batch, logq)
        found[name] = recall(*towers, items, held_out, ks)
        print(f"{name:18}" + "".join(f"  recall@{k} {100 * value:5.1f} %" for k, value in zip(ks, found[name])))
    return found


if __name__ == "__main__":
    main()
