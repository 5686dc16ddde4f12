"""What a file is, by its content: each kind as another program writes it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ptlreid.file_kinds import identify, printable


def written(write) -> bytes:
    """What `write` writes into a stream."""
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as file:
        for name in names:
            file.writestr(name, "x")
    return stream.getvalue()


def tarred() -> bytes:
    with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as file:
        file.addfile(tarfile.TarInfo("some/image.jpg"))
    return stream.getvalue()


def image(kind: str) -> bytes:
    return written(lambda stream: Image.new("RGB", (4, 4), "red").save(stream, kind))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file"),
        (b"\0" * 100, "a file of zeros"),
        (b"hello\nworld", "text ('hello')"),
        ("grüße".encode(), "text ('grüße')"),
        (b"\x1b[31mred", "a file of an unknown kind"),
        (bytes(range(200, 256)) * 9, "a file of an unknown kind"),
        (json.dumps({"a": 1}).encode(), "JSON ("),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
        (b"/annex/objects/SHA256E-s3--2c.pth\n", "a git-annex pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\xef\xbb\xbf\n<!-- error -->\n<HTML lang=en>", "an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML file"),
        (zipped("a.txt"), "a ZIP archive"),
        (zipped(), "a ZIP archive"),
        (zipped("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"), "a TorchScript archive"),
        (written(lambda stream: torch.save({"x": torch.zeros(2)}, stream)), "a file of torch.save"),
        (
            written(lambda stream: torch.save([1], stream, _use_new_zipfile_serialization=False)),
            "a file of torch.save (old format)",
        ),
        (written(lambda stream: np.savez(stream, x=np.zeros(2))), "a NumPy archive (.npz)"),
        (written(lambda stream: np.save(stream, np.zeros(2))), "a NumPy array"),
        (written(lambda stream: scipy.io.savemat(stream, {"x": 1})), "a MATLAB 5 file"),
        (gzip.compress(b"x", mtime=0), "a gzip archive"),
        (bz2.compress(b"x"), "a bzip2 archive"),
        (lzma.compress(b"x"), "an xz archive"),
        (tarred(), "a tar archive"),
        (pickle.dumps([1, 2]), "a pickle"),
        (safetensors.numpy.save({"x": np.zeros(2, "f")}), "a safetensors file"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0\x3a\x05graph", "an ONNX model"),
        *((image(kind), f"a {kind} image") for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF")),
        (image("WEBP"), "a WebP image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a PostScript file"),
        (b"%PDF-1.7\n", "a PDF document"),
    ],
)
def test_a_kind_is_known_by_its_content_from_a_file_as_from_bytes(tmp_path, content, words):
    (tmp_path / "file.bin").write_bytes(content)
    assert identify(content).startswith(words)
    assert identify(tmp_path / "file.bin") == identify(content)


def test_an_hdf5_file_is_known(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = [1, 2]
    assert identify(tmp_path / "x.h5") == "an HDF5 file"


def test_a_cut_file_is_known_by_its_first_member():
    content = written(lambda stream: torch.save({"x": torch.zeros(2)}, stream))
    assert identify(content[:100]) == "a file of torch.save, incomplete or damaged"
    assert identify(zipped("a.txt")[:40]) == "a ZIP archive, incomplete or damaged"


def test_nothing_but_a_regular_file_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    assert identify(tmp_path / "pipe") == "a pipe or device"
    assert identify(tmp_path) == "a folder"
    with pytest.raises(FileNotFoundError):
        identify(tmp_path / "none")


@settings(derandomize=True, max_examples=200)
@given(st.sampled_from([b"", b"PK\x03\x04", b"<", b"\x08\x08\x12", b"BM"]), st.binary(max_size=300))
def test_any_content_is_of_some_kind_in_one_printable_line(start, content):
    words = identify(start + content)
    assert words.isprintable()
    assert len(words) < 120


@given(st.text(max_size=50))
@settings(derandomize=True, max_examples=200)
def test_a_printable_text_is_one_line_that_any_terminal_takes(text):
    shown = printable(text, limit=40)
    assert shown.isprintable()
    assert not text.isprintable() or len(text) > 40 or shown == text


def test_what_a_message_quotes_is_escaped_and_cut():
    assert printable("a\x1b[31m\nb\udc80") == r"a\x1b[31m\nb\udc80"
    assert printable("x" * 300) == "x" * 199 + "…"
