"""The predictor: from pixels, or a file, and a sex to a bone age, with every member of a bundle.

Shape letters: B batch, V views, H height, W width, M monthly bins, E members, S sexes assumed, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble import calibration, width
from ensemble.bundle import Bundle
from ensemble.calibration import Calibration, levels_by_name
from ensemble.chronology import NORMS_FILE, PUBLISHED, read_norms
from ensemble.conformal import LEVELS
from ensemble.members import Members, Network
from ensemble.prediction import Prediction as Prediction
from ensemble.prediction import SexAnswer
from ensemble.prediction import in_words as in_words
from ensemble.robust import DISAGREEMENT_MONTHS, combine_members
from ensemble.sex import SexReading
from preprocessing.quality import Finding
from preprocessing.standardize import Reader
from search.model import sex_codes

MAX_BATCH = 32
"""Larger inputs are cut into batches of this size: on a CPU more is not faster, and memory stays bounded."""
_SEXES = ("female", "male")


class Predictor:
    """All members of a bundle, ready to predict in full precision.

    A member is the average of its models' distributions, the ensemble what `ensemble.robust.combine_members` makes of
    its members, and the answer what the profile's own calibration makes of that. Where the sex is unknown, both sexes'
    answers are computed, and mixed by how probable each is.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", *, lone_threads: int | None = None) -> None:
        """Load the weights.

        Args:
            bundle: A checked bundle.
            device: ``cpu`` or a CUDA device.
            lone_threads: Networks that run side by side on a CPU where a radiograph comes alone; None: as many as
                otherwise, which is as many threads as torch has now.

        Raises:
            ValueError: Weights do not fit the configuration of their trial, or there is no such device.
        """
        self.bundle = bundle
        self._members = Members(bundle, device, lone_threads)
        self._reader: Reader | None = None
        self.norms = PUBLISHED
        if NORMS_FILE in bundle.manifest["files"]:
            self.norms = read_norms(bundle.file(NORMS_FILE).read_bytes(), is_published=True)
        self._profiles = {
            name: _Profile(
                np.array(profile["weights"], float), calibration.parse(calibration.of_profile(bundle.manifest, name))
            )
            for name, profile in bundle.manifest["profiles"].items()
        }

    @property
    def reader(self) -> Reader:
        """Reads files by the bundle's recipe; loaded at first use, since a replica may get pixels only."""
        if self._reader is None:
            self._reader = Reader(self.bundle.recipe, self.bundle.segmenter)
        return self._reader

    @property
    def networks(self) -> list[Network]:
        """Of the members of the full profile, in the order of the bundle: for those who explain its answer."""
        return self.networks_of("full")

    def networks_of(self, profile: str) -> list[Network]:
        """Of the members that answer in a profile, in the order of the bundle."""
        return [network for network in self._members.networks if self.weights_of(profile)[network.member] > 0]

    def weights_of(self, profile: str) -> np.ndarray:
        """``(E,)``, 0 of a member that does not answer in the profile: a student has no weight in the full one."""
        return self._profiles[profile].weights_E

    @property
    def profiles(self) -> tuple[str, ...]:
        """Names that `predict` takes."""
        return tuple(self._profiles)

    def predict(
        self,
        pixels_BVHW: np.ndarray,
        is_male_B: np.ndarray,
        warnings_B: Sequence[tuple[Finding, ...]] | None = None,
        *,
        profile: str = "full",
    ) -> list[Prediction]:
        """Predict standardised radiographs; a case's answer does not depend on its neighbours in the batch.

        Args:
            pixels_BVHW: ``(B, V, size, size)`` uint8, as a `Reader` of the bundle's recipe gives it; each member sees
                its own view.
            is_male_B: ``(B,)`` bool, or with None where the sex is unknown.
            warnings_B: What was noticed about each picture; it comes first among the prediction's warnings.
            profile: Which members answer: one of `profiles`.

        Returns:
            One prediction a case, in order.

        Raises:
            ValueError: Wrong shape or type, a sex that is neither male, female nor missing, or no such profile.
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
        if profile not in self._profiles:
            raise ValueError(f"{self.bundle.version} has the profiles {', '.join(self._profiles)}, got {profile!r}.")
        sex_B = sex_codes(is_male_B)
        noticed_B = warnings_B or [()] * len(pixels_BVHW)
        if len(noticed_B) != len(pixels_BVHW):
            raise ValueError(f"{len(pixels_BVHW)} pictures need as many lists of warnings, got {len(noticed_B)}.")
        predictions: list[Prediction] = []
        for start in range(0, len(pixels_BVHW), MAX_BATCH):
            batch = slice(start, start + MAX_BATCH)
            predictions += self._batch(pixels_BVHW[batch], sex_B[batch], noticed_B[batch], profile)
        return predictions

    def score(
        self, data: bytes, sex: str | None, *, chronological_age_months: float | None = None, profile: str = "full"
    ) -> Prediction:
        """Predict one file.

        Args:
            data: The whole file.
            sex: ``male`` or ``female``, or None where it is unknown.
            chronological_age_months: Of the child, where known; the answer is judged by it, never changed.
            profile: As in `predict`.

        Raises:
            RadiographError: The bytes hold no usable picture.
            ValueError: Another word for the sex, or an age that is none of a child.
        """
        if sex not in (*_SEXES, None):
            raise ValueError(f"sex must be None where it is unknown, else male or female, got {sex!r}.")
        reading = self.reader.read(data)
        is_male = np.array([None if sex is None else sex == "male"])
        noticed = reading.warnings(sex=sex, chronological_age_months=chronological_age_months)
        (prediction,) = self.predict(reading.pixels[None], is_male, [noticed], profile=profile)
        return prediction if chronological_age_months is None else prediction.beside(chronological_age_months, sex)

    def _batch(
        self, pixels_BVHW: np.ndarray, sex_B: np.ndarray, noticed_B: Sequence[tuple[Finding, ...]], profile: str
    ) -> list[Prediction]:
        chosen = self._profiles[profile]
        weights_E, sex = chosen.weights_E, chosen.sex
        unknown_B = sex_B == 0
        # what each case is taken for: its sex, and where that is unknown, once a girl and once a boy
        assumed_SB = np.stack([np.where(unknown_B, s, sex_B) for s in (-1.0, 1.0)] if unknown_B.any() else [sex_B])
        said = self._members.run(pixels_BVHW, assumed_SB.astype(np.float32), weights_E)
        members_SEBM, guess_B = said.distribution_SEBM, said.male_B
        male_B = sex.share_male if guess_B is None or sex.doubt_below is None else guess_B
        male_B = np.where(unknown_B, male_B, sex_B > 0)
        each = zip(members_SEBM, np.sqrt(said.variance_SB), assumed_SB > 0, strict=True)
        answers = [self._answer(*of_sex, chosen) for of_sex in each]
        spread_B = answers[0].spread_B
        if unknown_B.any():
            marginal_EBM = members_SEBM[0] * (1 - male_B)[:, None] + members_SEBM[1] * male_B[:, None]
            spread_B = combine_members(marginal_EBM, weights_E, self._combination)[2]
        predictions = []
        for row in range(len(sex_B)):
            by_sex = {
                assumed: SexAnswer(float(answer.months_B[row]), answer.intervals(row), float(probability))
                for assumed, answer, probability in zip(_SEXES, answers, (1 - male_B[row], male_B[row]), strict=False)
                if unknown_B[row]
            }
            first = answers[0]
            distribution_M, months, intervals = first.distribution_BM[row], first.months_B[row], first.intervals(row)
            if by_sex:
                girl, boy = answers
                distribution_M = (1 - male_B[row]) * distribution_M + male_B[row] * boy.distribution_BM[row]
                months = (1 - male_B[row]) * girl.months_B[row] + male_B[row] * boy.months_B[row]
                intervals = _hull(intervals, boy.intervals(row))
            guess = None if guess_B is None or sex.doubt_below is None else float(guess_B[row])
            warnings = _disagreement(float(spread_B[row]))
            warnings += _of_sex(by_sex) if by_sex else sex.doubts(bool(sex_B[row] > 0), guess)
            predictions.append(
                Prediction(
                    float(months),
                    float(spread_B[row]),
                    distribution_M.astype(np.float32),
                    self.bundle.version,
                    self.bundle.recipe.hash,
                    self.bundle.digest,
                    self.bundle.cohort,
                    (*noticed_B[row], *warnings),
                    intervals,
                    max(float(answer.sd_B[row]) for answer in answers),
                    by_sex,
                    guess,
                    profile,
                    norms=self.norms,
                )
            )
        return predictions

    @property
    def _combination(self) -> dict[str, Any]:
        combination: dict[str, Any] = self.bundle.manifest["combination"]
        return combination

    def _answer(
        self, members_EBM: np.ndarray, sd_B: np.ndarray, is_male_B: np.ndarray, profile: "_Profile"
    ) -> "_Answer":
        mixture_BM, months_B, spread_B = combine_members(members_EBM, profile.weights_E, self._combination)
        fitted = profile.calibration
        if fitted is None:
            return _Answer(mixture_BM, months_B, spread_B, sd_B, None)
        mixture_BM, months_B = fitted.corrected(mixture_BM, months_B, is_male_B)
        intervals_BL2 = fitted.intervals_of(months_B, sd_B, is_male_B)
        mixture_BM = width.agreeing(mixture_BM, months_B, intervals_BL2[:, LEVELS.index(width.LEVEL)])
        return _Answer(mixture_BM, months_B, spread_B, sd_B, intervals_BL2)


@dataclass(frozen=True)
class _Profile:
    """Which members answer, and what makes their answer a calibrated one; None where nothing was fitted to it."""

    weights_E: np.ndarray
    calibration: Calibration | None

    @property
    def sex(self) -> SexReading:
        return self.calibration.sex if self.calibration else SexReading(0.5)


@dataclass(frozen=True)
class _Answer:
    """Calibrated, of a batch whose sexes are all assumed."""

    distribution_BM: np.ndarray
    months_B: np.ndarray
    spread_B: np.ndarray
    sd_B: np.ndarray
    intervals_BL2: np.ndarray | None

    def intervals(self, row: int) -> dict[int, tuple[float, float]]:
        return {} if self.intervals_BL2 is None else levels_by_name(self.intervals_BL2[row])


def _hull(one: dict[int, tuple[float, float]], other: dict[int, tuple[float, float]]) -> dict[int, tuple[float, float]]:
    """Holds both: whichever sex it is, its own interval is inside."""
    return {level: (min(low, other[level][0]), max(high, other[level][1])) for level, (low, high) in one.items()}


def _disagreement(spread_months: float) -> tuple[Finding, ...]:
    if spread_months <= DISAGREEMENT_MONTHS:
        return ()
    sentence = f"The members disagree (spread {spread_months:.0f} months): read the number with caution."
    return (Finding("members_disagree", "warned", spread_months, DISAGREEMENT_MONTHS, sentence),)


def _of_sex(by_sex: dict[str, SexAnswer]) -> tuple[Finding, ...]:
    girl, boy = by_sex["female"].bone_age_months, by_sex["male"].bone_age_months
    sentence = (
        f"The sex was not stated: {in_words(girl)} if the child is a girl, {in_words(boy)} if a boy; the number is "
        "their mean, weighted by how probable each is, and the intervals hold both."
    )
    return (Finding("sex_unknown", "warned", abs(boy - girl), 0.0, sentence),)
