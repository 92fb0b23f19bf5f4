"""What the answers of a run's teacher are: their identity, form and size, and whether they can be had and kept here."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stillhouse.data.open import Survey
from stillhouse.data.stream import Stream
from stillhouse.foundation.errors import ModelError, RecipeError
from stillhouse.foundation.files import sha256_file
from stillhouse.knowledge.ask import Ask
from stillhouse.knowledge.encode import Codec, Encoding
from stillhouse.knowledge.knowledge import Knowledge
from stillhouse.models.network import Network
from stillhouse.models.onnx import check_onnx_installed
from stillhouse.models.taps import shapes
from stillhouse.models.weights import weights_digest
from stillhouse.recipe.architectures import ModelSection
from stillhouse.recipe.engines import TeacherEngineSection
from stillhouse.recipe.knowledge import KnowledgeSection
from stillhouse.recipe.recipe import Recipe
from stillhouse.runner.materials import Materials
from stillhouse.runner.networks import Networks
from stillhouse.store.checksum import row_bytes
from stillhouse.store.label_store import LabelStore
from stillhouse.store.manifest import Identity
from stillhouse.store.shelf import stores
from stillhouse.teachers.engine import Teacher
from stillhouse.teachers.fidelity import divergence, relative_error

_LOOK_AT = 16


def views_asked(recipe: Recipe) -> int:
    """Number of different views of a sample that a student of the run sees."""
    return recipe.data.views_in(recipe.student.train.epochs)


def encoding_of(section: KnowledgeSection) -> Encoding:
    """The recipe's encoding; one logit is kept as long as the number is not settled."""
    if section.logits.kind == "dense":
        return Encoding(section.logits.dtype, features=section.features)
    return Encoding("top", section.logits.k or 1, section.features)


def codec_of(networks: Networks, teacher: Network, ask: Ask) -> Codec:
    """The codec of the recipe's encoding for this teacher.

    Raises:
        RecipeError: more logits are to be kept than there are classes.
    """
    found = shapes(teacher, ask.features, networks.interface)
    return Codec(ask, encoding_of(networks.recipe.knowledge), networks.interface.classes, found)


def identity_of(materials: Materials, teacher: Network, ask: Ask, variant: int = 0) -> Identity:
    """All that fixes the bits of an answer, as far as it can be named; :func:`disagreement` sees the rest.

    Args:
        variant: tells teachers apart of which all that can be named is equal, and the answers are not.
    """
    return identity(materials.recipe, materials.data.views_identity, teacher, ask, variant)


def identity(recipe: Recipe, views: Mapping[str, Any], teacher: Network, ask: Ask, variant: int) -> Identity:
    """As :func:`identity_of`, where the data are not at hand: ``views`` says what they are."""
    told = [_told(model) for model in recipe.teacher.models.values()]
    numbered = {str(number): each for number, each in enumerate(told)}
    several = {"arch": " + ".join(each["arch"] for each in told), "members": numbered}
    who = several if recipe.teacher.members else told[0]
    return Identity(
        teacher=who | {"weights": weights_digest(teacher), "variant": variant},
        question={"logits": ask.logits, "features": list(ask.features)}
        | {"encoding": encoding_of(recipe.knowledge).describe()},
        views=views,
        engine=_engine_of(recipe),
    )


def _told(model: ModelSection) -> dict[str, Any]:
    """What is said of one teacher; who of several answers for what is in the digest of their weights."""
    return {
        "arch": Path(model.arch).name if ".py:" in model.arch else model.arch,
        "code": _code(model),
        "options": dict(model.options),
        "size_px": model.size_px,
        "channels": model.channels,
    }


def _engine_of(recipe: Recipe) -> dict[str, Any]:
    """Whose engine answers are by: one that is named, or any that keeps to the bound."""
    if recipe.fleet.engine == "own":
        return {"mixed": True, "divergence_max": recipe.teacher.divergence_max}
    return recipe.teacher.engine.model_dump(mode="json")


def _code(model: ModelSection) -> str | None:
    """What of a teacher its weights don't say: the digest of its file, timm's version."""
    if ".py:" in model.arch:
        return sha256_file(Path(model.arch.rpartition(":")[0]))
    return f"timm {version('timm')}" if model.arch.startswith("timm:") else None


class Disagreement(NamedTuple):
    """How far stored answers are from a teacher's own in fp32.

    Attributes:
        divergence: as ``teacher.divergence_max`` means it: mean KL in nats, or the relative squared error of
            activations where that is larger.
        relative: relative squared error of logits (their mean taken off) or activations, whichever is larger: it tells
            teachers apart that are sure of nothing.
    """

    divergence: float
    relative: float


def disagreement(
    materials: Materials, teacher: Network, ask: Ask, codec: Codec, store: LabelStore
) -> Disagreement | None:
    """Compare a few of a store's answers with the teacher's own; None where nothing is there."""
    train = materials.data.splits.train
    ids = train[np.linspace(0, len(train) - 1, min(len(train), 512)).astype(np.int64)]
    stream: Stream = materials.stream(materials.recipe.student.train, 0)
    for view in range(views_asked(materials.recipe)):
        views = np.full(len(ids), view, np.int64)
        rows, found = store.read(ids, views)
        if not found.any():
            continue
        some = np.flatnonzero(found)[:_LOOK_AT]
        kept = codec.decode(rows[some], ids[some], views[some])
        engine = Teacher(teacher, ask, materials.device, TeacherEngineSection(batch_size=_LOOK_AT))
        try:
            told = codec.round_trip(engine.answer(stream.make(ids[some], views[some])))
        finally:
            engine.close()
        return distance(told, kept)
    return None


def distance(told: Knowledge, kept: Knowledge) -> Disagreement:
    """How far two answers to the same question about the same views are apart; ``told`` is the truth."""
    errors = [relative_error(value, kept.features[name]) for name, value in told.features.items()]
    if told.logits is None or kept.logits is None:
        return Disagreement(max(errors), max(errors))
    centred = [each - each.mean(dim=1, keepdim=True) for each in (told.logits, kept.logits)]
    kl = divergence(told.logits, kept.logits)
    return Disagreement(max([kl, *errors]), max([relative_error(*centred), *errors]))


def runs_here(engine: TeacherEngineSection, device: torch.device) -> bool:
    """Whether this machine can compute as the engine says."""
    if engine.runtime == "onnx" and not all(importlib.util.find_spec(each) for each in ("onnxruntime", "onnxscript")):
        return False
    return engine.precision != "fp16" or device.type == "cuda"


def check_answers(networks: Networks, teacher: Network, ask: Ask, found: Survey, *, all_kept: bool) -> None:
    """Refuse, before anything is decoded or trained, what would end the run once the teacher is trained.

    Args:
        all_kept: whether every answer must find room.

    Raises:
        RecipeError: too many logits to be kept, or too many bytes; the folder for labels can't be written to.
        ModelError: ONNX Runtime is missing, or asked for activations.
    """
    recipe = networks.recipe
    size = row_bytes(codec_of(networks, teacher, ask).row.itemsize)
    if recipe.teacher.engine.runtime == "onnx":
        check_onnx_installed()
        if ask.features:
            raise ModelError("teacher.engine.runtime: onnx answers logits only; use torch, or no objective.features")
    if recipe.knowledge.source == "inline":
        return
    planned = views_asked(recipe) * len(found.train.labels) * size
    if all_kept and planned > recipe.store.bytes_max:
        raise RecipeError(
            f"store.bytes_max: all answers take {planned / 1e6:,.1f} MB, {recipe.store.bytes_max / 1e6:,.1f} MB are "
            "allowed: raise it, set data.views, or keep fewer logits (knowledge.logits)"
        )
    _check_writable(Path(recipe.store.path))


def _check_writable(root: Path) -> None:
    if root.is_dir() and stores(root):
        return  # it may be meant to be read only
    try:
        there = next(each for each in (root, *root.absolute().parents) if each.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise RecipeError(
            f"store.path: {root} can't be written to ({error.strerror or error}): choose another folder, or set "
            "knowledge.source=inline"
        ) from error
