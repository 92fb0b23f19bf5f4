"""What ``check`` says of a student that is made of its teacher's blocks; no torch, so that nothing is cut here."""

from __future__ import annotations

import json
import shlex

from stillhouse.data.open import Survey
from stillhouse.data.views import view_shape
from stillhouse.recipe.blockwise import MEASURES, BlockwiseSection
from stillhouse.recipe.recipe import Recipe

_WORDS = {
    "params": "{:.4g} % of its parameters",
    "macs": "{:.4g} % of its multiply-adds",
    "bytes": "{:.4g} % of its bytes",
    "latency_ms": "{:g} ms a sample",
}


def foreseen(recipe: Recipe, found: Survey | None, trained: str) -> list[tuple[str, str]]:
    """Lines of (what, how) for a person.

    Args:
        found: what is known of the data.
        trained: the training of a replacement, in words.
    """
    section = recipe.blockwise
    assert section is not None
    given = {name: value for name in MEASURES if (value := getattr(section.budget, name)) is not None}
    most = [_WORDS[name].format(value if name == "latency_ms" else 100 * value) for name, value in given.items()]
    again = f", then {section.calibrate_epochs} more for all together" if section.calibrate_epochs else ""
    count = recipe.fleet.block_workers
    several = f" that {count} processes share" if count > 1 else ""
    judged = section.score_samples if found is None else min(section.score_samples, len(found.splits.validation))
    lines = [
        ("blocks", f"of the teacher, {_cut(section)}; each is kept, or replaced by {', '.join(section.library)}"),
        (
            "replacements",
            f"each {trained}, all on one pass of the teacher{several}{again}; judged by {judged:,} samples",
        ),
        ("budget", f"of the teacher at most {' and '.join(most)}; the best mix within it is the student"),
    ]
    command = _command(recipe, found)
    return [*lines, ("see", f"{command} (how it is cut, and what is offered)")] if command else lines


def _cut(section: BlockwiseSection) -> str:
    if isinstance(section.blocks, str):
        return f"cut by {section.blocks}"
    return f"cut behind {', '.join(section.blocks)}"


def _command(recipe: Recipe, found: Survey | None) -> str:
    """What shows the blocks; nothing where the command line can't be told all of it."""
    model, section = recipe.teacher.models["teacher.model"], recipe.blockwise
    assert section is not None
    if found is None or model.arch == "live" or not found.form.image or not isinstance(section.blocks, str):
        return ""
    channels, height, width = view_shape(found.form.shape, recipe.data.crop_px)
    channels, (height, width) = model.channels or channels, model.size_px or (height, width)
    said = ["stillhouse", "blocks", model.arch, "--input", f"{channels}x{height}x{width}", "--by", section.blocks]
    said += ["--classes", str(found.classes)]
    for key, value in model.options.items():
        said += ["--option", f"{key}={json.dumps(value)}"]
    return shlex.join([*said, "--replacements"])
