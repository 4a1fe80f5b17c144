"""Fixtures: a cache of its own, shape checks on, small toy data, and a store with planted features."""

import importlib
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ["QPM_CACHE"] = tempfile.mkdtemp(prefix="qpm-test-cache-")
os.environ["TQDM_DISABLE"] = "1"
os.environ["MPLBACKEND"] = "agg"
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // workers, 1))

from jaxtyping import install_import_hook

with install_import_hook("qpm_lib", "shape_checks.checked"):
    import qpm_lib

    package = Path(qpm_lib.__path__[0])
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        if "estimator" not in parts and parts[-1] != "__init__":  # scikit-learn's checks hand over anything
            importlib.import_module(".".join(parts))

import numpy as np
import planted_models
import pytest
import torch
from hypothesis import settings
from PIL import Image
from small_course import small_course  # noqa: F401 - a fixture

from qpm_lib.cli import main
from qpm_lib.core.config import AdapterConfig, DataConfig
from qpm_lib.core.profiles import load_profile
from qpm_lib.data.dataset import ImageDataset
from qpm_lib.data.load import load_dataset
from qpm_lib.explain.target import Target
from qpm_lib.features.shards import Manifest, save_shard, shard_name
from qpm_lib.features.store import FeatureStore
from qpm_lib.model.dense import DenseModel
from qpm_lib.model.outputs import feature_vectors
from qpm_lib.model.qpm import DinoQPM
from qpm_lib.selection.result import Selection

settings.register_profile("same every time", derandomize=True)
settings.load_profile("same every time")

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "CUB_200_2011_mini"
N_CLASSES, GRID, WIDTH = 4, 4, 12


def pytest_unconfigure():
    shutil.rmtree(os.environ["QPM_CACHE"], ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        # Of several processes, one executes the chain; the tests of a file stay together.
        item.add_marker(pytest.mark.xdist_group("smoke" if "smoke" in item.fixturenames else item.path.stem))
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="CUDA is not available on this machine"))
        if "photographs" in item.keywords and not PHOTOGRAPHS.exists():
            item.add_marker(pytest.mark.skip(reason="the CUB-200-2011 sample is not beside the checkout"))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture(scope="session")
def photographs():
    return PHOTOGRAPHS


@pytest.fixture(scope="session")
def toy():
    """Four species, six training and three test pictures each."""
    return load_dataset(DataConfig(n_species=4, train_per_class=6, test_per_class=3))


@pytest.fixture(scope="session")
def backbone():
    return qpm_lib.load_backbone("toy")


@pytest.fixture(scope="session")
def toy_store(toy, backbone):
    return FeatureStore.extract(toy, backbone, shard_size=16)


@pytest.fixture(scope="session")
def untrained(toy, toy_store):
    """A model on toy pictures with four features, two per class, and its selection: untrained,
    so that nothing but the plumbing is tested.
    """
    torch.manual_seed(0)
    dense = DenseModel(192, 4, AdapterConfig(n_layers=1, n_features=7))
    assignment = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], bool)
    selection = Selection(np.array([1, 3, 4, 6]), assignment, 1.0, 1.0, 0.0, 0.0, "optimal")
    vectors = torch.as_tensor(feature_vectors(dense, toy_store, toy_store.rows(train=True)))[:, selection.features]
    model = DinoQPM.from_dense(dense, selection, mean=vectors.mean(0), std=vectors.std(0), class_names=toy.class_names)
    return model.eval(), selection


@pytest.fixture(scope="session")
def target(untrained, backbone):
    """The untrained model as something to be explained: it pools patches."""
    return Target(untrained[0], backbone)


@pytest.fixture(scope="session")
def small():
    """Backbones by name, made when they are asked for."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = planted_models.small_backbone(name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def models():
    return planted_models.classifiers(48)


@pytest.fixture(scope="session")
def noise():
    """Pictures without a motif, of different sizes."""
    rng = np.random.default_rng(0)
    sizes = ((40, 40), (32, 50), (60, 33))
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="session")
def rigged():
    return planted_models.rigged_backbone()


@pytest.fixture(scope="session")
def bright_models():
    return planted_models.brightness_models()


@pytest.fixture
def make_target(small, models):
    """A target by the names of backbone and classifier."""

    def get(backbone, model):
        return Target(
            models[model] if backbone != "resnet50" else planted_models.classifiers(2048)[model], small(backbone)
        )

    return get


def planted_tokens(label, rng):
    """Background noise, plus the two directions of a class at patches of their own. Classes c and c + 1 share a
    direction.
    """
    patches = 0.1 * rng.standard_normal((GRID * GRID, WIDTH))
    patches[label, label] += 3.0
    patches[8 + label, (label + 1) % N_CLASSES] += 3.0
    return patches


def make_store(folder, n_per_class=20, seed=0, shard_size=32):
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(N_CLASSES), n_per_class)
    patches = np.stack([planted_tokens(c, rng) for c in labels])
    cls = patches.mean(1)
    is_train = np.arange(len(labels)) < int(0.75 * len(labels))
    files = tuple(f"{i}.png" for i in range(len(labels)))
    dataset = ImageDataset(root=folder, files=files, labels=labels, is_train=is_train, class_names=tuple("abcd"))
    manifest = Manifest({"backbone": "planted"}, "planted", len(labels), GRID * GRID, WIDTH, shard_size)
    for k, start in enumerate(range(0, len(labels), shard_size)):
        content = {
            "patches": torch.tensor(patches[start : start + shard_size]).half(),
            "cls": torch.tensor(cls[start : start + shard_size]).half(),
        }
        save_shard(content, folder / shard_name(k))
    return FeatureStore(folder, manifest, dataset), dataset


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="session")
def planted_config():
    config = load_profile(
        "toy",
        **{
            "selection.n_features": 6,
            "selection.n_per_class": 2,
            "dense.epochs": 40,
            "dense.lr": 1e-2,
            "dense.l1_maps": 0.0,
            "fine_tune.epochs": 15,
        },
    )
    return replace(config, adapter=AdapterConfig(n_layers=1, hidden=16, n_features=16))


@pytest.fixture(scope="session")
def trained(planted, planted_config):
    """Dense model, selection and finished model on the planted store."""
    store, _ = planted
    dense, _ = qpm_lib.train_dense(store, planted_config)
    rows = store.rows(train=True)
    vectors = qpm_lib.model.feature_vectors(dense, store, rows)
    a = qpm_lib.selection.relevance(vectors, store.labels[rows].numpy(), constant="zero")
    chosen = qpm_lib.selection.solve(a, qpm_lib.selection.redundancy(a, 6), n_features=6, n_per_class=2, gap=0.0)
    model, history = qpm_lib.fine_tune(dense, chosen, store, planted_config)
    return dense, chosen, model, history


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The whole chain on profile smoke; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MPLBACKEND")  # executed chapters hold their figures, as they do for everybody
        assert main(["run", "--profile", "smoke", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def smoke_copy(smoke, tmp_path):
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(smoke, tmp_path / "run"))
