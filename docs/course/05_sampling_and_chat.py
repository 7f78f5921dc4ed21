# %% [markdown]
# # 5. Sampling and chat
#
# A model gives probabilities; rules turn them into a text. We watch each rule cut the same
# distribution, then train a model on dialogues in which [SEP] ends a turn: that is all a chat is.
#
# # 第五课：采样与对话
#
# 模型给出概率，规则把概率变成文本。我们看每条规则怎样裁剪同一个分布，再用对话训练一个模型，
# 其中 [SEP] 表示一句话说完：聊天不过如此。

# %%
import os
import tempfile

import jax
import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.generation.chat import Chat
from jaxlm.inspection.fonts import fonts_for
from jaxlm.tokenizer.chat import dialogue_ids
from jaxlm.training import fit

PROMPT = "今天天气真"
plt.rcParams["font.family"] = ["DejaVu Sans", *fonts_for(PROMPT)[0]]
# What training writes goes to a folder of its own / 训练结果放在临时目录
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## One distribution, four rules
#
# Eight tokens, from likely to unlikely. Temperature sharpens or flattens; top-k keeps k tokens;
# top-p keeps the fewest that hold a share p; min-p keeps those not far below the best. What stays
# is scaled to sum to 1.
#
# ## 一个分布，四条规则
#
# 八个词元，从可能到不太可能。温度让分布更尖或更平；top-k 只留 k 个；top-p 留下总概率达到 p
# 的最少几个；min-p 留下不比最大者低太多的。留下的再缩放到和为 1。

# %%
p = np.array([0.40, 0.22, 0.14, 0.09, 0.06, 0.04, 0.03, 0.02])
assert np.isclose(p.sum(), 1)


def scaled(kept):
    return kept / kept.sum()


by_hand = {
    "as it is": p,
    "temperature 0.5": scaled(p**2),
    "top-k 3": scaled(np.where(np.arange(8) < 3, p, 0)),
    "top-p 0.8": scaled(np.where(np.cumsum(p) - p < 0.8, p, 0)),
    "min-p 0.12": scaled(np.where(p >= 0.12 * p.max(), p, 0)),
}
figure, axes = plt.subplots(1, 5, figsize=(9, 1.8), sharey=True)
for axis, (name, shares) in zip(axes, by_hand.items(), strict=True):
    axis.bar(range(8), shares)
    axis.set_title(name, fontsize=8)
assert [int((shares > 0).sum()) for shares in by_hand.values()] == [8, 8, 3, 4, 5]

# %% [markdown]
# ## The same in jaxlm
#
# The rules are pure functions over logits (B, V), in `jaxlm/generation/rules.py`. We draw 4,000
# times from a model whose logits are these, and count.
#
# ## 在 jaxlm 里
#
# 这些规则是 logits (B, V) 上的纯函数，写在 `jaxlm/generation/rules.py`。
# 用一个恰好给出这些 logit 的模型抽 4000 次，数一数。

# %%
config = jaxlm.ModelConfig(
    vocab_size=8, d_model=8, num_layers=1, num_heads=1, max_seq_len=4, head_bias=True
)
model = jaxlm.CausalLM(config)
params = model.init(jax.random.key(0), np.zeros((1, 1), int))["params"]
params = jax.tree.map(np.zeros_like, params)  # all weights 0: only the bias of the head speaks
(bias,) = [
    path
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if leaf.shape == (8,) and len(path) == 1
]
params[bias[0].key] = np.log(p).astype(np.float32)


def drawn(**options):
    rows = np.zeros((4000, 1), int)
    tokens = jaxlm.generate_tokens(model, params, rows, max_new_tokens=1, seed=3, **options)
    return np.bincount(np.asarray(tokens)[:, 0], minlength=8) / 4000


options = [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"min_p": 0.12}]
for (name, shares), given in zip(by_hand.items(), options, strict=True):
    seen = drawn(**given)
    print(f"{name:16s} {np.round(seen, 2).tolist()}")
    assert np.abs(seen - shares).max() < 0.03
    assert ((seen > 0) <= (shares > 0)).all()  # nothing that the rule took away

# %% [markdown]
# ## A dialogue is a text with [SEP]
#
# `[CLS] question [SEP] answer [SEP]`. The loss counts in the answers only; when the model writes
# [SEP], its turn is over.
#
# ## 对话就是带 [SEP] 的文本
#
# `[CLS] 问 [SEP] 答 [SEP]`。损失只计算回答部分；模型写出 [SEP]，就说完了。

# %%
words = ["--finetune.init_from", "null", "--finetune.dropout", "null", "--data.seq_len", "48"]
words += ["--model.num_layers", "2", "--model.d_model", "96", "--data.tokenizer", "char"]
words += ["--data.special_tokens", "cls_sep", "--optim.name", "muon", "--optim.learning_rate"]
words += ["1e-2", "--train.epochs", "6", "--train.eval_every", "52", "--sample.every", "0"]
talker = fit(jaxlm.load_config("chat_zh.yaml", words))

# %%
turns = [{"role": "user", "content": PROMPT}]
ids = dialogue_ids(talker.tokenizer, turns, {})
print(inspection.token_texts(talker.tokenizer, ids))
assert ids[0] == talker.tokenizer.cls_id
assert ids[-1] == talker.tokenizer.sep_id

# %% [markdown]
# 今 occurs in none of the dialogues: it is read as [UNK], the unknown character.
#
# “今”在这些对话里从没出现过：它被读成 [UNK]，即未知字符。

# %% [markdown]
# 467 dialogues are very few: it answers in Chinese, not in sense. What it did learn is when to
# answer and when to stop.
#
# 467 段对话太少：回答是中文，却未必有道理。它真正学会的，是何时回答、何时停下。

# %%
chat = Chat(talker, max_new_tokens=24, temperature=0)
for question in [PROMPT, "你是谁"]:
    print("问:", question)
    print("答:", "".join(chat.reply(question)))
assert [turn["role"] for turn in chat.messages] == ["user", "assistant"] * 2

# %% [markdown]
# The probability of [SEP] at each place of the answer: low while there is something to say, high
# at the end.
#
# 回答中每个位置上 [SEP] 的概率：还有话说时低，说完时高。

# %%
sep = talker.tokenizer.sep_id
answer = chat.messages[1]["content"]
row = [*ids, *talker.tokenizer.encode(answer)]
logits, _ = inspection.run(talker, row)
chances = np.asarray(jax.nn.softmax(logits[0]))[len(ids) - 1 :, sep]
plt.figure(figsize=(5, 2))
plt.bar(range(len(chances)), chances)
plt.xticks(
    range(len(chances)), ["[SEP]", *inspection.token_texts(talker.tokenizer, row[len(ids) :])]
)
plt.ylabel("p([SEP])")
assert chances[-1] == chances.max()

# %% [markdown]
# ## Your turn
#
# Ask the same question at temperature 1 with five seeds. What stays, what changes?
#
# ## 轮到你了
#
# 用温度 1、五个不同的随机种子问同一个问题。什么不变，什么在变？
