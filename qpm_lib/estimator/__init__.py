"""The face for scikit-learn: the whole method behind `fit` and `predict`."""

from qpm_lib.estimator.classifier import QPMClassifier

__all__ = ["QPMClassifier"]
