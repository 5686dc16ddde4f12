"""The files that an exported graph can be: ONNX, torch.export's archive (.pt2) and OpenVINO's pair (.xml and .bin)."""

from __future__ import annotations

import errno
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptlreid.errors import OptionError
from ptlreid.export.graph import BATCH, FEATURES
from ptlreid.file_kinds import printable
from ptlreid.models.graph_checks import import_onnx

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPSET = 18  # of ONNX: TensorRT 8.6, OpenVINO 2023 and onnxruntime 1.14 read it, and later versions do
ONNX, TORCH, OPENVINO = ".onnx", ".pt2", ".xml"
SUFFIXES = (ONNX, TORCH, OPENVINO)


def check_format(file: Path) -> None:
    """Raise `OptionError` for a suffix of no format, and for one whose package is not installed."""
    if file.suffix not in SUFFIXES:
        raise OptionError(
            f"--out {file}: unknown format, expected a name that ends in {', '.join(SUFFIXES)}. Rename it."
        )
    if file.suffix != TORCH:
        import_exporter(file)
    if file.suffix == OPENVINO:
        import_openvino(file)


def import_exporter(file: Path) -> Any:
    """The package onnx; `OptionError` if it, or what torch writes ONNX with, is not installed."""
    onnx = import_onnx()
    try:
        import onnxscript  # noqa: F401 - torch.onnx needs it
    except ImportError:
        raise OptionError(
            f"{file}: needs the package onnxscript, which is not installed. Install it with "
            "`pip install 'ptlreid[export]'`."
        ) from None
    return onnx


def import_openvino(file: Path) -> Any:
    """The package openvino; `OptionError` if it is not installed."""
    try:
        import openvino
    except ImportError:
        raise OptionError(
            f"{file}: needs the package openvino, which is not installed. Install it with "
            "`pip install 'ptlreid[openvino]'`, or choose another format."
        ) from None
    return openvino


def files_of(file: Path) -> list[Path]:
    """The files that `write` makes for `file`."""
    return [file, file.with_suffix(".bin")] if file.suffix == OPENVINO else [file]


def write(program: ExportedProgram, file: Path, metadata: Mapping[str, str], *, half: bool) -> None:
    """Write the graph in the format of the file's suffix. `metadata`: texts by name, in the file where it can be."""
    if file.suffix == TORCH:
        import torch

        content = BytesIO()  # torch ends in a traceback where a disk is full
        torch.export.save(program, content, extra_files=dict(metadata))
        file.write_bytes(content.getbuffer())
        return
    onnx = file if file.suffix == ONNX else file.with_name(f"{file.stem}.temporary.onnx")
    _write_onnx(program, onnx, metadata)
    if file.suffix == OPENVINO:
        openvino = import_openvino(file)
        try:
            model = openvino.convert_model(onnx)
        finally:
            onnx.unlink()
        for name, text in metadata.items():
            model.set_rt_info(text, ["ptlreid", name])
        try:
            openvino.save_model(model, file, compress_to_fp16=half)
        except RuntimeError as error:
            raise OSError(errno.EIO, printable(str(error))) from None


def _write_onnx(program: ExportedProgram, file: Path, metadata: Mapping[str, str]) -> None:
    onnx = import_exporter(file)
    import torch
    from onnxscript import optimizer

    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, output_names=[FEATURES], optimize=False, verbose=False
        )
    assert made is not None
    # Batch norm is left to the runtimes: fused here, the weights would no longer be those of the run.
    optimizer.fold_constants(made.model)
    optimizer.remove_unused_nodes(made.model)
    model = made.model_proto
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = BATCH
    for node in model.graph.node:  # paths and lines of the program that traced it
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.metadata_props[:]
    model.producer_name, model.doc_string = "ptlreid", ""
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on torchvision's operators and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
