"""The saliency explorer in Jupyter: look at pictures, switch features on and off, compare classes."""

from qpm_lib.explorer.controls import SIDE
from qpm_lib.explorer.widget import explore

__all__ = ["SIDE", "explore"]
