"""The random generators of a run: its own device's, and no other's."""

from __future__ import annotations

import pytest
import torch

from ptlreid.engine.generators import fork_generators, own_generators, seed_generators

SECOND_GPU = torch.device("cuda", 1)


@pytest.fixture
def gpus(monkeypatch):
    """The generators of three GPUs."""
    generators = tuple(torch.Generator().manual_seed(number) for number in range(3))
    monkeypatch.setattr("torch.cuda.default_generators", generators)
    return generators


def states(generators) -> list[list[int]]:
    return [generator.get_state().tolist() for generator in generators]


def test_a_run_on_the_second_gpu_uses_the_generators_of_the_cpu_and_of_that_gpu(gpus):
    assert own_generators(SECOND_GPU) == [torch.default_generator, gpus[1]]
    assert own_generators(torch.device("cpu")) == [torch.default_generator]


def test_seeding_leaves_other_gpus_alone(gpus):
    before = states(gpus)
    with fork_generators(SECOND_GPU):
        seed_generators(SECOND_GPU, 5)
        assert (torch.initial_seed(), *(gpu.initial_seed() for gpu in gpus)) == (5, 0, 5, 2)
    assert states(gpus) == before


def test_a_fork_is_undone_after_an_error(gpus):
    before = states([torch.default_generator, *gpus])
    with pytest.raises(KeyError), fork_generators(SECOND_GPU):
        seed_generators(SECOND_GPU, 5)
        torch.rand(3)
        raise KeyError
    assert states([torch.default_generator, *gpus]) == before


def test_a_fork_starts_no_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    with fork_generators(torch.device("cpu")):
        torch.rand(1)
    assert not torch.cuda.is_initialized()
