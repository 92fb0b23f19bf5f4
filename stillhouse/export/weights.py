"""``student.safetensors`` and ``student.json``: the student, and all that is needed to build it again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from stillhouse.blocks.assemble import build_any
from stillhouse.foundation.errors import ModelError, RunDirError
from stillhouse.foundation.files import read_json, sha256, sha256_file, write_atomic, write_json
from stillhouse.models.build import check_answer, wrap
from stillhouse.models.interface import Interface
from stillhouse.models.network import Network
from stillhouse.models.weights import load_into, read_weights, split_network, weights_bytes
from stillhouse.recipe.architectures import ModelSection, Normalisation

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
        section = section.model_copy(update={"arch": f"{_CODE}:{section.arch.rpartition(':')[2]}"})
    description = {
        "format": _FORMAT,
        "weights": "student.safetensors",
        "sha256": sha256(data),
        "model": section.model_copy(update={"weights": None}).model_dump(mode="json"),
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
            not changed.

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
    if model["arch"].startswith(f"{_CODE}:"):
        model["arch"] = f"{folder.absolute() / model['arch']}"
    try:
        section = ModelSection.model_validate(model)
    except ValidationError as error:
        raise ModelError(f"{folder / 'student.json'}: {error.errors()[0]['msg']}") from error
    code = _code(section)
    if code is not None and sha256_file(code) != description["code_sha256"]:
        raise ModelError(f"{code} is no longer the code that the student was trained with")
    state = read_weights(path)
    if module is not None:
        _, stored = split_network(state)
        network = wrap(copy.deepcopy(module), interface, stored or _ANY, section.size_px, section.channels)
        check_answer(network, interface, "student")
    else:
        network = build_any(section, interface, _ANY, 0, "student")
    load_into(network, state, str(path))
    return network.cpu().eval()


def _code(section: ModelSection) -> Path | None:
    """The file of a person's own architecture."""
    return Path(section.arch.rpartition(":")[0]) if ".py:" in section.arch else None


def student_interface(folder: Path) -> Interface:
    """What the student of a run takes and answers."""
    description = read_json(folder / "student.json")
    takes = description["input"]
    return Interface(tuple(takes["shape"]), takes["dtype"] == "uint8", len(description["class_names"]))
