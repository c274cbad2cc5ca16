"""One point of the search space."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

CHOICES: dict[str, tuple[str, ...]] = {
    "head": ("bins", "normal", "laplace", "ordinal", "quantiles"),
    "sex": ("concat", "embedding", "film", "gated"),
    "parts": ("ranked", "random"),
    "schedule": ("cosine", "halving", "constant"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
    "warp_on": ("host", "device", "auto"),
}
"""Settings that take one of a few words."""
_ANY_SHAPE = ("weight_l1", "weight_ldl", "weight_spread", "weight_ce", "weight_z")
HEAD_TERMS: dict[str, tuple[str, ...]] = {
    "bins": _ANY_SHAPE,
    "normal": _ANY_SHAPE,
    "ordinal": (*_ANY_SHAPE, "weight_ordinal"),
    "laplace": ("weight_l1", "weight_z"),
    "quantiles": ("weight_l1", "weight_spread", "weight_z", "weight_pinball"),
}
"""Loss terms that each head can learn by: ``laplace`` has no shape to learn, and what lies outside of the outermost
``quantiles`` has probability 0, whose logarithm teaches nothing."""
WRAPPERS = ("prs_r",)
"""Networks of ours that are put on another, as in ``prs_r:resnet18``."""
_OF_WRAPPERS = ("parts", "weight_parts")
TERMS = tuple(dict.fromkeys(name for names in HEAD_TERMS.values() for name in names))
"""All loss terms of the age itself."""


def unused(config: Mapping[str, Any]) -> set[str]:
    """Settings of a configuration, as `TrialConfig.to_dict` writes it, that its network and head make no use of."""
    terms = set(TERMS).difference(HEAD_TERMS[config["head"]])
    return terms if ":" in config["backbone"] else terms.union(_OF_WRAPPERS)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """Every setting of one trial; what a fold learns depends on nothing else but the cohort."""

    backbone: str
    """Name of a timm model, our own among them; made with one input channel and without its classifier.
    ``prs_r:NAME`` puts part relation and selection on the timm model NAME."""
    pretrained: str = ""
    """Where its weights come from: empty for random ones, ``hub`` for timm's, else the path of a local file; a space's
    may be relative to the folder that the search is run from."""
    parts: str = "ranked"
    """Of ``prs_r`` alone: the best ``ranked`` parts, or ``random`` ones, the control that must be worse."""
    view: str = "full"
    """Which of the cohort's pictures of a radiograph it sees."""
    image_size: int = 0
    """Side in pixels that pictures are resized to before the network; 0 leaves the cohort's."""
    head: str = "bins"
    """What it estimates: ``bins``, ``normal``, ``laplace``, ``ordinal`` or ``quantiles``; see `search.heads`."""
    sex: str = "concat"
    """How the sex joins the image: ``concat``, ``embedding``, ``film`` or ``gated``; see `search.conditioning`."""
    sex_features: int = 32
    """Width of the layer that reads the sex before it joins the image features."""
    sex_dropout: float = 0.05
    """Share of training cases whose sex is hidden, so that an unknown sex is an input the network knows."""
    learning_rate: float = 1e-3
    """Of AdamW, at the schedule's peak."""
    weight_decay: float = 0.02
    """Of AdamW; weights only, neither biases nor normalisation."""
    batch_size: int = 32
    epochs: int = 30
    """Passes over the training folds."""
    max_images_seen: int = 12_000
    """Upper bound on training images shown per fold, repeats counted: it keeps large cohorts affordable."""
    augmentation: float = 0.5
    """Strength in 0..1 of the random changes to training images; 0 leaves them alone; see preprocessing.strength."""
    schedule: str = "cosine"
    """``cosine``: rises over the first tenth, then falls to zero; ``halving``: halves after each tenth (Chen);
    ``constant``."""
    ema: float = 0.0
    """Decay a step of the moving average of the weights, which is measured and kept in their place; 0: no average."""
    frozen_epochs: float = 0.0
    """First passes in which the trunk learns nothing; as many as `epochs` or more: it never does."""
    accumulate: int = 1
    """Parts in which a batch passes through the network, where memory is short; their gradients are added up."""
    precision: str = "auto"
    """``fp32``, ``bf16`` or ``fp16`` while it trains; ``auto``: the fastest in a short measurement (precision.py)."""
    deterministic: bool = False
    """Whether the same training gives the same weights to the bit, on the same kind of device with as many threads:
    float32 unless a precision is named, and no operation whose result may vary; one that has no other form fails."""
    warp_on: str = "auto"
    """Where they are turned, shifted and zoomed: ``host`` (one by one, OpenCV), ``device`` (a batch at once, torch), or
    ``auto``: the device unless it is the CPU."""
    weight_l1: float = 1.0
    """Weight of the smooth L1 distance between expected and reference bone age, in years."""
    weight_ldl: float = 0.3
    """Weight of the cross entropy to a normal label distribution around the reference (label distribution learning)."""
    weight_spread: float = 0.0
    """Weight of Chen's expected squared distance, sum of p_j (j - y)^2, in years squared."""
    weight_ce: float = 0.0
    """Weight of the cross entropy to the reference's own month; with `weight_spread` it makes Chen's L2CE."""
    weight_z: float = 0.0
    """Weight of the L1 distance between expected and reference bone age, in standard deviations of the labels."""
    weight_ordinal: float = 0.0
    """Of head ``ordinal``: weight of the binary cross entropies of "older than t", one a month."""
    weight_pinball: float = 0.0
    """Of head ``quantiles``: weight of the pinball loss, in years."""
    weight_sex: float = 0.0
    """Weight of guessing the sex from the image features beside the age; 0 makes no such output."""
    weight_parts: float = 1.0
    """Of ``prs_r`` alone: weight of its parts' own estimates, of their ranking and of their confidence."""
    label_sigma_months: float = 9.0
    """Standard deviation of the label distribution."""
    seed: int = 0
    """Of weights, order of images and augmentation."""

    def __post_init__(self) -> None:
        wrapper, colon, _ = self.backbone.rpartition(":")
        if colon and wrapper not in WRAPPERS:  # timm would look there, on the network or this disk
            raise ValueError(
                f"backbone must be the name of a timm model, alone or after {WRAPPERS[0]}:, got {self.backbone!r}. "
                "Name the model that timm itself knows; weights of your own are given as pretrained."
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie within 0..1, below 1, got {self.ema}. 0 turns it off.")
        if not self.frozen_epochs >= 0:
            raise ValueError(f"frozen_epochs must be 0 or more, got {self.frozen_epochs}.")
        if not 1 <= self.accumulate <= self.batch_size:
            raise ValueError(
                f"accumulate must lie within 1..batch_size ({self.batch_size}), got {self.accumulate}: "
                "a part holds one image at least."
            )
        for name in (
            "sex_features",
            "batch_size",
            "epochs",
            "max_images_seen",
            "learning_rate",
            "label_sigma_months",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}.")
        for name in ("weight_decay", "weight_sex", "weight_parts", *TERMS):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        usable = HEAD_TERMS[self.head]
        if unusable := [name for name in TERMS if getattr(self, name) and name not in usable]:
            raise ValueError(
                f"Head {self.head!r} learns by {', '.join(usable)}; {', '.join(unusable)} must be 0, got "
                f"{', '.join(str(getattr(self, name)) for name in unusable)}. Set it to 0 or choose another head."
            )
        if not any(getattr(self, name) for name in usable):
            raise ValueError(f"At least one of {', '.join(usable)} must be above 0: no loss is left.")
        if not 0 <= self.augmentation <= 1:
            raise ValueError(f"augmentation must lie within 0..1, got {self.augmentation}.")
        if not 0 <= self.sex_dropout < 1:
            raise ValueError(f"sex_dropout must lie within 0..1 and below 1, got {self.sex_dropout}.")
        if self.image_size and self.image_size < 32:
            raise ValueError(f"image_size must be 0 (the cohort's) or at least 32 pixels, got {self.image_size}.")

    def planned_images(self, train_cases: int) -> int:
        """Image passes of one fold that is trained to its end, up to an incomplete last batch."""
        return min(self.epochs * train_cases, self.max_images_seen)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Rebuild a stored configuration, refusing keys this release does not know.

        One that says nothing of hidden sexes was trained without them.

        Raises:
            ValueError: An unknown key, or a value out of range.
        """
        known = {field.name for field in fields(cls)}
        if unknown := set(value) - known:
            raise ValueError(f"A trial has the settings {sorted(known)}; unknown: {sorted(unknown)}.")
        return cls(**{"sex_dropout": 0.0, **value})
