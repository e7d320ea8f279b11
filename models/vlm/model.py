"""The vision-language model: build, open, save, train on batches, generate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fovea.config import Config
from fovea.errors import ConfigError, ModelError
from models.text.tokenizer import IMAGE, PAD, load_tokenizer, token_id
from models.vlm.connectors import ShuffleMLP
from models.vlm.grammar import CallGrammar
from models.vlm.mimetic import mimetic
from models.vlm.towers import ImageTower, build_tower, rebuild_tower
from models.weights import WEIGHTS, load_into, read_json, save_tensors, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100


class VisionLanguageConfig(Config):
    """What a new model is made of."""

    tower: str
    """Image tower: openclip:, timm: or hf: with a folder or hub name."""
    factor: int = Field(default=1, ge=1)
    """The connector merges factor × factor visual tokens into one."""
    decoder: str | dict[str, Any]
    """Pretrained decoder (folder or hub name), or a transformers config with its model_type for a new one."""


@dataclass(frozen=True)
class Batch:
    """Packed conversations, one row of the batch after another.

    ids, positions, labels: int (row, token). visible: bool (row, token), False for gaps and padding.
    mask: bool (row, 1, token, token), True where a token may look.
    features: float (image, token, channel), what the tower saw of the images in order of their mention, or the
    pictures themselves, uint8 (image, row, column, 3), for a tower that learns.
    Labels are IGNORED wherever the assistant does not speak. weights: float (row, token), how much each label counts.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    mask: Tensor
    labels: Tensor
    weights: Tensor
    features: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, item.name).to(device) for item in fields(self)))


@dataclass(frozen=True)
class Prompt:
    """Token ids with a placeholder for each visual token, which of them are visible, and its images' features."""

    ids: Sequence[int]
    visible: Sequence[bool]
    features: Tensor


@dataclass(frozen=True)
class Generated:
    """What was written, and the mean probability of its tokens."""

    text: str
    confidence: float


class VisionLanguageModel(nn.Module):
    """An image tower, a token-reducing connector and a decoder of transformers (LLaVA, Liu et al. 2023)."""

    def __init__(
        self, tower: ImageTower, connector: ShuffleMLP, decoder: Any, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__()
        self.tower, self.connector, self.decoder, self.tokenizer = tower, connector, decoder, tokenizer
        self.image_id = token_id(tokenizer, IMAGE)
        self.pad_id = token_id(tokenizer, PAD if tokenizer.pad_token is None else str(tokenizer.pad_token))
        types = set(getattr(decoder.config, "layer_types", None) or ("full_attention",))
        if types - {"full_attention", "conv"}:
            raise ConfigError(f"a decoder with layers {sorted(types)}", "full attention and short convolutions only")
        self.gap = int(decoder.config.conv_L_cache) - 1 if "conv" in types else 0

    @classmethod
    def build(cls, config: VisionLanguageConfig, tokenizer: PreTrainedTokenizerBase) -> VisionLanguageModel:
        """A model from a recipe; the tower keeps its weights, the connector is new."""
        from transformers import AutoModelForCausalLM

        tower = build_tower(config.tower)
        if isinstance(config.decoder, str):
            try:
                decoder: Any = AutoModelForCausalLM.from_pretrained(config.decoder)
            except (OSError, ValueError) as error:
                raise ModelError(
                    f"decoder {config.decoder!r} cannot be opened ({error})", "a folder or hub name"
                ) from None
            if decoder.get_input_embeddings().num_embeddings < len(tokenizer):
                decoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        else:
            decoder = mimetic(_new_decoder({**config.decoder, "vocab_size": len(tokenizer)}, tokenizer))
        width = decoder.get_input_embeddings().embedding_dim
        return cls(tower, ShuffleMLP(tower.channels, width, tower.grid, config.factor), decoder, tokenizer)

    @classmethod
    def open(cls, folder: Path) -> VisionLanguageModel:
        """A model saved by `save`; raises ModelError when the folder holds none."""
        config = read_json(folder / "config.json")
        tokenizer = load_tokenizer(folder)
        tower = rebuild_tower(config["tower"])
        decoder = _new_decoder(config["decoder"], tokenizer)
        width = decoder.get_input_embeddings().embedding_dim
        model = cls(tower, ShuffleMLP(tower.channels, width, tower.grid, config["factor"]), decoder, tokenizer)
        load_into(model, folder / WEIGHTS)
        return model.eval()

    def save(self, folder: Path) -> None:
        """Write config, tokenizer and weights (safetensors): all that `open` needs."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        decoder = self.decoder.config.to_dict()
        write_json(
            folder / "config.json",
            {"tower": self.tower.description, "factor": self.connector.factor, "decoder": decoder},
        )
        save_tensors(self.state_dict(), folder / WEIGHTS)

    def expand(self, ids: Sequence[int]) -> tuple[list[int], list[bool], int]:
        """Put placeholders and a gap in the place of each picture: ids, which are visible, and where the first
        picture's gap ends (0 without a picture)."""
        out, visible, first = [], [], 0
        for token in ids:
            if token == self.image_id:
                out += [token] * self.connector.tokens + [self.pad_id] * self.gap
                visible += [True] * self.connector.tokens + [False] * self.gap
                first = first or len(out)
            else:
                out.append(token)
                visible.append(True)
        return out, visible, first

    def _masks(self, batch: Batch) -> Any:
        """The mask for each type of layer that the decoder has."""
        types = set(getattr(self.decoder.config, "layer_types", None) or ())
        if not types:
            return batch.mask
        return {kind: batch.visible if kind == "conv" else batch.mask for kind in types}

    @torch.no_grad()
    def look(self, pixels: Tensor) -> Tensor:
        """What the frozen tower sees of uint8 (image, row, column, 3): float (image, token, channel)."""
        training = self.tower.training
        features: Tensor = self.tower.eval()(pixels).tokens
        self.tower.train(training)
        return features

    def embed(self, ids: Tensor, features: Tensor) -> Tensor:
        """Token embeddings (row, token, width) with the images' tokens in the places that ids hold for them."""
        out: Tensor = self.decoder.get_input_embeddings()(ids)
        places = ids == self.image_id
        if int(places.sum()) != len(features) * self.connector.tokens:
            raise ModelError(
                f"{int(places.sum())} image places for {len(features)} images",
                f"{self.connector.tokens} places an image",
            )
        if features.dtype == torch.uint8:
            features = self.tower(features).tokens
        if len(features):
            out = out.masked_scatter(places[..., None], self.connector(features).to(out.dtype))
        return out

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted sum of the cross-entropy over the supervised tokens, and the sum of their weights."""
        hidden = self.decoder.base_model(
            inputs_embeds=self.embed(batch.ids, batch.features),
            attention_mask=self._masks(batch),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        targets = batch.labels[:, 1:]
        spoken = targets != IGNORED
        logits = self.decoder.get_output_embeddings()(hidden[:, :-1][spoken])
        weights = batch.weights[:, 1:][spoken]
        return nn.functional.cross_entropy(logits.float(), targets[spoken], reduction="none") @ weights, weights.sum()

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], grammar: CallGrammar | None = None, limit: int = 48
    ) -> list[Generated]:
        """Greedy continuation of each prompt up to the end token or `limit` tokens, with a key-value cache."""
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        length = max(len(prompt.ids) for prompt in prompts)
        device = self.tower.mean.device
        ids = torch.tensor([[pad] * (length - len(p.ids)) + [*p.ids] for p in prompts], device=device)
        visible = torch.tensor([[False] * (length - len(p.ids)) + [*p.visible] for p in prompts], device=device)
        features = torch.cat([p.features for p in prompts]).to(ids.device)
        out = self.decoder.generate(
            inputs_embeds=self.embed(ids, features),
            attention_mask=visible.long(),
            logits_processor=[grammar] if grammar else None,
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=end,
            output_logits=True,
            return_dict_in_generate=True,
        )
        chosen = out.sequences  # (row, token), the continuation only
        probability = torch.stack(out.logits, 1).float().softmax(-1).gather(-1, chosen[..., None])[..., 0]
        written = chosen != pad
        confidence = (probability * written).sum(1) / written.sum(1).clamp(min=1)
        texts = [
            str(self.tokenizer.decode([t for t in row if t not in (pad, end)], skip_special_tokens=False)).strip()
            for row in chosen.tolist()
        ]
        return [Generated(text, float(c)) for text, c in zip(texts, confidence, strict=True)]


def _new_decoder(config: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {key: value for key, value in config.items() if key != "model_type"}
    special = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    built = AutoConfig.for_model(config["model_type"], **settings | {f"{k}_token_id": v for k, v in special.items()})
    return AutoModelForCausalLM.from_config(built)  # type: ignore[no-untyped-call]
