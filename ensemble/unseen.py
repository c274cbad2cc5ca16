"""Which labelled cases a bundle was trained on: there its errors are far too small, its intervals hold too often.

The bundle keeps its training cases by id, sex and bone age, in its out-of-fold table, and no pictures. So a case that
was renamed is not found; and where two hospitals both count their children from 1, a case now and then agrees with a
stranger in all three by accident.

Shape letters: C cases.
"""

import numpy as np
import pandas as pd

from ensemble.bundle import Bundle
from ensemble.documents import OOF_FILE
from preprocessing.source import Source


def seen(bundle: Bundle, source: Source) -> np.ndarray:
    """Find the cases that a bundle was trained on.

    Args:
        bundle: Whose training is asked about; the locked test of its cohort was no part of it.
        source: Labelled cases.

    Returns:
        ``(C,)`` bool in the order of ``source.cases``: id, sex and bone age are those of a training case.

    Raises:
        BundleError: The bundle holds no out-of-fold table.
    """
    known = pd.read_parquet(bundle.file(OOF_FILE), columns=["case_id", "is_male", "bone_age_months"])
    return np.asarray(_names(source.cases).isin(_names(known)), bool)


def _names(cases: pd.DataFrame) -> pd.Index:
    """One key a case; hundredths of a month, since a unit that was turned into months and back rounds."""
    return pd.MultiIndex.from_arrays(
        [cases["case_id"].astype(str), cases["is_male"].astype(bool), cases["bone_age_months"].astype(float).round(2)]
    )
