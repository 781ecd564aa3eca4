"""The robot, the peg and the box in MuJoCo: motion of the hand, and the force on the peg at every substep.

MetaWorld's peg-insert-side-v3 with its hand (a body pulled by a soft weld), peg and box. What differs from it:

- the commanded position never leads the hand by more than `LEAD_FREE_M`, nor by more than `LEAD_CONTACT_M` while the
  peg touches something: the force of a push is bounded, as on a robot under impedance control;
- friction of the box is `BOX_FRICTION`, so that a pressed peg slides on its face;
- the box that is touched may lie beside the box that is seen.

Axes: x away from the box's face (the peg goes in along -x), y along the face, z up.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hfvla.worlds.insertion.simulator import import_simulator

__all__ = ["CONTROL_HZ", "SENSOR_HZ", "SUBSTEPS", "PegWorld"]

SENSOR_HZ, CONTROL_HZ = 400, 20
SUBSTEPS = SENSOR_HZ // CONTROL_HZ
_PULLS = 4  # times a control step that the commanded position moves, as MetaWorld's own steps at 80 Hz
LEAD_FREE_M = np.array([0.02, 0.02, 0.02])
LEAD_CONTACT_M = np.array([0.003, 0.008, 0.008])  # less along the peg than across it, so that a pressed peg slides
BOX_FRICTION = 0.3
HOLE_IN_BOX_M = np.array([0.096, 0.0, 0.13])  # centre of the hole's mouth
TOOL_FROM_HAND_M = np.array([-0.15, 0.005, -0.034])  # about where the tip of a held peg is
TIP_FROM_HEAD_M = np.array([-0.02, 0.0, 0.0])
_TURN_Z, _TURN_Y = (0.5**0.5, 0.0, 0.0, 0.5**0.5), (0.5**0.5, 0.0, 0.5**0.5, 0.0)
_HAND_BODIES = ("hand", "right_hand", "rightclaw", "leftclaw", "right_l6")


class PegWorld:
    """One simulation; every episode starts from the same state of the arm, restored to the bit."""

    def __init__(self) -> None:
        self.mujoco, metaworld = import_simulator()
        self._task = metaworld.ALL_V3_ENVIRONMENTS["peg-insert-side-v3"]()
        self.model, self.data = self._task.model, self._task.data
        model = self.model
        self._peg_geom, self._box = model.geom("peg").id, model.body("box").id
        self._hand, self._peg = model.body("hand").id, model.body("peg").id
        self._is_hand = np.array([self._belongs_to_hand(model.geom_bodyid[geom]) for geom in range(model.ngeom)])
        in_box = [geom for geom in range(model.ngeom) if self._parents(model.geom_bodyid[geom]) >= {self._box}]
        self._seen_geoms = [geom for geom in in_box if model.geom_contype[geom] == 0]
        self._seen_places = model.geom_pos[self._seen_geoms].copy()
        model.geom_friction[[geom for geom in in_box if model.geom_contype[geom]], 0] = BOX_FRICTION
        model.geom_friction[self._peg_geom, 0] = BOX_FRICTION
        model.opt.impratio = 10.0  # without it a pressed peg creeps through the fingers
        # MetaWorld writes 1.57 for a right angle; flat on flat, MuJoCo then loses a corner of the contact.
        model.body_quat[self._box] = _TURN_Z
        model.geom_quat[self._peg_geom] = _TURN_Y
        self._force = np.zeros(6)
        self._touching = False
        self._offset = np.zeros(3)

    def _parents(self, body: int) -> set[int]:
        found = set()
        while body > 0:
            found.add(int(body))
            body = self.model.body_parentid[body]
        return found

    def _belongs_to_hand(self, body: int) -> bool:
        return bool(self._parents(body) & {self.model.body(name).id for name in _HAND_BODIES})

    @cached_property
    def _start(self) -> np.ndarray:
        """State of the whole simulation with the hand at rest above the table and the fingers open."""
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = self._task.init_qpos, self._task.init_qvel
        self._task._reset_hand()
        spec = self.mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.zeros(self.mujoco.mj_stateSize(self.model, spec))
        self.mujoco.mj_getState(self.model, self.data, state, spec)
        # Where the weld holds the commanded position against the arm's weight.
        self._sag = self.data.mocap_pos[0] - self.data.xpos[self._hand]
        return state

    def reset(self, peg: np.ndarray, box: np.ndarray, offset: np.ndarray) -> None:
        """Put the arm, the peg and the box in their places.

        Args:
            peg: [3] m, centre of the peg on the table.
            box: [3] m, foot of the box that is seen.
            offset: [3] m, from the box that is seen to the box that is touched.
        """
        state = self._start
        self.mujoco.mj_resetData(self.model, self.data)
        self.mujoco.mj_setState(self.model, self.data, state, self.mujoco.mjtState.mjSTATE_INTEGRATION)
        self.data.qpos[9:12], self.data.qpos[12:16], self.data.qvel[9:15] = peg, (1, 0, 0, 0), 0
        # The box moves as a whole and its pictures back: the shapes that collide keep their place in its body, on
        # which MuJoCo's search for contacts relies.
        self.model.body_pos[self._box] = box + offset
        matrix = np.zeros(9)
        self.mujoco.mju_quat2Mat(matrix, self.model.body_quat[self._box])
        self.model.geom_pos[self._seen_geoms] = self._seen_places - offset @ matrix.reshape(3, 3)
        self.seen_hole, self.true_hole = box + HOLE_IN_BOX_M, box + offset + HOLE_IN_BOX_M
        self._touching = False
        self.mujoco.mj_forward(self.model, self.data)

    @property
    def hand(self) -> np.ndarray:
        """[3] m."""
        return self.data.xpos[self._hand].copy()

    @property
    def peg(self) -> np.ndarray:
        """[3] m, where the peg is to be held."""
        return self.data.site("pegGrasp").xpos.copy()

    @property
    def tip(self) -> np.ndarray:
        """[3] m, centre of the peg's front face."""
        return self.data.site("pegHead").xpos + TIP_FROM_HEAD_M

    @property
    def opening(self) -> float:
        """Of the gripper, 0 to 1 (0.1 m), as MetaWorld gives it."""
        apart = np.linalg.norm(self.data.body("rightclaw").xpos - self.data.body("leftclaw").xpos)
        return float(np.clip(apart / 0.1, 0.0, 1.0))

    def advance(self, move: np.ndarray, grip: float) -> np.ndarray:
        """Run one control step.

        Args:
            move: [3] m, of the commanded position.
            grip: -1 opens, 1 closes.

        Returns:
            [20, 6]: force (N) and torque (N m) on the peg, of everything but the hand, at each substep; world axes,
            torque about a point fixed to the hand, `TOOL_FROM_HAND_M` away.
        """
        wrenches = np.zeros((SUBSTEPS, 6))
        self.data.ctrl[:] = grip, -grip
        per_pull = SUBSTEPS // _PULLS
        for pull in range(_PULLS):
            lead = LEAD_CONTACT_M if self._touching else LEAD_FREE_M
            rest = self.hand + self._sag
            wanted = np.clip(self.data.mocap_pos[0] + move / _PULLS, rest - lead, rest + lead)
            self.data.mocap_pos[0] = np.clip(wanted, self._task.mocap_low, self._task.mocap_high)
            for step in range(pull * per_pull, (pull + 1) * per_pull):
                self.mujoco.mj_step(self.model, self.data)
                wrenches[step] = self._wrench()
            self._touching = bool(np.abs(wrenches[step, :3]).max() > 2.0)
        self.mujoco.mj_forward(self.model, self.data)
        return wrenches

    def _wrench(self) -> np.ndarray:
        """Sum the contacts of the peg with everything but the hand."""
        total = np.zeros(6)
        contacts = self.data.contact
        pairs = contacts.geom
        on_peg = pairs == self._peg_geom
        outside = on_peg.any(axis=1) & ~self._is_hand[pairs].any(axis=1)
        if not outside.any():
            return total
        reference = self.data.xpos[self._hand] + TOOL_FROM_HAND_M
        for index in np.flatnonzero(outside).tolist():
            self.mujoco.mj_contactForce(self.model, self.data, index, self._force)
            contact = contacts[index]
            frame = contact.frame.reshape(3, 3)
            # mj_contactForce gives what the pair's first shape does to its second, in the contact's own axes.
            sign = 1.0 if on_peg[index, 1] else -1.0
            force, torque = sign * (self._force[:3] @ frame), sign * (self._force[3:] @ frame)
            (x, y, z), (fx, fy, fz) = (contact.pos - reference).tolist(), force.tolist()
            total[:3] += force
            total[3:] += torque + (y * fz - z * fy, z * fx - x * fz, x * fy - y * fx)
        return total

    def close(self) -> None:
        """Free the simulator."""
        self._task.close()
