import importlib.metadata
import re
import sys
import threading
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType, SimpleNamespace

import pytest

from hfvla.cli import doctor
from hfvla.cli.doctor import REQUIREMENTS, Requirement


@pytest.fixture
def installed(monkeypatch):
    versions = {}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


@pytest.mark.parametrize(
    ("version", "status", "found"),
    [
        ("5.17.0", "ok", "5.17.0"),
        ("5.17", "ok", "5.17"),
        ("5.16.9", "fail", "5.16.9, needs >=5.17,<6"),
        ("6.0.0", "fail", "6.0.0, needs >=5.17,<6"),
        ("5.23.0+local.99", "ok", "5.23.0+local.99"),
    ],
)
def test_versions_are_compared_as_numbers(installed, version, status, found):
    installed["transformers"] = version
    check = doctor._package(Requirement("transformers", "5.17", "6"))
    assert (check.status, check.found) == (status, found)
    assert check.fix == ("" if status == "ok" else 'pip install "transformers>=5.17,<6"')


def test_an_old_accelerate_is_refused_with_its_reason(installed):
    installed["accelerate"] = "1.9.0"
    requirement = next(r for r in REQUIREMENTS if r.package == "accelerate")
    check = doctor._package(requirement)
    assert check.status == "fail" and "replay the first epoch's order" in check.found


def test_a_missing_package_is_a_failure_and_a_missing_extra_a_warning(installed):
    check = doctor._package(Requirement("peft", "0.18"))
    assert (check.status, check.found, check.fix) == ("fail", "not installed", 'pip install "peft>=0.18"')
    check = doctor._package(Requirement("deepspeed", "0.19", extra="deepspeed"))
    assert (check.status, check.fix) == ("warn", 'pip install "hfvla[deepspeed]"')


def test_requirements_agree_with_the_package(repository):
    settings = ConfigParser()
    settings.read(repository / "setup.cfg")
    lines = settings["options"]["install_requires"].splitlines()
    lines += [line for extra in settings["options.extras_require"].values() for line in extra.splitlines()]
    for requirement in REQUIREMENTS:
        wanted = f"{requirement.package}>={requirement.lowest}" + (
            f",<{requirement.below}" if requirement.below else ""
        )
        assert wanted in [line.strip() for line in lines]


def test_fixes_name_extras_and_targets_that_exist(repository, monkeypatch):
    settings = ConfigParser()
    settings.read(repository / "setup.cfg")
    source = (repository / "src/hfvla/cli/doctor.py").read_text()
    extras = set(re.findall(r"hfvla\[(\w+)\]", source)) | {r.extra for r in REQUIREMENTS if r.extra}
    assert extras and extras <= set(settings["options.extras_require"])
    makefile = (repository / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]*[a-z])(?= PYTHON|\"| \()", source))
    assert "system-libs" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    check = doctor._python()
    assert check.status == "fail" and check.found == "3.9.18" and "3.11" in check.fix


def test_operators_are_run_not_only_imported(monkeypatch):
    assert doctor._image_operators().status == "ok"

    def nms(*_):
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    monkeypatch.setattr("torchvision.ops.nms", nms)
    check = doctor._image_operators()
    assert check.status == "fail" and check.found == "RuntimeError: operator torchvision::nms does not exist"
    assert "torchvision" in check.fix


def test_no_gpu_is_a_warning(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert [check.status for check in doctor._devices()] == ["warn"]
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    (check,) = doctor._devices()
    assert "torch sees no GPU" in check.found and "driver" in check.fix


def test_gpus_tell_memory_and_bf16(monkeypatch):
    cards = [
        SimpleNamespace(name="A100", total_memory=80e9, major=8),
        SimpleNamespace(name="V100", total_memory=16e9, major=7),
    ]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", cards.__getitem__)
    new, old = doctor._devices()
    assert (new.name, new.status, new.found) == ("GPU 0", "ok", "A100, 80 GB, bf16 yes")
    assert (old.status, old.found) == ("warn", "V100, 16 GB, bf16 no") and "bf16=false" in old.fix


@pytest.mark.parametrize(
    ("modules", "ffmpeg", "video", "libraries"),
    [
        (("decord", "av"), None, ("ok", "decord; also av"), ("warn", "only torchcodec")),
        (("torchcodec",), None, ("warn", "no reader"), ("warn", "torchcodec cannot work")),
        (("torchcodec",), "libavcodec.so.61", ("ok", "torchcodec"), ("ok", "libavcodec.so.61")),
        ((), None, ("warn", "no reader"), ("warn", "not found")),
    ],
)
def test_video_readers(monkeypatch, modules, ffmpeg, video, libraries):
    monkeypatch.setattr(doctor, "_has", lambda name: name in modules)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: ffmpeg)
    reader, library = doctor._video()
    assert reader.status == video[0] and video[1] in reader.found
    assert library.status == libraries[0] and libraries[1] in library.found
    assert bool(reader.fix) == (video[0] == "warn")


def test_missing_tools_libraries_and_attention(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ninja" else name)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    check = doctor._deepspeed_tools()
    assert check.status == "warn" and check.found == "missing: ninja" and "hfvla[deepspeed]" in check.fix
    check = doctor._rendering()
    assert check.status == "warn" and "make system-libs" in check.fix
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    sys.modules["flash_attn"].__spec__ = SimpleNamespace()
    assert "flash_attn installed" in doctor._attention().found


class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self):  # noqa: N802
        self.send_response(405)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_the_hub_is_asked_once(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.handle_request, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    check = doctor._hub()
    server.server_close()
    assert (check.status, check.found) == ("ok", endpoint)
    check = doctor._hub()
    assert check.status == "warn" and "not reached" in check.found and "HF_HUB_OFFLINE=1" in check.fix


def test_an_offline_hub_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", None)
    assert doctor._hub().found == "switched off by HF_HUB_OFFLINE"


def test_little_room_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "made"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5e9))
    here, cache = doctor._disks()
    assert here.status == cache.status == "warn" and "5 GB free" in here.found
    assert str(tmp_path / "not" / "made") in cache.found
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50e9))
    assert [check.status for check in doctor._disks()] == ["ok", "ok"]


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    check = doctor._processors()
    assert check.status == "warn" and check.fix.endswith("OMP_NUM_THREADS=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert doctor._processors().status == "ok"


def test_a_whole_diagnosis(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checks = doctor.diagnose()
    names = [check.name for check in checks]
    assert len(names) == len(set(names))
    assert {"Python", "torch", "torchvision operators", "video", "hub", "disk here", "CPU cores"} <= set(names)
    for check in checks:
        assert check.status in {"ok", "warn", "fail"} and check.found
        assert bool(check.fix) == (check.status != "ok"), check
