"""Soft sorting against exhaustive search, a plain second writing of the formula, and finite differences."""

from itertools import permutations

import pytest
import torch

from qpm_lib.explain.ranking.sorting import gumbel, hard_sort, removed, soft_sort


def plainly(scores, levels, tau, noise, iterations):
    """The published formula, with whole matrices."""
    anchors = torch.linspace(1, 0, levels, dtype=scores.dtype)
    log_alpha = (-((scores[:, None, :] - anchors[None, :, None]) ** 2) + noise) / tau
    for _ in range(iterations + 1):
        log_alpha = log_alpha - torch.logsumexp(log_alpha, 1, keepdim=True)
        last = log_alpha
        share = torch.log(torch.tensor(scores.shape[1] / levels))
        log_alpha = log_alpha - torch.logsumexp(log_alpha, 2, keepdim=True) + share
    return last.exp()


def test_all_orders_of_five_are_found_as_tau_falls():
    orders = torch.tensor(list(permutations(range(5))))
    scores = orders.double() / 4
    expected = hard_sort(scores)
    errors = []
    for tau in (1.0, 0.1, 0.01, 0.002):
        soft = soft_sort(scores, tau=tau, iterations=400)
        mean_rank = torch.einsum("b i j, i -> b j", soft, torch.arange(5.0, dtype=torch.double))
        assert torch.equal(mean_rank.argsort(1), expected.argmax(2)), tau
        errors.append(float((soft - expected).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.5
    assert errors[-1] < 1e-6
    assert torch.equal(soft.argmax(2), expected.argmax(2))


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_cells_and_ranks_add_up(levels, tau):
    generator = torch.Generator().manual_seed(1)
    scores = torch.rand(3, 16, generator=generator)
    noise = gumbel((3, levels or 16, 16), generator)
    errors = []
    for iterations in (3, 30, 2000):
        soft = soft_sort(scores, levels=levels, tau=tau, noise=noise, iterations=iterations)
        assert (soft >= 0).all()
        torch.testing.assert_close(soft.sum(1), torch.ones(3, 16), rtol=0, atol=1e-5)
        errors.append(float((soft.sum(2) - 16 / (levels or 16)).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.1
    assert errors[2] < 1e-4


def test_it_is_the_published_formula():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(2, 6, generator=generator, dtype=torch.double)
    for levels in (6, 3):
        noise = gumbel((2, levels, 6), generator).double()
        expected = plainly(scores, levels, 0.5, noise, 30)
        torch.testing.assert_close(soft_sort(scores, levels=levels, tau=0.5, noise=noise), expected)


def test_the_order_of_minus_s_is_that_of_s_upside_down():
    scores = torch.randn(2, 9, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    for levels in (9, 3):
        soft, other = (soft_sort(sign * scores, levels=levels, iterations=300) for sign in (1, -1))
        torch.testing.assert_close(other, soft.flip(1))


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(2, 6, generator=generator, dtype=torch.double, requires_grad=True)
    noise, fractions = gumbel((2, 3, 6), generator).double(), torch.tensor([0.2, 0.7], dtype=torch.double)

    def gone(values):
        return removed(soft_sort(values, levels=3, tau=0.7, noise=noise, iterations=12), fractions)

    assert torch.autograd.gradcheck(gone, scores)


def test_what_is_gone_goes_from_nothing_to_everything():
    scores = torch.tensor([[0.1, 0.9, 0.5, 0.3]])
    gone = removed(hard_sort(scores), torch.tensor([0.0, 0.25, 0.375, 0.5, 1.0]))[0]
    expected = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0.5, 0], [0, 1, 1, 0], [1, 1, 1, 1]]
    torch.testing.assert_close(gone, torch.tensor(expected))
    soft = removed(soft_sort(scores, levels=2), torch.linspace(0, 1, 9))[0]
    assert (soft.diff(dim=0) >= 0).all()
    torch.testing.assert_close(soft[0], torch.zeros(4))
    torch.testing.assert_close(soft[-1], torch.ones(4))


def test_fewer_levels_are_groups_of_ranks():
    scores = torch.randperm(12, generator=torch.Generator().manual_seed(5))[None].double() / 11
    groups = soft_sort(scores, levels=4, tau=0.01, iterations=500)
    expected = hard_sort(scores).unflatten(1, (4, 3)).sum(2)
    torch.testing.assert_close(groups, expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("options", [{"tau": 0.0}, {"levels": 0}, {"levels": 6}, {"iterations": 0}])
def test_settings_that_cannot_work_are_named(options):
    with pytest.raises(ValueError, match=r"tau \(=.*levels \(=.*5, the number of cells"):
        soft_sort(torch.rand(1, 5), **options)


def test_memory_does_not_grow_with_iterations():
    """What autograd keeps for the backward pass: scalings, not matrices."""
    scores, kept = torch.rand(1, 64, requires_grad=True), {}
    for iterations in (5, 50):
        matrices = {}

        def count(tensor, matrices=matrices):
            if tensor.numel() >= 64 * 64:
                matrices[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            soft_sort(scores, iterations=iterations)
        kept[iterations] = len(matrices)
    assert kept[50] == kept[5] < 10
