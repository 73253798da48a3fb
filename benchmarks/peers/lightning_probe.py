"""A linear probe as a Lightning module: frozen timm backbone, linear head."""

from __future__ import annotations

import logging
import time
import warnings

START = time.perf_counter()
warnings.filterwarnings("ignore")

import lightning  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from common import Images, arguments, prepared, report, rows_of  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402


class Probe(lightning.LightningModule):
    """The backbone stays in eval mode and without gradients."""

    def __init__(self, options, count):
        super().__init__()
        self.options = options
        self.body = timm.create_model(options.model, num_classes=count)
        self.transform = prepared(self.body, options.weights)

    def on_train_epoch_start(self):
        self.body.eval()

    def forward(self, x):
        with torch.no_grad():
            features = self.body.forward_head(self.body.forward_features(x), pre_logits=True)
        return self.body.get_classifier()(features)

    def training_step(self, batch, index):
        return cross_entropy(self(batch[0]), batch[1])

    def predict_step(self, batch, index):
        return self(batch[0]).softmax(1), batch[1]

    def configure_optimizers(self):
        return torch.optim.AdamW(self.body.get_classifier().parameters(), lr=self.options.lr, weight_decay=0.01)


def main() -> None:
    """Train, predict, report."""
    options, imports = arguments(), time.perf_counter() - START
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    lightning.seed_everything(0, verbose=False)
    rows, classes = rows_of(options.data)
    model = Probe(options, len(classes))
    sides = [Images(rows, split, classes, model.transform) for split in ("train", "test")]
    train = DataLoader(sides[0], options.batch, shuffle=True, num_workers=options.workers)
    test = DataLoader(sides[1], options.batch, num_workers=options.workers)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(max_epochs=options.epochs, accelerator="auto", devices=1, **quiet)
    start = time.perf_counter()
    trainer.fit(model, train)
    seconds = time.perf_counter() - start
    answers = trainer.predict(model, test)
    probabilities, labels = (torch.cat([a[i] for a in answers]) for i in (0, 1))
    report(probabilities, labels, imports, seconds, options.epochs, start)


if __name__ == "__main__":
    main()
