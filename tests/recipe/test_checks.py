import re

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import build_options, load_recipe


def problems(path, families, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides, families)
    return caught.value.problems


# One override of the good recipe, and what must be said about it.
MISTAKES = [
    ("family=5", "family: expected text; got 5. Put it in quotes"),
    ("seed=-1", "seed: expected a number >= 0; got -1"),
    ("seed=1.5", "seed: expected a whole number; got 1.5"),
    ("seed=true", "seed: expected a whole number; got true"),
    ("name=a b", "expected letters, digits, '.', '_' and '-'"),
    ("model.pretraind=x", "unknown key 'pretraind'. Did you mean 'pretrained'?"),
    ("model.revision=abc", "needs `pretrained`; got revision 'abc' alone"),
    ("model.config=[1]", "model.config: expected a mapping; got [1]"),
    ("data.max_bad_fraction=2", "expected a number <= 1; got 2"),
    ("data.validation.fraction=1", "expected a number < 1; got 1"),
    ("data.train.made.weight=-1", "data.train[0].weight: expected a number >= 0; got -1"),
    ("data.train.made.weight=.inf", "data.train[0].weight: expected a finite number; got inf"),
    ("data.train.made.sizes=3", "source 'made' has no option 'sizes'. Did you mean 'size'?"),
    ("data.train.made.size=0", "data.train[0].size: expected a number >= 1; got 0"),
    ("data.train.made.weather.wind_m_s=-3", "data.train[0].weather.wind_m_s: expected a number >= 0; got -3"),
    ("data.train.made.weather.wind=3", "has no option 'wind'. Did you mean 'wind_m_s'?"),
    ("data.train.made.source=maid", "no data source 'maid' in family 'toy'. Did you mean 'made'?"),
    ("data.train=[{source: records}]", "the key 'path' is missing"),
    ("data.train=[{path: x}]", "the key 'source' is missing"),
    ("data.train=[{source: made, weight: 0}]", "every source has weight 0"),
    ("data.train=made", "data.train: expected a list; got 'made'"),
    ("data.train=[made]", "data.train[0]: expected a mapping with keys; got 'made'"),
    ("args.dataloader_persistent_workers=true", "'dataloader_persistent_workers' must stay false: workers"),
    ("args.push_to_hub=true", "'push_to_hub' is set by the engine: the Trainer would push each checkpoint"),
    ("args.hub_token=hf_x", "a token does not belong in a recipe"),
    ("hub={repo: name}", "hub.repo: expected a repository on the hub as user/name"),
    ("hub={repo: ../name}", "hub.repo: expected a repository on the hub as user/name"),
    ("hub={repo: me/x, what: all}", "hub.what"),
    ("hub={repo: me/x, what: merged}", "hub.what: models of 'toy' have no backbone that stands alone; say final"),
    ("hub={repo: me/x, privat: true}", "unknown key 'privat'. Did you mean 'private'?"),
    ("args.optim=galore_adamw", "args.optim: 'galore_adamw' chooses its parameters itself, and a stage has its own"),
    ("args.optim=adalomo", "'adalomo' chooses its parameters itself"),
    ("args.optim_target_modules=[q_proj]", "'optim_target_modules' is set by the engine: a stage's optimizer gets"),
    ("args.ignore_data_skip=true", "'ignore_data_skip' must stay false: a resumed epoch would see rows again"),
    ("data.eval.Bad-Name={source: made}", "expected lower-case letters, digits and '_'"),
    ("data.eval.held_out.weight=2", "source 'records' has no option 'weight'"),
    ("data.eval.held_out.path=3", "data.eval.held_out.path: expected text; got 3"),
    ("evaluation.ablations=perhaps", "evaluation.ablations: expected true or false; got 'perhaps'"),
    ("evaluation.batch_size=0", "expected a number >= 1; got 0"),
    ("stages=[]", "stages: expected at least one item; got []"),
    ("stages.align.name=Align", "expected lower-case letters, digits and '_', a letter first; got 'Align'"),
    ("stages.align.train=[]", "stage trains nothing"),
    ("stages.align.train=vision", "stages[0].train: expected a list; got 'vision'"),
    ("stages.select.train=[vision, vision]", "named twice: vision"),
    ("stages.select.train=[visoin]", "no parameter group 'visoin' in family 'toy'. Did you mean 'vision'?"),
    ("stages.select.train=[vision.last(1)]", "group 'vision' has no layers to count; groups with layers: language"),
    ("stages.select.train=[language.last(0)]", "not a parameter group; got 'language.last(0)'"),
    ("stages.select.train=[language.middle(2)]", "not a parameter group; got 'language.middle(2)'"),
    ("stages.align.learning_rates.vision=1e-4", "'vision' is not in `train` of this stage"),
    ("stages.align.learning_rates.projector=0", "expected a number > 0; got 0"),
    ("stages.align.losses={}", "stage has no loss"),
    ("stages.align.losses={itc: 0}", "every loss has weight 0"),
    ("stages.align.losses={itc: -1}", "stages[0].losses.itc: expected a number >= 0 or a mapping with keys; got -1"),
    ("stages.align.losses={itc: .nan}", "stages[0].losses.itc: expected a"),
    ("stages.align.losses={itc: '1e-4'}", "losses.itc: expected a number or a mapping with keys; got '1e-4'"),
    ("stages.align.losses={selektion: 1}", "no loss term 'selektion' in family 'toy'. Did you mean 'selection'?"),
    ("stages.align.phases=[{epoch: 1}]", "the phase changes nothing"),
    ("stages.align.phases=[{add: [vision]}]", "a phase needs either `epoch` or `step`"),
    ("stages.align.lora={r: 8}", "stages[0].lora: the key 'target' is missing"),
    ("stages.align.losses={itc: {epochs: [2, 1]}}", "`epochs` are [first, last] with 0 <= first < last"),
    ("stages.align.losses={itc: {start: -1}}", "stages[0].losses.itc.start: expected a number >= 0; got -1"),
    ("stages.align.losses={itc: {kind: table}}", "a table needs them"),
    ("stages.align.data={train: []}", "stages[0].data.train: expected at least one item"),
    ("stages.align.keep_best=eval_acuracy", "no metric 'eval_acuracy' in family 'toy'. Did you mean 'eval_accuracy'?"),
    ("stages.align.keep_best=accuracy", "no metric 'accuracy' in family 'toy'. Did you mean 'eval_accuracy'?"),
    ("stages.align.keep_best=eval_loss_ict", "Did you mean 'eval_loss_itc'?"),
    ("stages.align.patience=2", "needs `keep_best`, the metric to wait for; got 2 alone"),
    ("stages.select.patience=0", "expected a number >= 1; got 0"),
    ("stages.select.handover.from=alin", "no earlier stage 'alin'. Did you mean 'align'?"),
    ("stages.select.handover.from=select", "no earlier stage 'select'"),
    ("stages.align.handover.from=select", "no stage before this one; got 'select'"),
    ("stages.select.handover.nwe=[a]", "unknown key 'nwe'. Did you mean 'new'?"),
    ("args=3", "args: expected a mapping; got 3"),
    ("args.learning_rat=1", "TrainingArguments has no 'learning_rat'. Did you mean 'learning_rate'?"),
    ("args.warmup_ratio=0.1", "transformers 5 takes the share as 'warmup_steps: 0.1'"),
    ("args.evaluation_strategy=epoch", "transformers 5 calls it 'eval_strategy'"),
    ("args.max_seq_length=2048", "TrainingArguments has no 'max_seq_length'. the family's config or processor has"),
    ("args.peft_config={r: 8}", "TrainingArguments has no 'peft_config'. a stage says `lora: {target: [...], r: 16}`"),
    ("stages.align.learning_rate=1e-3", "unknown key 'learning_rate'. Say 'args.learning_rate', or by part"),
    ("stages.align.freeze=[vision]", "unknown key 'freeze'. What `train` does not name is frozen"),
    ("evaluation.stages=align", "evaluation.stages: expected a list; got 'align'"),
    ("args.zzz=0.1", "TrainingArguments has no 'zzz'. See the documentation"),
    ("args.output_dir=x", "'output_dir' is set by the engine: each stage has its own folder"),
    ("stages.align.args.seed=1", "stages[0].args.seed: 'seed' is set by the engine: one seed for all"),
    ("args.metric_for_best_model=x", "set by `keep_best` of the stage"),
    ("args.learning_rate='1e-4'", "args.learning_rate: expected a number; got '1e-4'"),
    ("args.learning_rate=-1", "expected a finite number >= 0; got -1"),
    ("args.gradient_accumulation_steps=0", "expected a finite number >= 1; got 0"),
    ("args.bf16=yes", "args.bf16: expected true or false; got 'yes'"),
    ("args.max_steps=2.5", "args.max_steps: expected a whole number; got 2.5"),
    ("args.lr_scheduler_type=cosin", "no such choice; got 'cosin'. Did you mean 'cosine'?"),
    ("args.report_to=3", "args.report_to: expected text or a list; got 3"),
    ("stages.select.args.save_strategy='no'", "keep_best needs evaluations and saves; got save_strategy 'no'"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_the_only_problem_and_is_named(write, good, families, override, message):
    if override == "stages.align.name=Align":
        good = good.replace("from: align, ", "")
    found = problems(write(good), families, override)
    assert len(found) == 1, found
    assert message in found[0]
    assert found[0].startswith(f"override '{override}': ")
    assert not re.search(r"pydantic|http|Input should|Value error|\[key\]|input_type", found[0])


@pytest.mark.parametrize("name", ["cache", "final", "plots", "logs", "processor"])
def test_names_of_the_run_folder_are_reserved(write, good, families, name):
    path = write(good.replace("name: select", f"name: {name}"))
    assert problems(path, families) == [
        f"{path}:17: stages[1].name: reserved, the run folder uses it; "
        f"reserved are cache, final, logs, plots, processor; got '{name}'"
    ]


@pytest.mark.parametrize(
    "override",
    [
        "stages.align.keep_best=eval_loss",
        "stages.align.keep_best=eval_loss_itc",
        "stages.align.keep_best=eval_accuracy",
        "stages.select.train=[language.first(1), vision]",
        "args.warmup_steps=0.1",
        "args.lr_scheduler_type=cosine",
        "args.optim=adamw_torch",
        "args.gradient_checkpointing_kwargs={use_reentrant: false}",
        "args.report_to=[tensorboard]",
        "args.max_grad_norm=1",
        "data.train.made.weight=0",
        "data.train.made.weather={wind_m_s: 3}",
    ],
)
def test_what_is_allowed_passes(write, good, families, override):
    assert load_recipe(write(good), [override], families).stages


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: real", "name: made", "data.train[1]: two sources are called 'made'; give each a `name` of its own"),
        ("name: select", "name: align", "stages[1].name: two stages are called 'align'"),
        (
            "  eval:\n",
            "  validation: {fraction: 0}\n  eval:\n",
            "stages[1].keep_best: 'eval_macro_f1' needs validation",
        ),
    ],
)
def test_clashes_are_named_at_the_second_place(write, good, families, old, new, message):
    found = problems(write(good.replace(old, new)), families)
    assert len(found) == 1 and message in found[0]


def test_missing_top_keys_are_located_at_the_file(write, families):
    path = write("seed: 1\n")
    found = problems(path, families)
    assert [problem.split(" (")[0] for problem in found] == [
        f"{path}:1: the key 'family' is missing",
        f"{path}:1: the key 'stages' is missing",
    ]


def test_a_stage_without_data_is_refused(write, good, families):
    path = write("family: toy\nstages:\n  - {name: a, train: [vision], losses: {itc: 1}}\n")
    assert problems(path, families) == [
        f"{path}:3: stages[0]: the stage has no training data; fill `data.train` of the recipe or of the stage"
    ]


def test_strategies_must_agree_with_keep_best(write, good, families):
    path = write(good)
    found = problems(path, families, "args.eval_strategy=epoch", "args.save_strategy=steps")
    assert found == [
        "override 'args.save_strategy=steps': args.save_strategy: keep_best needs the same eval_strategy and "
        "save_strategy; got 'epoch' and 'steps'"
    ]
    steps = ["args.eval_strategy=steps", "args.save_strategy=steps", "args.eval_steps=4", "args.save_steps=6"]
    assert "multiple of eval_steps; got 6 and 4" in problems(path, families, *steps)[0]
    load_recipe(path, [*steps[:3], "args.save_steps=8"], families)
    load_recipe(path, ["args.eval_strategy=epoch", "args.save_strategy=best"], families)


def test_wrong_types_do_not_hide_wrong_names(write, good, families):
    text = good.replace("train: [projector, language.last(2)]", "train: [projektor, 3]")
    found = problems(write(text), families)
    assert any("no parameter group 'projektor'" in problem for problem in found)
    assert any("stages[0].train[1]: expected text; got 3" in problem for problem in found)


def test_options_are_built_or_refused_in_the_same_words(family):
    assert build_options(family, "made", {"size": 3}).size == 3
    with pytest.raises(RecipeError, match=r"data.eval.x: sizes: source 'made' has no option 'sizes'"):
        build_options(family, "made", {"sizes": 3}, "data.eval.x")
    with pytest.raises(RecipeError, match="no data source 'maid' in family 'toy'"):
        build_options(family, "maid", {})


def test_forms_on_the_hub_that_a_run_does_not_have():
    from hfvla.recipe.hub_checks import hub_problems
    from hfvla.registry import available_families

    tree = {"family": "sensor_vla", "hub": {"repo": "me/x", "what": "adapter"}, "stages": [{"lora": {"qlora": True}}]}
    found = list(hub_problems(tree, available_families()))
    assert [one.steps for one in found] == [("hub", "what")] and "four-bit weights" in found[0].text
    tree["stages"][0]["lora"]["qlora"] = False
    assert list(hub_problems(tree, available_families())) == []
    tree["hub"] = {"repo": "me/x", "what": "merged", "code": True}
    assert [one.steps for one in hub_problems(tree, available_families())] == [("hub", "code")]
    plain = {"family": "chat_vlm", "hub": {"repo": "me/x", "code": True}, "stages": [{}]}
    assert "need no code" in next(iter(hub_problems(plain, available_families()))).text
