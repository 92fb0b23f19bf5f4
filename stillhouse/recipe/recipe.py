"""Every section of a recipe: the vocabulary of the system, in the order a person reads it.

All values are plain and frozen; a variant is ``recipe.model_copy(update=...)``. Units are the last
word of a name (``_px``, ``_s``, ``_epochs``); a number without a unit is a ratio or a count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from stillhouse.recipe.architectures import BLOCKWISE, ZOO_OPTIONS, BlockwiseOptions, ModelSection
from stillhouse.recipe.blockwise import BlockwiseSection
from stillhouse.recipe.engines import TeacherEngine, TeacherEngineSection
from stillhouse.recipe.fleet import FleetSection
from stillhouse.recipe.knowledge import KnowledgeSection, StoreSection
from stillhouse.recipe.members import MemberSection
from stillhouse.recipe.objective import ObjectiveSection
from stillhouse.recipe.power import PowerSection
from stillhouse.recipe.search import SearchSection
from stillhouse.recipe.section import (
    Device,
    Fraction,
    FunctionReference,
    InputPath,
    Name,
    NonNegativeInt,
    PositiveInt,
    Ratio,
    Section,
    WholeNumber,
)
from stillhouse.recipe.train import Optimizer, TrainSection

MixAlpha = Annotated[float, Field(ge=0.01, le=100.0)]


class DigitsSource(Section):
    """scikit-learn's bundled handwritten digits: 1,797 grey images of 8x8, ten classes."""

    kind: Literal["digits"]


class ParquetSource(Section):
    """A Parquet file whose rows hold an encoded image and a class number."""

    kind: Literal["parquet"]
    train: InputPath
    test: InputPath | None = None
    image: str = Field("image", description="column of encoded images: bytes, or a struct with a field 'bytes'")
    label: str = Field("label", description="column of class numbers, 0 and up")


class FolderSource(Section):
    """A folder with one sub-folder of images for each class."""

    kind: Literal["folder"]
    train: InputPath
    test: InputPath | None = None


class FunctionSource(Section):
    """Any map-style dataset (``__len__`` and ``__getitem__`` -> (sample, label)) made by your own function."""

    kind: Literal["function"]
    train: FunctionReference
    test: FunctionReference | None = None


class LiveSource(Section):
    """Datasets handed over from Python; only ``stillhouse.distill`` or ``blockwise`` can start or resume such a run."""

    kind: Literal["live"]


Source = Annotated[
    DigitsSource | ParquetSource | FolderSource | FunctionSource | LiveSource, Field(discriminator="kind")
]


class MixupSection(Section):
    """A view is blended with the same-numbered view of another training sample (arXiv 1710.09412)."""

    kind: Literal["mixup"]
    alpha: MixAlpha = Field(0.2, description="a view's own share is drawn from Beta(alpha, alpha)")
    probability: Ratio = Field(1.0, description="share of the views that are mixed")


class CutmixSection(Section):
    """A box of a view shows the same-numbered view of another training sample (arXiv 1905.04899)."""

    kind: Literal["cutmix"]
    alpha: MixAlpha = Field(1.0, description="a view's own share is drawn from Beta(alpha, alpha)")
    probability: Ratio = Field(1.0, description="share of the views that are mixed")


Mix = Annotated[MixupSection | CutmixSection, Field(discriminator="kind")]


class AugmentSection(Section):
    """How a view differs from its sample. Every choice is a function of (seed, sample id, view)."""

    pad_px: NonNegativeInt = Field(0, description="crop at random after padding each side with zeros")
    flip: bool = Field(False, description="mirror left and right with probability 1/2")
    colour: Ratio = Field(0.0, description="strength of random brightness, contrast and saturation")
    erase: Ratio = Field(0.0, description="probability of erasing a random rectangle")
    mix: Mix | None = Field(None, description="kind mixup or cutmix: mix views of two training samples; default: none")


class DataSection(Section):
    """Where samples come from, how they are cut into splits, and which views of them are seen."""

    source: Source
    size_px: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="height and width every image is brought to; default: the size of the first image"
    )
    crop_px: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="height and width of a view; cut at random in training, from the centre otherwise"
    )
    channels: Literal[1, 3] | None = Field(
        None, description="grey (1) or RGB (3); default: RGB if any of a few images spread over the data is"
    )
    validation_fraction: Fraction = Field(0.1, description="of the training samples, cut by seed, by class")
    test_fraction: Fraction = Field(0.2, description="of all samples; used only where the source has no test split")
    augment: AugmentSection = AugmentSection()
    views: PositiveInt | None = Field(
        None,
        description="number of different views of a sample; epoch e uses view e mod views; default: no limit (but one, "
        "where nothing is random)",
    )
    bad_samples: Literal["stop", "skip"] = Field("stop", description="what to do with an unreadable sample")
    memory_max_mb: PositiveInt = Field(
        1024, description="decoded samples of all splits; beyond this they go to a memory-mapped file"
    )
    keep_decoded: bool = Field(
        True, description="decode every sample once, before the first step; false: each time its batch is made"
    )
    ahead_max_mb: NonNegativeInt = Field(
        64, description="batches made ahead of the step, in a thread; 0: each when the step asks for it"
    )

    @property
    def different_views(self) -> int | None:
        """How many views of a sample differ: one where nothing is random; None for no limit."""
        random = self.augment != AugmentSection() or self.crop_px is not None
        return self.views if random else 1

    def views_in(self, epochs: int) -> int:
        """How many different views of a sample are seen in so many epochs."""
        return min(self.different_views or epochs, epochs)

    @model_validator(mode="after")
    def _knows_what_to_skip(self) -> Self:
        if self.bad_samples == "skip" and not self.keep_decoded:
            raise ValueError(
                "bad_samples: skip needs keep_decoded: true, because the splits must know before the first step which "
                "samples can't be read"
            )
        return self


class TeacherSection(Section):
    """One teacher (``model``) or several (``members``), each given by its ``model.weights`` (or timm's ``pretrained``)
    or trained first by ``train``.
    """

    model: ModelSection | None = Field(None, description="the teacher, where it is one")
    members: tuple[MemberSection, ...] = Field(
        (), description="several teachers, instead of 'model'; they answer as one"
    )
    train: TrainSection | None = None
    engine: TeacherEngine = TeacherEngineSection()
    divergence_max: PositiveFloat = Field(
        1e-3, description="an automatic engine's mean KL divergence from fp32, in nats, at temperature 1"
    )

    @property
    def models(self) -> dict[str, ModelSection]:
        """Every model by its key in the recipe."""
        if self.model is not None:
            return {"teacher.model": self.model}
        return {f"teacher.members.{number}.model": member.model for number, member in enumerate(self.members)}

    def with_models(self, change: Callable[[ModelSection], ModelSection]) -> TeacherSection:
        """The same teacher with every model changed."""
        if self.model is not None:
            return self.model_copy(update={"model": change(self.model)})
        members = tuple(each.model_copy(update={"model": change(each.model)}) for each in self.members)
        return self.model_copy(update={"members": members})

    @model_validator(mode="after")
    def _is_one_or_several(self) -> Self:
        if self.model is not None and self.members:
            raise ValueError("'model' is for one teacher, 'members' for several: give one of the two")
        if self.model is None and not self.members:
            raise ValueError("'model' is missing (or, for several teachers, 'members')")
        if len(self.members) == 1:
            raise ValueError("one member alone is no ensemble: write it as 'model', or give a second one")
        return self

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        for key, model in self.models.items():
            self._check_weights(key, model)
        if self.train is not None and any(each.outputs == "own" for each in self.members):
            raise ValueError("a member that is trained here learns all classes: leave its outputs out, or 'train'")
        return self

    def _check_weights(self, key: str, model: ModelSection) -> None:
        timm = model.arch.startswith("timm:")
        given = timm and (model.options.get("pretrained") or model.options.get("checkpoint_path"))
        if (timm or model.arch in ZOO_OPTIONS) and not given and model.weights is None and self.train is None:
            also = " nor options.pretrained" if timm else ""
            who = "the teacher" if self.model is not None else key.removesuffix(".model")
            raise ValueError(f"{who} has neither 'model.weights' nor 'train'{also}: its answers would be random")


class StudentSection(Section):
    """The student to train."""

    model: ModelSection
    train: TrainSection = TrainSection()


class ControlSection(Section):
    """The same student without the teacher, same budget: did distillation help?"""

    seeds: NonNegativeInt = Field(
        1, description="controls to train; beyond 1, as many distilled students are trained for the comparison"
    )
    optimizer: Optimizer | None = Field(
        None,
        description="of the controls; default: the student's, and of a blockwise run the teacher's if it trains one",
    )


class CheckpointSection(Section):
    """How much work a crash may cost."""

    every_s: NonNegativeFloat = Field(60.0, description="seconds of training between checkpoints; 0: every step")
    keep: Annotated[WholeNumber, Field(ge=2)] = Field(2, description="checkpoints kept of each training")


class ComputeSection(Section):
    """The hardware. ``auto`` is resolved when a run starts and written into its recipe."""

    device: Device = "auto"
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="CPU threads; they fix the last bits of results; auto: torch's choice (OMP_NUM_THREADS)"
    )
    power: PowerSection | None = Field(
        None, description="what the machine draws, to estimate energy where no counter of the processor can be read"
    )


class ExportSection(Section):
    """What is made of the student after training, besides ``student.safetensors``."""

    onnx: bool = Field(False, description="export to ONNX and check it on real samples; needs the extra 'onnx'")


FINE_TUNING: Final = {"kind": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01}
"""The default optimiser of a blockwise student, once its blocks are put together."""


class Recipe(Section):
    """A whole run."""

    name: Name = Field("run", description="names the folder under runs/")
    seed: NonNegativeInt = 0
    data: DataSection
    teacher: TeacherSection
    student: StudentSection
    blockwise: BlockwiseSection | None = Field(None, description="where the student is made of the teacher's blocks")
    search: SearchSection | None = Field(None, description="where the student is searched for")
    objective: ObjectiveSection = ObjectiveSection()
    knowledge: KnowledgeSection = KnowledgeSection()
    store: StoreSection = Field({}, validate_default=True)  # the environment counts when the recipe is read
    fleet: FleetSection = FleetSection()
    control: ControlSection = ControlSection()
    checkpoint: CheckpointSection = CheckpointSection()
    compute: ComputeSection = ComputeSection()
    export: ExportSection = ExportSection()

    @model_validator(mode="before")
    @classmethod
    def _tunes_blocks_gently(cls, values: Any) -> Any:
        """A student made of trained blocks is only fine-tuned: the default rate would undo them."""
        if isinstance(values, dict) and values.get("blockwise") is not None:
            student = values.get("student")
            if isinstance(student, dict) and isinstance(train := student.get("train", {}), dict):
                tuned = {"optimizer": FINE_TUNING, **train}
                return {**values, "student": {**student, "train": tuned}}
        return values

    @model_validator(mode="after")
    def _is_made_of_blocks(self) -> Self:
        made = self.student.model
        settled = made.arch == BLOCKWISE and BlockwiseOptions(**made.options).settled
        if (made.arch == BLOCKWISE) != (self.blockwise is not None) and not settled:
            words = "belong together: give both, neither, or all of student.model.options (of, blocks, mix)"
            raise ValueError(f"student.model.arch: blockwise and a section 'blockwise' (with its budget) {words}")
        if self.blockwise is not None and self.teacher.members:
            raise ValueError("blockwise: the blocks of one teacher are replaced: give teacher.model, not members")
        if made.arch == BLOCKWISE:
            own = [name for name in ("weights", "size_px", "channels") if getattr(made, name) is not None]
            if own or made.normalise != "auto":
                whose = "its teacher's" if self.blockwise is not None else "what student.model.options.of says"
                raise ValueError(f"student.model.{(own or ['normalise'])[0]}: a blockwise student has {whose}")
        return self

    @model_validator(mode="after")
    def _is_searched_for(self) -> Self:
        if self.search is not None and self.blockwise is not None:
            raise ValueError("search: a student made of the teacher's blocks is not searched for: give one of the two")
        return self

    @model_validator(mode="after")
    def _can_be_decoupled(self) -> Self:
        kd, mix = self.objective.kd, self.data.augment.mix
        if kd is None or kd.kind != "dkd" or kd.weight == 0:
            return self
        if mix is not None:
            raise ValueError(
                "objective.kd.kind: dkd is about the one label of a sample, and data.augment.mix "
                f"({mix.kind}) gives it two: use kl or dist"
            )
        if self.knowledge.logits.kind == "top":
            raise ValueError(
                "objective.kd.kind: dkd is most about the classes that knowledge.logits: top leaves out: use dense, or "
                "kl or dist"
            )
        return self

    @model_validator(mode="after")
    def _students_have_work(self) -> Self:
        most, train = self.fleet.students_range[1], self.student.train
        if most > 1 and train.accumulate < most:
            size = train.batch_size
            fitting = next((count for count in range(most, size + 1) if size % count == 0), None)
            mend = f"student.train.accumulate: {fitting}" if fitting else "a larger student.train.batch_size"
            fewer = f"ask for {train.accumulate} at most" if train.accumulate > 1 else "ask for one student"
            raise ValueError(
                f"fleet.students: {most} students share the micro-batches of a step, and student.train.accumulate is "
                f"{train.accumulate}: {fewer}, or begin a run with {mend} (one that is begun keeps its own)"
            )
        made_of = self.student.model if self.blockwise is None else self.teacher.models["teacher.model"]
        if most > 1 and made_of.arch == "live":
            raise ValueError(
                "fleet.students: a student handed over from Python can't be built in other processes: name it by "
                "file.py:function, or leave fleet.students at 1"
            )
        return self

    @model_validator(mode="after")
    def _block_workers_have_work(self) -> Self:
        if self.fleet.block_workers > 1:
            if self.blockwise is None:
                raise ValueError(
                    "fleet.block_workers: they train the blocks of a blockwise student, and this recipe has none (no "
                    "section 'blockwise'): leave it at 1, or ask for fleet.students"
                )
            if self.teacher.models["teacher.model"].arch == "live":
                raise ValueError(
                    "fleet.block_workers: a teacher handed over from Python can't be built in other processes: name it "
                    "by file.py:function, or leave fleet.block_workers at 1"
                )
        return self

    @model_validator(mode="after")
    def _trial_workers_have_work(self) -> Self:
        several = self.fleet.trial_workers > 1
        if several and self.search is None:
            raise ValueError("fleet.trial_workers: there are no trials: this recipe has no section 'search'")
        if several and self.student.model.arch == "live":
            raise ValueError("fleet.trial_workers: name a student handed over from Python by file.py:function")
        return self


def as_dict(recipe: Recipe) -> dict[str, object]:
    """The recipe as plain JSON values, complete with its defaults."""
    return recipe.model_dump(mode="json")
