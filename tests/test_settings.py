"""Settings: defaults, files, options, and what is refused."""

from __future__ import annotations

import pytest

from ptlreid.errors import OptionError
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.workflows.finetune import resolve_size


def test_defaults_are_the_papers():
    # Section 5.2: 256x128 (MGN 384x128), rate 0.01 divided by ten every ten epochs, 50 epochs; batch 32 under Table 2.
    settings = FinetuneSettings.resolve(None)
    assert (settings.epochs, settings.batch_size) == (50, 32)
    assert (resolve_size(settings).height, resolve_size(settings).width) == (256, 128)
    mgn = resolve_size(FinetuneSettings.resolve(None, backbone="mgn"))
    assert (mgn.height, mgn.width) == (384, 128)
    assert (settings.lr, settings.decay_every, settings.decay_factor) == (0.01, 10, 0.1)


def test_options_override_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("epochs = 7\nlr = 1\n")
    settings = FinetuneSettings.resolve(file, epochs=9, seed=None)
    assert (settings.epochs, settings.lr, settings.seed) == (9, 1.0, 0)


def test_toml_round_trip(tmp_path):
    settings = FinetuneSettings.resolve(None, data="duke", ptl=False, lr=0.02)
    (tmp_path / "config.toml").write_text(settings.to_toml())
    assert FinetuneSettings.resolve(tmp_path / "config.toml") == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"Unknown setting 'epoch'. Did you mean 'epochs'\?"),
        ('epochs = "3"', r"some\.toml: epochs = '3': expected an integer in \[0, 1000000\]\."),
        ("epochs = true", r"some\.toml: epochs = True: expected an integer in \[0, 1000000\]\."),
        ("batch_size = 1", r"some\.toml: batch_size = 1: expected an integer in \[2, 65536\]\."),
        ("flip = 1.5", r"some\.toml: flip = 1\.5: expected a number in \[0, 1\]\."),
        ("momentum = 1", r"some\.toml: momentum = 1: expected a number in \[0, 1\)\."),
        ("lr = 0", r"some\.toml: lr = 0: expected a number in \(0, 1000\]\."),
        ("ptl = 1", r"some\.toml: ptl = 1: expected true or false\."),
        ("init = 1", r"some\.toml: init = 1: expected text\."),
        ('decay_at = ["x"]', r"some\.toml: decay_at = \['x'\]: expected a list of integers in \[0, 1000000\]\."),
        ('memory = "all"', r"some\.toml: memory = 'all': expected 'slot', 'mean' or 'none'\."),
        ('loss = "tripled"', r"some\.toml: loss = 'tripled': no such loss\. Did you mean 'triplet'\? Known: ce, "),
        ("images_per_person = 4", r"some\.toml: images_per_person was renamed .* use images_per_identity instead"),
        ("epochs = = 3", r"not TOML \(.*line 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, text, message):
    file = tmp_path / "some.toml"
    file.write_text(text)
    with pytest.raises(OptionError, match=message) as error:
        FinetuneSettings.resolve(file)
    assert "some.toml" in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OptionError, match=r"none\.toml: cannot be read"):
        FinetuneSettings.resolve(tmp_path / "none.toml")


def test_differences_leave_out_where_the_work_is_done():
    one = FinetuneSettings.resolve(None, lr=0.01, device="cpu", root="here")
    other = FinetuneSettings.resolve(None, lr=0.02, device="cuda", root="there")
    assert one.differences(other) == ["lr: 0.01 -> 0.02"]


def test_default_names_contain_data_backbone_method_and_seed():
    assert FinetuneSettings.resolve(None, data="cuhk03:labeled").default_name == "cuhk03-labeled-resnet50-ptl-s0"
    assert FinetuneSettings.resolve(None, ptl=False, seed=3).default_name == "market-resnet50-baseline-s3"
    assert FinetuneSettings.resolve(None, data="some/crops", memory="mean").default_name == "crops-resnet50-ptl-mean-s0"


def test_nesterov_needs_momentum():
    with pytest.raises(OptionError, match="nesterov = True with momentum = 0: expected a momentum above 0"):
        FinetuneSettings.resolve(None, nesterov=True, momentum=0.0)


@pytest.mark.parametrize("loss", ["triplet", "ce+triplet"])
@pytest.mark.parametrize("batch", [{}, {"images_per_identity": 1}, {"images_per_identity": 4, "batch_size": 4}])
def test_a_loss_with_positives_needs_several_images_of_an_identity(loss, batch):
    with pytest.raises(OptionError, match=r"compares images .* Use --images-per-identity 4 with --batch-size 16"):
        FinetuneSettings.resolve(None, loss=loss, **batch)
    assert FinetuneSettings.resolve(None, loss=loss, images_per_identity=2, batch_size=4).loss == loss
    assert FinetuneSettings.resolve(None, loss="ce", **batch).loss == "ce"


def test_a_setting_of_a_loss_that_is_not_chosen_is_an_error():
    with pytest.raises(OptionError, match=r"margin is not a setting of the loss 'ce': expected loss = 'triplet'"):
        FinetuneSettings.resolve(None, margin=0.5)
    with pytest.raises(OptionError, match=r"label_smoothing is not a setting of the loss 'triplet'"):
        FinetuneSettings.resolve(None, loss="triplet", label_smoothing=0.1, images_per_identity=4)


def test_a_loss_that_is_chosen_above_a_recipe_leaves_the_recipes_loss_settings_behind(tmp_path):
    settings = FinetuneSettings.resolve(None, recipe="mgn", loss="ce")  # the recipe: ce+triplet with margin 1.2
    assert (settings.loss, settings.margin) == ("ce", 0.3)
    assert "margin" not in settings.to_toml()
    (tmp_path / "mine.toml").write_text('loss = "ce"\nmargin = 1.2\n')
    with pytest.raises(OptionError, match="margin is not a setting of the loss"):
        FinetuneSettings.resolve(tmp_path / "mine.toml", recipe="mgn")


@pytest.mark.parametrize("chosen", [{}, {"loss": "ce+triplet", "margin": 1.2, "images_per_identity": 4}])
def test_resolved_settings_load_again_whatever_the_loss(tmp_path, chosen):
    settings = FinetuneSettings.resolve(None, lr=0.5, **chosen)
    (tmp_path / "config.toml").write_text(settings.to_toml())
    for again in (FinetuneSettings.load(tmp_path / "config.toml"), FinetuneSettings.resolve(tmp_path / "config.toml")):
        assert again == settings
        assert again.differences(settings) == []


def test_settings_of_version_0_1_load(tmp_path):
    (tmp_path / "config.toml").write_text('loss = "ce"\nmargin = 0.3\nlabel_smoothing = 0.1\nimages_per_person = 2\n')
    settings = FinetuneSettings.load(tmp_path / "config.toml")
    assert (settings.images_per_identity, settings.label_smoothing, settings.margin) == (2, 0.1, 0.3)


def test_a_number_is_that_gpu():
    assert (
        FinetuneSettings.resolve(None, device="1").device == FinetuneSettings.resolve(None, device=1).device == "cuda:1"
    )
    assert FinetuneSettings.resolve(None, device="cpu").device == "cpu"


def test_only_the_new_name_of_a_setting_is_read(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("single_shot_samples = 3\n")
    assert EvaluateSettings.resolve(file).single_shot_samples == 3
    file.write_text("draws = 3\n")
    with pytest.raises(OptionError, match=r"mine\.toml: draws was renamed in .* use single_shot_samples"):
        EvaluateSettings.resolve(file)
