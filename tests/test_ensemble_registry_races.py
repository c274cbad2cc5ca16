"""Whoever removes, publishes and promotes at once: in every order of their steps, what is on record is there, whole.

Each step that another can see waits for its turn; `orders` tries all orders of the turns, one run after another.
"""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ensemble import registry as module
from ensemble.bundle import MARKER, BundleError
from ensemble.changes import Changes
from ensemble.registry import Registry, RegistryError
from preprocessing.storage import as_path, is_local, remote

VERSION = "ens-0123456789ab"


class Turns:
    """Lets one of several threads go on at a time, in an order that is asked for as far as it goes."""

    def __init__(self, order: list[int]) -> None:
        self.order = order
        self.taken: list[tuple[int, list[int]]] = []
        """Whose turn it was, and whose it might have been."""
        self._mine = threading.local()
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._now: int | None = None

    def wait(self) -> None:
        """Until it is this thread's turn; a thread that is none of the actors' goes on."""
        number = getattr(self._mine, "number", None)
        if number is None:
            return
        with self._changed:
            self._waiting.add(number)
            self._now = None
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._now == number, 20)

    def run(self, actors: list[Callable[[], object]]) -> list[object]:
        """What each actor returned, or the error that it raised."""
        results: list[object] = [None] * len(actors)
        alive = set(range(len(actors)))

        def act(number: int) -> None:
            self._mine.number = number
            self.wait()
            try:
                results[number] = actors[number]()
            except Exception as error:
                results[number] = error
            with self._changed:
                alive.discard(number)
                self._now = None
                self._changed.notify_all()

        threads = [threading.Thread(target=act, args=(number,)) for number in range(len(actors))]
        for thread in threads:
            thread.start()
        while True:
            with self._changed:
                assert self._changed.wait_for(lambda: self._now is None and self._waiting == alive, 20)
                if not alive:
                    break
                ready = sorted(alive)
                place = len(self.taken)
                chosen = self.order[place] if place < len(self.order) else ready[0]
                self.taken.append((chosen, ready))
                self._waiting.discard(chosen)
                self._now = chosen
                self._changed.notify_all()
        for thread in threads:
            thread.join(20)
        return results


def orders(run: Callable[[list[int]], Turns]) -> Iterator[list[int]]:
    """Every order of the turns: after a run, the last turn that can still be given to a later actor is."""
    order: list[int] = []
    while True:
        taken = run(order).taken
        yield [chosen for chosen, _ in taken]
        while taken and taken[-1][0] == taken[-1][1][-1]:
            taken.pop()
        if not taken:
            return
        *before, (chosen, ready) = taken
        order = [turn for turn, _ in before] + [ready[ready.index(chosen) + 1]]


class Stub:
    """What the registry needs of a bundle."""

    def __init__(self, version: str) -> None:
        self.version = version

    @classmethod
    def load(cls, folder: Path) -> "Stub":
        path = as_path(folder)
        if not (path / MARKER).exists() or not (path / "members").exists():
            raise BundleError(f"{folder} is torn.")
        return cls(VERSION)


def build(folder: Path) -> str:
    (folder / "members").write_bytes(b"weights")
    (folder / MARKER).write_text(json.dumps({"version": VERSION}))
    return VERSION


def publish_and_promote(registry: Registry) -> str:
    version = registry.publish(build).version
    registry.set_alias("champion", version)
    return version


CASTS: dict[str, list[Callable[[Registry], object]]] = {
    "publish": [lambda registry: registry.publish(build), lambda registry: registry.remove(VERSION)],
    "publish and promote": [publish_and_promote, lambda registry: registry.remove(VERSION)],
    "promote": [lambda registry: registry.set_alias("champion", VERSION), lambda registry: registry.remove(VERSION)],
    "all three": [  # a minute, so it is no part of `make check`
        lambda registry: registry.publish(build),
        lambda registry: registry.remove(VERSION),
        lambda registry: registry.set_alias("champion", VERSION),
    ],
    "remove twice": [lambda registry: registry.remove(VERSION), lambda registry: registry.remove(VERSION)],
}


@pytest.mark.parametrize("is_there", [True, False], ids=["published before", "new"])
@pytest.mark.parametrize(
    "cast",
    [pytest.param(cast, id=name, marks=[pytest.mark.slow] * (len(cast) > 2)) for name, cast in CASTS.items()],
)
@pytest.mark.parametrize("store", ["local", "memory"])
def test_in_every_order_what_is_on_record_is_there(store, cast, is_there, tmp_path, monkeypatch):
    current = [Turns([])]

    def turned(step: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            current[0].wait()
            return step(*arguments)

        return wrapped

    monkeypatch.setattr(module, "Bundle", Stub)
    for name in ("move_in", "take_away"):
        monkeypatch.setattr(module, name, turned(getattr(module, name)))
    for owner, name in ((Changes, "_create"), (Registry, "_is_published")):
        monkeypatch.setattr(owner, name, turned(getattr(owner, name)))
    tried: list[tuple[Registry, list[object]]] = []

    def run(order: list[int]) -> Turns:
        place = f"memory://races/{tmp_path.name}" if store == "memory" else str(tmp_path)
        registry = Registry(f"{place}/{len(tried)}")
        if is_there:
            registry.publish(build)
        turns = current[0] = Turns(order)
        results = turns.run([lambda act=act: act(registry) for act in cast])
        tried.append((registry, results))
        return turns

    seen = []
    for order in orders(run):
        registry, results = tried[-1]
        told = [error for error in results if isinstance(error, Exception) and not isinstance(error, RegistryError)]
        assert not told, (order, told)
        events = [line["event"] for line in registry.history() if line["event"] in ("publish", "remove")]
        is_whole = events[-1:] == ["publish"]
        assert [row["version"] for row in rows(registry)] == [VERSION] * is_whole, (order, results)
        for alias in registry.aliases():
            assert registry.resolve(alias).version == VERSION, (order, results)
        assert not left_over(registry), (order, left_over(registry))
        seen.append(tuple(order))
    assert len(set(seen)) == len(seen)


def rows(registry: Registry) -> list[dict[str, str]]:
    return [{"version": version} for version in registry._names()]


def left_over(registry: Registry) -> list[str]:
    """Hidden folders that nobody holds any more."""
    bundles = registry.path / "bundles"
    if not is_local(bundles):
        remote(bundles).fs.invalidate_cache()
    return [path.name for path in bundles.iterdir() if path.name.startswith(".")] if bundles.exists() else []
