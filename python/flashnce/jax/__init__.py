"""FlashNCE for JAX: the loss as a function of arrays, through XLA's foreign function interface.

    from flashnce.jax import info_nce
    loss, dq = jax.value_and_grad(info_nce)(q, k, negatives, temperature=0.2, negative=flashnce.Mix(1.6), seed=key)

Works under jax.jit, jax.grad, jax.checkpoint, jax.lax.scan and, for processes or devices that share the rows,
jax.shard_map. jax.vmap is refused: a call's rows and its negatives are its batch. There is no second derivative. Left
to XLA's own partitioning, arguments that are spread over devices are gathered first.

It needs JAX and the handlers, libflashnce_jax.so, which lie beside libflashnce.so where jaxlib's headers were there
when that was built. On the CPU a call's threads are the library's own.
"""

from .._library import NO_COLUMN
from .._options import PRESETS, Mix
from ._loss import Scores, info_nce

__all__ = ["NO_COLUMN", "PRESETS", "Mix", "Scores", "info_nce"]
