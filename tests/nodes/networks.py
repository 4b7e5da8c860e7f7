"""Configurations of tiny networks, one for each architecture that ComfyUI knows, in ComfyUI's own terms."""

WIDTH = 32  # of text embeddings; the smallest that ComfyUI's group norms allow in a network
POOLED = 32
SIZE_IDS = 6 * 256  # what SDXL is told about sizes
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": WIDTH,
    "num_res_blocks": [1, 1],
    "channel_mult": (1, 2),
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "context_dim": WIDTH,
    "legacy": False,
    "use_temporal_attention": False,
}
SDXL = {
    "context_dim": 2 * WIDTH,
    "adm_in_channels": POOLED + SIZE_IDS,
    "num_classes": "sequential",
    "use_linear_in_transformer": True,
    "num_heads": -1,
    "num_head_channels": 16,
}
SD3 = {
    "in_channels": 16,
    "input_size": None,
    "patch_size": 2,
    "depth": 1,  # 64 wide
    "num_blocks": 2,
    "pos_embed_max_size": 16,
    "num_patches": 256,
    "pos_embed_scaling_factor": None,
    "adm_in_channels": POOLED,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": 64}},
}
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": POOLED,
    "context_in_dim": WIDTH,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 1,
    "depth_single_blocks": 1,
    "axes_dim": [4, 6, 6],
    "theta": 10_000,
    "qkv_bias": True,
    "txt_ids_dims": [],
}
CHROMA = {
    **{name: FLUX[name] for name in ("context_in_dim", "hidden_size", "mlp_ratio", "num_heads", "depth", "patch_size")},
    **{name: FLUX[name] for name in ("depth_single_blocks", "axes_dim", "theta", "qkv_bias", "txt_ids_dims")},
    "image_model": "chroma",
    "in_channels": 64,  # counted after the cut into patches
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 32,
    "hidden_dim": 32,
    "n_layers": 1,
    "vec_in_dim": None,
}
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,  # here, too
    "num_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": WIDTH,
    "pooled_projection_dim": POOLED,
    "axes_dims_rope": (4, 6, 6),
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "patch_size": (1, 2, 2),
    "text_len": 8,
    "in_dim": 16,
    "dim": 32,
    "ffn_dim": 32,
    "freq_dim": 16,
    "text_dim": WIDTH,
    "out_dim": 16,
    "num_heads": 2,
    "num_layers": 1,
}
FLUX2 = {
    **{name: FLUX[name] for name in ("context_in_dim", "hidden_size", "num_heads", "depth", "depth_single_blocks")},
    "image_model": "flux2",
    "in_channels": 128,  # patches of 2x2, kept as channels by the autoencoder
    "out_channels": 128,
    "patch_size": 1,
    "vec_in_dim": None,
    "mlp_ratio": 3.0,
    "axes_dim": [4, 4, 4, 4],
    "theta": 2000,
    "qkv_bias": False,
    "ops_bias": False,
    "global_modulation": True,
    "mlp_silu_act": True,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
}
LUMINA = {
    "image_model": "lumina2",
    "in_channels": 16,
    "patch_size": 2,
    "dim": 32,
    "cap_feat_dim": WIDTH,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 1,
    "multiple_of": 8,
    "axes_dims": [4, 6, 6],
    "axes_lens": [64, 64, 64],
    "qk_norm": True,
}
Z_IMAGE = {
    **LUMINA,
    "dim": 256,  # the least that its modulation takes
    "n_heads": 16,
    "n_kv_heads": 16,
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
HUNYUAN = {
    **{name: FLUX[name] for name in ("context_in_dim", "hidden_size", "mlp_ratio", "num_heads", "depth", "qkv_bias")},
    "image_model": "hunyuan_video",
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": [1, 1],
    "vec_in_dim": None,
    "depth_single_blocks": 1,
    "axes_dim": [8, 8],
    "theta": 256,
    "byt5": False,
    "guidance_embed": False,
    "meanflow": False,
    "meanflow_sum": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
LAYERS = 3  # that HiDream reads of its second encoder
HIDREAM = {
    "image_model": "hidream",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "num_layers": 1,
    "num_single_layers": 2,
    "llama_layers": [0, 1, 2],
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "axes_dims_rope": [4, 6, 6],
    "caption_channels": [WIDTH, WIDTH],
    "text_emb_dim": POOLED,
    "max_resolution": [32, 32],
    "num_routed_experts": 2,
    "num_activated_experts": 1,
}
AURA = {
    "cond_seq_dim": WIDTH,
    "dim": 32,
    "n_layers": 2,
    "n_double_layers": 1,
    "n_heads": 2,
    "global_conddim": 32,
    "max_seq": 64,
}
PIXART = {
    "image_model": "pixart_alpha",
    "hidden_size": 48,
    "depth": 1,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "caption_channels": WIDTH,
    "model_max_length": 8,
    "micro_condition": True,
}
