"""One answer from several members: their weighted mixture, robust where one of them is grossly wrong.

A weighted mean follows a single member that fails, a median does not, and loses a tenth of a month or two elsewhere.
So the members' weights stand as they are while the members agree, and are cut, case by case, where they spread widely.

Shape letters: E members, B cases, M monthly bins.
"""

from typing import Any

import numpy as np

from search.months import BIN_MONTHS

RULES = ("mean", "trimmed_mean", "weighted_median")
DISAGREEMENT_MONTHS = 12.0
"""Spread of the members above which a rule other than the mean is applied: a year is a clinical class, and such
members have probably not seen a picture of this kind."""
_CORE = 1e-6
"""Half width of what a weighted median keeps around the middle of the weight."""


def parse(combination: Any) -> dict[str, Any]:
    """Check what a manifest says of the combination.

    Args:
        combination: ``{"rule": one of RULES, "trim": float}``; `trim` is the share of the weight that a trimmed mean
            cuts from either end, within 0..0.5, and 0 for the others.

    Raises:
        ValueError: It says anything else.
    """
    if not isinstance(combination, dict) or set(combination) != {"rule", "trim"}:
        raise ValueError(f"A combination must have a rule and a trim, got {combination!r}. Use the release it is of.")
    rule, trim = combination["rule"], combination["trim"]
    if rule not in RULES:
        raise ValueError(f"A combination's rule must be {', '.join(RULES)}, got {rule!r}. Use the release it is of.")
    is_number = isinstance(trim, int | float) and not isinstance(trim, bool)
    if not is_number or not (0 < trim < 0.5 if rule == "trimmed_mean" else trim == 0):
        raise ValueError(f"A trimmed mean cuts a share within 0..0.5 from either end, others 0, got {rule}, {trim!r}.")
    return {"rule": rule, "trim": float(trim)}


def combine_members(
    members_EBM: np.ndarray, weights_E: np.ndarray, combination: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mix the members' distributions.

    Args:
        members_EBM: ``(E, B, 240)`` float64 probabilities by month.
        weights_E: ``(E,)`` summing to 1; a member without weight has no say.
        combination: As `parse` gives it.

    Returns:
        ``(B, 240)`` the mixture, ``(B,)`` its mean in months, and ``(B,)`` the spread: the weighted standard deviation
        of the members' estimates under the weights as given, so that it tells of a failing member also where this one
        was cut.
    """
    months_EB = members_EBM @ BIN_MONTHS.astype(np.float64)
    spread_B = spread(months_EB, weights_E)
    weights_EB = case_weights(months_EB, weights_E, combination)
    mixture_BM = np.einsum("eb,ebm->bm", weights_EB, members_EBM)
    return mixture_BM, (weights_EB * months_EB).sum(axis=0), spread_B


def spread(months_EB: np.ndarray, weights_E: np.ndarray) -> np.ndarray:
    """``(B,)`` weighted standard deviation between the members' estimates, in months."""
    return np.sqrt(weights_E @ np.square(months_EB - weights_E @ months_EB))


def case_weights(months_EB: np.ndarray, weights_E: np.ndarray, combination: dict[str, Any]) -> np.ndarray:
    """Weights of the members, case by case.

    The members are laid side by side in the order of their estimates, each as wide as its weight. A trimmed mean keeps
    the stretch between `trim` and 1 - `trim`, a weighted median the middle; each member keeps what of it lies there.

    Args:
        months_EB: ``(E, B)`` estimates in months; or signed errors, which lie in the same order.
        weights_E: ``(E,)`` summing to 1.
        combination: As `parse` gives it.

    Returns:
        ``(E, B)`` summing to 1 over members; the weights as given where the members spread by no more than
        `DISAGREEMENT_MONTHS`.
    """
    weights_EB = np.repeat(weights_E[:, None], months_EB.shape[1], axis=1)
    if combination["rule"] == "mean":
        return weights_EB
    wide = np.flatnonzero(spread(months_EB, weights_E) > DISAGREEMENT_MONTHS)
    if not len(wide):
        return weights_EB
    low = combination["trim"] if combination["rule"] == "trimmed_mean" else 0.5 - _CORE
    order_EW = months_EB[:, wide].argsort(axis=0, kind="stable")
    end_EW = weights_E[order_EW].cumsum(axis=0)
    begin_EW = end_EW - weights_E[order_EW]
    kept_EW = np.clip(np.minimum(end_EW, 1 - low) - np.maximum(begin_EW, low), 0, None)
    cut_EW = np.zeros_like(kept_EW)
    np.put_along_axis(cut_EW, order_EW, kept_EW / kept_EW.sum(axis=0), axis=0)
    weights_EB[:, wide] = cut_EW
    return weights_EB
