"""Every measure takes NumPy arrays and tensors alike, and names what does not fit."""

import numpy as np
import pytest
import torch

from qpm_lib import metrics

RNG = np.random.default_rng(0)
VECTORS, LABELS = RNG.gamma(1.0, size=(40, 5)).astype(np.float32), np.arange(40) % 4
WEIGHT, CLASS_ATTRIBUTES = RNG.random((4, 5)).astype(np.float32) + 0.1, RNG.random((4, 6)).astype(np.float32) + 0.1
ATTRIBUTES, LOGITS = RNG.random((40, 6)) < 0.5, RNG.random((40, 4)).astype(np.float32)
MAPS, MASKS = RNG.random((40, 5, 4, 4)).astype(np.float32), RNG.random((40, 9, 7)) < 0.5
FAMILY = {
    "accuracy": (LOGITS, LABELS),
    "confusion": (LABELS, LABELS[::-1].copy(), 4),
    "sid": (MAPS, WEIGHT, LABELS, 3),
    "plausibility": (MAPS, WEIGHT, LABELS, MASKS),
    "pointing": (MAPS, WEIGHT, LABELS, MASKS),
    "grid_masks": (MASKS, 4),
    "class_independence": (VECTORS, LABELS),
    "contrastiveness": (VECTORS,),
    "correlation": (VECTORS,),
    "structural_grounding": (WEIGHT, CLASS_ATTRIBUTES),
    "attribute_alignment": (VECTORS, ATTRIBUTES),
}


def as_tensors(arguments, grad=False):
    made = [torch.as_tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    floating = [isinstance(a, torch.Tensor) and a.is_floating_point() for a in made]
    return [a.clone().requires_grad_() if grad and f else a for a, f in zip(made, floating, strict=True)]


@pytest.mark.parametrize("name", FAMILY)
def test_arrays_and_tensors_give_the_same(name):
    measure, arguments = getattr(metrics, name), FAMILY[name]
    np.testing.assert_array_equal(measure(*arguments), measure(*as_tensors(arguments)))
    with_graph = measure(*as_tensors(arguments, grad=True))
    np.testing.assert_array_equal(with_graph, measure(*arguments))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken(kind):
    half = torch.as_tensor(VECTORS).to(kind)
    wanted = metrics.correlation(half.float())
    assert metrics.correlation(half) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("sid", (MAPS, WEIGHT[:, :3], LABELS), r"weight has 3 features, maps has 5 \(shape \(4, 3\)\)"),
        ("sid", (MAPS[0], WEIGHT, LABELS), r"maps has shape \(5, 4, 4\): its axes must be \(images, features, g, g\)"),
        ("sid", (MAPS[..., :3], WEIGHT, LABELS), "maps has 3 g, maps has 4"),
        ("sid", (MAPS, WEIGHT, LABELS, 0), "k .=0"),
        ("plausibility", (MAPS, WEIGHT, LABELS.astype(np.uint8), MASKS), "predicted is of type uint8"),
        ("sid", (MAPS, WEIGHT, LABELS + 1), "predicted holds class 4: classes are numbered 0 to 3"),
        ("plausibility", (MAPS, WEIGHT, LABELS, MASKS[:7]), "masks has 7 images, maps has 40"),
        ("pointing", (MAPS, WEIGHT, LABELS - 1, MASKS), "predicted holds class -1"),
        ("class_independence", (VECTORS, LABELS[:9]), "labels has 9 images, features has 40"),
        ("contrastiveness", (VECTORS[0],), r"features has shape \(5,\)"),
        ("correlation", ([[1.0, 2.0]],), "features is of type list: a NumPy array or a tensor is needed"),
        ("structural_grounding", (WEIGHT, CLASS_ATTRIBUTES[:2]), "class_attributes has 2 classes, weight has 4"),
        ("attribute_alignment", (VECTORS, ATTRIBUTES[:3]), "attributes has 3 images, features has 40"),
        ("accuracy", (LOGITS, LABELS[:3]), "labels has 3 images, logits has 40"),
        ("confusion", (LABELS, LABELS, 3), "predicted holds class 3"),
    ],
)
@pytest.mark.parametrize("convert", [list, as_tensors])
def test_what_does_not_fit_is_named(name, arguments, words, convert):
    """Also where no type checker looks on, as for users."""
    with pytest.raises(ValueError, match=words):
        getattr(metrics, name).__wrapped__(*convert(arguments))
