"""Which toy birds there are: random ones, and species in pairs of twins that differ in one part."""

import numpy as np

from qpm_lib.data.toy.bird import FACTORS, Bird

_NEIGHBOUR_DISTANCE = 4


def random_bird(rng: np.random.Generator) -> Bird:
    """A uniformly random combination of part variants."""
    return Bird(*(variants[rng.integers(len(variants))] for variants in FACTORS.values()))


def _distance(a: Bird, b: Bird) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def make_species(n_species: int = 24, seed: int = 3) -> list[Bird]:
    """Species in pairs of twins: members of a pair differ in exactly one factor, members of different pairs in at least
    four.

    Base and breast colours are dealt out evenly, so that no colour belongs to one species alone.

    Raises
    ------
    ValueError : for an odd number, or one outside 2 to 48.
    """
    if n_species % 2 or not 2 <= n_species <= 48:
        raise ValueError(f"n_species (={n_species}) must be an even number from 2 to 48: species come in pairs")
    rng = np.random.default_rng([seed, 11])
    twin_factors = ("beak", "crown", "eye", "breast_pattern", "wing", "tail", "beak_colour", "legs", "crown_colour")
    species: list[Bird] = []
    while len(species) < n_species:
        pair = len(species) // 2
        factor = twin_factors[pair % len(twin_factors)]
        base, breast = FACTORS["base_colour"][pair % 4], FACTORS["breast_colour"][(pair // 4 + pair) % 4]
        bird = random_bird(rng)._replace(base_colour=base, breast_colour=breast)
        others = [v for v in FACTORS[factor] if v != getattr(bird, factor)]
        twin = bird._replace(**{factor: others[rng.integers(len(others))]})
        crown_visible = bird.crown != "none" and twin.crown != "none"
        far = all(_distance(new, old) >= _NEIGHBOUR_DISTANCE for new in (bird, twin) for old in species)
        if far and (crown_visible or factor != "crown_colour"):
            species += [bird, twin]
    return species


def species_name(bird: Bird) -> str:
    """A readable name such as `Rust_Spots_Cone`, unique enough to recognise a species by."""
    return "_".join(
        v.replace("_", "-").capitalize()
        for v in (bird.base_colour, bird.breast_colour, bird.breast_pattern, bird.crown, bird.beak)
    )
