"""What a run would do, said before it does it; no torch, no decoding beyond a few samples."""

from __future__ import annotations

from pathlib import Path

from stillhouse.data.open import Survey, survey
from stillhouse.foundation.errors import DataError
from stillhouse.recipe.recipe import FunctionSource, LiveSource, Recipe, TrainSection
from stillhouse.runner.rundir import RunDir, free_folder


def plan(recipe: Recipe, out: Path | None) -> list[tuple[str, str]]:
    """Lines of (what, how) for a person.

    Raises:
        DataError: the data can't be read, or are fewer than a batch.
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
    given = f"weights {teacher.model.weights}" if teacher.model.weights else "as its code makes it"
    begins = f"from {given}, " if teacher.model.weights else ""
    trained = begins + _training(teacher.train, found, "teacher") if teacher.train else f"given: {given}"
    lines.append(("teacher", f"{_model(teacher.model.arch, teacher.model.options)}; {trained}"))
    lines.append(
        (
            "student",
            f"{_model(student.model.arch, student.model.options)}; {_training(student.train, found, 'student')}",
        )
    )
    lines.append(("objective", _objective(recipe)))
    if recipe.control.seeds:
        again = (
            f", and {recipe.control.seeds - 1} more distilled for the comparison" if recipe.control.seeds > 1 else ""
        )
        lines.append(("control", f"{recipe.control.seeds} x the student without the teacher{again}"))
    else:
        lines.append(("control", "none: nobody will know whether distillation helped"))
    lines.append(("not checked", "what only a run can see: models built, every sample decoded"))
    lines += [("runs code", reference) for reference in _code(recipe)] or [("runs code", "none of yours")]
    lines.append(("writes", f"{folder}/ (recipe.yaml, result.json, report.html, student.safetensors{_onnx(recipe)})"))
    return lines


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
    return f"{settings.epochs} epochs = {steps:,} steps of {settings.batch_size}, {settings.precision}"


def _objective(recipe: Recipe) -> str:
    section = recipe.objective
    parts = [f"{section.cross_entropy:g} x cross-entropy"] if section.cross_entropy else []
    if section.kd is not None:
        parts.append(f"{section.kd.weight:g} x KD at temperature {section.kd.temperature:g}")
    parts += [f"{term.weight:g} x features {term.student} -> {term.teacher}" for term in section.features]
    return " + ".join(parts)


def _code(recipe: Recipe) -> list[str]:
    references = [model.arch for model in (recipe.teacher.model, recipe.student.model) if ".py:" in model.arch]
    source = recipe.data.source
    if isinstance(source, FunctionSource):
        references += [each for each in (source.train, source.test) if each]
    return list(dict.fromkeys(references))


def _onnx(recipe: Recipe) -> str:
    return ", student.onnx" if recipe.export.onnx else ""
