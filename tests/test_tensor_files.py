"""Files of tensors: what they hold by name, and one message for everything that is no such file."""

from __future__ import annotations

import collections
import io
import warnings
import zipfile

import numpy as np
import pytest
import torch
from damage import damage_examples, damaged, within_seconds
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from ptlreid.errors import CheckpointError
from ptlreid.models.tensor_files import read_tensors, require_tensor_file


def saved(content, **options) -> bytes:
    """The bytes that torch.save writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some kinds of tensors are deprecated or experimental
        torch.save(content, stream := io.BytesIO(), **options)
    return stream.getvalue()


def scripted() -> bytes:
    """A TorchScript archive, as far as its names go."""
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as file:
        for name in ("net/data.pkl", "net/code/__torch__.py", "net/constants.pkl", "net/version"):
            file.writestr(name, "3")
    return stream.getvalue()


def quiet(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", r"text \('hello'\), expected weights"),
        (b"", "an empty file, expected weights"),
        (b"<html>Sign in</html>", r"an HTML page \(often"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer .*git lfs pull"),
        (scripted(), "a TorchScript archive, expected weights.* Save the network's state_dict"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0", "an ONNX model, expected weights"),
        (saved({"x": torch.zeros(9)})[:80], r"cannot be read \(a file of torch.save, incomplete or damaged: "),
        (
            saved({"x": torch.zeros(9)}, pickle_protocol=4),
            r"cannot be read \(a file of torch.save: Unsupported operand",
        ),
        (
            saved([1], _use_new_zipfile_serialization=False)[:-9],
            r"cannot be read \(a file of torch.save \(old format\): ",
        ),
        (save({"x": torch.zeros(9)})[:-4], r"cannot be read \(a safetensors file: "),
        (saved(torch.nn.Linear(2, 2)), r"refused: it contains torch\.nn\.modules\.linear\.Linear"),
        (saved([torch.zeros(2)]), "contains one object of type list, expected a dictionary"),
        (saved({"epoch": 3, "args": {}}), "contains no named tensors, but a dictionary with 'epoch', 'args'"),
        (saved({0: torch.zeros(2)}), "contains no named tensors, but a dictionary with 0"),
        (saved({}), "contains no named tensors, but an empty dictionary"),
        (saved({"a": {"x": torch.eye(3).to_sparse()}}), r"its tensor a\.x is sparse: expected plain"),
        (
            saved({"x": quiet(lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))}),
            "its tensor x is quantised",
        ),
        (
            saved({"x": quiet(lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]))}),
            "its tensor x is nested",
        ),
        (saved({"x": torch.ones(3, device="meta")}), "its tensor x is without data"),
    ],
)
def test_a_file_without_usable_tensors_is_one_message_that_says_what_it_is(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"w\.pth: {message}") as error:
        read_tensors(tmp_path / "w.pth")
    assert "weights_only" not in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [KeyError("101"), EOFError(), AttributeError("x"), MemoryError(), RecursionError("deep"), TypeError("a\nb")],
)
def test_whatever_the_unpickler_raises_is_one_message(tmp_path, monkeypatch, error):
    def load(*_, **__):
        raise error

    (tmp_path / "w.pth").write_bytes(saved({"x": torch.zeros(2)}))
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match=r"w\.pth: cannot be read \(a file of torch.save: \S.*\)\. Down"):
        read_tensors(tmp_path / "w.pth")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file"):
        require_tensor_file(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="a folder, expected weights"):
        require_tensor_file(tmp_path)


def test_names_of_nested_dictionaries_are_joined_and_numbers_are_no_names(tmp_path):
    content = collections.OrderedDict(
        state_dict={"module.a": torch.ones(2), "epoch": 3},
        optimizer={"state": {0: {"exp_avg": torch.ones(2)}}},
        b=torch.zeros(1),
        rank1=np.float32(0.9),
    )
    content["itself"] = content
    (tmp_path / "w.pth").write_bytes(saved(content))
    tensors = read_tensors(tmp_path / "w.pth")
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"state_dict.module.a": [1, 1], "b": [0]}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
@pytest.mark.parametrize("write", [save, saved, lambda one: saved(one, _use_new_zipfile_serialization=False)])
def test_the_format_is_that_of_the_content_whatever_the_name(tmp_path, name, write):
    (tmp_path / name).write_bytes(write({"x": torch.arange(3.0)}))
    assert read_tensors(tmp_path / name)["x"].tolist() == [0, 1, 2]


WRITERS = {
    "pickle": saved,
    "old": lambda one: saved(one, _use_new_zipfile_serialization=False),
    "safetensors": save,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@damage_examples()
@given(st.data())
def test_a_damaged_file_gives_tensors_or_one_message(tmp_path, write, data):
    content = data.draw(damaged(write({"layer.weight": torch.ones(2, 3), "layer.bias": torch.zeros(2)})))
    (tmp_path / "w.pth").write_bytes(content)
    try:
        with within_seconds():
            tensors = read_tensors(tmp_path / "w.pth")
    except CheckpointError as error:
        assert str(error).startswith(f"{tmp_path / 'w.pth'}: ")
        assert str(error).isprintable()
        assert "weights_only" not in str(error)
    else:
        assert all(tensor.isfinite().shape == tensor.shape for tensor in tensors.values() if tensor.numel() < 100)
