# %% [markdown]
# # 1. One token
#
# Six characters go in: 今天天气真的. A seventh comes out. Between them stand a vocabulary, vectors,
# attention, and one softmax. We train a model so small that every number can be looked at.
#
# # 第一课：一个词元
#
# 输入六个字：今天天气真的。输出第七个字。中间是词表、向量、注意力和一次 softmax。
# 我们训练一个很小的模型，小到每个数都能拿出来看。

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import jaxlm
from jaxlm import inspection
from jaxlm.inspection.fonts import fonts_for
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tokenizer import train_tokenizer

PROMPT = "今天天气真的"
plt.rcParams["font.family"] = ["DejaVu Sans", *fonts_for(PROMPT + "好冷热")[0]]

# %% [markdown]
# ## What the model reads
#
# A hundred people remark on the weather: 67 say it is good, 32 that it is cold, one that it is hot.
# Nothing else is in this world.
#
# ## 模型读什么
#
# 一百个人谈天气：67 个说好，32 个说冷，1 个说热。这就是它的整个世界。

# %%
counts = {"好": 67, "冷": 32, "热": 1}
sentences = [PROMPT + word for word in counts]
tokenizer = train_tokenizer("char", sentences)
for sentence in sentences:
    print(sentence, tokenizer.encode(sentence))

# %% [markdown]
# A character is now a number, its id. 天 occurs twice and has the same id both times.
#
# 每个字变成一个编号（id）。“天”出现两次，两次的编号相同。

# %%
ids = np.array([tokenizer.encode(sentence) for sentence in sentences])
shares = np.array(list(counts.values())) / 100
assert ids.shape == (3, 7)
assert ids[0, 1] == ids[0, 2] == tokenizer.encode("天")[0]

# %% [markdown]
# ## The model and its training
#
# Two blocks, vectors of 32 numbers. Each token predicts the next; the loss is the mean of
# $-\log p$ of what came, each sentence weighed by how many people said it.
#
# ## 模型与训练
#
# 两层，每个向量 32 个数。每个词元预测下一个；损失是实际出现的字的 $-\log p$ 的平均，
# 每句话按说的人数加权。

# %%
config = jaxlm.ModelConfig(
    vocab_size=tokenizer.vocab_size, d_model=32, num_layers=2, num_heads=2, max_seq_len=8
)
model = jaxlm.CausalLM(config)
params = model.init(jax.random.key(0), ids)["params"]
print(f"{jaxlm.num_params(config):,} parameters")


def loss_of(params):
    logits = model.apply({"params": params}, ids[:, :-1])
    return (cross_entropy(logits, ids[:, 1:]).mean(axis=1) * shares).sum()


optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 400))


@jax.jit
def step(params, state):
    loss, gradients = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, loss


state, losses = optimizer.init(params), []
for _ in range(400):
    params, state, loss = step(params, state)
    losses.append(float(loss))

# %% [markdown]
# The loss cannot reach 0: nobody can know whether this speaker will say 好 or 冷. Its floor is the
# entropy of the hundred answers, spread over six predictions of which five are certain.
#
# 损失到不了 0：没有人知道这个人要说“好”还是“冷”。它的下限是这一百个回答的熵，
# 平摊到六次预测上，其中五次是确定的。

# %%
floor = -(shares * np.log(shares)).sum() / 6
print(f"loss {losses[0]:.3f} -> {losses[-1]:.4f}, floor {floor:.4f} nats a token")
assert floor <= losses[-1] < floor + 0.003

plt.figure(figsize=(5, 2.2))
plt.semilogy(losses)
plt.axhline(floor, color="gray", linestyle=":", label="entropy of the data / 数据的熵")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.show()

# %% [markdown]
# ## From six characters to one vector
#
# `inspection.run` shows what happens on the way: each token becomes a vector of 32 numbers, each
# block mixes vectors by attention and passes each through its feed-forward. The last vector alone
# decides about the seventh character.
#
# ## 从六个字到一个向量
#
# `inspection.run` 让我们看到途中的一切：每个词元变成 32 个数；每一层先用注意力混合各个向量，
# 再让每个向量通过前馈网络。第七个字只由最后一个向量决定。

# %%
loaded = jaxlm.Loaded(model, params, tokenizer, config)
names = ["embeddings", "layers_*/attention/weights", "layers_*/residual", "final"]
logits, found = inspection.run(loaded, PROMPT, names)
for name, value in found.items():
    print(f"{name:30s} {value.shape}")
print(f"{'logits':30s} {logits.shape}")
assert logits.shape == (1, 6, tokenizer.vocab_size)

# %%
figure, axes = plt.subplots(1, 2, figsize=(6, 2.8))
for axis, head in zip(axes, found["layers_1/attention/weights"][0], strict=True):
    axis.imshow(head, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(6), PROMPT)
    axis.set_yticks(range(6), PROMPT)
axes[0].set_title("block 2, head 1")
axes[1].set_title("block 2, head 2")
plt.show()

# %% [markdown]
# A row is a token that looks, a column one that is looked at. Above the diagonal all is 0: a token
# sees only what came before it. Each row sums to 1.
#
# 一行是正在看的词元，一列是被看的词元。对角线以上都是 0：词元只能看到它之前的内容。
# 每一行的和为 1。

# %%
weights = np.asarray(found["layers_1/attention/weights"])
assert np.allclose(weights.sum(axis=-1), 1, atol=1e-5)
assert (np.triu(weights, k=1) == 0).all()

# %% [markdown]
# ## Softmax: from scores to probabilities
#
# The last vector is compared with the vector of every token in the vocabulary. That gives one score
# each, a logit. Softmax makes them positive and lets them sum to 1:
# $p_i = e^{z_i} / \sum_j e^{z_j}$.
#
# ## softmax：从得分到概率
#
# 最后一个向量与词表里每个词元的向量比较，各得一个分数（logit）。
# softmax 把它们变成正数，并使和为 1：$p_i = e^{z_i} / \sum_j e^{z_j}$。

# %%
z = np.asarray(logits[0, -1], np.float64)
p = np.exp(z - z.max())
p /= p.sum()
words = [tokenizer.decode([i]) for i in range(len(z))]
for i in np.argsort(-p)[:4]:
    print(f"{words[i]}  logit {z[i]:6.2f}  probability {p[i]:.2f}")

good, cold = p[words.index("好")], p[words.index("冷")]
assert abs(good - 0.67) < 0.005
assert abs(cold - 0.32) < 0.005
assert np.allclose(p, jax.nn.softmax(logits[0, -1]), atol=1e-5)

# %%
plt.figure(figsize=(5, 2.4))
plt.bar(words, p)
plt.ylabel("probability")
plt.title("今天天气真的…")
plt.show()

# %% [markdown]
# 0.67 and 0.32: as often as the hundred people said it. That is all a language model promises.
#
# 0.67 和 0.32：正是那一百个人说它们的频率。语言模型所承诺的，就是这个。

# %% [markdown]
# ## Choosing: greedy or sampled
#
# Greedy takes the likeliest token, every time the same. Sampling draws by probability: of 2,000
# draws about 0.67 are 好 and 0.32 are 冷.
#
# ## 选择：贪心或采样
#
# 贪心总是取概率最大的词元，每次都一样。采样按概率抽取：抽 2000 次，约 0.67 是“好”，0.32 是“冷”。

# %%
prompt = np.array([tokenizer.encode(PROMPT)])
greedy = jaxlm.generate_tokens(model, params, prompt, max_new_tokens=1, temperature=0)
print("greedy / 贪心:", tokenizer.decode(np.asarray(greedy)[0].tolist()))
assert tokenizer.decode(np.asarray(greedy)[0].tolist()) == "好"


def drawn(temperature):
    """The share of each token in 2,000 draws."""
    rows = np.repeat(prompt, 2000, axis=0)
    tokens = jaxlm.generate_tokens(
        model, params, rows, max_new_tokens=1, temperature=temperature, seed=1
    )
    return np.bincount(np.asarray(tokens)[:, 0], minlength=len(z)) / 2000


plain = drawn(1.0)
print("sampled / 采样:", {w: plain[words.index(w)].round(3).item() for w in counts})
assert abs(plain[words.index("好")] - 0.67) < 0.04
assert abs(plain[words.index("冷")] - 0.32) < 0.04

# %% [markdown]
# A temperature divides the logits first. Below 1 the likely becomes likelier: at 0.5 each
# probability is squared, and all are scaled to sum to 1 again.
#
# 温度先去除 logit。小于 1 时，可能的变得更可能：温度 0.5 等于把每个概率平方，再缩放到和为 1。

# %%
sharper = (p**2 / (p**2).sum())[words.index("好")]
seen = drawn(0.5)[words.index("好")]
print(f"at 0.5, 好: {sharper:.3f} by hand, {seen:.3f} drawn")
assert abs(seen - sharper) < 0.04
by_jax = jax.nn.softmax(logits[0, -1] / 0.5)[words.index("好")]
assert abs(by_jax - sharper) < 1e-4

# %% [markdown]
# ## Your turn
#
# Change the 67 and 32 and run it all again: which loss can it reach now, and what does greedy say?
#
# ## 轮到你了
#
# 改掉 67 和 32，全部重新运行：现在损失最低能到多少？贪心会说什么？
