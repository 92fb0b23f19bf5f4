"""``student.safetensors`` and ``student.json``: the student, and all that is needed to build it again."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from stillhouse.blocks.assemble import build_any, converted
from stillhouse.foundation.errors import ModelError, RunDirError
from stillhouse.foundation.files import read_json, sha256, sha256_file, write_atomic, write_json
from stillhouse.models.build import check_answer, wrap
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.weights import load_into, read_weights, split_network, weights_bytes
from stillhouse.recipe.architectures import BLOCKWISE, BlockwiseOptions, ModelSection, Normalisation

_FORMAT = 1
_CODE = "student_model.py"
_ANY = Normalisation(mean=(0.0,), std=(1.0,))


def save_student(
    folder: Path, network: Network, section: ModelSection, interface: Interface, class_names: Sequence[str]
) -> None:
    """Write both files, the JSON last: a folder with a JSON holds a whole student."""
    data = weights_bytes(network)
    write_atomic(folder / "student.safetensors", data)
    code = _code(section)
    if code is not None:
        write_atomic(folder / _CODE, code.read_bytes())
    model = section.without_weights().model_dump(mode="json")
    if code is not None:
        named = _named(model)
        named["arch"] = f"{_CODE}:{named['arch'].rpartition(':')[2]}"
    description = {
        "format": _FORMAT,
        "weights": "student.safetensors",
        "sha256": sha256(data),
        "model": model,
        "input": {"shape": list(interface.shape), "dtype": "uint8" if interface.image else "float32"},
        "class_names": list(class_names),
        "code_sha256": None if code is None else sha256_file(code),
    }
    write_json(folder / "student.json", description)


def load_student(folder: Path | str, module: nn.Module | None = None) -> Network:
    """The student of a finished run, in evaluation mode, on the CPU.

    It takes raw batches, uint8 images [B, C, H, W] (or float32: images in 0..1, other data as they are), and normalises
    by itself. Where its architecture is a ``file.py:function``, the copy of that file in the folder is run.

    Args:
        folder: of the run.
        module: of the student's architecture, where the student was a module of your own (``stillhouse.distill``);
            or, for a student that is made of a teacher's blocks, the teacher's (``stillhouse.blockwise``); not changed.

    Raises:
        RunDirError: no student there (the run has not finished), or files damaged.
        ModelError: the architecture can't be built here.
    """
    folder = Path(folder)
    if not (folder / "student.json").exists():
        raise RunDirError(
            f"{folder} holds no student: is it a run, and has it finished ('stillhouse resume {folder}')?"
        )
    description = read_json(folder / "student.json")
    path = folder / description["weights"]
    if not path.exists() or sha256(path.read_bytes()) != description["sha256"]:
        raise RunDirError(f"{path} is missing or does not match the checksum in student.json")
    interface = student_interface(folder)
    model = description["model"]
    named = _named(model)
    if named["arch"].startswith(f"{_CODE}:"):
        named["arch"] = f"{folder.absolute() / named['arch']}"
    try:
        section = ModelSection.model_validate(model)
    except ValidationError as error:
        raise ModelError(f"{folder / 'student.json'}: {error.errors()[0]['msg']}") from error
    code = _code(section)
    if code is not None and sha256_file(code) != description["code_sha256"]:
        raise ModelError(f"{code} is no longer the code that the student was trained with")
    state = read_weights(path)
    if module is not None:
        network = _of(module, section, state, interface)
    else:
        network = build_any(section, interface, _ANY, 0, "student")
    load_into(network, state, str(path))
    return network.cpu().eval()


def _of(module: nn.Module, section: ModelSection, state: Mapping[str, Tensor], interface: Interface) -> Network:
    """A student of a person's own module, or of its blocks."""
    _, stored = split_network(dict(state))
    if section.arch != BLOCKWISE:
        network = wrap(copy.deepcopy(module), interface, stored or _ANY, section.size_px, section.channels)
        check_answer(network, interface, "student")
        return network
    options = BlockwiseOptions.model_validate(section.options)
    assert isinstance(options.of, ModelSection)
    teacher = wrap(copy.deepcopy(module), interface, stored or _ANY, options.of.size_px, options.of.channels)
    check_answer(teacher, interface, "teacher")
    return converted(teacher, interface, options, 0)


def _named(model: dict[str, Any]) -> dict[str, Any]:
    """The part of a model's plain values that names an architecture: of a blockwise one its teacher's."""
    named: dict[str, Any] = model["options"]["of"] if model["arch"] == BLOCKWISE else model
    return named


def _code(section: ModelSection) -> Path | None:
    """The file of a person's own architecture."""
    arch = _named(section.model_dump(mode="json"))["arch"]
    return Path(arch.rpartition(":")[0]) if ".py:" in arch else None


def student_interface(folder: Path) -> Interface:
    """What the student of a run takes and answers."""
    description = read_json(folder / "student.json")
    takes = description["input"]
    return Interface(tuple(takes["shape"]), takes["dtype"] == "uint8", len(description["class_names"]))
