"""Proposed names of features."""

import numpy as np
import pytest

from qpm_lib import metrics


def test_a_name_is_proposed_where_one_attribute_explains_enough():
    explained = np.array([[0.1, 0.71, 0.0], [0.2, 0.1, 0.24], [0.25, 0.0, 0.9]])
    names = ("beak::long", "has_bill_shape::hooked_seabird", "crown::none")
    found = metrics.propose_names(explained, names)
    assert found == {0: ("bill shape hooked seabird", 0.71), 2: ("crown none", 0.9)}
    assert metrics.propose_names(explained, names, least=0.95) == {}
    with pytest.raises(ValueError, match="2 names for 3 attributes"):
        metrics.propose_names(explained, names[:2])


def test_squared_correlation_is_that_of_numpy_and_zero_for_constants():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    x[:, 2] = 4.0
    found = metrics.squared_correlation(x, y)
    expected = [[np.corrcoef(x[:, f], y[:, a])[0, 1] ** 2 for a in range(2)] for f in range(2)]
    np.testing.assert_allclose(found[:2], expected)
    np.testing.assert_array_equal(found[2], 0.0)
