# %% [markdown]
# # 7. Take Qwen2 apart
#
# 151,936 tokens, vectors of 2,048, feed-forward of 11,008, 16 blocks, 32 heads. We count every
# number of it without allocating one, then run the same architecture at a small size and name each
# part that a batch of (4, 30) ids passes. At the end Llama 3 stands beside the figure of 2017.
#
# # 第七课：拆开 Qwen2
#
# 词表 151,936，向量 2,048 维，前馈 11,008 维，16 层，32 个头。我们不分配内存就数清它的每一个数，
# 再以小尺寸运行同样的结构，说出形状为 (4, 30) 的一批 id 经过的每个部件。
# 最后把 Llama 3 放在 2017 年的图旁边。

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.models import param_shapes
from jaxlm.tokenizer import AbsentTokenizer

V, D, F, L, N = 151_936, 2_048, 11_008, 16, 32
H = D // N

# %% [markdown]
# ## Counted without allocating
#
# `param_shapes` asks JAX which arrays the model would have. Nothing is computed.
#
# ## 不分配内存地数
#
# `param_shapes` 问 JAX：这个模型会有哪些数组？什么都不计算。

# %%
sizes = {"d_model": D, "d_ff": F, "num_layers": L, "num_heads": N, "num_kv_heads": N}
config = jaxlm.preset("qwen2", vocab_size=V, tie_embeddings=False, **sizes)
shapes = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(param_shapes(config))
}
for name, shape in shapes.items():
    if "layers_" not in name or "layers_0/" in name:
        print(f"{name:48s} {shape!s:18s} {np.prod(shape):>13,}")

# %% [markdown]
# And by hand. Attention: four matrices, and biases for queries, keys and values only. Feed-forward:
# three matrices, for it is gated. Norms: a scale each.
#
# 再手算一遍。注意力：四个矩阵，只有查询、键、值带偏置。前馈：因为有门控，是三个矩阵。
# 归一化：各一个缩放向量。

# %%
attention = 4 * D * D + 3 * D
feed_forward = 3 * D * F
norms = 2 * D
block = attention + feed_forward + norms
total = V * D + L * block + D + D * V
print(f"attention {attention:,}, feed-forward {feed_forward:,}, block {block:,}")
print(f"all {total:,} numbers: {total * 2 / 1e9:.2f} GB in bfloat16")
assert total == jaxlm.num_params(config) == sum(map(np.prod, shapes.values()))
assert total == 1_973_061_632

# %%
parts = {"embeddings": V * D, "attention": L * attention, "feed-forward": L * feed_forward}
parts |= {"norms": L * norms + D, "head": D * V}
assert sum(parts.values()) == total
plt.figure(figsize=(6, 1.8))
plt.barh(list(parts), [count / 1e6 for count in parts.values()])
plt.xlabel("million parameters / 百万参数")
plt.show()

# %% [markdown]
# ## Run small, on (4, 30) ids
#
# The same structure with every size divided by 32 and two blocks: a few megabytes.
#
# ## 小尺寸运行，输入 (4, 30)
#
# 同样的结构，各尺寸除以 32，两层：只有几兆字节。

# %%
small = jaxlm.preset(
    "qwen2",
    vocab_size=V // 32,
    d_model=D // 32,
    d_ff=F // 32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    max_seq_len=64,
    tie_embeddings=False,
)
model = jaxlm.CausalLM(small)
ids = jax.random.randint(jax.random.key(0), (4, 30), 0, small.vocab_size)
params = model.init(jax.random.key(1), ids)["params"]
loaded = jaxlm.Loaded(model, params, AbsentTokenizer("ids only"), model.config)
logits, found = inspection.run(loaded, ids, "**")
for name, value in found.items():
    if "layers_1" not in name:
        print(f"{name:36s} {value.shape}")
print(f"{'logits':36s} {logits.shape}")
assert logits.shape == (4, 30, 4748)

# %% [markdown]
# ## RMSNorm
#
# Divide each vector by the root of its mean square, times a learned scale. No mean is subtracted,
# no bias added.
#
# 每个向量除以自己的均方根，再乘学到的缩放。不减均值，不加偏置。

# %%
layer = params["backbone"]["layers_0"]
x = np.asarray(found["layers_0/residual_in"])
root = np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6)
normed = x / root * np.asarray(layer["attention_norm"]["scale"])
assert np.abs(normed - found["layers_0/attention_norm"]).max() < 1e-5
print("RMSNorm by hand agrees / 手算一致")

# %% [markdown]
# ## Rotary positions
#
# Queries and keys are turned, each pair of numbers by an angle that grows with the position. The
# score of two tokens then depends on their distance alone: shift all positions by 7, and no weight
# changes.
#
# ## 旋转位置编码
#
# 查询和键按位置旋转，每一对数转一个角度。两个词元的得分于是只取决于距离：
# 所有位置都加 7，注意力权重不变。

# %%
positions = jnp.broadcast_to(jnp.arange(30), (4, 30))
one, at_0 = inspection.run(loaded, ids, "layers_0/attention/*", positions=positions)
two, at_7 = inspection.run(loaded, ids, "layers_0/attention/*", positions=positions + 7)
turned = np.abs(at_7["layers_0/attention/query"] - at_0["layers_0/attention/query"]).max()
moved = np.abs(at_7["layers_0/attention/weights"] - at_0["layers_0/attention/weights"]).max()
print(
    f"queries change by {turned:.2f}, weights by {moved:.1e}, logits by {abs(two - one).max():.1e}"
)
assert turned > 0.1
assert moved < 1e-4

# %% [markdown]
# ## The gated feed-forward (SwiGLU)
#
# $\mathrm{down}(\mathrm{silu}(x W_{gate}) \cdot x W_{up})$
#
# ## 带门控的前馈网络（SwiGLU）

# %%
y = np.asarray(found["layers_0/feed_forward_norm"])
gate, up, down = (
    np.asarray(layer["feed_forward"][name]["kernel"]) for name in ["gate", "up", "down"]
)
hidden = (y @ gate) / (1 + np.exp(-(y @ gate))) * (y @ up)
assert np.abs(hidden - found["layers_0/feed_forward/hidden"]).max() < 1e-4
assert np.abs(hidden @ down - found["layers_0/feed_forward"]).max() < 1e-4

# %% [markdown]
# ## The residual stream is a sum
#
# A block adds two vectors to what it was given, nothing else.
#
# ## 残差流是一个和
#
# 每一层只做一件事：给收到的向量加上两个向量。

# %%
total_stream = found["embeddings"]
for i in range(2):
    total_stream = total_stream + found[f"layers_{i}/attention"] + found[f"layers_{i}/feed_forward"]
assert jnp.abs(total_stream - found["layers_1/residual"]).max() < 1e-4

# %% [markdown]
# ## Llama 3 beside the figure of 2017
#
# Two configs, the same code. Eight years of architecture are the lines that differ.
#
# ## Llama 3 与 2017 年的图
#
# 两份配置，同一套代码。八年的结构变化，就是下面不同的几行。

# %%
llama3 = jaxlm.preset(
    "llama", vocab_size=128_256, d_ff=14_336, num_kv_heads=8, max_seq_len=8_192, rope_theta=5e5
)
paper = jaxlm.preset("transformer")
names = ["architecture", "norm", "norm_position", "positions", "activation", "gated", "bias"]
names += ["num_layers", "d_model", "num_heads", "num_kv_heads", "d_ff", "vocab_size"]
for name in names:
    print(f"{name:16s} {getattr(paper.resolved(), name)!s:18s} {getattr(llama3.resolved(), name)}")
print(f"{'parameters':16s} {jaxlm.num_params(paper):<18,} {jaxlm.num_params(llama3):,}")
assert jaxlm.num_params(llama3) == 8_030_261_248
assert abs(jaxlm.num_params(paper) - 63e6) < 1e6

# %% [markdown]
# Llama 3 keeps 8 heads of keys and values for 32 of queries: its KV cache is a quarter as large.
#
# Llama 3 的 32 个查询头共用 8 个键值头：KV 缓存只有四分之一。

# %%
per_token = [2 * 32 * kv_heads * 128 * 2 for kv_heads in (32, 8)]  # bytes in bfloat16
print("KV cache a token:", *(f"{size / 1024:.0f} KB" for size in per_token))
assert per_token[0] == 4 * per_token[1]

# %% [markdown]
# ## Your turn
#
# How many numbers has the same model with `tie_embeddings=True`, and with 4 heads of keys and
# values? Compute it first, then ask `jaxlm.num_params`.
#
# ## 轮到你了
#
# `tie_embeddings=True` 时有多少个数？键值头只有 4 个时呢？先算，再问 `jaxlm.num_params`。
