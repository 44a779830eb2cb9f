"""Transformers in small: random configurations whose sizes are all different."""

from __future__ import annotations

import dataclasses
import functools

import torch
from channel_models.source_export import Axes, Example, Source
from torch import nn

TEXT: Axes = {"input_ids": {0: "batch", 1: "sequence"}, "attention_mask": {0: "batch", 1: "sequence"}}
TOKENS: Axes = {"input_ids": {0: "batch", 1: "sequence"}}
IMAGES: Axes = {"pixel_values": {0: "batch"}}


class First(nn.Module):
    """The first outputs of a model that gives several, or a dictionary."""

    def __init__(self, model: nn.Module, *fields: str) -> None:
        super().__init__()
        self.model = model
        self.fields = fields

    def forward(self, **inputs):
        output = self.model(**inputs)
        return tuple(output[field] for field in self.fields) if self.fields else output[0]


def tokens(batch: int = 2, length: int = 7, *, low: int = 3) -> torch.Tensor:
    return torch.randint(low, 20, (batch, length))


def text(batch: int = 2, length: int = 7) -> Example:
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, -2:] = 0
    return {"input_ids": tokens(batch, length), "attention_mask": mask}


def image(size: int, channels: int = 3) -> Example:
    return {"pixel_values": torch.randn(2, channels, size, size)}


ENCODER = {
    "vocab_size": 57,
    "hidden_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 44,
    "max_position_embeddings": 33,
}
DECODER = {
    "vocab_size": 59,
    "hidden_size": 36,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 41,
    "use_cache": False,
}


def bert() -> tuple[nn.Module, Example]:
    from transformers import BertConfig, BertForSequenceClassification

    return First(BertForSequenceClassification(BertConfig(**ENCODER, num_labels=5))), text()


def bert_eager() -> tuple[nn.Module, Example]:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**ENCODER, attn_implementation="eager"))
    return First(model, "last_hidden_state", "pooler_output"), text()


def distilbert() -> tuple[nn.Module, Example]:
    from transformers import DistilBertConfig, DistilBertForTokenClassification

    sizes = {"vocab_size": 57, "dim": 27, "n_layers": 2, "n_heads": 3, "hidden_dim": 46, "max_position_embeddings": 33}
    return First(DistilBertForTokenClassification(DistilBertConfig(**sizes, num_labels=5))), text()


def albert() -> tuple[nn.Module, Example]:
    from transformers import AlbertConfig, AlbertForMaskedLM

    return First(AlbertForMaskedLM(AlbertConfig(**ENCODER, embedding_size=13))), text()


def deberta_v2() -> tuple[nn.Module, Example]:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    extra = {
        "relative_attention": True,
        "position_buckets": 6,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
    }
    config = DebertaV2Config(**ENCODER, **extra, share_att_key=True, position_biased_input=False, num_labels=5)
    return First(DebertaV2ForSequenceClassification(config)), text()


def gpt2() -> tuple[nn.Module, Example]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=57, n_embd=30, n_layer=2, n_head=3, n_inner=44, n_positions=33, use_cache=False)
    return First(GPT2LMHeadModel(config)), {"input_ids": tokens()}


def gpt2_masked() -> tuple[nn.Module, Example]:
    return gpt2()[0], text()


def llama_positions() -> tuple[nn.Module, Example]:
    return llama()[0], {"input_ids": tokens(), "position_ids": torch.arange(7).expand(2, 7).contiguous()}


def llama() -> tuple[nn.Module, Example]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**DECODER, head_dim=10, tie_word_embeddings=False)
    return First(LlamaForCausalLM(config)), text()


def qwen2() -> tuple[nn.Module, Example]:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return First(Qwen2ForCausalLM(Qwen2Config(**{**DECODER, "hidden_size": 40}, tie_word_embeddings=True))), text()


def qwen3() -> tuple[nn.Module, Example]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return First(Qwen3ForCausalLM(Qwen3Config(**DECODER, head_dim=10))), {"input_ids": tokens()}


def qwen3_positions() -> tuple[nn.Module, Example]:
    return qwen3()[0], llama_positions()[1]


def phi() -> tuple[nn.Module, Example]:
    from transformers import PhiConfig, PhiForCausalLM

    sizes = {**DECODER, "hidden_size": 40, "num_key_value_heads": 4, "rope_parameters": None}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}
    return First(PhiForCausalLM(PhiConfig(**{**sizes, "rope_parameters": rope}))), {"input_ids": tokens()}


def gpt_neox() -> tuple[nn.Module, Example]:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {k: v for k, v in DECODER.items() if k != "num_key_value_heads"}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.4}
    config = GPTNeoXConfig(**{**sizes, "hidden_size": 40}, rope_parameters=rope)
    return First(GPTNeoXForCausalLM(config)), text()


def falcon() -> tuple[nn.Module, Example]:
    from transformers import FalconConfig, FalconForCausalLM

    sizes = {
        "vocab_size": 59,
        "hidden_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_hidden_size": 51,
    }
    config = FalconConfig(**sizes, multi_query=True, alibi=False, max_position_embeddings=41, use_cache=False)
    return First(FalconForCausalLM(config)), text()


def gemma() -> tuple[nn.Module, Example]:
    from transformers import GemmaConfig, GemmaForCausalLM

    return First(GemmaForCausalLM(GemmaConfig(**DECODER, head_dim=10, tie_word_embeddings=True))), text()


def mobilebert() -> tuple[nn.Module, Example]:
    from transformers import MobileBertConfig, MobileBertForSequenceClassification

    sizes = {**ENCODER, "embedding_size": 17, "intra_bottleneck_size": 24, "true_hidden_size": 24}
    config = MobileBertConfig(**sizes, num_feedforward_networks=2, num_labels=5)
    return First(MobileBertForSequenceClassification(config)), text()


def dinov2() -> tuple[nn.Module, Example]:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {k: ENCODER[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    config = Dinov2Config(**sizes, image_size=24, patch_size=8, mlp_ratio=2, use_swiglu_ffn=True, layerscale_value=0.9)
    return First(Dinov2Model(config)), image(24)


def vit() -> tuple[nn.Module, Example]:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {k: ENCODER[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
    config = ViTConfig(**sizes, image_size=24, patch_size=8, num_labels=5)
    return First(ViTForImageClassification(config)), image(24)


def clip() -> tuple[nn.Module, Example]:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 3}
    text_config = {**sizes, "vocab_size": 57, "hidden_size": 30, "intermediate_size": 44, "max_position_embeddings": 33}
    vision_config = {**sizes, "hidden_size": 27, "intermediate_size": 46, "image_size": 24, "patch_size": 8}
    text_config |= {"eos_token_id": 19, "bos_token_id": 0, "pad_token_id": 1}
    model = CLIPModel(CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=21))
    return First(model, "logits_per_image", "text_embeds"), text() | image(24)


def swin() -> tuple[nn.Module, Example]:
    from transformers import SwinConfig, SwinForImageClassification

    sizes = {"embed_dim": 18, "depths": [2, 2], "num_heads": [2, 3], "window_size": 4, "mlp_ratio": 1.5}
    config = SwinConfig(**sizes, image_size=32, patch_size=4, num_labels=5)
    return First(SwinForImageClassification(config)), image(32)


def convnext() -> tuple[nn.Module, Example]:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[12, 18, 26], depths=[1, 2, 1], num_stages=3, num_labels=5, patch_size=4)
    return First(ConvNextForImageClassification(config)), image(32)


def segformer() -> tuple[nn.Module, Example]:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"hidden_sizes": [12, 18], "depths": [1, 1], "num_attention_heads": [1, 3], "sr_ratios": [2, 1]}
    more = {"num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "mlp_ratios": [2, 3]}
    config = SegformerConfig(**sizes, **more, decoder_hidden_size=22, num_labels=5)
    return First(SegformerForSemanticSegmentation(config)), image(32)


def mobilevit() -> tuple[nn.Module, Example]:
    from transformers import MobileViTConfig, MobileViTForImageClassification

    sizes = {"hidden_sizes": [18, 21, 24], "neck_hidden_sizes": [6, 8, 10, 12, 14, 16, 34], "mlp_ratio": 1.5}
    config = MobileViTConfig(
        **sizes, num_attention_heads=3, image_size=64, expand_ratio=2.0, output_stride=16, num_labels=5
    )
    return First(MobileViTForImageClassification(config)), image(64)


def t5() -> tuple[nn.Module, Example]:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 57, "d_model": 30, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 3}
    config = T5Config(**sizes, relative_attention_num_buckets=8, use_cache=False, decoder_start_token_id=0)
    example = {"input_ids": tokens(), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    return First(T5ForConditionalGeneration(config)), example | {"decoder_input_ids": tokens(length=6)}


def t5_gated() -> tuple[nn.Module, Example]:
    from transformers import T5Config, T5EncoderModel

    sizes = {"vocab_size": 57, "d_model": 30, "d_kv": 8, "d_ff": 44, "num_layers": 2, "num_heads": 3}
    config = T5Config(**sizes, relative_attention_num_buckets=8, feed_forward_proj="gated-gelu")
    return First(T5EncoderModel(config)), text()


def bart() -> tuple[nn.Module, Example]:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {"vocab_size": 57, "d_model": 30, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 33}
    more = {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 44, "decoder_ffn_dim": 46}
    config = BartConfig(**sizes, **more, use_cache=False)
    return First(BartForConditionalGeneration(config)), text() | {"decoder_input_ids": tokens(length=6)}


def whisper() -> tuple[nn.Module, Example]:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {"vocab_size": 57, "d_model": 30, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 10}
    more = {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 44, "decoder_ffn_dim": 46}
    special = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = WhisperConfig(**sizes, **more, **special, max_source_positions=9, max_target_positions=17, use_cache=False)
    example = {"input_features": torch.randn(2, 10, 18), "decoder_input_ids": tokens(length=6)}
    return First(WhisperForConditionalGeneration(config)), example


def whisper_masked() -> tuple[nn.Module, Example]:
    model, example = whisper()
    return model, example | {"decoder_attention_mask": torch.ones(2, 6, dtype=torch.int64)}


def wav2vec2(norm: str) -> tuple[nn.Module, Example]:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    sizes = {k: ENCODER[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}
    convolutions = {"conv_dim": [14, 18, 22], "conv_kernel": [10, 3, 3], "conv_stride": [5, 2, 2]}
    position = {"num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 5}
    more = {"feat_extract_norm": norm, "do_stable_layer_norm": norm == "layer", "conv_bias": norm == "layer"}
    config = Wav2Vec2Config(**sizes, **convolutions, **position, **more, vocab_size=23)
    return First(Wav2Vec2ForCTC(config)), {"input_values": torch.randn(2, 331)}


WAVES: Axes = {"input_values": {0: "batch", 1: "samples"}}
SEQ2SEQ: Axes = TEXT | {"decoder_input_ids": {0: "batch", 1: "target"}}


def sources() -> dict[str, Source]:
    """Sources by name; the spelling of another exporter or opset is `NAME_torchscript`, `NAME_opset23`."""
    table = {
        "bert": Source(make=bert, axes=TEXT, about="post-norm encoder, pooler, token type table"),
        "bert_eager": Source(
            make=bert_eager, axes=TEXT, opset=18, about="attention spelled out; sequence and pooled output"
        ),
        "distilbert": Source(make=distilbert, axes=TEXT, about="encoder, a label per token"),
        "albert": Source(make=albert, axes=TEXT, about="two layers share all weights; factorised, tied embedding"),
        "deberta_v2": Source(make=deberta_v2, axes=TEXT, about="disentangled attention, shared keys, GatherElements"),
        "gpt2": Source(make=gpt2, axes=TOKENS, about="packed QKV, Gemm on flattened tokens, tied embedding"),
        "llama": Source(make=llama, axes=TEXT, about="grouped queries, rotary positions, RMS norm, SwiGLU"),
        "qwen2": Source(make=qwen2, axes=TEXT, about="grouped queries with QKV bias, tied embedding"),
        "qwen3": Source(make=qwen3, axes=TOKENS, about="RMS norm of queries and keys per head"),
        "phi": Source(make=phi, axes=TOKENS, about="rotary positions on a part of each head, parallel block"),
        "gpt_neox": Source(make=gpt_neox, axes=TEXT, about="QKV packed per head, partial rotary, parallel residual"),
        "falcon": Source(make=falcon, axes=TEXT, about="one head of keys and values for all queries, packed with them"),
        "gemma": Source(make=gemma, axes=TEXT, about="GeGLU, scaled tied embedding, RMS norm by one plus weight"),
        "mobilebert": Source(
            make=mobilebert, axes=TEXT, about="bottlenecks, stacked perceptrons, affine in place of norm"
        ),
        "dinov2": Source(make=dinov2, axes=IMAGES, about="packed SwiGLU, layer scale, interpolated position table"),
        "vit": Source(make=vit, axes=IMAGES, about="patches, class token, position table, pre-norm"),
        "clip": Source(make=clip, axes=TEXT | {"pixel_values": {0: "images"}}, about="two towers meet in a product"),
        "swin": Source(
            make=swin,
            axes=IMAGES,
            exporter="torchscript",
            opset=17,
            about="shifted windows, relative bias, patch merging",
        ),
        "convnext": Source(make=convnext, axes=IMAGES, about="7x7 depthwise, LayerNorm over channels, layer scale"),
        "segformer": Source(
            make=segformer, axes=IMAGES, about="attention on a reduced map, depthwise FFN, Resize, concat"
        ),
        "mobilevit": Source(make=mobilevit, axes=IMAGES, about="convolutions and attention on unfolded patches"),
        "t5": Source(
            make=t5, axes=SEQ2SEQ, exporter="torchscript", opset=17, about="encoder-decoder, relative bias per head"
        ),
        "t5_gated": Source(make=t5_gated, axes=TEXT, exporter="torchscript", opset=17, about="encoder, gated GELU"),
        "bart": Source(make=bart, axes=SEQ2SEQ, about="encoder-decoder, cross-attention, embedding shared three times"),
        "whisper": Source(
            make=whisper,
            axes={"input_features": {0: "batch"}, "decoder_input_ids": {0: "batch", 1: "target"}},
            about="1-D convolutions into an encoder, decoder, tied output",
        ),
    }
    for norm in ("group", "layer"):
        about = f"raw audio, {norm} norm, positional convolution with computed weight"
        table[f"wav2vec2_{norm}"] = Source(make=functools.partial(wav2vec2, norm), axes=WAVES, about=about)
    for name in ("bert", "vit", "llama", "bart", "wav2vec2_group", "deberta_v2"):
        table[f"{name}_torchscript"] = _again(table[name], exporter="torchscript", opset=17)
    for name in ("bert", "gpt2", "vit", "whisper"):
        table[f"{name}_opset23"] = _again(table[name], exporter="dynamo", opset=23)
    masked = dataclasses.replace(table["gpt2"], make=gpt2_masked, axes=TEXT)
    table["gpt2_torchscript"] = _again(masked, exporter="torchscript", opset=17)
    axes = table["whisper"].axes | {"decoder_attention_mask": {0: "batch", 1: "target"}}
    masked = dataclasses.replace(table["whisper"], make=whisper_masked, axes=axes)
    table["whisper_torchscript"] = _again(masked, exporter="torchscript", opset=17)
    computed = dataclasses.replace(table["wav2vec2_group"], about=table["wav2vec2_group"].about + ", not folded")
    table["wav2vec2_computed"] = _again(computed, exporter="batch-norm", opset=17)
    # Without positions as an input the exporter's RotaryEmbedding gets tables of batch 1, which the operator forbids.
    positions = {name: {0: "batch", 1: "sequence"} for name in ("input_ids", "position_ids")}
    for name, make in (("llama", llama_positions), ("qwen3", qwen3_positions)):
        table[f"{name}_opset23"] = _again(
            dataclasses.replace(table[name], make=make, axes=positions), exporter="dynamo", opset=23
        )
    for name in ("t5", "swin"):
        table[f"{name}_dynamo"] = _again(table[name], exporter="dynamo", opset=20)
    return table


def _again(source: Source, *, exporter: str, opset: int) -> Source:
    return dataclasses.replace(source, about=source.about + ": spelled otherwise", exporter=exporter, opset=opset)
