# %% [markdown]
# # 2. Attention by hand
#
# A sentence of 26 tokens, vectors of 512 numbers, 8 heads of 64: the sizes of the 2017 paper. We
# compute multi-head attention in NumPy, line by line, and then ask jaxlm for the same numbers.
#
# # 第二课：手算注意力
#
# 一句 26 个词元的话，每个向量 512 个数，8 个头，每个头 64 维：正是 2017 年论文里的尺寸。
# 我们用 NumPy 一行一行地算多头注意力，再看 jaxlm 是否给出同样的数。

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.inspection.fonts import fonts_for
from jaxlm.nn.block import Attention
from jaxlm.tokenizer import train_tokenizer

TEXT = "写代码的中年人天天写代码，今天天气真好，他在写代码。"
T, D, N, H = 26, 512, 8, 64
assert len(TEXT) == T
assert N * H == D
plt.rcParams["font.family"] = ["DejaVu Sans", *fonts_for(TEXT)[0]]

# %% [markdown]
# ## Tokens to vectors
#
# Each character looks up its row of a table. The place of each is told by sines and cosines of
# many wavelengths, added on top.
#
# ## 词元变成向量
#
# 每个字从一张表里取出自己的一行；它的位置由许多波长的正弦和余弦表示，加在上面。

# %%
tokenizer = train_tokenizer("char", [TEXT])
ids = np.array(tokenizer.encode(TEXT))
print(f"{T} tokens, {tokenizer.vocab_size} different ones:", ids)
random = np.random.default_rng(0)
table = random.normal(size=(tokenizer.vocab_size, D)).astype(np.float32)


def places(length, width):
    """Sines in the even columns, cosines in the odd ones: (length, width)."""
    wavelengths = 10000 ** (np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] / wavelengths
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


x = (table[ids] + places(T, D)).astype(np.float32)
assert x.shape == (26, 512)

# %%
plt.figure(figsize=(6, 2.2))
plt.imshow(places(T, D)[:, :128], aspect="auto", cmap="RdBu")
plt.xlabel("the first 128 of 512 numbers / 前 128 维")
plt.ylabel("position")
plt.show()

# %% [markdown]
# ## Queries, keys, values
#
# Three matrices of 512 x 512 make three vectors of each token: what it looks for, what it offers
# to be found by, and what it hands over when it is found. Cut into 8 heads of 64.
#
# ## 查询、键、值
#
# 三个 512 x 512 的矩阵，从每个词元的向量得到三个向量：它在找什么（查询）、
# 它凭什么被找到（键）、被找到时它交出什么（值）。每个再切成 8 个头，每头 64 维。

# %%
W_q, W_k, W_v, W_o = (random.normal(size=(D, D)).astype(np.float32) * D**-0.5 for _ in range(4))


def heads(y):
    """(T, 512) as 8 heads: (8, T, 64)."""
    return y.reshape(T, N, H).transpose(1, 0, 2)


q, k, v = heads(x @ W_q), heads(x @ W_k), heads(x @ W_v)
print("q, k, v:", q.shape, k.shape, v.shape)
assert q.shape == (8, 26, 64)

# %% [markdown]
# ## Scores
#
# The score of a pair is the product of query and key. A sum of 64 products of numbers of size 1 has
# size 8, so it is divided by $\sqrt{64} = 8$: otherwise softmax would pick one key and forget the
# rest.
#
# ## 得分
#
# 一对词元的得分是查询与键的点积。64 个大小约为 1 的数相乘求和，大小约为 8，
# 所以除以 $\sqrt{64} = 8$；否则 softmax 会只挑一个键，忽略其余。

# %%
raw = q @ k.transpose(0, 2, 1)
scores = raw / np.sqrt(H)
print(f"spread before dividing {raw.std():.1f}, after {scores.std():.2f}")
assert raw.shape == (8, 26, 26)
assert 0.5 < scores.std() < 2.5

# %% [markdown]
# ## The causal mask and softmax
#
# A token must not see what comes after it, for that is what it has to predict. Such scores become
# minus infinity, whose exponential is 0.
#
# ## 因果掩码与 softmax
#
# 词元不能看到它后面的内容，因为那正是要预测的。这些得分换成负无穷，指数之后就是 0。

# %%
allowed = np.tril(np.ones((T, T), bool))
masked = np.where(allowed, scores, -np.inf)
exponentials = np.exp(masked - masked.max(axis=-1, keepdims=True))
weights = exponentials / exponentials.sum(axis=-1, keepdims=True)
assert np.allclose(weights.sum(axis=-1), 1, atol=1e-5)
assert (weights[:, ~allowed] == 0).all()
assert np.allclose(weights[:, 0, 0], 1)  # the first token can only look at itself
print("pairs that are seen:", allowed.sum(), "of", T * T)
assert allowed.sum() == 351  # 1 + 2 + ... + 26

# %%
figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
axes[0].imshow(np.where(allowed, scores[0], np.nan), cmap="RdBu")
axes[0].set_title("scores")
axes[1].imshow(weights[0], cmap="Blues")
axes[1].set_title("weights")
for axis in axes:
    axis.set_xticks(range(T), TEXT, fontsize=6)
    axis.set_yticks(range(T), TEXT, fontsize=6)
plt.show()

# %% [markdown]
# ## Mixing values, joining heads
#
# Each token takes the mean of the values it sees, weighed by its row. The 8 results of 64 are put
# side by side, 512 again, and pass a last matrix.
#
# ## 混合值，合并各头
#
# 每个词元按自己那一行的权重，对看到的值求加权平均。8 个 64 维的结果并排成 512 维，
# 再乘最后一个矩阵。

# %%
mixed = weights @ v
joined = mixed.transpose(1, 0, 2).reshape(T, D)
out = joined @ W_o
assert out.shape == x.shape
print("one head", mixed.shape, "-> all", joined.shape, "-> out", out.shape)

# %% [markdown]
# ## The same from jaxlm
#
# jaxlm's `Attention` gets our matrices as its parameters.
#
# ## jaxlm 给出同样的数
#
# 把我们的矩阵作为参数交给 jaxlm 的 `Attention`。

# %%
config = jaxlm.ModelConfig(
    vocab_size=tokenizer.vocab_size,
    d_model=D,
    num_heads=N,
    num_layers=1,
    max_seq_len=T,
    bias=False,
    positions="sinusoidal",
)
module = Attention(config)
params = {
    name: {"kernel": jnp.asarray(matrix)}
    for name, matrix in [("query", W_q), ("key", W_k), ("value", W_v), ("output", W_o)]
}
theirs, _ = module.apply({"params": params}, x[None], causal=True)
difference = np.abs(np.asarray(theirs[0]) - out).max()
print(f"largest difference {difference:.1e}")
assert difference < 1e-4

# %% [markdown]
# ## Inside a whole model
#
# In a model of these sizes the same names can be captured, and every step checked on its own.
#
# ## 在整个模型里
#
# 在同样大小的模型里，可以按名字取出每一步，逐步核对。

# %%
model = jaxlm.CausalLM(config)
loaded = jaxlm.Loaded(model, model.init(jax.random.key(0), ids[None])["params"], tokenizer, config)
_, found = inspection.run(loaded, ids, ["embeddings", "layers_0/attention/*"])
part = {name.split("/")[-1]: np.asarray(value[0]) for name, value in found.items()}
for name, value in part.items():
    print(f"{name:12s} {value.shape}")

# %%
scores = part["query"] @ part["key"].transpose(0, 2, 1) / np.sqrt(H)
scores = np.where(allowed, scores, -np.inf)
by_hand = np.exp(scores - scores.max(axis=-1, keepdims=True))
by_hand /= by_hand.sum(axis=-1, keepdims=True)
assert np.abs(by_hand - part["weights"]).max() < 1e-5
assert np.abs(by_hand @ part["value"] - part["mixed"]).max() < 1e-4
table = np.asarray(loaded.params["backbone"]["embed"]["tokens"])
assert np.abs(table[ids] + places(T, D) - part["embeddings"]).max() < 1e-4
print("NumPy and jaxlm agree / 两边一致")

# %% [markdown]
# ## Your turn
#
# Shuffle the 26 tokens and leave `places` out. Which numbers change, which only move?
#
# ## 轮到你了
#
# 打乱 26 个词元，去掉 `places`。哪些数变了，哪些只是换了位置？
