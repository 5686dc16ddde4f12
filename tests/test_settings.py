"""Settings: defaults, files, options, and what is refused."""

from __future__ import annotations

import pytest

from ptlreid.engine.job import resolve_size
from ptlreid.errors import OptionError
from ptlreid.settings import FinetuneSettings


def test_defaults_are_the_papers():
    # Section 5.2: 256x128 (MGN 384x128), rate 0.01 divided by ten every ten epochs, 50 epochs; batch 32 under Table 2.
    config = FinetuneSettings.resolve(None)
    assert (config.epochs, config.batch_size) == (50, 32)
    assert (resolve_size(config).height, resolve_size(config).width) == (256, 128)
    mgn = resolve_size(FinetuneSettings.resolve(None, backbone="mgn"))
    assert (mgn.height, mgn.width) == (384, 128)
    assert (config.lr, config.decay_every, config.decay_factor) == (0.01, 10, 0.1)


def test_options_override_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "some.toml"
    file.write_text("epochs = 7\nlr = 1\n")
    config = FinetuneSettings.resolve(file, epochs=9, seed=None)
    assert (config.epochs, config.lr, config.seed) == (9, 1.0, 0)


def test_toml_goes_there_and_back(tmp_path):
    config = FinetuneSettings.resolve(None, data="duke", ptl=False, lr=0.02)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert FinetuneSettings.resolve(tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", r"No setting is called 'epoch'. Did you mean 'epochs'\?"),
        ('epochs = "3"', r"epochs = '3' is not possible: input should be a valid integer. Passes over"),
        ("batch_size = 1", r"batch_size = 1 is not possible: input should be greater than or equal to 2"),
        ('memory = "all"', r"memory = 'all' is not possible: input should be 'slot', 'mean' or 'none'"),
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


def test_default_names_tell_data_backbone_method_and_seed():
    assert FinetuneSettings.resolve(None, data="cuhk03:labeled").default_name == "cuhk03-labeled-resnet50-ptl-s0"
    assert FinetuneSettings.resolve(None, ptl=False, seed=3).default_name == "market-resnet50-baseline-s3"
    assert FinetuneSettings.resolve(None, data="some/crops", memory="mean").default_name == "crops-resnet50-ptl-mean-s0"


@pytest.mark.parametrize("loss", ["triplet", "ce-triplet"])
@pytest.mark.parametrize("batch", [{}, {"images_per_identity": 1}, {"images_per_identity": 4, "batch_size": 4}])
def test_a_loss_that_compares_people_wants_batches_of_people(loss, batch):
    with pytest.raises(OptionError, match=r"compares people .* Use images_per_identity = 4 with --batch-size 16"):
        FinetuneSettings.resolve(None, loss=loss, **batch)
    assert FinetuneSettings.resolve(None, loss=loss, images_per_identity=2, batch_size=4).loss == loss
    assert FinetuneSettings.resolve(None, loss="ce", **batch).loss == "ce"
