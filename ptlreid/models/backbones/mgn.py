"""MGN (Wang et al. 2018), three branches on ResNet-50, at 384×128."""

from ptlreid.models import mgn, resnet, staged
from ptlreid.models.network import Backbone

BACKBONE = Backbone(
    network=mgn.build,
    imagenet=staged.imagenet("resnet50"),
    rename=mgn.rename,
    layers=resnet.LAYERS,
    multiples=(96, 32),  # the map at stride 16 divides into halves and thirds
    input_size=(384, 128),
    paper=(66, None),
)
