"""A vision-language model from parts: any tower, any causal language model, and a new projector between them.

The result is a model of transformers that everything which reads such checkpoints knows:

| projector | tower | class |
|---|---|---|
| `mlp` | any transformer of transformers (SigLIP, CLIP, DINOv2, ViT ...) | `LlavaForConditionalGeneration` |
| `mlp` | a convolutional tower of timm | `FastVlmForConditionalGeneration` |
| `pixel_shuffle` | InternViT | `InternVLForConditionalGeneration` |
| `pixel_shuffle` | SigLIP and others without a class token | `AyaVisionForConditionalGeneration` |
| `resampler` | SigLIP | `Idefics2ForConditionalGeneration` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hfvla.backbones.shapes import PART_SHAPES
from hfvla.errors import RecipeError
from hfvla.models.chat_vlm.options import ChatOptions

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["CHAT_TEMPLATE", "build_parts", "parts_config"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>{% endgeneration %}{{ '\n' }}"
    "{% else %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with marks around what the assistant says; `IMAGE` stands for the layout's placeholder."""

_CHAT_TOKENS = {"im_start_token": "<|im_start|>", "im_end_token": "<|im_end|>"}
_INTERNVL_TOKENS = {
    "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}  # fmt: skip
_AYA_TOKENS = {
    "image_token": "<image>", "img_patch_token": "<|IMG_PATCH|>", "img_line_break_token": "<|IMG_LINE_BREAK|>",
    "tile_token": "TILE", "tile_global_token": "TILE_GLOBAL", "start_of_img_token": "<|START_OF_IMG|>",
    "end_of_img_token": "<|END_OF_IMG|>",
}  # fmt: skip
_MEAN, _STD = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
_TIMM = "timm:"


def parts_config(options: ChatOptions, settings: Mapping[str, Any] | None = None, known: bool = False) -> Any:
    """Return the config of a model from parts, without weights; token ids are set once the tokenizer is there.

    Args:
        options: with `vision` and `language`.
        settings: `model.config` of the recipe, over it.
        known: for parts of the hub whose shapes are kept here (`hfvla.backbones.shapes`), do not ask the hub.

    Raises:
        RecipeError: a part cannot be read, or the parts do not go together.
    """
    from transformers import AutoConfig

    if known:
        parts = {name: PART_SHAPES.get(str(getattr(options, name))) for name in ("vision", "language")}
        options = options.model_copy(update={name: shape for name, shape in parts.items() if shape})
    vision, text = _vision_config(options), _text_config(options)
    kind = _layout(options, vision)
    if options.image_size is not None and hasattr(vision, "image_size"):
        old = vision.image_size
        vision.image_size = [options.image_size] * 2 if isinstance(old, list | tuple) else options.image_size
    given: dict[str, Any] = {"vision_config": vision.to_dict(), "text_config": text.to_dict()}
    if kind in ("llava", "fast_vlm", "aya_vision"):
        given |= {"vision_feature_layer": -1}
    if kind in ("llava", "aya_vision"):
        given |= {"vision_feature_select_strategy": "default" if _class_tokens(vision) else "full"}
    if kind == "internvl":
        ratio = float((settings or {}).get("downsample_ratio", 0.5))
        given |= {"image_seq_length": int((_side(vision) // _patch(vision) * ratio) ** 2)}
        given |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "default"}
    if kind == "idefics2":
        perceiver = {"hidden_size": text.hidden_size, "rms_norm_eps": getattr(text, "rms_norm_eps", 1e-6)}
        settings = {
            **(settings or {}),
            "perceiver_config": {**perceiver, **((settings or {}).get("perceiver_config") or {})},
        }
    given |= {"tie_word_embeddings": bool(text.tie_word_embeddings), **dict(settings or {})}
    given.pop("model_type", None)
    return AutoConfig.for_model(kind, **given)


def build_parts(
    options: ChatOptions, config: PreTrainedConfig, texts: Iterable[str], vision_path: str | None = None
) -> tuple[Any, Any]:
    """Return model and processor from parts.

    Args:
        options: of the recipe; parts named by a hub id or folder bring their weights.
        config: `parts_config`, or another one of these layouts.
        texts: a tokenizer is learned on them where no language model brings one.
        vision_path: where the tower's weights lie, where `options.vision` does not say it.

    Raises:
        RecipeError: the weights of a part do not fit.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    tokenizer = _tokenizer(options, config.model_type, texts)
    _set_ids(config, tokenizer)
    size = len(tokenizer)
    text = config.get_text_config()
    if not isinstance(options.language, str):
        text.vocab_size = size
    model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, options.dtype))
    if isinstance(options.language, str):
        _load_language(model, options.language)
    if isinstance(options.vision, str):
        _load_vision(model, options.vision)
    if size > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(size)
    _set_generation(model, tokenizer)
    return model, _processor(config, tokenizer)


def _layout(options: ChatOptions, vision: Any) -> str:
    kind = vision.model_type
    if options.projector == "resampler":
        if not kind.startswith("siglip") and kind != "idefics2_vision":
            raise RecipeError(
                "model.options: a resampler goes with a SigLIP tower",
                got=kind,
                expected="siglip_vision_model",
                fix="Use projector: mlp with this tower.",
            )
        return "idefics2"
    if options.projector == "pixel_shuffle":
        if kind == "internvl_vision":
            return "internvl"
        if kind == "timm_wrapper" or _class_tokens(vision):
            raise RecipeError(
                "model.options: pixel_shuffle goes with a tower without a class token, or with InternViT",
                got=kind,
                fix="Use projector: mlp with this tower.",
            )
        return "aya_vision"
    if kind == "timm_wrapper":
        return "fast_vlm"
    if kind == "internvl_vision":
        raise RecipeError("model.options: InternViT goes with projector: pixel_shuffle", got=options.projector)
    return "llava"


def _vision_config(options: ChatOptions) -> Any:
    from transformers import AutoConfig

    given = options.vision
    if isinstance(given, Mapping):
        settings = dict(given)
        name = settings.pop("model_type", "siglip_vision_model")
        if name == "timm_wrapper":
            unknown = sorted(settings.keys() - {"architecture", "model_args"})
            if unknown or "architecture" not in settings:
                raise RecipeError(
                    "model.options.vision: a tower of timm is its architecture and model_args",
                    got=", ".join(sorted(settings)) or "nothing", fix="The side of pictures is options.image_size.",
                )  # fmt: skip
            return _timm_config(str(settings["architecture"]), options.image_size, settings.get("model_args"))
        if name == "siglip_vision_model":
            settings.setdefault("vision_use_head", False)
        return _for_model(name, settings, "vision")
    if str(given).startswith(_TIMM):
        return _timm_config(str(given).removeprefix(_TIMM).partition("@")[0], options.image_size)
    try:
        config = AutoConfig.from_pretrained(str(given))
    except (OSError, ValueError) as error:
        raise RecipeError("model.options.vision cannot be read", got=given, fix=str(error).splitlines()[0]) from None
    config = getattr(config, "vision_config", None) or config
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False  # a pooled picture is not asked for
    return config


def _timm_config(name: str, side: int | None, model_args: Mapping[str, Any] | None = None) -> Any:
    """Return the config of a tower of timm, for pictures of its own side where none is given."""
    import timm
    from transformers import TimmWrapperConfig

    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **(model_args or {}))
    except (RuntimeError, TypeError) as error:
        raise RecipeError("model.options.vision: timm has no such tower", got=name, fix=str(error)) from None
    if not hasattr(model, "num_features") or hasattr(model, "pos_embed"):
        raise RecipeError(
            "model.options.vision: of timm's towers the convolutional ones serve",
            got=name,
            fix="Take a transformer from transformers, e.g. a SigLIP or DINOv2 checkpoint.",
        )
    settings = model.pretrained_cfg | {"num_classes": 0, "global_pool": ""}
    settings |= {"input_size": (3, side, side)} if side is not None else {}
    return TimmWrapperConfig.from_dict(
        {
            "architecture": name, "pretrained_cfg": settings, "hidden_size": model.num_features, "do_pooling": False,
            "num_classes": 0, "global_pool": "", "model_args": dict(model_args) if model_args else None,
        }
    )  # fmt: skip


def _text_config(options: ChatOptions) -> Any:
    from transformers import AutoConfig

    given = options.language
    if isinstance(given, Mapping):
        settings = {"vocab_size": options.vocab_size, **given}
        return _for_model(settings.pop("model_type", "llama"), settings, "language")
    try:
        return AutoConfig.from_pretrained(str(given)).get_text_config()
    except (OSError, ValueError) as error:
        raise RecipeError("model.options.language cannot be read", got=given, fix=str(error).splitlines()[0]) from None


def _for_model(name: str, settings: dict[str, Any], part: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(name, **settings)
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"model.options.{part}: no such model", got=name, fix=str(error).splitlines()[0]) from None


def _side(vision: Any) -> int:
    return int(vision.image_size[0] if isinstance(vision.image_size, list | tuple) else vision.image_size)


def _patch(vision: Any) -> int:
    return int(vision.patch_size[0] if isinstance(vision.patch_size, list | tuple) else vision.patch_size)


def _class_tokens(vision: Any) -> int:
    """Return how many tokens a tower puts before its patches, found by asking it on the meta device."""
    import torch
    from transformers import AutoModel

    if vision.model_type in ("timm_wrapper", "internvl_vision"):
        return 0
    side, patch = _side(vision), _patch(vision)
    with torch.device("meta"):
        tower = AutoModel.from_config(vision)
        states = tower(torch.empty(1, 3, side, side)).last_hidden_state
    extra = int(states.shape[1] - (side // patch) ** 2)
    if extra not in (0, 1):
        raise RecipeError(
            "model.options.vision: this tower puts several tokens before its patches, and the layout drops one",
            got=f"{vision.model_type} with {extra}",
            fix="Take a tower without register tokens.",
        )
    return extra


def _tokens(kind: str) -> dict[str, str]:
    if kind == "internvl":
        return {**_INTERNVL_TOKENS, **_CHAT_TOKENS}
    if kind == "aya_vision":
        return {**_AYA_TOKENS, **_CHAT_TOKENS}
    if kind == "idefics2":
        return {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>",
                "end_of_utterance_token": "<end_of_utterance>", **_CHAT_TOKENS}  # fmt: skip
    return {"image_token": "<image>", **_CHAT_TOKENS}


def _tokenizer(options: ChatOptions, kind: str, texts: Iterable[str]) -> Any:
    """Return the language model's tokenizer, or one learned on the texts, with the layout's and the chat's tokens."""
    named = _tokens(kind)
    if isinstance(options.language, str):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.language)
        tokenizer.add_special_tokens({"extra_special_tokens": [*named.values(), *options.tokens]})
        for name, token in named.items():
            tokenizer.init_kwargs.setdefault("extra_special_tokens", {})
            setattr(tokenizer, name, token)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
    else:
        from hfvla.data.tokenizers import learn_tokenizer

        frame = ["system\n", "user\n", "assistant\n"] * 64
        tokenizer = learn_tokenizer([*texts, *frame], options.vocab_size, named)
        tokenizer.add_special_tokens({"extra_special_tokens": options.tokens}) if options.tokens else None
    tokenizer.eos_token = named["im_end_token"]
    tokenizer.model_max_length = options.max_length or tokenizer.model_max_length
    return tokenizer


def _set_ids(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    placeholder = {"internvl": "<IMG_CONTEXT>", "aya_vision": "<|IMG_PATCH|>"}.get(config.model_type, "<image>")
    config.image_token_id = tokenizer.convert_tokens_to_ids(placeholder)
    text = config.get_text_config()
    text.eos_token_id = tokenizer.eos_token_id
    text.bos_token_id = tokenizer.bos_token_id
    text.pad_token_id = tokenizer.pad_token_id


def _set_generation(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.bos_token_id = tokenizer.bos_token_id


def _load_language(model: PreTrainedModel, path: str) -> None:
    from transformers import AutoModelForCausalLM

    source = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, dtype=model.dtype)
    inner = source.get_decoder()
    model.get_decoder().load_state_dict(inner.state_dict())
    head, wanted = source.get_output_embeddings(), model.get_output_embeddings()
    if head is not None and wanted is not None:
        wanted.weight.data.copy_(head.weight.data)


def _load_vision(model: PreTrainedModel, path: str) -> None:
    tower = model.get_encoder(modality="image")
    if path.startswith(_TIMM):
        import timm

        name, _, folder = path.removeprefix(_TIMM).partition("@")
        source = timm.create_model(f"local-dir:{folder}" if folder else name, pretrained=True, num_classes=0)
        tower.timm_model.load_state_dict(source.state_dict(), strict=False)
        return
    loaded, info = type(tower).from_pretrained(path, output_loading_info=True, dtype=model.dtype, config=tower.config)
    missing = sorted(map(str, info.get("missing_keys") or ()))
    if missing:
        raise RecipeError("model.options.vision: weights of the tower are missing", where=path, got=missing[:4])
    tower.load_state_dict(loaded.state_dict())


def _processor(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Any:
    import transformers

    kind, vision = config.model_type, config.vision_config
    placeholder = {"internvl": "<IMG_CONTEXT>", "idefics2": "<image>\\n"}.get(kind, "<image>")
    template = CHAT_TEMPLATE.replace("IMAGE", placeholder)
    side = _side(vision) if hasattr(vision, "image_size") else int(vision.pretrained_cfg["input_size"][-1])
    size = {"height": side, "width": side}
    if kind == "internvl":
        return transformers.InternVLProcessor(
            transformers.GotOcr2ImageProcessor(size=size, image_mean=_MEAN, image_std=_STD),
            tokenizer,
            transformers.InternVLVideoProcessor(size=size, image_mean=_MEAN, image_std=_STD),
            image_seq_length=config.image_seq_length,
            chat_template=template,
        )
    if kind == "aya_vision":
        return transformers.AyaVisionProcessor(
            transformers.GotOcr2ImageProcessor(size=size, image_mean=_MEAN, image_std=_STD),
            tokenizer,
            patch_size=_patch(vision) * config.downsample_factor,
            img_size=side,
            chat_template=template,
        )
    if kind == "idefics2":
        edges = {"shortest_edge": side, "longest_edge": side}
        return transformers.Idefics2Processor(
            transformers.Idefics2ImageProcessor(size=edges, image_mean=_MEAN, image_std=_STD),
            tokenizer,
            image_seq_len=config.perceiver_config.resampler_n_latents,
            chat_template=template,
        )
    extra = 1 if config.vision_feature_select_strategy == "default" else 0
    patch = _patch(vision) if hasattr(vision, "patch_size") else side // _grid(vision, side)
    return transformers.LlavaProcessor(
        transformers.SiglipImageProcessor(size=size, image_mean=_MEAN, image_std=_STD),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=extra,
        chat_template=template,
    )


def _grid(vision: Any, side: int) -> int:
    """Return the side of a convolutional tower's feature map."""
    import timm
    import torch

    with torch.device("meta"):
        more = vision.model_args or {}
        tower = timm.create_model(vision.architecture, pretrained=False, num_classes=0, global_pool="", **more)
        return int(tower(torch.empty(1, 3, side, side)).shape[-1])
