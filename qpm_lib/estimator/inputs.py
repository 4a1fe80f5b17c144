"""What the estimator takes: arrays of tokens or a feature store, checked as scikit-learn checks."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from qpm_lib.core import choose_device
from qpm_lib.features import FeatureStore, TensorStore


def training_store(
    estimator: BaseEstimator, X: np.ndarray | Tensor | FeatureStore, y: np.ndarray | None
) -> FeatureStore:
    """What `fit` trains on; `classes_` and `n_features_in_` of the estimator are set.

    Raises
    ------
    ValueError : for labels that are missing, given twice, or of one class only, and tokens that cannot be used.
    """
    if isinstance(X, FeatureStore):
        if y is not None:
            raise ValueError("y was passed beside a FeatureStore, which has labels of its own: leave y out")
        estimator.classes_, estimator.n_features_in_ = np.array(X.class_names), X.width
        return X
    if y is None:
        raise ValueError(
            "requires y to be passed, but the target y is None: labels are left out for a FeatureStore only"
        )
    X, y = validate_data(estimator, as_numpy(X), as_numpy(y), allow_nd=True, dtype=np.float32, ensure_min_samples=2)
    check_classification_targets(y)
    estimator.classes_, labels = np.unique(y, return_inverse=True)
    if len(estimator.classes_) < 2:
        raise ValueError(f"y holds one class only ({estimator.classes_[0]!r}): at least two are needed")
    estimator.n_features_in_ = X.shape[-1]
    names, patches = tuple(map(str, estimator.classes_)), as_tokens(X)
    return TensorStore(
        patches, patches.mean(1), torch.as_tensor(labels), class_names=names, device=choose_device(estimator.device)
    )


def checked_rows(estimator: BaseEstimator, X: np.ndarray | Tensor | FeatureStore) -> tuple[FeatureStore, Tensor]:
    """A store and its rows: the test rows of a store as it is, all of an array after the same checks as in `fit`."""
    check_is_fitted(estimator, "model_")
    if isinstance(X, FeatureStore):
        if tuple(X.class_names) != tuple(map(str, estimator.classes_)) or X.width != estimator.n_features_in_:
            raise ValueError(
                f"the store has {len(X.class_names)} classes and width {X.width}, the model {len(estimator.classes_)} "
                f"and {estimator.n_features_in_}: "
                "names and width must be the same"
            )
        rows = X.rows(train=False)
        if not len(rows):
            raise ValueError("the store has no test pictures")
        return X, rows
    X = as_numpy(X)
    if len(getattr(X, "shape", ())) == 3:  # scikit-learn would compare the number of patches
        X = check_array(X, allow_nd=True, dtype=np.float32)
    else:
        X = validate_data(estimator, X, allow_nd=True, dtype=np.float32, reset=False)
    if X.shape[-1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[-1]} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} "
            "features"
        )
    patches = as_tokens(X)
    store = TensorStore(
        patches, patches.mean(1), torch.zeros(len(X), dtype=torch.long), class_names=estimator.model_.class_names
    )
    return store, torch.arange(len(X))


def as_numpy(X: np.ndarray | Tensor) -> np.ndarray:
    """Tensors of any device as arrays; everything else as it is."""
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        return (X.float() if X.is_floating_point() else X).numpy()
    return X


def as_tokens(X: np.ndarray) -> Float[Tensor, "images patches dim"]:
    """(N, P, D) tokens; a table counts as one patch per row."""
    if X.ndim == 2:
        X = X[:, None]
    if X.ndim != 3 or not X.shape[1] or round(X.shape[1] ** 0.5) ** 2 != X.shape[1]:
        raise ValueError(
            f"X has shape {X.shape}: (images, patches, dim) with a square number of patches is needed, or (images, dim)"
        )
    return torch.as_tensor(X)
