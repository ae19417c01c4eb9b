import torch

from caveat.attacks.noise import Noise, drawn

MASK = 2**64 - 1


def split_mix(state):
    """SplitMix64's finaliser on Python's integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_equals_split_mix_in_plain_python():
    golden = 0x9E3779B97F4A7C15
    seed, stream = 123_456_789_012_345, 2
    state = split_mix((seed + ((golden - 2**64) * (stream + 1)) % 2**63) & MASK)
    expected = [((split_mix((state + j * golden) & MASK) >> 12) + 0.5) * 2.0**-52 for j in range(1, 6)]
    assert Noise(torch.tensor([seed])).uniform(5, stream=stream)[0].tolist() == expected


def test_a_known_value_of_the_finaliser():
    """The first output of SplitMix64 with seed 0 is 0xE220A8397B1DCDAF (published test vector)."""
    assert split_mix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_a_batch_draws_what_its_samples_draw_in_turn():
    together = drawn(5, torch.Generator().manual_seed(3)).seeds
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(together, torch.cat([drawn(1, generator).seeds for _ in range(5)]))


def test_uniform_and_independent():
    noise = drawn(500, torch.Generator().manual_seed(0))
    first, second = noise.uniform(800, stream=0), noise.uniform(800, stream=1)
    for values in (first, second):
        assert abs(float(values.mean()) - 0.5) < 0.002
        assert abs(float(values.var()) * 12 - 1) < 0.005
        assert 0 < float(values.min()) < float(values.max()) < 1
    pairs = ((first, second), (first[:, 1:], first[:, :-1]), (first[1:], first[:-1]))
    for a, b in pairs:
        assert abs(float(((a - 0.5) * (b - 0.5)).mean())) * 12 < 0.006
