"""A linear probe with fastai: a Learner over timm's model, all but the classifier frozen, fit one cycle."""

from __future__ import annotations

import time
import warnings

START = time.perf_counter()
warnings.filterwarnings("ignore")

import timm  # noqa: E402
import torch  # noqa: E402
from common import Images, arguments, prepared, report, rows_of  # noqa: E402
from fastai.callback.core import Callback  # noqa: E402
from fastai.callback.schedule import Learner  # noqa: E402
from fastai.data.core import DataLoaders  # noqa: E402
from fastai.data.load import DataLoader  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402


class EvalMode(Callback):
    """fastai puts the whole model into train mode; the frozen backbone is kept out of it."""

    def before_train(self):
        self.learn.model.eval()


def main() -> None:
    """Train, predict, report."""
    options, imports = arguments(), time.perf_counter() - START
    torch.manual_seed(0)
    rows, classes = rows_of(options.data)
    model = timm.create_model(options.model, num_classes=len(classes))
    transform = prepared(model, options.weights)
    sides = [Images(rows, split, classes, transform) for split in ("train", "test")]
    train = DataLoader(sides[0], bs=options.batch, shuffle=True, num_workers=options.workers)
    test = DataLoader(sides[1], bs=options.batch, num_workers=options.workers)
    # fastai validates after each epoch; the test side is looked at once, at the end
    nothing = DataLoader(Images([], "test", classes, transform), bs=options.batch)
    loaders = DataLoaders(train, nothing, device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    learner = Learner(
        loaders,
        model,
        loss_func=cross_entropy,
        splitter=lambda m: [[p for p in m.parameters() if p.requires_grad]],
        train_bn=False,
        cbs=EvalMode(),
    )
    with learner.no_bar(), learner.no_logging():
        start = time.perf_counter()
        learner.fit_one_cycle(options.epochs, options.lr)
        seconds = time.perf_counter() - start
        outputs, labels = learner.get_preds(dl=test)
    report(outputs.softmax(1), labels, imports, seconds, options.epochs, start)


if __name__ == "__main__":
    main()
