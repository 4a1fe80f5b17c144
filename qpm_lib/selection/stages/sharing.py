"""Class sets when some pairs of classes must have k - 1 features in common (steering; CHiQPM's hierarchy asks for the
same).
"""

from collections import defaultdict
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.selection.stages.weaving import weave

Sets = dict[int, tuple[int, ...]]

_NODES, _INFEASIBLE = 500, 2  # the second is scipy's number for it


class Settled(NamedTuple):
    """Sets of the classes, or None where none were found, and what no sets can be worth more than: -inf where none
    exist.
    """

    sets: Sets | None
    limit: float


def _programme(
    value: Float[np.ndarray, "n classes"],
    k: int,
    classes: list[int],
    sharing: list[tuple[int, int]],
    n_alike: int,
    single: list[tuple[int, ...]],
) -> Settled:
    """Most valuable sets for `classes`: at least k - 1 in common for `n_alike` of the pairs, each set in `single` used
    once at most. The search ends after `_NODES` nodes.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    n, m = len(value), len(classes)
    column = {c: q * n for q, c in enumerate(classes)}
    n_weights, n_common = n * m, (n + 1) * len(sharing)
    total = n_weights + n_common + m * len(single)
    rows: list[tuple[list[int], list[float], float, float]] = []
    for c in classes:
        rows.append((list(range(column[c], column[c] + n)), [1.0] * n, k, k))
    for q, (c, d) in enumerate(sharing):
        first = n_weights + q * (n + 1)  # what both use, and whether they are alike
        rows.append((list(range(first, first + n + 1)), [1.0] * n + [1.0 - k], 0.0, np.inf))
        rows += [([first + f, column[e] + f], [1.0, -1.0], -np.inf, 0.0) for f in range(n) for e in (c, d)]
    rows.append(([n_weights + q * (n + 1) + n for q in range(len(sharing))], [1.0] * len(sharing), n_alike, np.inf))
    for q, subset in enumerate(single):
        first = n_weights + n_common + q * m
        rows.append((list(range(first, first + m)), [1.0] * m, -np.inf, 1.0))
        for p, c in enumerate(classes):
            rows.append(([column[c] + f for f in subset] + [first + p], [1.0] * k + [-1.0], -np.inf, k - 1))
    index = np.repeat(np.arange(len(rows)), [len(r[0]) for r in rows])
    matrix = csr_matrix(
        (np.concatenate([r[1] for r in rows]), (index, np.concatenate([r[0] for r in rows]))), shape=(len(rows), total)
    )
    cost = np.zeros(total)
    cost[:n_weights] = -value[:, classes].T.ravel()
    limits = LinearConstraint(matrix, np.array([r[2] for r in rows]), np.array([r[3] for r in rows]))
    options = {"mip_rel_gap": 0.0, "node_limit": _NODES}
    result = milp(cost, integrality=np.ones(total), bounds=Bounds(0, 1), constraints=limits, options=options)
    if result.status == _INFEASIBLE:
        return Settled(None, -np.inf)
    limit = np.inf if result.mip_dual_bound is None else -float(result.mip_dual_bound)
    if result.x is None:
        return Settled(None, limit)
    weights = result.x[:n_weights].reshape(m, n) > 0.5
    return Settled({c: tuple(np.flatnonzero(weights[q]).tolist()) for q, c in enumerate(classes)}, limit)


def settle_sharing(
    value: Float[np.ndarray, "n classes"], k: int, sharing: list[tuple[int, int]], n_alike: int
) -> Settled:
    """The most valuable sets of all classes: different, and at least `n_alike` of the pairs similar; good ones, with a
    limit, where the search is long.

    Classes without a wish keep their k best features unless a set is wanted twice; then they join the integer
    programme.
    """
    top = np.argsort(-value, axis=0, kind="stable")[:k]
    sets = {c: tuple(sorted(top[:, c].tolist())) for c in range(value.shape[1])}
    alone = np.take_along_axis(value, top, 0)
    limit = float(alone.sum())
    involved, single = {c for pair in sharing for c in pair}, []
    while True:
        if involved:
            found = _programme(value, k, sorted(involved), sharing, n_alike, single)
            limit = found.limit + float(np.delete(alone, sorted(involved), axis=1).sum())
            if found.sets is None:
                return Settled(None, limit)
            sets |= found.sets
        owners: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for c, subset in sets.items():
            owners[subset].append(c)
        clashing = {subset: classes for subset, classes in owners.items() if len(classes) > 1}
        if not clashing:
            return Settled(sets, limit)
        for subset, classes in clashing.items():
            if involved.issuperset(classes):
                single.append(subset)
            involved.update(classes)


def _can_share(n: int, k: int, n_classes: int, sharing: tuple[tuple[int, int], ...]) -> bool:
    """Whether sets are found by giving linked classes k - 1 features in common, and one more to each of them.

    True is a proof. False is none: sets may be there that are built otherwise.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(sharing, int).reshape(-1, 2).T
    _, group = connected_components(coo_matrix((np.ones(ends.shape[1]), ends), (n_classes, n_classes)), directed=False)
    sizes, used = np.bincount(group), set()
    if sizes.max() > n - k + 1:
        return False
    for size in sorted(sizes[sizes > 1].tolist(), reverse=True):
        for common in combinations(range(n), k - 1):
            free = [s for f in range(n) if f not in common and (s := frozenset((*common, f))) not in used]
            if len(free) >= size:
                used.update(free[:size])
                break
        else:
            return False
    return True


def check_sharing(n: int, k: int, n_classes: int, sharing: tuple[tuple[int, int], ...], n_alike: int) -> None:
    """Refuse wishes that are proven to be impossible, and name the ones that clash. Values do not matter, only n and k
    do.

    Raises
    ------
    ValueError : naming a smallest group of pair constraints that contradict each other.
    """
    value = np.zeros((n, n_classes)) + np.arange(n, 0, -1)[:, None] * 1e-3
    if n_alike == len(sharing) and _can_share(n, k, n_classes, sharing):
        return
    if weave(value, k, list(sharing), n_alike) is not None:
        return
    if settle_sharing(value, k, list(sharing), n_alike).limit > -np.inf:
        return
    if n_alike < len(sharing):
        raise ValueError(
            f"n_pairs (={n_alike}) of {len(sharing)} pair_constraints cannot be fulfilled together: with n_features "
            f"(={n}) and n_per_class (={k}) there are no different sets of which so many share {k - 1} features; "
            "lower n_pairs"
        )
    clash = list(sharing)
    for pair in sharing:
        fewer = [other for other in clash if other != pair]
        classes = sorted({c for q in fewer for c in q})
        renamed = [(classes.index(c), classes.index(d)) for c, d in fewer]
        if fewer and settle_sharing(value[:, : len(classes)], k, renamed, len(renamed)).limit == -np.inf:
            clash = fewer
    raise ValueError(
        f"pair_constraints {clash} contradict each other: with n_features (={n}) and n_per_class (={k}) there are no "
        "different sets that all "
        f"share {k - 1} features as asked; drop one of these pairs"
    )
