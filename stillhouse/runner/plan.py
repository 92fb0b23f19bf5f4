"""What a run would do, said before it does it; no torch, no decoding beyond a few samples."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from stillhouse.data.open import Survey, survey
from stillhouse.foundation.energy import EnergyMeter, Estimate
from stillhouse.foundation.errors import DataError, RecipeError
from stillhouse.recipe.engines import AUTO, StepEngineSection
from stillhouse.recipe.knowledge import DenseLogits, TopLogits
from stillhouse.recipe.members import MemberSection, class_numbers
from stillhouse.recipe.recipe import FunctionSource, LiveSource, Recipe, TeacherSection
from stillhouse.recipe.train import TrainSection
from stillhouse.runner.blockwise.foreseen import foreseen
from stillhouse.runner.control import control_settings
from stillhouse.runner.rundir import RunDir, free_folder
from stillhouse.runner.search import foreseen as search
from stillhouse.store.checksum import row_bytes

_WITHOUT = {
    "inline": "the teacher answers in the student's process",
    "stored_only": "views that the store does not hold are left out",
    "hard_labels": "views that the store does not hold are learnt from their labels",
    "stop": "the run stops, and can be resumed",
}


def plan(recipe: Recipe, out: Path | None) -> list[tuple[str, str]]:
    """Lines of (what, how) for a person.

    Raises:
        DataError: the data can't be read, or are fewer than a batch.
        RecipeError: teachers don't answer for the data's classes, or more logits are to be kept than there are.
        RunDirError: ``out`` holds a run already.
    """
    folder = out or free_folder(recipe.name)
    RunDir(folder).check_free()
    lines = [("run", recipe.name), ("data", recipe.data.source.kind)]
    found = None
    if isinstance(recipe.data.source, FunctionSource | LiveSource):
        lines.append(("samples", "known once the run has called your function; 'check' runs no code of yours"))
    else:
        found = survey(recipe.data, recipe.seed)
        lines[-1] = ("data", f"{found.train.name}: {_form(found)}, {found.classes} classes")
        counts = [f"{len(getattr(found.splits, name)):,} {name}" for name in ("train", "validation", "test")]
        lines.append(("samples", ", ".join(counts)))
    teacher, student = recipe.teacher, recipe.student
    lines += _teachers(teacher, found)
    at_once = "" if teacher.engine.batch_size == AUTO else f", {teacher.engine.batch_size} at once"
    lines.append(("answers", f"{_engine(teacher.engine)}{at_once}; {_store(recipe, found)}"))
    made = _model(student.model.arch, student.model.options)
    if recipe.blockwise is not None:
        made = "the teacher with blocks replaced"
        lines += foreseen(recipe, found, _training(recipe.blockwise.train, found, "blockwise"))
    if recipe.search is not None:
        made = search.student(recipe)
        lines += search.foreseen(recipe)
    lines.append(("student", f"{made}; {_training(student.train, found, 'student')}{_together(recipe)}"))
    lines += _fleet(recipe)
    lines.append(("objective", _objective(recipe)))
    if recipe.control.seeds:
        again = (
            f", and {recipe.control.seeds - 1} more distilled for the comparison" if recipe.control.seeds > 1 else ""
        )
        without = "without the teacher"
        if recipe.blockwise is not None:
            settings = control_settings(recipe)
            how = f"{settings.optimizer.kind} at {settings.optimizer.learning_rate:g}"
            without = f"from initial weights; {_training(settings, found, 'control')}, {how}"
        lines.append(("control", f"{recipe.control.seeds} x the student {without}{again}"))
    else:
        what = "distillation" if recipe.blockwise is None else "the teacher's blocks"
        lines.append(("control", f"none: nobody will know whether {what} helped"))
    lines.append(("energy", _energy(recipe)))
    there = (
        ""
        if recipe.fleet.device in ("auto", "cpu") or not recipe.fleet.workers_range[1]
        else f", whether fleet.device: {recipe.fleet.device} is there"
    )
    cut = "" if recipe.blockwise is None else ", whether the teacher can be cut and the budget met"
    lines.append(("not checked", f"what only a run can see: models built{cut}, every sample decoded{there}"))
    lines += [("runs code", reference) for reference in _code(recipe)] or [("runs code", "none of yours")]
    lines.append(("writes", f"{folder}/ (recipe.yaml, result.json, report.html, student.safetensors{_onnx(recipe)})"))
    if recipe.objective.asks and recipe.knowledge.source != "inline":
        lines.append(
            ("writes", f"{recipe.store.path}/ (store.path: the teacher's answers, for other runs to read, too)")
        )
    return lines


def _teachers(section: TeacherSection, found: Survey | None) -> list[tuple[str, str]]:
    """A line for each teacher: what it is, where its weights come from and, of several, its part."""
    parts = [""]
    if section.members:
        parts = [_part(member) for member in section.members]
        if found is not None:
            class_numbers(section.members, found.class_names)  # refuses what the data don't have
    lines = []
    for part, model in zip(parts, section.models.values(), strict=True):
        given = f"weights {model.weights}" if model.weights else "as its code makes it"
        begins = f"from {given}, " if model.weights else ""
        trained = begins + _training(section.train, found, "teacher") if section.train else f"given: {given}"
        lines.append(("teacher", f"{_model(model.arch, model.options)}{part}; {trained}"))
    return lines


def _part(member: MemberSection) -> str:
    weight = "" if member.weight == 1 else f", weight {member.weight:g}"
    return weight if member.classes is None else f"{weight}, for {len(member.classes)} classes"


def _together(recipe: Recipe) -> str:
    least, most = recipe.fleet.students_range
    count = str(most) if least == most else f"{least} to {most}"
    return f", by {count} students together" if most > 1 else ""


def _fleet(recipe: Recipe) -> list[tuple[str, str]]:
    """Who answers for the teacher, and what becomes of the student without them."""
    fleet = recipe.fleet
    least, most = fleet.workers_range
    if not recipe.objective.asks:
        return []
    if most == 0:
        return [("workers", "none: the teacher answers in the student's process")]
    count = str(most) if least == most else f"{least} to {most}, as many as the student needs,"
    where = "on a Ray cluster" if fleet.backend == "ray" else "in processes of this machine"
    cores = "1 thread each" if fleet.backend == "ray" else "the cores shared evenly"
    threads = cores if fleet.threads == "auto" else f"{fleet.threads} thread{'s' if fleet.threads > 1 else ''} each"
    engine = {
        "same": "by the run's engine",
        "own": "by engines of their own (fleet.engine: results depend on who answered what)",
    }[fleet.engine]
    gone = f"after {fleet.patience_s:g} s {_WITHOUT[fleet.without_teachers]} (fleet.without_teachers)"
    device = "the best device there" if fleet.device == "auto" else fleet.device
    return [("workers", f"{count} {where}: {device}, {threads}, {engine}"), ("if none left", gone)]


def _energy(recipe: Recipe) -> str:
    """How the run's energy will be known, on a machine like this one."""
    power, device = recipe.compute.power, recipe.compute.device
    found = EnergyMeter(Estimate(power.model) if power else None).read()
    state = "" if found.joules is not None else "; state compute.power, and it is estimated"
    if device != "auto" and not device.startswith("cuda"):
        return found.source + state
    known = importlib.util.find_spec("pynvml") is not None
    gpu = "a GPU's by its counter (NVML)" if known else "nothing of a GPU: pip install 'stillhouse[gpu-energy]'"
    return f"{found.source}{state}; {gpu}"


def _form(found: Survey) -> str:
    if not found.form.image:
        return f"float samples of shape {list(found.form.shape)}"
    channels, height, width = found.form.shape
    return f"{'grey' if channels == 1 else 'RGB'} images of {height}x{width}"


def _model(arch: str, options: dict[str, object]) -> str:
    said = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{arch} ({said})" if said else arch


def _training(settings: TrainSection, found: Survey | None, role: str) -> str:
    if found is None:
        return f"{settings.epochs} epochs in batches of {settings.batch_size}"
    samples = len(found.splits.train)
    if samples < settings.batch_size:
        raise DataError(
            f"{role}.train.batch_size: a batch of {settings.batch_size} is more than the {samples} training samples"
        )
    steps = settings.epochs * (samples // settings.batch_size)
    return f"{settings.epochs} epochs = {steps:,} steps of {settings.batch_size}, {_engine(settings.engine)}"


def _engine(engine: StepEngineSection) -> str:
    """The engine in words; what is ``auto`` is tried when the run starts."""
    if {AUTO} == {engine.precision, engine.channels_last, engine.compile}:
        return "engine auto"
    words: list[str] = ["precision auto" if engine.precision == AUTO else engine.precision]
    switches = {"channels-last": engine.channels_last, "compiled": engine.compile}
    words += [f"{name} auto" if value == AUTO else name for name, value in switches.items() if value]
    return " ".join(words)


def _store(recipe: Recipe, found: Survey | None) -> str:
    """Where answers are kept, and how much room they take when all are there."""
    knowledge, objective = recipe.knowledge, recipe.objective
    if not objective.asks:
        return "nothing is asked"
    if knowledge.source == "inline":
        return "asked each time, nothing is kept"
    views, several = search.views(recipe)
    said = f"kept in {recipe.store.path}/, {views} view{'s' if views > 1 else ''} of each sample"
    said += f", of up to {several} augmentations together" if several > 1 else ""
    top = knowledge.logits.k if isinstance(knowledge.logits, TopLogits) else None
    if found is not None and top is not None and top > found.classes:
        raise RecipeError(f"knowledge.logits: k is {top}, but there are only {found.classes} classes")
    if found is None or objective.features:
        return said
    size = views * len(found.train.labels) * row_bytes(logits_bytes(knowledge.logits, found.classes))
    limit = recipe.store.bytes_max
    open_k = isinstance(knowledge.logits, TopLogits) and top is None
    room = "" if size <= limit else f"; store.bytes_max is {limit:,}: not all {'may ' if open_k else ''}find room"
    return f"{said}, {'at most ' if open_k else ''}{size:,} bytes when all are answered{room}"


def logits_bytes(logits: DenseLogits | TopLogits, classes: int) -> int:
    """Bytes of one sample's logits in a store, as ``knowledge.encode_logits`` lays them out (which needs torch).

    Where ``k`` is not said yet: the most that they may come to.
    """
    if isinstance(logits, DenseLogits):
        return classes * (4 if logits.dtype == "fp32" else 2)
    k = classes if logits.k is None else logits.k
    index = 1 if classes <= 2**8 else 2 if classes <= 2**16 else 4
    return 4 + k * index + (k - (k == classes)) * 2


def _objective(recipe: Recipe) -> str:
    section = recipe.objective
    parts = [f"{section.cross_entropy:g} x cross-entropy"] if section.cross_entropy else []
    if section.kd is not None:
        kind = "KD" if section.kd.kind == "kl" else section.kd.kind.upper()
        parts.append(f"{section.kd.weight:g} x {kind} at temperature {section.kd.temperature:g}")
    parts += [f"{term.weight:g} x features {term.student} -> {term.teacher}" for term in section.features]
    return " + ".join(parts)


def _code(recipe: Recipe) -> list[str]:
    models = [*recipe.teacher.models.values(), recipe.student.model]
    references = [model.arch for model in models if ".py:" in model.arch]
    source = recipe.data.source
    if isinstance(source, FunctionSource):
        references += [each for each in (source.train, source.test) if each]
    return list(dict.fromkeys(references))


def _onnx(recipe: Recipe) -> str:
    return ", student.onnx" if recipe.export.onnx else ""
