"""How a control is trained: the student without its teacher, or without the teacher's blocks."""

from __future__ import annotations

from stillhouse.recipe.recipe import Recipe
from stillhouse.recipe.train import TrainSection


def control_settings(recipe: Recipe) -> TrainSection:
    """As its student; ``control.optimizer`` goes before all.

    One that begins anew where the student did not is trained as the teacher was, or, where that was given, by the
    default optimiser: a rate for fine-tuning would starve it.
    """
    student, blockwise, teacher = recipe.student.train, recipe.blockwise, recipe.teacher.train
    own = {} if recipe.control.optimizer is None else {"optimizer": recipe.control.optimizer}
    if blockwise is None:
        return student.model_copy(update=own)
    epochs = student.epochs + blockwise.train.epochs + blockwise.calibrate_epochs
    whole = teacher or student.model_copy(update={"optimizer": TrainSection().optimizer})
    return whole.model_copy(update={"epochs": epochs, "engine": student.engine, **own})
