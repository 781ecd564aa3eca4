"""Scene painters: rooms, halls, stairs, caves, rubble and water. Each draws one family."""

from __future__ import annotations

from collections.abc import Callable

from hfvla.worlds.fleet.canvas import Canvas, Colour

__all__ = ["INDOOR"]


def _room(
    c: Canvas, wall: Colour, floor: Colour, ceiling: Colour, depth: float = 0.3
) -> tuple[float, float, float, float]:
    """Walls, floor and ceiling in perspective; returns the far wall (x0, y0, x1, y1)."""
    x, y = c.between(0.42, 0.58), c.between(0.4, 0.5)
    x0, y0, x1, y1 = x - depth / 2, y - depth / 2, x + depth / 2, y + depth / 2
    c.box(0, 0, 1, 1, c.tone(wall))
    c.shape([(0, 0), (1, 0), (x1, y0), (x0, y0)], c.tone(ceiling))
    c.shape([(0, 1), (1, 1), (x1, y1), (x0, y1)], c.tone(floor))
    c.box(x0, y0, x1, y1, c.tone([value * 9 // 10 for value in wall], 10))
    return x0, y0, x1, y1


def _corridor(c: Canvas) -> None:
    wall = c.random.choice(((225, 220, 205), (205, 215, 225), (215, 225, 210)))
    x0, y0, x1, y1 = _room(c, wall, (150, 145, 140), (240, 240, 235), c.between(0.12, 0.18))
    door = c.tone((140, 95, 60), 30)
    for step in (0.15, 0.45, 0.7, 0.85):
        for near, far in ((0.0, x0), (1.0, x1)):
            a, b = near + (far - near) * step, near + (far - near) * (step + 0.1)
            top, bottom = y0 * (step * 0.75 + 0.25), 1 - (1 - y1) * step
            c.shape([(a, top + 0.04), (b, top + 0.06), (b, bottom - 0.01), (a, bottom)], door)
    for step in (0.1, 0.4, 0.65):
        c.box(
            0.5 - 0.1 * (1 - step), y0 * step, 0.5 + 0.1 * (1 - step), y0 * step + 0.03 * (1 - step), (255, 255, 235)
        )


def _warehouse(c: Canvas) -> None:
    x0, y0, x1, y1 = _room(c, (175, 180, 185), (165, 165, 160), (120, 125, 130), c.between(0.16, 0.24))
    frame = c.tone(c.random.choice(((220, 110, 30), (40, 80, 160), (60, 130, 90))))
    for near, far in ((0.0, x0), (1.0, x1)):
        for level in range(5):
            share = level / 4
            near_y, far_y = 0.02 + share * 0.93, y0 + share * (y1 - y0)
            c.stroke([(near, near_y), (far, far_y)], frame, 0.016)
            for step in range(4):
                a, b = near + (far - near) * step / 4, near + (far - near) * (step + 0.8) / 4
                bottom = near_y + (far_y - near_y) * step / 4
                height = 0.15 * (1 - step / 5)
                if level:
                    c.box(a, bottom - height, b, bottom - 0.005, c.tone((190, 150, 100), 35))
        for step in range(5):
            x = near + (far - near) * step / 4
            c.stroke([(x, y0 * step / 4), (x, 1 - (1 - y1) * step / 4)], frame, 0.018)
    c.stroke([(0.3, 1), ((x0 + x1) / 2 - 0.02, y1)], (235, 205, 60), 0.014)


def _workplace(c: Canvas) -> None:
    c.box(0, 0, 1, 0.62, c.tone((225, 225, 220)))
    c.box(0, 0.62, 1, 1, c.tone((175, 165, 150)))
    c.box(c.between(0.05, 0.2), 0.08, c.between(0.35, 0.45), 0.3, c.tone((165, 205, 235)))
    shelf = c.tone((130, 100, 70))
    c.box(0.52, 0.24, 0.97, 0.26, shelf)
    for step in range(7):
        c.box(0.54 + step * 0.06, c.between(0.14, 0.2), 0.58 + step * 0.06, 0.24, c.tone((120, 140, 150), 70))
    top = c.between(0.5, 0.56)
    c.box(0.03, top, 0.97, top + 0.05, c.tone((200, 195, 185)))
    for step in range(4):
        c.box(0.05 + step * 0.23, top + 0.05, 0.25 + step * 0.23, 0.86, c.tone((145, 120, 95)))
        c.box(0.13 + step * 0.23, top + 0.12, 0.17 + step * 0.23, top + 0.13, (60, 60, 60))
    for _ in range(c.random.randint(6, 10)):
        x, height, colour = c.between(0.06, 0.92), c.between(0.04, 0.12), c.tone((140, 140, 140), 80)
        if c.random.random() < 0.5:
            c.box(x, top - height, x + c.between(0.03, 0.08), top, colour)
        else:
            c.disc(x, top - height / 2, height / 2.5, height / 2, colour)
    x = c.between(0.2, 0.8)
    c.disc(x, 0.88, 0.07, 0.025, c.tone((60, 60, 70)))
    c.box(x - 0.01, 0.88, x + 0.01, 0.98, (50, 50, 55))


def _crowd(c: Canvas) -> None:
    c.fade(c.tone((225, 215, 200)), c.tone((205, 200, 190)), 0, 0.45)
    for step in range(4):
        c.box(step * 0.26, 0.1, step * 0.26 + 0.2, 0.36, c.tone((180, 140, 120), 50))
    c.box(0, 0.4, 1, 1, c.tone((190, 185, 180)))
    for step in range(c.random.randint(26, 36)):
        y = 0.48 + 0.52 * step / 32
        c.person(c.between(0, 1), min(y, 1.02), 0.14 + 0.3 * (y - 0.45))


def _refit(c: Canvas) -> None:
    x0, y0, x1, y1 = _room(c, (165, 165, 162), (130, 128, 125), (140, 140, 140), c.between(0.35, 0.45))
    for near, far in ((0.0, x0), (1.0, x1)):
        for step in (0.25, 0.8):
            x = near + (far - near) * step
            c.box(
                x - 0.035 * (1.2 - step),
                y0 * step,
                x + 0.035 * (1.2 - step),
                1 - (1 - y1) * step,
                c.tone((190, 188, 182)),
            )
    for _ in range(6):
        x = c.between(0.05, 0.95)
        c.stroke([(x, 0), (x + c.between(-0.05, 0.05), c.between(0.1, 0.25))], (40, 40, 45), 0.008)
    x, stripe = c.between(0.3, 0.55), c.tone((235, 190, 40))
    c.stroke([(x, 0.95), (x + 0.1, 0.6), (x + 0.2, 0.95)], stripe, 0.022)
    c.stroke([(x + 0.05, 0.78), (x + 0.15, 0.78)], stripe, 0.018)
    for _ in range(c.random.randint(3, 5)):
        a, b = c.between(0.05, 0.85), c.between(0.8, 0.97)
        c.disc(a, b, 0.05, 0.022, c.tone((215, 210, 200)))
    c.box(x0 + 0.05, y0 + 0.08, x0 + 0.14, y1, c.tone((70, 70, 75)))


def _greenhouse(c: Canvas) -> None:
    c.fade(c.tone((200, 228, 235)), c.tone((225, 238, 225)), 0, 1)
    apex, wall = c.between(0.02, 0.1), c.tone((245, 248, 250), 6)
    c.box(0, 0.6, 1, 1, c.tone((170, 150, 120)))
    for step in range(4):
        shrink = step * 0.12
        c.stroke(
            [
                (shrink, 1),
                (shrink, 0.3 + step * 0.05),
                (0.5, apex + step * 0.06),
                (1 - shrink, 0.3 + step * 0.05),
                (1 - shrink, 1),
            ],
            wall,
            0.016,
        )
    for near, far in ((0.0, 0.42), (1.0, 0.58)):
        for step in range(7):
            x, y = near + (far - near) * step / 7, 0.95 - step * 0.05
            size = 0.12 * (1 - step / 9)
            c.box(x - size, y - size * 0.3, x + size, y, c.tone((140, 100, 70)))
            c.disc(x, y - size * 0.7, size * 0.9, size * 0.6, c.tone((75, 150, 65), 30))
            if c.random.random() < 0.5:
                c.disc(x, y - size * 0.8, size * 0.2, size * 0.2, c.tone((225, 60, 50)))


def _stairs(c: Canvas) -> None:
    wall = c.tone(c.random.choice(((200, 195, 185), (170, 180, 190), (190, 170, 150))))
    c.box(0, 0, 1, 1, wall)
    stone, count = c.tone((150, 150, 150), 30), c.random.randint(8, 11)
    left, top = c.between(0.0, 0.15), c.between(0.05, 0.18)
    for step in range(count):
        y0, y1 = 1 - step * (1 - top) / count, 1 - (step + 1) * (1 - top) / count
        x = left + step * (0.8 - left) / count
        c.box(x, y1, 1, y0, c.tone(stone, 5))
        c.box(x, y1, 1, y1 + 0.018, (235, 232, 225))
        c.box(x, y1, x + 0.012, y0, (85, 85, 88))
    rail = c.tone((90, 60, 40))
    c.stroke([(left, 0.72), (0.8, top - 0.22)], rail, 0.024)
    for step in range(0, count, 2):
        x = left + step * (0.8 - left) / count + 0.03
        y = 1 - (step + 1) * (1 - top) / count
        c.stroke([(x, y), (x, y - 0.26)], rail, 0.01)


def _cave(c: Canvas) -> None:
    c.box(0, 0, 1, 1, c.tone((45, 38, 34), 10))
    x, y = c.between(0.4, 0.6), c.between(0.45, 0.55)
    for step in range(6):
        size, glow = 0.48 - step * 0.07, 52 + step * 22
        points = [
            (x + size * dx * c.between(0.85, 1.1), y + size * dy * c.between(0.85, 1.1))
            for dx, dy in (
                (-1, 0.5),
                (-0.8, -0.5),
                (-0.3, -0.9),
                (0.3, -0.95),
                (0.8, -0.5),
                (1, 0.5),
                (0.4, 0.7),
                (-0.4, 0.7),
            )
        ]
        c.shape(points, c.tone((glow, int(glow * 0.85), int(glow * 0.65)), 6))
    for _ in range(c.random.randint(6, 9)):
        a, length = c.between(0, 1), c.between(0.08, 0.22)
        c.shape([(a - 0.03, 0), (a + 0.03, 0), (a, length)], c.tone((70, 60, 52), 10))
    for _ in range(c.random.randint(7, 11)):
        c.rock(c.between(0, 1), c.between(0.85, 1.02), c.between(0.04, 0.09), (75, 65, 56))


def _rubble(c: Canvas) -> None:
    horizon = c.between(0.35, 0.45)
    c.sky(horizon)
    c.ground(horizon, (135, 125, 115), (150, 145, 138))
    wall = c.between(0.05, 0.6)
    c.shape(
        [(wall, 0.7), (wall, 0.2), (wall + 0.1, 0.28), (wall + 0.16, 0.18), (wall + 0.3, 0.42), (wall + 0.3, 0.7)],
        c.tone((165, 140, 125)),
    )
    c.box(wall + 0.07, 0.38, wall + 0.14, 0.5, (55, 50, 50))
    for _ in range(c.random.randint(26, 36)):
        x, y = c.between(-0.05, 1.05), c.between(0.55, 1.0)
        size, tilt = c.between(0.03, 0.1), c.between(-0.06, 0.06)
        c.shape(
            [
                (x - size, y + tilt),
                (x + size, y - tilt),
                (x + size * 0.9, y + size * 0.5),
                (x - size * 0.8, y + size * 0.6),
            ],
            c.tone(c.random.choice(((160, 155, 150), (170, 90, 70), (120, 115, 112)))),
        )
    for _ in range(7):
        x, y = c.between(0, 1), c.between(0.5, 0.9)
        c.stroke([(x, y), (x + c.between(-0.2, 0.2), y - c.between(0.05, 0.2))], (85, 60, 50), 0.01)


def _underwater(c: Canvas) -> None:
    deep = c.random.choice(((10, 50, 95), (10, 80, 100), (15, 40, 75)))
    c.fade(c.tone((60, 150, 185)), deep, 0, 1)
    for _ in range(4):
        x = c.between(0, 1)
        c.shape([(x, 0), (x + 0.05, 0), (x + 0.2, 0.6), (x + 0.05, 0.6)], c.tone((85, 165, 195), 8))
    floor = c.tone((120, 130, 105))
    c.ridge(0.88, 0.08, floor, 8)
    for _ in range(c.random.randint(5, 9)):
        x, colour = (
            c.between(0, 1),
            c.tone(c.random.choice(((220, 110, 110), (230, 160, 70), (90, 150, 80), (150, 100, 160)))),
        )
        for branch in range(3):
            c.stroke([(x, 0.95), (x + (branch - 1) * 0.04, 0.95 - c.between(0.08, 0.2))], colour, 0.02)
    for _ in range(c.random.randint(3, 7)):
        x, y, size = c.between(0.05, 0.95), c.between(0.2, 0.75), c.between(0.02, 0.04)
        colour = c.tone((240, 200, 90), 40)
        c.disc(x, y, size, size * 0.5, colour)
        c.shape([(x - size, y), (x - size * 1.7, y - size * 0.5), (x - size * 1.7, y + size * 0.5)], colour)
    for _ in range(c.random.randint(8, 16)):
        c.disc(c.between(0, 1), c.between(0, 0.9), 0.008, 0.008, (190, 225, 235))


def _sea_structure(c: Canvas) -> None:
    horizon = c.between(0.45, 0.52)
    c.sky(horizon)
    c.fade(c.tone((60, 120, 155)), c.tone((15, 55, 90)), horizon, 1)
    steel, x = c.tone((215, 170, 60), 40), c.between(0.35, 0.6)
    deck = c.between(0.25, 0.33)
    for offset in (-0.2, -0.07, 0.07, 0.2):
        c.box(x + offset - 0.02, deck, x + offset + 0.02, horizon + 0.06, steel)
        c.box(x + offset - 0.02, horizon + 0.06, x + offset + 0.02, 0.98, c.tone((60, 85, 95), 8))
    c.stroke([(x - 0.2, deck + 0.05), (x + 0.2, horizon)], steel, 0.014)
    c.stroke([(x + 0.2, deck + 0.05), (x - 0.2, horizon)], steel, 0.014)
    c.box(x - 0.27, deck - 0.06, x + 0.27, deck + 0.02, c.tone((150, 60, 50), 40))
    c.box(x - 0.2, deck - 0.16, x - 0.02, deck - 0.06, c.tone((205, 205, 205)))
    c.stroke([(x + 0.1, deck - 0.06), (x + 0.2, deck - 0.2)], steel, 0.02)
    for _ in range(14):
        a, b = c.between(0, 1), c.between(horizon + 0.01, horizon + 0.16)
        c.stroke([(a, b), (a + 0.08, b)], (215, 230, 240), 0.007)


def _riverbank(c: Canvas) -> None:
    edge = c.between(0.4, 0.6)
    c.sky(0.3)
    c.fade(c.tone((120, 165, 190)), c.tone((55, 100, 125)), 0.3, 1)
    c.shape([(0, 0.3), (edge, 0.3), (edge - 0.15, 0.6), (edge + 0.05, 1), (0, 1)], c.tone((100, 130, 65)))
    bank = c.tone((115, 85, 60))
    c.shape(
        [(edge, 0.3), (edge + 0.04, 0.3), (edge - 0.05, 0.6), (edge + 0.18, 1), (edge + 0.05, 1), (edge - 0.15, 0.6)],
        bank,
    )
    for _ in range(c.random.randint(2, 4)):
        c.tree(c.between(0, edge - 0.1), c.between(0.4, 0.7), c.between(0.2, 0.35))
    for _ in range(c.random.randint(10, 16)):
        x, y = edge + c.between(-0.08, 0.1), c.between(0.6, 0.98)
        c.stroke([(x, y), (x + c.between(-0.02, 0.02), y - 0.13)], c.tone((140, 150, 70)), 0.008)
    for _ in range(9):
        x, y = c.between(edge + 0.15, 1), c.between(0.35, 0.95)
        c.stroke([(x, y), (x + 0.1, y)], (200, 220, 228), 0.006)


INDOOR: dict[str, Callable[[Canvas], None]] = {
    "corridor": _corridor,
    "warehouse": _warehouse,
    "workplace": _workplace,
    "crowd": _crowd,
    "refit": _refit,
    "greenhouse": _greenhouse,
    "stairs": _stairs,
    "cave": _cave,
    "rubble": _rubble,
    "underwater": _underwater,
    "sea_structure": _sea_structure,
    "riverbank": _riverbank,
}
"""Scene family -> painter."""
