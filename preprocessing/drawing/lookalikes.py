"""Wrong inputs that share something with a hand: its bones, fingers without a palm, five prongs, paws.

Every function draws (H, W) uint8 through `film.Film`; lengths are in hundredths of the picture's height.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from preprocessing.drawing.bones import draw_bones
from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.film import Circle, Film, along, shaft
from preprocessing.drawing.ossification import CENTRES, maturity, shaft_growth
from preprocessing.drawing.placement import Placement
from preprocessing.drawing.skeleton import draw_hand


def jumbled_bones(film: Film) -> ByteArray:
    """The bones of a hand in random poses and places on soft blobs: every part right, the whole wrong."""
    rng = film.rng
    height, width = film.shape
    hand, months = draw_hand(rng), rng.uniform(24, 220)
    placement = Placement(rotation=0.0, scale=height / rng.uniform(170, 300), wrist=(width / 2, height / 2))
    reach_x, reach_y = 0.42 * width / placement.scale, 0.42 * height / placement.scale
    kept = [bone for bone in hand.tubular if bone.name not in ("radius", "ulna")][int(rng.integers(0, 12)) :]
    moved = tuple(
        replace(
            bone, origin=(rng.uniform(-reach_x, reach_x), rng.uniform(-reach_y, reach_y)), angle=rng.uniform(0, 6.28)
        )
        for bone in kept
    )
    rounds = tuple(
        replace(shape, centre=(rng.uniform(-reach_x, reach_x), rng.uniform(-reach_y, reach_y))) for shape in hand.rounds
    )
    states = {centre: maturity(centre, "male", months) for centre in CENTRES}
    texture = np.ones(film.shape, np.float32)
    loose = replace(hand, tubular=moved, rounds=rounds)
    blobs: list[list[Circle]] = [
        [((rng.uniform(-30, 30), rng.uniform(-40, 40)), rng.uniform(6, 26))] for _ in range(int(rng.integers(1, 7)))
    ]
    film.flesh(film.chains(*blobs), 12)
    film.bone_HW += draw_bones(loose, placement, film.shape, states, shaft_growth("male", months), texture)
    return film.develop()


def bare_fingers(film: Film) -> ByteArray:
    """One to four fingers or toes without a palm, as on a film of a finger."""
    rng = film.rng
    count, size = int(rng.integers(1, 5)), rng.uniform(0.8, 2.2)
    flesh, bones = [], []
    for finger in range(count):
        x, lean = (finger - (count - 1) / 2) * rng.uniform(13, 18) * size**0.5, rng.uniform(-10, 10)
        base = (x, rng.uniform(30, 70))
        end = base
        for length in (22, 13, 9):
            tip = along(end, lean, length * size)
            bones.append(shaft(end, tip, (2.6 * size, 2.1 * size), 1.6 * size))
            end = along(tip, lean, 1.2 * size)
        flesh.append([(along(base, lean + 180, 30), 5.0 * size), (end, 3.6 * size)])
    film.flesh(film.chains(*flesh), 5 * size)
    film.bones(film.chains(*bones), 2 * size)
    return film.develop()


def paw(film: Film) -> ByteArray:
    """An animal's paw: four or five short toes with claws on a broad pad, long bones behind."""
    rng = film.rng
    size, count = rng.uniform(0.8, 1.3), int(rng.integers(3, 6))
    flesh: list[list[Circle]] = [[((0, 6 * size), 13 * size), ((0, 60), 9 * size)]]
    bones, claws = [], []
    for toe in range(count):
        lean = (toe - (count - 1) / 2) * rng.uniform(10, 20)
        base = ((toe - (count - 1) / 2) * 5.5 * size, 8 * size)
        end = base
        for length in (15, 6, 4):
            tip = along(end, lean, length * size)
            bones.append(shaft(end, tip, (1.9 * size, 1.6 * size), 1.1 * size))
            end = along(tip, lean * 1.1, 0.8 * size)
        claws.append([(end, 1.0 * size), (along(end, lean, 4 * size), 0.2)])
        flesh.append([(base, 6 * size), (end, 4 * size)])
    film.flesh(film.chains(*flesh), 8)
    film.bones(film.chains(*bones), 1.6 * size)
    film.bones(film.chains(*claws), 1.0, 0.5)
    film.bones(film.chains(*[[((rng.uniform(-8, 8), rng.uniform(8, 15)), 3.0 * size)] for _ in range(4)]), 3, 0.2)
    film.bones(film.chains(shaft((-4, 70), (-4, 22), (3.5, 4.5), 3)), 3)
    film.bones(film.chains(shaft((5, 70), (5, 22), (2.0, 3.0), 1.8)), 2)
    return film.develop()


def ct_slice(film: Film) -> ByteArray:
    """A slice across trunk or head: a ring of bone or fat, organs, a vertebra, all in a black surround."""
    rng = film.rng
    wide, high = rng.uniform(25, 44), rng.uniform(22, 40)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)

    def oval(x: float, y: float, a: float, b: float) -> ByteArray:
        return film.polygon([(x + a * float(np.cos(t)), y + b * float(np.sin(t))) for t in turn])

    film.flesh(oval(0, 0, wide, high), 2, 1.0)
    if rng.random() < 0.5:
        film.bones(cv2.subtract(oval(0, 0, 0.96 * wide, 0.96 * high), oval(0, 0, 0.86 * wide, 0.86 * high)), 2, 0.8)
    for _ in range(int(rng.integers(2, 9))):
        x, y = rng.uniform(-0.6, 0.6) * wide, rng.uniform(-0.6, 0.6) * high
        organ = oval(x, y, rng.uniform(0.05, 0.35) * wide, rng.uniform(0.05, 0.35) * high)
        film.flesh(organ, 2, rng.uniform(-0.9, 0.5))
    film.bones(oval(0, 0.62 * high, 0.14 * wide, 0.14 * high), 4, 0.4)
    return film.develop()


def prongs(film: Film) -> ByteArray:
    """Five-pronged things that are no hand: fork, comb, star, tree, leaf, empty glove; flat and bright."""
    rng = film.rng
    kind, size, count = int(rng.integers(5)), rng.uniform(0.7, 1.2), int(rng.integers(3, 8))
    chains: list[list[Circle]] = []
    thick = rng.uniform(1.0, 4.0) * size
    if kind == 0:  # fork or comb
        for prong in range(count):
            x = (prong - (count - 1) / 2) * rng.uniform(2.2, 3.5) * thick
            chains.append([((x, -rng.uniform(20, 42) * size), thick * 0.8), ((x, 5.0), thick)])
        half = (count - 1) / 2 * 3 * thick
        chains += [[((-half, 5.0), thick), ((half, 5.0), thick)], [((0.0, 5.0), 2 * thick), ((0.0, 60.0), thick)]]
    elif kind == 1:  # star
        for ray in range(count):
            tip = along((0, 0), 360 * ray / count + rng.uniform(-8, 8), rng.uniform(25, 45) * size)
            chains.append([((0.0, 0.0), 3 * thick), (tip, 0.3 * thick)])
    elif kind == 2:  # tree
        ends = [((0.0, 50.0), 0.0, 28.0 * size, 1.4 * thick)]
        for _ in range(40):
            start, lean, long, wide = ends.pop(0)
            end = along(start, lean, long)
            chains.append([(start, wide), (end, 0.7 * wide)])
            ends += [(end, lean + s * rng.uniform(12, 45), long * rng.uniform(0.6, 0.85), 0.65 * wide) for s in (-1, 1)]
    elif kind == 3:  # leaf with lobes
        for ray in range(5):
            tip = along((0, 8), (ray - 2) * rng.uniform(32, 50), rng.uniform(28, 45) * size)
            middle = along((0, 8), (ray - 2) * 40, 20 * size)
            chains.append([((0.0, 8.0), 2.0), (middle, rng.uniform(6, 10) * size), (tip, 0.3)])
        chains.append([((0.0, 8.0), 1.0), ((rng.uniform(-5, 5), 50.0), 0.8)])
    else:  # sea creature or splash: prongs all round, bent
        for ray in range(count):
            lean, start, wide = 360 * ray / count, (0.0, 0.0), 2.2 * thick
            chain: list[Circle] = [(start, wide)]
            for _ in range(6):
                lean += rng.uniform(-35, 35)
                start, wide = along(start, lean, 7 * size), 0.85 * wide
                chain.append((start, wide))
            chains.append(chain)
    mask = film.chains(*chains)
    if rng.random() < 0.4:
        film.flesh(mask, rng.uniform(2, 8))
    else:
        film.flesh(mask, 0.8)
        film.bones(mask, rng.uniform(1, 4), rng.uniform(0.2, 1), rng.uniform(0.2, 1))
    return film.develop()
