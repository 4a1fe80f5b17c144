"""The fixed class layer."""

from jaxtyping import Float
from torch import Tensor, nn

from qpm_lib.core import full_precision

MIN_STD = 1e-6


class FixedHead(nn.Module):
    """Class layer with fixed weights on normalised features: logit_c = sum_f W_cf (f_f - mean_f) / std_f + b_c.

    Binary W without bias is the layer of QPM (BLDD); sparse real W with a bias is that of the baselines.
    Mean and standard deviation are those of the dense training features, the latter at least 1e-6; frozen,
    or trained along where `trainable` says so.
    """

    def __init__(
        self,
        weight: Float[Tensor, "classes n"],
        bias: Float[Tensor, "classes"],
        *,
        mean: Float[Tensor, "n"],
        std: Float[Tensor, "n"],
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())
        self.mean = nn.Parameter(mean.float(), requires_grad=trainable)
        self.std = nn.Parameter(std.float().clamp_min(MIN_STD), requires_grad=trainable)

    def normalise(self, vector: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        """(f - mean) / std."""
        return (vector - self.mean) / self.std.clamp_min(MIN_STD)

    def strength(self, vector: Float[Tensor, "batch n"]) -> Float[Tensor, "batch n"]:
        """f / std: what a picture adds to the score of a class per unit of weight, never negative after a ReLU."""
        return vector / self.std.clamp_min(MIN_STD)

    @property
    def constants(self) -> Float[Tensor, "classes"]:
        """What each class has without any picture, b_c - sum_f W_cf mean_f / std_f: its score where no feature is on.

        W strength + constants is the score.
        """
        return (self.bias - self.weight @ (self.mean / self.std.clamp_min(MIN_STD))).detach()

    def forward(self, vector: Float[Tensor, "batch n"]) -> Float[Tensor, "batch classes"]:
        """Class scores."""
        with full_precision(vector.device):  # the explanation adds up to the score
            return self.normalise(vector.float()) @ self.weight.T + self.bias
