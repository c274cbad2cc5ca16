"""Where one network finds the bone age it answers with: six maps of a radiograph, and what its own parts point at.

    integrated_gradients
                months that the detail of a place adds, on the way from the picture without detail to the whole one: the
                gradient, averaged over that way, times the detail. As fine as the picture; its sum is the answer less
                that without detail, up to `STEPS`. (Sundararajan et al., ICML 2017; from a blurred picture, Sturmfels
                et al., Distill 2020.)
    relevance   months that a place of the last feature map adds: the answer with it less the answer without, exact for
                any head, one pass of the head a place. Class-selective relevance mapping keeps the square of this; the
                sign tells older from younger. (Kim, Rajaraman and Antani, Diagnostics 9, 2019.)
    occlusion   months that the detail of a place of the picture adds: the answer with the place, less the answer with
                it blurred. Finer than the feature map, and blind to what the network is made of.
    cam         gradient times activation at the last feature map: for a linear head after average pooling the class
                activation map of the expected age. (Zhou et al., CVPR 2016; Draelos and Carin, arXiv 2011.08891.)
    grad_cam    activations weighted by their mean gradient. (Selvaraju et al., ICCV 2017.)
    saliency    absolute gradient by grey level, averaged over noisy copies. (Simonyan et al., arXiv 1312.6034; Smilkov
                et al., arXiv 1706.03825.)

The first four are in months for each 64th of the picture, whatever the resolution of the feature map. Gradients,
their integral and occlusion are captum's.

Shape letters: B batch, S side of the picture, C channels, h and w sides of the last map, K parts.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from captum.attr import (
    IntegratedGradients,
    LayerGradCam,
    LayerGradientXActivation,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn

from search.model import BoneAgeNet, expected_months

PATCHES = 64
"""A picture's area in patches of `occlusion`, and the unit of the maps in months."""
STEPS = 8
"""Of `integrated_gradients`: their sum then misses by 2.7 of 50 months, with 4 steps by 14 and with 16 by 0.8, at twice
the time (means over 8 networks at 128 pixels and six radiographs)."""
SMOOTH = 0.02
"""Standard deviation, in sides, by which `integrated_gradients` are smoothed, about the width of a growth plate: the
gradient of a single pixel means little."""
NOISE_GREY = 12.0
"""Standard deviation of the noise that `saliency` averages over, in grey levels."""
NUM_NOISY = 8
_STRIDES = 2
"""Steps of the occluding patch along its own side."""


class Months(nn.Module):
    """The network as captum wants it: float pictures and sexes in, expected months out, its last map to be tapped."""

    def __init__(self, net: BoneAgeNet) -> None:
        super().__init__()
        self.net, self.tap = net, nn.Identity()

    def forward(self, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
        """``(B,)`` months; the sexes are repeated where captum repeats the pictures."""
        maps = self.tap(self.net.maps(image_BSS))
        return expected_months(self.net.from_maps(maps, sex_B.repeat(len(image_BSS) // len(sex_B))))


def integrated_gradients(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Months that the detail of each place adds, integrated over the way to it; see above."""
    found_BSS = IntegratedGradients(Months(net)).attribute(
        image_BSS.float(),
        baselines=blurred(image_BSS),
        additional_forward_args=(sex_B,),
        n_steps=STEPS,
        method="riemann_middle",
        internal_batch_size=2 * len(image_BSS),  # all steps at once are no faster, and take four times the memory
    )
    return smoothed(found_BSS.detach(), SMOOTH) * (image_BSS[0].numel() / PATCHES)


@torch.inference_mode()
def relevance(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Months that each place of the last map adds; see above. Arguments as in `METHODS`."""
    maps_BChw = net.maps(image_BSS)
    whole_B = expected_months(net.from_maps(maps_BChw, sex_B))
    _, _, height, width = maps_BChw.shape
    added = []
    for maps_Chw, sex, whole in zip(maps_BChw, sex_B, whole_B, strict=True):
        without = maps_Chw.repeat(height * width, 1, 1, 1)
        place = torch.arange(height * width, device=maps_Chw.device)
        without[place, :, place // width, place % width] = 0
        months = expected_months(net.from_maps(without, sex.expand(height * width)))
        added.append((whole - months).view(height, width))
    return torch.stack(added) * (height * width / PATCHES)


def occlusion(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Months that the detail of each place of the picture adds; see above."""
    side = image_BSS.shape[2]
    patch = max(2, round(side / PATCHES**0.5))
    step = max(1, patch // _STRIDES)
    model = Months(net)
    with torch.no_grad():
        found = Occlusion(model).attribute(
            image_BSS.float(),
            sliding_window_shapes=(patch, patch),
            strides=(step, step),
            baselines=blurred(image_BSS),
            additional_forward_args=(sex_B,),
            perturbations_per_eval=8,
        )
    return found.detach()


def cam(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Gradient times activation at the last map; see above."""
    model = Months(net)
    found = LayerGradientXActivation(model, model.tap).attribute(image_BSS.float(), additional_forward_args=(sex_B,))
    return found.detach().sum(dim=1) * (found.shape[2] * found.shape[3] / PATCHES)


def grad_cam(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Activations weighted by their mean gradient, with their sign; see above."""
    model = Months(net)
    found = LayerGradCam(model, model.tap).attribute(image_BSS.float(), additional_forward_args=(sex_B,))
    return found.detach()[:, 0]


def saliency(net: BoneAgeNet, image_BSS: Tensor, sex_B: Tensor) -> Tensor:
    """Absolute gradient by grey level, in months a level, over noisy copies; see above."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the same map twice
        found = NoiseTunnel(Saliency(Months(net))).attribute(
            image_BSS.float(),
            nt_type="smoothgrad",
            nt_samples=NUM_NOISY,
            stdevs=NOISE_GREY,
            additional_forward_args=(sex_B,),
        )
    return found.detach()


Method = Callable[[BoneAgeNet, Tensor, Tensor], Tensor]
"""``(net, (B, S, S) uint8, (B,) float32 codes of the sex) -> (B, h, w) or (B, S, S) float32``."""

METHODS: dict[str, Method] = {
    "integrated_gradients": integrated_gradients,
    "relevance": relevance,
    "occlusion": occlusion,
    "cam": cam,
    "grad_cam": grad_cam,
    "saliency": saliency,
}
IN_MONTHS = ("integrated_gradients", "relevance", "occlusion", "cam")
"""Maps whose unit is months for each 64th of the picture."""


def blurred(image_BSS: Tensor) -> Tensor:
    """The pictures without detail, ``(B, S, S)`` float32: the soft tissue's grey stays, bones and their gaps go."""
    return smoothed(image_BSS.float(), 1 / 16)


def smoothed(image_BSS: Tensor, sides: float) -> Tensor:
    """``(B, S, S)`` float32 pictures or maps through a Gaussian, its standard deviation in sides of the picture."""
    sigma = sides * image_BSS.shape[2]
    found = [cv2.GaussianBlur(p, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for p in image_BSS.cpu().numpy()]
    return torch.from_numpy(np.stack(found)).to(image_BSS.device)


@torch.inference_mode()
def attention(net: BoneAgeNet, image_BSS: Tensor) -> Tensor | None:
    """Where a network with attention of its own looks, ``(B, h, w)`` summing to 1; None without."""
    look = getattr(net.backbone, "attention", None)
    return look(net.maps(image_BSS)).mean(dim=1) if callable(look) else None


@torch.inference_mode()
def parts(net: BoneAgeNet, image_BSS: Tensor) -> tuple[Tensor, Tensor] | None:
    """Parts that a network selects: ``(B, K, 4)`` x0, y0, x1, y1 as shares of the sides, and ``(B, K)`` weights."""
    find = getattr(net.backbone, "find", None)
    if not callable(find):
        return None
    found = find(net.maps(image_BSS))
    return found.boxes_BK4, found.scores_BK.softmax(dim=1)


def resized(map_hw: np.ndarray, side: int) -> np.ndarray:
    """``(S, S)`` float32: a map at the picture's resolution, between the centres of its cells linearly."""
    return cv2.resize(map_hw.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
