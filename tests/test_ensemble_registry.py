"""The registry: bundles appear whole or not at all, names point to what is there, nothing is torn."""

import itertools
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble.bundle import BundleError
from ensemble.combine import Combination, combine
from ensemble.registry import AliasMoved, Registry, RegistryError, registry_or_bundle
from tests.ensemble_fixtures import make_cohort, make_study


@pytest.fixture(scope="module")
def combinations(tmp_path_factory) -> list[Combination]:
    """Two different ensembles."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("registry")
    study = make_study(root / "study", make_cohort(root / "cohort"))
    return [combine(study), combine(study, max_members=1)]


def test_a_published_bundle_is_found_by_version_and_by_alias(combinations, tmp_path):
    registry = Registry(tmp_path)
    version = registry.publish(combinations[0].write).version
    registry.set_alias("champion", version)
    assert registry.resolve(version).version == registry.resolve("champion").version == version


def test_publishing_the_same_content_again_changes_nothing(combinations, tmp_path):
    registry = Registry(tmp_path)
    first = registry.publish(combinations[0].write)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = registry.publish(combinations[0].write)
    assert (first.is_new, again.is_new) == (True, False)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def build(folder: Path) -> str:
        (folder / "members").mkdir()
        raise BundleError("no")

    with pytest.raises(BundleError):
        Registry(tmp_path).publish(build)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_what_cannot_be_loaded_is_not_published(combinations, tmp_path):
    def build(folder: Path) -> str:
        version = combinations[0].write(folder)
        next(folder.rglob("*.safetensors")).unlink()
        return version

    with pytest.raises(BundleError):
        Registry(tmp_path).publish(build)
    assert Registry(tmp_path).versions() == []


def test_a_damaged_bundle_is_not_reported_as_published_already(combinations, tmp_path):
    published = Registry(tmp_path).publish(combinations[0].write)
    next(published.folder.rglob("*.safetensors")).write_bytes(b"")
    with pytest.raises(BundleError, match="was changed"):
        Registry(tmp_path).publish(combinations[0].write)


def test_a_bundle_in_the_making_is_not_listed(combinations, tmp_path):
    registry = Registry(tmp_path)

    def build(folder: Path) -> str:
        version = combinations[0].write(folder)
        assert registry.versions() == []
        return version

    registry.publish(build)
    assert len(registry.versions()) == 1


def test_moving_an_alias_names_what_it_pointed_to(combinations, tmp_path):
    registry = Registry(tmp_path)
    versions = [registry.publish(combination.write).version for combination in combinations]
    assert [registry.set_alias("champion", version) for version in versions] == [None, versions[0]]
    assert registry.aliases() == {"champion": versions[1]}
    assert [line["event"] for line in registry.history()] == ["publish", "publish", "alias", "alias"]


def test_versions_carry_aliases_and_evidence(combinations, tmp_path):
    registry = Registry(tmp_path)
    version = registry.publish(combinations[0].write).version
    registry.set_alias("champion", version)
    (row,) = registry.versions()
    assert row["version"] == version
    assert row["aliases"] == ["champion"]
    assert row["evidence"]["num_cases"] == 24


@pytest.mark.parametrize("alias", ["", "Two words", "../up", "ens-0123456789ab", "a" * 33, "-x"])
def test_an_alias_that_is_no_plain_word_is_refused(tmp_path, alias):
    with pytest.raises(RegistryError, match="An alias is a word"):
        Registry(tmp_path).set_alias(alias, "ens-0123456789ab")


def test_an_alias_cannot_point_nowhere(tmp_path):
    with pytest.raises(RegistryError, match="cannot point to it"):
        Registry(tmp_path).set_alias("champion", "ens-0123456789ab")


def test_an_empty_registry_says_what_to_run(tmp_path):
    with pytest.raises(RegistryError, match="python -m ensemble build"):
        Registry(tmp_path).resolve()


def test_an_unknown_name_is_answered_with_the_known_ones(combinations, tmp_path):
    registry = Registry(tmp_path)
    registry.set_alias("champion", registry.publish(combinations[0].write).version)
    with pytest.raises(RegistryError, match=r"no bundle 'challenger'. It has champion, ens-"):
        registry.resolve("challenger")


def test_a_renamed_bundle_is_refused(combinations, tmp_path):
    published = Registry(tmp_path).publish(combinations[0].write)
    published.folder.rename(published.folder.with_name("ens-0123456789ab"))
    with pytest.raises(BundleError, match="holds ens-"):
        Registry(tmp_path).resolve("ens-0123456789ab")


def test_a_bundle_and_its_registry_lead_to_the_same_bundle(combinations, tmp_path):
    registry = Registry(tmp_path)
    published = registry.publish(combinations[0].write)
    registry.set_alias("champion", published.version)
    assert registry_or_bundle(tmp_path).version == registry_or_bundle(published.folder).version


def test_a_registry_may_lie_at_a_uri(combinations):
    registry = Registry("memory://carpal-registry-test")
    published = registry.publish(combinations[0].write)
    registry.set_alias("champion", published.version)
    assert registry.publish(combinations[0].write).is_new is False
    assert registry.resolve().version == published.version


def publish_many(path: Path, folders: list[Path]) -> None:
    """What one of several publishers does: the same bundles, in its own order, moving the same alias."""
    import shutil

    registry = Registry(path)
    for folder in folders * 4:

        def build(staging: Path, folder: Path = folder) -> str:
            shutil.copytree(folder, staging, dirs_exist_ok=True)
            return str(json.loads((folder / "manifest.json").read_text())["version"])

        registry.set_alias("champion", registry.publish(build).version)


def test_publishers_at_the_same_time_tear_nothing(combinations, tmp_path):
    sources = []
    for index, combination in enumerate(combinations):
        combination.write(tmp_path / f"source{index}")
        sources.append(tmp_path / f"source{index}")
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=publish_many, args=(tmp_path / "registry", order))
        for order in (sources, sources[::-1], sources)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    registry = Registry(tmp_path / "registry")
    assert registry.resolve().version == registry.aliases()["champion"]
    history = registry.history()
    assert sorted(line["event"] for line in history)[-2:] == ["publish", "publish"]
    moves = [line for line in history if line["event"] == "alias"]
    for earlier, later in itertools.pairwise(moves):
        assert later["previous"] == earlier["version"]
    assert not list((tmp_path / "registry" / "bundles").glob(".staging*"))


def test_an_alias_moves_only_from_where_it_was_thought_to_be(combinations, tmp_path):
    registry = Registry(tmp_path)
    first, second = [registry.publish(combination.write).version for combination in combinations]
    assert registry.set_alias("champion", first, expected=None) is None
    with pytest.raises(AliasMoved, match=f"points to {first}: somebody was faster"):
        registry.set_alias("champion", second, expected=None)
    assert registry.set_alias("champion", second, expected=first) == first


def move_if_unset(path: Path, version: str, won) -> None:
    try:
        Registry(path).set_alias("champion", version, expected=None)
        won.put(version)
    except AliasMoved:
        won.put(None)


def test_of_several_who_move_an_alias_at_once_one_wins(combinations, tmp_path):
    registry = Registry(tmp_path)
    versions = [registry.publish(combination.write).version for combination in combinations]
    context = multiprocessing.get_context("fork")
    won = context.Queue()
    workers = [context.Process(target=move_if_unset, args=(tmp_path, versions[i % 2], won)) for i in range(6)]
    for worker in workers:
        worker.start()
    results = [won.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    winners = [version for version in results if version]
    assert len(winners) == 1
    assert registry.aliases() == {"champion": winners[0]}
    assert len([change for change in registry.history() if change["event"] == "alias"]) == 1


def test_rolling_back_goes_back_one_step_each_time(combinations, tmp_path):
    registry = Registry(tmp_path)
    first, second = [registry.publish(combination.write).version for combination in combinations]
    for version in (first, second, first):
        registry.set_alias("champion", version)
    assert registry.rollback("champion") == (second, first)
    assert registry.rollback("champion") == (first, second)
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("champion")


def named_alone(folder: Path, letters: str) -> Registry:
    """A registry whose bundles have a name and nothing in them."""
    for letter in letters:
        (folder / "bundles" / version_of(letter)).mkdir(parents=True)
        (folder / "bundles" / version_of(letter) / "manifest.json").write_text("{}")
    return Registry(folder)


def version_of(letter: str) -> str:
    return f"ens-{letter * 12}"


@pytest.mark.parametrize(("moves", "back"), [("dabac", "abad"), ("abac", "aba"), ("abab", "aba"), ("aab", "a")])
def test_a_version_that_was_pointed_to_twice_is_gone_back_to_twice(tmp_path, moves, back):
    registry = named_alone(tmp_path, "abcd")
    for letter in moves:
        registry.set_alias("champion", version_of(letter))
    assert [registry.rollback("champion")[0] for _ in back] == [version_of(letter) for letter in back]
    with pytest.raises(RegistryError, match="nothing to go back to"):
        registry.rollback("champion")


@given(st.lists(st.sampled_from("abcd<<"), max_size=12))
def test_moves_and_rollbacks_in_any_order_are_a_stack(acts):
    with tempfile.TemporaryDirectory() as name:
        registry, stack = named_alone(Path(name), "abcd"), []
        for act in acts:
            if act != "<":
                registry.set_alias("champion", version_of(act))
                if stack[-1:] != [act]:
                    stack.append(act)
            elif len(stack) > 1:
                left = stack.pop()
                assert registry.rollback("champion") == (version_of(stack[-1]), version_of(left))
            else:
                with pytest.raises(RegistryError, match="nothing to go back to"):
                    registry.rollback("champion")
            assert registry.aliases() == ({"champion": version_of(stack[-1])} if stack else {})


def test_a_step_to_what_was_removed_is_passed_over(tmp_path):
    registry = named_alone(tmp_path, "abcd")
    for letter in "dabac":
        registry.set_alias("champion", version_of(letter))
    registry.remove(version_of("b"))
    assert [registry.rollback("champion")[0] for _ in "ad"] == [version_of("a"), version_of("d")]


def test_what_an_alias_points_to_is_not_removed(combinations, tmp_path):
    registry = Registry(tmp_path)
    first, second = [registry.publish(combination.write).version for combination in combinations]
    registry.set_alias("champion", first)
    with pytest.raises(RegistryError, match="is champion: move that alias first"):
        registry.remove(first)
    registry.remove(second)
    assert [row["version"] for row in registry.versions()] == [first]
    with pytest.raises(RegistryError, match="no bundle"):
        registry.resolve(second)
    assert registry.publish(combinations[1].write).is_new
    assert registry.resolve(second).version == second


def test_a_removal_that_was_killed_half_way_is_finished_by_the_next(combinations, tmp_path, monkeypatch):
    registry = Registry(tmp_path)
    version = registry.publish(combinations[0].write).version
    with monkeypatch.context() as patch:
        patch.setattr("ensemble.registry.take_away", lambda folder: None)
        registry.remove(version)
    assert registry.versions() == []
    registry.remove(version)
    assert not (tmp_path / "bundles" / version).exists()


def publish_and_stall(path: Path, source: Path, ready) -> None:
    def build(staging: Path) -> str:
        import shutil

        shutil.copytree(source / "members", staging / "members")
        ready.set()
        time.sleep(60)
        return ""

    Registry(path).publish(build)


def test_a_publisher_that_is_killed_leaves_nothing_to_see_and_is_swept_away(combinations, tmp_path, monkeypatch):
    combinations[0].write(tmp_path / "source")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=publish_and_stall, args=(tmp_path / "registry", tmp_path / "source", ready))
    worker.start()
    assert ready.wait(30)
    registry = Registry(tmp_path / "registry")
    monkeypatch.setattr("ensemble.staging._SWEEP_AFTER_S", 0.0)
    published = registry.publish(combinations[1].write)
    assert len(list((tmp_path / "registry" / "bundles").glob(".staging-*"))) == 1  # it is alive: hands off
    worker.kill()
    worker.join()
    assert [row["version"] for row in registry.versions()] == [published.version]
    registry.publish(combinations[0].write)
    assert not list((tmp_path / "registry" / "bundles").glob(".staging-*"))


def test_two_at_a_uri_cannot_both_move_an_alias(combinations):
    registry = Registry("memory://carpal-registry-swap")
    first, second = [registry.publish(combination.write).version for combination in combinations]
    registry.set_alias("champion", first, expected=None)
    with pytest.raises(AliasMoved):
        registry.set_alias("champion", second, expected=None)
    assert registry._changes._create(1, {"event": "forged"}) is False
    registry.remove(second)
    assert [row["version"] for row in registry.versions()] == [first]
