# %% [markdown]
# # 6. Encoder and decoder
#
# The model of the 2017 figure has two halves. The encoder reads the whole source; the decoder
# writes the target, and asks the encoder's vectors at every step. Its lesson: write a word
# backwards.
#
# # 第六课：编码器与解码器
#
# 2017 年那张图里的模型有两半：编码器读完整个源文本；解码器写目标文本，每写一步都去问编码器的向量。
# 它的练习：把一个单词倒过来写。

# %%
import os
import string
import tempfile
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.training import fit

LETTERS = string.ascii_lowercase
# What training writes goes to a folder of its own / 训练结果放在临时目录
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## Training
#
# Our own pairs: 8,000 words of 8 to 10 random letters. The recipe is `seq2seq_reverse.yaml`, two
# blocks on each side; `--data.source` names the file.
#
# ## 训练
#
# 自己造数据：8000 个 8 到 10 个字母的随机单词。配方是 `seq2seq_reverse.yaml`，两边各两层；
# `--data.source` 指定文件。

# %%
random = np.random.default_rng(0)
made = ("".join(random.choice([*LETTERS], random.integers(8, 11))) for _ in range(8000))
pairs = [f"{word}\t{word[::-1]}" for word in dict.fromkeys(made)]
Path("words.tsv").write_text("\n".join(["source\ttarget", *pairs]))
print(pairs[:3])

# %%
words = ["--data.source", "words.tsv", "--data.seq_len", "12", "--task.batch_tokens", "1024"]
words += ["--train.steps", "400", "--train.eval_every", "200", "--train.checkpoint_every", "200"]
words += ["--task.eval_rows", "200", "--optim.warmup_steps", "30", "--sample.every", "0"]
loaded = fit(jaxlm.load_config("seq2seq_reverse.yaml", words))

# %%
sources = ["attention", "transform", "decoders"]
written = jaxlm.translate(loaded, sources)
print(dict(zip(sources, written, strict=True)))
assert written == [word[::-1] for word in sources]

# %% [markdown]
# ## Three kinds of attention
#
# In the encoder each letter looks at all letters. In the decoder each looks at those written so
# far. In between stands cross-attention: queries from the target, keys and values from the source.
#
# ## 三种注意力
#
# 编码器里，每个字母看所有字母；解码器里，每个字母看已写出的部分；中间是交叉注意力：
# 查询来自目标，键和值来自源文本。

# %%
source, target = "blacksmith", "htimskcalb"
tokenizer = loaded.tokenizer
source_ids = jnp.array(tokenizer.encode_sources([source]))  # </s> closes it / 以 </s> 结尾
start = loaded.config.decoder_start_id
target_ids = jnp.array([[start, *tokenizer.encode(target)]])
logits, found = inspection.run(loaded, source_ids, "**/weights", target_ids=target_ids)
for name, value in found.items():
    print(f"{name:48s} {value.shape}")
assert logits.shape[:2] == target_ids.shape

# %% [markdown]
# Eight heads of cross-attention: a row is a letter to be written, a column a letter of the source.
#
# 交叉注意力的八个头：一行是要写的字母，一列是源文本的字母。

# %%
cross = np.stack([v[0] for k, v in found.items() if "cross_attention" in k])  # (L, N, T, S)
shown = [*source, "."]
assert cross.shape == (2, 4, len(target) + 1, len(shown))
figure, axes = plt.subplots(2, 4, figsize=(8, 4.2))
for axis, weights in zip(axes.ravel(), cross.reshape(8, *cross.shape[2:]), strict=True):
    axis.imshow(weights[: len(target)], cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(shown)), shown)
    axis.set_yticks(range(len(target)), target)
plt.show()

# %% [markdown]
# ## Which letter does a letter depend on?
#
# Heads share the work, so no single picture tells. Ask differently: put q in the place of one
# letter of the source after the other, and see which letters of the answer change. Backwards
# means a diagonal that falls the other way.
#
# ## 每个字母取决于哪个字母？
#
# 几个头分担工作，单看一张图说明不了问题。换个问法：依次把源文本的一个字母换成 q，
# 看答案里哪些字母变了。倒着写，就是一条反方向的对角线。

# %%
others = [source[:i] + "q" + source[i + 1 :] for i in range(len(source))]
answers = jaxlm.translate(loaded, others)
changed = np.array([[a != b for a, b in zip(answer, target, strict=True)] for answer in answers])
print(dict(zip(others[:3], answers[:3], strict=True)))
plt.figure(figsize=(3.4, 3.2))
plt.imshow(changed.T, cmap="Reds")
plt.xticks(range(len(source)), source)
plt.yticks(range(len(target)), target)
plt.xlabel("source letter replaced")
plt.ylabel("letter of the answer that changes")
plt.show()
assert (changed == np.eye(len(source), dtype=bool)[::-1]).all()

# %% [markdown]
# ## Step by step
#
# When it writes, the source is read once. Each step then reads one new letter, its own past from
# the cache, and the source through cross-attention.
#
# ## 一步一步地写
#
# 写的时候，源文本只读一次。之后每一步读一个新字母、缓存里自己的过去，以及通过交叉注意力读源文本。

# %%
steps = inspection.run_generation(
    loaded,
    jnp.array([[start]]),
    "decoder/layers_0/**/weights",
    max_new_tokens=len(source),
    source_ids=source_ids,
    temperature=0,
)
written = ""
for step in steps:
    written += tokenizer.decode(step.tokens.tolist())
    shapes = [value.shape for value in step.activations.values()]
    print(f"{written:10s} own past {shapes[0]}, source {shapes[1]}")
assert written == target

# %% [markdown]
# ## The other half matters
#
# Zero what cross-attention brings, and nothing of the source is left: every letter is as likely as
# another.
#
# ## 另一半很重要
#
# 把交叉注意力带来的内容清零，源文本就完全看不到了：每个字母差不多一样可能。

# %%
labels = np.array(tokenizer.encode(target))
off = {"decoder/layers_*/cross_attention/mixed": lambda x: 0 * x}
blind, _ = inspection.run(loaded, source_ids, edit=off, target_ids=target_ids)
seen = np.asarray(logits)[0, : len(target)].argmax(axis=-1)
unseen = np.asarray(blind)[0, : len(target)].argmax(axis=-1)
print(
    f"right with the source {(seen == labels).mean():.0%}, without {(unseen == labels).mean():.0%}"
)
assert (seen == labels).all()
assert (unseen == labels).mean() < 0.5

# %% [markdown]
# ## Your turn
#
# Make pairs whose target is the word itself. How will the picture of cross-attention look?
#
# ## 轮到你了
#
# 造一些目标就是单词本身的数据来训练。交叉注意力的图会变成什么样？
