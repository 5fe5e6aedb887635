"""A replication of I-SCE (inference-softmax cross-entropy), and attacks that do not depend on the scale of logits."""

from isce.losses import ISCELoss, isce_loss

__version__ = "0.1.0"
__all__ = ["ISCELoss", "isce_loss"]
