import importlib.metadata
import re
import subprocess
import sys
import threading
from configparser import ConfigParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from hfvla.cli import doctor
from hfvla.cli.doctor import REQUIREMENTS, Requirement, check, combinations, devices, system, versions, video
from hfvla.cli.doctor.check import Answer, Check

TORCH = {"version": "2.15", "cuda": None, "gpus": [], "kernels": ["math"], "numpy": "", "gloo": True, "nccl": False}


@pytest.fixture
def installed(monkeypatch):
    found = {}

    def version(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return found


# ---- versions ----------------------------------------------------------------------------------------------------


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
    seen = versions.check_package(Requirement("transformers", "5.17", "6"))
    assert (seen.status, seen.found) == (status, found)
    assert seen.fix == ("" if status == "ok" else 'pip install "transformers>=5.17,<6"')


def test_an_old_accelerate_is_refused_with_its_reason(installed):
    installed["accelerate"] = "1.9.0"
    requirement = next(r for r in REQUIREMENTS if r.package == "accelerate")
    seen = versions.check_package(requirement)
    assert seen.status == "fail" and "replay the first epoch's order" in seen.found


def test_a_missing_package_is_a_failure_and_a_missing_extra_is_not(installed):
    seen = versions.check_package(Requirement("peft", "0.18"))
    assert (seen.status, seen.found, seen.fix) == ("fail", "not installed", 'pip install "peft>=0.18"')
    seen = versions.check_package(Requirement("deepspeed", "0.19", extra="deepspeed"))
    assert (seen.status, seen.fix) == ("info", 'pip install "hfvla[deepspeed]"')


def test_extras_tell_what_is_there_missing_and_too_old(installed):
    installed.update({"tensorboard": "2.20", "wandb": "0.17.9"})
    lines = {seen.name: seen for seen in versions.check_extras()}
    assert lines["extra track"].status == "warn" and 'pip install "wandb>=0.18"' in lines["extra track"].fix
    assert "not installed: trackio, codecarbon" in lines["extra track"].found
    assert (lines["extra sim"].status, lines["extra sim"].found) == (
        "info",
        "not installed: metaworld, mujoco, packaging",
    )


def test_requirements_are_those_of_the_package(repository):
    settings = ConfigParser()
    settings.read(repository / "setup.cfg")

    def asked(text):
        lines = [line.split(";")[0].strip() for line in text.splitlines()]
        return {line for line in lines if line and not line.startswith(("#", "hfvla["))}

    tools = {"docs", "dev", "all"}
    wanted = asked(settings["options"]["install_requires"])
    for extra, text in settings["options.extras_require"].items():
        wanted |= set() if extra in tools else asked(text)
    assert {requirement.package + requirement.wanted for requirement in REQUIREMENTS} == wanted


def test_fixes_name_extras_and_targets_that_exist(repository):
    settings = ConfigParser()
    settings.read(repository / "setup.cfg")
    source = "".join(path.read_text() for path in (repository / "src/hfvla/cli/doctor").glob("*.py"))
    extras = set(re.findall(r"hfvla\[(\w+)\]", source)) | {r.extra for r in REQUIREMENTS if r.extra}
    assert extras and extras <= set(settings["options.extras_require"])
    makefile = (repository / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]*[a-z])(?= PYTHON|\"| \()", source))
    assert "system-libs" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_an_old_python_fails(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.18")
    seen = versions.check_python()
    assert seen.status == "fail" and seen.found == "3.9.18" and "3.11" in seen.fix


# ---- probes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch, tmp_path):
    """Put another script in the place of the probes."""

    def write(code):
        (tmp_path / "probes.py").write_text(code)
        monkeypatch.setattr(check, "__file__", str(tmp_path / "check.py"))

    return write


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process was killed by SIGSEGV"),
        ("import time; time.sleep(60)", "no answer in 1 s"),
        ("raise SystemExit('no such library')", "exit code 1: no such library"),
        ("print('noise'); print('hfvla-probe:{\"problem\": \"ImportError: torn\"}')", "ImportError: torn"),
    ],
)
def test_a_crash_in_a_probe_is_a_finding(script, code, problem):
    script(code)
    assert check.probe("any", timeout_s=1 if "sleep" in code else 20) == Answer(problem=problem)


def test_a_probe_finds_its_answer_among_noise(script):
    script("print('loading ...')\nprint('hfvla-probe:{\"a\": 1}')\nprint('bye')")
    assert check.probe("any") == Answer({"a": 1})


def test_a_failing_look_does_not_hide_the_others(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "probe", lambda *_, **__: Answer(problem="the process was killed by SIGSEGV"))
    monkeypatch.setattr(doctor, "probe_video", lambda: {})

    def broken():
        raise ValueError("cannot read it")

    monkeypatch.setattr(doctor, "check_disks", broken)
    found = {seen.name: seen for seen in doctor.diagnose()}
    assert found["disks"].status == "warn" and "ValueError: cannot read it" in found["disks"].found
    assert found["torch import"].status == "fail" and "SIGSEGV" in found["torch import"].found
    assert {"hub", "CPU cores", "GPU", "attention", "DeepSpeed ops", "video"} <= set(found)


def test_operators_are_run_not_only_imported():
    assert devices.check_operators(Answer({"kept": [1]})).status == "ok"
    assert devices.check_operators(Answer({"kept": [0, 1]})).status == "fail"
    seen = devices.check_operators(Answer(problem="RuntimeError: operator torchvision::nms does not exist"))
    assert seen.status == "fail" and "nms does not exist" in seen.found and "torchvision" in seen.fix


def test_a_slow_machine_is_not_a_broken_one():
    slow = Answer(problem="no answer in 60 s")
    assert devices.check_operators(slow).status == "warn"
    assert [seen.status for seen in devices.check_torch(slow)] == ["warn"]


def test_torch_and_numpy_that_do_not_fit():
    (fine,) = devices.check_torch(Answer(TORCH))
    assert (fine.status, fine.found) == ("ok", "built for the CPU")
    _, bad = devices.check_torch(Answer({**TORCH, "numpy": "Numpy is not available"}))
    assert bad.status == "fail" and bad.found == "Numpy is not available" and "numpy" in bad.fix


# ---- devices -----------------------------------------------------------------------------------------------------


def test_no_gpu_is_fine_and_an_unused_driver_is_not():
    (seen,) = devices.check_gpu(Answer(TORCH), "")
    assert seen.status == "info"
    (seen,) = devices.check_gpu(Answer({**TORCH, "cuda": "13.2"}), "470.1")
    assert seen.status == "warn" and "driver 470.1, but torch sees no GPU" in seen.found and "CUDA_VISIBLE" in seen.fix


def test_gpus_tell_memory_driver_and_bf16():
    cards = [{"name": "A100", "bytes": 80e9, "bf16": True}, {"name": "V100", "bytes": 16e9, "bf16": False}]
    new, old = devices.check_gpu(Answer({**TORCH, "gpus": cards}), "580.1")
    assert (new.name, new.status, new.found) == ("GPU 0", "ok", "A100, 80 GB, bf16 yes, driver 580.1")
    assert (old.status, old.found) == ("warn", "V100, 16 GB, bf16 no, driver 580.1") and "bf16=false" in old.fix


def test_the_driver_is_asked_for(monkeypatch):
    done = SimpleNamespace(returncode=0, stdout="580.1\n580.1\n")
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("subprocess.run", lambda command, **_: done if "nvidia-smi" in command[0] else None)
    assert devices.driver_version() == "580.1"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert devices.driver_version() == ""


def test_attention_names_kernels_and_packages():
    (plain,) = devices.check_attention(Answer({**TORCH, "kernels": ["flash", "math"]}), {})
    assert plain.found == "SDPA on the CPU: flash, math; not installed (not needed): flash_attn, xformers"
    packages = {"flash_attn": Answer(problem="ImportError: undefined symbol"), "xformers": Answer({"version": "1"})}
    _, flash, xformers = devices.check_attention(Answer(TORCH), packages)
    assert flash.status == "warn" and "undefined symbol" in flash.found and "--no-build-isolation" in flash.fix
    assert (xformers.status, xformers.found) == ("ok", "1")
    (none,) = devices.check_attention(Answer({**TORCH, "kernels": []}), {})
    assert none.status == "fail"


def test_deepspeed_tells_its_operators(monkeypatch):
    ops = Answer({"installed": [], "compatible": ["cpu_adam"], "incompatible": ["async_io"]})
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CUDA_HOME", "/not/there")
    groups, cpu = devices.check_deepspeed(ops, Answer(TORCH))
    assert (groups.found, cpu.status) == ("gloo", "ok") and "cannot build: async_io" in cpu.found
    card = {"name": "A100", "bytes": 80e9, "bf16": True}
    _, gpu = devices.check_deepspeed(ops, Answer({**TORCH, "gpus": [card]}))
    assert gpu.status == "warn" and "no nvcc" in gpu.found and "CUDA_HOME" in gpu.fix
    _, absent = devices.check_deepspeed(None, Answer(TORCH))
    assert absent.status == "info" and "hfvla[deepspeed]" in absent.fix
    groups, broken = devices.check_deepspeed(Answer(problem="OSError: torn"), Answer({**TORCH, "gloo": False}))
    assert (groups.status, broken.status, broken.found) == ("warn", "warn", "OSError: torn")


def test_missing_tools_and_libraries(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None if name == "ninja" else name)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    seen = devices.check_compiler()
    assert seen.status == "warn" and seen.found == "missing: ninja" and "hfvla[deepspeed]" in seen.fix
    seen = system.check_rendering()
    assert seen.status == "info" and "make system-libs" in seen.fix


def test_more_threads_than_cores_is_a_warning(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    seen = devices.check_cores()
    assert seen.status == "warn" and seen.fix.endswith("OMP_NUM_THREADS=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert devices.check_cores().status == "ok"


# ---- video -------------------------------------------------------------------------------------------------------

DECODES, TORN = Answer({"frames": 4}), Answer(problem="OSError: torn")


def test_the_readers_are_asked_in_the_order_in_which_they_are_used():
    from hfvla.data.video.backends import BACKENDS

    assert tuple("pyav" if name == "av" else name for name in video.ORDER) == BACKENDS


def test_a_reader_that_was_chosen_is_named(monkeypatch):
    monkeypatch.setenv("HFVLA_VIDEO_BACKEND", "decord")
    reader, *_ = video.check_video({"av": DECODES, "decord": DECODES})
    assert "HFVLA_VIDEO_BACKEND=decord is used in its place" in reader.found


@pytest.mark.parametrize(
    ("readers", "ffmpeg", "expected", "libraries"),
    [
        ({"av": DECODES, "decord": DECODES}, None, ("ok", "av is used; also decord"), ("info", "only torchcodec")),
        ({"av": DECODES, "torchcodec": DECODES}, "x", ("ok", "av is used; also torchcodec"), ("ok", "x")),
        ({"av": DECODES, "decord": TORN}, None, ("ok", "av is used"), ("info", "not found")),
        ({"decord": None}, None, ("warn", "decord without PyAV (av)"), ("info", "not found")),
        ({"torchcodec": None}, None, ("warn", "no installed reader works"), ("warn", "torchcodec cannot work")),
        ({"decord": TORN}, None, ("warn", "no installed reader works: decord"), ("info", "not found")),
        ({}, None, ("info", "no reader"), ("info", "not found")),
    ],
)
def test_the_first_reader_that_decodes_is_used(monkeypatch, readers, ffmpeg, expected, libraries):
    monkeypatch.setattr("ctypes.util.find_library", lambda name: ffmpeg)
    reader, *others, library = video.check_video(readers)
    assert reader.status == expected[0] and expected[1] in reader.found
    assert library.status == libraries[0] and libraries[1] in library.found
    torn = [name for name, answer in readers.items() if answer is TORN]
    assert [(seen.name, seen.status, seen.found) for seen in others] == [
        (f"video: {name}", "warn", "OSError: torn") for name in torn
    ]


def test_installed_readers_really_decode():
    pytest.importorskip("av")
    found = video.probe_video()
    assert found["av"].values["frames"] == 4 and not found["av"].problem
    if "decord" in found:
        assert found["decord"].values == {"frames": 4}


def test_a_broken_clip_is_noticed():
    pytest.importorskip("decord")
    assert check.probe("decord", data=b"no video").problem


# ---- system ------------------------------------------------------------------------------------------------------


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
    seen = system.check_hub()
    server.server_close()
    assert (seen.status, seen.found) == ("ok", endpoint)
    seen = system.check_hub()
    assert seen.status == "warn" and "not reached" in seen.found and "HF_HUB_OFFLINE=1" in seen.fix


def test_an_offline_hub_is_not_asked(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("urllib.request.urlopen", None)
    assert system.check_hub().found == "switched off by HF_HUB_OFFLINE"


def test_little_room_is_a_warning(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "made"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5e9, total=64e6))
    here, cache = system.check_disks()
    assert here.status == cache.status == "warn" and "5 GB free" in here.found
    assert str(tmp_path / "not" / "made") in cache.found
    (shared,) = system.check_shared_memory(str(tmp_path))
    assert shared.status == "warn" and "0.1 GB" in shared.found and "--shm-size" in shared.fix
    assert list(system.check_shared_memory(str(tmp_path / "none"))) == []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50e9, total=8e9))
    assert [seen.status for seen in (*system.check_disks(), *system.check_shared_memory(str(tmp_path)))] == ["ok"] * 3


# ---- combinations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("torch", "needs", "status", "text"),
    [
        ("2.15.0", "torch (>=2.14.0)", "ok", "torch 2.15.0"),
        ("2.15.0+cu132", "torch==2.15.0", "ok", "torch 2.15.0"),
        ("2.13.0+cpu", "torch==2.15.0", "warn", "was built for torch 2.15.0"),
        ("2.13.0", "torch (>=2.14.0)", "warn", "needs torch >= 2.14.0"),
        ("2.13.0", "torch (>=2.11.0)", "warn", "operator torchvision::nms does not exist"),
    ],
)
def test_torchvision_of_another_torch(installed, monkeypatch, torch, needs, status, text):
    installed.update({"torch": torch, "torchvision": "0.29.2"})
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["numpy", needs, "torchcodec; extra == 'x'"])
    (seen,) = combinations.check_pairs()
    assert seen.status == status and text in seen.found and bool(seen.fix) == (status == "warn")


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        (None, "info"),
        ("{distributed_type: 'NO', use_cpu: true, num_processes: 2}", "warn"),
        ("{distributed_type: MULTI_GPU, use_cpu: true, num_processes: 2}", "ok"),
        ("{distributed_type: 'NO', use_cpu: true, num_processes: 1}", "ok"),
    ],
)
def test_a_configuration_that_starts_one_process(monkeypatch, tmp_path, settings, status):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    (tmp_path / "accelerate").mkdir()
    if settings:
        (tmp_path / "accelerate/default_config.yaml").write_text(settings)
    seen = combinations.check_accelerate_config()
    assert seen.status == status and (status == "ok" or ("ONE" in seen.found and "torchrun" in seen.fix))


def test_where_numbers_go(installed, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (none,) = combinations.check_trackers()
    assert none.status == "info" and "hfvla[track]" in none.fix
    installed.update({"tensorboard": "2.20", "wandb": "0.20"})
    board, wandb = combinations.check_trackers()
    assert board.status == "ok" and wandb.status == "info" and "offline" in wandb.found
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert len(list(combinations.check_trackers())) == 1


# ---- all of it ---------------------------------------------------------------------------------------------------


@pytest.mark.slow  # imports torch, DeepSpeed and each video reader, in processes of their own
def test_a_whole_diagnosis(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    checks = doctor.diagnose()
    names = [seen.name for seen in checks]
    assert len(names) == len(set(names))
    wanted = {"Python", "torch", "torchvision operators", "attention", "video", "DeepSpeed ops", "hub", "disk here"}
    assert wanted | {"CPU cores", "accelerate launch", "resume", "tracking"} <= set(names)
    for seen in checks:
        assert isinstance(seen, Check) and seen.status in {"ok", "info", "warn", "fail"} and seen.found
        assert not seen.fix if seen.status == "ok" else seen.fix, seen
    assert not [seen for seen in checks if seen.status == "fail"]


def test_the_parent_process_stays_light():
    code = "import sys, hfvla.cli.doctor; print('torch' in sys.modules, 'decord' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_reader_that_does_not_exist_is_a_warning(monkeypatch):
    monkeypatch.setenv("HFVLA_VIDEO_BACKEND", "opencv")
    found = [seen for seen in video.check_video({"av": DECODES}) if seen.status == "warn"]
    assert [seen.found for seen in found] == ["HFVLA_VIDEO_BACKEND=opencv is none of auto, pyav, torchcodec, decord"]
