"""Wrong inputs that look like radiographs of head, chest, spine and pelvis.

Every function draws (H, W) uint8 through `film.Film`; lengths are in hundredths of the picture's height.
"""

from __future__ import annotations

import numpy as np

from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.film import Circle, Film


def chest(film: Film) -> ByteArray:
    """Ribs, spine, collar bones, dark lungs, the heart and the diaphragm."""
    rng = film.rng
    half = 50 * film.shape[1] / film.shape[0] * rng.uniform(0.8, 1.1)
    film.flesh(film.chains([((0, -70), half * 0.6), ((0, -25), half), ((0, 80), half)]), 25, 1.0)
    for side in (-1, 1):
        lung: list[Circle] = [
            ((side * half * 0.42, -30 + rng.uniform(-4, 4)), half * 0.2),
            ((side * half * 0.5, 0), half * 0.33),
            ((side * half * 0.55, rng.uniform(14, 26)), half * 0.36),
        ]
        film.flesh(film.chains(lung), 10, -rng.uniform(0.4, 0.95))
    heart = [((rng.uniform(0, 5), 0), 8.0), ((rng.uniform(4, 12), 20), rng.uniform(10, 17))]
    film.flesh(film.chains(heart), 12, rng.uniform(0.2, 0.9))
    film.flesh(film.chains([((0, -60), 5.0), ((0, 60), rng.uniform(4, 8))]), 8, rng.uniform(0, 0.8))
    spine = [[((0, y), 3.0), ((0, y + 3), 3.0)] for y in np.arange(-48, 60, 7.5)]
    film.bones(film.chains(*spine), 3, 0.3)
    ribs = []
    for index, top in enumerate(np.arange(-40, 34, rng.uniform(6, 9))):
        reach = half * (0.55 + 0.4 * np.sin(min(1.5, 0.4 + index * 0.22)))
        turn = np.linspace(0.15, 2.6, 9)
        drop = rng.uniform(9, 15)
        for side in (-1, 1):
            points = [(side * (3 + reach * np.sin(a)), top + drop * (1 - np.cos(a)) * 0.9) for a in turn]
            ribs.append([((float(x), float(y)), 1.1) for x, y in points])
    film.bones(film.chains(*ribs), 1.2, 0.4, rng.uniform(0.15, 0.8))
    collar = [[((s * 4, -38.0), 1.5), ((s * 15, -41.0), 1.2), ((s * half * 0.8, -46.0), 1.4)] for s in (-1, 1)]
    film.bones(film.chains(*collar), 1.4)
    return film.develop()


def skull(film: Film) -> ByteArray:
    """Head from the front or the side: a vault with sutures, orbits, jaw and teeth."""
    rng = film.rng
    a, b = rng.uniform(26, 36), rng.uniform(32, 42)
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)

    def oval(scale: float, x: float = 0, y: float = 0, p: float = a, q: float = b) -> ByteArray:
        return film.polygon([(x + scale * p * float(np.cos(t)), y - 6 + scale * q * float(np.sin(t))) for t in turn])

    film.flesh(oval(1.07), 22)
    film.bones(oval(1), rng.uniform(10, 20), rng.uniform(0.2, 0.4))
    side = rng.random() < 0.5
    for where in (-1, 1) if not side else (1,):
        film.bones(oval(1, where * a * 0.42, b * 0.3, a * 0.24, b * 0.17), 4, 0.3, -0.5)
    film.bones(oval(1, a * 0.7 if side else 0, b * 0.62, a * 0.14, b * 0.22), 4, 0.3, -0.4)
    jaw: list[Circle] = [((-a * 0.6, b * 0.4), 4.0), ((-a * 0.35, b * 0.95), 4.0), ((a * 0.35, b * 0.95), 4.0)]
    film.bones(film.chains(jaw if side else [*jaw, ((a * 0.6, b * 0.4), 4.0)]), 4)
    film.bones(film.chains(*[[((x, b * 0.72), 1.0), ((x, b * 0.82), 1.2)] for x in np.arange(-9, 9, 2.6)]), 1.2, 0.5)
    for _ in range(int(rng.integers(1, 4))):  # sutures
        x = np.linspace(-1, 1, 14)
        bow = rng.uniform(-0.7, 0.1) * b + 8 * x**2 + rng.normal(0, 0.8, 14)
        film.bones(
            film.chains([((float(p * a * 0.8), float(q)), 0.3) for p, q in zip(x, bow, strict=True)]), 0.4, 0.5, -0.3
        )
    film.flesh(film.chains([((0, b), 12.0), ((0, 70), 14.0)]), 14, 0.8)
    return film.develop()


def pelvis(film: Film) -> ByteArray:
    """Iliac wings, sacrum, hip joints with the heads of the thighs."""
    rng = film.rng
    size = rng.uniform(0.8, 1.1) * min(1.0, film.shape[1] / film.shape[0])
    film.flesh(
        film.chains(
            [((0, -70), 40 * size), ((0, 10), 50 * size)],
            *[[((s * 28 * size, 10), 24 * size), ((s * 30 * size, 80), 20 * size)] for s in (-1, 1)],
        ),
        26,
    )
    for s in (-1, 1):
        wing = [(7, -6), (14, -26), (34, -30), (43, -16), (36, 0), (30, 10), (22, 8), (13, 2)]
        film.bones(film.polygon([(s * size * x, size * y) for x, y in wing]), 2.5, 0.4)
        ring: list[Circle] = [
            ((s * size * x, size * y), 2.6 * size)
            for x, y in ((28, 10), (14, 19), (2, 22), (8, 30), (20, 32), (28, 14))
        ]
        film.bones(film.chains(ring), 2.6)
        head = (s * 33 * size, 13 * size)
        film.bones(
            film.chains([(head, 6 * size), ((s * 42 * size, 18 * size), 4.5 * size), ((s * 41 * size, 80), 4 * size)]),
            5,
            0.25,
        )
    film.bones(
        film.polygon([(-10 * size, -12), (10 * size, -12), (3 * size, 16 * size), (-3 * size, 16 * size)]), 5, 0.2
    )
    film.bones(film.chains(*[[((-4 * size, y), 2.5), ((4 * size, y), 2.5)] for y in np.arange(-60, -14, 8.0)]), 3, 0.3)
    return film.develop()


def spine(film: Film) -> ByteArray:
    """A column of vertebrae from the side or the front, straight or curved."""
    rng = film.rng
    size, bow, wave = rng.uniform(0.7, 1.5), rng.uniform(-14, 14), rng.uniform(0, 8)
    wide, pitch, side = 5.5 * size, 9 * size, rng.random() < 0.5
    film.flesh(film.chains([((0, -80), rng.uniform(18, 50)), ((bow / 2, 80), rng.uniform(18, 50))]), 20)
    bodies, thorns = [], []
    for y in np.arange(-56, 57, pitch):
        x = float(bow * np.cos(y / 40) + wave * np.sin(y / 18))
        bodies.append(
            [
                ((x - wide, y - pitch * 0.2), 1.8 * size),
                ((x + wide, y - pitch * 0.2), 1.8 * size),
                ((x + wide, y + pitch * 0.2), 1.8 * size),
                ((x - wide, y + pitch * 0.2), 1.8 * size),
                ((x, y), 3 * size),
            ]
        )
        if side:
            thorns.append([((x + wide + 3 * size, y), 1.4 * size), ((x + wide + 11 * size, y + 5 * size), 1.6 * size)])
        else:
            thorns += [
                [((x + s * (wide + 1.5 * size), y), 1.3 * size), ((x + s * (wide + 7 * size), y - 1), 1.1)]
                for s in (-1, 1)
            ]
    film.bones(film.chains(*bodies), 4 * size, 0.15)
    film.bones(film.chains(*thorns), 1.5 * size, 0.3, 0.7)
    return film.develop()


def teeth(film: Film) -> ByteArray:
    """Two rows of teeth in their jaws, as on a panoramic film, or a few seen close."""
    rng = film.rng
    half, bow, size = 50 * film.shape[1] / film.shape[0], rng.uniform(-10, 14), rng.uniform(0.7, 2.5)
    film.flesh(np.full(film.shape, 255, np.uint8), 30)
    for row in (-1, 1):
        arch = [
            ((float(x), float(bow * (x / half) ** 2 + row * 15 * size)), 9.0 * size)
            for x in np.linspace(-half, half, 9)
        ]
        film.bones(film.chains(arch), 9 * size, 0.2, 0.6)
        x = -half * rng.uniform(0.7, 1)
        while x < half * 0.9:
            wide = size * rng.uniform(2.2, 4.2)
            y = bow * (x / half) ** 2 + row * 2 * size
            tip = (x + wide + rng.uniform(-1, 1), y + row * size * rng.uniform(13, 18))
            crown = [((x + wide, y), wide * 0.85), ((x + wide, y + row * 5 * size), wide * 0.85), (tip, wide * 0.3)]
            film.bones(film.chains(crown), wide, 0.35, 1.2)
            x += 2 * wide * rng.uniform(0.98, 1.15)
    return film.develop()
