"""What separates twins: planted strengths and maps, and the feature and the part that must be found."""

import numpy as np
import pytest
import torch

from qpm_lib.conformal.hierarchy import hierarchy
from qpm_lib.conformal.sets import HierarchicalSets
from qpm_lib.data.toy.bird import PARTS
from qpm_lib.data.toy.scenes import load_scenes
from qpm_lib.metrics.ground_truth import twin
from qpm_lib.metrics.parts import VARIED, coverage
from qpm_lib.metrics.twins import _splitting, twin_splits


@pytest.mark.parametrize("seed", range(20))
def test_the_feature_by_which_paths_part_belongs_to_one_of_the_classes(seed):
    """And it is the strongest one that does, which is found without paths."""
    rng = np.random.default_rng(seed)
    weight = torch.zeros(2, 9)
    for c in range(2):
        weight[c, rng.permutation(9)[:4]] = 1
    vector = torch.tensor(rng.exponential(size=(1, 9)), dtype=torch.float32)
    tree = hierarchy(vector, weight, torch.tensor([0]))
    found = _splitting(tree.features[0], tree.values[0], int(tree.depth[0, 1]), 0, 1)
    only = torch.where(weight[0] != weight[1], vector[0], -1.0)
    assert found == (int(only.argmax()) if only.max() > 0 else -1)


def test_twins_are_separated_where_it_was_planted_and_drawing_the_part_away_makes_the_set_grow(toy):
    """Feature 0 belongs to both twins; 1 lies on the part that differs, 2 on another one, and is the other twin's."""
    scenes = load_scenes(toy.root)
    row = next(r for r in range(len(toy.labels)) if twin(scenes.species, int(toy.labels[r])))
    label = int(toy.labels[row])
    other, part = twin(scenes.species, label)
    elsewhere = next(p for p in VARIED if p != part)
    weight = torch.zeros(len(toy.class_names), 3)
    weight[:, [0, 2]] = 1
    weight[label] = torch.tensor([1.0, 1, 0])

    def answers(strength):
        whole = scenes.render(toy, row).parts
        places = [coverage((whole == PARTS.index(p))[None], 16)[0] for p in (part, part, elsewhere)]
        maps = torch.tensor(np.stack(places), dtype=torch.float32)
        vector = torch.tensor([[3.0, *strength], [3.0, 0.0, 0.0]])
        logits = vector @ weight.T + torch.tensor([0.0, 1e-3]).outer(torch.eye(len(weight))[label])
        logits[0, label] += 9
        return lambda images: (maps.expand(len(images), -1, -1, -1), vector, logits)

    vector, logits = torch.tensor([[3.0, 2.0, 1.0]] * 20), torch.eye(len(weight))[[label] * 20]
    sets = HierarchicalSets(weight, split="published").fit(vector, logits, torch.tensor([label] * 20))
    for strength, where in (((2.0, 1.0), part), ((1.0, 2.0), elsewhere)):
        (split,) = twin_splits(answers(strength), sets, toy, scenes, [row])
        assert (split.label, split.twin, split.part, split.shown) == (label, other, part, where)
        assert split.on_part == (where == part)
    assert split.after[[label, other]].all()
    (split,) = twin_splits(answers((2.0, 1.0)), sets, toy, scenes, [row])
    assert np.flatnonzero(split.before).tolist() == [label]
