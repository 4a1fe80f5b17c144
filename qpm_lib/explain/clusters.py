"""Clusters of tokens: principal components, k-means, and a tree over the clusters that can be cut anywhere."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

FINEST = 20  # clusters that are made, where nobody asks for more
_MANY = 200_000  # rows from which on k-means sees them in small batches


class Axes(NamedTuple):
    """Principal components: mean (D,) and directions (d, D). Called with descriptors, it gives their d coordinates."""

    mean: Float[Tensor, "dim"]
    directions: Float[Tensor, "d dim"]

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows dim"], *, count: int = 64) -> "Axes":
        """At most `count` principal components of descriptors (scikit-learn's)."""
        from sklearn.decomposition import PCA

        solver = "covariance_eigh" if len(rows) > rows.shape[1] else "randomized"
        with np.errstate(invalid="ignore"):  # rows that are all equal have no variance to divide by
            found = PCA(min(count, *rows.shape), svd_solver=solver, random_state=0).fit(rows.cpu().numpy())
        mean, directions = (torch.from_numpy(a.astype(np.float32)) for a in (found.mean_, found.components_))
        return cls(mean.to(rows.device), directions.to(rows.device))

    def __call__(self, rows: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any d"]:
        """Coordinates of descriptors."""
        return (rows - self.mean) @ self.directions.T


@dataclass(frozen=True)
class Clusters:
    """K clusters, and what they become when they are merged, two at a time, down to one.

    Attributes
    ----------
    centroids : (K, d), the largest cluster first. sizes : (K,) rows in each of those that were clustered.
    merges : (K - 1, 4) Ward's tree over the centroids, as `scipy.cluster.hierarchy.linkage` gives it.
    """

    centroids: Float[Tensor, "clusters d"]
    sizes: Int[np.ndarray, "clusters"]
    merges: Float[np.ndarray, "steps 4"]

    def distances(self, rows: Float[Tensor, "*any d"], k: int | None = None) -> Float[Tensor, "*any k"]:
        """Distance to the nearest centroid of each of k clusters (of all K without k)."""
        found = torch.cdist(rows, self.centroids.to(rows.device))
        if k is None:
            return found
        of = torch.as_tensor(self.cut(k), device=rows.device)
        return torch.stack([found[..., of == cluster].amin(-1) for cluster in range(k)], -1)

    def assign(self, rows: Float[Tensor, "*any d"], k: int | None = None) -> Int[Tensor, "*any"]:
        """Number of the nearest of the K clusters, or, with k, of the k that remain of them."""
        nearest = self.distances(rows).argmin(-1)
        return nearest if k is None else torch.as_tensor(self.cut(k), device=rows.device)[nearest]

    def cut(self, k: int) -> Int[np.ndarray, "clusters"]:
        """Which of k clusters each of the K belongs to; 0 is the largest. No clustering is needed for another k.

        Raises
        ------
        ValueError : for k outside 1 to K.
        """
        if not 1 <= k <= len(self.sizes):
            raise ValueError(f"k (={k}) must be from 1 to {len(self.sizes)}, the number of clusters that were made")
        if len(self.sizes) == 1:
            return np.zeros(1, int)
        from scipy.cluster.hierarchy import cut_tree

        of = cut_tree(self.merges, n_clusters=k)[:, 0]
        return by_area(of, np.bincount(of, self.sizes, k))

    @classmethod
    def fit(cls, rows: Float[Tensor, "rows d"], k: int, *, n_init: int = 10, seed: int = 0) -> "Clusters":
        """k-means, and Ward's tree over what it found. Equal seeds give equal clusters, on a GPU within rounding.

        Raises
        ------
        ValueError : for values that are not finite, or more clusters than there are different rows.
        """
        if not bool(torch.isfinite(rows).all()):
            raise ValueError("values to be clustered are not finite: check the weights of the backbone")
        if k < 1:
            raise ValueError(f"k (={k}) must be at least 1")
        if (there := count_distinct(rows, k)) < k:
            raise ValueError(
                f"k (={k}) exceeds the number of different tokens (={there}): lower it, or give more pictures"
            )
        centroids, sizes = k_means(rows.float(), k, n_init=n_init, seed=seed)
        order = np.argsort(-sizes, kind="stable")
        centroids, sizes = centroids[torch.from_numpy(order)], sizes[order]
        from scipy.cluster.hierarchy import linkage

        merges = linkage(centroids.double().numpy(), "ward") if k > 1 else np.zeros((0, 4))
        return cls(centroids, sizes, merges)


def by_area(labels: Int[np.ndarray, "*any"], areas: Float[np.ndarray, "k"]) -> Int[np.ndarray, "*any"]:
    """Numbers of clusters anew, so that 0 is the largest."""
    rank = np.empty(len(areas), int)
    rank[np.argsort(-areas, kind="stable")] = np.arange(len(areas))
    return rank[labels]


def k_means(
    rows: Float[Tensor, "rows dim"], k: int, *, n_init: int = 10, seed: int = 0
) -> tuple[Float[Tensor, "k dim"], Int[np.ndarray, "k"]]:
    """Centroids, on the CPU, and sizes of k clusters (Lloyd's algorithm from k-means++ starts)."""
    from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus

    on_cpu = rows.cpu().numpy()
    if len(rows) > _MANY:
        few = MiniBatchKMeans(k, batch_size=8192, n_init=n_init, random_state=seed).fit(on_cpu)
        return torch.from_numpy(few.cluster_centers_), np.bincount(few.labels_, minlength=k)
    tries = []
    for start in range(n_init):
        first, _ = kmeans_plusplus(on_cpu, k, random_state=np.random.RandomState([seed, start]))
        if rows.device.type == "cpu":
            one = KMeans(k, init=first, n_init=1).fit(on_cpu)
            sizes = np.bincount(one.labels_, minlength=k)
            tries.append((float(one.inertia_), torch.from_numpy(one.cluster_centers_), sizes))
        else:
            tries.append(lloyd(rows, torch.from_numpy(first).to(rows.device)))
    best = min(tries, key=lambda found: found[0])
    return best[1], best[2]


def lloyd(
    rows: Float[Tensor, "rows dim"], centroids: Float[Tensor, "k dim"], *, steps: int = 300
) -> tuple[float, Float[Tensor, "k dim"], Int[np.ndarray, "k"]]:
    """Lloyd's algorithm on any device, with scikit-learn's rule to stop: sum of squared distances, centroids, sizes.

    A centroid that lost all its rows stays where it is.
    """
    limit = 1e-4 * float(rows.var(0, correction=0).mean())
    for _ in range(steps):
        member = torch.nn.functional.one_hot(torch.cdist(rows, centroids).argmin(1), len(centroids)).to(rows.dtype)
        sizes = member.sum(0)
        moved = torch.where(sizes[:, None] > 0, (member.T @ rows) / sizes[:, None].clamp(min=1), centroids)
        shift, centroids = float((moved - centroids).square().sum()), moved
        if shift <= limit:
            break
    nearest = torch.cdist(rows, centroids).min(1)
    sizes = torch.bincount(nearest.indices, minlength=len(centroids))
    return float(nearest.values.square().sum()), centroids.cpu(), sizes.cpu().numpy()


def count_distinct(rows: Float[Tensor, "rows d"], enough: int) -> int:
    """How many rows differ from each other; the count stops at `enough`."""
    first = len(torch.unique(rows[:, 0])) if rows.numel() else 0
    return enough if first >= enough else min(enough, len(torch.unique(rows, dim=0)))
