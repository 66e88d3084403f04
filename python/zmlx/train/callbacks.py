# SPDX-License-Identifier: MIT
"""What a run says and remembers besides mlx_lm's own lines."""

from mlx_lm.tuner.callbacks import TrainingCallback


class ZMLXCallback(TrainingCallback):
    """Prints what patching did, once, and keeps the losses that are reported."""

    def __init__(self, patch_result=None, verbose=False):
        self.patch_result = patch_result
        self.verbose = verbose
        self.train_losses = []  # (iteration, loss)
        self.val_losses = []

    def on_train_loss_report(self, train_info):
        if self.patch_result is not None and self.verbose:
            print(self.patch_result.summary())
            self.patch_result = None
        self.train_losses.append((train_info["iteration"], train_info["train_loss"]))

    def on_val_loss_report(self, val_info):
        self.val_losses.append((val_info["iteration"], val_info["val_loss"]))

    @property
    def final_loss(self):
        return self.train_losses[-1][1] if self.train_losses else None
