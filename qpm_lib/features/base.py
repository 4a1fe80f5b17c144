"""What training and evaluation read: batches of tokens with labels, wherever they come from."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class FeatureBatch(NamedTuple):
    """Some rows of a store, in fp32 on the store's device."""

    patches: Float[Tensor, "batch patches dim"]
    cls: Float[Tensor, "batch dim"]
    labels: Int[Tensor, "batch"]
