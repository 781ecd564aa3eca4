"""Scene painters: open land, mountains, farms, roads and tall things. Each draws one family."""

from __future__ import annotations

from collections.abc import Callable

from hfvla.worlds.fleet.canvas import Canvas

__all__ = ["OUTDOOR"]


def _mountain(c: Canvas) -> None:
    horizon = c.between(0.5, 0.65)
    snowy = c.random.random() < 0.3
    stone = c.random.choice(((110, 105, 100), (135, 100, 80), (90, 85, 95)))
    c.sky(horizon)
    c.ridge(horizon, c.between(0.3, 0.45), c.tone((140, 145, 160)), c.random.randint(4, 6))
    c.ridge(horizon + 0.08, c.between(0.2, 0.3), c.tone((225, 230, 235) if snowy else stone), c.random.randint(5, 8))
    c.ground(horizon + 0.1, [value * 3 // 4 for value in stone], stone)
    for _ in range(c.random.randint(12, 20)):
        y = c.between(horizon + 0.12, 1)
        c.rock(c.between(0, 1), y, 0.03 + 0.1 * (y - horizon), (215, 220, 225) if snowy else stone)


def _forest(c: Canvas) -> None:
    c.sky(0.4)
    c.ground(0.4, (60, 75, 40), (70, 100, 55))
    c.ridge(0.45, 0.1, c.tone((60, 100, 65)), 12)
    for step in range(c.random.randint(16, 24)):
        y = 0.5 + 0.5 * step / 20
        c.tree(c.between(-0.05, 1.05), min(y, 1.0), c.between(0.25, 0.4) + 0.3 * (y - 0.5))


def _desert(c: Canvas) -> None:
    horizon = c.between(0.4, 0.55)
    c.fade(c.tone((110, 165, 225)), c.tone((235, 225, 200)), 0, horizon)
    c.disc(c.between(0.15, 0.85), c.between(0.08, 0.2), 0.05, 0.05, c.tone((255, 245, 200), 5))
    sand = c.random.choice(((225, 190, 130), (235, 215, 170), (215, 165, 105)))
    c.ground(horizon, sand, sand)
    for _ in range(c.random.randint(3, 5)):
        y, x = c.between(horizon, 0.9), c.between(0, 1)
        c.shape([(x - 0.5, y + 0.12), (x, y), (x + 0.1, y + 0.01), (x + 0.6, y + 0.12)], c.tone(sand, 14))
        c.shape(
            [(x, y), (x + 0.1, y + 0.01), (x + 0.6, y + 0.12), (x + 0.12, y + 0.12)],
            c.tone([v * 4 // 5 for v in sand], 8),
        )


def _rows(c: Canvas, horizon: float, near: tuple[int, int, int], soil: tuple[int, int, int]) -> None:
    c.ground(horizon, soil, soil)
    centre, count = c.between(0.3, 0.7), c.random.randint(8, 12)
    plant = c.tone(near)
    for row in range(-count, count + 1):
        x = centre + row * 0.22
        c.shape([(centre + row * 0.012, horizon), (x - 0.05, 1.0), (x + 0.05, 1.0)], plant)


def _crops(c: Canvas) -> None:
    horizon = c.between(0.3, 0.45)
    c.sky(horizon)
    green = c.random.choice(((90, 150, 60), (200, 180, 80), (70, 130, 70), (150, 160, 70)))
    _rows(c, horizon, green, (125, 95, 65))
    for _ in range(c.random.randint(0, 3)):
        c.tree(c.between(0, 1), horizon + 0.01, c.between(0.06, 0.1))


def _pasture(c: Canvas) -> None:
    horizon = c.between(0.35, 0.45)
    c.sky(horizon)
    c.ground(horizon, (90, 160, 65), (130, 185, 95))
    for _ in range(c.random.randint(5, 9)):
        y, x = c.between(horizon + 0.08, 0.9), c.between(0, 1)
        size = 0.02 + 0.07 * (y - horizon)
        hide = c.tone(c.random.choice(((240, 240, 235), (110, 70, 45), (45, 40, 40))))
        c.disc(x, y, size * 1.5, size, hide)
        c.disc(x + size * 1.6, y - size * 0.6, size * 0.6, size * 0.5, hide)
        c.box(x - size, y + size * 0.6, x - size * 0.7, y + size * 1.7, hide)
        c.box(x + size * 0.7, y + size * 0.6, x + size, y + size * 1.7, hide)
    fence, y = c.tone((130, 100, 70)), c.between(0.88, 0.94)
    c.stroke([(0, y), (1, y)], fence, 0.015)
    for post in range(7):
        c.box(post / 6 - 0.012, y - 0.07, post / 6 + 0.012, 1.0, fence)


def _garden(c: Canvas) -> None:
    c.sky(0.3)
    c.box(0, 0.22, 1, 0.4, c.tone((165, 115, 90)))
    c.ground(0.4, (70, 110, 50), (80, 125, 60))
    for _ in range(c.random.randint(22, 30)):
        c.disc(
            c.between(0, 1), c.between(0.38, 1), c.between(0.05, 0.12), c.between(0.04, 0.1), c.tone((70, 125, 55), 35)
        )
    for _ in range(c.random.randint(18, 28)):
        c.disc(
            c.between(0, 1),
            c.between(0.45, 1),
            0.014,
            0.014,
            c.tone(c.random.choice(((230, 80, 120), (250, 220, 80)))),
        )
    x = c.between(0.3, 0.6)
    c.box(x, 0.62, x + 0.22, 0.66, c.tone((120, 80, 50)))
    c.box(x, 0.54, x + 0.22, 0.58, c.tone((120, 80, 50)))


def _compound(c: Canvas) -> None:
    horizon = c.between(0.4, 0.5)
    c.sky(horizon)
    c.ground(horizon, (150, 150, 125), (165, 170, 145))
    for _ in range(c.random.randint(2, 3)):
        x, width = c.between(0, 0.7), c.between(0.15, 0.3)
        c.box(x, horizon - c.between(0.08, 0.14), x + width, horizon + 0.06, c.tone((125, 125, 120), 25))
        c.box(x + width * 0.4, horizon, x + width * 0.55, horizon + 0.06, c.tone((60, 60, 65)))
    wire, top = c.tone((85, 90, 95)), c.between(0.6, 0.66)
    for step in range(-4, 22):
        c.stroke([(step / 18, top), (step / 18 + 0.17, 0.93)], wire, 0.004)
        c.stroke([(step / 18 + 0.17, top), (step / 18, 0.93)], wire, 0.004)
    for post in range(6):
        c.box(post / 5 - 0.014, top - 0.04, post / 5 + 0.014, 0.95, wire)
    c.stroke([(0, top), (1, top)], wire, 0.012)


def _ice(c: Canvas) -> None:
    horizon = c.between(0.4, 0.5)
    c.sky(horizon)
    c.ridge(horizon, 0.06, c.tone((75, 95, 85)), 14)
    c.ground(horizon, (150, 195, 220), (205, 225, 235))
    for _ in range(c.random.randint(7, 11)):
        x, y = c.between(0, 1), c.between(horizon + 0.05, 1)
        c.stroke(
            [(x, y), (x + c.between(-0.2, 0.2), y + 0.05), (x + c.between(-0.3, 0.3), y + 0.09)],
            (245, 250, 255),
            0.008,
        )
    for _ in range(c.random.randint(2, 4)):
        c.disc(c.between(0.1, 0.9), c.between(0.65, 0.95), 0.05, 0.02, c.tone((35, 65, 90)))


def _tower(c: Canvas) -> None:
    c.sky(0.92)
    c.box(0, 0.92, 1, 1, c.tone((110, 120, 105)))
    x, kind = c.between(0.3, 0.6), c.random.choice(("block", "mast", "turbine", "bridge"))
    steel = c.tone((120, 125, 135), 30)
    if kind == "block":
        width = c.between(0.2, 0.3)
        c.box(x - width / 2, c.between(0.02, 0.1), x + width / 2, 0.95, steel)
        glass = c.tone((80, 130, 175), 30)
        for row in range(11):
            for column in range(4):
                left = x - width * 0.43 + column * width * 0.22
                c.box(left, 0.14 + row * 0.07, left + width * 0.14, 0.18 + row * 0.07, glass)
    elif kind == "mast":
        for step in range(8):
            low, high = 0.95 - step * 0.11, 0.84 - step * 0.11
            a, b = 0.12 * (1 - step / 9), 0.12 * (1 - (step + 1) / 9)
            c.stroke([(x - a, low), (x + b, high), (x - b, high), (x + a, low)], steel, 0.012)
        c.stroke([(x - 0.2, 0.2), (x + 0.2, 0.2)], steel, 0.014)
        c.stroke([(0, 0.28), (x, 0.21), (1, 0.3)], (50, 50, 55), 0.006)
    elif kind == "turbine":
        c.shape([(x - 0.03, 0.95), (x - 0.012, 0.35), (x + 0.012, 0.35), (x + 0.03, 0.95)], (240, 240, 240))
        turn = c.between(0, 0.2)
        for dx, dy in ((turn, -0.32), (-0.3, 0.1 + turn), (0.26, 0.22 - turn)):
            c.stroke([(x, 0.35), (x + dx, 0.35 + dy)], (245, 245, 245), 0.024)
    else:
        deck = c.between(0.5, 0.6)
        c.box(0, deck, 1, deck + 0.05, steel)
        for tower in (0.25, 0.75):
            c.box(tower - 0.025, 0.08, tower + 0.025, 0.95, steel)
            for step in range(1, 7):
                c.stroke([(tower, 0.1), (tower - step * 0.045, deck)], steel, 0.006)
                c.stroke([(tower, 0.1), (tower + step * 0.045, deck)], steel, 0.006)


def _road(c: Canvas) -> None:
    horizon, centre = c.between(0.35, 0.45), c.between(0.42, 0.58)
    c.sky(horizon)
    c.ground(horizon, (125, 140, 95), (140, 155, 110))
    c.shape([(centre - 0.02, horizon), (centre + 0.02, horizon), (1.1, 1.0), (-0.1, 1.0)], c.tone((85, 85, 90)))
    for step in range(6):
        y = horizon + 0.06 + (step / 6) ** 1.5 * (0.9 - horizon)
        width = 0.03 * (y - horizon) / (1 - horizon)
        c.shape(
            [
                (centre - width, y),
                (centre + width, y),
                (centre + width * 1.5, y + 0.05),
                (centre - width * 1.5, y + 0.05),
            ],
            (240, 240, 230),
        )
    for _ in range(c.random.randint(1, 3)):
        y = c.between(horizon + 0.08, 0.85)
        x, size = centre + c.random.choice((-1, 1)) * 0.35 * (y - horizon) / (1 - horizon), 0.02 + 0.14 * (y - horizon)
        c.box(x - size, y - size * 0.6, x + size, y + size * 0.4, c.tone((150, 60, 60), 60))
        c.box(x - size * 0.7, y - size, x + size * 0.7, y - size * 0.5, c.tone((60, 70, 85)))


def _plain(c: Canvas) -> None:
    horizon = c.between(0.55, 0.65)
    c.sky(horizon)
    c.ground(horizon, (170, 155, 85), (190, 180, 120))
    river = c.tone((105, 150, 180))
    points = [(0.5 + 0.4 * (-1) ** i * c.between(0.3, 1), horizon + i * 0.08) for i in range(6)]
    c.stroke(points, river, 0.03)
    for _ in range(c.random.randint(40, 60)):
        y = c.between(horizon + 0.01, 1)
        c.disc(c.between(0, 1), y, 0.01, 0.007, c.tone(c.random.choice(((95, 105, 55), (70, 60, 50)))))
    for _ in range(3):
        x, y = c.between(0.1, 0.9), c.between(0.1, 0.4)
        c.stroke([(x - 0.03, y - 0.012), (x, y), (x + 0.03, y - 0.012)], (50, 50, 55), 0.008)


def _skyline(c: Canvas) -> None:
    c.sky(0.6)
    for layer in range(3):
        colour, x = c.tone((150 - layer * 35, 150 - layer * 35, 165 - layer * 30)), 0.0
        while x < 1:
            width = c.between(0.04, 0.1)
            c.box(x, c.between(0.4, 0.55) + layer * 0.13, x + width, 1, colour)
            x += width
    for _ in range(70):
        c.box(x0 := c.between(0, 1), y0 := c.between(0.66, 1), x0 + 0.012, y0 + 0.015, (245, 225, 140))


def _flood(c: Canvas) -> None:
    horizon = c.between(0.35, 0.45)
    c.sky(horizon)
    c.ground(horizon, (125, 110, 80), (150, 140, 110))
    for _ in range(c.random.randint(4, 6)):
        y, x = c.between(horizon + 0.1, 0.85), c.between(0, 0.9)
        size = 0.05 + 0.15 * (y - horizon)
        c.box(x, y - size * 0.6, x + size * 1.6, y, c.tone((215, 205, 190)))
        c.shape(
            [(x - size * 0.2, y - size * 0.6), (x + size * 0.8, y - size * 1.3), (x + size * 1.8, y - size * 0.6)],
            c.tone((165, 75, 60)),
        )
    for _ in range(12):
        x, y = c.between(0, 1), c.between(horizon + 0.05, 1)
        c.stroke([(x, y), (x + 0.12, y)], c.tone((185, 180, 155)), 0.007)


def _snow(c: Canvas) -> None:
    horizon = c.between(0.5, 0.6)
    c.sky(horizon)
    c.ridge(horizon, 0.18, c.tone((225, 235, 245), 8), 9)
    c.ground(horizon, (240, 246, 250), (225, 236, 246))
    for _ in range(c.random.randint(9, 14)):
        x, y = c.between(0, 1), c.between(horizon + 0.04, 1)
        c.shape([(x, y), (x + 0.16, y - 0.015), (x + 0.3, y + 0.02), (x + 0.14, y + 0.012)], c.tone((120, 170, 215)))


OUTDOOR: dict[str, Callable[[Canvas], None]] = {
    "mountain": _mountain,
    "forest": _forest,
    "desert": _desert,
    "crops": _crops,
    "pasture": _pasture,
    "garden": _garden,
    "compound": _compound,
    "ice": _ice,
    "tower": _tower,
    "road": _road,
    "plain": _plain,
    "skyline": _skyline,
    "flood": _flood,
    "snow": _snow,
}
"""Scene family -> painter."""
