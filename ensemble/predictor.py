"""The predictor: from pixels, or a file, and a sex to a bone age, with every member of a bundle.

Shape letters: B batch, V views, H height, W width, M monthly bins, E members.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from ensemble.bundle import Bundle
from preprocessing.quality import Finding
from preprocessing.standardize import Reader
from search.model import BIN_MONTHS, BoneAgeNet, load_model, sex_codes

MAX_BATCH = 32
"""Larger inputs are cut into batches of this size: on a CPU more is not faster, and memory stays bounded."""
DISAGREEMENT_MONTHS = 12.0
"""Members whose estimates spread more than this have probably not seen a picture of this kind."""


def in_words(months: float) -> str:
    """Bone age as people say it, rounded once to whole months: ``10 years 6 months``, ``9 months``, ``1 year``."""
    years, rest = divmod(max(0, round(float(months))), 12)
    parts = [
        f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in ((years, "year"), (rest, "month")) if count
    ]
    return " ".join(parts) or "0 months"


@dataclass(frozen=True)
class Prediction:
    """What a bundle says about one radiograph."""

    bone_age_months: float
    """Mean of the distribution."""
    spread_months: float
    """Weighted standard deviation between the members' estimates; 0 with one member."""
    distribution: np.ndarray
    """``(240,)`` float32 probabilities of 0, 1, ..., 239 months, summing to 1."""
    version: str
    """Of the bundle."""
    recipe: str
    """Hash of the recipe that standardised the picture."""
    warnings: tuple[Finding, ...] = ()
    """What the reader of the number should know: of the picture, of its header, and of the members."""

    @property
    def bone_age(self) -> str:
        """Such as ``10 years 6 months``."""
        return in_words(self.bone_age_months)


class Predictor:
    """All members of a bundle, ready to predict in full precision.

    A member is the average of its fold models' distributions; the ensemble is the weighted mixture of its members.
    On a CPU the fold models run side by side, one thread each, on as many threads as torch was given when this was
    made: at these sizes that is faster than splitting one convolution, and it does not stall on a busy machine.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        """Load the weights.

        Args:
            bundle: A checked bundle.
            device: ``cpu`` or a CUDA device.

        Raises:
            ValueError: Weights do not fit the configuration of their trial, or there is no such device.
        """
        if not (device == "cpu" or (device.startswith("cuda") and torch.cuda.is_available())):
            raise ValueError(f"The device must be cpu, or cuda where torch finds a GPU, got {device!r}.")
        self.bundle = bundle
        self._device = torch.device(device)
        if self._device.type == "cuda":  # CUDA convolutions round to TF32 by default, which moves the answer
            torch.backends.cudnn.allow_tf32 = False
        self._models = [
            load_model(file, member.config, self._device) for member in bundle.members for file in member.files
        ]
        self._reader: Reader | None = None
        self._view_of_model = [
            bundle.recipe.views.index(member.config.view) for member in bundle.members for _ in member.files
        ]
        self._knows_unknown = [member.config.sex_dropout > 0 for member in bundle.members for _ in member.files]
        self._member_of_model = np.repeat(
            np.arange(len(bundle.members)), [len(member.files) for member in bundle.members]
        )
        self._weights_E = np.array([member.weight for member in bundle.members])
        threads = torch.get_num_threads() if self._device.type == "cpu" else 1
        self._pool = _pool(min(threads, len(self._models)))

    @property
    def reader(self) -> Reader:
        """Reads files by the bundle's recipe; loaded at first use, since a replica may get pixels only."""
        if self._reader is None:
            self._reader = Reader(self.bundle.recipe, self.bundle.segmenter)
        return self._reader

    def predict(
        self,
        pixels_BVHW: np.ndarray,
        is_male_B: np.ndarray,
        warnings_B: Sequence[tuple[Finding, ...]] | None = None,
    ) -> list[Prediction]:
        """Predict standardised radiographs; a case's answer does not depend on its neighbours in the batch.

        Args:
            pixels_BVHW: ``(B, V, size, size)`` uint8, as a `Reader` of the bundle's recipe gives it; each member sees
                its own view.
            is_male_B: ``(B,)`` bool, or with None where the sex is unknown.
            warnings_B: What was noticed about each picture; it comes first among the prediction's warnings.

        Returns:
            One prediction a case, in order.

        Raises:
            ValueError: Wrong shape or type, or a sex that is neither male, female nor missing.
        """
        recipe = self.bundle.recipe
        shape = (len(recipe.views), recipe.size, recipe.size)
        if pixels_BVHW.dtype != np.uint8 or pixels_BVHW.shape[1:] != shape:
            raise ValueError(
                f"Pixels must be (B, {', '.join(map(str, shape))}) uint8, got {pixels_BVHW.shape} "
                f"{pixels_BVHW.dtype}. Standardise them by the bundle's recipe."
            )
        if np.shape(is_male_B) != pixels_BVHW.shape[:1]:
            raise ValueError(f"{len(pixels_BVHW)} pictures need as many sexes, got shape {np.shape(is_male_B)}.")
        sex_B = sex_codes(is_male_B)
        noticed_B = warnings_B or [()] * len(pixels_BVHW)
        if len(noticed_B) != len(pixels_BVHW):
            raise ValueError(f"{len(pixels_BVHW)} pictures need as many lists of warnings, got {len(noticed_B)}.")
        predictions: list[Prediction] = []
        for start in range(0, len(pixels_BVHW), MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            members_EBM = self._members(pixels_BVHW[batch], sex_B[batch])
            predictions += self._mix(members_EBM, noticed_B[batch])
        return predictions

    def score(self, data: bytes, sex: str | None) -> Prediction:
        """Predict one file.

        Args:
            data: The whole file.
            sex: ``male`` or ``female``, or None where it is unknown.

        Raises:
            RadiographError: The bytes hold no usable picture.
            ValueError: Another word for the sex.
        """
        if sex not in ("male", "female", None):
            raise ValueError(f"sex must be None where it is unknown, else male or female, got {sex!r}.")
        reading = self.reader.read(data)
        is_male = np.array([None if sex is None else sex == "male"])
        return self.predict(reading.pixels[None], is_male, [reading.warnings(sex=sex)])[0]

    def _members(self, pixels_BVHW: np.ndarray, sex_B: np.ndarray) -> np.ndarray:
        """Distributions of all members, ``(E, B, 240)`` float64."""
        images = torch.from_numpy(np.array(pixels_BVHW)).to(self._device)
        sexes = torch.from_numpy(sex_B).to(self._device)
        run: Callable[[BoneAgeNet, int, bool], np.ndarray] = lambda model, view, knows: _probabilities(  # noqa: E731
            model, images[:, view], sexes, knows
        )
        mapped = self._pool.map if self._pool else map
        outputs = list(mapped(run, self._models, self._view_of_model, self._knows_unknown))
        members = [np.flatnonzero(self._member_of_model == index) for index in range(len(self._weights_E))]
        return np.stack([np.mean([outputs[i] for i in models], axis=0) for models in members])

    def _mix(self, members_EBM: np.ndarray, noticed_B: Sequence[tuple[Finding, ...]]) -> list[Prediction]:
        mixture_BM = np.tensordot(self._weights_E, members_EBM, axes=1)
        months_EB = members_EBM @ BIN_MONTHS.astype(np.float64)
        months_B = self._weights_E @ months_EB
        spread_B = np.sqrt(self._weights_E @ np.square(months_EB - months_B))
        return [
            Prediction(
                float(months),
                float(spread),
                distribution.astype(np.float32),
                self.bundle.version,
                self.bundle.recipe.hash,
                (*noticed, *_warnings(float(spread))),
            )
            for months, spread, distribution, noticed in zip(months_B, spread_B, mixture_BM, noticed_B, strict=True)
        ]


@torch.inference_mode()
def _probabilities(model: BoneAgeNet, images: torch.Tensor, sexes: torch.Tensor, knows_unknown: bool) -> np.ndarray:
    """Distributions, ``(B, 240)`` float64; a model that met no unknown sex in training answers for both, half each."""
    unknown = sexes == 0
    if knows_unknown or not unknown.any():
        return model(images, sexes).softmax(dim=1).double().cpu().numpy()
    maps = model.maps(images)
    as_either = [model.from_maps(maps, torch.where(unknown, sex, sexes)).softmax(dim=1) for sex in (-1.0, 1.0)]
    return torch.stack(as_either).mean(dim=0).double().cpu().numpy()


def _pool(num_threads: int) -> ThreadPoolExecutor | None:
    if num_threads < 2:
        return None
    return ThreadPoolExecutor(num_threads, "members", initializer=torch.set_num_threads, initargs=(1,))


def _warnings(spread_months: float) -> tuple[Finding, ...]:
    if spread_months <= DISAGREEMENT_MONTHS:
        return ()
    sentence = f"The members disagree (spread {spread_months:.0f} months): read the number with caution."
    return (Finding("members_disagree", "warned", spread_months, DISAGREEMENT_MONTHS, sentence),)
