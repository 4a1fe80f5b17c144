"""What every room needs: settings, seeds, devices and precision, whole files, progress. Knows nothing of pictures."""

from qpm_lib.core.artifacts import (
    cache_folder,
    clear_unfinished,
    content_hash,
    file_hash,
    make_cache_folder,
    read_json,
    read_object,
    save_arrays,
    saved_arrays,
    to_json,
    without_nan,
    write_atomically,
    write_json,
)
from qpm_lib.core.checkpoints import Checkpoint, go_on
from qpm_lib.core.config import (
    VERSION,
    AdapterConfig,
    DataConfig,
    RankingConfig,
    RunConfig,
    SelectionConfig,
    TrainingConfig,
    stage_key,
)
from qpm_lib.core.devices import choose_device, full_precision, mixed_precision, move
from qpm_lib.core.profiles import METHODS, PROFILES, load_profile
from qpm_lib.core.progress import PROGRESS_FILE, progress, read_progress
from qpm_lib.core.seeding import seed_everything
from qpm_lib.core.settings import config_from_dict, dotted, read_redundancy_rule, setting_names, whole_number
from qpm_lib.core.templates import templates

__all__ = [
    "AdapterConfig",
    "Checkpoint",
    "DataConfig",
    "METHODS",
    "PROFILES",
    "PROGRESS_FILE",
    "RankingConfig",
    "RunConfig",
    "SelectionConfig",
    "TrainingConfig",
    "VERSION",
    "cache_folder",
    "choose_device",
    "clear_unfinished",
    "config_from_dict",
    "content_hash",
    "dotted",
    "file_hash",
    "full_precision",
    "go_on",
    "load_profile",
    "make_cache_folder",
    "mixed_precision",
    "move",
    "progress",
    "read_json",
    "read_object",
    "read_progress",
    "read_redundancy_rule",
    "save_arrays",
    "saved_arrays",
    "seed_everything",
    "setting_names",
    "stage_key",
    "templates",
    "to_json",
    "whole_number",
    "write_atomically",
    "without_nan",
    "write_json",
]
