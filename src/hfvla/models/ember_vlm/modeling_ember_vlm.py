"""EmberVLM: timm vision tower, projector, causal language model, fusion and robot-selection head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers import initialization as init
from transformers.utils import ModelOutput

from hfvla.losses.selection import bernoulli_consistency
from hfvla.losses.text import IGNORE_INDEX
from hfvla.losses.weighing import weighted_sum
from hfvla.models.ember_vlm.answering import RobotInferenceMixin
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.models.ember_vlm.fusion import PromptFusion, PromptStates, SelectionHead
from hfvla.models.ember_vlm.losses import TEXT_KINDS, RobotObjectives
from hfvla.nn.loading import AlignedPreTrainedModel
from hfvla.nn.noise import RowGenerator
from hfvla.nn.pooling import masked_mean
from hfvla.nn.projector import VisualProjector
from hfvla.nn.timm_tower import TimmTower

__all__ = ["TEXT_KINDS", "EmberVLMForRobotSelection", "EmberVLMOutput", "EmberVLMPreTrainedModel"]


@dataclass
class EmberVLMOutput(ModelOutput):
    """Output of `EmberVLMForRobotSelection`.

    Shapes: B sequences, R robots, N predicted tokens, V vocabulary.

    Args:
        loss (`Tensor`, *optional*): [] weighted sum of `loss_terms` by `config.loss_weights`.
        loss_terms (`dict[str, Tensor]`, *optional*): unweighted scalars by name.
        selection_logits (`Tensor`): [B, R] uncalibrated log-odds that a robot suits the task.
        verdict_logits (`Tensor`, *optional*): [B, R] log-odds of "yes" over "no" written in the chain of thought.
        logits (`Tensor`, *optional*): [N, V] at the labelled positions only, in batch order.
        row_losses (`dict[str, Tensor]`, *optional*): [2, B] by term of texts: what each sequence sums up to, and over
            how many; where `source_ids` are given.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    selection_logits: Tensor | None = None
    verdict_logits: Tensor | None = None
    logits: Tensor | None = None
    row_losses: dict[str, Tensor] | None = None


class EmberVLMPreTrainedModel(AlignedPreTrainedModel):
    """Base class: weight initialisation and what transformers asks a model class to state."""

    config_class = EmberVLMConfig
    base_model_prefix = "ember_vlm"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules: tuple[str, ...] = ("GPT2Block",)  # of the default; an instance takes its language model's
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; convolutions keep their scale, or a frozen random tower would output zeros."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PromptFusion):
            init.normal_(module.no_image, std=self.config.initializer_range)
        elif isinstance(module, EmberVLMForRobotSelection):
            init.constant_(module.log_temperature, float(torch.tensor(self.config.temperature_init).log()))


class EmberVLMForRobotSelection(RobotInferenceMixin, RobotObjectives, EmberVLMPreTrainedModel):
    """Picks robots for a task and a scene, and writes its reasoning and plan.

    The selection head sees the prompt only (image and task), never the chain of thought.
    """

    def __init__(self, config: EmberVLMConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        grid = (config.visual_grid[0], config.visual_grid[1]) if config.visual_grid else None
        vision = config.vision_config
        self.vision = TimmTower(vision.architecture, vision.model_args, config.vision_hidden_size)
        self.projector = VisualProjector(config.vision_hidden_size, width, grid)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.fusion = PromptFusion(config)
        self.selection_head = SelectionHead(config)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self._no_split_modules = tuple(self.language_model._no_split_modules or ())
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the (tied) output layer of the language model."""
        return self.language_model.get_output_embeddings()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Encode [N, 3, S, S] pixels to [N, num_visual_tokens, D] language-space tokens."""
        return self.projector(self.encode_pixels(pixel_values))

    def encode_pixels(self, pixel_values: Tensor) -> Tensor:
        """Encode [N, 3, S, S] pixels to the vision tower's maps [N, C, h, w]: what the feature cache keeps."""
        return self.vision(pixel_values.to(self.projector.up.weight.dtype))

    def embed(
        self, input_ids: Tensor, pixel_values: Tensor | None, image_features: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Embed tokens and write the projected images, from pixels or the tower's maps, over `<image>` placeholders.

        Returns:
            `tuple`: [B, T, D] embeddings, and [N, tokens, D] image features or None.

        Raises:
            ValueError: placeholders and images do not match in number, or pixels and maps are both given.
        """
        if pixel_values is not None and image_features is not None:
            raise ValueError("pixel_values and image_features are both given; a batch has one of them")
        embeddings = self.get_input_embeddings()(input_ids)
        image_mask = input_ids == self.config.image_token_id
        maps = self.encode_pixels(pixel_values) if pixel_values is not None else image_features
        features = None if maps is None else self.projector(maps.to(self.projector.up.weight.dtype))
        images, tokens = (0, 0) if features is None else features.shape[:2]
        if int(image_mask.sum()) != images * tokens:
            raise ValueError(
                f"{int(image_mask.sum())} <image> placeholders in input_ids but {images * tokens} image features "
                f"({images} images of {self.config.num_visual_tokens} tokens)"
            )
        if features is not None:
            embeddings = embeddings.masked_scatter(image_mask[..., None], features.to(embeddings.dtype))
        return embeddings, features

    def prompt_masks(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return bool masks [B, T] of the prompt's text tokens and of its image tokens (nothing after the prompt).

        Only the labels [B, T] tell a caption or an answer in a dialogue from the prompt before it.
        """
        answered = (input_ids == self.config.reasoning_start_token_id).cumsum(1) > 0
        if labels is not None:
            answered = answered | (labels != IGNORE_INDEX)
        image = input_ids == self.config.image_token_id
        return attention_mask.bool() & ~answered & ~image, image

    def run_language_model(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Return last hidden states [B, T, D]; positions count valid tokens, so left and right padding agree."""
        positions = (attention_mask.long().cumsum(1) - 1).clamp_min(0)
        return self.language_model.base_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=positions, use_cache=False
        ).last_hidden_state

    def drop_words(
        self, embeddings: Tensor, text_mask: Tensor, generator: RowGenerator | None = None
    ) -> tuple[Tensor, Tensor]:
        """While training, blank a share of the prompt's words: no single word may decide alone.

        Args:
            embeddings (`Tensor`): [B, T, D].
            text_mask (`Tensor`): [B, T] bool; the prompt's text tokens.
            generator (`RowGenerator`, *optional*): which words go; torch's own stream when not given.

        Returns:
            `tuple`: embeddings with zeros for dropped words, and the mask without them.
        """
        if not (self.training and self.config.word_dropout):
            return embeddings, text_mask
        if generator is None:
            drawn = torch.rand(text_mask.shape, device=text_mask.device)
        else:  # by the word's place among the words: padding moves none
            drawn = generator.uniform_at(text_mask.long().cumsum(1), "words")
        dropped = text_mask & (drawn < self.config.word_dropout)
        return embeddings.masked_fill(dropped[..., None], 0.0), text_mask & ~dropped

    def read_prompts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        generator: RowGenerator | None = None,
    ) -> PromptStates:
        """Run the language model, and pool of each prompt what the selection head reads; shapes as in `forward`."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        embeddings, features = self.embed(input_ids, pixel_values, image_features)
        text_mask, image_mask = self.prompt_masks(input_ids, attention_mask, labels)
        embeddings, text_mask = self.drop_words(embeddings, text_mask, generator)
        hidden = self.run_language_model(embeddings, attention_mask)
        averaged = ((hidden, text_mask), (embeddings, text_mask), (embeddings, image_mask))
        pooled = torch.stack([masked_mean(states, mask) for states, mask in averaged], 1)
        return PromptStates(pooled, image_mask.any(1), hidden, features)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        text_kind: Tensor | None = None,
        robot_labels: Tensor | None = None,
        robot_mask: Tensor | None = None,
        verdict_positions: Tensor | None = None,
        caption_input_ids: Tensor | None = None,
        caption_attention_mask: Tensor | None = None,
        ngram_ids: Tensor | None = None,
        noise_seeds: Tensor | None = None,
        source_ids: Tensor | None = None,
        prompt_states: Tensor | None = None,
        prompt_pictures: Tensor | None = None,
    ) -> EmberVLMOutput:
        """Select robots and, where labels are given, compute every loss term the batch allows.

        Shapes: B sequences, T tokens, N images (in sequence order), R robots, C caption tokens.

        Args:
            input_ids (`Tensor`): [B, T] long; an image is `config.num_visual_tokens` placeholders.
            attention_mask (`Tensor`, *optional*): [B, T]; 1 = valid.
            pixel_values (`Tensor`, *optional*): [N, 3, S, S] normalised.
            image_features (`Tensor`, *optional*): [N, C, h, w] maps of the vision tower, in place of `pixel_values`.
            labels (`Tensor`, *optional*): [B, T] long, the token itself where it is predicted, else -100.
            text_kind (`Tensor`, *optional*): [B] long index into `TEXT_KINDS`; needed with labels.
            robot_labels (`Tensor`, *optional*): [B, R] 0 or 1.
            robot_mask (`Tensor`, *optional*): [B] bool; True where `robot_labels` holds a gold set.
            verdict_positions (`Tensor`, *optional*): [B, R] long, index of each robot's yes/no token, or -1.
            caption_input_ids (`Tensor`, *optional*): [K, C] captions alone, paired with the K caption sequences'
                images.
            caption_attention_mask (`Tensor`, *optional*): [K, C].
            ngram_ids (`Tensor`, *optional*): [B, G] hashed n-grams of each prompt, 0 = padding; needed with
                `config.ngram_buckets`.
            noise_seeds (`Tensor`, *optional*): [B] long, what the dropout of each prompt's words is drawn from,
                whatever batch it is in. Default: torch's own stream.
            source_ids (`Tensor`, *optional*): [B] long, where each sequence comes from; with it, `row_losses`.
            prompt_states (`Tensor`, *optional*): [B, 3, D] of `read_prompts`, in place of `input_ids`; nothing but the
                selection can be computed from them.
            prompt_pictures (`Tensor`, *optional*): [B] bool; True = the prompt has a picture. Needed with them.

        Returns:
            `EmberVLMOutput`

        Raises:
            ValueError: neither or both of `input_ids` and `prompt_states` are given.
        """
        generator = None if noise_seeds is None else RowGenerator(noise_seeds)
        if input_ids is None:
            read = PromptStates.kept(prompt_states, prompt_pictures, self.fusion.mix.weight.dtype)
        elif prompt_states is None:
            read = self.read_prompts(input_ids, attention_mask, pixel_values, image_features, labels, generator)
        else:
            raise ValueError("forward takes either input_ids, or prompt_states with prompt_pictures; both are given")
        fused = self.fusion(*read.pooled.unbind(1), read.pictures, ngram_ids, generator)
        selection_logits = self.selection_head(fused).float()
        terms: dict[str, Tensor] = {}
        logits = verdict_logits = row_losses = None
        if robot_labels is not None:
            valid = torch.ones_like(robot_labels[:, 0], dtype=torch.bool) if robot_mask is None else robot_mask
            if valid.any():
                terms["selection"] = self._selection_loss(selection_logits[valid], robot_labels[valid])
        if labels is not None:
            logits, text_terms, row_losses = self._text_losses(read.states, labels, text_kind, source_ids is not None)
            terms.update(text_terms)
        if verdict_positions is not None and (verdict_positions >= 0).any():
            verdict_logits = self._verdicts(read.states, verdict_positions)
            terms["consistency"] = bernoulli_consistency(selection_logits, verdict_logits, verdict_positions >= 0)
        if caption_input_ids is not None:
            terms |= self._contrastive(read.captioned(text_kind), caption_input_ids, caption_attention_mask)
        return EmberVLMOutput(
            loss=weighted_sum(terms, self.config.loss_weights),
            loss_terms=terms or None,
            selection_logits=selection_logits,
            verdict_logits=verdict_logits,
            logits=logits,
            row_losses=row_losses or None,
        )

    def embed_captions(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode captions [K, C] to [K, D], the mean over tokens; the mean of image features lies in their space."""
        hidden = self.run_language_model(self.embed(input_ids, None)[0], attention_mask)
        return masked_mean(hidden, attention_mask.bool())


AutoModel.register(EmberVLMConfig, EmberVLMForRobotSelection, exist_ok=True)
