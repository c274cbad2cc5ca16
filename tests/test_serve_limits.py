"""How much a gateway takes on: places, and images a minute of each key."""

import contextlib

import pytest
from starlette.requests import Request

from serve import limits
from serve.keys import ANYBODY, Caller
from serve.limits import Limits
from serve.problems import Problem
from serve.uploads import announced_bytes

KEY = Caller("a", frozenset({"score"}), per_minute=60)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def take(bounds: Limits, caller: Caller, times: int) -> None:
    for _ in range(times):
        with bounds.place(caller):
            pass


def refusal(bounds: Limits, caller: Caller, *, num_bytes: int = 0, is_batch: bool = False) -> Problem:
    with pytest.raises(Problem) as caught, bounds.place(caller, num_bytes, is_batch=is_batch):
        pass
    return caught.value


def test_a_minute_s_images_may_come_at_once_and_the_next_one_waits() -> None:
    clock = Clock()
    bounds = Limits(clock)
    take(bounds, KEY, 60)
    problem = refusal(bounds, KEY)
    assert (problem.status, problem.code, problem.headers["retry-after"]) == (429, "rate_limited", "1")
    clock.now += 1
    take(bounds, KEY, 1)
    assert refusal(bounds, KEY).code == "rate_limited"


def test_an_idle_hour_saves_no_more_than_a_minute() -> None:
    clock = Clock()
    bounds = Limits(clock)
    take(bounds, KEY, 1)
    clock.now += 3600
    take(bounds, KEY, 60)
    assert refusal(bounds, KEY).code == "rate_limited"


def test_what_a_batch_takes_beyond_the_bucket_is_waited_for() -> None:
    clock = Clock()
    bounds = Limits(clock)
    with bounds.place(KEY, is_batch=True):
        bounds.owe(KEY, 69)
    assert refusal(bounds, KEY).headers["retry-after"] == "11"
    clock.now += 11
    take(bounds, KEY, 1)


def test_one_key_s_excess_is_nobody_else_s() -> None:
    bounds = Limits(Clock())
    take(bounds, KEY, 60)
    take(bounds, Caller("b", KEY.roles, per_minute=1), 1)
    take(bounds, Caller("c", KEY.roles), 1000)
    take(bounds, ANYBODY, 1000)


def test_a_place_is_free_again_whatever_became_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_IN_FLIGHT", 1)
    bounds = Limits()
    with contextlib.suppress(RuntimeError), bounds.place(ANYBODY):
        assert refusal(bounds, ANYBODY).status == 503
        raise RuntimeError
    take(bounds, ANYBODY, 3)


def test_few_batches_leave_room_for_single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BATCHES", 1)
    bounds = Limits()
    with bounds.place(ANYBODY, is_batch=True):
        assert refusal(bounds, ANYBODY, is_batch=True).code == "overloaded"
        take(bounds, ANYBODY, 1)


@pytest.mark.parametrize(("answered_per_s", "places"), [(15, 15 * limits.WAIT_S), (2, limits.FEW)])
def test_while_many_wait_as_many_are_let_in_as_are_answered_in_time(answered_per_s: int, places: float) -> None:
    clock = Clock()
    bounds = Limits(clock)
    waiting: list[contextlib.ExitStack] = []
    for _ in range(600):
        clock.now += 1 / answered_per_s
        if waiting:
            waiting.pop(0).close()
        with contextlib.suppress(Problem):
            while len(waiting) < 60:
                with contextlib.ExitStack() as stack:
                    stack.enter_context(bounds.place(ANYBODY))
                    waiting.append(stack.pop_all())
    assert len(waiting) == pytest.approx(places, abs=1)


def test_requests_hold_so_many_bytes_together() -> None:
    bounds = Limits()
    with bounds.place(ANYBODY, limits.MAX_HELD_BYTES - 10):
        with bounds.place(ANYBODY, 10):
            assert refusal(bounds, ANYBODY, num_bytes=1).code == "overloaded"
        with bounds.place(ANYBODY, 10):
            pass


@pytest.mark.parametrize(("announced", "held"), [("70", 70), ("99999", 100), (None, 100), ("many", 100)])
def test_a_body_counts_as_announced_and_as_the_largest_where_nothing_is(announced: str | None, held: int) -> None:
    headers = [] if announced is None else [(b"content-length", announced.encode())]
    assert announced_bytes(Request({"type": "http", "headers": headers}), 100) == held
