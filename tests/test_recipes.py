"""Recipes: the values of their sources, and how they become settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import MultiStepLR

from ptlreid import losses, models, plugins
from ptlreid.engine import schedule
from ptlreid.engine.job import resolve_size
from ptlreid.errors import OptionError
from ptlreid.network_types import TIMM
from ptlreid.progress import Silent
from ptlreid.settings import FinetuneSettings, read_toml, recipes


def rates(name, epochs):
    """The rate with which each of these epochs begins under a recipe, a few updates to an epoch."""
    config = FinetuneSettings.resolve(None, recipe=name)
    optimizer = SGD([nn.Parameter(nn.Linear(1, 1).weight.detach())], lr=config.lr)
    settings = ("epochs", "warmup_epochs", "decay_every", "decay_at", "decay_factor")
    steps = schedule.build_schedule(
        optimizer, kind=config.schedule, updates_per_epoch=2, **{key: getattr(config, key) for key in settings}
    )
    found = {}
    for update in range(2 * max(epochs) + 1):
        found[update / 2] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        steps.step()
    return [found[epoch] for epoch in epochs]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_set_of_settings_that_can_run(name):
    config = FinetuneSettings.resolve(None, recipe=name)
    assert config.backbone in models.names() or config.backbone.startswith(TIMM)
    assert set(config.loss.split("+")) <= set(plugins.names(losses))
    if config.images_per_identity:
        assert config.batch_size % config.images_per_identity == 0
    assert recipes.find(name).read_text().startswith("# ")
    assert recipes.about(name).endswith(".")


def test_the_papers_recipe_is_the_default():
    assert FinetuneSettings.resolve(None, recipe="paper") == FinetuneSettings.resolve(None)


def test_the_papers_recipe_leaves_every_backbone_its_image_size():
    sizes = [
        resolve_size(FinetuneSettings.resolve(None, recipe="paper", backbone=name)) for name in ("resnet50", "mgn")
    ]
    assert [(size.height, size.width) for size in sizes] == [(256, 128), (384, 128)]


def test_the_papers_recipe_states_whatever_another_recipe_changes():
    stated = {key for name in recipes.names() for key in read_toml(recipes.find(name))}
    other_loss_or_network = {"margin", "backbone", "init", "ptl", "height", "width", "feature_width", "centre_weight"}
    assert stated - other_loss_or_network <= set(read_toml(recipes.find("paper")))


def test_the_papers_rate_is_a_tenth_after_every_ten_epochs():
    assert rates("paper", [0, 9, 10, 20, 49]) == pytest.approx([1e-2, 1e-2, 1e-3, 1e-4, 1e-6])


def test_the_large_batch_is_the_papers_recipe_for_90_images_of_the_plain_network():
    paper = resolve_size(FinetuneSettings.resolve(None, recipe="paper"))
    changed = paper.differences(FinetuneSettings.resolve(None, recipe="large-batch"))
    expected = ["backbone: 'resnet50' -> 'densenet161'", "ptl: True -> False", "batch_size: 32 -> 90"]
    assert sorted(changed) == sorted(expected)


def test_mgns_rate_falls_at_320_360_and_400():
    optimizer = SGD([nn.Parameter(nn.Linear(1, 1).weight.detach())], lr=2e-4)
    theirs, expected = MultiStepLR(optimizer, [320, 360, 400]), []
    for _ in range(450):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates("mgn", range(450)) == pytest.approx(expected)


def test_mgn_compares_four_images_of_four_identities_at_its_own_size():
    config = FinetuneSettings.resolve(None, recipe="mgn")
    assert (config.height, config.width) == (384, 128)
    assert (config.batch_size, config.images_per_identity, config.margin) == (16, 4, 1.2)
    assert (config.optimizer, config.amsgrad, config.lr, config.weight_decay) == ("adam", True, 2e-4, 5e-4)
    assert (config.erase, config.flip, config.epochs) == (0.5, 0.5, 450)


def test_open_reids_recipe_has_its_crop_and_optimiser_on_the_papers_schedule():
    config = FinetuneSettings.resolve(None, recipe="open-reid")
    paper = resolve_size(FinetuneSettings.resolve(None, recipe="paper"))
    changed = [line.partition(":")[0] for line in config.differences(paper)]
    assert changed == ["lr", "nesterov", "new_lr_factor", "crop"]
    assert (config.crop, config.nesterov, config.lr) == (1.0, True, 0.001)
    assert config.lr * config.new_lr_factor == pytest.approx(0.01)  # the backbone learns at a tenth of the rate
    assert rates("open-reid", [0, 9, 10, 49]) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-7])


def test_the_vit_recipe_is_the_configuration_of_transreids_baseline():
    config = FinetuneSettings.resolve(None, recipe="vit")
    # configs/Market/vit_base.yml and config/defaults.py of the authors' repository.
    assert (config.height, config.width, config.pad, config.flip, config.erase) == (256, 128, 10, 0.5, 0.5)
    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == ("sgd", 0.008, 0.9, 1e-4)
    assert (config.batch_size, config.images_per_identity, config.drop_path) == (64, 4, 0.1)
    # 120 epochs with 5 of warm-up from a hundredth, each as long as four here; then half a cosine.
    assert rates("vit", [0, 20, 250, 480]) == pytest.approx([8e-5, 8e-3, 4e-3, 0.0])


def test_the_vit_recipe_makes_the_network_of_transreids_baseline():
    # ViT-B/16 has 85.8 million parameters without classifier, with 14 × 14 positions: here 16 × 8, of 768 each.
    spec = FinetuneSettings.resolve(None, recipe="vit", ptl=False).network(751)
    with torch.device("meta"):
        network = models.build(spec, seed=0)
    backbone = sum(one.numel() for one in network.backbone.parameters())
    assert backbone == 85_798_656 - (14 * 14 - 16 * 8) * 768
    assert network.feature_width == 768
    assert network.readout.normalize
    assert sum(one.numel() for one in network.head.parameters()) == 2 * 768 + 751 * 768


@pytest.mark.parametrize("name", ["bot", "agw"])
def test_bot_and_agw_warm_up_from_a_hundredth(name):
    # The authors' configurations: 3.5e-4 after 10 epochs, a tenth of it after 40 and after 70; here each epoch is four.
    expected = [3.5e-6, 3.5e-4 * (0.01 + 0.99 / 2), 3.5e-4, 3.5e-4, 3.5e-5, 3.5e-6]
    assert rates(name, [0, 20, 40, 159, 160, 280]) == pytest.approx(expected)


def test_bot_is_the_authors_configuration():
    config = FinetuneSettings.resolve(None, recipe="bot")
    # configs/softmax_triplet_with_center.yml of the authors' repository; 120 epochs, each as long as four here.
    assert (config.height, config.width, config.pad, config.flip, config.erase) == (256, 128, 10, 0.5, 0.5)
    assert (config.optimizer, config.lr, config.weight_decay, config.epochs) == ("adam", 3.5e-4, 5e-4, 4 * 120)
    assert (config.batch_size, config.images_per_identity) == (64, 4)
    assert (config.loss, config.margin, config.centre_weight) == ("ce+triplet+centre", 0.3, 5e-4)


def test_agw_is_bot_with_its_pooling_and_its_triplet_loss():
    bot, agw = (FinetuneSettings.resolve(None, recipe=name) for name in ("bot", "agw"))
    changed = {line.partition(":")[0] for line in bot.differences(agw)}
    assert changed == {"pool", "loss", "epochs"}
    assert (agw.pool, agw.loss, agw.epochs) == ("gem", "ce+weighted-triplet+centre", 4 * 160)


@pytest.mark.parametrize("name", ["bot", "agw"])
@pytest.mark.parametrize("ptl", [False, True])
def test_bot_and_agw_make_the_network_of_their_source_with_cells_and_without(name, ptl):
    spec = FinetuneSettings.resolve(None, recipe=name, ptl=ptl).network(751)
    with torch.device("meta"):
        network = models.build(spec, seed=0)
    # ResNet-50's last map has 2,048 channels, its last cell 256. The neck has a scale for each and no trained shift,
    # the classifier no bias; GeM has its exponent.
    width = 2048 + 256 * ptl
    trained = sum(one.numel() for one in network.head.parameters() if one.requires_grad)
    assert trained == width + 751 * width + (name == "agw")
    assert network.feature_width == width
    assert network.readout.normalize


def test_the_recipe_strong_of_version_0_1_names_its_successor(ptlreid):
    code, _, err = ptlreid("finetune", "--recipe", "strong", "--dry-run")
    assert (code, "recipe strong: it has become bot" in err) == (1, True)


def test_a_file_overrides_the_recipe_and_options_override_the_file(tmp_path):
    (tmp_path / "mine.toml").write_text("epochs = 7\nmargin = 0.5\n")
    config = FinetuneSettings.resolve(tmp_path / "mine.toml", recipe="mgn", epochs=3, backbone=None)
    assert (config.epochs, config.margin, config.lr, config.backbone) == (3, 0.5, 2e-4, "mgn")


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize("place", ["option", "file"])
def test_a_backbone_brings_its_recipe_and_a_note_says_so(tmp_path, place):
    file, progress = tmp_path / "mine.toml", Notes()
    file.write_text('backbone = "mgn"\n' if place == "file" else "")
    given = {"backbone": "mgn"} if place == "option" else {}
    config = FinetuneSettings.resolve(file, lr=0.5, progress=progress, **given)
    assert config == FinetuneSettings.resolve(None, recipe="mgn", lr=0.5)
    assert progress.notes == ["recipe mgn, that of the backbone; --recipe chooses another"]


def test_an_option_for_another_backbone_overrides_that_of_the_file_and_its_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('backbone = "mgn"\n')
    assert FinetuneSettings.resolve(file, backbone="resnet50") == FinetuneSettings.resolve(None)


def test_a_named_recipe_takes_precedence_over_that_of_the_backbone():
    progress = Notes()
    config = FinetuneSettings.resolve(None, recipe="paper", backbone="mgn", progress=progress)
    assert config.differences(FinetuneSettings.resolve(None, recipe="paper")) == ["backbone: 'mgn' -> 'resnet50'"]
    assert progress.notes == []


def test_the_config_of_a_run_needs_nothing_of_the_backbones_recipe(tmp_path):
    settings, progress = FinetuneSettings.resolve(None, backbone="mgn", loss="ce"), Notes()
    (tmp_path / "config.toml").write_text(settings.to_toml())
    assert FinetuneSettings.resolve(tmp_path / "config.toml", progress=progress) == settings
    assert progress.notes == []


def test_a_mistake_in_the_recipe_of_a_backbone_is_said_to_be_there(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text("lr = -1.0\n")
    monkeypatch.setattr(recipes, "_FOLDER", tmp_path)
    with pytest.raises(OptionError, match=r"^recipe tiny: lr = -1\.0: expected a number"):
        FinetuneSettings.resolve(None, backbone="tiny")


def test_the_command_notes_the_recipe_of_the_backbone_once(ptlreid, market_folder):
    words = ("--backbone", "mgn", "--batch-size", 6, "--root", market_folder.parent)
    code, _, err = ptlreid("finetune", *words)
    assert (code, "compares images within a batch" in err) == (1, True)
    code, _, err = ptlreid("transfer-chain", "market", "--backbone", "mgn", "--dry-run", "--root", market_folder.parent)
    assert (code, err.count("recipe mgn, that of the backbone")) == (0, 1)


def test_a_misspelt_recipe_gets_a_suggestion(ptlreid):
    with pytest.raises(OptionError, match=r"Unknown recipe 'mgm'. Did you mean 'mgn'\?"):
        FinetuneSettings.resolve(None, recipe="mgm")
    assert ptlreid("recipes", "mgm")[0] == ptlreid("finetune", "--recipe", "mgm")[0] == 1


def test_recipes_are_listed_and_shown(ptlreid):
    code, out, _ = ptlreid("recipes")
    assert code == 0
    assert all(name in out for name in recipes.names())
    assert ptlreid("recipes", "mgn")[1].strip() == recipes.find("mgn").read_text().strip()
    shown = json.loads(ptlreid("recipes", "--json")[1])
    assert {one["name"]: one["settings"] for one in shown} == {
        name: read_toml(recipes.find(name)) for name in recipes.names()
    }


def test_the_documentation_has_every_recipe_and_settings_that_work(tmp_path):
    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) >= set(recipes.names())
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    config = FinetuneSettings.resolve(tmp_path / "mine.toml")
    assert (config.new_lr_factor, config.schedule, config.freeze_epochs) == (10.0, "cosine", 2)
