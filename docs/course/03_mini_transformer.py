# %% [markdown]
# # 3. A mini transformer
#
# Twelve characters are the whole library of our first model: 写代码的中年人天天写代码, eight
# different ones. It learns them by heart. Then the same program reads Shakespeare.
#
# # 第三课：迷你 Transformer
#
# 第一个模型的全部藏书是十二个字：写代码的中年人天天写代码，其中不同的字有八个。
# 它会把这句话背下来。然后，同一个程序去读莎士比亚。

# %%
import json
import os
import tempfile
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.inspection.fonts import fonts_for
from jaxlm.training import fit

SENTENCE = "写代码的中年人天天写代码"
plt.rcParams["font.family"] = ["DejaVu Sans", *fonts_for(SENTENCE)[0]]
# What training writes goes to a folder of its own / 训练结果放在临时目录
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## Eight symbols
#
# The recipe is `configs/mini_transformer_zh.yaml`: two blocks, two heads, vectors of 16 numbers.
# From a shell it is `python train.py --config mini_transformer_zh.yaml`.
#
# ## 八个字
#
# 配方是 `configs/mini_transformer_zh.yaml`：两层、两个头、16 维的向量。
# 在命令行里就是 `python train.py --config mini_transformer_zh.yaml`。

# %%
mini = fit(jaxlm.load_config("mini_transformer_zh.yaml"))

# %%
tokenizer = mini.tokenizer
print({tokenizer.decode([i]): i for i in range(tokenizer.vocab_size)})
assert tokenizer.vocab_size == len(set(SENTENCE)) == 8
assert len(SENTENCE) == 12

# %% [markdown]
# ## What is in it
#
# All parameters, block by block: one vector for each symbol and each place, then matrices.
#
# ## 里面有什么
#
# 全部参数：每个字一个向量，每个位置一个向量，其余是矩阵。

# %%
leaves = jax.tree_util.tree_leaves_with_path(mini.params)
for path, leaf in leaves:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if "layers_1" not in name:  # the second block has the same parts as the first
        print(f"{name:52s} {leaf.shape}")
total = sum(leaf.size for _, leaf in leaves)
print(f"{total:,} numbers")
assert total == jaxlm.num_params(mini.config)

# %% [markdown]
# ## 写代码 -> 的
#
# 写代码 occurs twice: once 的 follows, once the text ends. So 的 is the only thing that ever
# followed it.
#
# “写代码”出现两次：一次后面是“的”，一次文本结束。所以后面出现过的只有“的”。

# %%
logits, found = inspection.run(mini, "写代码", "layers_1/attention/weights")
for row in inspection.next_token_table(tokenizer, logits[0, -1], top=4):
    print(f"{row.text}  {row.probability:.4f}")
assert inspection.next_token_table(tokenizer, logits[0, -1])[0].text == "的"

# %%
whole = jaxlm.generate(mini, "写代码", max_new_tokens=9, temperature=0)
print("写代码" + whole)
assert (
    "写代码" + whole[:5] == SENTENCE[:8]
)  # as many as the model can see at once / 上下文共 8 个字

# %% [markdown]
# After 天 comes 天 or 写: which one depends on what stood before it. The loss of each token shows
# where the model is in doubt, and that it looks further back than one token.
#
# “天”后面可能是“天”，也可能是“写”：要看前面是什么。每个词元的损失显示模型在哪里犹豫，
# 也显示它看得比前一个字更远。

# %%
ids = np.array(tokenizer.encode(SENTENCE[2:10]))  # 码的中年人天天写
scores = inspection.token_scores(inspection.run(mini, ids)[0][0], ids)
plt.figure(figsize=(5, 2))
plt.bar(range(1, 8), scores.loss)
plt.xticks(range(1, 8), SENTENCE[3:10])
plt.ylabel("loss (nats)")
print("mean", float(scores.loss.mean()))
assert scores.loss.mean() < 0.3

# %% [markdown]
# ## Now Shakespeare
#
# The same program, a million characters, four blocks of 128 numbers. The recipe trains 2,000 steps
# in three minutes; we give it 150.
#
# ## 现在读莎士比亚
#
# 同一个程序，一百万个字符，四层，128 维。配方训练 2000 步，需要三分钟；这里只训练 150 步。

# %%
options = ["--train.steps", "150", "--train.eval_every", "50", "--train.checkpoint_every", "50"]
options += ["--optim.warmup_steps", "20", "--sample.every", "0"]
bard = fit(jaxlm.load_config("gpt_tiny.yaml", options))

# %% [markdown]
# Before training every one of 65 characters is as likely as another: $\ln 65 = 4.17$ nats. What is
# it now?
#
# 训练之前，65 个字符的概率都一样：$\ln 65 = 4.17$ nats。现在是多少？

# %%
metrics = Path("runs/gpt_tiny/metrics.jsonl").read_text()
rows = [json.loads(line) for line in metrics.splitlines()]
train_rows = [row for row in rows if row["split"] == "train"]
val_rows = [row for row in rows if row["split"] == "val"]
plt.figure(figsize=(5, 2.4))
plt.plot([r["step"] for r in train_rows], [r["loss"] for r in train_rows], label="train")
plt.plot([r["step"] for r in val_rows], [r["loss"] for r in val_rows], "o-", label="val")
plt.axhline(np.log(65), color="gray", linestyle=":", label="ln 65")
plt.xlabel("step")
plt.ylabel("loss (nats per character)")
plt.legend()
print(f"validation loss {val_rows[-1]['loss']:.3f}")
assert abs(np.log(65) - 4.17) < 0.005
assert val_rows[-1]["loss"] < 2.4

# %%
print(jaxlm.generate(bard, "ROMEO:", max_new_tokens=200, temperature=0.7, seed=2))

# %% [markdown]
# Words, names, lines, speakers: all from the next character. Let the recipe run to its end and the
# loss reaches 1.60.
#
# 单词、人名、分行、角色：全都来自“下一个字符”。让配方跑完，损失会降到 1.60。

# %% [markdown]
# ## Your turn
#
# Train the eight symbols with `--model.positions none`. Which characters does it get wrong, and
# why?
#
# ## 轮到你了
#
# 用 `--model.positions none` 再训练八个字的模型。哪些字会猜错？为什么？
