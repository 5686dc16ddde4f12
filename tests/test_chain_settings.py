"""Settings of a chain: what each of its stages gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptlreid.errors import OptionError
from ptlreid.settings import ChainSettings, DistillSettings, FinetuneSettings


def file(tmp_path, text):
    path = tmp_path / "chain.toml"
    path.write_text(text)
    return path


def test_every_stage_has_the_settings_of_the_chain():
    config = ChainSettings.resolve(None, chain=["duke", "market"], backbone="densenet161", epochs=7)
    expected = [
        FinetuneSettings.resolve(None, data=data, backbone="densenet161", epochs=7) for data in ("duke", "market")
    ]
    assert config.stages() == expected
    assert config.chain == ["duke", "market"]


def test_a_stage_is_its_table_over_its_recipe_over_the_chain_over_the_chains_recipe(tmp_path):
    text = """
    epochs = 5
    lr = 0.5
    [[stage]]
    data = "duke"
    [[stage]]
    data = "market"
    recipe = "large-batch"
    lr = 0.25
    """
    first, second = ChainSettings.resolve(file(tmp_path, text), recipe="small", seed=3).stages()
    # `small`: batch 16, AdamW, 20 epochs; `large-batch`: batch 90, SGD, 50 epochs.
    assert (first.batch_size, first.optimizer, first.epochs, first.lr, first.seed) == (16, "adamw", 5, 0.5, 3)
    assert (second.batch_size, second.optimizer, second.epochs, second.lr, second.seed) == (90, "sgd", 50, 0.25, 3)


def test_a_chain_takes_the_recipe_of_its_backbone_and_a_stage_may_name_another(tmp_path):
    text = 'backbone = "mgn"\n[[stage]]\ndata = "duke"\n[[stage]]\ndata = "market"\nrecipe = "paper"\n'
    first, second = ChainSettings.resolve(file(tmp_path, text)).stages()
    assert first == FinetuneSettings.resolve(None, recipe="mgn", data="duke")
    size = {"height": 384, "width": 128}  # which the recipe `paper` leaves as it is
    assert second == FinetuneSettings.resolve(None, recipe="paper", data="market", backbone="mgn", **size)


def test_a_chain_with_a_named_recipe_has_no_other_in_its_stages():
    config = ChainSettings.resolve(None, recipe="small", backbone="mgn", chain=["duke"], std=True)
    (stage,) = config.stages()
    assert stage == FinetuneSettings.resolve(None, recipe="small", backbone="mgn", data="duke")
    assert config.last_distilled().images_per_identity == 0


def test_plain_stages_do_not_differ_in_the_memory_of_cells(tmp_path):
    text = '[[stage]]\ndata = "duke"\nptl = false\n[[stage]]\ndata = "market"\n'
    first, second = ChainSettings.resolve(file(tmp_path, text), memory="mean").stages()
    assert (first.ptl, first.memory, second.ptl, second.memory) == (False, "slot", True, "mean")


def test_the_distilled_stage_is_the_last_one_for_a_plain_student():
    config = ChainSettings.resolve(None, chain=["duke", "market"], std=True, lambda_=0.5, epochs=3)
    assert config.last_distilled() == DistillSettings.resolve(None, data="market", epochs=3, lambda_=0.5)
    assert config.default_name == "chain-duke-market-resnet50-ptl-std0.5-s0"


def test_toml_round_trip(tmp_path):
    config = ChainSettings.resolve(None, chain=["market+duke", "msmt17"], std=True, lambda_=0.3, lr=0.1)
    assert ChainSettings.resolve(file(tmp_path, config.to_toml())) == config
    assert config.differences(ChainSettings.resolve(None, chain=["market+duke", "msmt17"], std=True, lr=0.1)) == [
        "lambda: 0.3 -> 0.8"
    ]


def test_lambda_makes_no_other_chain_where_nothing_is_distilled():
    chains = [ChainSettings.resolve(None, chain=["duke"], std=False, lambda_=share) for share in (0.3, 0.8)]
    assert chains[0].differences(chains[1]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No datasets given"),
        ('data = "market"\n[[stage]]\ndata = "duke"', "A chain has several datasets"),
        ("[[stage]]\nepochs = 3", "Stage 1 names no dataset"),
        ('[[stage]]\ndata = "duke"\ninit = "none"', "Stage 1 sets init, which must be the same for all stages"),
        ('[[stage]]\ndata = "duke"\nepoch = 3', "Stage 1: Unknown setting 'epoch'. Did you mean 'epochs'"),
        (
            '[[stage]]\ndata = "duke"\n[[stage]]\ndata = "market"\nlr = -1.0',
            "Stage 2: lr = -1.0: expected a number",
        ),
        ('[[stage]]\ndata = "duke"\nrecipe = "papper"', "Stage 1: Unknown recipe 'papper'. Did you mean 'paper'"),
        ('lambda = 0.3\n[[stage]]\ndata = "duke"', "--lambda has no effect without --std"),
        ('std = true\nptl = false\n[[stage]]\ndata = "duke"', "Leave out --no-ptl, or --std"),
    ],
)
def test_invalid_settings_are_named(tmp_path, text, message):
    with pytest.raises(OptionError) as error:
        ChainSettings.resolve(file(tmp_path, text))
    assert message in str(error.value)


def test_datasets_are_named_once(tmp_path):
    with pytest.raises(OptionError, match="Leave the datasets out of the command"):
        ChainSettings.resolve(file(tmp_path, '[[stage]]\ndata = "duke"'), chain=["market"])


@pytest.mark.parametrize("chosen", [{"ptl": False}, {"memory": "mean"}, {"memory": "none"}, {"std": True}], ids=str)
def test_all_methods_of_the_experiment_begin_with_the_same_plain_network(chosen):
    experiment = Path(__file__).parent.parent / "docs" / "experiments" / "sites.toml"
    first, second = ChainSettings.resolve(experiment, recipe="small", **chosen).stages()
    plain, _ = ChainSettings.resolve(experiment, recipe="small").stages(ptl=False)
    assert first == plain
    assert (second.ptl, second.memory) == (chosen.get("ptl", True), chosen.get("memory", "slot"))


def test_a_chain_of_version_0_1_loads(tmp_path):
    text = 'images_per_person = 2\n[[stage]]\ndata = "duke"\nimages_per_person = 4\n[[stage]]\ndata = "market"\n'
    first, second = ChainSettings.load(file(tmp_path, text)).stages()
    assert (first.images_per_identity, second.images_per_identity) == (4, 2)


def test_a_stage_with_another_loss_leaves_the_chains_loss_settings_behind(tmp_path):
    text = """
    loss = "ce+triplet"
    margin = 0.5
    images_per_identity = 4
    [[stage]]
    data = "duke"
    loss = "ce"
    [[stage]]
    data = "market"
    """
    first, second = ChainSettings.resolve(file(tmp_path, text)).stages()
    assert (first.loss, first.margin, second.loss, second.margin) == ("ce", 0.3, "ce+triplet", 0.5)
