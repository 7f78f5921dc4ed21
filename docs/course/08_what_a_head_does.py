# %% [markdown]
# # 8. What a head does
#
# Read "… 张三 … 张" and you know how it goes on: as it did before. A model with two blocks of
# attention learns this trick, and one head does most of the work: an induction head. We train one,
# find it, switch it off, and patch it.
#
# # 第八课：一个头在做什么
#
# 读到“……张三……张”，你知道下一个字：照上次那样。只有两层注意力的模型也能学会这一招，
# 其中一个头承担主要工作：归纳头（induction head）。我们训练它，找到它，关掉它，再修补它。

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

import jaxlm
from jaxlm import inspection
from jaxlm.ops.reductions import cross_entropy
from jaxlm.tokenizer import train_tokenizer

LETTERS = "".join(chr(0x4E00 + i) for i in range(30))
LENGTH = 32

# %% [markdown]
# ## The task
#
# Each row repeats a random sequence. Its length differs from row to row, so no fixed distance leads
# to the right token: the model has to look up what followed last time.
#
# ## 任务
#
# 每一行是一段随机序列的重复。每行的周期不同，固定的距离没有用：模型必须去查上一次后面跟着什么。


# %%
def batch(key, rows):
    """Ids (B, T), and where a token repeats one of its row (B, T)."""
    first, second = jax.random.split(key)
    periods = jax.random.randint(first, (rows, 1), 5, 17)
    tokens = jax.random.randint(second, (rows, 16), 0, len(LETTERS))
    place = jnp.arange(LENGTH)[None]
    return jnp.take_along_axis(tokens, place % periods, axis=1), place > periods


ids, repeats = batch(jax.random.key(1), 2)
for row, seen in zip(ids, repeats, strict=True):
    print(row[: int((~seen).sum())], "again / 重复", row[int((~seen).sum()) :])

# %% [markdown]
# ## An attention-only model
#
# Two blocks of four heads; what the feed-forward adds is held at zero.
#
# ## 只有注意力的模型
#
# 两层，每层四个头；前馈网络的输出固定为零。

# %%
config = jaxlm.ModelConfig(
    vocab_size=len(LETTERS),
    d_model=64,
    num_layers=2,
    num_heads=4,
    d_ff=4,
    max_seq_len=LENGTH,
    positions="rotary",
    bias=False,
)
model = jaxlm.CausalLM(config)
STEPS = 900


def attention_only(params):
    leaves = flatten_dict(params, sep="/")
    return unflatten_dict(
        {k: 0 * v if "feed_forward/down" in k else v for k, v in leaves.items()}, sep="/"
    )


def repeated_loss(params, key, rows=32, edit=None):
    """The mean loss in nats of the tokens that repeat."""
    ids, repeats = batch(key, rows)
    logits, _ = inspection.forward(model, params, ids, edit=edit)
    losses = cross_entropy(logits[:, :-1], ids[:, 1:]) * repeats[:, 1:]
    return losses.sum() / repeats[:, 1:].sum()


def sharing(params):
    """A small penalty on heads 2, 3 and 4, so that one head does what one head can."""
    total = 0.0
    for i in range(2):
        part = params["backbone"][f"layers_{i}"]["attention"]
        out = (part["output"]["kernel"].reshape(4, -1) ** 2).sum(1)
        values = (part["value"]["kernel"].reshape(64, 4, -1) ** 2).sum((0, 2))
        total += (jnp.arange(4) * (out + values)).sum()
    return 0.01 * total


optimizer = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 100, STEPS))


@jax.jit
def step(params, state, key):
    def objective(params):
        loss = repeated_loss(params, key)
        return loss + sharing(params), loss

    gradients, loss = jax.grad(objective, has_aux=True)(params)
    updates, state = optimizer.update(gradients, state)
    return attention_only(optax.apply_updates(params, updates)), state, loss


params = attention_only(model.init(jax.random.key(0), ids)["params"])
state, losses = optimizer.init(params), []
for key in jax.random.split(jax.random.key(2), STEPS):
    params, state, loss = step(params, state, key)
    losses.append(float(loss))

# %% [markdown]
# The loss falls suddenly: that is when the two heads find each other (Olsson et al. 2022).
#
# 损失突然下降：那一刻，两个头学会了配合（Olsson et al. 2022）。

# %%
plt.figure(figsize=(5, 2.2))
plt.plot(losses)
plt.axhline(np.log(len(LETTERS)), color="gray", linestyle=":")
plt.xlabel("step")
plt.ylabel("loss of repeats")
print(f"chance {np.log(len(LETTERS)):.2f}, now {losses[-1]:.3f} nats")
assert losses[-1] < 0.5

# %% [markdown]
# ## Find it
#
# A previous-token head looks at the token before. An induction head looks at what followed the last
# copy of its token. Scores from 0 to 1, for every head.
#
# ## 找到它
#
# “前一词元头”看前一个词元；归纳头看上一次出现同一词元之后的那个词元。每个头的得分在 0 到 1 之间。

# %%
loaded = jaxlm.Loaded(model, params, train_tokenizer("char", [LETTERS]), model.config)
scores = inspection.head_scores(loaded)
figure, axes = plt.subplots(1, 2, figsize=(5, 1.8))
for axis, name in zip(axes, ["previous_token", "induction"], strict=True):
    axis.imshow(getattr(scores, name), cmap="Blues", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_xlabel("head")
    axis.set_yticks([0, 1], ["block 1", "block 2"])
layer, head = map(int, np.unravel_index(np.argmax(scores.induction), (2, 4)))
print(f"induction head: block {layer + 1}, head {head + 1}, score {scores.induction.max():.2f}")
assert layer == 1
assert scores.induction.max() > 0.5

# %% [markdown]
# ## See it
#
# Its attention on a sequence of eight that comes three times: a line one past the last copy.
#
# ## 看见它
#
# 一段长 8 的序列重复三次时它的注意力：一条斜线，落在上一次出现的后一个位置。

# %%
row = np.tile(np.array([[3, 14, 8, 27, 11, 20, 5, 17]]), 3)
weights = inspection.attention_maps(loaded, row)[layer, 0, head]
plt.figure(figsize=(3.2, 3.2))
plt.imshow(weights, cmap="Blues", vmin=0, vmax=1)
plt.xlabel("looked at")
plt.ylabel("looking")
queries = np.arange(8, 24)
on_successors = sum(weights[queries, queries - lag] * (queries >= lag) for lag in (7, 15))
print(f"mean weight on the successors {np.mean(on_successors):.2f}")
assert np.mean(on_successors) > 0.5

# %% [markdown]
# ## Switch it off
#
# A picture shows where a head looks, not what it is for. So zero one head after the other and
# measure the loss.
#
# ## 关掉它
#
# 图只显示头在看哪里，不说明它有什么用。所以逐个把头清零，测量损失。

# %%
measured = jax.random.key(99)
whole = float(repeated_loss(params, measured))
without = np.array(
    [
        [
            float(repeated_loss(params, measured, edit=inspection.ablated(loaded, "heads", i, [n])))
            for n in range(4)
        ]
        for i in range(2)
    ]
)
print(f"all heads: {whole:.3f}")
print("without each / 去掉每个头之后:")
print(without.round(3))
assert without[layer, head] > 3 * whole
assert (np.delete(without[layer], head) < 2 * whole).all()

# %% [markdown]
# ## Patch it
#
# Two texts that differ in one token. Carry the state of one place from the clean run into the
# corrupted one, and ask whether the answer is right again: so one finds where the knowledge flows.
#
# ## 修补它
#
# 两段文本只差一个词元。把干净文本某个位置的状态搬进被改动的那次计算，看答案是否恢复：
# 这样就找到了信息流经的路。

# %%
clean = row[:, :13]  # … 3 14 8 27 11; the next is 20
corrupted = clean.copy()
corrupted[0, 5] = 9  # what followed 11 the first time
right, wrong = 20, 9
metric = inspection.logit_difference(right, wrong)
effects = inspection.patching_effects(loaded, clean, corrupted, metric)
ends = [metric(inspection.run(loaded, ids)[0]) for ids in (clean, corrupted)]
print(f"right minus wrong logit: clean {ends[0]:.1f}, corrupted {ends[1]:.1f}")
shares = np.asarray(inspection.restored(effects, *ends))

plt.figure(figsize=(6, 1.8))
plt.imshow(shares, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
plt.yticks(range(3), ["embeddings", "after block 1", "after block 2"])
plt.xticks(range(13), clean[0])
plt.xlabel("token of the clean text whose state is put in")
plt.colorbar(label="restored")
plt.show()

# %% [markdown]
# Before the second block the answer stands where 20 was read; after it, at the last token. The
# second block carried it over: that is the induction head.
#
# 第二层之前，答案在读到 20 的位置；第二层之后，在最后一个词元。是第二层把它搬了过去：
# 这就是归纳头。

# %%
assert ends[0] > 0 > ends[1]
assert shares[0].argmax() == 5
assert shares[1].argmax() == 5
assert shares[2].argmax() == 12
assert abs(shares[2, 12] - 1) < 1e-4

# %% [markdown]
# ## Your turn
#
# Train with one block. Can it learn the task? Why must there be two?
#
# ## 轮到你了
#
# 只用一层来训练。它能学会吗？为什么必须是两层？
