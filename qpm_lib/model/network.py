"""The network of the finished classifier, from tokens to scores, and the exact explanation of a score."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from qpm_lib.model.adapter import Adapter, Output
from qpm_lib.model.dense import DenseModel
from qpm_lib.model.head import MIN_STD, FixedHead
from qpm_lib.selection import Selection, SparseSelection


class Explanation(NamedTuple):
    """Why a picture got its score for a class.

    Attributes
    ----------
    target : class of each picture. features : positions (0 to n-1) of its k features, ascending.
    contributions : what each of them adds to the logit in this picture, W_cf f_f / std_f: never negative in a QPM.
    constant : what the class has without any picture; with the contributions it adds up to the logit.
    maps : (B, k, g, g), each sums to its contribution. Where classes have different numbers of features, k is the
    largest; the rest are features with weight zero.
    """

    target: Int[Tensor, "batch"]
    features: Int[Tensor, "batch k"]
    contributions: Float[Tensor, "batch k"]
    constant: Float[Tensor, "batch"]
    maps: Float[Tensor, "batch k g g"]


class TokenModel(nn.Module):
    """Adapter for the selected features and a fixed sparse class layer; called with tokens it returns `Output`.

    Attributes
    ----------
    features : (n,) indices of the selected features in the dense model. class_names : C names.
    """

    def __init__(
        self,
        adapter: Adapter,
        head: FixedHead,
        *,
        features: Int[Tensor, "n"],
        class_names: Sequence[str],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.adapter, self.head, self.dropout = adapter, head, nn.Dropout(dropout)
        self.register_buffer("features", features)
        self.class_names = tuple(class_names)

    @classmethod
    def from_dense(
        cls,
        dense: DenseModel,
        selection: Selection | SparseSelection,
        *,
        mean: Float[Tensor, "n"],
        std: Float[Tensor, "n"],
        class_names: Sequence[str],
        dropout: float = 0.0,
    ) -> "TokenModel":
        """Cut a dense model down to a selection; `mean` and `std` are those of the selected dense training features.

        The baselines train mean and standard deviation along, as published.

        Raises
        ------
        ValueError : when the selection does not fit the dense model or the classes.
        """
        f, c = dense.head.in_features, dense.head.out_features
        if selection.features.max() >= f or selection.assignment.shape != (c, len(selection.features)):
            theirs = f"{selection.assignment.shape[0]} classes, features up to {selection.features.max()}"
            raise ValueError(
                f"the selection ({theirs}) does not fit the dense model ({c} classes, {f} features): select again"
            )
        features = torch.as_tensor(selection.features)
        weight, bias = torch.as_tensor(selection.weight), torch.as_tensor(selection.bias)
        head = FixedHead(weight, bias, mean=mean, std=std, trainable=isinstance(selection, SparseSelection))
        return cls(dense.adapter.keep(features), head, features=features, class_names=class_names, dropout=dropout)

    def forward(self, patches: Float[Tensor, "batch patches dim"], cls: Float[Tensor, "batch dim"]) -> Output:
        """Maps and vector of the n selected features, and logits."""
        maps, vector = self.adapter.features(patches, cls)
        return Output(maps, vector, self.head(self.dropout(vector.float())))

    @property
    def class_weight(self) -> Float[Tensor, "classes n"]:
        """W: one row per class."""
        return self.head.weight

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.head.weight.device

    @property
    def n_per_class(self) -> int:
        """k, the number of features of each class; the largest where they differ."""
        return int((self.head.weight != 0).sum(1).max())

    def explain_tokens(self, out: Output, target: Int[Tensor, "batch"]) -> Explanation:
        """Exact local explanation from an output: E_f[p] = W_cf M_f[p] / (std_f P) for the features of the class
        (method section 6).

        Raises
        ------
        ValueError : for a pooling that does not come from the patches.
        """
        maps, pooling = out.maps.float(), self.adapter.config.pooling
        if pooling == "max":
            flat = maps.flatten(2)
            peak = torch.zeros_like(flat).scatter_(2, flat.argmax(2, keepdim=True), 1.0)
            maps = (flat * peak).view_as(maps)
        elif pooling == "avg":
            maps = maps / maps[0, 0].numel()
        else:
            raise ValueError(
                f"adapter.pooling (={pooling!r}) uses the CLS token, which has no place in the picture: "
                "train with avg or max"
            )
        weights = self.head.weight[target]
        chosen = (
            (weights != 0)
            .float()
            .sort(dim=1, descending=True, stable=True)
            .indices[:, : self.n_per_class]
            .sort(1)
            .values
        )
        rows = torch.arange(len(target), device=chosen.device)[:, None]
        used, std = weights[rows, chosen], self.head.std.detach().clamp_min(MIN_STD)[chosen]
        contributions = used * self.head.strength(out.vector.float())[rows, chosen]
        shares = maps[rows, chosen] * (used / std)[..., None, None]
        return Explanation(target, chosen, contributions.detach(), self.head.constants[target], shares)

    def local_map(self, out: Output, target: Int[Tensor, "batch"]) -> Float[Tensor, "batch g g"]:
        """The maps of a class added up; the sum over the picture is the logit plus a constant of the class."""
        return einsum(self.explain_tokens(out, target).maps, "b k y x -> b y x")
