"""The quadratic programme as data: what is given, what is chosen, and the value of a choice."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from qpm_lib.core import whole_number
from qpm_lib.selection.stages.sharing import check_sharing

_LARGEST = 1e6


@dataclass(frozen=True)
class SelectionProblem:
    """A checked instance.

    Attributes
    ----------
    value : V (F, C) = 1000 / (k C) * A. redundancy : R (F, F), symmetric, each unordered pair counted once. bias :
        b (F,).
    n : features to select. k : features per class. required, forbidden : features that must and must not be selected.
    sharing : pairs of classes of which at least `n_alike` must have k - 1 features in common.
    """

    value: Float[np.ndarray, "features classes"]
    redundancy: Float[np.ndarray, "features features"]
    bias: Float[np.ndarray, "features"]
    n: int
    k: int
    required: Int[np.ndarray, "r"] = field(default_factory=lambda: np.empty(0, int))
    forbidden: Int[np.ndarray, "q"] = field(default_factory=lambda: np.empty(0, int))
    sharing: tuple[tuple[int, int], ...] = ()
    n_alike: int = 0

    def restrict(self, kept: Int[np.ndarray, "kept"]) -> "SelectionProblem":
        """The same problem on some of the features: ascending indices, the required ones among them,
        none that is forbidden.
        """
        value, redundancy, required = (
            self.value[kept],
            self.redundancy[np.ix_(kept, kept)],
            np.searchsorted(kept, self.required),
        )
        return replace(
            self,
            value=value,
            redundancy=redundancy,
            bias=self.bias[kept],
            required=required,
            forbidden=np.empty(0, int),
        )

    @property
    def all_alike(self) -> bool:
        """Whether every pair in `sharing` must have k - 1 features in common."""
        return self.n_alike == len(self.sharing)

    @property
    def n_candidates(self) -> int:
        """F, the number of features to choose from."""
        return self.value.shape[0]

    @property
    def n_classes(self) -> int:
        """C, the number of classes."""
        return self.value.shape[1]


def make_problem(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    *,
    n_features: int,
    n_per_class: int,
    bias: Float[np.ndarray, "features"] | None = None,
    required: Sequence[int] | Int[np.ndarray, "r"] = (),
    forbidden: Sequence[int] | Int[np.ndarray, "q"] = (),
    pair_constraints: Sequence[tuple[int, int]] = (),
    n_pairs: int | None = None,
) -> SelectionProblem:
    """Check the parts of an instance and scale the relevance.

    Raises
    ------
    ValueError : for values that are not finite, shapes that do not fit, a redundancy that is asymmetric,
        negative or has a diagonal, n > F, k > n, more classes than there are sets of k out of n features,
        or wishes that contradict each other. The inputs are never modified.
    """
    a, r, b = _arrays(relevance, redundancy, bias)
    f, c = a.shape
    n, k = _sizes(n_features, n_per_class, f, c)
    wanted, unwanted = _wishes(required, forbidden, f, n)
    sharing = _class_pairs(pair_constraints, c)
    n_alike = len(sharing) if n_pairs is None else whole_number("n_pairs", n_pairs)
    if not 0 <= n_alike <= len(sharing):
        raise ValueError(f"n_pairs (={n_alike}) must be from 0 to the number of pair_constraints (={len(sharing)})")
    sharing = sharing if n_alike else ()
    check_sharing(n, k, c, sharing, n_alike)
    return SelectionProblem(1000.0 / (k * c) * a, (r + r.T) / 2, b, n, k, wanted, unwanted, sharing, n_alike)


def _arrays(
    relevance: np.ndarray, redundancy: np.ndarray | None, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Copies of the arrays in double precision, checked, their shapes too."""
    a = np.array(relevance, np.float64)
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"relevance has shape {a.shape}: one row per feature and one column per class are needed")
    f = len(a)
    r = np.zeros((f, f)) if redundancy is None else np.array(redundancy, np.float64)
    b = np.zeros(f) if bias is None else np.array(bias, np.float64)
    for name, array in (("relevance", a), ("redundancy", r), ("bias", b)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite")
        if array.size and np.abs(array).max() > _LARGEST:
            raise ValueError(
                f"{name} holds {np.abs(array).max():.3g}: beyond {_LARGEST:.0e} the solvers lose digits; "
                "divide everything by one number"
            )
    if r.shape != (f, f):
        raise ValueError(f"redundancy is {r.shape} for {f} features: it must be ({f}, {f})")
    if b.shape != (f,):
        raise ValueError(f"bias is {b.shape} for {f} features: it must be ({f},)")
    if not np.allclose(r, r.T, atol=1e-9):
        raise ValueError(
            f"redundancy is not symmetric (largest difference {np.abs(r - r.T).max():.3g}): use (R + R.T) / 2"
        )
    if (r < 0).any() or np.diagonal(r).any():
        raise ValueError("redundancy must be non-negative with a zero diagonal: it is a penalty on pairs")
    return a, r, b


def _sizes(n_features: object, n_per_class: object, f: int, c: int) -> tuple[int, int]:
    """n and k, checked."""
    n, k = whole_number("n_features", n_features), whole_number("n_per_class", n_per_class)
    if not 1 <= n <= f:
        raise ValueError(f"n_features (={n}) must be from 1 to the number of features (={f})")
    if not 1 <= k <= n:
        raise ValueError(f"n_per_class (={k}) must be from 1 to n_features (={n})")
    if c > math.comb(n, k):
        raise ValueError(
            f"{c} classes cannot have different sets of n_per_class (={k}) out of n_features (={n}): "
            f"there are only {math.comb(n, k)}; raise n_features"
        )
    return n, k


def _indices(name: str, values: Iterable[object], count: int) -> Int[np.ndarray, "r"]:
    found = np.array(sorted({whole_number(name, v) for v in values}), int)
    if len(found) and not 0 <= found[0] <= found[-1] < count:
        raise ValueError(
            f"{name} holds {found[0] if found[0] < 0 else found[-1]}: features are numbered 0 to {count - 1}"
        )
    return found


def _wishes(
    required: Iterable[object], forbidden: Iterable[object], f: int, n: int
) -> tuple[Int[np.ndarray, "r"], Int[np.ndarray, "q"]]:
    wanted, unwanted = _indices("required", required, f), _indices("forbidden", forbidden, f)
    both = np.intersect1d(wanted, unwanted)
    if len(both):
        raise ValueError(f"features {both.tolist()} are both required and forbidden: take them out of one of the two")
    if len(wanted) > n:
        raise ValueError(
            f"{len(wanted)} features are required but n_features (={n}) are selected: require fewer or raise n_features"
        )
    if f - len(unwanted) < n:
        raise ValueError(
            f"{f - len(unwanted)} of {f} features are not forbidden but n_features (={n}) are selected: "
            "forbid fewer or lower it"
        )
    return wanted, unwanted


def _class_pairs(pairs: Iterable[tuple[object, object]], n_classes: int) -> tuple[tuple[int, int], ...]:
    found = []
    for pair in pairs:
        ends = sorted(whole_number("pair_constraints", c) for c in pair)
        if len(ends) != 2 or ends[0] == ends[1] or not 0 <= ends[0] <= ends[1] < n_classes:
            raise ValueError(
                f"pair_constraints holds {tuple(pair)}: two different classes from 0 to {n_classes - 1} are needed"
            )
        found.append((ends[0], ends[1]))
    return tuple(sorted(set(found)))


def problem_objective(
    problem: SelectionProblem, features: Int[np.ndarray, "n"], assignment: Bool[np.ndarray, "classes n"]
) -> float:
    """Value of a choice: sum V W + sum b s - sum over unordered pairs R s s."""
    chosen = problem.value[features].T
    pairs = problem.redundancy[np.ix_(features, features)].sum() / 2
    return float((chosen * assignment).sum() + problem.bias[features].sum() - pairs)


def objective(
    relevance: Float[np.ndarray, "features classes"],
    redundancy: Float[np.ndarray, "features features"] | None,
    features: Int[np.ndarray, "n"],
    assignment: Bool[np.ndarray, "classes n"],
    *,
    bias: Float[np.ndarray, "features"] | None = None,
) -> float:
    """Objective of any selection: 1000 / (k C) * sum A W + sum b s - sum_{i<j} R_ij s_i s_j.

    Raises
    ------
    ValueError : when the classes do not all have the same number of features, a feature does not exist or comes twice,
        or shapes do not fit.
    """
    per_class = np.asarray(assignment).sum(1)
    if len(set(per_class.tolist())) != 1:
        raise ValueError(
            f"classes have between {per_class.min()} and {per_class.max()} features: each must have the same number k"
        )
    if len(_indices("features", features, len(relevance))) != len(features):
        raise ValueError(f"features (={list(features)}) names one of them twice")
    problem = make_problem(relevance, redundancy, n_features=len(features), n_per_class=int(per_class[0]), bias=bias)
    return problem_objective(problem, np.asarray(features), np.asarray(assignment, bool))
