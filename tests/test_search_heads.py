"""Heads: their distributions, what they learn by, and what they refuse."""

import math

import pytest
import torch

from search.heads import HEADS, LabelScale, Laplace, Normal, Ordinal, Quantiles
from search.losses import distribution_terms
from search.months import BIN_MONTHS, expected_months
from search.space import HEAD_TERMS, TERMS, TrialConfig

pytestmark = pytest.mark.slow  # a second here and there: `make check` does without them

SCALE = LabelScale(torch.tensor(120.0), torch.tensor(40.0))
FEATURES = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
MONTHS = torch.tensor([6.0, 60.0, 100.0, 140.0, 180.0, 220.0])


def only(head: str, term: str) -> TrialConfig:
    return TrialConfig(backbone="x", head=head, **{name: float(name == term) for name in TERMS})  # type: ignore[arg-type]


def fit(head: str, term: str, steps: int = 300) -> torch.Tensor:
    """Months that a head answers after learning six cases by one term."""
    torch.manual_seed(0)
    layer = HEADS[head](8, SCALE)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        layer.loss(layer(FEATURES), MONTHS, SCALE, only(head, term)).backward()
        optimizer.step()
    return expected_months(layer.logits(layer(FEATURES), SCALE)).detach()


@pytest.mark.parametrize(("head", "term"), [(head, term) for head, terms in HEAD_TERMS.items() for term in terms])
def test_every_term_teaches_its_head_the_age(head: str, term: str) -> None:
    slow = head == "bins" and term == "weight_spread"  # it drives out months from the ends inwards
    assert (fit(head, term) - MONTHS).abs().mean() < (20 if slow else 8)


@pytest.mark.parametrize(("head", "term"), [(h, t) for h, terms in HEAD_TERMS.items() for t in TERMS if t not in terms])
def test_a_weight_that_a_head_cannot_use_is_refused(head: str, term: str) -> None:
    with pytest.raises(ValueError, match=f"{term} must be 0"):
        only(head, term)


@pytest.mark.parametrize("head", HEADS)
def test_an_untrained_head_answers_with_the_training_mean(head: str) -> None:
    layer = HEADS[head](8, SCALE)
    assert expected_months(layer.logits(layer(FEATURES), SCALE)).mean().item() == pytest.approx(120, abs=8)


@pytest.mark.parametrize("out", [-3.2, -3.0, -2.8, -1.0, 0.123, 2.5, 2.9, 3.1])
def test_the_mean_of_the_laplace_distribution_is_its_location_even_near_the_ends(out: float) -> None:
    layer = Laplace(8, SCALE)
    location = min(max(120 + 40 * out, 0), 239)
    assert expected_months(layer.logits(torch.tensor([[out]]), SCALE)).item() == pytest.approx(location, abs=0.6)


def test_the_laplace_width_learns_the_mean_error_and_leaves_the_location_alone() -> None:
    layer, config = Laplace(8, SCALE), only("laplace", "weight_z")
    out = torch.zeros(6, 1, requires_grad=True)
    layer.loss(out, torch.full((6,), 120.0), SCALE, config).backward()
    assert out.grad is not None
    assert not out.grad.any()
    optimizer = torch.optim.Adam([layer.log_width], lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        layer.loss(torch.zeros(2, 1), torch.tensor([112.0, 132.0]), SCALE, config).backward()
        optimizer.step()
    assert (layer._width() * SCALE.sd).item() == pytest.approx(10, abs=0.2)


def test_ordinal_thresholds_give_the_probabilities_of_being_older() -> None:
    layer = Ordinal(8, SCALE)
    torch.nn.init.normal_(layer.gaps)
    out = torch.tensor([[0.7]])
    margins_BT, _ = layer._margins(out, SCALE)
    p_BM = layer.logits(out, SCALE).exp()
    assert p_BM.sum().item() == pytest.approx(1, abs=1e-5)
    older_BT = p_BM.flip(1).cumsum(1).flip(1)[:, 1:]
    assert torch.allclose(older_BT, margins_BT.sigmoid(), atol=1e-5)


def test_quantiles_ascend_and_their_distribution_has_them() -> None:
    layer = Quantiles(8, SCALE)
    out = torch.randn(4, len(layer.LEVELS), generator=torch.Generator().manual_seed(0)) * 0.5
    q_BQ = layer.quantiles(out, SCALE)
    assert (q_BQ.diff(dim=1) > 0).all()
    p_BM = layer.logits(out, SCALE).softmax(dim=1)
    for row, p_M in zip(q_BQ, p_BM, strict=True):
        edges = torch.from_numpy(BIN_MONTHS) + 0.5
        below = p_M.cumsum(0)
        for months, level in zip(row.tolist(), layer.LEVELS, strict=True):
            i = math.floor(months + 0.5)
            share = below[i - 1] + (below[i] - below[i - 1]) * (months - edges[i - 1])
            assert share.item() == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("out", [-9.0, 9.0])
def test_quantiles_beyond_the_grid_count_to_its_end(out: float) -> None:
    logits = Quantiles(8, SCALE).logits(torch.full((1, 11), out), SCALE)
    assert torch.isfinite(logits).all()
    assert logits.softmax(dim=1)[0, 0 if out < 0 else -1].item() > 0.5


def test_chen_s_loss_is_cross_entropy_plus_expected_squared_distance() -> None:
    config = TrialConfig(backbone="x", weight_l1=0, weight_ldl=0, weight_ce=1, weight_spread=1)
    logits = torch.randn(6, 240, generator=torch.Generator().manual_seed(0))
    p, j = logits.softmax(dim=1), torch.arange(240.0)
    expected = [-p[i, int(y)].log() + (p[i] * ((j - y) / 12) ** 2).sum() for i, y in enumerate(MONTHS)]
    assert distribution_terms(logits, MONTHS, config).item() == pytest.approx(float(sum(expected)) / 6, rel=1e-5)


def test_normal_widths_stay_above_four_months() -> None:
    logits = Normal(8, SCALE).logits(torch.tensor([[0.0, -50.0]]), SCALE)
    p = logits.softmax(dim=1)[0]
    assert (p @ (torch.arange(240.0) - 120) ** 2).sqrt().item() == pytest.approx(4, abs=0.01)
