"""The locked test: its first reading is recorded with the bundle, later ones are told of it."""

import pytest
import torch

from ensemble.__main__ import main
from ensemble.locked import first_reading
from ensemble.registry import Registry
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture
def folders(tmp_path):
    torch.set_num_threads(1)
    make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=("complete",))
    assert main(["build", str(tmp_path / "study"), str(tmp_path / "registry")]) == 0
    return tmp_path


def test_the_first_reading_is_recorded_and_later_ones_are_told_of_it(folders, capsys):
    words = ["evaluate", str(folders / "registry"), str(folders / "cohort"), "--json"]
    assert main(words) == 0
    assert "is open now" in capsys.readouterr().err
    registry = Registry(folders / "registry")
    version = registry.aliases()["champion"]
    first = first_reading(registry, version)
    assert first["n"] == 6
    assert main(words) == 0
    assert f"was opened before, on {first['time']}: {first['mae_months']:.2f} months" in capsys.readouterr().err
    assert [change["event"] for change in registry.history()].count("locked_test") == 1


def test_the_fast_profile_has_a_first_reading_of_its_own(tmp_path, capsys):
    study = make_study(tmp_path / "study", make_cohort(tmp_path / "cohort"), states=("complete",) * 2)
    assert main(["build", str(study), str(tmp_path / "registry"), "--method", "equal"]) == 0
    registry = Registry(tmp_path / "registry")
    version = registry.aliases()["champion"]
    words = ["evaluate", str(registry.path), str(tmp_path / "cohort"), "--profile", "fast"]
    assert main(words) == 0
    assert "in the 90 % interval" in capsys.readouterr().out
    assert first_reading(registry, version, "fast")["n"] == 6
    assert first_reading(registry, version) is None


def test_another_cohort_or_a_bundle_alone_opens_nothing(folders):
    other = make_cohort(folders / "other", seed=1)
    (bundle,) = (folders / "registry" / "bundles").iterdir()
    assert main(["evaluate", str(folders / "registry"), str(other), "--json"]) == 0
    assert main(["evaluate", str(bundle), str(folders / "cohort"), "--json"]) == 0
    assert first_reading(Registry(folders / "registry"), bundle.name) is None
