"""A linear probe with the Hugging Face Trainer on its wrapper of a timm model, the body frozen, as is usually done."""

from __future__ import annotations

import os
import tempfile
import time

START = time.perf_counter()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
from common import Images, arguments, prepared, report, rows_of  # noqa: E402
from transformers import (  # noqa: E402
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainingArguments,
)


def main() -> None:
    """Train, predict, report. The Trainer puts the frozen body into train mode; it is kept in eval mode here."""
    options, imports = arguments(), time.perf_counter() - START
    torch.manual_seed(0)
    rows, classes = rows_of(options.data)
    model = TimmWrapperForImageClassification(
        TimmWrapperConfig(architecture=options.model, num_labels=len(classes), do_pooling=True)
    )
    body = model.timm_model
    model.requires_grad_(False)
    transform = prepared(body, options.weights)
    to_train_mode = body.train
    body.train = lambda mode=True: to_train_mode(False)

    def item(image, label):
        return {"pixel_values": image, "labels": label}

    train, test = (Images(rows, split, classes, transform, item) for split in ("train", "test"))
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=options.batch,
            learning_rate=options.lr,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            dataloader_num_workers=options.workers,
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to=[],
            seed=0,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(model=model, args=settings, train_dataset=train)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        found = trainer.predict(test)
    outputs = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    report(torch.tensor(outputs).softmax(1), found.label_ids, imports, seconds, options.epochs, start)


if __name__ == "__main__":
    main()
