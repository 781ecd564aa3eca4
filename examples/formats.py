"""Write a small example of every data format that hfvla reads, to compare your own files with.

Run:  python examples/formats.py data/examples
Then: hfvla data inspect data/examples/captions   (docs/formats.md has a command for each)
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from hfvla.data.sources.lerobot import LeRobotWriter
from hfvla.worlds.road.encode import write_mp4

COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210)}
FLEET = ["Drone", "Underwater Robot", "Robot with Legs"]


def picture(colour: str, step: int = 0, size: int = 96) -> np.ndarray:
    """Return [H, W, 3] uint8: a square of a colour on grey, further right with each step."""
    pixels = np.full((size, size, 3), 120, np.uint8)
    left = (8 + 3 * step) % (size - 32)
    pixels[32:64, left : left + 32] = COLOURS[colour]
    return pixels


def save(path: Path, colour: str, step: int = 0) -> None:
    """Write a picture, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(colour, step)).save(path)


def dump(path: Path, content: object) -> None:
    """Write JSON, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def captions(root: Path) -> None:
    """Captions of your own: JSON lines beside a folder of pictures."""
    lines = []
    for number in range(24):
        colour = list(COLOURS)[number % 3]
        save(root / f"images/{number:03d}.png", colour, number)
        lines.append(
            json.dumps({"image": f"images/{number:03d}.png", "caption": f"A {colour} square on grey, {number}."})
        )
    (root / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def conversations(root: Path) -> None:
    """Conversations about pictures, as LLaVA and ShareGPT have them."""
    records = []
    for number in range(24):
        colour = list(COLOURS)[number % 3]
        save(root / f"images/{number:03d}.png", colour, number)
        turns = [{"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": colour.capitalize()}]
        records.append({"id": f"chat-{number}", "image": f"images/{number:03d}.png", "conversations": turns})
    dump(root / "chat.json", records)


def robot_selection(root: Path) -> None:
    """Tasks with the robots that suit them; and tasks with a plan."""
    tasks = [(f"{verb} the {place}", FLEET[number % 3]) for number, place in enumerate(["roof", "reef", "stairs"])
             for verb in ("Inspect", "Film", "Clean", "Measure", "Guard", "Map")]  # fmt: skip
    single = [{"instruction": "Which robots?", "input": f"Task: {task}", "output": robot} for task, robot in tasks]
    dump(root / "single.json", single)
    steps = [
        {"subtask": "Fly over the bay", "assigned_robot": "Drone", "execution_order": 1},
        {"subtask": "Dive to the wreck", "assigned_robot": "Underwater Robot", "execution_order": 2},
    ]
    dump(root / "multi.json", [{"instruction": "Plan.", "input": "Task: Search the bay", "subtasks": steps}])


def road_videos(root: Path) -> None:
    """Questions with choices on clips, as the road-video challenge has them."""
    records = []
    for number, colour in enumerate(COLOURS):
        for copy in range(2):
            name = f"videos/{colour}_{copy}.mp4"
            (root / "videos").mkdir(parents=True, exist_ok=True)
            write_mp4(root / name, [picture(colour, step + 5 * copy) for step in range(40)], fps=10)
            records.append(
                {
                    "id": f"train_{len(records):04d}", "question": "Which colour is the square?",
                    "choices": ["A. Red", "B. Green", "C. Blue"], "answer": ["A. Red", "B. Green", "C. Blue"][number],
                    "support_frames": [1.5], "video_path": name,
                }
            )  # fmt: skip
    dump(root / "train.json", {"__count__": len(records), "data": records})


def geotext(root: Path) -> None:
    """Buildings from the air with captions, and boxes of what a sentence names (GeoText-1652)."""
    train = []
    for number, colour in enumerate(COLOURS):
        for view in range(4):
            name = f"{number:04d}/image-{view:02d}.jpeg"
            save(root / "train" / name, colour, view)
            train.append(
                {
                    "image_id": name, "image": f"train/{name}", "caption": f"A {colour} roof, view {view}.",
                    "sentences": [f"The {colour} roof.", None, None],
                    "bboxes": [[0.3, 0.5, 0.33, 0.33], None, None],  # centre x, centre y, width, height
                }
            )  # fmt: skip
    dump(root / "train.json", train)


def robosense(root: Path) -> None:
    """Text queries, and pictures to rank for each."""
    for colour in COLOURS:
        save(root / f"images/image_{colour}.jpeg", colour)
    lines = [f"q_{number:05d}\tA {colour} square" for number, colour in enumerate(COLOURS, 1)]
    (root / "queries.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lerobot(root: Path) -> None:
    """A LeRobot data set (v3.0): a camera, a state, an action, and a force at 200 Hz beside them."""
    features = {
        "observation.images.front": {"dtype": "image", "shape": (96, 96, 3)},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": (2,), "names": ["dx", "dy"]},
    }
    with LeRobotWriter(root, fps=10, features=features, robot_type="arm") as writer:
        for episode, colour in enumerate([*COLOURS, *COLOURS]):
            for step in range(12):
                numbers = {"observation.state": np.array([step, episode]), "action": np.array([1.0, 0.1 * episode])}
                numbers = {name: value.astype(np.float32) for name, value in numbers.items()}
                writer.add_frame({"observation.images.front": picture(colour, step), **numbers}, task=f"push {colour}")
            times_s = np.arange(260) / 200
            writer.add_sensor("force", times_s, np.sin(times_s)[:, None].astype(np.float32).repeat(3, 1))
            writer.save_episode()


def episode_folder(root: Path) -> None:
    """A folder an episode: pictures named by their time in microseconds, a CSV of states, an npz of a sensor."""
    start = 1_760_000_000
    for number, colour in enumerate(COLOURS):
        folder = root / f"needle/episode_{number:03d}"
        dump(folder / "metadata.json", {"task": "needle"})
        for step in range(20):
            save(folder / f"images/front/{start * 10**6 + step * 100_000}.jpg", colour, step)
        rows = [f"{start + step / 10:.6f},{step},{number},0,0,0,0,1" for step in range(20)]
        (folder / "robot_states.csv").write_text("timestamp,x,y,z,rx,ry,rz,gripper\n" + "\n".join(rows) + "\n")
        times_s = start + np.arange(400) / 200
        np.savez(folder / "sensor_data.npz", timestamps=times_s, data=np.ones((400, 3), np.float32))


def hdf5(root: Path) -> None:
    """ACT's HDF5 episodes, with a clock; and robomimic's, several episodes in one file."""
    import h5py

    root.mkdir(parents=True, exist_ok=True)
    frames = {colour: np.stack([picture(colour, step) for step in range(12)]) for colour in COLOURS}
    for number, (colour, pixels) in enumerate(frames.items()):
        (root / "act").mkdir(exist_ok=True)
        with h5py.File(root / f"act/episode_{number}.hdf5", "w") as file:
            file["timestamp"] = np.arange(12) / 10  # seconds from the start; leave it out and say `fps` (ALOHA)
            file["action"] = np.ones((12, 2), np.float32)
            file["observations/qpos"] = np.arange(24, dtype=np.float32).reshape(12, 2)
            file["observations/images/front"] = pixels
            file.attrs["task"] = f"push {colour}"
    with h5py.File(root / "robomimic.hdf5", "w") as file:
        for number, pixels in enumerate(frames.values()):
            demo = file.create_group(f"data/demo_{number}")
            demo["actions"] = np.ones((12, 7), np.float32)
            demo["obs/agentview_image"] = pixels
            for name, width in (("robot0_eef_pos", 3), ("robot0_eef_quat", 4), ("robot0_gripper_qpos", 2)):
                demo[f"obs/{name}"] = np.zeros((12, width), np.float32)
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})


FORMATS = {
    "captions": captions, "conversations": conversations, "robot_selection": robot_selection,
    "road_videos": road_videos, "geotext": geotext, "robosense": robosense, "lerobot": lerobot,
    "folders": episode_folder, "hdf5": hdf5,
}  # fmt: skip


def main() -> None:
    """Write the formats that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("formats", nargs="*", choices=[[], *FORMATS], default=[])
    arguments = parser.parse_args()
    for name in arguments.formats or FORMATS:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        if name != "lerobot":
            (arguments.folder / name).mkdir(exist_ok=True)
        FORMATS[name](arguments.folder / name)
        print(f"{name}: {arguments.folder / name}")


if __name__ == "__main__":
    main()
