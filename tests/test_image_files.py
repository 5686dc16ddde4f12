"""From image files of all kinds to 8-bit RGB: hand-made files, and values worked by hand."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import damage_examples, damaged
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from ptlreid import contents, image_check
from ptlreid.datasets.reader import is_image
from ptlreid.errors import DataError
from ptlreid.image_files import IMAGE_SUFFIXES, read_image, to_rgb
from ptlreid.reports import crops
from ptlreid.views import decode


def write_png(path: Path, bits: int, colour: int, pixels: np.ndarray) -> Path:
    """A PNG, without Pillow. `colour`: 0 grey, 2 RGB, 4 grey and alpha; `pixels`: (H, W, channels)."""
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)
    return path


def write_tiff(path: Path, width: int, data: bytes, **tags: int) -> Path:
    """A TIFF of one row of grey pixels, without Pillow."""
    given = {"bits": 8, "photometric": 1, "sample_format": 1, "samples": 1} | tags
    numbers = {256: width, 257: 1, 258: given["bits"], 259: 1, 262: given["photometric"], 273: 8}
    numbers |= {277: given["samples"], 278: 1, 279: len(data), 339: given["sample_format"]}
    data += b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in numbers.items())
    directory = struct.pack("<H", len(numbers)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    return path


def levels(path: Path) -> list[int]:
    """The red values of the image's first row."""
    return decode(path)[0, :, 0].tolist()


WIDE = np.array([0, 255, 256, 0x7FFF, 0x8000, 0xFFFF])  # 16-bit values, and below their high bytes
HIGH = [0, 0, 1, 127, 128, 255]


def test_16_bit_grey_becomes_its_high_byte(tmp_path):
    path = write_png(tmp_path / "deep.png", 16, 0, WIDE.reshape(1, 6, 1))
    assert decode(path).tolist() == [[[high] * 3 for high in HIGH]]


def test_16_bit_colour_and_grey_with_alpha_become_their_high_bytes(tmp_path):
    colour = write_png(tmp_path / "colour.png", 16, 2, WIDE.reshape(1, 2, 3))
    assert decode(colour).tolist() == [[HIGH[:3], HIGH[3:]]]
    alpha = write_png(tmp_path / "alpha.png", 16, 4, np.stack([WIDE, 0 * WIDE], axis=-1)[None])
    assert levels(alpha) == HIGH


def test_tiff_of_16_and_12_bits_is_scaled_and_white_may_be_zero(tmp_path):
    data = WIDE.astype("<u2").tobytes()
    assert levels(write_tiff(tmp_path / "a.tif", 6, data, bits=16)) == HIGH
    inverted = write_tiff(tmp_path / "b.tif", 6, data, bits=16, photometric=0)
    assert levels(inverted) == [255 - high for high in HIGH]
    # Two pixels of 12 bits in three bytes: 0xFFF and 0x123, of which the highest eight bits are 0xFF and 0x12.
    assert levels(write_tiff(tmp_path / "c.tif", 2, b"\xff\xf1\x23", bits=12)) == [0xFF, 0x12]


@pytest.mark.parametrize(
    ("kind", "bits", "sample_format"),
    [
        ("floating-point numbers", 32, 3),
        ("32-bit or signed integers", 32, 1),
        ("32-bit or signed integers", 32, 2),
        ("32-bit or signed integers", 16, 2),
        ("signed integers", 8, 2),
    ],
)
def test_pixels_that_8_bits_cannot_represent_are_refused_by_kind(tmp_path, kind, bits, sample_format):
    path = write_tiff(tmp_path / "a.tif", 2, bytes(bits // 4), bits=bits, sample_format=sample_format)
    with pytest.raises(DataError, match=rf"a\.tif: not an image .*its pixels are {kind}: expected unsigned"):
        decode(path)
    assert image_check.check_image(path).state == "undecodable"


@pytest.mark.parametrize(
    ("mode", "pixel", "rgb"),
    [
        ("1", 255, (255, 255, 255)),
        ("L", 7, (7, 7, 7)),
        ("LA", (7, 0), (7, 7, 7)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 128, 0, 0), (255, 127, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_each_mode_has_its_colour_and_transparency_is_ignored(tmp_path, mode, pixel, rgb):
    path = tmp_path / "a.tif"
    Image.new(mode, (2, 1), pixel).save(path)
    assert decode(path).tolist() == [[list(rgb)] * 2]


def test_a_palette_with_transparent_entries_gives_its_colours_without_a_warning(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 250, 251, 252])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=b"\0\x80")
    assert decode(tmp_path / "a.png").tolist() == [[[1, 2, 3], [250, 251, 252]]]


# How an image that stands upright as 1 2 3 / 4 5 6 is stored under each EXIF orientation: where its first row and
# column are, from the EXIF standard.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "lzw.tif"])
def test_every_exif_orientation_is_turned_upright_once(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(20 * np.array(STORED[orientation], dtype=np.uint8)).convert("RGB")
    options = {"a.webp": {"lossless": True}, "lzw.tif": {"compression": "tiff_lzw"}}.get(name, {})
    image.save(tmp_path / name, exif=exif, **options)
    assert (decode(tmp_path / name)[:, :, 0] // 20).tolist() == STORED[1]


def test_a_jpeg_of_a_phone_is_turned_in_features_and_reports(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.zeros((32, 64, 3), dtype=np.uint8)
    lying[:, :32] = 255  # the left half is up when it stands
    Image.fromarray(lying).save(tmp_path / "a.jpg", exif=exif)
    for image in (decode(tmp_path / "a.jpg"), np.asarray(crops.read_crop(tmp_path / "a.jpg"))):
        assert image.shape == (64, 32, 3)
        assert image[:28].min() > 200
        assert image[36:].max() < 55


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01"]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_data_costs_no_image(tmp_path, exif, name):
    Image.new("RGB", (4, 2)).save(tmp_path / name, exif=exif)
    assert decode(tmp_path / name).shape == (2, 4, 3)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_each_suffix_is_an_images_in_any_case_and_its_format_is_read(tmp_path, suffix):
    assert is_image(Path(f"a{suffix}"))
    assert is_image(Path(f"A{suffix.upper()}"))
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (16, 16), (0, 0, 200)).save(path)
    assert abs(decode(path).astype(int) - (0, 0, 200)).max() < 8
    assert image_check.check_image(path).state == "fine"


def test_no_other_format_is_opened_whatever_its_suffix(tmp_path, monkeypatch):
    def start(*_: object) -> None:
        raise AssertionError("starts Ghostscript")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", start)
    for kind, words in (("EPS", "a PostScript file"), ("GIF", "a GIF image")):
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", format=kind)
        for read in (decode, crops.read_crop):
            with pytest.raises(DataError, match=rf"\(expected a JPEG, PNG, BMP, WebP or TIFF file, found {words}\)"):
                read(tmp_path / "a.jpg")
        assert image_check.check_image(tmp_path / "a.jpg").state == "undecodable"


def make_special(path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "sparse":
        with path.open("wb") as stream:
            stream.truncate((1 << 30) + 1)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("fifo", "not a regular file"),
        ("folder", "not a regular file"),
        ("device", "not a regular file"),
        ("socket", "No such device or address"),
        ("sparse", "larger than 1,073,741,824 bytes"),
    ],
)
def test_anything_but_a_regular_file_is_one_message_and_never_a_wait(tmp_path, monkeypatch, kind, reason):
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    make_special(Path("a.jpg"), kind)
    for read in (decode, crops.read_crop, lambda path: contents.digest_all([path])):
        with pytest.raises(DataError, match=rf"a\.jpg: .*\({reason}\)\. "):
            read(Path("a.jpg"))
    check = image_check.check_image(Path("a.jpg"))
    assert (check.state, check.error) == ("missing", reason)


@pytest.mark.parametrize("width", [11, 21])  # Pillow warns from the limit on, and refuses from twice the limit on
def test_too_many_pixels_are_one_message(tmp_path, monkeypatch, width):
    Image.new("RGB", (width, 10)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").shape == (10, width, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=rf"\({width}0 pixels\) exceeds limit of [12]00 "):
        decode(tmp_path / "a.png")


def test_a_tiff_of_a_kind_that_pillow_does_not_read_is_named(tmp_path):
    path = write_tiff(tmp_path / "a.tif", 2, bytes(16), bits=64, sample_format=3)
    with pytest.raises(DataError, match=r"\(a TIFF image of a kind that is not supported, or with a damaged header\)"):
        decode(path)


def test_rows_without_data_are_no_black_rows(tmp_path):
    path = write_tiff(tmp_path / "a.tif", 2, b"\x07\x08")
    content = path.read_bytes()
    one_row, two_rows = struct.pack("<HHII", 257, 4, 1, 1), struct.pack("<HHII", 257, 4, 1, 2)
    assert content.count(one_row) == 1
    path.write_bytes(content.replace(one_row, two_rows))
    with pytest.raises(DataError, match="it lacks the pixels of some rows"):
        decode(path)


def test_what_pillow_logs_is_not_printed(tmp_path):
    path = write_tiff(tmp_path / "a.tif", 2, b"\x07\x08", samples=255)
    code = "import sys; from pathlib import Path; from ptlreid import image_check\n"
    code += "print(image_check.check_image(Path(sys.argv[1])).state)"
    ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("undecodable\n", "")


def test_an_image_without_pixels_is_no_image(tmp_path):
    with pytest.raises(DataError, match="not an image that can be decoded"):
        decode(write_png(tmp_path / "a.png", 8, 0, np.zeros((3, 0, 1))))


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.png"])
def test_of_several_frames_the_first_is_read(tmp_path, name):
    frames = [Image.new("RGB", (2, 2), (40 * number, 0, 0)) for number in (1, 2, 3)]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert levels(tmp_path / name) == [40, 40]


def test_a_pil_image_is_scaled_like_a_file_and_not_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(WIDE.astype(np.uint16)[None])
    deep.info["exif"] = exif.tobytes()
    assert decode(deep)[..., 0].tolist() == [HIGH]
    with pytest.raises(DataError, match=r"A PIL image of mode F: its pixels are floating-point .* Convert it to RGB"):
        decode(Image.new("F", (2, 2)))


def test_rgb_images_are_not_copied():
    image = Image.new("RGB", (2, 2))
    assert to_rgb(image) is image


def test_a_draft_computes_fewer_pixels_of_a_jpeg_but_enough(tmp_path):
    Image.new("RGB", (400, 800)).save(tmp_path / "a.jpg")
    width, height = read_image(tmp_path / "a.jpg", draft=(96, 192)).size
    assert 96 <= width < 400
    assert 192 <= height < 800


def encode_all() -> dict[str, bytes]:
    """A small image in each format, with EXIF data where it has them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 8, 3), dtype=np.uint8))
    kinds: dict[str, dict[str, object]] = {
        "JPEG": {"format": "JPEG", "exif": exif},
        "progressive JPEG": {"format": "JPEG", "progressive": True},
        "PNG": {"format": "PNG", "exif": exif},
        "WebP": {"format": "WEBP", "exif": exif},
        "BMP": {"format": "BMP"},
        "TIFF": {"format": "TIFF", "exif": exif},
        "LZW": {"format": "TIFF", "compression": "tiff_lzw"},
    }
    contents = {}
    for kind, options in kinds.items():
        stream = io.BytesIO()
        image.save(stream, **options)
        contents[kind] = stream.getvalue()
    return contents


ENCODED = encode_all()


@pytest.mark.parametrize("kind", ENCODED)
@damage_examples(0.4)
@given(data=st.data())
def test_a_damaged_image_gives_pixels_or_one_message_and_prints_nothing(tmp_path, capfd, kind, data):
    content = data.draw(damaged(ENCODED[kind]))
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    began = time.monotonic()
    check = image_check.check_image(path)
    try:
        pixels = decode(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: not an image that can be decoded (")
        assert "\n" not in str(error)
        assert check.state != "fine"
    else:
        assert (pixels.ndim, pixels.shape[2], pixels.dtype) == (3, 3, np.uint8)
        assert pixels.size > 0
        assert check.state == "fine"
    assert time.monotonic() - began < 10
    assert capfd.readouterr() == ("", "")
