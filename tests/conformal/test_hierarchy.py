"""The hierarchy of a picture against the definition, written out with loops."""

import itertools

import pytest
import torch

from qpm_lib.conformal import hierarchy, path_scores


def planted(n_classes=6, n=7, k=3, pictures=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    sets = list(itertools.combinations(range(n), k))
    chosen = torch.randperm(len(sets), generator=g)[:n_classes].tolist()
    weight = torch.zeros(n_classes, n)
    for c, q in enumerate(chosen):
        weight[c, list(sets[q])] = 1
    vector = torch.rand(pictures, n, generator=g).mul(4).round() / 2  # equal and absent features are common
    return vector, weight, (vector @ weight.T).argmax(1)


def path(vector, weight, c):
    """Features of a class, strongest first, the smaller number first among equals, up to the last that is on."""
    used = [f for f in range(len(vector)) if weight[c, f] and vector[f] > 0]
    return sorted(used, key=lambda f: (-float(vector[f]), f))


def naive(vector, weight, p, c, k):
    """The levels that two classes share, one after the other; a path that ended goes on with one that ended, too."""
    one, other = ((path(vector, weight, q) + [None] * k)[:k] for q in (p, c))
    shared = []
    for a, b in zip(one, other, strict=True):
        if a != b:
            break
        shared.append(a)
    return len(shared), one, other


def naive_score(vector, weight, p, c, level, k):
    """The formula of the paper, and above the level how much weaker the features of the class are together."""
    depth, one, other = naive(vector, weight, p, c, k)
    value = lambda f: 0.0 if f is None else float(vector[f])
    if depth < level:
        of_class, of_answer = (sum(map(value, path)) for path in (other, one))
        return 2 - (min(1.0, of_class / of_answer) if of_answer else 0.0)
    return -(sum(value(one[j]) for j in range(level, depth)) + (value(other[depth]) if depth < k else 0.0))


@pytest.mark.parametrize("seed", range(4))
def test_every_level_and_score_is_that_of_the_definition(seed):
    vector, weight, predicted = planted(seed=seed)
    tree = hierarchy(vector, weight, predicted)
    for b, p in enumerate(predicted.tolist()):
        for c in range(len(weight)):
            depth, one, other = naive(vector[b], weight, p, c, 3)
            assert int(tree.depth[b, c]) == depth
            assert tree.path[b].tolist() == [-1 if f is None else f for f in one]
            assert tree.features[b, c].tolist() == [-1 if f is None else f for f in other]
            for level in range(4):
                expected = naive_score(vector[b], weight, p, c, level, 3)
                assert float(path_scores(tree, level)[b, c]) == pytest.approx(expected, abs=1e-5)
                assert bool(tree.left(level)[b, c]) == (depth >= level)


def test_the_predicted_class_is_left_at_every_level_and_classes_only_go():
    vector, weight, predicted = planted(n_classes=12, n=8, pictures=200)
    tree = hierarchy(vector, weight, predicted)
    assert tree.left(0).all()
    counts = torch.stack([tree.left(level).sum(1) for level in range(4)])
    assert (counts.diff(dim=0) <= 0).all()
    assert tree.left(3)[torch.arange(200), predicted].all()
    assert (tree.path_values.diff(dim=1) <= 0).all()


def test_the_order_of_the_classes_does_not_matter():
    vector, weight, predicted = planted()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(5))
    moved = hierarchy(vector, weight[order], order.argsort()[predicted])
    assert torch.equal(moved.depth, hierarchy(vector, weight, predicted).depth[:, order])


def test_what_is_no_hierarchy_is_refused():
    vector, weight, predicted = planted()
    with pytest.raises(ValueError, match="must not be negative"):
        hierarchy(vector - 1, weight, predicted)
    with pytest.raises(ValueError, match="binary class layer"):
        hierarchy(vector, 0.5 * weight, predicted)
    weight[0, weight[0].argmax()] = 0
    with pytest.raises(ValueError, match="2 to 3 features"):
        hierarchy(vector, weight, predicted)
