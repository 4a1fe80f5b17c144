"""The network that draws the map: tokens of a frozen backbone and the picture in, one dense map per class out."""

from collections.abc import Sequence

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from qpm_lib.explain.ranking.reading import Reading


class Decoder(nn.Module):
    """Tokens of several depths are added up, scaled and shifted by the class, see each other once, and are brought to
    finer resolution with the help of the picture: a light form of DPT (Ranftl et al. 2021).

    Ours: the class enters by scale and shift (FiLM), learned for each class and from the direction in which its logit
    leads, which is known of every class of every model; and by the evidence that each token holds for it and for its
    strongest rival, as two more channels. A decoder without training gives the first of them.

    Parameters
    ----------
    width : D of the tokens. depths : number of taps. classes : C. channels : inside, a multiple of 4.
    """

    def __init__(self, *, widths: Sequence[int], classes: int, channels: int = 64) -> None:
        super().__init__()
        self.read = nn.ModuleList([nn.Linear(width, channels) for width in widths])
        self.whole = nn.Linear(widths[-1], channels)
        self.evidence = nn.Linear(2, channels)
        self.of_class = nn.Embedding(classes, 2 * channels)
        self.of_lead = nn.Linear(widths[-1], 2 * channels)
        self.near = nn.Conv2d(channels, channels, 3, padding=1)
        self.far = nn.TransformerEncoderLayer(
            channels, 4, 2 * channels, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.coarse = nn.Conv2d(channels, 1, 1)
        self.shrink = nn.Conv2d(channels, channels // 4, 1)
        self.detail = nn.Conv2d(3, channels // 4, 3, padding=1)
        self.fine = nn.Sequential(
            nn.GELU(), nn.Conv2d(channels // 4, channels // 4, 3, padding=1), nn.GELU(), nn.Conv2d(channels // 4, 1, 1)
        )
        last = self.fine[-1]
        for zero in (*self.of_lead.parameters(), *self.coarse.parameters(), *last.parameters(), self.of_class.weight):
            nn.init.zeros_(zero)

    def forward(
        self,
        seen: Reading,
        pixels: Float[Tensor, "batch 3 size size"],
        classes: Int[Tensor, "batch"],
    ) -> Float[Tensor, "batch size size"]:
        """Maps (B, H, W) of the size of the picture."""
        evidence, grid = seen.evidence, round(seen.evidence.shape[1] ** 0.5)
        x = sum(read(F.layer_norm(t, t.shape[-1:])) for read, t in zip(self.read, seen.tokens, strict=True))
        x = x + self.whole(F.layer_norm(seen.whole, seen.whole.shape[-1:]))[:, None] + self.evidence(evidence)
        scale, shift = (self.of_class(classes)[:, None] + self.of_lead(seen.lead)).chunk(2, -1)
        x = F.gelu(x * (1 + scale) + shift)
        x = rearrange(self.far(x), "b (y x) c -> b c y x", y=grid)
        x = x + F.gelu(self.near(x))
        coarse = rearrange(evidence[..., :1], "b (y x) c -> b c y x", y=grid) + self.coarse(x)
        small = 4 * grid
        up = self.detail(F.interpolate(pixels, size=small, mode="area"))
        up = up + F.interpolate(self.shrink(x), size=small, mode="bilinear")
        dense = F.interpolate(coarse, size=small, mode="bilinear") + self.fine(up)
        return F.interpolate(dense, size=pixels.shape[-2:], mode="bilinear")[:, 0]
