"""The network: a timm backbone over one grey channel, the sex beside its features, a distribution over months.

Shape letters: B batch, H height, W width, C channels, h and w sides of the last map, F features, M monthly bins.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from search.conditioning import CONDITIONINGS
from search.conditioning import sex_codes as sex_codes
from search.feature_maps import last_map, num_features, pooled
from search.heads import HEADS, LabelScale
from search.losses import cross_entropy
from search.memory import is_out_of_memory
from search.months import BIN_MONTHS as BIN_MONTHS
from search.months import NUM_BINS as NUM_BINS
from search.months import expected_months as expected_months
from search.pretrained import grey_scale, make_backbone, misfit, trunk_of
from search.space import TrialConfig


class BoneAgeNet(nn.Module):
    """Estimates the distribution of the bone age from one radiograph and the sex.

    Inputs are raw grey levels: the input scale is part of the model, so that no caller has to know it.
    """

    def __init__(
        self, config: TrialConfig, label_mean: float = 127.0, label_sd: float = 41.0, *, fetch: bool = True
    ) -> None:
        """Make the network with random or pretrained weights.

        Args:
            config: Architecture; the rest of it is not used here.
            label_mean: Mean bone age of the training cases, in months: where an untrained network starts.
            label_sd: Their standard deviation, in months.
            fetch: Whether to fetch pretrained weights; not needed where trained ones follow.

        Raises:
            ValueError: timm has no model of that name, or its pretrained weights cannot be had or do not fit.
        """
        super().__init__()
        self.backbone = make_backbone(config, fetch=fetch)
        self.grey_mean, self.grey_sd = grey_scale(self.backbone) if config.pretrained else (64.0, 64.0)
        self.name, self.image_size = config.backbone, config.image_size
        num_image_features = num_features(self.backbone)
        self.sex = CONDITIONINGS[config.sex](num_image_features, config.sex_features)
        scale = LabelScale(torch.tensor(float(label_mean)), torch.tensor(float(label_sd)))
        self.head = HEADS[config.head](self.sex.num_features, scale)
        self.months_M = nn.Buffer(
            torch.tensor(BIN_MONTHS)
        )  # a copy: a file that is loaded must not change the grid of all others
        self.label_mean, self.label_sd = nn.Buffer(scale.mean), nn.Buffer(scale.sd)
        self.sex_guess = nn.Linear(num_image_features, 1) if config.weight_sex else None

    @property
    def trunk(self) -> nn.Module:
        """The part that can be frozen: where pretrained weights are."""
        return trunk_of(self.backbone)

    def maps(self, image_BHW: Tensor) -> Tensor:
        """Last feature map, ``(B, C, h, w)``, of raw uint8 grey levels ``(B, H, W)``.

        Of a transformer these are its patches; the class token is left out.
        """
        image = image_BHW.unsqueeze(1).to(self.head.weight.dtype)
        if self.image_size and image.shape[2:] != (self.image_size, self.image_size):
            image = functional.interpolate(image, size=(self.image_size, self.image_size), mode="area")
        scaled = (image - self.grey_mean) / self.grey_sd
        return last_map(self.backbone, scaled.contiguous(memory_format=torch.channels_last))

    def _pooled(self, maps_BChw: Tensor) -> Tensor:
        """Image features, ``(B, F)`` float32; a transformer's are the mean of its patches."""
        return pooled(self.backbone, maps_BChw).float()

    def _outputs(self, features_BF: Tensor, sex_B: Tensor) -> Tensor:
        """Outputs of the head's layer, in full precision: the caller has autocast switched off."""
        if sex_B.dtype == torch.bool:
            raise ValueError("The sex must be float codes (+1 male, -1 female, 0 unknown), got bool. Use sex_codes.")
        return self.head(self.sex(features_BF, sex_B.to(features_BF.dtype)))

    def from_maps(self, maps_BChw: Tensor, sex_B: Tensor) -> Tensor:
        """The rest of `forward`, from what `maps` gives: ``(B, 240)`` logits."""
        features = self._pooled(maps_BChw)
        with torch.autocast(maps_BChw.device.type, enabled=False):
            return self.head.logits(self._outputs(features, sex_B), self.label_scale)

    def male_probability(self, maps_BChw: Tensor) -> Tensor | None:
        """Probability of male that the picture shows, ``(B,)``, from what `maps` gives; None without `weight_sex`."""
        if self.sex_guess is None:
            return None
        features = self._pooled(maps_BChw)
        with torch.autocast(maps_BChw.device.type, enabled=False):
            return self.sex_guess(features).squeeze(1).sigmoid()

    def forward(self, image_BHW: Tensor, sex_B: Tensor) -> Tensor:
        """Estimate the distribution of the bone age.

        Args:
            image_BHW: ``(B, H, W)`` uint8, as `preprocessing.standardize` returns it.
            sex_B: ``(B,)`` float32, `sex_codes`: +1 male, -1 female, 0 unknown.

        Returns:
            ``(B, 240)`` float32 logits over months; their softmax is the distribution.
        """
        return self.from_maps(self.maps(image_BHW), sex_B)

    @property
    def label_scale(self) -> LabelScale:
        """Mean and standard deviation of the labels it was trained on, in months."""
        return LabelScale(self.label_mean, self.label_sd)

    def training_loss(
        self,
        image_BHW: Tensor,
        sex_B: Tensor,
        months_B: Tensor,
        config: TrialConfig,
        teacher_BM: Tensor | None = None,
    ) -> Tensor:
        """Everything that this network learns by, weighted.

        That is what its head learns by (`search.heads`), what its backbone adds (`search.models.prs_r`), and guessing
        the sex from the image, where it is known.

        Args:
            image_BHW: ``(B, H, W)`` uint8.
            sex_B: ``(B,)`` float32 codes; while training, `sex_dropout` of them are hidden from the age's head.
            months_B: ``(B,)`` float32 reference bone age, in months.
            config: Of this network.
            teacher_BM: ``(B, 240)`` float32 distributions that it learns to give too, where it is distilled.

        Returns:
            Scalar, mean over the batch.
        """
        maps = self.maps(image_BHW)
        shown_B = sex_B
        if self.training and config.sex_dropout:
            shown_B = sex_B * (torch.rand_like(sex_B) >= config.sex_dropout)
        own: Tensor | float = 0.0
        if config.weight_parts and hasattr(self.backbone, "features_and_loss"):
            z_B = (months_B - self.label_mean) / self.label_sd
            features, own = self.backbone.features_and_loss(maps, shown_B, z_B, self.label_sd / 12)
        else:
            features = self._pooled(maps)
        with torch.autocast(image_BHW.device.type, enabled=False):
            out = self._outputs(features, shown_B)
            total = self.head.loss(out, months_B, self.label_scale, config) + config.weight_parts * own
            if teacher_BM is not None:
                total = total + cross_entropy(self.head.logits(out, self.label_scale), teacher_BM)
            if self.sex_guess is not None:
                guess_B, known_B = self.sex_guess(features).squeeze(1), sex_B != 0
                entropy_B = functional.binary_cross_entropy_with_logits(
                    guess_B, (sex_B > 0).to(guess_B.dtype), reduction="none"
                )
                total = total + config.weight_sex * (entropy_B * known_B).sum() / known_B.sum().clamp_min(1)
            return total


def probed(model: BoneAgeNet, side: int) -> BoneAgeNet:
    """The same model, after one blank picture has passed through it: timm has networks that take no grey one, or not
    of every size, and say so in the words of whatever layer came first.

    Args:
        model: On the CPU; torch's random numbers are left alone.
        side: Of the picture, in pixels.

    Raises:
        ValueError: It does not pass.
    """
    is_training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()(torch.zeros((1, side, side), dtype=torch.uint8), torch.zeros(1))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        side = model.image_size or side
        said = (str(error).strip() or "no reason given").splitlines()[0].rstrip(".")
        raise ValueError(
            f"backbone {model.name} takes no grey picture of {side} x {side} pixels ({type(error).__name__}: {said}). "
            "Where it is made for one size alone, set image_size to that; else choose another one."
        ) from error
    return model.train(is_training)


def load_model(weights: Path, config: TrialConfig, device: str | torch.device = "cpu") -> BoneAgeNet:
    """Load one trained fold, ready to predict.

    Args:
        weights: A safetensors file; nothing in it is executed.
        config: The trial that it belongs to.
        device: Where it shall run.

    Raises:
        ValueError: The file does not fit the configuration, or holds a number that is none.
    """
    model = BoneAgeNet(config, fetch=False)
    try:
        state = load_file(weights, device=str(device))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} cannot be read ({error}). Restore it, or train the trial again.") from None
    if said := misfit(state, model.state_dict()):
        raise ValueError(
            f"{weights} does not hold the weights of a {config.backbone} as its trial was configured: {said}. Restore "
            "it, or train the trial again."
        )
    if spoilt := [name for name, value in state.items() if not value.isfinite().all()]:
        raise ValueError(
            f"{weights} must hold finite numbers, and {len(spoilt)} of {len(state)} weights do not ({spoilt[0]} for "
            "one). Restore it, or train the trial again."
        )
    model.load_state_dict(state)
    return model.to(device).to(memory_format=torch.channels_last).eval()
