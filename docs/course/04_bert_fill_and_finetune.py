# %% [markdown]
# # 4. BERT: fill the gap, then fine-tune
#
# A decoder reads from left to right. BERT reads both sides at once and learns by filling gaps:
# 服务员的态度很[MASK]. What it learns so serves a second task, telling good reviews from bad ones.
#
# # 第四课：BERT 填空，再微调
#
# 解码器从左往右读。BERT 同时看两边，靠填空来学习：服务员的态度很[MASK]。
# 这样学到的东西，再用于第二个任务：区分好评和差评。

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import jaxlm
from jaxlm import inspection
from jaxlm.generation.text import fill
from jaxlm.inspection.fonts import fonts_for
from jaxlm.training import fit

TEXT = "服务员的态度很[MASK]，房间很干净。"
plt.rcParams["font.family"] = ["DejaVu Sans", *fonts_for(TEXT + "好差评")[0]]
# What training writes goes to a folder of its own / 训练结果放在临时目录
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## Pretraining by gaps
#
# The recipe `bert_tiny_zh.yaml` in small: two blocks, 4,000 shop reviews, 250 steps. A quarter of
# the tokens is hidden, and the loss counts at those places only.
#
# ## 用填空预训练
#
# 缩小的 `bert_tiny_zh.yaml`：两层，4000 条评论，250 步。四分之一的词元被遮住，
# 只在这些位置计算损失。

# %%
small = ["--model.num_layers", "2", "--model.d_model", "96", "--model.max_seq_len", "48"]
small += ["--data.source", "sample:reviews_zh", "--data.seq_len", "48", "--data.vocab_size", "3000"]
small += ["--task.masking", "token", "--train.steps", "250", "--train.eval_every", "125"]
small += ["--train.checkpoint_every", "125", "--optim.warmup_steps", "30", "--sample.every", "0"]
bert = fit(jaxlm.load_config("bert_tiny_zh.yaml", small))

# %% [markdown]
# A text stands between [CLS] and [SEP], each with an id like any other token.
#
# 文本放在 [CLS] 和 [SEP] 之间，它们和别的词元一样有自己的编号。

# %%
ids = bert.tokenizer.backend.encode(TEXT).ids
tokens = inspection.token_texts(bert.tokenizer, ids)
print(list(zip(tokens, ids, strict=True)))
place = tokens.index("[MASK]")
assert ids[place] == bert.tokenizer.mask_id
assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")

# %%
filled = fill(bert, TEXT, top=5)
for token, probability in filled.candidates[0]:
    print(f"{token}  {probability:.3f}")
print(filled.text)

# %% [markdown]
# After 250 steps it knows which characters are frequent and which stand together, not yet what
# fits. The whole recipe takes 5,000 steps. Half of the learning is enough for what comes next.
#
# 250 步之后，它知道哪些字常见、哪些字常在一起，还不知道哪个字合适。完整的配方要训练 5000 步。
# 不过对下一步来说，学到一半也够用。

# %% [markdown]
# ## It looks both ways
#
# Change a word behind the gap and the guess changes. A decoder could not have noticed.
#
# ## 它看两边
#
# 改掉空格后面的词，猜测就变了。解码器不可能注意到这一点。

# %%
logits, found = inspection.run(bert, TEXT, "layers_*/attention/weights")
other, _ = inspection.run(bert, TEXT.replace("干净", "破旧"))
change = np.abs(np.asarray(logits - other)[0, place]).max()
print(f"largest change of a logit at the gap / 空格处 logit 的最大变化: {change:.2f}")
assert change > 0.01

weights = np.asarray(found["layers_1/attention/weights"][0]).mean(axis=0)
assert weights[place, place + 1 :].sum() > 0.05  # it attends to what comes later

plt.figure(figsize=(4.2, 3.6))
plt.imshow(weights, cmap="Blues", vmin=0)
shown = [token.strip("[]")[:1] if token[0] == "[" else token for token in tokens]
plt.xticks(range(len(ids)), shown, fontsize=8)
plt.yticks(range(len(ids)), shown, fontsize=8)
plt.title("block 2, mean of heads")
plt.show()

# %% [markdown]
# ## Fine-tuning
#
# The head that fills gaps is taken off, one with two outputs put on. All weights go on from where
# pretraining left them. The recipe is `finetune_sentiment_zh.yaml`.
#
# ## 微调
#
# 去掉填空的头，换上只有两个输出的头。其余权重从预训练的结果继续。
# 配方是 `finetune_sentiment_zh.yaml`。

# %%
tune = ["--finetune.init_from", "runs/bert_tiny_zh", "--data.seq_len", "48"]
tune += ["--train.epochs", "2", "--train.eval_every", "100", "--train.checkpoint_every", "100"]
tune += ["--optim.warmup_steps", "20"]
judge = fit(jaxlm.load_config("finetune_sentiment_zh.yaml", tune))

# %%
texts = ["房间很干净，服务很好，下次还来。", "质量太差了，用了一天就坏了。"]
for text, answer in zip(texts, jaxlm.predict(judge, texts), strict=True):
    print(text, answer)
labels = [answer["label"] for answer in jaxlm.predict(judge, texts)]
assert labels == ["1", "0"]

# %% [markdown]
# ## Which words decided?
#
# Leave out one token after the other, and see how far the score of its label falls.
#
# ## 哪些字起了作用？
#
# 逐个去掉词元，看这个标签的得分下降多少。

# %%
text = texts[1]
target = inspection.label_target(0)
shares = np.asarray(inspection.occlusion(judge, text, target)).reshape(-1)
tokens = inspection.token_texts(judge.tokenizer, judge.tokenizer.backend.encode(text).ids)
plt.figure(figsize=(6, 2))
plt.bar(range(len(tokens)), shares)
plt.xticks(range(len(tokens)), [token[:1] if token[0] != "[" else "·" for token in tokens])
plt.ylabel("fall of the score")
assert len(shares) == len(tokens)

# %% [markdown]
# ## Your turn
#
# Fine-tune with `--finetune.random_init true`: how much was pretraining worth?
#
# ## 轮到你了
#
# 加上 `--finetune.random_init true` 再微调一次：预训练值多少？
