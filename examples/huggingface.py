"""A classifier of Hugging Face's transformers, as it is (extra `hf`).

    python examples/huggingface.py

Here a tiny vision transformer made from its configuration, trained for a moment; a published one is

    caveat audit --model hf:google/vit-base-patch16-224 --test folder:val/ -o audit/

with the normalisation of its own image processor, or in Python `AutoModelForImageClassification.from_pretrained(...)`.
"""

import sys

import digits
import torch
from torch import nn

import caveat

try:
    import transformers
except ImportError:
    print("skipped: transformers is not installed; install it with  pip install 'caveat[hf]'")
    sys.exit(0)

torch.manual_seed(0)
config = transformers.ViTConfig(
    image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=64, num_labels=8,
)  # fmt: skip
model = transformers.ViTForImageClassification(config)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(20):
    for images, labels in digits.loader(digits.TRAIN, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images).logits, labels).backward()
        optimizer.step()

# It answers with an object that holds its logits among others: taken as it is, the classifier is found by itself.
record = caveat.audit(
    model.eval(),
    digits.loader(digits.HELD_OUT),
    train=digits.loader(digits.TRAIN),
    ood={"8-and-9": digits.loader(digits.UNSEEN)},
)
print(record.summary())
print(f"scores of features are taken before {record.head!r}")
