"""The explainer that training begins from on the embedded backbone: made by `data_scripts/train_toy_ranking.py`."""

from pathlib import Path

from safetensors.torch import load_file, save_file

from qpm_lib.core import read_object, write_atomically
from qpm_lib.explain.ranking.decoder import Decoder
from qpm_lib.explain.ranking.method import new_decoder
from qpm_lib.explain.target import Target

TOY_RANKING = Path(__file__).parents[2] / "assets" / "toy_ranking.safetensors"


def save_start(decoder: Decoder, folder: Path) -> None:
    """Write a decoder without what it knows of classes, in fp16: `toy_ranking.safetensors`."""
    state = {name: value.detach().cpu().half().contiguous() for name, value in decoder.state_dict().items()}
    kept = {name: value for name, value in state.items() if not name.startswith("of_class")}
    write_atomically(folder / TOY_RANKING.name, lambda path: save_file(kept, path))


def embedded_start(target: Target, channels: int = 96) -> Decoder | None:
    """The decoder that the package brings along for its own backbone; None for any other backbone or width."""
    card = read_object(TOY_RANKING.with_suffix(".json"))
    if card["backbone"] != target.backbone.fingerprint or card["config"]["channels"] != channels:
        return None
    decoder = new_decoder(target, channels)
    state = {name: value.float() for name, value in load_file(TOY_RANKING).items()}
    decoder.load_state_dict({**decoder.state_dict(), **state})
    return decoder
