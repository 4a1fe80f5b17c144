"""All explanation methods by name: where each comes from, what it needs, what it costs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from qpm_lib.explain.attention import AttentionMap, LeGrad, RelevancePropagation, Rollout
from qpm_lib.explain.attn_lrp import AttnLRP
from qpm_lib.explain.base import ExplanationMethod, Method
from qpm_lib.explain.cdam import CDAM, IntegratedCDAM, SmoothCDAM
from qpm_lib.explain.gradients import GradCAM, IntegratedGradients
from qpm_lib.explain.intrinsic import ClassActivationMap, IntrinsicExplanation
from qpm_lib.explain.perturbation import RISE, TokenAblation
from qpm_lib.explain.ranking import LearnedRanking
from qpm_lib.explain.target import Target
from qpm_lib.explain.uninformed import CentredBlob, EdgeMap, RandomMap


class MethodEntry(NamedTuple):
    """What is known of a method.

    `title` for figures and tables. `signed`: maps have values below zero, evidence against the class.
    `class_specific`: the map depends on the class. `needs`: what it reads besides the picture: `tokens` of a
    transformer, its `attention` weights, `gradients`, `a DinoQPM`, `a trained explainer`, or nothing. `cost` in forward
    passes of the backbone per picture, for L blocks and N patches; measured in `benchmarks/explanations.py`. `quick`: a
    few passes at most.
    """

    build: type[Method]
    title: str
    source: str
    signed: bool
    class_specific: bool
    needs: tuple[str, ...]
    cost: str
    quick: bool = True

    def drawn(self, maps: Float[np.ndarray, "*any g g"]) -> Float[np.ndarray, "*any g g"]:
        """Maps as they are drawn: those with a sign as they are, others, as their papers do it, from their smallest
        value on.
        """
        return maps if self.signed else maps - maps.min((-2, -1), keepdims=True)

    @property
    def uninformed(self) -> bool:
        """Whether it is one of the maps that know nothing of the model, which any method must beat."""
        return not self.source


_GRADIENTS, _TOKENS, _ATTENTION = ("gradients",), ("tokens", "gradients"), ("attention", "gradients")
_CDAM = "Brocki et al. 2023, arXiv 2312.02364"
METHODS: Mapping[str, MethodEntry] = {
    "intrinsic": MethodEntry(
        IntrinsicExplanation, "intrinsic", "DINO-QPM, arXiv 2604.07166", True, True, ("a DinoQPM",), "1"
    ),
    "class_activation_map": MethodEntry(
        ClassActivationMap, "class activation", "Zhou et al. 2016", True, True, (), "1"
    ),
    "cdam": MethodEntry(CDAM, "CDAM", _CDAM, True, True, _TOKENS, "1 + 2/L"),
    "smooth_cdam": MethodEntry(SmoothCDAM, "smooth CDAM", _CDAM, True, True, _TOKENS, "1 + 3 m/L, m = 50", False),
    "integrated_cdam": MethodEntry(
        IntegratedCDAM, "integrated CDAM", _CDAM, True, True, _TOKENS, "1 + 3 m/L, m = 50", False
    ),
    "attention": MethodEntry(AttentionMap, "attention", "Caron et al. 2021", False, False, ("attention",), "1"),
    "rollout": MethodEntry(Rollout, "rollout", "Abnar and Zuidema 2020", False, False, ("attention",), "1"),
    "relevance_propagation": MethodEntry(
        RelevancePropagation, "relevance prop.", "Chefer et al. 2021", False, True, _ATTENTION, "3 to 4"
    ),
    "legrad": MethodEntry(
        LeGrad, "LeGrad", "Bousselham et al. 2024, arXiv 2404.03214", False, True, _ATTENTION, "3 to 4"
    ),
    "attn_lrp": MethodEntry(
        AttnLRP, "AttnLRP", "Achtibat et al. 2024, arXiv 2402.05602", True, True, _ATTENTION, "3 to 4"
    ),
    "grad_cam": MethodEntry(GradCAM, "Grad-CAM", "Selvaraju et al. 2017", False, True, _GRADIENTS, "1 + 2/L"),
    "integrated_gradients": MethodEntry(
        IntegratedGradients,
        "integrated grad.",
        "Sundararajan et al. 2017",
        True,
        True,
        _GRADIENTS,
        "3 m, m = 50",
        False,
    ),
    "token_ablation": MethodEntry(
        TokenAblation, "token ablation", "after Brocki et al. 2023", True, True, ("tokens",), "N", False
    ),
    "rise": MethodEntry(RISE, "RISE", "Petsiuk et al. 2018", False, True, (), "500", False),
    "ranking": MethodEntry(
        LearnedRanking,
        "learned ranking",
        "Schinagl et al. 2026, arXiv 2604.05819",
        False,
        True,
        ("a trained explainer",),
        "1.1, after training",
    ),
    "random": MethodEntry(RandomMap, "random", "", False, True, (), "0"),
    "centre": MethodEntry(CentredBlob, "centred blob", "", False, False, (), "0"),
    "edges": MethodEntry(EdgeMap, "edges", "", False, False, (), "0"),
}


def make(name: str, target: Target, **options: Any) -> ExplanationMethod:
    """An explanation method by its name in `METHODS`, for a target.

    Raises
    ------
    ValueError : for an unknown method, an option that it does not have, or a target that it cannot explain.
    """
    if name not in METHODS:
        raise ValueError(f"unknown explanation method {name!r}: choose from {', '.join(METHODS)}")
    try:
        return METHODS[name].build(target, **options)
    except TypeError as error:
        raise ValueError(f"method {name}: {error}") from error


def quick_methods(target: Target) -> tuple[str, ...]:
    """Names of the methods that explain a target in a few forward passes, without those that know nothing of it."""
    return tuple(name for name in possible(target) if METHODS[name].quick and not METHODS[name].uninformed)


def possible(target: Target) -> tuple[str, ...]:
    """Names of the methods that can explain a target, in the order of `METHODS`."""
    found = []
    for name in METHODS:
        try:
            make(name, target)
        except ValueError:
            continue
        found.append(name)
    return tuple(found)
