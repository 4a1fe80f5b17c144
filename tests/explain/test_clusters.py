"""Clusters: k-means against scikit-learn, on any device against the CPU, and a tree that can be cut anywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from qpm_lib.explain.clusters import Axes, Clusters, by_area, count_distinct, k_means, lloyd


def blobs(sizes=(40, 25, 10, 5), width=6, spread=0.1, seed=0):
    """Groups of points around far corners, the largest first; points and their group."""
    rng = np.random.default_rng(seed)
    centres = 4 * np.eye(width)[: len(sizes)]
    group = np.repeat(np.arange(len(sizes)), sizes)
    points = centres[group] + spread * rng.standard_normal((len(group), width))
    return torch.from_numpy(points.astype(np.float32)), group


def test_planted_groups_are_found_and_the_largest_is_first():
    points, group = blobs()
    found = Clusters.fit(points, 4)
    assert found.assign(points).tolist() == group.tolist()
    assert found.sizes.tolist() == [40, 25, 10, 5]


def test_k_means_is_as_good_as_scikit_learn():
    points = torch.from_numpy(np.random.default_rng(1).standard_normal((300, 5)).astype(np.float32))
    centroids, sizes = k_means(points, 6, seed=0)
    mine = torch.cdist(points, centroids).min(1).values.square().sum()
    reference = KMeans(6, n_init=10, random_state=0).fit(points.numpy())
    assert float(mine) <= 1.02 * reference.inertia_
    assert sizes.sum() == 300


def test_lloyd_goes_where_scikit_learn_goes_from_the_same_start():
    points, _ = blobs(spread=1.5, seed=3)
    start = points[[0, 45, 70, 78]]
    reference = KMeans(4, init=start.numpy(), n_init=1, algorithm="lloyd").fit(points.numpy())
    inertia, centroids, sizes = lloyd(points, start)
    assert inertia == pytest.approx(reference.inertia_, rel=1e-4)
    np.testing.assert_allclose(centroids.numpy(), reference.cluster_centers_, atol=1e-4)
    assert sizes.tolist() == np.bincount(reference.labels_).tolist()


def test_a_centroid_that_loses_all_rows_stays():
    points, _ = blobs(sizes=(10, 10))
    far = torch.full((1, 6), 100.0)
    _, centroids, sizes = lloyd(points, torch.cat([points[[0, 15]], far]))
    torch.testing.assert_close(centroids[2], far[0])
    assert sizes.tolist() == [10, 10, 0]


@pytest.mark.gpu
def test_a_gpu_finds_the_same_clusters():
    points, _ = blobs(spread=1.5)
    here, there = Clusters.fit(points, 4), Clusters.fit(points.cuda(), 4)
    torch.testing.assert_close(here.centroids, there.centroids.cpu(), rtol=1e-3, atol=1e-3)


def test_equal_seeds_give_equal_clusters():
    points, _ = blobs(spread=2.0)
    assert torch.equal(Clusters.fit(points, 5, seed=4).centroids, Clusters.fit(points, 5, seed=4).centroids)


def test_many_rows_are_clustered_in_small_batches(monkeypatch):
    monkeypatch.setattr("qpm_lib.explain.clusters._MANY", 50)
    points, group = blobs()
    assert Clusters.fit(points, 4).assign(points).tolist() == group.tolist()


@given(st.integers(2, 9), st.integers(0, 5))
def test_cuts_are_nested_and_ordered_by_size(k, seed):
    points = torch.from_numpy(np.random.default_rng(seed).standard_normal((200, 4)).astype(np.float32))
    found = Clusters.fit(points, 10, n_init=1, seed=seed)
    fine, coarse = found.cut(k), found.cut(k - 1)
    assert len(set(fine.tolist())) == k
    assert len({(a, b) for a, b in zip(fine.tolist(), coarse.tolist(), strict=True)}) == k  # each lies in one
    areas = np.bincount(fine, found.sizes)
    assert (np.diff(areas) <= 0).all()
    reference = fcluster(found.merges, k, "maxclust")
    assert len({(a, b) for a, b in zip(fine.tolist(), reference.tolist(), strict=True)}) == k


def test_the_finest_cut_changes_nothing():
    points, _ = blobs(spread=1.0)
    found = Clusters.fit(points, 7)
    assert found.cut(7).tolist() == list(range(7))
    assert torch.equal(found.assign(points), found.assign(points, 7))


def test_distances_to_merged_clusters_agree_with_labels():
    points, _ = blobs(spread=2.0)
    found = Clusters.fit(points, 8)
    for k in (1, 3, 8):
        assert torch.equal(found.distances(points, k).argmin(-1), found.assign(points, k))


def test_numbers_by_area():
    assert by_area(np.array([0, 1, 2]), np.array([3.0, 9.0, 5.0])).tolist() == [2, 0, 1]


def test_principal_components_are_those_of_scikit_learn():
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    found = Axes.fit(torch.from_numpy(rows), count=3)(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(PCA(3).fit_transform(rows)), atol=1e-4)


@pytest.mark.parametrize("k", [0, 5])
def test_bad_numbers_of_clusters_are_refused(k):
    points = torch.zeros(30, 3)
    points[:10] = 1
    with pytest.raises(ValueError, match=rf"k \(={k}\)"):
        Clusters.fit(points, k)


@pytest.mark.parametrize("k", [0, 5])
def test_bad_cuts_are_refused(k):
    points, _ = blobs()
    with pytest.raises(ValueError, match="must be from 1 to 4"):
        Clusters.fit(points, 4).cut(k)


def test_values_that_are_not_finite_are_refused():
    points, _ = blobs()
    points[3, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Clusters.fit(points, 2)


def test_distinct_rows_are_counted():
    rows = torch.tensor([[1.0, 2], [1, 2], [1, 3], [2, 2]])
    assert [count_distinct(rows, enough) for enough in (1, 2, 3, 9)] == [1, 2, 3, 3]
