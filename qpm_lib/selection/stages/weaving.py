"""Good class sets quickly when pairs of classes shall have k - 1 features in common: each class moves in turn, and a
price for every pair that is alike rises or falls until there are just enough.
"""

from collections import defaultdict

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.selection.stages.subsets import best_subsets

_UP, _DOWN, _SWEEPS, _EPSILON = 2.0, 0.7, 8, 1e-9


class Weaving:
    """Sets of all classes, all different, and the pairs that shall be alike."""

    def __init__(self, value: Float[np.ndarray, "n classes"], k: int, sharing: list[tuple[int, int]]) -> None:
        self.value, self.k = value, k
        self.ends = np.array(sharing, int).reshape(-1, 2)
        self.partners: dict[int, list[int]] = defaultdict(list)
        for c, d in sharing:
            self.partners[c].append(d)
            self.partners[d].append(c)

    def alike(self, sets: Bool[np.ndarray, "classes n"]) -> int:
        """How many of the pairs have k - 1 features in common."""
        return int(((sets[self.ends[:, 0]] & sets[self.ends[:, 1]]).sum(1) == self.k - 1).sum())

    def worth(self, sets: Bool[np.ndarray, "classes n"]) -> float:
        """Value of all sets."""
        return float(self.value.T[sets].sum())

    def alone(self) -> Bool[np.ndarray, "classes n"]:
        """Every class takes the best set that none before it has."""
        return self._rest(np.zeros(self.value.T.shape, bool), set())

    def _rest(self, sets: Bool[np.ndarray, "classes n"], used: set[tuple[int, ...]]) -> Bool[np.ndarray, "classes n"]:
        """The same for the classes that have no set yet."""
        for c in np.flatnonzero(~sets.any(1)):
            subset = next(q for _, q in best_subsets(self.value[:, c], self.k) if q not in used)
            used.add(subset)
            sets[c, list(subset)] = True
        return sets

    def together(self) -> Bool[np.ndarray, "classes n"]:
        """Classes that are linked share k - 1 features, as far as there are enough others to tell them apart."""
        sets, used = np.zeros(self.value.T.shape, bool), set()
        for group in self._groups():
            total = self.value[:, group].sum(1)
            for _, core in best_subsets(total, self.k - 1):
                free = [f for f in range(len(total)) if f not in core and tuple(sorted((*core, f))) not in used]
                if len(free) >= len(group):
                    break
            else:
                continue
            for c in group:
                f = max(free, key=lambda f, c=c: self.value[f, c])
                free.remove(f)
                used.add(tuple(sorted((*core, f))))
                sets[c, [*core, f]] = True
        return self._rest(sets, used)

    def _groups(self) -> list[list[int]]:
        """Linked classes, cut where a group would have more members than one core can tell apart."""
        group = {c: {c} for c in self.partners}
        for c, d in self.ends.tolist():
            if group[c] is not group[d] and len(group[c]) + len(group[d]) <= len(self.value) - self.k + 1:
                joined = group[c] | group[d]
                group.update(dict.fromkeys(joined, joined))
        return [sorted(g) for g in {id(g): g for g in group.values()}.values()]

    def settle(
        self, sets: Bool[np.ndarray, "classes n"], price: float, least: int = 0
    ) -> Bool[np.ndarray, "classes n"]:
        """Let one class after the other take the set that is worth most, pairs counted at a price, until none moves.
        Moves that would leave fewer than `least` pairs alike are not made.
        """
        sets, alike = sets.copy(), self.alike(sets)
        used = {tuple(np.flatnonzero(row).tolist()) for row in sets}
        for _ in range(_SWEEPS):
            moved = False
            for c in self.partners:
                before = tuple(np.flatnonzero(sets[c]).tolist())
                used.remove(before)
                after, theirs = self._best(sets, c, price, used, before), sets[self.partners[c]]
                there, then = (int((theirs[:, subset].sum(1) == self.k - 1).sum()) for subset in (before, after))
                if alike + then - there < least:
                    after, then = before, there
                used.add(after)
                if after != before:
                    sets[c], moved, alike = False, True, alike + then - there
                    sets[c, list(after)] = True
            if not moved:
                break
        return sets

    def _best(
        self, sets: Bool[np.ndarray, "classes n"], c: int, price: float, used: set, before: tuple[int, ...]
    ) -> tuple[int, ...]:
        v, theirs = self.value[:, c], sets[self.partners[c]].astype(int)
        own = next(q for _, q in best_subsets(v, self.k) if q not in used)

        def worth(subset: tuple[int, ...]) -> float:
            return v[list(subset)].sum() + price * (theirs[:, subset].sum(1) == self.k - 1).sum()

        best, top = before, worth(before) + _EPSILON
        if worth(own) > top:
            best, top = own, worth(own)
        for base in theirs:
            inside, outside = np.flatnonzero(base), np.flatnonzero(base == 0)
            shared = (theirs @ base)[:, None, None] - theirs[:, inside, None] + theirs[:, None, outside]
            gains = v[inside].sum() - v[inside, None] + v[outside] + price * (shared == self.k - 1).sum(0)
            for place in np.argsort(-gains, axis=None):
                i, j = np.unravel_index(place, gains.shape)
                if gains[i, j] <= top:
                    break
                swapped = tuple(sorted({*inside.tolist(), int(outside[j])} - {int(inside[i])}))
                if swapped not in used:
                    best, top = swapped, gains[i, j]
                    break
        return best


def weave(
    value: Float[np.ndarray, "n classes"], k: int, sharing: list[tuple[int, int]], n_alike: int
) -> Bool[np.ndarray, "classes n"] | None:
    """Valuable sets of all classes, all different, with at least `n_alike` of the pairs alike; None where none are
    found, which proves nothing.
    """
    weaving, best = Weaving(value, k, sharing), None
    spread = float(np.ptp(value)) or 1.0
    sets, price = weaving.alone(), 1e-3 * spread
    while weaving.alike(sets) < n_alike and price < 100 * spread:
        price *= _UP
        sets = weaving.settle(sets, price)
    for start, dear in ((sets, price), (weaving.together(), k * spread)):
        found = _cheapen(weaving, start, dear, n_alike, 1e-3 * spread)
        if found is not None and (best is None or weaving.worth(found) > weaving.worth(best)):
            best = found
    return best


def _cheapen(
    weaving: Weaving, sets: Bool[np.ndarray, "classes n"], price: float, n_alike: int, least: float
) -> Bool[np.ndarray, "classes n"] | None:
    """Lower the price, and keep enough pairs alike; the most valuable sets on the way, None where too few were."""
    if weaving.alike(sets) < n_alike:
        return None
    best = sets
    while price > least:
        price *= _DOWN
        sets = weaving.settle(sets, price, n_alike)
        best = max(best, sets, key=weaving.worth)
    return best


def estimated_loss(
    value: Float[np.ndarray, "n classes"], k: int, sharing: Int[np.ndarray, "links 2"], n_alike: int
) -> float:
    """What it costs to make the cheapest `n_alike` pairs alike when every pair is settled for itself."""
    both = value[:, sharing[:, 0]] + value[:, sharing[:, 1]]
    order = np.argsort(-both, axis=0, kind="stable")
    ranked = np.take_along_axis(both, order, 0)
    rank = np.argsort(order, axis=0)
    first, second = value[:, sharing[:, 0]], value[:, sharing[:, 1]]
    base = ranked[: k - 1].sum(0)
    in_core = rank < k - 1
    nxt, after = (ranked[k - 1], ranked[k] if len(ranked) > k else np.full(len(sharing), -np.inf))
    at_next = rank == k - 1
    lost = np.where(in_core, nxt - both, 0.0)
    total = base + first[:, None] + second[None] + lost[:, None] + lost[None]
    total += np.where(in_core[:, None] & in_core[None], (after - nxt), 0.0)
    total += np.where((in_core[:, None] & at_next[None]) | (at_next[:, None] & in_core[None]), (after - nxt), 0.0)
    total[np.arange(len(value)), np.arange(len(value))] = -np.inf
    top = -np.partition(-value, k - 1, axis=0)[:k].sum(0)
    loss = top[sharing].sum(1) - total.max((0, 1))
    return float(np.sort(loss)[:n_alike].sum())
