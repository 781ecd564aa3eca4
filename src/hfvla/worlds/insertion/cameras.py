"""Small pictures of the insertion task, drawn only when they are looked at."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.errors import DataError, did_you_mean
from hfvla.worlds.insertion.physics import PegWorld
from hfvla.worlds.insertion.simulator import drawing_error

__all__ = ["VIEWS", "Cameras", "LazyViews", "View"]


@dataclass(frozen=True)
class View:
    """A camera.

    Attributes:
        looks_at_m: [3], in the world, or from the hand when `on_hand`.
        distance_m: from that point.
        azimuth_deg: direction of sight around z, 180 looks along -x, where the peg goes.
        elevation_deg: below the horizon when negative.
        field_deg: vertical field of view.
        on_hand: moves with the hand.
    """

    looks_at_m: tuple[float, float, float]
    distance_m: float
    azimuth_deg: float
    elevation_deg: float
    field_deg: float
    on_hand: bool = False


VIEWS = {
    "corner": View((-0.17, 0.58, 0.11), 1.0, 138.0, -30.0, 28.0),
    "wrist": View((-0.16, 0.02, -0.025), 0.45, 155.0, -34.0, 34.0, on_hand=True),
}
"""Cameras by name. "corner" stands beside the table, "wrist" moves with the hand and shows peg and hole closely."""

_UNSEEN_BODIES = (
    "world", "RetainingWall", "controller_box", "pedestal_feet", "torso", "pedestal", "right_arm_base_link", "head",
    "screen", "right_l0", "right_l1", "right_l1_2", "right_l2", "right_l3", "right_l4", "right_l5", "right_l6",
    "right_hand", "mocap",
)  # fmt: skip
_UNSEEN_GROUP = 5
_HOLE_HALF_M = 0.03
# MetaWorld's red, green and cyan, paler: video halves the resolution of colour, and small pictures show it.
_PEG_COLOUR, _FACE_COLOUR = (0.6, 0.95, 0.5, 1.0), (0.62, 0.45, 0.42, 1.0)


class Cameras:
    """Draws the views of a simulation.

    Without the arm's meshes, shadows, reflections and anti-aliasing, a picture takes a twentieth of the time.

    Args:
        world: the simulation; the shapes that are not to be seen change their group in its model.
        size: pixels a side.
        names: of the views.

    Raises:
        DataError: no such view.
    """

    def __init__(self, world: PegWorld, size: int, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in VIEWS:
                raise DataError("no such view", where="insertion", got=name, fix=did_you_mean(name, VIEWS))
        self.names, self.size, self._world = names, size, world
        self._renderer: Any = None
        self._options: Any = None

    def _open(self) -> None:
        mujoco, model = self._world.mujoco, self._world.model
        for geom in range(model.ngeom):
            mesh_of_table = model.geom_bodyid[geom] == model.body("tablelink").id and model.geom_dataid[geom] >= 0
            if model.body(model.geom_bodyid[geom]).name in _UNSEEN_BODIES or mesh_of_table:
                model.geom_group[geom] = _UNSEEN_GROUP
        model.geom_rgba[model.geom("peg").id] = _PEG_COLOUR
        model.mat_rgba[model.material("peg_block_red").id] = _FACE_COLOUR
        model.geom_rgba[model.geom("leftpad_geom").id] = model.geom_rgba[model.geom("rightpad_geom").id]
        model.vis.global_.offwidth = model.vis.global_.offheight = self.size
        model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
        if not hasattr(mujoco, "GLContext"):
            raise drawing_error("neither library was found")
        self._options = mujoco.MjvOption()
        self._options.sitegroup[:] = 0
        # Destructors read these also where the constructor failed before it set them.
        mujoco.Renderer._gl_context = mujoco.Renderer._mjr_context = mujoco.GLContext._context = None
        try:
            self._renderer = mujoco.Renderer(model, self.size, self.size)
        except (ImportError, AttributeError, RuntimeError, OSError, NameError, mujoco.FatalError) as error:
            raise drawing_error(error) from error
        _close_at_exit(self)

    def draw(self, name: str) -> np.ndarray:
        """Return a picture of the simulation as it is now, [size, size, 3] uint8 RGB.

        Raises:
            HfvlaError: the machine has no library that draws.
        """
        if self._renderer is None:
            self._open()
        mujoco, view, world = self._world.mujoco, VIEWS[name], self._world
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = np.array(view.looks_at_m) + (world.hand if view.on_hand else 0.0)
        camera.distance, camera.azimuth, camera.elevation = view.distance_m, view.azimuth_deg, view.elevation_deg
        world.model.vis.global_.fovy = view.field_deg
        self._renderer.update_scene(world.data, camera, self._options)
        scene, flags = self._renderer.scene, mujoco.mjtRndFlag
        for flag in (flags.mjRND_SHADOW, flags.mjRND_REFLECTION, flags.mjRND_SKYBOX, flags.mjRND_FOG):
            scene.flags[flag] = 0
        self._add_hole(scene)
        return self._renderer.render().copy()

    def _add_hole(self, scene: Any) -> None:
        """Paint the mouth of the hole that is seen black: MetaWorld's tunnel is as red as the face around it."""
        mujoco = self._world.mujoco
        place = self._world.seen_hole + np.array([0.001, 0.0, 0.0])
        mujoco.mjv_initGeom(
            scene.geoms[scene.ngeom],
            mujoco.mjtGeom.mjGEOM_BOX,
            np.array([0.0005, _HOLE_HALF_M, _HOLE_HALF_M]),
            place,
            np.eye(3).reshape(-1),
            np.array([0.02, 0.02, 0.02, 1.0], dtype=np.float32),
        )
        scene.ngeom += 1

    def close(self) -> None:
        """Free the drawing context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


_open: weakref.WeakSet[Cameras] = weakref.WeakSet()


def _close_open() -> None:
    for cameras in list(_open):
        cameras.close()


def _close_at_exit(cameras: Cameras) -> None:
    """Free what is still open when the process ends, before the library that draws ends itself.

    EGL ends its display at exit too, and a context freed after that fails. What was registered last runs first, so
    this is registered anew behind whatever the library registered while the context was made. (`weakref.finalize` does
    not do: all its objects share one place in that order, taken when anything in the process first used it.)
    """
    _open.add(cameras)
    atexit.unregister(_close_open)
    atexit.register(_close_open)


class LazyViews(Mapping[str, np.ndarray]):
    """Pictures of one moment, drawn when they are first looked at and kept.

    Args:
        cameras: what draws.
        is_now: tells whether the simulation still stands at that moment.
        moment: said in the error.
    """

    def __init__(self, cameras: Cameras, is_now: Callable[[], bool], moment: str) -> None:
        self._cameras, self._is_now, self._moment = cameras, is_now, moment
        self._drawn: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._cameras.names:
            raise KeyError(name)
        if name not in self._drawn:
            if not self._is_now():
                raise DataError(
                    "the simulation has moved on, its picture was never drawn",
                    where=f"{self._moment}: view '{name}'",
                    fix="Look at an observation's views before the next step or reset.",
                )
            self._drawn[name] = self._cameras.draw(name)
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras.names)

    def __len__(self) -> int:
        return len(self._cameras.names)
