"""Measures of segmentations: against counting by hand, and from worthless to perfect in the right order."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from qpm_lib.metrics.segmentation import (
    cluster_shares,
    exclusive_clusters,
    features_in_clusters,
    localised,
    part_agreement,
    region_iou,
    stability,
)

RNG = np.random.default_rng(0)
PARTS = np.repeat(np.arange(5), [60, 20, 10, 6, 4]).reshape(1, 10, 10)


def test_overlap_by_hand():
    a, b = np.zeros((3, 2, 2), bool), np.zeros((3, 2, 2), bool)
    a[0, 0], b[0, :, 0] = True, True
    a[1], b[1, 0] = True, True
    assert region_iou(a, b) == pytest.approx([1 / 3, 1 / 2, 1.0])


def test_localisation_looks_at_the_largest_piece():
    truth = np.zeros((2, 8, 8), bool)
    truth[:, 2:5, 2:5] = True
    found = truth.copy()
    found[0, 7, 7] = True  # a speck elsewhere does no harm
    found[1] = False
    found[1, 6:8, 0:8] = True
    found[1, 2, 2] = True
    assert localised(found, truth).tolist() == [1.0, 0.0]
    assert localised(np.zeros((1, 4, 4), bool), np.ones((1, 4, 4), bool)).tolist() == [0.0]


def test_agreement_against_all_assignments():
    labels = RNG.integers(0, 4, PARTS.shape)
    found = part_agreement(labels, PARTS)
    iou = np.array(
        [
            [((labels == k) & (p == PARTS)).sum() / ((labels == k) | (p == PARTS)).sum() for p in range(5)]
            for k in range(4)
        ]
    )
    best = max(sum(iou[k, p] for k, p in enumerate(order)) for order in itertools.permutations(range(5), 4))
    assert found.matched_iou == pytest.approx(best / 5)
    assert found.ari == pytest.approx(adjusted_rand_score(PARTS.ravel(), labels.ravel()))
    most = [np.bincount(PARTS[labels == k]).max() for k in range(4)]
    assert found.purity == pytest.approx(sum(most) / 100)


def test_planted_segmentations_are_ordered_from_worthless_to_perfect():
    flip = RNG.random(PARTS.shape)
    noise = RNG.integers(0, 5, PARTS.shape)
    found = [part_agreement(np.where(flip < share, noise, PARTS), PARTS) for share in (1.0, 0.6, 0.3, 0.0)]
    for what in ("ari", "nmi", "matched_iou", "purity"):
        values = [getattr(one, what) for one in found]
        assert values == sorted(values), what
    assert found[-1][:4] == (1.0, 1.0, 1.0, 1.0)
    assert abs(found[0].ari) < 0.05


def test_names_of_clusters_do_not_matter():
    renamed = np.array([4, 2, 0, 1, 3])[PARTS]
    assert part_agreement(renamed, PARTS).matched_iou == 1.0
    assert part_agreement(renamed, PARTS).by_part == dict.fromkeys(range(5), 1.0)


def test_more_clusters_raise_purity_and_not_the_matched_overlap():
    fine = np.arange(100).reshape(PARTS.shape)
    found = part_agreement(fine, PARTS)
    assert found.purity == 1.0
    assert found.matched_iou < 0.15


def test_stability():
    noise = [RNG.integers(0, 5, PARTS.shape) for _ in range(3)]
    assert stability([PARTS, (PARTS + 1) % 5]) == pytest.approx(1.0)
    assert abs(stability(noise)) < 0.05
    with pytest.raises(ValueError, match="two"):
        stability([PARTS])


def test_a_cluster_of_one_class_alone_is_found():
    classes = np.repeat(np.arange(3), 5)
    labels = RNG.integers(0, 3, (15, 6, 6))
    labels[classes == 1, 5, :2] = 3
    labels[0, 5, 0] = 3  # once elsewhere
    found = exclusive_clusters(labels, classes)
    assert exclusive_clusters(labels, classes, at_least=2).elsewhere[1] == 0
    assert found.cluster[1] == 3
    assert (found.present[1], found.elsewhere[1]) == (1.0, pytest.approx(0.2))
    assert found.lead.argmax() == 1
    assert 0 < found.chance < found.lead[1]
    clean = exclusive_clusters(np.where(labels == 3, 0, labels), classes)
    assert clean.lead.max() <= 0.2
    leads = [exclusive_clusters(RNG.integers(0, 9, (40, 4, 4)), np.repeat(np.arange(4), 10), seed=s) for s in range(20)]
    assert np.mean([one.lead.max() <= one.chance for one in leads]) >= 0.8  # 95 % of drawings by lot
    with pytest.raises(ValueError, match="two classes"):
        exclusive_clusters(labels[:2], classes[:2])


def test_patches_that_are_left_out_belong_to_no_cluster():
    classes = np.repeat(np.arange(2), 4)
    labels = np.zeros((8, 3, 3), int)
    labels[classes == 0, 0] = -1
    assert exclusive_clusters(labels, classes).lead.max() == 0


def test_features_lie_in_clusters():
    labels = np.zeros((1, 2, 2), int)
    labels[0, 0] = 1
    maps = np.zeros((1, 3, 2, 2))
    maps[0, 0, 0] = 2.0
    maps[0, 1] = 1.0
    assert features_in_clusters(maps, labels, 2).tolist() == [[0.0, 1.0], [0.5, 0.5], [0.0, 0.0]]
    assert cluster_shares(labels, 3).tolist() == [[0.5, 0.5, 0.0]]


def test_different_pictures_are_refused():
    with pytest.raises(ValueError, match="same patches"):
        part_agreement(PARTS[:, :5], PARTS)
