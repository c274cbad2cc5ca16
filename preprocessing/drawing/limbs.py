"""Wrong inputs that look like radiographs of arms, legs and feet.

Every function draws (H, W) uint8 through `film.Film`; lengths are in hundredths of the picture's height.
"""

from __future__ import annotations

from preprocessing.drawing.exposure import ByteArray
from preprocessing.drawing.film import Circle, Film, Point, along, shaft


def long_bone(film: Film) -> ByteArray:
    """Forearm, shin, thigh or upper arm without the hand: one bone or two along the picture."""
    rng = film.rng
    lean, wide, count = rng.uniform(-12, 12), rng.uniform(9, 24), int(rng.integers(1, 3))
    foot, top = along((0, 0), 180 + lean, rng.uniform(45, 75)), along((0, 0), lean, rng.uniform(30, 75))
    film.flesh(film.chains([(foot, wide * rng.uniform(0.6, 1.2)), (top, wide * rng.uniform(0.6, 1.2))]), wide)
    for bone in range(count):
        shift = (bone - (count - 1) / 2) * wide * rng.uniform(0.7, 1.0)
        thick = wide * rng.uniform(0.12, 0.3)
        start = (foot[0] + shift, foot[1] * rng.uniform(0.7, 1))
        end = (top[0] + shift * rng.uniform(0.5, 1), top[1] * rng.uniform(0.7, 1))
        ends = (thick * rng.uniform(1.2, 2.2), thick * rng.uniform(1.2, 2.2))
        film.bones(film.chains(shaft(start, end, ends, thick)), thick)
    return film.develop()


def joint(film: Film) -> ByteArray:
    """Knee, elbow or shoulder: thick ends of two or three bones that meet, from the front or bent."""
    rng = film.rng
    bend, wide = float(rng.choice([0.0, 0.0, rng.uniform(20, 100)])), rng.uniform(13, 24)
    middle = (rng.uniform(-6, 6), rng.uniform(-8, 8))
    up, down = along(middle, 0, 80), along(middle, 180 - bend, 80)
    film.flesh(
        film.chains([(up, wide * rng.uniform(0.9, 1.3)), (middle, wide), (down, wide * rng.uniform(0.7, 1))]), wide
    )
    thick, gap = wide * rng.uniform(0.22, 0.36), rng.uniform(0.8, 2.0)
    end = thick * rng.uniform(1.5, 2.2)
    film.bones(film.chains(shaft(up, along(middle, 0, gap + end), (thick, end), thick)), thick * 1.2, 0.18)
    head = along(middle, 180 - bend, gap + end * 0.9)
    film.bones(film.chains(shaft(down, head, (thick, end * 0.95), thick)), thick * 1.2, 0.18)
    if rng.random() < 0.7:
        near = (head[0] + end * rng.uniform(0.6, 0.9), head[1] + end * 0.7)
        film.bones(film.chains(shaft((down[0] + 1.2 * thick, down[1]), near, (2, 3), 1.6)), 2.0)
    if rng.random() < 0.5:
        film.bones(film.chains([((middle[0], middle[1] - end), end * 0.6)]), end * 0.6, 0.1, 0.7)
    return film.develop()


def foot_above(film: Film) -> ByteArray:
    """A foot from above: five metatarsals side by side, short toes, tarsal bones and a long heel."""
    rng = film.rng
    side, size = float(rng.choice([-1, 1])), rng.uniform(0.75, 1.05)
    lean, row, toes = rng.uniform(-10, 10), [], []
    flesh: list[list[Circle]] = []
    for ray in range(5):
        angle = lean + side * (-4 + 3.2 * ray)
        base = (side * size * (-7.5 + 4.4 * ray), size * (6 + 1.6 * ray))
        long = size * (26 - 1.2 * ray + (0 if ray else -2))
        thick = size * (2.2 if ray == 0 else 1.25)
        end = along(base, angle, long)
        row.append(shaft(base, end, (thick * 1.5, thick * 1.4), thick))
        toe, tip = along(end, angle, 2.6 * size), end
        for length in (11, 8) if ray == 0 else (8 - ray * 0.7, 3.5, 3):
            tip = along(toe, angle, length * size)
            toes.append(shaft(toe, tip, (thick * 1.15, thick * 0.9), thick * 0.75))
            toe = along(tip, angle, 1.8 * size)
        flesh.append([(base, 5 * size), (end, 4.2 * size), (tip, thick * 2.0)])
    heel = (side * rng.uniform(-2, 5) * size, 36 * size)
    flesh.append([((side * size, 8 * size), 13 * size), (heel, 11 * size)])
    film.flesh(film.chains(*flesh), 8)
    film.bones(film.chains(*row), 1.8 * size)
    film.bones(film.chains(*toes), 1.3 * size)
    tarsals = [((side * size * (-6 + 5.2 * i), size * (4 + 1.2 * i) - 1), 3.1 * size) for i in range(4)]
    film.bones(film.chains(*[[c] for c in tarsals], [((side * -2 * size, 12 * size), 5.5 * size)]), 3, 0.15)
    film.bones(film.chains([((0, 18 * size), 5.5 * size), (heel, 6.5 * size)]), 6, 0.12)
    return film.develop()


def foot_beside(film: Film) -> ByteArray:
    """A foot and ankle from the side: shin, ankle, heel, arch, metatarsals over one another, toes."""
    rng = film.rng
    s, size = float(rng.choice([-1, 1])), rng.uniform(0.75, 1.0)

    def at(x: float, y: float) -> Point:
        return s * size * x, size * y

    leg = (at(-12, -70), 9 * size)
    film.flesh(film.chains([leg, (at(-10, 5), 9 * size)], [(at(-10, 5), 10 * size), (at(-18, 22), 9 * size)],
                           [(at(-8, 10), 11 * size), (at(12, 18), 8 * size), (at(38, 27), 4.5 * size)],
                           [(at(-18, 22), 8 * size), (at(30, 28), 4 * size)]), 9)  # fmt: skip
    film.bones(film.chains(shaft(at(-12, -70), at(-9, 1), (4 * size, 5 * size), 3.6 * size)), 4, 0.25)
    film.bones(film.chains(shaft(at(-15, -70), at(-14, 4), (1.5 * size, 2.4 * size), 1.4 * size)), 1.6)
    film.bones(film.chains([(at(-10, 9), 5 * size), (at(-2, 11), 4 * size)]), 5, 0.15)
    film.bones(film.chains([(at(-22, 22), 6 * size), (at(-8, 18), 5 * size)]), 6, 0.15)
    film.bones(film.chains([(at(5, 14), 4 * size)], [(at(10, 17), 3.6 * size)]), 4, 0.15)
    for ray in range(5):
        start, end = at(12, 16 + 1.5 * ray), at(30 - ray, 25 + 0.9 * ray)
        film.bones(film.chains(shaft(start, end, (1.8, 1.7), 1.1)), 1.4, 0.3, 0.8)
        film.bones(film.chains(shaft(at(32 - ray, 26 + 0.8 * ray), at(37 - ray, 27 + 0.8 * ray), (1.4, 1), 0.8)), 1)
    return film.develop()
