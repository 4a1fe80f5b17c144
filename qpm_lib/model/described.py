"""What a model's folder says of its features besides the weights: names, and what was measured of their places."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qpm_lib.model.folder import note_locality, rename_features, with_proposals
from qpm_lib.model.hub import push_model
from qpm_lib.model.manifest import ModelManifest
from qpm_lib.model.network import TokenModel


class DescribedModel(TokenModel):
    """The network with the words of its folder.

    Attributes
    ----------
    manifest : what stands in `model.json`; None before the model is saved.
    """

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.manifest: ModelManifest | None = None
        self._folder: Path | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the n features; `feature 0` and so on where nobody gave others."""
        if self.manifest is not None:
            return self.manifest.feature_names
        return tuple(f"feature {f}" for f in range(len(self.features)))

    def rename_features(self, names: Sequence[str] | Mapping[int, str]) -> None:
        """Give the features other names; they are written into the model folder where the model was saved or loaded,
        and into its card.

        Parameters
        ----------
        names : all n of them, or those that change, by feature; the others stay as the folder has them.

        Raises
        ------
        ValueError : when there are not n names, one is empty, or the model lies in no folder yet.
        """
        manifest, folder = self._saved()
        self.manifest = replace(manifest, feature_names=rename_features(folder, names))

    def propose_names(self, proposed: Mapping[int, tuple[str, float]]) -> None:
        """Propose names with their support (0 to 1), by feature, marked as proposed in the model folder, too; names
        that a person gave stay. Raises a ValueError when the model lies in no folder yet.
        """
        self.rename_features(with_proposals(self.feature_names, proposed))

    def note_locality(self, found: Mapping[str, float]) -> None:
        """Write what `metrics.feature_locality` found (its `means`) into the model folder, for its card and the report.
        Raises a ValueError when the model lies in no folder yet, or a number is missing.
        """
        manifest, folder = self._saved()
        self.manifest = replace(manifest, locality=note_locality(folder, found))

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Share the model on the Hugging Face Hub as `owner/name`: weights as safetensors, everything else as JSON, and
        the card with its metadata; no training pictures. Returns the address of the commit.

        Parameters
        ----------
        options : `license` (a short name of the Hub; default: that of the backbone), `private`, `token`, `message`.

        Raises
        ------
        ValueError : when the model lies in no folder yet, for another name or licence, or where the Hub refuses.
        """
        return push_model(self._saved()[1], name, **options)

    def _saved(self) -> tuple[ModelManifest, Path]:
        if self._folder is None or self.manifest is None:
            raise ValueError("the model lies in no folder yet: save it first")
        return self.manifest, self._folder
