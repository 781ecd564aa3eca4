"""The same recording as an episode folder of either layout, as an HDF5 file and as a LeRobot set.

Every value tells its own time or number, and no two recordings start together, so that rows which are matched by
position, or cut off at the wrong moment, show.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from hfvla.data.signals.rotations import pose_delta

BASE_NS, MS, HEIGHT, WIDTH = 1_760_000_000_123_000_000, 10**6, 32, 48
FPS, RATE_HZ = 10, 650
STATE = [f"joint_{joint}" for joint in range(1, 7)]
POSE = ["x", "y", "z", "rx", "ry", "rz"]
PER_UNIT = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass
class Recording:
    """Times are int64 nanoseconds since 1970.

    Attributes:
        pictures: camera to times.
        states_ns: of `states`.
        states: [M, 6 + 6 + 1]: joints, pose, gripper. Joint 1 is the time in seconds from BASE_NS.
        sensor_ns: of `sensor`.
        sensor: [K, 1 + 4]: force (the time in seconds from BASE_NS), then an A-line; None without a sensor.
    """

    pictures: dict[str, np.ndarray]
    states_ns: np.ndarray
    states: np.ndarray
    sensor_ns: np.ndarray | None = None
    sensor: np.ndarray | None = None

    def but(self, **changes):
        return replace(self, **changes)


def colour(place):
    return (20 + 9 * place % 220, 40, 200 - 7 * place % 180)


def picture(place, size=(HEIGHT, WIDTH)):
    return np.broadcast_to(np.array(colour(place), np.uint8), (*size, 3)).copy()


def states_at(times_ns):
    seconds = (times_ns - BASE_NS) / 1e9
    joints = np.stack([seconds, *(np.full_like(seconds, joint) for joint in range(5))], axis=1)
    turn = (170 + 40 * seconds + 180) % 360 - 180  # passes +-180 degrees
    pose = np.stack([10 * seconds, 5 - seconds, 3 * seconds, 0 * seconds, 0 * seconds, turn], axis=1)
    return np.concatenate([joints, pose, (seconds[:, None] > 0.35)], axis=1)


def sensor_at(times_ns):
    seconds = (times_ns - BASE_NS) / 1e9
    return np.stack([seconds, *(k + seconds for k in range(4))], axis=1).astype(np.float32)


def ramp(start_ms, length_s, rate_hz):
    """Times at a rate, to the microsecond."""
    count = int(round(length_s * rate_hz))
    return BASE_NS + start_ms * MS + np.round(np.arange(count) * 1e6 / rate_hz).astype(np.int64) * 1000


def recording(length_s=1.2, *, sensor=True, aligned=False):
    """Make a recording.

    Args:
        length_s: of each of its parts.
        sensor: whether there is one.
        aligned: all parts at the steps' own times, from BASE_NS; else each starts at its own time.
    """
    if aligned:
        views = {"View1": ramp(0, length_s, FPS), "View2": ramp(0, length_s, FPS)}
        states_ns, sensor_ns = ramp(0, length_s + 0.1, FPS), ramp(0, length_s + 0.1, RATE_HZ)
    else:
        views = {"View1": ramp(-230, length_s + 0.3, 10), "View2": ramp(-95, length_s + 0.3, 30)}
        states_ns, sensor_ns = ramp(-312, length_s + 0.5, 100), ramp(-500, length_s + 0.7, RATE_HZ)
        jitter = np.random.default_rng(0).integers(-9, 9, len(views["View1"])) * MS
        views["View1"] = views["View1"] + jitter
    made = Recording(views, states_ns, states_at(states_ns))
    return made.but(sensor_ns=sensor_ns, sensor=sensor_at(sensor_ns)) if sensor else made


def write_states(path, made, clock="s"):
    scale = PER_UNIT[clock]
    lines = [",".join(["timestamp", *STATE, *POSE, "gripper"])]
    for time_ns, row in zip(made.states_ns, made.states, strict=True):
        stamp = f"{time_ns // scale}.{time_ns % scale:0{len(str(scale)) - 1}d}" if scale > 1 else f"{time_ns}"
        lines.append(",".join([stamp, *(repr(float(value)) for value in row)]))
    path.write_text("\n".join(lines) + "\n")


def write_pictures(folder, made, clock="us"):
    for view, times_ns in made.pictures.items():
        (folder / view).mkdir(parents=True)
        for place, time_ns in enumerate(times_ns):
            Image.fromarray(picture(place)).save(folder / view / f"{time_ns // PER_UNIT[clock]}.jpg", quality=95)


def write_new(folder, made, *, metadata=None, clocks=("us", "s")):
    folder.mkdir(parents=True)
    (folder / "metadata.json").write_text(json.dumps(metadata or {}))
    write_pictures(folder / "images", made, clocks[0])
    write_states(folder / "robot_states.csv", made, clocks[1])
    if made.sensor is not None:
        np.savez_compressed(folder / "sensor_data.npz", timestamps=made.sensor_ns / 1e9, data=made.sensor)
    return folder


def write_old(folder, made):
    """In two sensor files, with the times in nanoseconds."""
    folder.mkdir(parents=True)
    write_pictures(folder, made, "ns")
    write_states(folder / "robot_state_20251009.csv", made, "ns")
    if made.sensor is not None:
        half = len(made.sensor) // 2
        for name, part in (("a", slice(None, half)), ("b", slice(half, None))):
            arrays = {"forces": made.sensor[part, 0], "alines": made.sensor[part, 1:]}
            np.savez(folder / f"sensor_data_{name}.npz", timestamps=made.sensor_ns[part], **arrays)
    return folder


def encode(pixels):
    import io

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def actions_of(poses, grip):
    return np.concatenate([pose_delta(poses[1:], poses[:-1], "euler_degrees"), grip[1:, None]], axis=1)


def write_hdf5(path: Path, made: Recording, *, pictures="raw", task="peg"):
    """Write an `aligned` recording; the last state gives no step."""
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(made.states_ns) - 1
    with h5py.File(path, "w") as file:
        file.attrs["task"] = task
        file["timestamp"] = made.states_ns[:-1] / 1e9
        file["action"] = actions_of(made.states[:, 6:12], made.states[:, 12]).astype(np.float32)
        file["observations/qpos"] = made.states[:-1, :6].astype(np.float32)
        file["observations/ee_pose"] = made.states[:-1, 6:12].astype(np.float32)
        for view in made.pictures:
            name, frames = f"observations/images/{view}", [picture(place) for place in range(count)]
            if pictures == "raw":
                file.create_dataset(name, data=np.stack(frames), chunks=(1, HEIGHT, WIDTH, 3), compression="gzip")
                continue
            encoded = [encode(frame) for frame in frames]
            if pictures == "padded":
                rows = np.zeros((count, max(map(len, encoded)) + 7), np.uint8)
                for row, content in zip(rows, encoded, strict=True):
                    row[: len(content)] = content
                file[name] = rows
            else:
                file.create_dataset(name, (count,), dtype=h5py.vlen_dtype(np.uint8))
                for place, content in enumerate(encoded):
                    file[name][place] = content
        if made.sensor is not None:
            sensor = file.create_group("observations/sensor")
            sensor["timestamp"] = made.sensor_ns / 1e9
            sensor["force"], sensor["aline"] = made.sensor[:, 0], made.sensor[:, 1:]
    return path


def write_lerobot(folder, recordings):
    """Write `aligned` recordings."""
    from hfvla.data.sources.lerobot import LeRobotWriter

    numbers = {"observation.state": 6, "action": 7}
    features = {name: {"dtype": "float32", "shape": (width,)} for name, width in numbers.items()}
    for view in recordings[0].pictures:
        features[f"observation.images.{view}"] = {"dtype": "image", "shape": (HEIGHT, WIDTH, 3)}
    with LeRobotWriter(folder, fps=FPS, features=features) as writer:
        for made in recordings:
            actions = actions_of(made.states[:, 6:12], made.states[:, 12]).astype(np.float32)
            for step in range(len(actions)):
                frame = {"observation.state": made.states[step, :6].astype(np.float32), "action": actions[step]}
                frame |= {f"observation.images.{view}": picture(step) for view in made.pictures}
                writer.add_frame(frame, "Perform peg insertion task")
            writer.add_sensor("touch", (made.sensor_ns - made.states_ns[0]) / 1e9, made.sensor)
            writer.save_episode()
    return folder
