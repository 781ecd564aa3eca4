"""VLMEvalKit runs a checkpoint through `HfvlaVLM`, on a multiple-choice file on disk, and scores it itself."""

import json

import pytest

from hfvla.data.samples.chat import ChatSample, ImageRef, text_turn
from hfvla.evaluation.chat_system import load_chat_system

from ...backbones.tiny_llava import save
from ..benchmarks.files import NAMES, choice_row, png, write_tsv
from .installed import python_of, run

SCRIPT = """
import json, sys
from vlmeval.config import supported_VLM
from vlmeval.dataset import build_dataset
from vlmeval.inference import infer_data_job
from vlmeval.smp import load
from hfvla.evaluation.adapters.vlmevalkit import register
from hfvla.evaluation.adapters.vlmevalkit_model import HfvlaVLM

register("ours", sys.argv[1], device="cpu", max_new_tokens=4)
dataset = build_dataset("Colours")
prompts = [dataset.build_prompt(dataset.data.iloc[n])[-1]["value"] for n in range(len(dataset.data))]
model = supported_VLM["ours"]()
assert isinstance(model, HfvlaVLM)
infer_data_job(model, work_dir=sys.argv[2], model_name="ours", dataset=dataset)
file = sys.argv[2] + "/ours_Colours.xlsx"
said = [str(text) for text in load(file)["prediction"]]
scores = dataset.evaluate(file, model="exact_matching", nproc=1)
direct = model.generate(["Colour?", "what"])
json.dump({"prompts": prompts, "said": said, "overall": float(scores["Overall"].iloc[0]), "direct": direct},
          open(sys.argv[2] + "/found.json", "w"))
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_a_checkpoint_in_the_real_package(tmp_path):
    python = python_of("HFVLA_VLMEVALKIT_PYTHON", "VLMEvalKit or ms-vlmeval")
    model, data, out = save(tmp_path / "model"), tmp_path / "LMUData", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    write_tsv(data / "Colours.tsv", [choice_row(n, NAMES[n % 4]) for n in range(4)])
    (tmp_path / "script.py").write_text(SCRIPT)
    run(python, ["script.py", model, str(out)], tmp_path, LMUData=str(data), PRED_FORMAT="xlsx")
    found = json.loads((out / "found.json").read_text())
    assert all("Options:\nA. red" in prompt for prompt in found["prompts"])  # VLMEvalKit's own wording
    asked = [
        ChatSample(id=name, turns=(text_turn("user", prompt, images=1),), images=(ImageRef(data=png(name)),))
        for name, prompt in zip(NAMES, found["prompts"], strict=True)
    ]
    system = load_chat_system(model, "cpu")
    assert found["said"] == [system.write([one], 4)[0] for one in asked]
    assert 0 <= found["overall"] <= 1
    plain = ChatSample(id="t", turns=(text_turn("user", "Colour?what"),))
    assert found["direct"] == system.write([plain], 4)[0]
