"""The method behind the interface of scikit-learn: `QPMClassifier().fit(tokens, labels).predict(tokens)`."""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor

from qpm_lib import selection
from qpm_lib.core import load_profile, whole_number
from qpm_lib.estimator.inputs import checked_rows, training_store
from qpm_lib.features import FeatureStore
from qpm_lib.model import Explanation, Output, feature_vectors, fine_tune, map_locality, train_dense

_BATCH = 64


class QPMClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of `n_features` features, of which each class has `n_per_class`: dense training, selection,
    fine-tuning.

    Parameters
    ----------
    n_features, n_per_class : n and k. n_dense : features of the dense model, at least n; None takes 5 n. n_layers,
        hidden : the adapter.
    dense_epochs, fine_tune_epochs : None takes those of the profile. time_limit : seconds for the selection. gap :
        when to stop it.
    profile : where everything that is not named here comes from. device : `auto`, `cpu`, `cuda`;
        a `FeatureStore` keeps its own.
    seed : same seed, same result, unless `time_limit` ends the selection.

    Attributes
    ----------
    classes_ : labels as given. model_ : the `DinoQPM`. selection_ : the `Selection` with its proof. n_features_in_ : D.

    `X` is an array (N, P, D) of patch tokens with P a square number; (N, D) counts as one patch each.
    A `FeatureStore` may take its place in `fit` (training rows and labels of the store, `y` left out),
    `predict` and `score` (its test rows).
    """

    def __init__(
        self,
        n_features: int = 50,
        n_per_class: int = 5,
        *,
        n_dense: int | None = None,
        n_layers: int = 2,
        hidden: int = 256,
        dense_epochs: int | None = None,
        fine_tune_epochs: int | None = None,
        time_limit: float = 600.0,
        gap: float = 0.005,
        profile: str = "folder",
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.n_features, self.n_per_class, self.n_dense = n_features, n_per_class, n_dense
        self.n_layers, self.hidden = n_layers, hidden
        self.dense_epochs, self.fine_tune_epochs = dense_epochs, fine_tune_epochs
        self.time_limit, self.gap = time_limit, gap
        self.profile, self.device, self.seed = profile, device, seed

    def fit(self, X: np.ndarray | Tensor | FeatureStore, y: np.ndarray | None = None) -> "QPMClassifier":
        """Train on tokens and labels.

        Raises
        ------
        ValueError : for values that are not finite, P that is no square, one class only, more classes than sets of k
            out of n features, or settings that contradict each other.
        """
        for name in ("n_features", "n_per_class", "n_layers", "hidden"):
            whole_number(name, getattr(self, name))
        store = training_store(self, X, y)
        settings = {
            "seed": self.seed,
            "selection.n_features": self.n_features,
            "selection.n_per_class": self.n_per_class,
            "selection.gap": self.gap,
            "selection.time_limit": self.time_limit,
            "adapter.n_features": 5 * self.n_features if self.n_dense is None else self.n_dense,
            "adapter.n_layers": self.n_layers,
            "adapter.hidden": self.hidden,
        }
        wanted = {"dense.epochs": self.dense_epochs, "fine_tune.epochs": self.fine_tune_epochs}
        config = load_profile(
            self.profile, **settings, **{name: value for name, value in wanted.items() if value is not None}
        )
        dense, self.dense_history_ = train_dense(store, config)
        rows = store.rows(train=True)
        relevance = selection.relevance(
            feature_vectors(dense, store, rows), store.labels[rows].numpy(), constant="zero"
        )
        keeps = map_locality(dense, store, seed=config.seed) if config.selection.locality else None
        self.selection_ = selection.solve_as_set(relevance, config.selection, keeps=keeps, seed=config.seed)
        self.model_, self.history_ = fine_tune(dense, self.selection_, store, config)
        return self

    @torch.no_grad()
    def _outputs(self, X: np.ndarray | Tensor | FeatureStore) -> Output:
        """Maps, vectors and logits in full precision, so that explanations add up to the scores."""
        store, rows = checked_rows(self, X)
        device = self.model_.device
        parts = [self.model_(batch.patches.to(device), batch.cls.to(device)) for batch in store.batches(rows, _BATCH)]
        return Output(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _scores(self, X: np.ndarray | Tensor | FeatureStore) -> Float[np.ndarray, "images classes"]:
        return self._outputs(X).logits.cpu().numpy()

    def decision_function(self, X: np.ndarray | Tensor | FeatureStore) -> np.ndarray:
        """Class scores (N, C): sums of the class's k normalised features; of two classes the difference (N,),
        as scikit-learn has it.
        """
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: np.ndarray | Tensor | FeatureStore) -> Float[np.ndarray, "images classes"]:
        """Softmax of the scores; not calibrated."""
        return torch.softmax(torch.as_tensor(self._scores(X)).double(), 1).numpy()

    def predict(self, X: np.ndarray | Tensor | FeatureStore) -> np.ndarray:
        """The class with the highest score, as it was given in `y`."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]

    def score(
        self,
        X: np.ndarray | Tensor | FeatureStore,
        y: np.ndarray | None = None,
        sample_weight: np.ndarray | None = None,
    ) -> float:
        """Share of correct predictions."""
        if isinstance(X, FeatureStore) and y is None:
            y = self.classes_[X.labels[X.rows(train=False)].numpy()]
        return super().score(X, y, sample_weight)

    def explain(self, X: np.ndarray | Tensor | FeatureStore) -> Explanation:
        """Contributions and maps of the k features of each predicted class (see `DinoQPM.explain_tokens`)."""
        out = self._outputs(X)
        return self.model_.explain_tokens(out, out.logits.argmax(1))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        tags.classifier_tags.poor_score = True
        return tags
