import math

import pytest
import torch

from qpm_lib.core.config import TrainingConfig
from qpm_lib.model.adapter import Output
from qpm_lib.model.losses import diversity_loss, grounding_loss, loss_terms, total


def spots(places, n_patches=4, height=50.0):
    maps = torch.zeros(1, len(places), n_patches)
    for f, p in enumerate(places):
        maps[0, f, p] = height
    return maps.view(1, len(places), 2, -1)


def loss(maps, weight, logits=None):
    vector = maps.mean((2, 3))
    return diversity_loss(maps, vector, logits if logits is not None else torch.tensor([[0.0, 1.0]]), weight).item()


def test_different_places_earn_more_than_the_same():
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert loss(spots([0, 3]), weight) == pytest.approx(-math.sqrt(2), abs=1e-4)
    assert loss(spots([2, 2]), weight) == pytest.approx(-1 / math.sqrt(2), abs=1e-4)


def test_only_the_predicted_class_counts():
    weight = torch.tensor([[1.0, 0.0], [0.6, -0.8]])
    assert loss(spots([0, 3]), weight, torch.tensor([[5.0, 1.0]])) == pytest.approx(-1.0, abs=1e-4)
    assert loss(spots([0, 3]), weight, torch.tensor([[1.0, 5.0]])) == pytest.approx(-1.4, abs=1e-4)


def test_a_by_hand_value():
    maps = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]]]])
    vector = torch.tensor([[0.5, 0.25]])
    weight = torch.tensor([[3.0, 4.0]])
    a, b = 1 / (math.exp(1) + 3), 1 / (math.exp(0.5) + 3)  # softmax of a patch that is off
    first, second = 0.6 * 1.0, 0.8 * 0.5  # weight times activity
    expected = -(
        max(first * math.e * a, second * b)
        + max(first * a, second * math.exp(0.5) * b)
        + 2 * max(first * a, second * b)
    )
    assert diversity_loss(maps, vector, torch.tensor([[1.0]]), weight).item() == pytest.approx(expected, rel=1e-6)


def test_nothing_active_is_no_error_and_has_a_gradient():
    maps = torch.zeros(2, 3, 2, 2, requires_grad=True)
    value = diversity_loss(maps, maps.mean((2, 3)), torch.zeros(2, 2), torch.zeros(2, 3))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(maps.grad).all()


def test_terms_and_their_weights():
    maps, logits = torch.rand(2, 3, 2, 2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    out = Output(maps, maps.mean((2, 3)), logits)
    config = TrainingConfig(diversity=0.5, l1_maps=5.0, l1_vector=2.0)
    terms = loss_terms(out, torch.tensor([0, 0]), torch.ones(2, 3), config)
    assert list(terms) == ["cross_entropy", "diversity", "l1_maps", "l1_vector"]
    assert terms["l1_maps"].item() == pytest.approx(5 * maps.mean().item(), rel=1e-5)
    assert terms["l1_vector"].item() == pytest.approx(2 * maps.mean().item(), rel=1e-5)
    by_hand = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2
    assert terms["cross_entropy"].item() == pytest.approx(by_hand, rel=1e-5)
    assert total(terms).item() == pytest.approx(sum(v.item() for v in terms.values()), rel=1e-6)
    assert list(loss_terms(out, torch.tensor([0, 0]), torch.ones(2, 3), TrainingConfig())) == ["cross_entropy"]


def written_out(maps, vector, logits, weight):
    """The formula as it stands, with torch's own gradients."""
    chosen = weight[logits.argmax(1)].abs()
    chosen = chosen / chosen.norm(dim=1, keepdim=True)
    importance = chosen * vector / vector.amax(1, keepdim=True)
    return -(importance[..., None] * maps.flatten(2).softmax(2)).amax(1).sum(1).mean() + 3 * maps.abs().mean()


def test_gradients_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    before = torch.randn(5, 7, 4, 4, generator=generator, dtype=torch.float64) - 0.3
    before[0, 2] = -1  # a feature that is nowhere
    logits = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    head = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    config = TrainingConfig(diversity=1.0, l1_maps=3.0)
    found = []
    for way in ("formula", "loss"):
        dtype = torch.float64 if way == "formula" else torch.float32
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (before.clone(), head.clone())]
        maps = inputs[0].relu()
        vector = maps.mean((2, 3))
        if way == "formula":
            value = written_out(maps, vector, logits, inputs[1])
        else:
            out = Output(maps, vector, logits)
            terms = loss_terms(out, torch.tensor([0, 1, 2, 0, 1]), inputs[1], config)
            value = total({name: term for name, term in terms.items() if name != "cross_entropy"})
        value.backward()
        found.append((value.detach(), *(tensor.grad for tensor in inputs)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=2e-5, atol=1e-7)


def test_grounding_by_hand():
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]])
    vector = torch.tensor([[4.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.004, 0.0, 0.002, 0.0]])
    labels = torch.tensor([0, 1, 0])
    by_hand = [(2 * 0.5 - 3) / 4, 0.0, (2 * 0.001 - 0.002) / 0.01]
    assert grounding_loss(vector, labels, weight).item() == pytest.approx(sum(by_hand) / 3)
    assert grounding_loss(torch.tensor([[1.0, 1.0, 0.0, 0.0]]), labels[:1], weight).item() == pytest.approx(-1)
    assert grounding_loss(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), labels[:1], weight).item() == pytest.approx(2)


def test_grounding_is_a_term_of_its_own():
    maps = torch.rand(2, 3, 2, 2)
    out = Output(maps, maps.mean((2, 3)), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    weight, labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]), torch.tensor([0, 1])
    terms = loss_terms(out, labels, weight, TrainingConfig(grounding=3.0))
    assert set(terms) == {"cross_entropy", "grounding"}
    assert terms["grounding"].item() == pytest.approx(3 * grounding_loss(out.vector, labels, weight).item())
