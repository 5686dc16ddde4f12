"""The precision of training and extraction: the choice of `auto`, torch's flags, and the identity of runs."""

from __future__ import annotations

import subprocess
import sys
from operator import attrgetter

import pytest
import torch
from conftest import tiny_network
from test_finetune import make_settings

from ptlreid import cache, datasets, devices, precision
from ptlreid.devices import check_amp, choose_mixed_precision, float32_arithmetic
from ptlreid.engine import training_run
from ptlreid.errors import OptionError
from ptlreid.features import Extractor
from ptlreid.models import weights
from ptlreid.network_types import NetworkSpec, Readout
from ptlreid.precision import resolve_precision
from ptlreid.progress import Silent
from ptlreid.runs import RunFolder
from ptlreid.settings import EvaluateSettings, FinetuneSettings
from ptlreid.transfer.stages import Stage, StageRunner
from ptlreid.workflows.finetune import finetune

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def flags() -> list[object]:
    """What torch computes float32 with, under its older and its newer names."""
    older = [torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32]
    if not hasattr(torch.backends, "fp32_precision"):
        return older
    return older + [attrgetter(name)(torch.backends).fp32_precision for name in devices._ARITHMETIC]


@pytest.fixture(autouse=True)
def restored():
    """Flags of torch that a test leaves changed are set back."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def use_gpu(monkeypatch, capability: tuple[int, int]) -> None:
    """Have a GPU of this compute capability, as far as the choice of a precision goes."""
    monkeypatch.setattr(precision, "has_gpu_driver", lambda: True)
    monkeypatch.setattr(devices, "choose_device", lambda name: CPU if name == "cpu" else GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


@pytest.mark.parametrize(
    ("capability", "expected"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp16")]
)
def test_auto_is_bf16_from_capability_8_on_and_fp16_before(monkeypatch, capability, expected):
    use_gpu(monkeypatch, capability)
    resolved = resolve_precision(make_settings(device="auto"))
    assert (resolved.amp, resolved.channels_last) == (expected, True)


@pytest.mark.parametrize("device", [CPU, torch.device("mps")], ids=str)
def test_auto_is_off_on_other_devices(device):
    assert choose_mixed_precision(device) == "off"


def test_auto_is_off_on_a_cpu_that_was_asked_for_where_there_is_a_gpu(monkeypatch):
    use_gpu(monkeypatch, (9, 0))
    resolved = resolve_precision(make_settings(device="cpu"))
    assert (resolved.amp, resolved.channels_last) == ("off", True)


@pytest.mark.parametrize(("driver", "expected"), [(False, True), (True, False)])
def test_float32_is_channels_last_on_a_cpu_and_not_on_a_gpu(monkeypatch, driver, expected):
    monkeypatch.setattr(precision, "has_gpu_driver", lambda: driver)
    monkeypatch.setattr(precision.sys, "platform", "linux")
    assert resolve_precision(make_settings(device="auto", amp="off")).channels_last is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"amp": "off"}, ("off", False)),
        ({"amp": "tf32"}, ("tf32", False)),
        ({"amp": "fp16"}, ("fp16", True)),
        ({"amp": "bf16", "channels_last": False}, ("bf16", False)),
        ({"amp": "off", "channels_last": True}, ("off", True)),
        ({"amp": "bf16", "device": "mps"}, ("bf16", False)),
    ],
    ids=str,
)
def test_what_was_chosen_stays_and_channels_last_goes_with_mixed_precision_on_a_gpu(monkeypatch, given, expected):
    use_gpu(monkeypatch, (7, 0))
    resolved = resolve_precision(make_settings(**{"device": "cuda", **given}))
    assert (resolved.amp, resolved.channels_last) == expected


def test_without_a_driver_torch_is_not_asked():
    code = (
        "import sys; from ptlreid import precision; from ptlreid.settings import FinetuneSettings\n"
        "precision.has_gpu_driver = lambda: False\n"
        "print(precision.resolve_precision(FinetuneSettings.resolve(None)).amp, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["off", "False"]


def test_a_driver_is_found_by_its_files_or_its_library(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "_DRIVERS", (str(tmp_path / "nvidiactl"),))
    (tmp_path / "nvidiactl").touch()
    assert precision.has_gpu_driver()
    (tmp_path / "nvidiactl").unlink()
    monkeypatch.setattr(precision.ctypes, "CDLL", lambda name: object())
    assert precision.has_gpu_driver()

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(precision.ctypes, "CDLL", missing)
    assert not precision.has_gpu_driver()


@pytest.mark.parametrize("amp", ["tf32", "bf16", "fp16"])
def test_all_but_float32_is_refused_on_a_cpu(amp):
    with pytest.raises(OptionError, match=rf"^--amp {amp} needs a GPU: .* Use --amp off\.$"):
        check_amp(amp, CPU)


def test_tf32_is_refused_where_the_gpu_has_none(monkeypatch):
    use_gpu(monkeypatch, (7, 5))
    with pytest.raises(OptionError, match=r"cuda:0 has no TF32, expected a GPU of compute capability 8\.0"):
        check_amp("tf32", GPU)
    use_gpu(monkeypatch, (8, 6))
    check_amp("tf32", GPU)


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("products", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [False, True])
def test_torchs_flags_are_set_for_a_block_and_restored(tf32, products, convolutions):
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
    before = flags()
    with float32_arithmetic(tf32=tf32):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
        assert set(flags()[2:]) <= {"tf32" if tf32 else "ieee"}
    assert flags() == before


def test_the_flags_are_restored_after_an_error():
    before = flags()
    with pytest.raises(ZeroDivisionError), float32_arithmetic(tf32=True):
        raise ZeroDivisionError
    assert flags() == before


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="older torch has no such flags")
@pytest.mark.parametrize("general", ["tf32", "ieee"])
def test_flags_that_were_set_under_their_newer_names_are_restored(general):
    """torch refuses to read its older flags then, inside as well unless both agree."""

    def parts():
        return [attrgetter(name)(torch.backends).fp32_precision for name in devices._ARITHMETIC]

    before_all = parts()
    torch.backends.fp32_precision = general
    try:
        before = parts()
        with float32_arithmetic(tf32=False):
            assert set(parts()) == {"ieee"}
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, False)
        assert parts() == before
    finally:
        torch.backends.fp32_precision = "none"
        for name, value in zip(devices._ARITHMETIC, before_all, strict=True):
            attrgetter(name)(torch.backends).fp32_precision = value


def test_blocks_within_one_another_restore_the_outer_one():
    with float32_arithmetic(tf32=True):
        outer = flags()
        with float32_arithmetic(tf32=False):
            pass
        assert flags() == outer


@pytest.mark.parametrize(("amp", "expected"), [("off", False), ("tf32", True)])
def test_features_are_read_with_the_arithmetic_of_their_readout(amp, expected):
    network, seen = tiny_network().eval(), []
    network.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    torch.backends.cudnn.allow_tf32 = not expected
    network.features(torch.zeros(1, 3, 64, 32), Readout(amp=amp))
    assert seen == [expected] and torch.backends.cudnn.allow_tf32 is not expected


@pytest.mark.parametrize(("amp", "expected"), [("off", [False] * 2), ("tf32", [True, False])])
def test_training_uses_tf32_only_if_chosen_and_evaluation_does_not(tmp_path, market_folder, monkeypatch, amp, expected):
    monkeypatch.setattr(devices, "check_amp", lambda amp, device: None)  # as on a GPU
    seen: dict[bool, bool] = {}
    build = training_run.models.build

    def watched(spec, seed):
        network = build(spec, seed)
        network.register_forward_hook(lambda module, *_: seen.update({module.training: flags()[1]}))
        return network

    monkeypatch.setattr(training_run.models, "build", watched)
    splits = datasets.load("market", market_folder.parent)
    metrics = finetune(make_settings(amp=amp, epochs=2, evaluate_every=1), splits, RunFolder(tmp_path / "r"), Silent())
    assert [seen[True], seen[False]] == expected
    assert metrics["environment"]["precision"] == {
        "training": {"off": "float32", "tf32": "tf32"}[amp],
        "extraction": "float32",
    }


def test_the_run_folder_names_the_precision_that_was_used(tmp_path, market_folder):
    run = RunFolder(tmp_path / "run")
    finetune(make_settings(epochs=0), datasets.load("market", market_folder.parent), run, Silent())
    assert (run.settings().amp, run.settings().channels_last) == ("off", True)


@pytest.fixture
def claimed(tmp_path, market_folder):
    """Returns a run folder with a checkpoint, claimed with these settings, and the dataset."""
    splits = datasets.load("market", market_folder.parent)

    def claim(**changed) -> tuple[RunFolder, object]:
        run = RunFolder(tmp_path / "run")
        run.path.mkdir()
        run.claim(make_settings(**changed), splits)
        run.checkpoint.touch()
        return run, splits

    return claim


@pytest.mark.parametrize(("there", "here"), [("bf16", "off"), ("off", "bf16"), ("off", "tf32"), ("bf16", "fp16")])
def test_a_run_of_another_precision_is_neither_reused_nor_continued(claimed, there, here):
    run, splits = claimed(amp=there, channels_last=False)
    with pytest.raises(OptionError, match=rf"holds another run \(amp: '{there}' -> '{here}'\)"):
        run.check(make_settings(amp=here, channels_last=False), splits)


@pytest.mark.parametrize("amp", ["off", "bf16"])
def test_a_run_of_version_0_1_whose_precision_is_unknown_is_trusted(claimed, amp):
    run, splits = claimed(amp="auto", channels_last=False)  # `auto` is never written any more
    run.check(resolve_precision(make_settings(amp=amp)), splits)


def test_the_precision_is_part_of_the_key_of_cached_features(tmp_path, market_folder):
    file = tmp_path / "weights.safetensors"
    weights.save(tiny_network(classes=4), NetworkSpec("tiny", True, "slot", 4, 64, 32), file)
    records = datasets.load("market", market_folder.parent).query
    keys = []
    for amp in ("off", "tf32", "bf16", "fp16"):
        settings = EvaluateSettings(device="cpu", amp=amp)
        extractor = Extractor.from_weights(weights.read_weights_header(file), settings)
        keys.append(cache.fingerprint(extractor, records, "float32")["readout"])
    assert len(set(keys)) == 4


def test_settings_have_the_precisions_that_both_name():
    choices = FinetuneSettings.model_fields["amp"].annotation, EvaluateSettings.model_fields["amp"].annotation
    training, extraction = (set(one.__args__) for one in choices)
    assert training - extraction == {"auto"} and extraction == set(devices.AUTOCAST) == set(precision_names())


def precision_names():
    from ptlreid.environment import PRECISIONS

    return PRECISIONS


def test_stages_of_chains_are_named_by_the_precision_in_effect(tmp_path, market_folder, monkeypatch):
    def name(amp: str) -> str:
        settings = make_settings(amp=amp, device="auto", root=str(market_folder.parent))
        run = StageRunner(tmp_path, Silent()).find(Stage(settings))
        assert run is not None
        return run.path.name

    on_a_cpu = name("auto")
    assert name("off") == on_a_cpu
    use_gpu(monkeypatch, (9, 0))
    assert name("auto") == name("bf16")
    assert len({on_a_cpu, name("auto"), name("tf32"), name("fp16")}) == 4
