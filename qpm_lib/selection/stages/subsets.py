"""Sets of k features, the most valuable first."""

import heapq
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

Subset = tuple[int, ...]


def best_subsets(values: Float[np.ndarray, "n"], k: int) -> Iterator[tuple[float, Subset]]:
    """All k-subsets from the most to the least valuable, each with its loss and its ascending indices."""
    order = np.argsort(-values, kind="stable").tolist()
    ranked = values[order].tolist()
    heap = [(0.0, tuple(range(k)))]
    seen = {heap[0][1]}
    while heap:
        loss, ranks = heapq.heappop(heap)
        yield loss, tuple(sorted(order[rank] for rank in ranks))
        for i, rank in enumerate(ranks):
            following = ranks[i + 1] if i + 1 < k else len(ranked)
            if rank + 1 < following:
                moved = (*ranks[:i], rank + 1, *ranks[i + 1 :])
                if moved not in seen:
                    seen.add(moved)
                    heapq.heappush(heap, (loss + ranked[rank] - ranked[rank + 1], moved))
